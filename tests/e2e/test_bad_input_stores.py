"""Bad input: another dimension, a store that may not be written, sides that fail in mid-page."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from support.bad_input import (
    CALLS,
    CHECKS,
    OWNER,
    SEARCH,
    SYNCS,
    BothSides,
    Call,
    assert_clean,
    assert_three_parts,
    assert_told,
    drifted,
    nothing_lost,
)
from support.cli import Ran, Shell, experiences
from support.cut_proxy import CutProxy
from support.files import as_nobody, damage
from support.naive import NaiveWriter
from support.postgres import PostgresServer, with_login
from support.sides import NAMESPACE, ORIGIN, CountingEmbedder, Identity
from undrift import EntityId
from undrift.render import Renderer
from undrift.sources import open_source
from undrift.stores import open_store

WRITING = [call for call in SYNCS if "--dry-run" not in call.arguments]
READING = [call for call in (*CHECKS, *SYNCS, SEARCH) if call not in WRITING]
EMBEDDED = Path(".undrift") / "undrift.db"
ROLE = "cli_store_reader"


def run(shell: Shell, call: Call, **variables: str) -> Ran:
    """What *call* comes to."""
    return shell(call.program, *call.arguments, **variables)


# --- another dimension ------------------------------------------------------------------------


def test_embedder_of_another_dimension_is_refused(any_shell: Shell) -> None:
    """Exit 2 with both numbers and the way to another store; no record is touched."""
    drifted(any_shell)
    with nothing_lost(any_shell):
        for call in CALLS:
            ran = run(any_shell, call, UNDRIFT_EMBEDDER="hashing:8")
            _, why, fix = assert_told(ran, call, 2, "The store's vectors have another dimension")
            assert "16 components" in why
            assert "makes 8" in why
            assert "VECTOR_URL" in fix


# --- a store that may not be written ----------------------------------------------------------


def assert_reads_and_refuses_to_write(
    shell: Shell, what: str, fix: str, *, store_url: str | None = None
) -> None:
    """A check, a dry run and a search work; a sync exits 2 and says how it could write."""
    with nothing_lost(shell, store_url):
        for call in READING:
            ran = run(shell, call)
            assert ran.code == (0 if call is SEARCH else 1), ran.err
            assert_clean(ran)
        for call in WRITING:
            ran = run(shell, call)
            assert ran.code == 2, (str(call), ran.err)
            assert_three_parts(ran)
            assert ran.errors[0][0] == what
            assert fix in ran.errors[0][2]


def test_store_opened_read_only_is_read_and_not_written(shell: Shell) -> None:
    """By its address."""
    drifted(shell)
    url = f"sqlite:///{shell.folder / EMBEDDED}"
    shell.variables["VECTOR_URL"] = f"{url}?mode=ro"
    what = "The vector store's file may not be used like that"
    assert_reads_and_refuses_to_write(shell, what, "leave out ?mode=ro", store_url=url)


def test_store_of_another_user_is_read_and_not_written(shell: Shell) -> None:
    """By its rights, while its owner has it open."""
    drifted(shell)
    file = shell.folder / EMBEDDED
    with closing(sqlite3.connect(file)) as owner:
        owner.execute("SELECT count(*) FROM vectors")  # keeps the lock file there
        before = BothSides(shell).rows()
        for path in file.parent.iterdir():
            path.chmod(0o444)
        file.parent.chmod(0o555)
        with as_nobody(file.parent):
            checked = [run(shell, call) for call in READING]
            synced = [run(shell, call) for call in WRITING]
        file.parent.chmod(0o755)
    assert [ran.code for ran in checked] == [0 if call is SEARCH else 1 for call in READING]
    for ran in synced:
        assert ran.code == 2, ran.err
        assert_three_parts(ran)
        assert "may not be used like that" in ran.errors[0][0]
        assert "let this user write the file" in ran.errors[0][2]
    assert BothSides(shell).rows() == before


@pytest.fixture
def reader_shell(postgres_shell: Shell, postgres_server: PostgresServer) -> Iterator[Shell]:
    """A shell over a filled store that has drifted, of which a role may see everything."""
    drifted(postgres_shell)
    postgres_server.create_role(ROLE, "secret-of-the-reader")
    postgres_shell.source.run(f"GRANT USAGE ON SCHEMA undrift TO {ROLE}")
    postgres_shell.source.run(f"GRANT SELECT ON ALL TABLES IN SCHEMA undrift TO {ROLE}")
    yield postgres_shell
    postgres_shell.source.run(f"DROP OWNED BY {ROLE}")


@pytest.mark.parametrize(
    ("statement", "what", "fix"),
    [
        (
            "SELECT 1",
            "The state's role may not write",
            '"undrift"."owner_state"',
        ),
        (
            f"ALTER ROLE {ROLE} SET default_transaction_read_only = on",
            "The state's database is read-only",
            "with a role whose transactions may write",
        ),
    ],
    ids=["SELECT only", "read-only transactions"],
)
def test_store_that_a_role_may_only_read_is_read_and_not_written(
    reader_shell: Shell, statement: str, what: str, fix: str
) -> None:
    """By its grants, or by the server's mode."""
    reader_shell.source.run(statement)
    if "read_only" in statement:
        reader_shell.source.run(f"GRANT INSERT, UPDATE, DELETE ON undrift.vectors TO {ROLE}")
    url = reader_shell.variables["VECTOR_URL"]
    reader_shell.variables["VECTOR_URL"] = with_login(url, ROLE, "secret-of-the-reader")
    assert_reads_and_refuses_to_write(reader_shell, what, fix, store_url=url)


