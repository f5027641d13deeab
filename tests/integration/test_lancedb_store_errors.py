"""The LanceDB store where things are not as they should be: URLs, rights, layouts, lost files."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
import pytest
from lancedb.index import BTree, IvfFlat
from lancedb.query import LanceVectorQueryBuilder

from support.behind.lancedb import folder_of, open_table, rows_of
from support.files import as_nobody
from undrift.errors import ConfigError, DimensionMismatch, StoreUnavailable, WriteFailed
from undrift.ports import VectorStore
from undrift.stores import _lance_layout, open_store
from undrift.stores import lancedb as lancedb_store
from undrift.stores._lance_address import parse
from undrift.stores.lancedb import LanceDbStore
from undrift.testing._store_fixtures import similarities
from undrift.testing.builders import DIMENSION, MODEL, deletion, record, records, restamp, vectors


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "folder"


@pytest.fixture
def location(folder: Path) -> str:
    return f"lancedb:///{folder}?table=vectors"


@pytest.fixture
def store(location: str) -> Iterator[LanceDbStore]:
    store = open_store(location)
    assert isinstance(store, LanceDbStore)
    yield store
    store.close()


@pytest.fixture
def filled(store: LanceDbStore) -> LanceDbStore:
    """A store with three records of owner 1."""
    store.create(DIMENSION)
    store.publish(records(3), [])
    return store


def looks(store: VectorStore) -> list[Callable[[], object]]:
    """Every way to look."""
    return [
        lambda: list(store.stamps(["1"])),
        lambda: list(store.stamps_by_vector_id([record().stamp.vector_id])),
        lambda: store.unmanaged(["1"]),
        lambda: store.owners(None, 10),
        lambda: store.search("1", vectors(1)[0], model=MODEL, kinds=None, limit=5),
    ]


def assert_fails(calls: list[Callable[[], object]], error: type[Exception], match: str) -> None:
    for call in calls:
        with pytest.raises(error, match=match):
            call()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


# --- addresses


@pytest.mark.parametrize(
    "url",
    [
        "lancedb://folder",
        "lancedb:///",
        "lancedb://",
        "lancedb:///folder?table=",
        "lancedb:///folder?table=a/b",
        "lancedb:///folder?table=..",
        "lancedb:///folder?table=a&table=b",
        "lancedb:///folder?tabel=a",
        "lancedb+s3://",
        "lancedb+s3:///folder",
        "lancedb+http://host/folder",
        "lancedb+s3://key:secret@bucket/folder",
    ],
)
def test_a_malformed_url_is_refused_without_showing_a_key(url: str) -> None:
    with pytest.raises(ConfigError, match="malformed") as caught:
        open_store(url)
    assert "secret" not in str(caught.value)
    assert "lancedb:///folder?table=vectors" in caught.value.fix


@pytest.mark.parametrize(
    ("url", "uri", "table"),
    [
        ("lancedb:////srv/a%20folder", "/srv/a folder", "vectors"),
        ("LanceDB:////srv/folder?table=a.b-c_d", "/srv/folder", "a.b-c_d"),
        ("lancedb+s3://bucket/a/b?table=t", "s3://bucket/a/b", "t"),
        ("lancedb+s3://bucket", "s3://bucket", "vectors"),
        ("lancedb+gs://bucket/a/", "gs://bucket/a", "vectors"),
        ("lancedb+az://container/a", "az://container/a", "vectors"),
    ],
)
def test_a_url_names_lancedbs_own_address_and_a_table(url: str, uri: str, table: str) -> None:
    address = parse(url)
    assert (address.uri, address.table) == (uri, table)
    assert parse(address.location) == address


def test_relative_and_absolute_urls_name_the_same_folder(
    filled: LanceDbStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for url in ("lancedb:///folder", f"lancedb:///{folder}", f"LANCEDB:///{folder}?table=vectors"):
        monkeypatch.chdir(folder.parent)
        store = open_store(url)
        monkeypatch.chdir("/")  # where a store is does not change with the working directory
        assert len(list(store.stamps(["1"]))) == 3
        assert store.describe().location == filled.describe().location


@pytest.mark.parametrize("name", ["a folder", "Zürich", "50%", "a#b", "a'b", "~", "a:b"])
def test_a_folder_may_be_called_anything(tmp_path: Path, name: str) -> None:
    store = open_store(f"lancedb:///{tmp_path}/{name.replace('%', '%25')}")
    store.create(DIMENSION)
    store.publish(records(3), [])
    assert names(tmp_path)[0] == name or name in names(tmp_path)
    assert len(list(store.stamps(["1"]))) == 3


def test_tables_beside_each_other_are_stores_of_their_own(
    filled: LanceDbStore, folder: Path
) -> None:
    other = open_store(f"lancedb:///{folder}?table=other")
    assert not other.describe().exists
    other.create(DIMENSION + 1)
    other.publish(records(1, dimension=DIMENSION + 1), [])
    assert len(list(filled.stamps(["1"]))) == 3
    assert len(list(other.stamps(["1"]))) == 1


# --- nothing there yet


@pytest.mark.parametrize("has_folder", [True, False])
def test_looking_where_nothing_is_creates_nothing(
    tmp_path: Path, store: LanceDbStore, folder: Path, has_folder: bool
) -> None:
    if has_folder:
        folder.mkdir()
    before = names(tmp_path)
    info = store.describe()
    assert (info.exists, info.dimension) == (False, None)
    assert store.claim() is None
    assert_fails(
        [*looks(store), lambda: store.publish(records(1), [])],
        ConfigError,
        "not been created",
    )
    assert names(tmp_path) == before


def test_create_makes_the_folder_but_not_those_above(tmp_path: Path) -> None:
    """A misspelt path should not grow into a tree."""
    with pytest.raises(ConfigError, match="folder cannot be made"):
        open_store(f"lancedb:///{tmp_path}/a/b").create(DIMENSION)
    assert not names(tmp_path)


def test_what_a_killed_create_leaves_is_no_store_and_can_be_created(
    store: LanceDbStore, location: str
) -> None:
    folder_of(location).mkdir(parents=True)
    assert not store.describe().exists
    store.create(DIMENSION)
    assert store.describe().dimension == DIMENSION


def test_a_table_without_its_index_gets_it_with_the_next_create(
    filled: LanceDbStore, location: str
) -> None:
    table = open_table(location)
    (index,) = table.list_indices()
    table.drop_index(index.name)
    filled.create(DIMENSION)
    filled.create(DIMENSION)
    assert [index.columns for index in open_table(location).list_indices()] == [["owner_id"]]
    assert len(list(filled.stamps(["1"]))) == 3


def test_a_folder_removed_under_an_open_store_is_missed_at_once(
    filled: LanceDbStore, folder: Path
) -> None:
    assert len(list(filled.stamps(["1"]))) == 3
    shutil.rmtree(folder)
    assert not filled.describe().exists
    assert_fails(looks(filled), ConfigError, "not been created")
    assert not folder.exists()
    filled.create(DIMENSION)
    assert list(filled.stamps(["1"])) == []


# --- not a store


def test_a_file_in_the_folders_place_is_refused(store: LanceDbStore, folder: Path) -> None:
    folder.write_text("hi")
    assert_fails([store.describe, *looks(store)], ConfigError, "not a folder")
    with pytest.raises(ConfigError, match=r"folder cannot be made|not a folder"):
        store.create(DIMENSION)
    assert folder.read_text() == "hi"


def test_a_path_below_a_file_is_refused(folder: Path) -> None:
    folder.write_text("hi")
    with pytest.raises(ConfigError, match="may not be used like that"):
        open_store(f"lancedb:///{folder}/db").describe()


_SCHEMA = _lance_layout.records_schema(DIMENSION)
_UNMARKED = pa.schema([field.remove_metadata() for field in _SCHEMA])
_DOUBLES = _SCHEMA.set(
    _SCHEMA.get_field_index("embedding"), pa.field("embedding", pa.list_(pa.float64(), DIMENSION))
)
_TEXT_VERSION = _SCHEMA.set(_SCHEMA.get_field_index("version"), pa.field("version", pa.string()))


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        (pa.schema([("id", pa.string()), ("vector", pa.list_(pa.float32(), 4))]), "lacks.*owner"),
        (_DOUBLES, "embedding is .*double"),
        (_TEXT_VERSION, "version is string, not int64"),
        (_UNMARKED, "not marked as its primary key"),
    ],
)
def test_somebody_elses_table_is_refused_and_kept(
    store: LanceDbStore, folder: Path, location: str, schema: pa.Schema, why: str
) -> None:
    lancedb.connect(folder).create_table("vectors", schema=schema)
    before = open_table(location).version
    calls = [
        store.describe,
        *looks(store),
        lambda: store.create(DIMENSION),
        lambda: store.publish(records(1), []),
    ]
    assert_fails(calls, ConfigError, f"not one of undrift's.*{why}")
    assert open_table(location).version == before


# --- rights


def test_another_user_may_read_but_not_write(filled: LanceDbStore, folder: Path) -> None:
    other = open_store(filled.describe().location)
    with as_nobody(folder):
        assert len(list(other.stamps(["1"]))) == 3
        with pytest.raises(ConfigError, match="may not be used like that"):
            other.publish(records(1, version=2), [])
        with pytest.raises(ConfigError, match="may not be used like that"):
            open_store(f"lancedb:///{folder}?table=new").create(DIMENSION)
    assert {stamp.version for stamp in filled.stamps(["1"])} == {1}


@pytest.mark.parametrize("below", [".", "vectors.lance", "vectors.lance/_versions"])
def test_a_folder_that_may_not_be_entered_is_no_missing_store(
    filled: LanceDbStore, folder: Path, below: str
) -> None:
    other = open_store(filled.describe().location)
    with as_nobody(folder):
        pass  # the folders above stay reachable
    (folder / below).chmod(0)
    try:
        with as_nobody(folder.parent):
            # LanceDB itself tries again, for two seconds with each call.
            calls = [other.describe, looks(other)[0]]
            assert_fails(calls, ConfigError, "may not be used like that")
    finally:
        (folder / below).chmod(0o755)


# --- lost and damaged files


@pytest.mark.parametrize("loss", ["removed", "emptied", "overwritten"])
def test_a_lost_data_file_is_an_outage_and_not_an_empty_store(
    filled: LanceDbStore, location: str, loss: str
) -> None:
    (file,) = (folder_of(location) / "data").iterdir()
    _lose(file, loss)
    other = open_store(location)
    assert_fails(looks(other), StoreUnavailable, "damaged")
    with pytest.raises(StoreUnavailable, match="damaged"):
        other.publish(records(1, version=2), [])


@pytest.mark.parametrize("loss", ["emptied", "overwritten"])
def test_a_lost_list_of_files_is_an_outage(filled: LanceDbStore, location: str, loss: str) -> None:
    newest = min((folder_of(location) / "_versions").glob("*.manifest"))
    _lose(newest, loss)
    other = open_store(location)
    assert_fails([other.describe, *looks(other)], StoreUnavailable, "damaged")


def test_a_table_without_any_version_is_not_one_that_was_never_created(
    filled: LanceDbStore, location: str
) -> None:
    shutil.rmtree(folder_of(location) / "_versions")
    assert_fails([filled.describe, *looks(filled)], StoreUnavailable, "damaged.*no version")
    with pytest.raises(StoreUnavailable, match="damaged"):
        filled.create(DIMENSION)


def _lose(file: Path, how: str) -> None:
    size = file.stat().st_size
    if how == "removed":
        file.unlink()
    else:
        file.write_bytes(b"" if how == "emptied" else b"\xff" * size)


def test_a_full_disk_refuses_the_batch(filled: LanceDbStore, location: str) -> None:
    """Here the process may write no larger files; on a full disk the message is another."""
    program = f"""
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from undrift.errors import WriteFailed
from undrift.stores import open_store
from undrift.testing.builders import records
store = open_store({location!r})
batch = records(3_000, version=2)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    store.publish(batch, [])
except WriteFailed as error:
    print(error)
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "refused a batch" in ended.stdout
    assert {stamp.version for stamp in filled.stamps(["1"])} == {1}
    filled.publish(records(3, version=2), [])
    assert {stamp.version for stamp in filled.stamps(["1"])} == {2}


