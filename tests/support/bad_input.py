"""Bad input to the commands: every way to call them, and what must hold whatever goes wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from support.cli import Ran, Shell, experiences
from support.sides import ORIGIN, Database, Row, StoreTables

OWNER = 1


class Call(NamedTuple):
    """A command line.

    Attributes:
        names: whether it names the user *OWNER*; else it is about everybody.
    """

    program: str
    arguments: tuple[str, ...]
    names: bool

    def __str__(self) -> str:
        return " ".join([self.program, *self.arguments])


CHECKS = (
    Call("undrift", ("check", f"--user-id={OWNER}"), True),
    Call("undrift", ("check", "--all"), False),
    Call("undrift", ("check", "--all", "--output=json"), False),
    Call("db-sync-vector", ("--check", f"--userId={OWNER}"), True),
    Call("db-sync-vector", ("--check", "--all"), False),
)
SYNCS = (
    Call("undrift", ("sync", f"--user-id={OWNER}"), True),
    Call("undrift", ("sync", "--all"), False),
    Call("undrift", ("sync", "--all", "--dry-run"), False),
    Call("undrift", ("sync", "--all", "--force", "--output=jsonl", "-v"), False),
    Call("db-sync-vector", ("--sync", f"--userId={OWNER}", "--force"), True),
    Call("db-sync-vector", ("--", "--sync", "--all"), False),
)
SEARCH = Call("undrift", ("search", "title", f"--user-id={OWNER}"), True)
CALLS = (*CHECKS, *SYNCS, SEARCH)
"""The commands in each of their forms, on one user and on everybody."""


class Rows(NamedTuple):
    """What both sides hold."""

    source: list[Row]
    store: dict[str, Row]


class BothSides:
    """Both databases of a shell, read by SQL."""

    def __init__(self, shell: Shell, store_url: str | None = None) -> None:
        embedded = f"sqlite:///{shell.folder / '.undrift' / 'undrift.db'}"
        self._source = shell.source
        self._url = store_url or shell.variables.get("VECTOR_URL", embedded)

    @contextmanager
    def tables(self) -> Iterator[StoreTables]:
        """The store's tables."""
        database = Database(self._url)
        try:
            yield StoreTables(database, ORIGIN.kinds)
        finally:
            database.close()

    def rows(self) -> Rows:
        """Everything in them; a store that does not exist is empty."""
        source = self._source.rows("SELECT * FROM profiles ORDER BY user_id")
        with self.tables() as store:
            return Rows(source, store.records() if store.exists else {})


@contextmanager
def nothing_lost(shell: Shell, store_url: str | None = None) -> Iterator[BothSides]:
    """Both sides hold the same rows at the end of the block as at its beginning.

    Args:
        store_url: where the rows are read, if not where the shell's commands find them.
    """
    sides = BothSides(shell, store_url)
    before = sides.rows()
    yield sides
    assert sides.rows() == before


def drifted(shell: Shell) -> None:
    """A store that is filled, and a source that has moved on: each command has work to do."""
    for owner in (OWNER, 2, 3):
        shell.put(owner, experiences(f"exp_{owner}", f"old_{owner}"))
    assert shell.undrift("sync", "--all").code == 0
    for owner in (OWNER, 2, 3):
        shell.put(owner, experiences(f"exp_{owner}", f"new_{owner}"))


def assert_three_parts(ran: Ran, *hidden: str) -> None:
    """At least one error, each complete; no traceback; nothing of *hidden* anywhere."""
    assert ran.errors, ran.err
    assert ran.err.count("Error: ") == len(ran.errors)
    assert all(all(parts) for parts in ran.errors)
    assert_clean(ran, *hidden)


def assert_clean(ran: Ran, *hidden: str) -> None:
    """No traceback, and nothing of *hidden* anywhere."""
    for text in (ran.out, ran.err):
        assert "Traceback" not in text
        for secret in hidden:
            assert secret not in text


def assert_refused(ran: Ran, code: int, what: str, *, why: str = "", fix: str = "") -> None:
    """One error with three parts, nothing on stdout, no traceback."""
    assert ran.code == code
    assert_three_parts(ran)
    found = ran.error
    assert found[0] == what
    assert why in found[1]
    assert fix in found[2]
    assert ran.out == ""


def assert_told(ran: Ran, call: Call, code: int, what: str, *hidden: str) -> tuple[str, str, str]:
    """The run that *call* asked for ended with *code* and one error, *what*, and claims nothing.

    Returns:
        The error's three parts.
    """
    assert ran.code == code, (str(call), ran.err)
    assert_three_parts(ran, *hidden)
    assert ran.error[0] == what, str(call)
    if "--output=json" in call.arguments:
        assert json.loads(ran.out)["error"]["what"] == what
    if "--output=jsonl" in call.arguments:
        assert ran.lines[-1]["error"]["what"] == what
    for claim in ("In sync: true", "In sync: false", "already in sync", "sync completed"):
        assert claim not in ran.out
    return ran.error