# --- a side that fails in the middle of a page ------------------------------------------------

KEPT = {Identity(str(owner), EntityId(f"experience:exp_{owner}")) for owner in (OWNER, 2, 3)}
"""What both sides hold before and after: it may never be absent."""


def answer(ran: Ran) -> tuple[int, str]:
    """What a run says, but for how long it took."""
    return ran.code, re.sub(r'"duration_seconds": [0-9.]+', "", ran.out)


def kept_in(shell: Shell) -> set[Identity]:
    """Which of what must not be lost is in the store."""
    with BothSides(shell).tables() as store:
        return KEPT & store.identities().keys()


@pytest.mark.parametrize("variable", ["DATABASE_URL", "VECTOR_URL"])
@pytest.mark.parametrize("call", [CHECKS[0], SEARCH], ids=str)
def test_connection_that_breaks_anywhere_leaves_a_check_unknown(
    postgres_shell: Shell, variable: str, call: Call
) -> None:
    """Exit 3 wherever the line breaks: within a login, a page, a row. Never a guess."""
    drifted(postgres_shell)
    url = postgres_shell.variables[variable]
    with CutProxy(url) as line:
        whole = answer(run(postgres_shell, call, **{variable: line.url}))
        total = line.forwarded
    assert whole[0] == (0 if call is SEARCH else 1)
    unknown = 0
    with nothing_lost(postgres_shell):
        for cut in range(1, total, total // 10):
            with CutProxy(url, cut) as line:
                ran = run(postgres_shell, call, **{variable: line.url})
                assert line.is_cut
            if answer(ran) == whole:
                continue  # there was only the farewell left
            unknown += 1
            assert ran.code == 3, (cut, ran.err)
            assert_three_parts(ran)
            assert "In sync: true" not in ran.out
            assert "In sync: false" not in ran.out
    assert unknown >= 7


def test_control_naive_check_takes_a_broken_connection_for_drift(postgres_shell: Shell) -> None:
    """Over the same line: an error that counts as "nothing found" makes everything differ."""
    postgres_shell.put(OWNER, experiences("exp_1"))
    assert postgres_shell.undrift("sync", "--all").code == 0
    url = postgres_shell.variables["DATABASE_URL"]
    renderer = Renderer(ORIGIN)
    store = open_store(url, namespace=NAMESPACE)
    with closing(store), CutProxy(url, 1) as line:
        source = open_source(line.url, ORIGIN, renderer.fields)
        status = NaiveWriter(source, store, renderer, CountingEmbedder()).check(str(OWNER))
        source.close()
    assert status.stale == {"experience:exp_1"}
    assert postgres_shell.undrift("check", "--all").code == 0


@pytest.mark.parametrize("variable", ["DATABASE_URL", "VECTOR_URL"])
def test_connection_that_breaks_anywhere_in_a_sync_loses_nothing(
    postgres_shell: Shell, variable: str
) -> None:
    """What is kept is never absent, success is never claimed falsely, the next sync finishes."""
    call = SYNCS[1]
    drifted(postgres_shell)
    url = postgres_shell.variables[variable]
    with CutProxy(url) as line:
        assert run(postgres_shell, call, **{variable: line.url}).code == 0
        total = line.forwarded
    codes = set()
    for cut in range(total // 4, total, total // 8):
        drifted(postgres_shell)
        source = postgres_shell.source.rows("SELECT * FROM profiles ORDER BY user_id")
        with CutProxy(url, cut) as line:
            ran = run(postgres_shell, call, **{variable: line.url})
        codes.add(ran.code)
        assert ran.code in (0, 1, 3), (cut, ran.err)
        assert_clean(ran)
        if ran.code == 0:
            assert postgres_shell.undrift("check", "--all").code == 0
        else:
            assert_three_parts(ran)
        assert kept_in(postgres_shell) == KEPT
        assert postgres_shell.source.rows("SELECT * FROM profiles ORDER BY user_id") == source
        assert postgres_shell.undrift("sync", "--all").code == 0
        assert postgres_shell.undrift("check", "--all").code == 0
    assert 3 in codes


def test_backend_that_is_killed_within_a_page_is_unknown(postgres_shell: Shell) -> None:
    """By the server itself, at the second of three rows; the first proves nothing."""
    drifted(postgres_shell)
    with nothing_lost(postgres_shell):
        postgres_shell.source.run("ALTER TABLE profiles RENAME TO real_profiles")
        postgres_shell.source.run(
            "CREATE VIEW profiles AS SELECT user_id, CASE WHEN user_id = 2 THEN"
            " to_jsonb(pg_terminate_backend(pg_backend_pid())) ELSE filtered_data END"
            " AS filtered_data FROM real_profiles"
        )
        for call in (CHECKS[1], CHECKS[2], SYNCS[1], SYNCS[2], SYNCS[3]):
            ran = run(postgres_shell, call)
            assert ran.code == 3, (str(call), ran.err)
            assert_three_parts(ran)
            assert {error[0] for error in ran.errors} == {"The source cannot be read"}
        postgres_shell.source.run("DROP VIEW profiles")
        postgres_shell.source.run("ALTER TABLE real_profiles RENAME TO profiles")
    assert postgres_shell.undrift("sync", "--all").code == 0


def kept_vectors(file: Path, *, is_damaged: bool) -> bytes | list[str]:
    """The store's file; without the state that lies beside the vectors, where it can be read."""
    if is_damaged:
        return file.read_bytes()
    with closing(sqlite3.connect(file)) as database:
        return [line for line in database.iterdump() if '"vectors"' in line or "embed" in line]


@pytest.mark.parametrize("side", ["source", "store"])
def test_file_that_is_damaged_within_a_page_is_unknown(shell: Shell, side: str) -> None:
    """Half of its pages cannot be read; what the other half says is not taken for everything."""
    for owner in range(1, 150):
        shell.put(owner, experiences(*(f"exp_{owner}_{number}" for number in range(5))))
    assert shell.undrift("sync", "--all").code == 0
    shell.source.close()
    file = shell.folder / ("app.db" if side == "source" else EMBEDDED)
    damage(file)
    store = kept_vectors(shell.folder / EMBEDDED, is_damaged=side == "store")
    for call in (CHECKS[1], CHECKS[2], SYNCS[1], SYNCS[3]):
        ran = run(shell, call)
        assert ran.code == 3, (str(call), ran.err)
        assert_three_parts(ran)
        assert "Users out of sync: 0" in ran.out or "Users out of sync" not in ran.out
    assert kept_vectors(shell.folder / EMBEDDED, is_damaged=side == "store") == store
