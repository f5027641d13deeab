"""An owner's commands read and change nothing of anybody else's, whatever everybody is called.

Every owner, id, kind, table and column of these worlds is a string that a careless program takes
for SQL, a pattern, a filter, a template or a flag, or for the one beside it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from unicodedata import normalize

import pytest

from support.hostile import HOSTILE, HOSTILE_KINDS, Entry, HostileWorld, entries_of, sqlite_hostile
from support.postgres import PostgresServer
from support.recording import Named, RecordingStore, postgres_statements, sqlite_statements
from support.sides import drift_of
from undrift import EntityId, Found, Outcome, Retry, Undrift
from undrift.fingerprint import vector_id
from undrift.model import Stamp
from undrift.ports import Deletion, Record, VectorStore
from undrift.state import Expected, Fence

TAG = "kumquat"

NewHostile = Callable[..., HostileWorld]


@pytest.fixture(params=["sqlite", "pgvector"])
def new_hostile(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NewHostile]:
    """A function that creates a hostile world of a layout, on each backend."""
    with ExitStack() as worlds:

        def new(layout: str, tag: str = "") -> HostileWorld:
            if request.param == "sqlite":
                world = sqlite_hostile(tmp_path, layout=layout, tag=tag)
            else:
                url = request.getfixturevalue("new_postgres_url")()
                world = HostileWorld(url, url, layout=layout, tag=tag)
            return worlds.enter_context(world)

        yield new


def tagged(values: Sequence[str], tag: str) -> list[str]:
    """*values*, each told from what a statement says by *tag*."""
    return [f"{value}{tag}" for value in values]


def filled(world: HostileWorld, owners: Sequence[str], kinds: Sequence[str]) -> list[Entry]:
    """Bring *world* in sync with two entities for each of *owners*; return them."""
    entries = entries_of(owners, kinds)
    world.put(entries)
    assert all(report.is_in_sync for report in world.sides.sync_all())
    assert world.found() == {entry.identity: entry.text for entry in entries}
    return entries


def drifted(entries: Sequence[Entry]) -> list[Entry]:
    """*entries* after everybody's first one was edited and everybody's second one replaced."""
    found = []
    for entry in entries:
        is_first = "of1" in entry.text
        found.append(
            entry._replace(text=f"{entry.text} edited")
            if is_first
            else entry._replace(id=f"{entry.id} new")
        )
    return found


def test_corpus_holds_what_it_should() -> None:
    """No string twice, and yet many that are the same once folded, normalised or converted."""
    assert len(set(HOSTILE)) == len(HOSTILE)
    assert len({normalize("NFKC", owner).casefold() for owner in HOSTILE}) < len(HOSTILE) - 5
    assert max(len(owner.encode()) for owner in HOSTILE) >= 254
    assert {"'; DROP TABLE profiles; --", '" OR 1=1', "%", "_", "1", "10", "a", "ab"} < {*HOSTILE}


# --- exactly its own --------------------------------------------------------------------------


def assert_isolated(
    world: HostileWorld, sides: Undrift, before: Sequence[Entry], owner: str
) -> None:
    """*owner*'s check, search and sync find and change exactly its own, in a world that drifted.

    Args:
        before: what was in sync; the source holds `drifted` of it.
    """
    mine = [entry for entry in before if entry.owner == owner]
    first = next(entry for entry in mine if "of1" in entry.text)
    second = next(entry for entry in mine if "of2" in entry.text)
    others, source = world.others(owner), world.source_rows()

    status = sides.check(owner)
    assert (status.outcome, status.owner_id) == (Outcome.DRIFT, owner)
    assert drift_of(status) == {
        "changed": {EntityId.of(first.kind, first.id)},
        "stale": {EntityId.of(second.kind, second.id)},
        "missing": {EntityId.of(second.kind, f"{second.id} new")},
    }
    report = sides.sync(owner)
    assert (report.outcome, report.written, report.deleted) == (Outcome.IN_SYNC, 2, 1)
    result = sides.search(owner, first.text, limit=1_000)
    wanted = drifted(mine)
    assert {hit.key: hit.text for hit in result.hits} == {e.identity.key: e.text for e in wanted}
    assert {hit.owner_id for hit in result.hits} == {owner}
    resolved = sides.resolve(owner, first.identity.key)
    assert isinstance(resolved, Found)
    assert resolved.entity.owner_id == owner
    foreign = next(entry for entry in before if entry.kind == first.kind and entry.owner != owner)
    assert_is_not_there(sides, owner, foreign, {entry.identity.key for entry in wanted})

    assert world.others(owner) == others
    assert world.source_rows() == source
    found = {key: text for key, text in world.found().items() if key.owner_id == owner}
    assert found == {entry.identity: entry.text for entry in wanted}


def assert_is_not_there(sides: Undrift, owner: str, foreign: Entry, own: set[EntityId]) -> None:
    """Another owner's entity is nothing to this one, and is not offered either."""
    if foreign.identity.key in own:
        return  # this owner has one of that name itself
    answer = sides.resolve(owner, foreign.identity.key)
    assert isinstance(answer, Retry)
    assert {candidate.key for candidate in answer.candidates} <= own


