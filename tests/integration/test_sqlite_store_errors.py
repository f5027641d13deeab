"""The SQLite store where things are not as they should be: files, rights, locks, layouts."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from support.files import as_nobody
from undrift import mounts
from undrift.errors import ConfigError, StoreUnavailable, WriteFailed
from undrift.mounts import filesystem_of
from undrift.ports import VectorStore
from undrift.stores import _sqlite_file, open_store
from undrift.stores.sqlite import SqliteStore
from undrift.testing.builders import DIMENSION, MODEL, deletion, record, records, vectors


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "vectors.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(path)
    yield store
    store.close()


@pytest.fixture
def filled(store: SqliteStore) -> SqliteStore:
    """A store with three records of owner 1."""
    store.create(DIMENSION)
    store.publish(records(3), [])
    return store


def assert_reads_fail(store: VectorStore, error: type[Exception], match: str) -> None:
    """Every way to look says that it could not, none that there is nothing."""
    for look in (
        store.describe,
        lambda: list(store.stamps(["1"])),
        lambda: list(store.stamps_by_vector_id([record().stamp.vector_id])),
        lambda: store.unmanaged(["1"]),
        lambda: store.owners(None, 10),
        lambda: store.search("1", vectors(1)[0], model=MODEL, kinds=None, limit=5),
    ):
        with pytest.raises(error, match=match):
            look()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


# --- nothing there yet


@pytest.mark.parametrize("has_folder", [True, False])
def test_looking_for_a_missing_file_creates_nothing(
    tmp_path: Path, store: SqliteStore, path: Path, has_folder: bool
) -> None:
    if has_folder:
        path.parent.mkdir()
    before = names(tmp_path)
    info = store.describe()
    assert (info.exists, info.dimension) == (False, None)
    with pytest.raises(ConfigError, match="not been created"):
        list(store.stamps(["1"]))
    with pytest.raises(ConfigError, match="not been created"):
        store.publish(records(1), [])
    assert names(tmp_path) == before


def test_an_empty_file_is_a_store_not_yet_created(store: SqliteStore, path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    assert not store.describe().exists
    assert path.stat().st_size == 0
    with pytest.raises(ConfigError, match="not been created"):
        list(store.stamps(["1"]))
    store.create(DIMENSION)
    assert store.describe().exists


def test_create_makes_the_folder_but_not_those_above(tmp_path: Path) -> None:
    """A misspelt path should not grow into a tree."""
    store = SqliteStore(tmp_path / "a" / "b" / "vectors.db")
    with pytest.raises(ConfigError, match="folder cannot be made"):
        store.create(DIMENSION)
    assert not names(tmp_path)


def test_reading_leaves_no_file_beside_the_database(filled: SqliteStore, path: Path) -> None:
    filled.close()
    assert names(path.parent) == ["vectors.db"]
    before = path.read_bytes()
    reader = SqliteStore(path)
    assert reader.describe().exists
    assert len(list(reader.stamps(["1"]))) == 3
    reader.close()
    assert names(path.parent) == ["vectors.db"]
    assert path.read_bytes() == before


def test_a_file_removed_under_an_open_store_is_missed_at_once(
    filled: SqliteStore, path: Path
) -> None:
    """An open connection would still show what the removed file held."""
    assert len(list(filled.stamps(["1"]))) == 3
    path.unlink()
    assert not filled.describe().exists
    with pytest.raises(ConfigError, match="not been created"):
        list(filled.stamps(["1"]))
    filled.create(DIMENSION)
    assert list(filled.stamps(["1"])) == []


def test_a_database_in_memory_is_refused() -> None:
    for url in ("sqlite://", "sqlite:///", "sqlite:///:memory:"):
        with pytest.raises(ConfigError, match="malformed"):
            open_store(url)


def test_unknown_parameters_are_refused(path: Path) -> None:
    with pytest.raises(ConfigError, match="malformed"):
        open_store(f"sqlite:///{path}?mode=memory")


def test_relative_and_absolute_urls_name_the_same_file(
    filled: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    for url in ("sqlite:///vectors.db", f"sqlite:///{path}", f"SQLite+pysqlite:///{path}"):
        store = open_store(url)
        monkeypatch.chdir("/")  # where a store is does not change with the working directory
        assert len(list(store.stamps(["1"]))) == 3
        assert store.describe().location == f"sqlite:///{path}"
        store.close()
        monkeypatch.chdir(path.parent)


@pytest.mark.parametrize("url", ["slqite:///a.db", "mongodb://u:secret@h/d", "vectors.db", ""])
def test_an_unknown_scheme_names_the_known_ones(url: str) -> None:
    with pytest.raises(ConfigError, match=r"sqlite://, postgresql://, qdrant\+http://") as caught:
        open_store(url)
    assert "secret" not in str(caught.value)
    if url.startswith("slqite"):
        assert "did you mean sqlite://?" in caught.value.why


# --- not a store


@pytest.mark.parametrize("content", [b"hi", b"SQLite format 4\0" + b"x" * 5_000, b"\0" * 4_096])
def test_a_file_of_another_kind_is_refused_and_kept(
    store: SqliteStore, path: Path, content: bytes
) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    assert_reads_fail(store, ConfigError, "not a SQLite database")
    with pytest.raises(ConfigError, match="not a SQLite database"):
        store.create(DIMENSION)
    with pytest.raises(ConfigError, match="not a SQLite database"):
        store.publish(records(1), [])
    store.close()
    assert path.read_bytes() == content
    assert names(path.parent) == ["vectors.db"]


def test_a_folder_is_refused(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    with pytest.raises(ConfigError, match="not a file"):
        store.describe()


def test_a_path_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be used"):
        SqliteStore(tmp_path / "file" / "vectors.db").describe()


def test_tables_of_another_layout_are_refused(store: SqliteStore, path: Path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as application:
        application.execute("CREATE TABLE vectors (id INTEGER, direction TEXT)")
    for call in (store.describe, lambda: store.create(DIMENSION)):
        with pytest.raises(ConfigError, match=r"another layout.*vectors.*lacks.*vector_id"):
            call()


def test_the_store_shares_a_file_with_the_applications_tables(
    store: SqliteStore, path: Path
) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path, isolation_level=None)) as application:
        application.execute("CREATE TABLE profiles (user_id TEXT, filtered_data TEXT)")
        application.execute("INSERT INTO profiles VALUES ('1', '{}')")
        assert not store.describe().exists
        store.create(DIMENSION)
        store.publish(records(3), [])
        enumeration = store.stamps(["1"])
        next(enumeration)
        application.execute("INSERT INTO profiles VALUES ('2', '{}')")  # nothing holds it up
        assert len(list(enumeration)) == 2
        assert application.execute("SELECT count(*) FROM profiles").fetchone() == (2,)


def test_damaged_pages_are_an_outage_and_not_an_empty_store(
    filled: SqliteStore, path: Path
) -> None:
    filled.publish(records(500, owner_id="2"), [])
    filled.close()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4_096)  # behind the page that says what tables there are
        file.write(b"\xff" * (size - 4_096))
    with pytest.raises(StoreUnavailable, match="damaged"):
        list(filled.stamps(["2"]))
    with pytest.raises(StoreUnavailable, match="damaged"):
        filled.publish(records(1, version=2), [])


# --- rights


def test_mode_ro_reads_and_does_not_write(filled: SqliteStore, path: Path) -> None:
    reader = open_store(f"sqlite:///{path}?mode=ro")
    assert reader.describe().dimension == DIMENSION
    assert len(list(reader.stamps(["1"]))) == 3
    with pytest.raises(ConfigError, match=r"may not be used like that.*mode=ro"):
        reader.publish(records(1, version=2), [])
    reader.create(DIMENSION)  # nothing is missing
    assert {stamp.version for stamp in reader.stamps(["1"])} == {1}
    reader.close()


def test_mode_ro_does_not_create(path: Path) -> None:
    path.parent.mkdir()
    reader = open_store(f"sqlite:///{path}?mode=ro")
    with pytest.raises(ConfigError, match="mode=ro"):
        reader.create(DIMENSION)
    assert names(path.parent) == []


def test_another_user_may_read_but_not_write(filled: SqliteStore, path: Path) -> None:
    """While the owner has it open; otherwise SQLite would have to write just to read."""
    list(filled.stamps(["1"]))  # keeps the lock file there
    path.chmod(0o444)
    for lock_file in path.parent.glob("vectors.db-*"):
        lock_file.chmod(0o444)
    path.parent.chmod(0o555)
    other = SqliteStore(path)
    with as_nobody(path.parent):
        assert len(list(other.stamps(["1"]))) == 3
        with pytest.raises(ConfigError, match="may not be used like that"):
            other.publish(records(1, version=2), [])
        other.close()
    path.parent.chmod(0o755)


def test_a_file_that_may_not_be_opened_is_no_empty_store(filled: SqliteStore, path: Path) -> None:
    filled.close()
    path.chmod(0)
    with as_nobody(path.parent):
        assert_reads_fail(SqliteStore(path), ConfigError, "may not be used like that")


def test_a_folder_that_may_not_be_entered_is_no_missing_store(
    filled: SqliteStore, path: Path
) -> None:
    filled.close()
    with as_nobody(path.parent.parent):
        pass  # the folders above stay reachable
    path.parent.chmod(0)
    try:
        with as_nobody(path.parent.parent), pytest.raises(ConfigError, match="cannot be used"):
            SqliteStore(path).describe()
    finally:
        path.parent.chmod(0o755)


# --- locks and refusals


def test_a_lock_held_too_long_is_an_outage(
    filled: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_sqlite_file, "BUSY_SECONDS", 0.01)
    impatient = SqliteStore(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as application:
        application.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked"):
            impatient.publish(records(3, version=2), [])
        assert {stamp.version for stamp in impatient.stamps(["1"])} == {1}  # readers do not wait
        application.execute("ROLLBACK")
    impatient.publish(records(3, version=2), [])
    assert {stamp.version for stamp in impatient.stamps(["1"])} == {2}
    impatient.close()


def test_a_write_that_a_trigger_refuses_leaves_nothing(filled: SqliteStore, path: Path) -> None:
    with closing(sqlite3.connect(path)) as application:
        application.execute(
            "CREATE TRIGGER no BEFORE INSERT ON vectors WHEN new.entity_id = 'r2' "
            "BEGIN SELECT raise(ABORT, 'not that one'); END"
        )
    with pytest.raises(WriteFailed, match="not that one"):
        filled.publish(records(4, version=2), [])
    assert {stamp.version for stamp in filled.stamps(["1"])} == {1}
    assert len(list(filled.stamps(["1"]))) == 3


def test_another_dimension_is_refused_and_found_by_describe(filled: SqliteStore) -> None:
    with pytest.raises(WriteFailed, match=f"{DIMENSION + 1} components"):
        filled.publish([record("new", dimension=DIMENSION + 1)], [])
    assert filled.describe().dimension == DIMENSION


def test_one_damaged_vector_does_not_change_the_dimension(filled: SqliteStore, path: Path) -> None:
    with closing(sqlite3.connect(path)) as application, application:
        application.execute("UPDATE embeddings SET embedding = x'00' WHERE rowid = 1")
    assert filled.describe().dimension == DIMENSION
    found = filled.search("1", vectors(1)[0], model=MODEL, kinds=None, limit=10)
    assert len(found) == 2


def test_a_vector_of_nan_is_never_the_nearest(filled: SqliteStore, path: Path) -> None:
    nan = b"\x00\x00\xc0\x7f" * DIMENSION
    with closing(sqlite3.connect(path)) as application, application:
        application.execute("UPDATE embeddings SET embedding = ? WHERE rowid = 1", [nan])
    found = filled.search("1", vectors(1)[0], model=MODEL, kinds=None, limit=10)
    assert len(found) == 2


def test_texts_are_left_out_where_they_are_not_wanted(path: Path) -> None:
    store = SqliteStore(path, keep_text=False)
    store.create(DIMENSION)
    written = record(text="a secret text", metadata={"a": "secret title"})
    assert written.embedding is not None
    store.publish([written], [])
    store.publish([written._replace(stamp=written.stamp._replace(version=2), embedding=None)], [])
    (match,) = store.search("1", written.embedding, model=MODEL, kinds=None, limit=1)
    assert match.stamp == written.stamp._replace(version=2)
    assert (match.text, match.metadata_json) == ("", "{}")
    store.close()
    assert b"secret" not in path.read_bytes()


def test_a_forked_process_opens_connections_of_its_own() -> None:
    """SQLite's locks do not survive a fork, and closing an inherited connection drops them."""
    program = """
import os
from undrift.pooling import Pool
closed = []
pool = Pool(connect=os.getpid, disconnect=closed.append, is_usable=lambda connection: True)
with pool.connection() as opened_by_parent:
    assert opened_by_parent == os.getpid()
child = os.fork()
with pool.connection() as opened_by:
    assert opened_by == os.getpid()
assert closed == []
if child:
    assert os.waitpid(child, 0)[1] == 0
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_create_waits_for_a_reader_and_gives_up(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file cannot become WAL while the application reads it in another mode."""
    monkeypatch.setattr(_sqlite_file, "BUSY_SECONDS", 0.01)
    path.parent.mkdir()
    store = SqliteStore(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as application:
        application.execute("CREATE TABLE profiles (user_id TEXT)")
        application.execute("BEGIN")
        application.execute("SELECT * FROM profiles").fetchall()
        with pytest.raises(StoreUnavailable, match="locked"):
            store.create(DIMENSION)
        assert not store.describe().exists
        application.execute("COMMIT")
        store.create(DIMENSION)
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    store.close()


# --- network filesystems


MOUNTS = """\
22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:40 / {home} rw - nfs4 server:/home rw
31 30 0:41 / {home}/my\\040disk rw - xfs /dev/vdb rw
32 30 0:42 / {home}/clouds rw - ext4 /dev/vdc rw
33 30 0:43 / {home}/clouds rw - fuse.sshfs host: rw
34 30 0:44 / {home}/cloudstore rw - btrfs /dev/vdd rw
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that the system says is mounted over the network, but for some parts of it."""
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(MOUNTS.format(home=tmp_path / "home"))
    monkeypatch.setattr(mounts, "MOUNTINFO", mountinfo)
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def test_the_innermost_and_latest_mount_counts(home: Path) -> None:
    assert filesystem_of(home.parent) == "ext4"
    assert filesystem_of(home) == "nfs4"
    assert filesystem_of(home / "not" / "yet.db") == "nfs4"
    assert filesystem_of(home / "my disk" / "a.db") == "xfs"
    assert filesystem_of(home / "clouds" / "a.db") == "fuse.sshfs"
    assert filesystem_of(home / "cloudstore" / "a.db") == "btrfs"


def test_a_network_filesystem_is_refused_before_anything_is_created(home: Path) -> None:
    store = SqliteStore(home / "vectors.db")
    for call in (store.describe, lambda: store.create(DIMENSION)):
        with pytest.raises(ConfigError, match="nfs4"):
            call()
    (home / "vectors.db").touch()
    assert_reads_fail(store, ConfigError, "network filesystem")
    assert names(home) == ["vectors.db"]


def test_systems_without_mountinfo_are_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mounts, "MOUNTINFO", tmp_path / "none")
    assert filesystem_of(tmp_path) is None
    SqliteStore(tmp_path / "vectors.db").create(DIMENSION)


def test_a_delete_takes_the_vector_along(filled: SqliteStore, path: Path) -> None:
    """But not the one that a refused delete leaves in its record."""
    gone, kept, stale = records(3)
    filled.publish([], [deletion(gone), deletion(stale, version=7)])
    with closing(sqlite3.connect(path)) as application:
        left = application.execute("SELECT vector_id FROM embeddings").fetchall()
    assert {id_ for (id_,) in left} == {kept.stamp.vector_id, stale.stamp.vector_id}
