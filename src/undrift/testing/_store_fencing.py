"""The contract's part on fenced publishes: one transaction with the state, or nothing."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Protocol

import pytest

from undrift import failpoints
from undrift.errors import WriteFailed
from undrift.ports import StoreClass, VectorStore
from undrift.state import Expected, Fence, TransactionalStore
from undrift.testing._store_fixtures import Open, enumerated, stamps_of
from undrift.testing._store_tombstones import ClaimableFixtures, found_by_search
from undrift.testing.builders import deletion, expected, record, records
from undrift.testing.faults import call_at, raise_at
from undrift.testing.store_process import StoreProcess, fence_at, fenced_batch, versioned

STEPS = ("begun", "held", "written", "deleted", "committed")

Row = tuple[str, str, str]
"""Owner, kind and id."""


class RowFence(Fence, Protocol):
    """A fence over a table of its own in the store's database, which stands for a state's."""

    def put(self, rows: Sequence[Expected]) -> None:
        """Set the versions of *rows*, as an observation does."""

    def published_versions(self) -> Mapping[Row, int]:
        """The published version of every row, 0 if it has none; by another connection."""

    def try_to_raise(self, row: Row) -> bool:
        """Raise the version of *row* by another connection, unless it is locked."""

    def close(self) -> None:
        """Give back every connection."""


class WatchedFence:
    """Writes down what a store asks and tells the fence within.

    Attributes:
        calls: ``hold`` and ``published`` with their rows, and failpoints reached in between.
    """

    def __init__(self, within: Fence) -> None:
        self._within = within
        self.calls: list[tuple[str, list[Expected]]] = []

    def hold(self, connection: object, expected: Sequence[Expected]) -> frozenset[str]:
        """Ask the fence within."""
        self.calls.append(("hold", list(expected)))
        return self._within.hold(connection, expected)

    def published(self, connection: object, expected: Sequence[Expected]) -> None:
        """Tell the fence within."""
        self.calls.append(("published", list(expected)))
        self._within.published(connection, expected)

    def hear(self, failpoint: str) -> None:
        """Write down a failpoint."""
        self.calls.append((failpoint, []))


class FencingContract(ClaimableFixtures):
    """The promises of `TransactionalStore`.

    Attributes:
        fence_opener: what opens a `RowFence` at a store's address, as ``module:function``; a fence
            is opened after the store was created.
    """

    fence_opener: str

    @pytest.fixture
    def transactional(self, store: VectorStore) -> TransactionalStore:
        """A store that is created and empty."""
        assert isinstance(store, TransactionalStore)
        return store

    @pytest.fixture
    def fence(self, transactional: TransactionalStore, location: str) -> Iterator[RowFence]:
        """A fence without any rows, beside the store."""
        opened: RowFence = fence_at(self.fence_opener, location)  # type: ignore[assignment]
        yield opened
        opened.close()

    def test_its_class_is_the_strongest(self, transactional: TransactionalStore) -> None:
        """It says that it can share its transactions."""
        assert transactional.capabilities.store_class is StoreClass.TRANSACTIONAL
        assert transactional.capabilities.atomic_records > 0

    def test_stores_beside_each_other_have_states_of_their_own(
        self, transactional: TransactionalStore, open_store: Open
    ) -> None:
        """In the same place, told apart by their scopes; opened again, it is the same state."""
        other = open_store("other")
        assert isinstance(other, TransactionalStore)
        (url, scope), (other_url, other_scope) = (
            transactional.state_address(),
            other.state_address(),
        )
        assert url == other_url
        assert scope != other_scope
        again = open_store()
        assert isinstance(again, TransactionalStore)
        assert again.state_address() == (url, scope)

    # --- what applies

    def test_what_is_as_expected_is_published_and_told(
        self, transactional: TransactionalStore, fence: RowFence
    ) -> None:
        """Writes and deletes both, and the state knows in the same moment."""
        transactional.publish([record("gone")], [])
        batch = fenced_batch(3, 2)
        fence.put(batch.expected)
        assert transactional.publish_fenced(*batch, fence) == frozenset()
        assert enumerated(transactional, "1") == stamps_of(batch.writes)
        assert set(fence.published_versions().values()) == {2}
        assert transactional.publish_fenced(*batch, fence) == frozenset()
        assert enumerated(transactional, "1") == stamps_of(batch.writes)

    @pytest.mark.parametrize("reason", ["raised", "lowered", "gone"])
    def test_owners_of_whom_something_is_not_as_expected_are_left_out_whole(
        self, transactional: TransactionalStore, fence: RowFence, reason: str
    ) -> None:
        """Just they: their writes, their deletes, and what is told of them."""
        owners = ("1", "2", "3")
        before = {o: [record("gone", owner_id=o), *versioned(2, 1, owner_id=o)] for o in owners}
        for written in before.values():
            transactional.publish(written, [])
        batches = {owner: fenced_batch(2, 2, owner_id=owner) for owner in owners}
        rows = [row for batch in batches.values() for row in batch.expected]
        unexpected = expected(batches["2"].writes[0])
        changed = {"raised": 3, "lowered": 1}.get(reason)
        kept = [row for row in rows if row != unexpected]
        fence.put(kept if changed is None else [*kept, unexpected._replace(version=changed)])
        left_out = transactional.publish_fenced(
            [write for batch in batches.values() for write in batch.writes],
            [gone for batch in batches.values() for gone in batch.deletes],
            rows,
            fence,
        )
        assert left_out == {"2"}
        assert enumerated(transactional, "2") == stamps_of(before["2"])
        published = fence.published_versions()
        for owner in ("1", "3"):
            assert enumerated(transactional, owner) == stamps_of(batches[owner].writes)
            assert {v for row, v in published.items() if row[0] == owner} == {2}
        assert {v for row, v in published.items() if row[0] == "2"} == {0}

    def test_where_everybody_is_left_out_nothing_happens(
        self, transactional: TransactionalStore, fence: RowFence
    ) -> None:
        """All of a state's rows are gone: abort."""
        batch = fenced_batch(3, 2)
        assert transactional.publish_fenced(*batch, fence) == {"1"}
        assert enumerated(transactional, "1") == set()
        assert fence.published_versions() == {}

    def test_a_fenced_write_does_not_replace_a_newer_record(
        self, transactional: TransactionalStore, fence: RowFence
    ) -> None:
        """The state may be as expected and the store ahead of it."""
        newer = versioned(3, 7)
        transactional.publish(newer, [])
        batch = fenced_batch(3, 2)
        fence.put(batch.expected)
        assert transactional.publish_fenced(*batch, fence) == frozenset()
        assert enumerated(transactional, "1") == stamps_of(newer)

    def test_an_empty_batch_is_still_held_and_told(
        self, transactional: TransactionalStore, fence: RowFence
    ) -> None:
        """What the store has already may be all that is expected; without that nothing is asked."""
        row = expected(record())
        fence.put([row])
        assert transactional.publish_fenced([], [], [row], fence) == frozenset()
        assert fence.published_versions() == {row[:3]: 1}
        watched = WatchedFence(fence)
        assert transactional.publish_fenced([], [], [], watched) == frozenset()
        assert watched.calls == []

    # --- the order of things

    def test_the_fence_is_held_first_and_told_last(
        self, transactional: TransactionalStore, fence: RowFence
    ) -> None:
        """It is told of those that were not left out, and the failpoints lie where they should."""
        mine, theirs = fenced_batch(2, 2), fenced_batch(2, 2, owner_id="2")
        fence.put(mine.expected)
        rows = [*theirs.expected, *mine.expected]
        watched = WatchedFence(fence)
        previous = failpoints.install(watched.hear)
        left_out = transactional.publish_fenced([*mine.writes, *theirs.writes], [], rows, watched)
        failpoints.install(previous)
        assert left_out == {"2"}
        names = [name.rpartition(".")[2] for name, _ in watched.calls]
        assert [name for name in names if name in STEPS] == list(STEPS)
        assert names.index("begun") < names.index("hold") < names.index("held")
        assert names.index("written") < names.index("published") < names.index("committed")
        told = dict(watched.calls)
        assert sorted(told["hold"]) == sorted(rows)
        assert sorted(told["published"]) == sorted(mine.expected)

    @pytest.mark.parametrize("step", ["held", "written", "deleted"])
    def test_what_is_held_cannot_change_until_the_end(
        self, transactional: TransactionalStore, fence: RowFence, step: str
    ) -> None:
        """An observation of the owner waits; the control: afterwards and before it does not."""
        batch = fenced_batch(2, 2)
        row = batch.expected[0][:3]
        fence.put(batch.expected)
        could: list[bool] = []
        with call_at(f"store.publish.{step}", lambda: could.append(fence.try_to_raise(row))):
            assert transactional.publish_fenced(*batch, fence) == frozenset()
        assert could == [False]
        assert fence.try_to_raise(row)
        assert transactional.publish_fenced(*batch, fence) == {"1"}

    # --- all or nothing

    @pytest.mark.parametrize("step", STEPS[:-1])
    def test_a_fenced_publish_that_breaks_off_leaves_nothing(
        self, transactional: TransactionalStore, fence: RowFence, step: str
    ) -> None:
        """Neither in the store nor in the state."""
        before = [record("gone"), *versioned(3, 1)]
        transactional.publish(before, [])
        batch = fenced_batch(3, 2)
        fence.put(batch.expected)
        with (
            raise_at(f"store.publish.{step}", InterruptedError()) as fault,
            pytest.raises(InterruptedError),
        ):
            transactional.publish_fenced(*batch, fence)
        assert fault.reached == 1
        assert enumerated(transactional, "1") == stamps_of(before)
        assert set(fence.published_versions().values()) == {0}
        assert transactional.publish_fenced(*batch, fence) == frozenset()
        assert enumerated(transactional, "1") == stamps_of(batch.writes)

    def test_a_refused_fenced_batch_leaves_nothing(
        self, transactional: TransactionalStore, fence: RowFence
    ) -> None:
        """And tells nothing."""
        bad = record("bad")._replace(text="a\x00b")
        rows = [expected(record("good")), expected(bad)]
        fence.put(rows)
        with pytest.raises(WriteFailed):
            transactional.publish_fenced([record("good"), bad], [], rows, fence)
        assert enumerated(transactional, "1") == set()
        assert set(fence.published_versions().values()) == {0}

    @pytest.mark.parametrize("step", STEPS)
    def test_a_crash_leaves_store_and_state_as_they_were_or_as_they_were_to_be(
        self,
        transactional: TransactionalStore,
        fence: RowFence,
        location: str,
        processes: Sequence[StoreProcess],
        step: str,
    ) -> None:
        """SIGKILL at every step of a fenced publish; never one without the other (I6)."""
        self.need(transactional, "many_processes")
        victim, _ = processes
        before = [record("gone"), *versioned(50, 1)]
        transactional.publish(before, [])
        batch = fenced_batch(50, 2)
        fence.put(batch.expected)
        victim.prepare_publish(
            location, range(2, 3), die_at=f"store.publish.{step}", fence=self.fence_opener
        )
        victim.go()
        ended = victim.wait()
        assert (ended.signal, ended.acknowledged) == (signal.SIGKILL, 0)
        is_done = step == "committed"
        after = stamps_of(batch.writes if is_done else before)
        assert enumerated(transactional, "1") == after
        assert found_by_search(transactional) == after
        assert set(fence.published_versions().values()) == {2 if is_done else 0}
        assert transactional.publish_fenced(*batch, fence) == frozenset()
        assert enumerated(transactional, "1") == stamps_of(batch.writes)

    def test_a_late_fenced_publish_brings_nothing_back(
        self, transactional: TransactionalStore, fence: RowFence
    ) -> None:
        """Though the delete was a physical one. The control: without the fence it does."""
        late = records(1)
        rows = [expected(of) for of in late]
        fence.put(rows)
        transactional.publish_fenced(late, [], rows, fence)
        newer = [row._replace(version=2) for row in rows]
        fence.put(newer)
        assert transactional.publish_fenced([], [deletion(late[0])], newer, fence) == frozenset()
        assert enumerated(transactional, "1") == set()
        assert transactional.publish_fenced(late, [], rows, fence) == {"1"}
        assert enumerated(transactional, "1") == set()
        with suppress(WriteFailed):
            transactional.publish(late, [])
        assert enumerated(transactional, "1") == stamps_of(late)