@pytest.mark.parametrize("layout", ["documents", "tables"])
def test_owner_finds_and_changes_exactly_its_own(new_hostile: NewHostile, layout: str) -> None:
    """Owner after owner, while everybody has drifted; at the end the fleet is in sync."""
    world = new_hostile(layout)
    entries = filled(world, HOSTILE, HOSTILE_KINDS)
    world.put(drifted(entries))
    assert sum(not status.is_in_sync for status in world.sides.check_all()) == len(HOSTILE)

    for owner in HOSTILE:
        assert_isolated(world, world.sides, entries, owner)

    assert all(status.is_in_sync for status in world.sides.check_all())
    assert {status.owner_id for status in world.sides.check_all()} == {*HOSTILE}


@pytest.mark.parametrize("layout", ["documents", "tables"])
def test_owner_that_is_gone_takes_nobody_along(new_hostile: NewHostile, layout: str) -> None:
    """Deleting is the other half: every owner is removed by name, one after the other."""
    world = new_hostile(layout)
    entries = filled(world, HOSTILE, HOSTILE_KINDS)
    for owner in HOSTILE[::3]:
        entries = [entry for entry in entries if entry.owner != owner]
        world.put(entries)
        others = world.others(owner)
        assert world.sides.check(owner).orphan_owner
        report = world.sides.sync(owner)
        assert (report.outcome, report.deleted) == (Outcome.IN_SYNC, 2)
        assert world.store.records() == others
    assert all(status.is_in_sync for status in world.sides.check_all())


@pytest.mark.parametrize("layout", ["documents", "tables"])
def test_owner_that_nobody_has_is_nobody(new_hostile: NewHostile, layout: str) -> None:
    """Asked for by the name of a pattern, a prefix or a look-alike of somebody."""
    world = new_hostile(layout)
    there = ("1", "ab", "Bob", "caf\u00e9", "a_b", "x%y", "16", "\u0435")
    filled(world, there, HOSTILE_KINDS)
    before = world.store.records()
    for owner in {*HOSTILE} - {*there}:
        assert world.sides.check(owner).outcome is Outcome.NOT_FOUND, owner
        assert world.sides.sync(owner).outcome is Outcome.NOT_FOUND, owner
    assert world.store.records() == before


# --- whom a call names ------------------------------------------------------------------------


def assert_names_only(calls: Sequence[Named], owner: str, ids: Collection[str]) -> None:
    """Each of *calls* names *owner* or *ids*, which are its own, and got nobody else's record."""
    assert calls
    for call in calls:
        assert call.owners <= {owner}, call
        assert call.vector_ids <= {*ids}, call
        assert call.given <= {owner}, call
        assert call.owners or call.vector_ids, call


def ids_of(entries: Iterable[Entry], owner: str) -> set[str]:
    """Where the owner's records of *entries* live."""
    return {
        vector_id("default", entry.owner, entry.kind, entry.id)
        for entry in entries
        if entry.owner == owner
    }


def test_every_call_to_the_store_names_just_the_owner(new_hostile: NewHostile) -> None:
    """Or ids that are this owner's own; what comes back is nobody else's."""
    world = new_hostile("documents")
    entries = filled(world, HOSTILE[::2], HOSTILE_KINDS)
    wanted = drifted(entries)
    world.put(wanted)
    recorders: list[RecordingStore] = []

    def recording(inner: VectorStore) -> VectorStore:
        recorders.append(RecordingStore(inner))
        return recorders[-1]

    sides = world.open(store=recording)
    (recorder,) = recorders
    seen: set[str] = set()
    for owner in HOSTILE[::2]:
        recorder.calls.clear()
        assert_isolated(world, sides, entries, owner)
        assert_names_only(recorder.calls, owner, ids_of((*entries, *wanted), owner))
        seen.update(call.call for call in recorder.calls)
    assert {"stamps", "unmanaged", "publish", "search"} <= seen
    assert "owners" not in seen


# --- what a statement says --------------------------------------------------------------------


def unquoted(statements: Sequence[str], names: Sequence[str]) -> str:
    """*statements* without the quoted identifiers of *names*."""
    text = "\n".join(statements)
    for name in sorted(names, key=len, reverse=True):
        doubled = name.replace('"', '""')
        # The driver's own placeholders double a percent sign, and the server logs a tab as ^I.
        for spelling in {doubled, doubled.replace("%", "%%")}:
            text = text.replace(f'"{spelling}"', "<name>")
    return text


