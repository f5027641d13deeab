"""The contract's part on the memory: what is remembered of whole fleets."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from hashlib import sha256

import pytest

from undrift.errors import ConfigError
from undrift.memory import FleetMemory, Memo, Remembering
from undrift.state import State
from undrift.testing._state_concurrency import THREADS, at_once
from undrift.testing._state_fixtures import SCOPE, OpenState, StateFixtures, observe, row, rows_of

KEY = "templates of today"
RUN = "check --all"
_WAIT_SECONDS = 60

# Whatever a source may call a user, and a person a run or a file of users.
ODD_WORDS = (
    *("1", "01", " 1", "1 ", "", "it's", 'a"b', "a\\b", r"a\u0000b", r"a\\u0000b", "%s", "{0}"),
    *(":a", "NULL", "a,b", "[1]", "änderung", "ä", "a\u0308", "日本", "🙂", "\ue000", "a\nb", "\t"),
    "x" * 600,
)
_UNSTORABLE = ("a\x00b", "\ud800")

# Prints what it saved, and goes on saving until somebody kills it.
_ADVANCER = """
import sys
from itertools import count
from undrift.testing._state_fixtures import state_opener
opener, location, scope, name, run_id = sys.argv[1:]
memory = state_opener(opener)(location, scope=scope).memory
for number in count(1):
    assert memory.advance(name, run_id, str(number), [f"{number} a", f"{number} b"])
    print(number, flush=True)
