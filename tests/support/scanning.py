"""Checks of everybody, and what named checks of the same owners say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from support.cli import Program, Ran
from support.processes import TESTS, _Child
from support.sides import World
from undrift import SyncStatus, Undrift
from undrift.heal import NO_HEALING
from undrift.model import Read
from undrift.scan.options import DEFAULT_CHECK, CheckOptions
from undrift.stores import open_store

NO_MEMOS = CheckOptions(memos=False)


def checked(sides: Undrift, options: CheckOptions = DEFAULT_CHECK) -> dict[str, SyncStatus]:
    """What a check of everybody says, by owner; nobody may be told twice."""
    found = list(sides.check_all(options))
    by_owner = {status.owner_id: status for status in found}
    assert len(by_owner) == len(found)
    return by_owner


def named(sides: Undrift, owners: Sequence[str]) -> dict[str, SyncStatus]:
    """What a check that names *owners* says of them."""
    return {status.owner_id: status for status in sides.check_owners(owners)}


def content(statuses: Mapping[str, SyncStatus]) -> Mapping[str, object]:
    """What is said, whatever was read for it; an error by what it says."""
    return {
        owner: (
            replace(status, read=Read.FULL, error=None),
            None if status.error is None else (type(status.error), str(status.error)),
        )
        for owner, status in statuses.items()
    }


def owners_of(world: World) -> set[str]:
    """Everybody with a row in the source, or a managed record in the store, by SQL."""
    found = {row["owner_id"] for row in world.store.managed().values()}
    for table in world.layout.tables:
        rows = world.source.rows(f"SELECT DISTINCT user_id FROM {table}")
        found |= {str(row["user_id"]) for row in rows}
    return found


def assert_true(
    world: World, options: CheckOptions = DEFAULT_CHECK, *, sides: Undrift | None = None
) -> dict[str, SyncStatus]:
    """Check everybody, and compare everything that is said with a check by name; return it."""
    sides = sides or world.sides
    found = checked(sides, options)
    everybody = owners_of(world)
    assert found.keys() == everybody
    assert content(found) == content(named(sides, sorted(everybody)))
    return found


def warm(world: World) -> None:
    """Let a check remember what everybody renders to, and see that the next one uses it."""
    checked(world.sides)
    again = checked(world.sides)
    assert again
    assert {status.read for status in again.values()} == {Read.DIGESTS}


def forget_memos(world: World) -> None:
    """Take what is remembered away, by SQL."""
    world.store.database.run(f"DELETE FROM {memory_table(world, 'state_memo')}")


def memory_table(world: World, name: str) -> str:
    """One of the memory's tables, as SQL names it."""
    return f"undrift.{name}" if world.store.database.is_postgres else f"undrift_{name}"


def store_digest(world: World, owner: str) -> bytes:
    """The digest of what the store holds of *owner*."""
    from undrift.digests import DigestingStore

    store = open_store(world.store_url, namespace="default")
    try:
        assert isinstance(store, DigestingStore)
        model, kinds = world.embedder.model, world.layout.mapping.kinds
        return store.digests([owner], model=model, kinds=kinds)[owner].digest
    finally:
        store.close()


@contextmanager
def opened_by_url(world: World) -> Iterator[Undrift]:
    """An `Undrift` that knows both sides by their URLs, so that other processes can open them."""
    with Undrift(
        source=world.source_url,
        store=world.store_url,
        state=world.state_url,
        embedder=world.embedder,
        mapping=world.layout.mapping,
        heal=NO_HEALING,
    ) as sides:
        yield sides


def small_pages(monkeypatch: pytest.MonkeyPatch, owners: int) -> None:
    """Let a page of a check have so many owners, that a small fleet has many pages."""
    monkeypatch.setattr("undrift.scan.feed.PAGE_OWNERS", owners)


# --- in a process that is struck ------------------------------------------------------------------


class Checker(_Child):
    """A process that runs ``undrift check --all``, in small pages, and is struck on the way."""

    def __init__(self) -> None:
        super().__init__("support.scan_child")

    def __call__(
        self,
        fleet: Fleet,
        *options: str,
        at: str | None = None,
        occurrence: int = 1,
        by: str = "SIGKILL",
        every_seconds: float = 0,
        control: str | None = None,
    ) -> Ran:
        """Run it to its end; the code of one that was killed is the signal's number, below 0.

        Args:
            at: a failpoint, or ``rendered`` or ``told`` for the middle of a page.
            every_seconds: how long a checkpoint waits; 0 for one behind every page.
            control: what is to be wrong with it.
        """
        job = fleet.job(
            *options,
            at=at,
            occurrence=occurrence,
            by=by,
            every_seconds=every_seconds,
            control=control,
        )
        self._send(job)
        code: int = self._receive()["code"]
        out, err = (Path(str(job[name])).read_text() for name in ("out", "err"))
        return Ran(code, out, err)


class Fleet(NamedTuple):
    """A fleet with drift, that is checked by other processes, and not changed.

    Attributes:
        folder: where they work.
    """

    world: World
    folder: Path
    page_owners: int = 4

    def job(
        self,
        *options: str,
        at: str | None = None,
        occurrence: int = 1,
        by: str = "SIGKILL",
        every_seconds: float = 0,
        control: str | None = None,
        many_rendered: int = 2_000,
    ) -> dict[str, object]:
        """What `support.scan_child` is asked for."""
        return {
            "folder": str(self.folder),
            "variables": {
                "DATABASE_URL": self.world.source_url,
                "VECTOR_URL": self.world.store_url,
                "UNDRIFT_EMBEDDER": "hashing:16",
            },
            "arguments": ["check", "--all", "--output", "json", *options],
            "out": str(self.folder / "out"),
            "err": str(self.folder / "err"),
            "page_owners": self.page_owners,
            "many_rendered": many_rendered,
            "every_seconds": every_seconds,
            "control": control,
            "at": at,
            "occurrence": occurrence,
            "signal": by,
        }

    def program(self, job: Mapping[str, object]) -> Program:
        """A program of its own that does *job*."""
        return Program(
            [sys.executable, "-m", "support.scan_child", json.dumps(job)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=TESTS,
            env={**os.environ, "PYTHONPATH": str(TESTS)},
            encoding="utf-8",
            start_new_session=True,
        )


def answer(ran: Ran) -> dict[str, object]:
    """What a run says, but for how long it took."""
    document = ran.document
    del document["summary"]["duration_seconds"]
    return document
