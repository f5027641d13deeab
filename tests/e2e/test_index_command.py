"""``undrift index``: what it prints, its exit codes, and what Ctrl-C leaves."""

from __future__ import annotations

import signal
from contextlib import closing

import psycopg
import pytest

from support.cli import Shell, experiences
from undrift.stores.pgvector import PgvectorStore


@pytest.fixture
def synced(postgres_shell: Shell) -> Shell:
    """User 123 with three vectors in pgvector."""
    postgres_shell.put(123, experiences("exp_1", "exp_2", "exp_3"))
    assert postgres_shell.undrift("sync", "--user-id", "123").code == 0
    return postgres_shell


def test_status_before_and_after_a_build(synced: Shell) -> None:
    """The words that a person reads."""
    before = synced.undrift("index", "status")
    assert before.code == 0
    assert before.out.startswith("🔍 Search index of postgresql://")
    assert "  - State: none\n  - Vectors: 3 of 1 users, the largest has 3\n" in before.out
    assert "  - Searches: exact\n  - Note: no index is needed" in before.out
    built = synced.undrift("index", "build", "--yes", "--m", "8", "--ef-construction", "32")
    assert built.code == 0
    after = synced.undrift("index", "status")
    for ran in (built, after):
        assert "  - State: valid\n" in ran.out
        assert "undrift.vectors_hnsw (vector_cosine_ops, m = 8, ef_construction = 32)" in ran.out
        assert "20 to 50 times" in ran.out


def test_status_for_programs(synced: Shell) -> None:
    """One document, whatever the form; nothing in it names a user."""
    synced.undrift("index", "build", "--yes")
    for output in ("json", "jsonl"):
        document = synced.undrift("index", "status", "--output", output).document
        seconds = document.pop("exact_search_seconds")
        assert 0 < seconds < 60
        assert document.pop("location").startswith("postgresql://")
        assert document.pop("index").pop("size_bytes") > 0
        assert len(document.pop("notes")) == 2
        assert document == {
            "schema_version": "1",
            "command": "index",
            "state": "valid",
            "records": 3,
            "owners": 1,
            "largest_owner_records": 3,
            "search": "exact",
            "is_worth_it": False,
        }


def test_check_sync_and_search_go_on_with_an_index(synced: Shell) -> None:
    """Its presence breaks nothing, asked or not."""
    synced.undrift("index", "build", "--yes")
    synced.put(123, experiences("exp_2", "exp_3", "exp_4"))
    for suffix in ("", "&search=approximate"):
        url = f"{synced.variables['VECTOR_URL']}?{suffix.lstrip('&')}"
        ran = synced.undrift("sync", "--user-id", "123", VECTOR_URL=url)
        assert ran.code == 0
        assert synced.undrift("check", "--all", VECTOR_URL=url).code == 0
        hits = synced.undrift(
            "search", "--user-id", "123", "exp_4", "--output", "json", VECTOR_URL=url
        ).document["hits"]
        assert {hit["entity_id"] for hit in hits} == {"exp_2", "exp_3", "exp_4"}


def test_sql_is_printed_and_not_run(synced: Shell) -> None:
    """What is printed can be run as it is."""
    ran = synced.undrift("index", "build", "--sql", "--maintenance-work-mem", "64MB")
    assert ran.code == 0
    statements = [part.strip() for part in ran.out.split(";") if part.strip()]
    assert any(part.startswith("CREATE INDEX CONCURRENTLY") for part in statements)
    assert synced.undrift("index", "status", "--output", "json").document["state"] == "none"
    with psycopg.connect(synced.variables["VECTOR_URL"], autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())
    assert synced.undrift("index", "status", "--output", "json").document["state"] == "valid"
    document = synced.undrift("index", "build", "--sql", "--output", "json").document
    assert document["sql"][-2].startswith("CREATE INDEX CONCURRENTLY")


