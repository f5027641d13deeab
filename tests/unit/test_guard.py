"""The guard between a fleet run and its deletes."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from undrift.errors import ConfigError, SafetyStop
from undrift.guard import HARMLESS_DELETES, DeleteGuard, DeleteLimit

COUNTS = st.dictionaries(st.sampled_from(["experience", "project", "skill"]), st.integers(0, 200))


def guarded(
    managed: dict[str, int],
    planned: dict[str, int],
    *,
    limit: str | None = None,
    source_owners: int = 1,
) -> DeleteGuard:
    """A guard that has seen all this, spread over some owners."""
    guard = DeleteGuard(limit=None if limit is None else DeleteLimit.parse(limit))
    for _ in range(source_owners):
        guard.saw({}, in_source=True)
    for kind, count in managed.items():
        guard.saw({kind: count}, in_source=False)
    guard.planned.update(planned)
    return guard


# --- the default rule -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("managed", "planned", "passes"),
    [
        (0, 0, True),
        (20, 20, True),
        (21, 20, True),
        (21, 21, False),
        (40, 20, True),
        (40, 21, False),
        (41, 21, False),
        (42, 21, True),
        (43, 21, True),
        (43, 22, False),
        (1000, 500, True),
        (1000, 501, False),
    ],
)
def test_more_than_half_and_more_than_twenty_stops(
    managed: int, planned: int, passes: bool
) -> None:
    """Both conditions together: a small store may lose everything, a big one half."""
    guard = guarded({"skill": managed}, {"skill": planned})
    if passes:
        assert guard.require() >= planned
    else:
        with pytest.raises(SafetyStop, match=f"{planned} of {managed} records"):
            guard.require()


def test_one_kind_that_vanishes_stops() -> None:
    """A list that was emptied by mistake does not hide behind the other kinds."""
    guard = guarded({"skill": 1000, "project": 40}, {"project": 21})
    with pytest.raises(SafetyStop, match="21 of 40 records of kind project"):
        guard.require()


def test_half_of_every_kind_passes() -> None:
    """The rule is 'more than half'."""
    guard = guarded({"skill": 100, "project": 60}, {"skill": 50, "project": 30})
    assert guard.require() == 80


@given(COUNTS, COUNTS, st.integers(1, 3))
def test_default_rule_is_as_documented(
    managed: dict[str, int], wished: dict[str, int], owners: int
) -> None:
    """Stated anew here: half of all, half of a kind, and 20 that are always allowed."""
    planned = {kind: min(count, managed.get(kind, 0)) for kind, count in wished.items()}

    def is_much(deletes: int, records: int) -> bool:
        return deletes > HARMLESS_DELETES and 2 * deletes > records

    expected = is_much(sum(planned.values()), sum(managed.values())) or any(
        is_much(count, managed[kind]) for kind, count in planned.items() if count
    )
    guard = guarded(managed, planned, source_owners=owners)
    if not expected:
        assert guard.require() >= sum(planned.values())
        return
    with pytest.raises(SafetyStop):
        guard.require()


def test_source_without_owners_stops_even_few_deletes() -> None:
    """An emptied source is the accident the guard is for."""
    with pytest.raises(SafetyStop, match="lists no owner at all"):
        guarded({"skill": 5}, {"skill": 1}, source_owners=0).require()


def test_source_without_owners_passes_where_nothing_would_go() -> None:
    """A new installation with nothing on either side is no accident."""
    assert guarded({}, {}, source_owners=0).require() == HARMLESS_DELETES
    assert guarded({"skill": 5}, {}, source_owners=0).require() >= 0


def test_owners_of_the_store_alone_are_no_owners_of_the_source() -> None:
    """Only what the source lists counts."""
    guard = DeleteGuard()
    guard.saw({"skill": 3}, in_source=False)
    guard.saw({"skill": 2}, in_source=False)
    assert guard.source_owners == 0
    assert guard.managed == Counter(skill=5)
    guard.saw({"skill": 2, "project": 1}, in_source=True)
    assert guard.source_owners == 1
    assert guard.managed == Counter(skill=7, project=1)


def test_stop_says_what_to_do() -> None:
    """Look first, then allow more or name the owners."""
    with pytest.raises(SafetyStop) as caught:
        guarded({"skill": 50}, {"skill": 50}).require()
    assert caught.value.what == "Nothing was deleted"
    assert "--max-delete" in caught.value.fix
    assert "--user-id" in caught.value.fix


# --- a limit that a person set ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "managed", "planned", "passes"),
    [
        ("0", 1000, 0, True),
        ("0", 1000, 1, False),
        ("5", 1000, 5, True),
        ("5", 1000, 6, False),
        ("900", 1000, 900, True),
        ("10%", 1000, 100, True),
        ("10%", 1000, 101, False),
        ("10%", 5, 0, True),
        ("10%", 5, 1, False),
        ("2.5%", 1000, 25, True),
        ("2.5%", 1000, 26, False),
        ("0%", 1000, 1, False),
        ("100%", 1000, 1000, True),
    ],
)
def test_limit_takes_the_rules_place(limit: str, managed: int, planned: int, passes: bool) -> None:
    """It may allow more than the rule, and it may allow less."""
    guard = guarded({"skill": managed}, {"skill": planned}, limit=limit)
    if passes:
        assert guard.require() >= planned
    else:
        with pytest.raises(SafetyStop, match=f"{planned} of {managed} records"):
            guard.require()


def test_limit_lets_a_person_empty_a_store() -> None:
    """The source lists nobody, and somebody said so."""
    assert guarded({"skill": 30}, {"skill": 30}, limit="100%", source_owners=0).require() == 30


@given(st.integers(0, 10**6), st.integers(0, 100))
def test_whole_percentages_are_exact(managed: int, percent: int) -> None:
    """Rounded down, and never by a floating point's error."""
    assert DeleteLimit.parse(f"{percent}%").records(managed) == managed * percent // 100


@pytest.mark.parametrize(
    ("text", "value", "is_percentage"),
    [
        ("0", 0, False),
        ("50", 50, False),
        (" 50 ", 50, False),
        ("10%", 10, True),
        ("2.5%", 2.5, True),
        ("2.5 %", 2.5, True),
        ("100%", 100, True),
    ],
)
def test_limit_is_read(text: str, value: float, is_percentage: bool) -> None:
    """A count or a percentage."""
    assert DeleteLimit.parse(text) == DeleteLimit(value, is_percentage)


@pytest.mark.parametrize(
    "text",
    ["", "%", "-1", "-1%", "1.5", "ten", "101%", "nan%", "inf%", "nan", "1e3", "5%%", "5% 5"],
)
def test_what_is_no_limit_is_refused(text: str) -> None:
    """Nothing is guessed where deletes depend on it."""
    with pytest.raises(ConfigError, match="is not a limit") as caught:
        DeleteLimit.parse(text)
    assert "--max-delete 50" in caught.value.fix


def test_nothing_of_what_another_program_wrote_is_harmless() -> None:
    """Its fields may be named wrongly."""
    guards = [DeleteGuard.of(None, is_adopted=is_adopted) for is_adopted in (False, True)]
    for guard in guards:
        guard.saw({"skill": 8}, in_source=True)
        guard.planned.update({"skill": 6})
    assert guards[0].require() >= 6
    with pytest.raises(SafetyStop):
        guards[1].require()
