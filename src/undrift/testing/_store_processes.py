"""The contract's part on other processes: they write, they die, they compete."""

from __future__ import annotations

import signal
from collections.abc import Sequence

import pytest

from undrift.ports import VectorStore
from undrift.testing._store_fixtures import Open, StoreFixtures, enumerated, stamps_of
from undrift.testing.builders import DIMENSION, records
from undrift.testing.store_process import StoreProcess, versioned

BEFORE_THE_COMMIT = ("begun", "written", "deleted")


class ProcessContract(StoreFixtures):
    """Nothing acknowledged is lost, and nothing is half there."""

    def test_another_processs_write_is_seen_at_once(
        self, store: VectorStore, location: str, processes: Sequence[StoreProcess]
    ) -> None:
        """By a store that has read before, whatever it may have kept."""
        self.need(store, "many_processes")
        other, _ = processes
        assert enumerated(store, "1") == set()
        other.prepare_publish(location, range(1, 6))
        other.go()
        for _ in range(5):
            version = other.wait_for_acknowledgement()
            (found,) = {stamp.version for stamp in store.stamps(["1"])}
            assert found >= version
        assert other.wait().exit_code == 0
        assert enumerated(store, "1") == stamps_of(versioned(50, 5))

    def test_acknowledged_writes_survive_a_kill(
        self,
        store: VectorStore,
        open_store: Open,
        location: str,
        processes: Sequence[StoreProcess],
    ) -> None:
        """SIGKILL in the midst of writing; at most the next batch is there too.

        Whole, where the store promises it; else each record is of one of the two.
        """
        self.need(store, "many_processes")
        victim, _ = processes
        victim.prepare_publish(location, range(1, 100_000))
        victim.go()
        for _ in range(20):
            victim.wait_for_acknowledgement()
        ended = victim.kill()
        assert ended.signal == signal.SIGKILL
        possible = (ended.acknowledged, ended.acknowledged + 1)
        either = [stamps_of(versioned(50, version)) for version in possible]
        for reader in (store, open_store()):
            found = enumerated(reader, "1")
            if store.capabilities.atomic_records:
                assert found in either
            assert len(found) == 50
            assert found <= either[0] | either[1]

    @pytest.mark.parametrize("failpoint", [*BEFORE_THE_COMMIT, "committed"])
    def test_a_crash_leaves_the_old_or_the_new_state(
        self, store: VectorStore, location: str, processes: Sequence[StoreProcess], failpoint: str
    ) -> None:
        """At every step of a publish, and the next one repairs it (I6)."""
        self.need(store, "many_processes")
        self.need(store, "atomic_records")
        victim, _ = processes
        store.publish(versioned(50, 1), [])
        victim.prepare_publish(location, range(2, 3), die_at=f"store.publish.{failpoint}")
        victim.go()
        ended = victim.wait()
        assert (ended.signal, ended.acknowledged) == (signal.SIGKILL, 0)
        version = 1 if failpoint in BEFORE_THE_COMMIT else 2
        assert enumerated(store, "1") == stamps_of(versioned(50, version))
        store.publish(versioned(50, 3), [])
        assert enumerated(store, "1") == stamps_of(versioned(50, 3))

    def test_two_publishers_of_the_same_records_agree_on_the_newest(
        self, store: VectorStore, location: str, processes: Sequence[StoreProcess]
    ) -> None:
        """In opposite orders, without an error for either."""
        self.need(store, "many_processes")
        self.need_order(store)
        odd, even = processes
        odd.prepare_publish(location, range(1, 60, 2))
        even.prepare_publish(location, range(2, 61, 2), backwards=True)
        for publisher in processes:
            publisher.go()
        assert [publisher.wait().exit_code for publisher in processes] == [0, 0]
        assert enumerated(store, "1") == stamps_of(versioned(50, 60))

    def test_processes_that_create_at_once_all_succeed(
        self, location: str, open_store: Open, processes: Sequence[StoreProcess]
    ) -> None:
        """And the store is usable by each."""
        store = open_store()
        self.need(store, "many_processes")
        for creator in processes:
            creator.prepare_create(location)
        for creator in processes:
            creator.go()
        store.create(DIMENSION)
        assert [creator.wait().exit_code for creator in processes] == [0, 0]
        assert store.describe().exists
        store.publish(records(2), [])
        assert enumerated(open_store(), "1") == stamps_of(records(2))