# --- vectors


def test_vectors_of_another_dimension_are_refused(filled: LanceDbStore) -> None:
    """LanceDB would store none in their place, without a word."""
    with pytest.raises(WriteFailed, match=f"{DIMENSION + 1} components"):
        filled.publish([record("new", dimension=DIMENSION + 1)], [])
    assert len(list(filled.stamps(["1"]))) == 3
    query = vectors(1, dimension=DIMENSION + 1)[0]
    with pytest.raises(DimensionMismatch, match=r"\?table="):
        filled.search("1", query, model=MODEL, kinds=None, limit=10)


def test_vectors_that_no_search_can_compare_do_not_disturb_it(
    filled: LanceDbStore, location: str
) -> None:
    """Somebody else wrote them: of zeros, of infinities, none at all."""
    table = open_table(location)
    (row,) = table.search().where("entity_id = 'r0'").to_list()
    for name, vector in (("zero", [0.0] * DIMENSION), ("infinite", [np.inf] * DIMENSION)):
        table.add([{**row, "vector_id": name, "entity_id": name, "embedding": vector}])
    for limit in (1, 2, 3, 10):
        found = filled.search("1", vectors(1)[0], model=MODEL, kinds=None, limit=limit)
        assert len(found) == min(limit, 3)
        assert {match.stamp.entity_id for match in found} <= {"r0", "r1", "r2"}


