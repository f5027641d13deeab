"""The sync protocol, every interleaving of a small model, and the variants of it that fail."""

from __future__ import annotations

import os

import pytest

from model.explorer import Exploration, explore
from model.naive import NaiveRules, NaiveSync
from model.protocol import Protocol
from model.rules import STEPS, UNSHARED, Rules, Scenario
from undrift.failpoints import FAILPOINTS

C, T, N = Rules("C"), Rules("T"), Rules("N")


def damage(*kinds: str, changes: int = 1, faults: int = 0, drains: bool = False) -> Scenario:
    """A scenario with one damage of any of *kinds*."""
    return Scenario(
        changes=changes, faults=faults, damages=1, kinds=frozenset(kinds), drains=drains
    )


STORE_DAMAGE = ("wiped", "altered", "lifted", "reverted")

HOLDS = {
    "C": (C, Scenario()),
    "T": (T, Scenario()),
    "N": (N, Scenario(changes=1)),
    "C, nothing deleted": (C, Scenario(only_new=True)),
    "T, nothing deleted": (T, Scenario(only_new=True)),
    "C, no alarm when the store is ahead": (C._replace(alarms_when_ahead=False), Scenario()),
    "C, asked for": (C, Scenario(changes=1, asks=1)),
    "C, marks": (C, Scenario(changes=1, drains=True)),
    "C, tombstones collected": (C, Scenario(faults=0, collects=True)),
    "C, store damaged": (C, damage(*STORE_DAMAGE)),
    "C, store wiped and writes late": (C, damage("wiped", faults=1)),
    "T, store damaged": (T, damage(*STORE_DAMAGE)),
    "C, state lost": (C, damage("lost")),
    "T, state lost": (T, damage("lost")),
    "C, state lost and writes late": (C, damage("lost", changes=0, faults=1)),
    "C, state restored": (C, damage("restored")),
    "C, state copied": (C, damage("copied", drains=True)),
}
"""What is explored to the end in every run."""

HOLDS_TOO = {
    "C, three changes": (C, Scenario(changes=3)),
    "T, three changes": (T, Scenario(changes=3)),
    "N, two changes": (N, Scenario()),
    "C, two faults": (C, Scenario(faults=2)),
    "T, two faults": (T, Scenario(faults=2)),
    "C, tombstones collected and writes late": (C, Scenario(collects=True)),
    "C, any damage of the store and writes late": (C, damage(*STORE_DAMAGE, faults=1)),
    "T, any damage of the store and writes late": (T, damage(*STORE_DAMAGE, faults=1)),
    "C, state lost, any writes late": (C, damage("lost", faults=1)),
    "T, state lost, any writes late": (T, damage("lost", faults=1)),
    "C, state restored, any writes late": (C, damage("restored", faults=1)),
    "C, state copied, any writes late": (C, damage("copied", faults=1, drains=True)),
}
"""What takes minutes: `make model`."""

EXPLORED = HOLDS | (HOLDS_TOO if os.environ.get("UNDRIFT_TEST_DEEP_MODEL") == "1" else {})

FAILS = {
    "assign without comparing the observation": (
        C._replace(compares_observation=False),
        Scenario(),
    ),
    "observe with the publish, whatever was observed since": (
        T._replace(compares_in_publish=False),
        Scenario(),
    ),
    "an unchanged snapshot is no observation": (C._replace(orders_unchanged=False), Scenario()),
    "snapshot opened before the note": (C._replace(notes_first=False), Scenario()),
    "raise outside the lock": (
        C._replace(raises_by_comparing=False, alarms_when_ahead=False),
        Scenario(changes=1, faults=0),
    ),
    "fingerprints only": (C._replace(compares_versions=False), Scenario()),
    "physical delete": (C._replace(buries=False), Scenario()),
    "tombstones collected before the send deadline": (
        C._replace(awaits_deadline=False),
        Scenario(collects=True),
    ),
    "numbering from 1 again after a tombstone was forgotten": (
        C._replace(numbers_on=False),
        Scenario(collects=True),
    ),
    "everybody marked once only": (
        C._replace(alarms_again=False),
        damage("lost", changes=1, faults=1),
    ),
    "a generation acknowledged that another state noted": (
        C._replace(bounds_acknowledged=False),
        damage("lost"),
    ),
    "claim checked at the note only": (
        C._replace(checks_claim=False),
        damage("copied", drains=True),
    ),
    "state restored, and nobody told": (C._replace(knows_restored=False), damage("restored")),
    "suspect only once an answer is missing, class N": (
        N._replace(suspects_first=False),
        Scenario(changes=1),
    ),
}
"""The protocol without one of its rules."""


def told(exploration: Exploration) -> str:
    """The numbers, for those who ask with ``-s`` or ``-rP``."""
    text = str(exploration)
    print(text)
    return text


@pytest.mark.parametrize("name", EXPLORED)
def test_protocol_converges_from_everywhere(name: str) -> None:
    """Nothing wrong in any state or step, and rest within reach of each."""
    exploration = explore(Protocol(*EXPLORED[name]))
    assert not exploration.wrong, told(exploration)
    assert exploration.stuck == 0, told(exploration)
    assert exploration.rests > 0
    told(exploration)


@pytest.mark.parametrize("name", FAILS)
def test_protocol_without_one_of_its_rules_diverges(name: str) -> None:
    """So that each is known to be needed, and the model to be able to show it."""
    rules, scenario = FAILS[name]
    exploration = explore(Protocol(rules, scenario))
    assert exploration.wrong, told(exploration)
    told(exploration)


@pytest.mark.parametrize(
    "rules",
    [
        pytest.param(NaiveRules(), id="plain upsert"),
        pytest.param(NaiveRules(clears_first=True), id="clear, then import"),
        pytest.param(NaiveRules(leases=True), id="lease"),
        pytest.param(NaiveRules(leases=True, checks_lease=True), id="lease, checked again"),
    ],
)
def test_sync_without_versions_diverges(rules: NaiveRules) -> None:
    """Whatever it does about its turn: a write that lands late lands last."""
    exploration = explore(NaiveSync(rules))
    assert exploration.wrong.startswith("at rest"), told(exploration)


def test_a_lease_is_enough_only_where_no_write_is_late() -> None:
    """The control: it is the late write that a checked lease does not keep out."""
    rules = NaiveRules(leases=True, checks_lease=True)
    exploration = explore(NaiveSync(rules, faults=0))
    assert (exploration.wrong, exploration.stuck) == ("", 0), told(exploration)


def test_clearing_first_leaves_gaps() -> None:
    """With one worker, and nothing going wrong."""
    rules = NaiveRules(clears_first=True, leases=True, checks_lease=True)
    exploration = explore(NaiveSync(rules, changes=1, faults=0, only_new=True))
    assert exploration.wrong == "cleared leaves a gap", told(exploration)


def test_class_n_promises_nothing_before_the_horizon() -> None:
    """Nothing is dirty, and the store is wrong, until the suspect write is looked after."""
    exploration = explore(Protocol(N._replace(awaits_horizon=False), Scenario(changes=1)))
    assert exploration.wrong.startswith("at rest"), told(exploration)


def test_steps_are_those_of_the_code() -> None:
    """A failpoint that is new, gone or renamed is one that the model has to follow."""
    names = {name.removeprefix("sync.") for name in FAILPOINTS if name.startswith("sync.")}
    assert set(STEPS) == names
    taken = explore(Protocol(C, damage("lifted"))).steps
    assert set(STEPS) & taken == set(STEPS) - UNSHARED