"""


def memo(word: str, counts: str = "{}") -> Memo:
    """A memo of which every part tells the *word*."""
    digest = sha256(word.encode("utf-8", "surrogatepass")).digest()
    return Memo(raw=digest, wanted=digest[::-1], counts=counts)


def memory_of(state: State) -> FleetMemory:
    """The memory beside *state*, which has one."""
    assert isinstance(state, Remembering)
    return state.memory


class MemoryContract(StateFixtures):
    """Nothing of it is taken for another content's, another scope's or another run's."""

    @pytest.fixture
    def memory(self, state: State) -> FleetMemory:
        """The memory beside a state that is created and empty."""
        if not isinstance(state, Remembering):
            pytest.skip("the state has no memory beside it")
        return state.memory

    # --- memos

    def test_memos_are_given_back_as_they_were(self, memory: FleetMemory) -> None:
        """To whoever asks under their key; others are left out."""
        given = {"1": memo("a", '{"experience": 4}'), "2": Memo(bytes(32), b"\x00\xff'", "")}
        memory.remember(given, KEY)
        assert memory.memos(["1", "2", "3"], KEY) == given
        assert memory.memos(["2"], KEY) == {"2": given["2"]}
        assert memory.memos([], KEY) == {}

    def test_a_memo_of_another_key_is_left_out(self, memory: FleetMemory) -> None:
        """It tells what other templates gave."""
        memory.remember({"1": memo("a"), "2": memo("b")}, KEY)
        memory.remember({"2": memo("c")}, "templates of tomorrow")
        assert memory.memos(["1", "2"], KEY) == {"1": memo("a")}
        assert memory.memos(["1", "2"], "templates of tomorrow") == {"2": memo("c")}

    @pytest.mark.parametrize(
        "newer",
        [memo("b"), memo("a")._replace(raw=b"r"), memo("a")._replace(wanted=b"w"), memo("a", "x")],
        ids=["all", "raw", "wanted", "counts"],
    )
    def test_a_newer_memo_replaces_the_older_one(self, memory: FleetMemory, newer: Memo) -> None:
        """Whichever part of it differs."""
        memory.remember({"1": memo("a"), "2": memo("a")}, KEY)
        memory.remember({"1": newer}, KEY)
        assert memory.memos(["1", "2"], KEY) == {"1": newer, "2": memo("a")}

    def test_memos_are_remembered_again_without_harm(self, memory: FleetMemory) -> None:
        """As by two checks of one fleet; nothing at all is remembered likewise."""
        for _ in range(2):
            memory.remember({"1": memo("a")}, KEY)
            memory.remember({}, KEY)
        assert memory.memos(["1"], KEY) == {"1": memo("a")}

    def test_memos_of_owners_that_are_forgotten_are_gone(self, memory: FleetMemory) -> None:
        """The others' stay; who was never remembered can be forgotten."""
        memory.remember({owner: memo(owner) for owner in "123"}, KEY)
        memory.forget_memos(["1", "3", "4"])
        memory.forget_memos([])
        assert memory.memos(list("1234"), KEY) == {"2": memo("2")}

    def test_owners_are_told_apart_whatever_they_are_called(self, memory: FleetMemory) -> None:
        """Every spelling is another owner."""
        given = {owner: memo(owner, f"of {owner}") for owner in ODD_WORDS}
        memory.remember(given, KEY)
        assert memory.memos(ODD_WORDS, KEY) == given
        memory.forget_memos([ODD_WORDS[0]])
        assert set(memory.memos(ODD_WORDS, KEY)) == set(ODD_WORDS[1:])

    def test_nothing_is_remembered_of_owners_whom_no_store_can_hold(
        self, memory: FleetMemory
    ) -> None:
        """Nor does one of them keep the others from being remembered."""
        memory.remember({owner: memo(owner) for owner in (*_UNSTORABLE, "1")}, KEY)
        memory.forget_memos(_UNSTORABLE)
        assert memory.memos([*_UNSTORABLE, "1"], KEY) == {"1": memo("1")}

    def test_thousands_of_memos_fit_into_one_call(self, memory: FleetMemory) -> None:
        """A page of a fleet check."""
        given = {f"owner {number}": memo(str(number), f"{number}") for number in range(5_000)}
        memory.remember(given, KEY)
        assert memory.memos(list(given), KEY) == given

    def test_memos_outlast_the_connection(self, memory: FleetMemory, open_state: OpenState) -> None:
        """The next night's check finds them."""
        memory.remember({"1": memo("a")}, KEY)
        assert memory_of(open_state()).memos(["1"], KEY) == {"1": memo("a")}

    # --- runs

    def test_a_run_is_where_it_was_saved_last(
        self, memory: FleetMemory, wait: Callable[[float], None]
    ) -> None:
        """It began when it began."""
        assert memory.run(RUN) is None
        begun = memory.begin_run(RUN, "at the beginning")
        assert (begun.position, begun.began_seconds) == ("at the beginning", 0.0)
        assert memory.advance(RUN, begun.run_id, "page 1", ["a"])
        wait(100.0)
        assert memory.advance(RUN, begun.run_id, "page 2", [])
        found = memory.run(RUN)
        assert found is not None
        assert (found.run_id, found.position) == (begun.run_id, "page 2")
        assert 100.0 <= found.began_seconds < 100.0 + _WAIT_SECONDS

    def test_results_come_in_the_order_in_which_they_were_added(
        self, memory: FleetMemory, open_state: OpenState
    ) -> None:
        """Over any number of pages, to any connection, equal ones as often as they were added."""
        begun = memory.begin_run(RUN, "")
        added: list[str] = []
        for page in range(30):
            results = [f"{page}/{number}" for number in range(page % 13)] + ["twice"] * (page % 3)
            assert memory.advance(RUN, begun.run_id, str(page), results)
            added += results
        assert list(memory.results(RUN, begun.run_id)) == added
        assert list(memory_of(open_state()).results(RUN, begun.run_id)) == added

    def test_results_can_be_left_in_the_middle(self, memory: FleetMemory) -> None:
        """Whoever has seen enough holds nobody up."""
        begun = memory.begin_run(RUN, "")
        memory.advance(RUN, begun.run_id, "1", [str(number) for number in range(1_000)])
        for _ in range(3):
            results = memory.results(RUN, begun.run_id)
            assert [next(results), next(results)] == ["0", "1"]
            del results
        memory.end_run(RUN, begun.run_id)
        assert list(memory.results(RUN, begun.run_id)) == []

    def test_beginning_anew_replaces_the_run(
        self, memory: FleetMemory, wait: Callable[[float], None]
    ) -> None:
        """The one before saves nothing any more, and ends nothing."""
        first = memory.begin_run(RUN, "first")
        assert memory.advance(RUN, first.run_id, "far", ["of the first"])
        wait(100.0)
        second = memory.begin_run(RUN, "second")
        assert second.run_id != first.run_id
        assert list(memory.results(RUN, first.run_id)) == []
        assert not memory.advance(RUN, first.run_id, "farther", ["late"])
        memory.end_run(RUN, first.run_id)
        found = memory.run(RUN)
        assert found is not None
        assert (found.run_id, found.position) == (second.run_id, "second")
        assert found.began_seconds < 100.0
        assert memory.advance(RUN, second.run_id, "on", ["of the second"])
        assert list(memory.results(RUN, second.run_id)) == ["of the second"]
        assert list(memory.results(RUN, first.run_id)) == []

    def test_a_run_that_is_taken_up_is_no_longer_its_first_one_s(self, memory: FleetMemory) -> None:
        """Two that saved by turns would each undo the other's position."""
        assert memory.take_run("check") is None
        first = memory.begin_run("check", "0")
        assert memory.advance("check", first.run_id, "1", ["one"])
        second = memory.take_run("check")
        assert second is not None
        assert (second.position, second.run_id == first.run_id) == ("1", False)
        assert not memory.advance("check", first.run_id, "2", ["of the first"])
        assert memory.advance("check", second.run_id, "3", ["two"])
        assert list(memory.results("check", second.run_id)) == ["one", "two"]
        memory.end_run("check", first.run_id)
        found = memory.run("check")
        assert found is not None
        assert (found.run_id, found.position) == (second.run_id, "3")

    def test_a_run_that_has_ended_is_forgotten(self, memory: FleetMemory) -> None:
        """With its results; ending it again is no error."""
        begun = memory.begin_run(RUN, "")
        memory.advance(RUN, begun.run_id, "1", ["a"])
        for _ in range(2):
            memory.end_run(RUN, begun.run_id)
            assert memory.run(RUN) is None
            assert list(memory.results(RUN, begun.run_id)) == []
            assert not memory.advance(RUN, begun.run_id, "2", ["b"])

    def test_runs_are_told_apart_whatever_they_are_called(self, memory: FleetMemory) -> None:
        """Also by the end of a name longer than a database's keys."""
        long = "".join(sha256(b"%d" % number).hexdigest() for number in range(100))
        names = (*ODD_WORDS, *_UNSTORABLE, long, f"{long}.", "日" * 5_000)
        begun = {name: memory.begin_run(name, f"of {name}") for name in names}
        for name, run in begun.items():
            assert memory.advance(name, run.run_id, f"on, {name}", [name, f"of {name}"])
        memory.end_run(names[0], begun[names[0]].run_id)
        assert memory.run(names[0]) is None
        for name in names[1:]:
            found = memory.run(name)
            assert found is not None
            assert (found.run_id, found.position) == (begun[name].run_id, f"on, {name}")
            assert list(memory.results(name, found.run_id)) == [name, f"of {name}"]

    # --- apart from each other

    def test_memories_of_one_place_know_nothing_of_each_other(
        self, memory: FleetMemory, open_state: OpenState
    ) -> None:
        """A scope is a store and a namespace."""
        other_state = open_state("other@here")
        other_state.create()
        other = memory_of(other_state)
        memory.remember({"1": memo("a")}, KEY)
        begun = memory.begin_run(RUN, "here")
        memory.advance(RUN, begun.run_id, "here", ["a"])
        assert other.memos(["1"], KEY) == {}
        assert other.run(RUN) is None
        assert not other.advance(RUN, begun.run_id, "there", ["b"])
        other.remember({"1": memo("b")}, KEY)
        other.forget_memos(["1"])
        other.end_run(RUN, other.begin_run(RUN, "there").run_id)
        assert memory.memos(["1"], KEY) == {"1": memo("a")}
        assert list(memory.results(RUN, begun.run_id)) == ["a"]

    def test_the_memory_of_a_state_that_was_not_created_says_so(
        self, memory: FleetMemory, new_location: Callable[[], str]
    ) -> None:
        """It creates nothing."""
        del memory  # there is one at all
        state = self.make_state(new_location())
        for call in calls_of(memory_of(state)):
            with pytest.raises(ConfigError, match="undrift sync"):
                call()
        assert not state.exists()
        state.close()

    def test_what_is_remembered_of_fleets_changes_nothing_of_the_state(
        self, memory: FleetMemory, state: State
    ) -> None:
        """Nobody becomes known or dirty by it."""
        observe(state, "1", row("a", 3))
        before = state.standing(), state.summary().owners, state.summary().dirty
        memory.remember({"1": memo("a"), "2": memo("b")}, KEY)
        memory.end_run(RUN, memory.begin_run(RUN, "").run_id)
        assert (state.standing(), state.summary().owners, state.summary().dirty) == before
        assert rows_of(state, "1") == {"a": 3}

    # --- at once

    def test_memos_that_are_remembered_at_once_in_crossing_orders_never_deadlock(
        self, memory: FleetMemory, open_state: OpenState
    ) -> None:
        """Each call's memos come whole, also while others forget them."""
        owners = [f"o{number}" for number in range(200)]
        memories = [memory_of(open_state()) for _ in range(THREADS)]
        words = {memo(str(number)) for number in range(THREADS)}

        def work(number: int) -> None:
            mine = owners if number % 2 else owners[::-1]
            for turn in range(10):
                memories[number].remember({owner: memo(str(number)) for owner in mine}, KEY)
                if number == turn % THREADS:
                    memories[number].forget_memos(mine)
                found = set(memories[number].memos(mine, KEY).values())
                assert found <= words
                assert len(found) <= 1

        at_once(work)
        memory.remember({owner: memo("last") for owner in owners}, KEY)
        assert set(memory.memos(owners, KEY).values()) == {memo("last")}

    def test_every_result_that_was_saved_at_once_is_there(
        self, memory: FleetMemory, open_state: OpenState
    ) -> None:
        """Each page's stay together and in order, as of shards that share a run."""
        begun = memory.begin_run(RUN, "")
        memories = [memory_of(open_state()) for _ in range(THREADS)]

        def work(number: int) -> None:
            for turn in range(10):
                page = [f"{number}/{turn}/{part}" for part in range(3)]
                assert memories[number].advance(RUN, begun.run_id, str(turn), page)

        at_once(work)
        found = list(memory.results(RUN, begun.run_id))
        assert len(found) == THREADS * 10 * 3
        for number in range(THREADS):
            own = [result for result in found if result.startswith(f"{number}/")]
            assert own == [f"{number}/{turn}/{part}" for turn in range(10) for part in range(3)]
        for first in range(0, len(found), 3):
            assert len({result[:-1] for result in found[first : first + 3]}) == 1

    def test_a_run_that_is_replaced_while_it_saves_leaves_nothing_behind(
        self, memory: FleetMemory, open_state: OpenState
    ) -> None:
        """Of runs that begin at once, one stays; the others hear that they are no more."""
        memories = [memory_of(open_state()) for _ in range(THREADS)]
        begun: dict[str, int] = {}

        def work(number: int) -> None:
            for _ in range(5):
                run_id = memories[number].begin_run(RUN, "").run_id
                saved = 0
                while saved < 5 and memories[number].advance(RUN, run_id, "", [run_id]):
                    saved += 1
                begun[run_id] = saved

        at_once(work)
        last = memory.run(RUN)
        assert last is not None
        for run_id, saved in begun.items():
            expected = [run_id] * saved if run_id == last.run_id else []
            assert list(memory.results(RUN, run_id)) == expected
        assert begun[last.run_id] == 5

    def test_a_process_that_is_killed_leaves_every_page_whole(
        self, memory: FleetMemory, location: str
    ) -> None:
        """What it was told to be saved is saved, with its results and no others."""
        self.need_processes()
        for pages in (1, 5, 20):
            begun = memory.begin_run(RUN, "0")
            said = self._killed(location, begun.run_id, pages)
            saved, results = saved_of(memory, begun.run_id)
            assert saved in (said, said + 1)  # the last answer may not have been printed
            assert results == [f"{n} {part}" for n in range(1, saved + 1) for part in "ab"]

    def _killed(self, location: str, run_id: str, pages: int) -> int:
        """The last page that a process said to be saved, killed when it had said so of *pages*."""
        arguments = [self.opener, location, SCOPE, RUN, run_id]
        process = subprocess.Popen(  # noqa: S603 - the program above
            [sys.executable, "-c", _ADVANCER, *arguments], stdout=subprocess.PIPE, text=True
        )
        try:
            assert process.stdout is not None
            said = [process.stdout.readline() for _ in range(pages)]
            process.kill()
            said += process.stdout.readlines()
            assert process.wait(_WAIT_SECONDS) == -signal.SIGKILL
            return int(said[-1])
        finally:
            process.kill()
            process.communicate()


def saved_of(memory: FleetMemory, run_id: str) -> tuple[int, list[str]]:
    """The position and the results of a run, of one moment.

    A server may still be at the last statement of a client that was killed, for once.
    """
    while True:
        before = memory.run(RUN)
        results = list(memory.results(RUN, run_id))
        after = memory.run(RUN)
        assert before is not None
        assert after is not None
        if before.position == after.position:
            return int(after.position), results


def calls_of(memory: FleetMemory) -> Sequence[Callable[[], object]]:
    """Every call there is."""
    return (
        lambda: memory.memos(["1"], KEY),
        lambda: memory.remember({"1": memo("a")}, KEY),
        lambda: memory.forget_memos(["1"]),
        lambda: memory.begin_run(RUN, ""),
        lambda: memory.run(RUN),
        lambda: memory.advance(RUN, "none", "", ["a"]),
        lambda: list(memory.results(RUN, "none")),
        lambda: memory.end_run(RUN, "none"),
    )