def test_of_equally_near_records_those_of_the_lowest_vector_ids_are_found(
    store: LanceDbStore,
) -> None:
    store.create(DIMENSION)
    vector = vectors(1)[0]
    equal = [record(f"e{number}", embedding=vector) for number in range(40)]
    store.publish([*equal, *records(5, seed=3)], [])
    ids = sorted(of.stamp.vector_id for of in equal)
    for limit in (1, 7, 39, 40):
        found = store.search("1", vector, model=MODEL, kinds=None, limit=limit)
        assert [match.stamp.vector_id for match in found] == ids[:limit]


def test_a_row_that_somebody_doubled_is_one_record(filled: LanceDbStore, location: str) -> None:
    """LanceDB has no unique keys. It is found once, and written and deleted as one."""
    table = open_table(location)
    (row,) = table.search().where("entity_id = 'r0'").to_list()
    table.add([row, {**row, "version": 0}])
    doubled, *others = records(3)
    for limit in (1, 2, 3, 10):
        found = filled.search("1", vectors(1)[0], model=MODEL, kinds=None, limit=limit)
        assert len({match.stamp.vector_id for match in found}) == len(found) == min(limit, 3)
        assert {match.stamp.version for match in found} == {1}
    filled.publish([doubled._replace(stamp=doubled.stamp._replace(version=2))], [])
    assert [row["version"] for row in rows_of(location) if row["entity_id"] == "r0"] == [2, 2, 2]
    filled.publish([], [deletion(doubled, version=2)])
    assert set(filled.stamps(["1"])) == {of.stamp for of in others}


