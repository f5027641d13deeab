"""The store in memory when things go wrong: each fault, and what each class keeps out."""

from __future__ import annotations

import pytest

from undrift.errors import StoreUnavailable
from undrift.ports import StoreClass
from undrift.state import Claim, ClaimableStore, TransactionalStore
from undrift.testing.builders import (
    DIMENSION,
    MODEL,
    deletion,
    expected,
    record,
    records,
    tombstone,
    vectors,
)
from undrift.testing.faults import call_at
from undrift.testing.faulty_store import Fault, Faults, FaultyStore, Snapshot

T, C, N = StoreClass.TRANSACTIONAL, StoreClass.CONDITIONAL, StoreClass.NEITHER
CLAIM = Claim("s", "i", 1)


class Gate:
    """A fence that holds to one version of everything."""

    def __init__(self) -> None:
        self.version = 1
        self.told = 0

    def hold(self, connection: object, expected: object) -> frozenset[str]:
        assert isinstance(expected, list)
        return frozenset(row.owner_id for row in expected if row.version != self.version)

    def published(self, connection: object, expected: object) -> None:
        assert isinstance(expected, list)
        self.told += len(expected)


def store_of(
    store_class: StoreClass, *script: Fault | None, seed: int = 0, reorders: bool = True
) -> FaultyStore:
    store = FaultyStore(store_class, Faults(seed=seed, script=script, reorders=reorders))
    store.create(DIMENSION)
    return store


def versions(store: FaultyStore) -> list[int]:
    return sorted(stamp.version for stamp in store.stamps(["1"]))


def test_only_class_t_is_transactional() -> None:
    for store_class in (C, N):
        store = store_of(store_class)
        assert isinstance(store, ClaimableStore)
        assert not isinstance(store, TransactionalStore)
    assert isinstance(store_of(T), TransactionalStore)


# --- each fault ---------------------------------------------------------------------------------


@pytest.mark.parametrize("store_class", [T, C, N])
@pytest.mark.parametrize(
    ("fault", "raises", "lands_now", "lands_later"),
    [
        (None, False, True, False),
        (Fault.DELAYED, False, False, True),
        (Fault.DROPPED, False, False, False),
        (Fault.DUPLICATED, False, True, True),
        (Fault.UNANSWERED, True, True, False),
        (Fault.LATE, True, False, True),
        (Fault.LOST, True, False, False),
    ],
)
def test_a_fault_decides_on_the_answer_and_on_when_it_lands(
    store_class: StoreClass, fault: Fault | None, raises: bool, lands_now: bool, lands_later: bool
) -> None:
    store = store_of(store_class, fault)
    if raises:
        with pytest.raises(StoreUnavailable):
            store.publish(records(2), [])
    else:
        store.publish(records(2), [])
    assert versions(store) == ([1, 1] if lands_now else [])
    assert len(store.in_flight) == lands_later
    assert store.deliver() == lands_later
    assert versions(store) == ([1, 1] if lands_now or lands_later else [])
    store.publish(records(2, version=2), [])
    assert versions(store) == [2, 2]


def test_a_torn_batch_lands_in_parts_and_only_in_class_n() -> None:
    """Of many records some land now, some later, some never; the others are all or nothing."""
    store = store_of(N, Fault.PARTIAL)
    with pytest.raises(StoreUnavailable):
        store.publish(records(60), [])
    now = len(versions(store))
    later = len(store.in_flight)
    assert 0 < now < 60
    assert 0 < later < 60 - now
    store.deliver()
    assert len(versions(store)) == now + later
    for store_class in (T, C):
        whole = store_of(store_class, Fault.PARTIAL)
        whole.publish(records(60), [])
        assert len(versions(whole)) == 60


def test_a_claim_lands_as_it_was_meant_or_not_at_all() -> None:
    """An answer is only given to a call that landed; a late one is compared where it lands."""
    store = store_of(C, Fault.LATE, Fault.LOST, Fault.UNANSWERED)
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            store.put_claim(CLAIM, replacing=None)
        assert store.claim() is None
    with pytest.raises(StoreUnavailable):
        store.put_claim(CLAIM._replace(epoch=2), replacing=None)
    assert store.claim() == CLAIM._replace(epoch=2)
    assert store.deliver() == 1
    assert store.claim() == CLAIM._replace(epoch=2)


def test_reads_fail_as_often_as_they_should() -> None:
    store = FaultyStore(C, Faults(seed=3, unreadable=0.5))
    store.create(DIMENSION)
    failed = 0
    for _ in range(200):
        try:
            list(store.stamps(["1"]))
        except StoreUnavailable:
            failed += 1
    assert 60 < failed < 140


