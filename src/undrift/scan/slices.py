"""Parts of a fleet: the same owners every time, whoever asks, without listing them first."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from math import exp, lgamma, log, log1p, sqrt
from typing import Self

from undrift.errors import ConfigError

_SHARD = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")
_PERCENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)%")
_MAX_SHARDS = 100_000
_SPACE = 2**64


@dataclass(frozen=True, slots=True)
class Shard:
    """One of *count* parts, of nearly equal size, that have nobody in common.

    Attributes:
        index: from 1 to *count*.
    """

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``i/n``.

        Raises:
            ConfigError: it is none.
        """
        found = _SHARD.fullmatch(text.strip())
        index, count = map(int, found.groups()) if found else (0, 0)
        if not 1 <= index <= count <= _MAX_SHARDS:
            raise ConfigError(
                f"--shard {text} is no part of a whole",
                why=f"it is the number of a part, from 1, and that of all parts, up to "
                f"{_MAX_SHARDS:,}.",
                fix="write it like --shard 2/8, and run all eight",
            )
        return cls(index, count)

    def has(self, owner_id: str) -> bool:
        """Whether *owner_id* belongs to this part."""
        return _place(owner_id, b"shard") % self.count == self.index - 1

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


@dataclass(frozen=True, slots=True)
class Sample:
    """A share of all owners, the same ones every time; a greater share holds every smaller one.

    Attributes:
        percent: above 0, at most 100.
    """

    percent: float

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``P%``.

        Raises:
            ConfigError: it is none.
        """
        found = _PERCENT.fullmatch(text.strip())
        percent = float(found.group(1)) if found else 0.0
        if not 0 < percent <= 100:
            raise ConfigError(
                f"--sample {text} is no share of the users",
                why="it is a number above 0 and at most 100, followed by %.",
                fix="write it like --sample 1%",
            )
        return cls(percent)

    def has(self, owner_id: str) -> bool:
        """Whether *owner_id* is in the sample."""
        return _place(owner_id, b"sample") < self.percent / 100 * _SPACE

    def __str__(self) -> str:
        return f"{self.percent:g}%"


@dataclass(frozen=True, slots=True)
class Part:
    """Whom a run is about, of everybody.

    Attributes:
        shard: None for all parts.
        sample: None for everybody.
    """

    shard: Shard | None = None
    sample: Sample | None = None

    @property
    def is_everybody(self) -> bool:
        """Whether nobody is left out."""
        return self.shard is None and self.sample is None

    def of(self, owners: Sequence[str]) -> list[str]:
        """Those of *owners* who belong to it, in their order."""
        shard, sample = self.shard, self.sample
        return [
            owner
            for owner in owners
            if (shard is None or shard.has(owner)) and (sample is None or sample.has(owner))
        ]


EVERYBODY = Part()


def _place(owner_id: str, purpose: bytes) -> int:
    """Where *owner_id* is between 0 and 2**64, for good."""
    encoded = owner_id.encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(encoded, digest_size=8, person=purpose).digest(), "big")


def most_amiss(looked_at: int, amiss: int) -> float:
    """The share of all that is amiss at most, with 95 % confidence, by a look at a few.

    The share at which no more than *amiss* would be seen in one look of twenty: the upper end of
    the one-sided Clopper-Pearson interval, and of Wilson's, which is cheaper and hardly another,
    where many are amiss and many are not.

    Source:
        Clopper and Pearson 1934; Wilson 1927; Brown, Cai and DasGupta 2001 compare them.
    """
    if amiss >= looked_at:
        return 1.0
    if min(amiss, looked_at - amiss) > _EXACT_UP_TO:
        return _wilson(looked_at, amiss)
    low, high = amiss / looked_at, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        if _chance_of_at_most(amiss, looked_at, middle) > _RISK:
            low = middle
        else:
            high = middle
    return high


_RISK = 0.05
_RISK_QUANTILE = 1.6448536269514722  # the normal distribution's 95th percentile
_EXACT_UP_TO = 500


def _chance_of_at_most(amiss: int, looked_at: int, share: float) -> float:
    """The binomial distribution's; summed over its shorter side."""
    if amiss <= looked_at / 2:
        return sum(_chance_of(k, looked_at, share) for k in range(amiss + 1))
    return 1 - sum(_chance_of(k, looked_at, share) for k in range(amiss + 1, looked_at + 1))


def _chance_of(amiss: int, looked_at: int, share: float) -> float:
    if share >= 1:
        return float(amiss == looked_at)
    ways = lgamma(looked_at + 1) - lgamma(amiss + 1) - lgamma(looked_at - amiss + 1)
    return exp(ways + amiss * log(share) + (looked_at - amiss) * log1p(-share))


def _wilson(looked_at: int, amiss: int) -> float:
    share, z = amiss / looked_at, _RISK_QUANTILE
    weight = z * z / looked_at
    spread = z * sqrt(share * (1 - share) / looked_at + weight / looked_at / 4)
    return (share + weight / 2 + spread) / (1 + weight)