def test_the_other_type_is_built_once_the_first_is_dropped(synced: Shell) -> None:
    """Each says what it is; what one type takes, the other refuses."""
    synced.undrift("index", "build", "--yes")
    refused = synced.undrift("index", "build", "--type", "ivfflat", "--yes")
    assert refused.code == 2
    assert "`undrift index drop`" in refused.error[2]
    printed = synced.undrift("index", "drop", "--sql")
    assert printed.out == 'DROP INDEX CONCURRENTLY IF EXISTS "undrift"."vectors_hnsw";\n'
    assert "  - State: none\n" in synced.undrift("index", "drop", "--yes").out
    again = synced.undrift("index", "drop", "--yes")
    assert again.code == 0
    assert "nothing was done" in again.out
    assert synced.undrift("index", "build", "--type", "ivfflat", "--m", "8").code == 2
    built = synced.undrift("index", "build", "--type", "ivfflat", "--lists", "2", "--yes")
    assert built.code == 0
    assert "undrift.vectors_ivfflat (vector_cosine_ops, lists = 2)" in built.out
    index = synced.undrift("index", "status", "--output", "json").document["index"]
    assert index.pop("size_bytes") > 0
    assert index == {
        "name": "undrift.vectors_ivfflat",
        "type": "ivfflat",
        "operator_class": "vector_cosine_ops",
        "lists": 2,
        "built_on_records": 3,
    }


@pytest.mark.parametrize(
    "arguments",
    [["status"], ["build", "--yes"], ["build", "--sql"], ["drop", "--yes"], ["drop", "--sql"]],
)
def test_a_store_without_an_index_needs_none(shell: Shell, arguments: list[str]) -> None:
    """Exit 2, as nothing was done; the reason is good news."""
    ran = shell.undrift("index", *arguments)
    assert (ran.code, ran.out) == (2, "")
    what, why, fix = ran.error
    assert what == "undrift builds no search index in this vector store"
    assert "exact" in why
    assert fix


def test_errors_are_documents_for_programs(shell: Shell) -> None:
    """With the three parts."""
    ran = shell.undrift("index", "status", "--output", "json")
    assert ran.code == 2
    assert ran.document["command"] == "index"
    assert ran.document["error"]["type"] == "UnsupportedError"


def test_a_store_that_does_not_exist_is_not_created(postgres_shell: Shell) -> None:
    """Exit 2, and the command that creates it."""
    for arguments in (["status"], ["build", "--yes"], ["drop", "--yes"]):
        ran = postgres_shell.undrift("index", *arguments)
        assert ran.code == 2
        assert "undrift sync" in ran.error[2]


def test_a_parameter_out_of_range_is_wrong_usage(synced: Shell) -> None:
    """Before anybody is asked anything."""
    ran = synced.undrift("index", "build", "--m", "1")
    assert ran.code == 2
    assert ran.error[0] == "--m is out of range"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_build_ends_on_the_server_too(
    synced: Shell, number: signal.Signals, code: int
) -> None:
    """It leaves at most an invalid index, which the next build replaces."""
    url = synced.variables["VECTOR_URL"]
    with psycopg.connect(url) as writer:
        writer.execute("UPDATE undrift.vectors SET text = text")
        with synced.start("undrift", "index", "build", "--yes") as process:
            assert process.stderr is not None
            told = []
            for line in process.stderr:
                told.append(line)
                if "Progress: waiting for writers" in line:
                    assert f"process {writer.info.backend_pid}" in line
                    process.send_signal(number)
            out, _ = process.communicate(timeout=60)
        assert process.returncode == code
        assert "Traceback" not in "".join(told)
        assert any("index is unfinished" in line for line in told)
        assert out == ""
        with closing(PgvectorStore(url)) as store:
            assert store.index_status().state == "invalid"
    assert synced.undrift("index", "build", "--yes").code == 0
    assert synced.undrift("index", "status", "--output", "json").document["state"] == "valid"
