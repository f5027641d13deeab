"""The contract's part on claims: one for each namespace, replaced by compare and set."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from undrift.errors import ConfigError
from undrift.state import Claim, ClaimableStore
from undrift.testing._store_fixtures import Open, enumerated, stamps_of
from undrift.testing._store_tombstones import ClaimableFixtures, as_claimable
from undrift.testing.builders import DIMENSION, records

THREADS = 8

FIRST = Claim("7311/app", "0c8f", 1)
SECOND = Claim("7311/app", "0c8f", 2)


class ClaimContract(ClaimableFixtures):
    """The promises of `ClaimableStore.claim` and `put_claim`."""

    def test_nobody_has_claimed_a_new_store(self, claimable: ClaimableStore) -> None:
        """Nor one that was written."""
        assert claimable.claim() is None
        claimable.publish(records(1), [])
        assert claimable.claim() is None

    def test_a_store_that_was_not_created_is_unclaimed_and_cannot_be_claimed(
        self, open_store: Open
    ) -> None:
        """Looking creates nothing."""
        store = as_claimable(open_store())
        assert store.claim() is None
        with pytest.raises(ConfigError, match="not been created"):
            store.put_claim(FIRST, replacing=None)
        assert not store.describe().exists
        assert store.claim() is None

    def test_a_claim_is_seen_by_everybody_at_once(
        self, claimable: ClaimableStore, open_store: Open
    ) -> None:
        """By a store opened before, and by one opened later."""
        before = as_claimable(open_store())
        assert before.claim() is None
        assert claimable.put_claim(FIRST, replacing=None)
        for store in (claimable, before, as_claimable(open_store())):
            assert store.claim() == FIRST

    def test_a_claim_is_replaced_only_while_it_is_the_one_that_was_seen(
        self, claimable: ClaimableStore
    ) -> None:
        """By anything less or else than that, nothing changes."""
        assert not claimable.put_claim(SECOND, replacing=FIRST)
        assert claimable.claim() is None
        assert claimable.put_claim(FIRST, replacing=None)
        for other in (
            None,
            SECOND,
            FIRST._replace(source=""),
            FIRST._replace(state_id="another"),
            FIRST._replace(epoch=0),
        ):
            assert not claimable.put_claim(SECOND, replacing=other)
            assert claimable.claim() == FIRST
        assert claimable.put_claim(SECOND, replacing=FIRST)
        assert claimable.claim() == SECOND

    def test_a_claim_may_replace_itself(self, claimable: ClaimableStore) -> None:
        """So that a call without an answer can be repeated."""
        assert claimable.put_claim(FIRST, replacing=None)
        assert claimable.put_claim(FIRST, replacing=FIRST)
        assert claimable.claim() == FIRST

    def test_each_namespace_has_a_claim_of_its_own(
        self, claimable: ClaimableStore, open_store: Open
    ) -> None:
        """Whoever claims one has no part in the other."""
        other = as_claimable(open_store("other"))
        assert claimable.put_claim(FIRST, replacing=None)
        assert other.claim() is None
        theirs = Claim("", "another", 2**51)
        assert other.put_claim(theirs, replacing=None)
        assert (claimable.claim(), other.claim()) == (FIRST, theirs)

    def test_a_claim_is_no_record_and_outlasts_them(self, claimable: ClaimableStore) -> None:
        """No enumeration shows it, and neither writing nor creating again removes it."""
        odd = Claim("""it's "/srv/Zürich %s.db" \\ {0}""", "id'; --", 0)
        assert claimable.put_claim(odd, replacing=None)
        assert list(claimable.owners(None, 10)) == []
        assert claimable.unmanaged([""]) == {}
        claimable.publish(records(2), [])
        claimable.create(DIMENSION)
        assert claimable.claim() == odd
        assert enumerated(claimable, "1") == stamps_of(records(2))

    def test_of_threads_that_claim_at_once_one_succeeds(self, claimable: ClaimableStore) -> None:
        """And then each replacement is seen by the next: none is lost."""
        together = Barrier(THREADS)

        def work(number: int) -> tuple[bool, int]:
            together.wait(30)
            was_first = claimable.put_claim(Claim("s", f"{number}", 0), replacing=None)
            together.wait(30)
            replaced = 0
            while replaced < 10:
                seen = claimable.claim()
                assert seen is not None
                ours = Claim("s", f"{number}", seen.epoch + 1)
                replaced += claimable.put_claim(ours, replacing=seen)
            return was_first, replaced

        with ThreadPoolExecutor(THREADS) as threads:
            results = list(threads.map(work, range(THREADS)))
        assert sum(was_first for was_first, _ in results) == 1
        last = claimable.claim()
        assert last is not None
        assert last.epoch == 10 * THREADS