def test_an_index_on_the_vectors_that_somebody_made_leaves_search_exact(
    store: LanceDbStore, location: str
) -> None:
    """A single one of its 16 parts would be looked into."""
    store.create(DIMENSION)
    written = records(600)
    store.publish(written, [])
    table = open_table(location)
    table.create_index(
        "embedding", config=IvfFlat(distance_type="l2", num_partitions=16), replace=True
    )
    query = vectors(1, seed=9)[0]
    best = [vector_id for _, vector_id in similarities(written, query)[:20]]
    control = table.search(query, "embedding", "vector")
    assert isinstance(control, LanceVectorQueryBuilder)
    approximate = control.nprobes(1).limit(20).to_list()
    assert {row["vector_id"] for row in approximate} != set(best)
    found = store.search("1", query, model=MODEL, kinds=None, limit=20)
    assert [match.stamp.vector_id for match in found] == best


def test_an_index_on_the_key_that_somebody_made_leaves_writes_conditional(
    filled: LanceDbStore, location: str
) -> None:
    open_table(location).create_index("vector_id", config=BTree())
    filled.publish([*records(3, version=3), record("new", version=3)], [])
    filled.publish([*records(3, version=2), record("new", version=2)], [])
    assert {stamp.version for stamp in filled.stamps(["1"])} == {3}
    assert len(list(filled.stamps(["1"]))) == 4


