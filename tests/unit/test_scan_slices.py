"""Parts of a fleet: who belongs to them, and what a look at a few says of all."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from undrift.errors import ConfigError
from undrift.scan.slices import EVERYBODY, Part, Sample, Shard, most_amiss

OWNERS = [f"user {number}" for number in range(20_000)]


@given(st.text(), st.integers(1, 50))
def test_shards_share_nobody_and_miss_nobody(owner: str, count: int) -> None:
    """Whoever runs all of them has looked at everybody, and at nobody twice."""
    assert sum(Shard(index, count).has(owner) for index in range(1, count + 1)) == 1


def test_shards_are_of_nearly_one_size() -> None:
    """None of eight machines works much longer than the others."""
    sizes = Counter(index for o in OWNERS for index in range(1, 9) if Shard(index, 8).has(o))
    assert max(sizes.values()) < 1.1 * min(sizes.values())


@given(st.text(), st.floats(0.001, 100), st.floats(0.001, 100))
def test_greater_sample_holds_every_smaller_one(owner: str, one: float, other: float) -> None:
    """What was looked at is looked at again when more is."""
    small, great = sorted((one, other))
    assert Sample(great).has(owner) or not Sample(small).has(owner)


def test_sample_is_about_as_large_as_it_says() -> None:
    """Within five standard deviations."""
    found = len(Part(sample=Sample(5)).of(OWNERS))
    assert abs(found - 1_000) < 5 * (20_000 * 0.05 * 0.95) ** 0.5


def test_sample_of_everybody_leaves_nobody_out() -> None:
    """100 % is everybody."""
    assert Part(sample=Sample(100)).of(OWNERS) == OWNERS == EVERYBODY.of(OWNERS)


def test_sample_and_shard_do_not_hang_together() -> None:
    """A shard's sample is as large a share of it as of all."""
    shard, sample = Shard(1, 4), Sample(25)
    both = len(Part(shard=shard, sample=sample).of(OWNERS))
    assert 0.9 * 1_250 < both < 1.1 * 1_250


@pytest.mark.parametrize(
    "text", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2", "1/1000000", "", "1/2/3"]
)
def test_shard_that_is_none_is_refused(text: str) -> None:
    """Counting from zero among them: one part would be looked at twice, another never."""
    with pytest.raises(ConfigError, match="is no part of a whole"):
        Shard.parse(text)


@pytest.mark.parametrize("text", ["0%", "101%", "5", "%", "-1%", "1e1%", "nan%", ""])
def test_sample_that_is_none_is_refused(text: str) -> None:
    """Without the sign, 5 could be five users."""
    with pytest.raises(ConfigError, match="is no share of the users"):
        Sample.parse(text)


def test_what_is_read_prints_as_it_was_written() -> None:
    """It is in the name of the run, by which another takes it up."""
    assert str(Shard.parse(" 2/8 ")) == "2/8"
    assert str(Sample.parse("0.50%")) == "0.5%"


# --- what a sample says of all ------------------------------------------------------------------


def chance_of_at_most(amiss: int, looked_at: int, share: Fraction) -> float:
    """The chance to see so few or fewer, if *share* of all were amiss."""
    terms = (
        comb(looked_at, k) * share**k * (1 - share) ** (looked_at - k) for k in range(amiss + 1)
    )
    return float(sum(terms))


@pytest.mark.parametrize(
    ("looked_at", "amiss", "tolerance"),
    [
        (1, 0, 1e-3),
        (100, 0, 1e-3),
        (300, 3, 1e-3),
        (500, 50, 1e-3),
        (40, 39, 1e-3),
        (1_100, 550, 0.1),  # where it is cheaper to be nearly right
    ],
)
def test_bound_is_one_that_luck_alone_hardly_hides(
    looked_at: int, amiss: int, tolerance: float
) -> None:
    """Were more amiss than it says, so few would be seen in about one sample of twenty."""
    bound = most_amiss(looked_at, amiss)
    assert amiss / looked_at < bound <= 1
    assert chance_of_at_most(
        amiss, looked_at, Fraction(bound).limit_denominator(10**6)
    ) == pytest.approx(0.05, rel=tolerance)


def test_bound_says_nothing_of_what_nobody_looked_at() -> None:
    """Without a look, all may be amiss; with all of them amiss, too."""
    assert most_amiss(0, 0) == 1.0
    assert most_amiss(5, 5) == 1.0