# --- what each class keeps out ------------------------------------------------------------------


def test_a_late_write_is_kept_out_by_a_tombstone_in_class_c() -> None:
    store = store_of(C, Fault.LATE)
    with pytest.raises(StoreUnavailable):
        store.publish([record()], [])
    store.bury([tombstone(record(), version=2)])
    store.deliver()
    assert versions(store) == []


def test_control_a_late_write_brings_a_record_back_in_class_n() -> None:
    """Nothing in the store decides as it lands; only a later look finds it."""
    store = store_of(N, Fault.LATE)
    with pytest.raises(StoreUnavailable):
        store.publish([record()], [])
    store.bury([tombstone(record(), version=2)])
    store.deliver()
    assert versions(store) == [1]
    assert store.search("1", vectors(1)[0], model=MODEL, kinds=None, limit=5)


def test_a_late_transaction_is_kept_out_by_the_state_in_class_t() -> None:
    """Its owners are held as it lands. The control: where the state is as expected, it applies."""
    for version_then, expected_then in ((2, []), (1, [1])):
        store, gate = store_of(T, Fault.LATE), Gate()
        assert isinstance(store, TransactionalStore)
        with pytest.raises(StoreUnavailable):
            store.publish_fenced([record()], [], [expected(record())], gate)
        gate.version = version_then
        store.deliver()
        assert versions(store) == expected_then
        assert gate.told == len(expected_then)


def test_a_late_delete_takes_away_what_is_newer_only_in_class_n() -> None:
    for store_class, left in ((C, [2]), (N, [])):
        store = store_of(store_class, None, Fault.LATE)
        store.publish([record()], [])
        with pytest.raises(StoreUnavailable):
            store.publish([], [deletion(record())])
        store.publish([record(version=2)], [])
        store.deliver()
        assert versions(store) == left


# --- runs that can be repeated ------------------------------------------------------------------


def history(seed: int) -> list[object]:
    """What a run with every fault shows."""
    chances = dict.fromkeys(Fault, 0.1)
    store = FaultyStore(N, Faults(seed=seed, chances=chances, unreadable=0.1))
    store.create(DIMENSION)
    seen: list[object] = []
    for version in range(1, 60):
        try:
            store.publish(records(3, version=version), [])
            if version % 7 == 0:
                store.deliver(2)
            seen.append(versions(store))
        except StoreUnavailable as error:
            seen.append(str(error))
        seen.append(len(store.in_flight))
    store.deliver()
    seen.append(sorted(row.stamp for row in store.memory.snapshot().rows.values()))
    return seen


def test_one_seed_is_one_run() -> None:
    assert history(11) == history(11)
    assert len({str(history(seed)) for seed in range(5)}) == 5


@pytest.mark.parametrize("reorders", [True, False])
def test_what_is_in_flight_lands_in_order_or_in_any(reorders: bool) -> None:
    """The last to land is what class N ends with."""
    ends = set()
    for seed in range(8):
        store = store_of(N, *[Fault.LATE] * 5, seed=seed, reorders=reorders)
        for version in range(1, 6):
            with pytest.raises(StoreUnavailable):
                store.publish([record(version=version)], [])
        assert [request.call for request in store.in_flight] == ["publish"] * 5
        store.deliver()
        ends.update(versions(store))
    assert (len(ends) > 1) is reorders
    assert reorders or ends == {5}


def test_what_lands_late_passes_no_failpoint() -> None:
    """Whoever sent it may be dead by then."""
    store = store_of(C, Fault.LATE)
    with pytest.raises(StoreUnavailable):
        store.publish([record()], [])
    passed: list[str] = []
    with call_at("store.publish.committed", lambda: passed.append("x")):
        store.deliver()
        assert passed == []
        store.publish([record(version=2)], [])
        assert passed == ["x"]


def test_a_snapshot_is_put_back_and_nothing_in_flight_is_touched() -> None:
    """A store restored from an old copy, and one that was wiped."""
    store = store_of(C, None, None, Fault.LATE)
    store.publish([record()], [])
    copy = store.memory.snapshot()
    store.publish([record(version=2), record("b")], [])
    with pytest.raises(StoreUnavailable):
        store.publish([record("c")], [])
    store.memory.restore(copy)
    assert versions(store) == [1]
    store.memory.restore(Snapshot({}, {}))
    assert versions(store) == []
    assert store.deliver() == 1
    assert [stamp.entity_id for stamp in store.stamps(["1"])] == ["c"]
