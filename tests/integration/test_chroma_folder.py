"""Chroma's engine in a folder: who may open it, and what is said to all others."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from chromadb.api.client import Client
from chromadb.config import Settings

from undrift.adoption import Field, StoreFields
from undrift.errors import ConfigError
from undrift.ports import VectorStore
from undrift.stores import open_store
from undrift.stores._chroma_address import parse_folder
from undrift.stores.collections import sample_collections
from undrift.testing.builders import DIMENSION, MODEL, record, records, restamp, vectors

OPEN_AND_WAIT = """
import sys
from contextlib import closing
from undrift.stores import open_store
with closing(open_store(sys.argv[1])) as store:
    store.create(16)
    print("open", flush=True)
    sys.stdin.read()
"""
SERVE_AND_WAIT = """
import sys, chromadb
client = chromadb.PersistentClient(sys.argv[1])
client.get_or_create_collection("another", embedding_function=None)
print("open", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that is not there yet."""
    return tmp_path / "chroma"


@pytest.fixture
def url(folder: Path) -> str:
    return f"chroma+file:///{folder}/records?sole_process=yes"


@pytest.fixture
def store(url: str) -> Iterator[VectorStore]:
    opened = open_store(url)
    yield opened
    opened.close()


@contextmanager
def program(source: str, argument: str) -> Iterator[None]:
    """Another program that has a folder open for as long as the block goes on."""
    with subprocess.Popen(
        [sys.executable, "-c", source, argument],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"ANONYMIZED_TELEMETRY": "False"},
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "open\n"
            yield
        finally:
            process.stdin.close()


def test_a_folder_is_refused_unless_a_person_says_that_nobody_else_opens_it(folder: Path) -> None:
    with pytest.raises(ConfigError, match="second process") as caught:
        open_store(f"chroma+file:///{folder}/records")
    assert "chroma run" in caught.value.fix
    assert "sole_process=yes" in caught.value.fix
    assert not folder.exists()


@pytest.mark.parametrize(
    "rest",
    [
        "",
        "/",
        "/records?sole_process=yes",
        "//folder/?sole_process=yes",
        "//folder/ab?sole_process=yes",
        "//folder/records?sole_process=perhaps",
        "//folder/records?sole_process=yes&space=l2",
        "host/folder/records?sole_process=yes",
    ],
)
def test_a_malformed_address_is_refused(rest: str) -> None:
    with pytest.raises(ConfigError, match="URL is malformed"):
        open_store(f"chroma+file://{rest}")


def test_a_relative_folder_is_below_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with SQLite's files; `%20` is a blank."""
    monkeypatch.chdir(tmp_path)
    assert parse_folder("chroma+file:///a/my%20b/records").folder == tmp_path / "a" / "my b"
    assert parse_folder("chroma+file:////a/b/records").folder == Path("/a/b")


def test_looking_creates_nothing(folder: Path, store: VectorStore) -> None:
    assert not store.describe().exists
    with pytest.raises(ConfigError, match="has not been created"):
        list(store.stamps(["1"]))
    assert not folder.exists()


def test_a_folder_that_cannot_be_made_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = open_store(f"chroma+file:///{tmp_path}/file/below/records?sole_process=yes")
    with pytest.raises(ConfigError, match="cannot be made"):
        store.create(DIMENSION)


def test_what_was_written_is_there_when_it_is_opened_again(url: str, store: VectorStore) -> None:
    store.create(DIMENSION)
    store.publish(records(3), [])
    store.close()
    again = open_store(url)
    assert {stamp.version for stamp in again.stamps(["1"])} == {1}
    again.close()


def test_stores_of_one_process_share_the_engine(url: str, store: VectorStore) -> None:
    """And the one that closes first takes nothing from the other."""
    store.create(DIMENSION)
    other = open_store(url, namespace="other")
    other.publish([record(namespace="other")], [])
    assert store.unmanaged(["1"]) == {"1": 1}
    other.close()
    store.publish([record("a")], [])
    assert len(list(store.stamps(["1"]))) == 1


def test_another_undrift_is_kept_out_until_this_one_closes(url: str, store: VectorStore) -> None:
    store.create(DIMENSION)
    with pytest.raises(AssertionError), program(OPEN_AND_WAIT, url):
        pass  # it ended with an error, which is on standard error
    store.close()
    with program(OPEN_AND_WAIT, url):
        with pytest.raises(ConfigError, match="another undrift has it open") as caught:
            store.describe()
        assert "chroma run" in caught.value.fix
    assert store.describe().exists


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the system does not tell")
def test_a_folder_that_another_program_has_open_is_refused(
    folder: Path, url: str, store: VectorStore
) -> None:
    """Whatever the person said: the system knows better."""
    store.create(DIMENSION)
    store.close()
    with (
        program(SERVE_AND_WAIT, str(folder)),
        pytest.raises(ConfigError, match=r"the process \d+ has it open"),
    ):
        store.publish(records(1), [])
    store.publish(records(1), [])


def test_a_forked_process_is_another_one(url: str, store: VectorStore) -> None:
    """It does not use what its parent opened, and is kept out while the parent has it open."""
    store.create(DIMENSION)
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)

    def child() -> None:
        try:
            store.describe()
        except ConfigError as error:
            sending.send(error.why)
        else:
            sending.send("it was let in")

    process = context.Process(target=child)
    process.start()
    assert receiving.poll(30)
    assert "another undrift has it open" in receiving.recv()
    process.join(30)
    assert process.exitcode == 0
    assert store.describe().exists


