"""Qdrant's engine in a folder where things are not as they should be: folders, locks, crashes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import qdrant_edge as edge

from support.files import as_nobody
from support.qdrant_engine import engine_at
from undrift import mounts
from undrift.errors import ConfigError, DimensionMismatch, StoreUnavailable, WriteFailed
from undrift.ports import VectorStore
from undrift.stores import _qdrant_folder, open_store
from undrift.stores.qdrant_edge import QdrantEdgeStore
from undrift.testing.builders import DIMENSION, MODEL, deletion, record, records, vectors


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "vectors"


@pytest.fixture
def store(path: Path) -> Iterator[QdrantEdgeStore]:
    store = QdrantEdgeStore(path)
    yield store
    store.close()


@pytest.fixture
def filled(store: QdrantEdgeStore) -> QdrantEdgeStore:
    """A store with three records of owner 1."""
    store.create(DIMENSION)
    store.publish(records(3), [])
    return store


def assert_reads_fail(store: VectorStore, error: type[Exception], match: str) -> None:
    """Every way to look says that it could not, none that there is nothing."""
    for look in (
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


def versions(store: VectorStore) -> list[int]:
    return sorted(stamp.version for stamp in store.stamps(["1"]))


IN_ANOTHER_PROCESS = """
import sys
from undrift.stores import open_store
from undrift.testing.builders import records
store = open_store("qdrant+file:///" + sys.argv[1])
store.publish(records(3, version=int(sys.argv[2])), [])
print("published", flush=True)
sys.stdin.read()
"""


def start_another(path: Path, version: int) -> subprocess.Popen[str]:
    """A process that publishes to the store at *path*, and keeps it open until it is ended."""
    return subprocess.Popen(
        [sys.executable, "-c", IN_ANOTHER_PROCESS, str(path), str(version)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# --- addresses and folders


@pytest.mark.parametrize("rest", ["host/folder/c", "/", "/folder/c?x=1", ""])
def test_malformed_urls_are_refused(rest: str) -> None:
    with pytest.raises(ConfigError, match="malformed"):
        open_store(f"qdrant+file://{rest}")


def test_a_url_may_name_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative with three slashes, absolute with four, as in SQLite's URLs."""
    monkeypatch.chdir(tmp_path)
    relative = open_store("qdrant+file:///some/odd%3F%20name")
    relative.create(DIMENSION)
    relative.publish(records(1), [])
    relative.close()
    absolute = open_store(f"qdrant+file:///{tmp_path}/some/odd%3F%20name")
    assert versions(absolute) == [1]
    assert absolute.describe().location == f"qdrant+file:///{tmp_path}/some/odd? name"
    absolute.close()


@pytest.mark.parametrize("has_folder", [True, False])
def test_looking_for_a_missing_folder_creates_nothing(
    tmp_path: Path, store: QdrantEdgeStore, path: Path, has_folder: bool
) -> None:
    if has_folder:
        path.parent.mkdir()
    before = names(tmp_path)
    info = store.describe()
    assert (info.exists, info.dimension) == (False, None)
    assert_reads_fail(store, ConfigError, "not been created")
    with pytest.raises(ConfigError, match="not been created"):
        store.publish(records(1), [])
    assert names(tmp_path) == before


def test_create_makes_the_folder_but_not_those_above(tmp_path: Path) -> None:
    """A misspelt path should not grow into a tree."""
    store = QdrantEdgeStore(tmp_path / "a" / "b" / "vectors")
    with pytest.raises(ConfigError, match="folder above cannot be made") as caught:
        store.create(DIMENSION)
    assert "fourth slash" in caught.value.fix
    assert not names(tmp_path)


def test_an_empty_folder_is_a_store_not_yet_created(store: QdrantEdgeStore, path: Path) -> None:
    path.mkdir(parents=True)
    assert not store.describe().exists
    store.create(DIMENSION)
    store.publish(records(3), [])
    assert versions(store) == [1, 1, 1]