# --- the rest


def test_an_old_lancedb_is_refused(location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lancedb_store, "version", lambda name: {"lancedb": "0.29.2"}[name])
    with pytest.raises(ConfigError, match=r"too old.*0\.29\.2.*0\.40") as caught:
        open_store(location)
    assert caught.value.fix == "pip install --upgrade 'undrift[lancedb]'"


def test_texts_are_left_out_where_they_are_not_wanted(folder: Path) -> None:
    store = open_store(f"lancedb:///{folder}", keep_text=False)
    store.create(DIMENSION)
    written = record(text="a secret text", metadata={"a": "secret title"})
    assert written.embedding is not None
    store.publish([written], [])
    store.publish([restamp(written, version=2, metadata={"a": "secret too"})], [])
    (match,) = store.search("1", written.embedding, model=MODEL, kinds=None, limit=1)
    assert match.stamp.version == 2
    assert (match.text, match.metadata_json) == ("", "{}")
    assert not any(b"secret" in file.read_bytes() for file in folder.rglob("*") if file.is_file())


def test_a_restamp_is_refused_beside_one_that_applies(filled: LanceDbStore) -> None:
    """Each by itself: of another text, of a newer version."""
    same, other, newer = records(3)
    filled.publish([newer._replace(stamp=newer.stamp._replace(version=9))], [])
    changed = other._replace(stamp=other.stamp._replace(text_hash="0" * 32), embedding=None)
    restamps = [
        restamp(same, version=5, metadata={"a": 1}),
        changed._replace(stamp=changed.stamp._replace(version=5)),
        restamp(newer, version=5, metadata={"a": 1}),
    ]
    filled.publish(restamps, [])
    versions = {stamp.entity_id: stamp.version for stamp in filled.stamps(["1"])}
    assert versions == {"r0": 5, "r1": 1, "r2": 9}


@pytest.mark.parametrize("is_used_before", [True, False])
def test_a_forked_process_may_use_the_store_only_where_its_parent_did_not_before(
    location: str, is_used_before: bool
) -> None:
    """The threads that do the work are the parent's then, and LanceDB may wait for them forever."""
    program = f"""
import os, warnings
warnings.simplefilter("ignore")
from undrift.errors import UnsupportedError
from undrift.stores import open_store
from undrift.testing.builders import DIMENSION, records
store = open_store({location!r})
if {is_used_before}:
    store.create(DIMENSION)
child = os.fork()
if child == 0:
    try:
        store.create(DIMENSION)
        store.publish(records(3), [])
        os._exit(0)
    except UnsupportedError as error:
        assert "spawn" in error.fix
        os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == (7 if {is_used_before} else 0)
store.publish(records(3, version=2), [])
assert {{stamp.version for stamp in store.stamps(["1"])}} == {{2}}
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_no_text_and_no_vector_is_in_an_error(filled: LanceDbStore, location: str) -> None:
    (file,) = (folder_of(location) / "data").iterdir()
    file.unlink()
    secret = record("new", text="a secret text", version=2)
    with pytest.raises(StoreUnavailable) as caught:
        filled.publish([secret], [])
    assert "secret" not in str(caught.value)
    assert ".rs" not in str(caught.value)  # nor a place in LanceDB's source