def test_a_client_of_the_same_program_with_other_settings_is_named(
    folder: Path, store: VectorStore
) -> None:
    store.create(DIMENSION)
    store.close()
    settings = Settings(
        _env_file=None,  # type: ignore[call-arg]
        anonymized_telemetry=False,
        allow_reset=True,
        is_persistent=True,
        persist_directory=str(folder),
    )
    client = Client(settings=settings)
    try:
        with pytest.raises(ConfigError, match="different settings"):
            store.describe()
    finally:
        client.close()
    assert store.describe().exists


@pytest.mark.parametrize("parameter", ["tenant", "database"])
def test_an_unknown_tenant_or_database_is_a_configuration_error(
    url: str, store: VectorStore, parameter: str
) -> None:
    store.create(DIMENSION)
    store.close()
    other = open_store(f"{url}&{parameter}=nowhere")
    with pytest.raises(ConfigError, match="tenant or database does not exist"):
        other.describe()
    other.close()
    assert store.describe().exists


def test_a_collection_of_another_program_is_adopted_in_a_folder_too(folder: Path, url: str) -> None:
    """Once that program has closed it."""
    settings = Settings(
        _env_file=None,  # type: ignore[call-arg]
        anonymized_telemetry=False,
        is_persistent=True,
        persist_directory=str(folder),
    )
    client = Client(settings=settings)
    theirs = client.get_or_create_collection("records", embedding_function=None)
    theirs.add(
        ids=["a"],
        embeddings=vectors(1),
        documents=["A text."],
        metadatas=[{"user": 1, "exp": "exp_1"}],
    )
    client.close()
    (sample,) = sample_collections(url)
    assert sample.records == [{"user": "1", "exp": "exp_1", "document": "A text."}]
    fields = StoreFields(
        owner=Field(path=("user",)),
        kind=Field(value="experience"),
        entity_id=Field(path=("exp",)),
        text=Field(path=("document",)),
        model=Field(value=MODEL),
    )
    with closing(open_store(url, fields=fields)) as store:
        wanted = restamp(record("exp_1", text="A text."), version=1, metadata={})
        wanted = wanted._replace(stamp=wanted.stamp._replace(vector_id="a"))
        assert [stamp.text_hash for stamp in store.stamps(["1"])] == [wanted.stamp.text_hash]
        store.publish([wanted], [])
        assert list(store.stamps(["1"])) == [wanted.stamp]
        assert not store.capabilities.many_processes


def test_the_control_two_engines_on_one_folder_are_silently_wrong(
    folder: Path, store: VectorStore
) -> None:
    """Why all this: what the first process has deleted goes on being found by the second."""
    store.create(DIMENSION)
    store.close()
    reader = """
import sys, chromadb
client = chromadb.PersistentClient(sys.argv[1])
collection = client.get_collection("records", embedding_function=None)
query = lambda: collection.query(query_embeddings=[[1.0] * 16], n_results=5, include=[])["ids"][0]
assert len(query()) == 2
print("open", flush=True)
sys.stdin.readline()
print(len(query()), flush=True)
"""
    settings = Settings(
        _env_file=None,  # type: ignore[call-arg]
        anonymized_telemetry=False,
        is_persistent=True,
        persist_directory=str(folder),
    )
    client = Client(settings=settings)
    collection = client.get_collection("records", embedding_function=None)
    collection.add(ids=["a", "b"], embeddings=vectors(2))
    with subprocess.Popen(
        [sys.executable, "-c", reader, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"ANONYMIZED_TELEMETRY": "False"},
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        collection.delete(ids=["a"])
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "2\n"
    client.close()