def run_everything(world: HostileWorld, owners: Sequence[str]) -> None:
    """Each operation, for owners and for everybody."""
    sides = world.open()
    for owner in owners:
        sides.check(owner)
        sides.sync(owner)
        sides.search(owner, f"words {TAG}", kinds=[world.kinds[0]])
        sides.resolve(owner, EntityId.of(world.kinds[0], f"gone{TAG}"))
    assert all(status.is_in_sync for status in sides.check_all())
    assert all(report.is_in_sync for report in sides.sync_all(force=True))


@pytest.mark.parametrize("layout", ["documents", "tables"])
def test_no_value_is_part_of_a_statement(
    request: pytest.FixtureRequest, tmp_path: Path, layout: str
) -> None:
    """Each is bound; tables and columns are quoted. As SQLite's driver is given them."""
    with sqlite_hostile(tmp_path, layout=layout, tag=TAG) as world:
        owners = tagged(HOSTILE[::4], TAG)
        entries = filled(world, owners, world.kinds)
        world.put(drifted(entries))
        with sqlite_statements() as statements:
            run_everything(world, owners)
    assert_no_value(statements, world)


@pytest.mark.parametrize("layout", ["documents", "tables"])
def test_no_value_is_part_of_a_statement_that_the_server_is_given(
    postgres_url: str, postgres_server: PostgresServer, layout: str
) -> None:
    """As PostgreSQL's own log has them."""
    with HostileWorld(postgres_url, postgres_url, layout=layout, tag=TAG) as world:
        owners = tagged(HOSTILE[::4], TAG)
        entries = filled(world, owners, world.kinds)
        world.put(drifted(entries))
        with postgres_statements(postgres_server, postgres_url) as statements:
            run_everything(world, owners)
    assert_no_value(statements, world)


def assert_no_value(statements: Sequence[str], world: HostileWorld) -> None:
    """Statements were recorded, they name the tables, and hold no value."""
    tables = [f"{world.names.table}{number}" for number in range(len(world.kinds))]
    text = unquoted(statements, [*world.names, *tables])
    assert text.count("<name>") > 10
    assert text.lower().count("select") > 10
    assert "insert into" in text.lower()
    assert TAG not in text, text[max(0, text.index(TAG) - 300) : text.index(TAG) + 100]


# --- controls ---------------------------------------------------------------------------------


class FormattingStore(RecordingStore):
    """A store that writes its owner into its statements, and matches it as a pattern."""

    def __init__(self, inner: VectorStore, file: str) -> None:
        super().__init__(inner)
        self._file = file

    def stamps(self, owners: Sequence[str]) -> Iterator[Stamp]:
        """The stamps of whoever looks like one of *owners*."""
        alike = " OR ".join(f"owner_id LIKE '{owner}%'" for owner in owners)
        statement = f"SELECT vector_id FROM vectors WHERE {alike}"
        with closing(sqlite3.connect(self._file)) as connection:
            ids = [vector_id for (vector_id,) in connection.execute(statement)]
        found = list(self._inner.stamps_by_vector_id(ids))
        given = frozenset(stamp.owner_id for stamp in found)
        self.calls.append(Named("stamps", frozenset(owners), given=given))
        yield from found

    def publish_fenced(
        self,
        writes: Sequence[Record],
        deletes: Sequence[Deletion],
        expected: Sequence[Expected],
        fence: Fence,
    ) -> frozenset[str]:
        """Write, then delete whatever looks like *deletes*."""
        left_out = super().publish_fenced(writes, [], expected, fence)
        with closing(sqlite3.connect(self._file)) as connection, connection:
            for owner, _, version in deletes:
                connection.execute(
                    f"DELETE FROM vectors WHERE owner_id LIKE '{owner}%' AND version = {version}"
                )
        return left_out


CARELESSLY_NAMED = ("'; DROP TABLE profiles; --", "%", "_", "1", "a", "bob")


def test_control_store_that_formats_its_statements_is_caught(tmp_path: Path) -> None:
    """By what it changes, by whom its calls name, and by what its statements say."""
    for owner in CARELESSLY_NAMED:
        with sqlite_hostile(tmp_path, layout="documents") as world:
            entries = filled(world, HOSTILE, HOSTILE_KINDS)
            world.put(drifted(entries))
            file = world.store_url.removeprefix("sqlite:///")
            stores: list[FormattingStore] = []

            def formatting(inner: VectorStore) -> VectorStore:
                stores.append(FormattingStore(inner, file))  # noqa: B023  called at once
                return stores[-1]  # noqa: B023

            sides = world.open(store=formatting)
            damaged = pytest.raises((AssertionError, sqlite3.Error))
            with sqlite_statements() as statements, damaged:
                assert_isolated(world, sides, entries, owner)
            with pytest.raises(AssertionError):
                assert_names_only(stores[0].calls, owner, ids_of(entries, owner))
            assert any(f"LIKE '{owner}%'" in statement for statement in statements)