def test_a_folder_of_something_else_is_refused(store: QdrantEdgeStore, path: Path) -> None:
    path.mkdir(parents=True)
    (path / "letters.txt").write_text("mine")
    for refused in (store.describe, lambda: store.create(DIMENSION)):
        with pytest.raises(ConfigError, match="something else"):
            refused()
    assert names(path) == ["letters.txt"]


def test_a_file_in_the_folders_place_is_refused(store: QdrantEdgeStore, path: Path) -> None:
    path.parent.mkdir()
    path.write_text("mine")
    with pytest.raises(ConfigError, match="cannot be used"):
        store.describe()


def test_a_network_filesystem_is_refused(
    store: QdrantEdgeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_qdrant_folder, "filesystem_of", lambda path: "nfs4")
    with pytest.raises(ConfigError, match=r"network filesystem \(nfs4\)"):
        store.describe()
    assert "nfs4" in mounts.NETWORK_FILESYSTEMS


def test_a_folder_that_may_not_be_written_says_so(filled: QdrantEdgeStore, path: Path) -> None:
    filled.close()
    with as_nobody(path):
        with pytest.raises(ConfigError, match=r"folder cannot be used.*Permission denied"):
            filled.describe()
        with pytest.raises(ConfigError, match=r"folder cannot be used.*Permission denied"):
            versions(filled)
    assert versions(filled) == [1, 1, 1]


def test_a_collection_of_somebody_elses_is_refused(store: QdrantEdgeStore, path: Path) -> None:
    path.parent.mkdir()
    config = edge.EdgeConfig(
        vectors=edge.EdgeVectorParams(size=DIMENSION, distance=edge.Distance.Cosine)
    )
    engine = edge.EdgeShard.create(str(path), config)
    point = edge.Point(7, vectors(1)[0].tolist(), {"page": "theirs"})
    engine.update(edge.UpdateOperation.upsert_points([point]))
    engine.close()
    for refused in (store.describe, lambda: store.create(DIMENSION)):
        with pytest.raises(ConfigError, match=r"another layout.*keyword index on owner_id"):
            refused()


@pytest.mark.parametrize("distance", [edge.Distance.Dot, edge.Distance.Euclid])
def test_another_metric_is_refused(
    store: QdrantEdgeStore, path: Path, distance: edge.Distance
) -> None:
    path.parent.mkdir()
    config = edge.EdgeConfig(vectors=edge.EdgeVectorParams(size=DIMENSION, distance=distance))
    edge.EdgeShard.create(str(path), config).close()
    with pytest.raises(ConfigError, match="another metric"):
        store.describe()


