"""The source in one PostgreSQL and the vectors in another, each with a login of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest

from support.cli import Shell, experiences, profile_shell
from support.postgres import PostgresServer, with_login
from support.watching import watching

READER, WRITER, KEEPER, COLLEAGUE = "app_reader", "vector_writer", "state_keeper", "colleague"


def run(url: str, *statements: str) -> list[tuple[object, ...]]:
    """The rows of the last statement."""
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def tables(url: str) -> set[str]:
    """What is in undrift's own schema."""
    rows = run(url, "SELECT relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace "
                    "WHERE nspname = 'undrift' AND relkind = 'r'")  # fmt: skip
    return {str(name) for (name,) in rows}


class Apart(NamedTuple):
    """Both databases, as their administrators reach them."""

    shell: Shell
    source_url: str
    store_url: str
    store_server: PostgresServer
    has_state_beside_vectors: bool


@pytest.fixture(scope="module")
def vector_server() -> Iterator[PostgresServer]:
    """A second server; nobody of the first one is known there."""
    with PostgresServer() as server:
        yield server


@pytest.fixture(params=["T", "C"])
def apart(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    postgres_server: PostgresServer,
    vector_server: PostgresServer,
) -> Iterator[Apart]:
    """Three users; the state is beside the vectors (T), or in the source's database (C)."""
    with (
        postgres_server.database(with_vector=False) as source_url,
        vector_server.database() as store_url,
        profile_shell(tmp_path, monkeypatch, capsys, source_url=source_url) as shell,
    ):
        postgres_server.create_role(READER, "one secret")
        run(source_url, f"GRANT SELECT ON profiles TO {READER}")
        vector_server.create_role(WRITER, "another secret")
        run(store_url, f"GRANT CREATE ON DATABASE {_name(store_url)} TO {WRITER}")
        shell.variables["DATABASE_URL"] = with_login(source_url, READER, "one secret")
        shell.variables["VECTOR_URL"] = with_login(store_url, WRITER, "another secret")
        if request.param == "C":
            postgres_server.create_role(KEEPER, "third secret")
            run(source_url, f"GRANT CREATE ON DATABASE {_name(source_url)} TO {KEEPER}")
            shell.variables["UNDRIFT_STATE__URL"] = with_login(source_url, KEEPER, "third secret")
        for owner in (1, 2, 3):
            shell.put(owner, experiences(f"exp_{owner}", "both"))
        yield Apart(shell, source_url, store_url, vector_server, request.param == "T")


def _name(url: str) -> str:
    return url.rpartition("/")[2]


def test_what_drifts_on_either_side_is_repaired(apart: Apart) -> None:
    """And everything is where it was asked to be."""
    shell = apart.shell
    assert shell.undrift("sync", "--all").code == 0
    assert shell.undrift("check", "--all").code == 0
    in_source, beside_vectors = tables(apart.source_url), tables(apart.store_url)
    assert {"vectors", "store_claim"} <= beside_vectors
    assert ("entity_state" in beside_vectors) is apart.has_state_beside_vectors
    assert ("entity_state" in in_source) is not apart.has_state_beside_vectors
    assert "vectors" not in in_source

    shell.put(1, experiences("exp_1", "new"))
    shell.drop(2)
    run(apart.store_url, "DELETE FROM undrift.vectors WHERE owner_id = '3'")
    assert shell.undrift("check", "--all").code == 1
    assert shell.undrift("sync", "--all", "--max-delete", "9").code == 0
    assert shell.undrift("check", "--all").code == 0
    stored = run(
        apart.store_url,
        "SELECT owner_id, entity_id FROM undrift.vectors WHERE deleted = 0 ORDER BY 1, 2",
    )
    assert stored == [("1", "exp_1"), ("1", "new"), ("3", "both"), ("3", "exp_3")]


def test_the_class_follows_from_where_the_state_is(apart: Apart) -> None:
    """Where one transaction cannot hold both, a delete leaves a tombstone."""
    shell = apart.shell
    assert shell.undrift("sync", "--all").code == 0
    shell.put(1, experiences("exp_1"))
    assert shell.undrift("sync", "--user-id", "1").code == 0
    buried = run(apart.store_url, "SELECT owner_id, entity_id FROM undrift.vectors WHERE deleted=1")
    assert buried == ([] if apart.has_state_beside_vectors else [("1", "both")])
    shown = shell.undrift("state", "show").out
    assert f"Store class: {'T' if apart.has_state_beside_vectors else 'C'}" in shown
    assert shell.undrift("doctor").code == 0
    hits = shell.undrift("search", "--user-id", "1", "both", "--output", "json").document["hits"]
    assert [hit["entity_id"] for hit in hits] == ["exp_1"]


def test_another_login_and_another_way_to_search_share_the_state(apart: Apart) -> None:
    """It is of the vectors, not of whoever writes them."""
    shell = apart.shell
    assert shell.undrift("sync", "--all").code == 0
    apart.store_server.create_role(COLLEAGUE, "fourth secret")
    run(apart.store_url, f"GRANT {WRITER} TO {COLLEAGUE}")
    url = f"{with_login(apart.store_url, COLLEAGUE, 'fourth secret')}?search=approximate"
    before = shell.undrift("state", "show", "--output", "json").document
    shell.put(1, experiences("exp_1", "exp_7"))
    ran = shell.undrift("sync", "--user-id", "1", VECTOR_URL=url)
    assert ran.code == 0, ran.err
    assert "Created" not in ran.err
    after = shell.undrift("state", "show", "--output", "json", VECTOR_URL=url).document
    assert after["standing"]["state_id"] == before["standing"]["state_id"]
    assert after["may_write"] is True
    assert shell.undrift("sync", "--user-id", "1").code == 0


def test_a_watch_follows_triggers_from_one_database_into_the_other(apart: Apart) -> None:
    """The worker may read the source and take its marks, and nothing more."""
    shell = apart.shell
    assert shell.undrift("sync", "--all").code == 0
    installed = shell.undrift("triggers", "install", DATABASE_URL=apart.source_url)
    assert installed.code == 0, installed.err
    run(
        apart.source_url,
        f"GRANT USAGE ON SCHEMA undrift TO {READER}",
        f"GRANT SELECT, UPDATE, DELETE ON undrift.change TO {READER}",
    )
    shell.put(1, experiences("exp_1", "exp_9"))
    shell.drop(2)
    with watching(shell) as watch:
        assert watch.await_logged("watch.synced", owner="1")["written"] == 1
        assert watch.await_logged("watch.synced", owner="2")["deleted"] == 2
        shell.put(4, experiences("exp_4"))
        assert watch.await_logged("watch.synced", owner="4")["embedded"] == 1
        assert watch.end() == 143
    assert shell.undrift("check", "--all").code == 0
    assert run(apart.source_url, "SELECT count(*) FROM undrift.change") == [(0,)]


def test_an_outage_of_either_side_is_no_drift(
    apart: Apart, postgres_server: PostgresServer
) -> None:
    """Exit 3 while it lasts, 0 afterwards, and nothing was written."""
    shell = apart.shell
    assert shell.undrift("sync", "--all").code == 0
    for server in (apart.store_server, postgres_server):
        server.stop()
        assert shell.undrift("check", "--all").code == 3
        assert shell.undrift("sync", "--user-id", "1").code == 3
        server.start()
        assert shell.undrift("check", "--all").code == 0
