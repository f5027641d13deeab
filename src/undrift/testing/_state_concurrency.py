"""The contract's part on threads and processes that use one state at once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TypeVar

from undrift.state import Acknowledgement, Observation, State, VersionRaise
from undrift.testing._state_fixtures import (
    LEASE_SECONDS,
    OpenState,
    StateFixtures,
    claimed,
    note_of,
    observe,
    row,
    rows_of,
)

THREADS = 8
_WAIT_SECONDS = 120

T = TypeVar("T")

# Claims until nobody is dirty, as a worker process does.
_CLAIMER = """
import json, sys
from undrift.testing._state_fixtures import state_opener
opener, location, scope, holder = sys.argv[1:]
state = state_opener(opener)(location, scope=scope)
print("ready", flush=True)
sys.stdin.readline()
found = []
while True:
    owners = [owner.owner_id for owner in state.claim_dirty(holder, 7, 60.0)]
    if not owners:
        break
    found += owners
state.close()
print(json.dumps(found))
"""

_CREATOR = """
import sys
from undrift.testing._state_fixtures import state_opener
opener, location, scope, holder = sys.argv[1:]
state = state_opener(opener)(location, scope=scope)
print("ready", flush=True)
sys.stdin.readline()
state.create()
print('"' + state.standing().state_id + '"')
state.close()
"""


def at_once(work: Callable[[int], T], threads: int = THREADS) -> list[T]:
    """What *work* returned in each of several threads that began together."""
    barrier = Barrier(threads)

    def begin(number: int) -> T:
        barrier.wait(_WAIT_SECONDS)
        return work(number)

    with ThreadPoolExecutor(threads) as pool:
        calls = [pool.submit(begin, number) for number in range(threads)]
        return [call.result(timeout=_WAIT_SECONDS) for call in calls]


class ConcurrencyContract(StateFixtures):
    """Atomic per owner, whoever else is at it."""

    def test_of_observers_of_one_owner_exactly_one_is_accepted(
        self, state: State, open_state: OpenState
    ) -> None:
        """The others look again."""
        states = [open_state() for _ in range(THREADS)]
        for noted in range(15):

            def see(number: int, noted: int = noted) -> bool:
                seen = row("a", noted + 1, fingerprint=f"of {number}")
                observation = Observation(owner_id="1", noted=noted, rows=[seen])
                return bool(states[number].observe([observation]))

            accepted = at_once(see)
            assert accepted.count(True) == 1
            (found,) = note_of(state, "1").entities.values()
            assert found.fingerprint == f"of {accepted.index(True)}"
            assert note_of(state, "1").observation == noted + 1

    def test_of_raisers_and_an_observer_of_one_row_exactly_one_succeeds(
        self, state: State, open_state: OpenState
    ) -> None:
        """Both compare before they set."""
        observe(state, "1", row("a"))
        states = [open_state() for _ in range(THREADS)]
        for _ in range(10):
            note = note_of(state, "1")
            (found,) = note.entities.values()

            def work(
                number: int, noted: int = note.observation, version: int = found.version
            ) -> bool:
                newer = row("a", version + number + 1)
                if number == 0:
                    seen = Observation(owner_id="1", noted=noted, rows=[newer])
                    return bool(states[number].observe([seen]))
                wish = VersionRaise(owner_id="1", observed=[row("a", version)], raised=[newer])
                return bool(states[number].raise_versions([wish]))

            assert at_once(work).count(True) == 1

    def test_observers_of_many_owners_in_crossing_orders_never_deadlock(
        self, open_state: OpenState, state: State
    ) -> None:
        """Every owner's winner wrote all of its rows."""
        owners = [f"o{number}" for number in range(40)]
        states = [open_state() for _ in range(THREADS)]

        def see(number: int) -> frozenset[str]:
            mine = owners if number % 2 else owners[::-1]
            rows = [row("a", number + 1), row("b", number + 1)]
            return states[number].observe(
                [Observation(owner_id=owner, noted=0, rows=rows) for owner in mine]
            )

        accepted = at_once(see)
        assert Counter(owner for each in accepted for owner in each) == Counter(owners)
        for number, won in enumerate(accepted):
            for owner in won:
                assert rows_of(state, owner) == {"a": number + 1, "b": number + 1}

    def test_one_holder_gets_each_lease(self, open_state: OpenState, state: State) -> None:
        """In whatever order they ask."""
        owners = [f"o{number}" for number in range(40)]
        states = [open_state() for _ in range(THREADS)]

        def lease(number: int) -> list[str]:
            mine = owners if number % 2 else owners[::-1]
            busy = states[number].lease(mine, f"w{number}", 60)
            return [owner for owner in owners if owner not in busy]

        leased = at_once(lease)
        assert Counter(owner for each in leased for owner in each) == Counter(owners)

    def test_no_owner_is_claimed_by_two_threads(self, open_state: OpenState, state: State) -> None:
        """And none is left over."""
        owners = [f"o{number}" for number in range(300)]
        state.mark(owners)
        states = [open_state() for _ in range(THREADS)]

        def claim(number: int) -> list[str]:
            found: list[str] = []
            while more := claimed(states[number], 7, holder=f"w{number}"):
                found += more
            return found

        found = at_once(claim)
        while more := claimed(state, 100):  # those that another had in hand for a moment
            found.append(more)
        assert Counter(owner for each in found for owner in each) == Counter(owners)

    def test_no_mark_is_lost_to_those_that_claim_and_acknowledge(
        self, open_state: OpenState, state: State
    ) -> None:
        """Each mark is followed by an acknowledged note that was taken behind it."""
        owners = [f"o{number}" for number in range(5)]
        states = [open_state() for _ in range(4)]
        marks = 40

        def work(number: int) -> int:
            mine, holder, synced = states[number], f"w{number}", 0
            if number < 2:
                for turn in range(marks):
                    mine.mark(owners if turn % 2 else owners[::-1])
                return 0
            for _ in range(marks):
                dirty = [o.owner_id for o in mine.claim_dirty(holder, 3, LEASE_SECONDS)]
                note = mine.note(dirty)
                mine.acknowledge(
                    [
                        Acknowledgement(
                            owner_id=owner, generation=known.generation, round=note.standing.round
                        )
                        for owner, known in note.owners.items()
                    ],
                    holder,
                )
                synced += len(dirty)
            return synced

        at_once(work, 4)
        for owner, known in state.note(owners).owners.items():
            assert known.generation == 2 * marks
            is_over = known.synced_generation == known.generation
            assert is_over == (owner not in claimed(state, holder=f"last, {owner}"))
            state.release(owners, f"last, {owner}")

    def test_deletes_that_spend_at_once_never_exceed_the_budget(
        self, open_state: OpenState, state: State
    ) -> None:
        """Nobody else can spend while one is asked."""
        states = [open_state() for _ in range(THREADS)]

        def spend(number: int) -> int:
            passed = 0
            for _ in range(5):
                reason = states[number].spend_deletes(
                    {"a": 1}, lambda usage: "spent" if usage.spent.get("a", 0) >= 12 else None
                )
                passed += reason is None
            return passed

        assert sum(at_once(spend)) == 12

    def test_writers_that_enter_at_once_get_different_epochs(
        self, open_state: OpenState, state: State
    ) -> None:
        """Of one unseen configuration everybody is marked once."""
        state.enter("c0")
        states = [open_state() for _ in range(THREADS)]
        standings = at_once(lambda number: states[number].enter("c1"))
        assert sorted(standing.epoch for standing in standings) == list(range(2, THREADS + 2))
        assert {standing.round for standing in standings} == {1}

    def test_threads_that_create_at_once_agree_on_one_state(self, open_state: OpenState) -> None:
        """And none of them fails."""
        states = [open_state() for _ in range(THREADS)]

        def create(number: int) -> str:
            states[number].create()
            return states[number].standing().state_id

        assert len(set(at_once(create))) == 1

    def test_no_owner_is_claimed_by_two_processes(self, state: State, location: str) -> None:
        """As two watchers on two machines."""
        owners = [f"o{number}" for number in range(300)]
        state.mark(owners)
        found: list[list[str]] = self._in_processes(_CLAIMER, location)
        while more := claimed(state, 100):
            found.append(more)
        assert Counter(owner for each in found for owner in each) == Counter(owners)

    def test_processes_that_create_at_once_agree_on_one_state(
        self, location: str, open_state: OpenState
    ) -> None:
        """And none of them fails."""
        created: list[str] = self._in_processes(_CREATOR, location)
        assert set(created) == {open_state().standing().state_id}

    def _in_processes(self, program: str, location: str) -> list[T]:
        """What *program* prints in each of three processes that begin together."""
        self.need_processes()
        processes = [
            subprocess.Popen(  # noqa: S603 - the programs above
                [
                    sys.executable,
                    "-c",
                    program,
                    self.opener,
                    location,
                    "default@here",
                    f"p{number}",
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for number in range(3)
        ]
        try:
            for process in processes:
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n"
            outputs = []
            for process in processes:
                assert process.stdin is not None
                process.stdin.write("go\n")
                process.stdin.flush()
            for process in processes:
                output, _ = process.communicate(timeout=_WAIT_SECONDS)
                assert process.returncode == 0
                outputs.append(json.loads(output))
            return outputs
        finally:
            for process in processes:
                process.kill()
                process.communicate()