def test_a_creation_that_was_broken_off_leaves_nothing_and_is_begun_again(
    store: QdrantEdgeStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is there as a whole, or not at all."""

    def stopped(*_: object) -> None:
        raise InterruptedError

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", stopped)
        with pytest.raises(StoreUnavailable):
            store.create(DIMENSION)
    assert not store.describe().exists
    store.create(DIMENSION)
    store.publish(records(3), [])
    assert versions(store) == [1, 1, 1]
    assert names(path.parent)[:2] == [".vectors.lock", "00000000"] or path.is_dir()
    assert not path.with_name(".vectors.new").exists()


def test_a_dimension_other_than_the_collections_is_told_apart(filled: QdrantEdgeStore) -> None:
    other = vectors(1, dimension=DIMENSION + 1)[0]
    with pytest.raises(WriteFailed, match=f"expected dim: {DIMENSION}, got {DIMENSION + 1}"):
        filled.publish([record("new", embedding=other)], [deletion(record("r0"))])
    with pytest.raises(DimensionMismatch) as caught:
        filled.search("1", other, model=MODEL, kinds=None, limit=5)
    assert (caught.value.expected, caught.value.found) == (DIMENSION + 1, DIMENSION)
    assert versions(filled) == [1, 1, 1]


# --- one process at a time


def test_a_second_process_is_told_who_is_in(filled: QdrantEdgeStore, path: Path) -> None:
    other = start_another(path, 2)
    _, said = other.communicate()
    assert other.returncode != 0
    assert "StoreUnavailable: The vector store is in use by another process" in said
    assert f"process {os.getpid()} (" in said
    assert "qdrant+http://" in said
    assert versions(filled) == [1, 1, 1]


def test_the_second_process_gets_in_when_the_first_closes(
    filled: QdrantEdgeStore, path: Path
) -> None:
    filled.close()
    with start_another(path, 2) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "published\n"
        for look in (filled.describe, lambda: versions(filled)):
            with pytest.raises(StoreUnavailable, match=f"process {other.pid} ") as caught:
                look()
            assert "wait" in caught.value.fix
        other.kill()
        other.wait()
    assert versions(filled) == [2, 2, 2]


def test_what_was_acknowledged_survives_a_kill(store: QdrantEdgeStore, path: Path) -> None:
    store.create(DIMENSION)
    for version in range(1, 6):
        with start_another(path, version) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == "published\n"
            other.send_signal(signal.SIGKILL)
            other.wait()
        assert versions(store) == [version] * 3
        store.close()


def test_stores_of_one_process_share_the_folder(filled: QdrantEdgeStore, path: Path) -> None:
    """It is let go of when the last of them closes."""
    second = QdrantEdgeStore(path)
    second.publish(records(3, version=2), [])
    filled.close()
    assert versions(second) == [2, 2, 2]
    blocked = start_another(path, 3)
    assert "in use" in blocked.communicate()[1]
    second.close()
    with start_another(path, 3) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "published\n"
        other.communicate()
    assert versions(filled) == [3, 3, 3]


def test_a_forked_process_is_kept_out_and_does_not_let_others_in(
    filled: QdrantEdgeStore, path: Path
) -> None:
    """What it inherits is its parent's."""
    child = os.fork()
    if child == 0:
        try:
            versions(filled)
        except StoreUnavailable as error:
            filled.close()
            os._exit(0 if f"process {os.getppid()} " in error.why else 1)
        os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    filled.publish(records(3, version=2), [])
    assert versions(filled) == [2, 2, 2]
    assert "in use" in start_another(path, 3).communicate()[1]


def test_a_folder_removed_and_made_again_is_opened_anew(
    filled: QdrantEdgeStore, path: Path
) -> None:
    filled.close()
    shutil.rmtree(path)
    assert not filled.describe().exists
    filled.create(DIMENSION)
    assert versions(filled) == []


# --- upkeep


def test_the_space_of_what_was_deleted_is_won_back(store: QdrantEdgeStore, path: Path) -> None:
    """When the last store closes; what stays is found as before."""
    store.create(DIMENSION)
    written = records(3_000)
    store.publish(written, [])
    store.publish([], [deletion(one) for one in written[:2_900]])
    store.close()
    with engine_at(f"qdrant+file:///{path}") as engine:
        assert not engine.optimize(), "there was something left to do"
    assert len(versions(store)) == 100
    assert len(store.search("1", vectors(1)[0], model=MODEL, kinds=None, limit=500)) == 100
    store.publish(records(3_000, version=2), [])
    assert versions(store) == [2] * 3_000
    with engine_at(f"qdrant+file:///{path}") as engine:  # the control: nobody else does it
        ids: list[edge.PointId] = [one.stamp.vector_id for one in written[:2_900]]
        engine.update(edge.UpdateOperation.delete_points(ids))
        assert engine.optimize()


def test_the_printed_calls_name_every_index(store: QdrantEdgeStore) -> None:
    printed = "\n".join(store.ddl(DIMENSION))
    assert '"size": 16, "distance": "Cosine"' in printed
    assert '"field_name": "owner_id", "field_schema": {"type": "keyword", "is_tenant": true}' in (
        printed
    )
