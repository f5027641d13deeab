"""What the options of a run over everybody come to."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from undrift.cli.problems import UsageError
from undrift.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How many users may be out of sync before a run fails: a count, or a share of those seen."""

    value: float = 0.0
    is_percentage: bool = False

    @classmethod
    def parse(cls, text: str) -> Tolerance:
        """Read ``5`` or ``0.1%``.

        Raises:
            ConfigError: it is neither.
        """
        number = text.strip().removesuffix("%")
        is_percentage = text.strip().endswith("%")
        try:
            value = float(number) if is_percentage else int(number)
        except ValueError:
            value = -1
        if not 0 <= value <= (100 if is_percentage else 2**53):
            raise ConfigError(
                f"--fail-above {text} is not a limit",
                why="it takes a number of users, or a percentage of the checked ones.",
                fix="write it like --fail-above 5 or --fail-above 0.1%",
            )
        return cls(value, is_percentage)

    def allows(self, out_of_sync: int, *, of: int) -> bool:
        """Whether so many are not too many, *of* all that were seen."""
        allowed = of * self.value / 100 if self.is_percentage else self.value
        return out_of_sync <= allowed


NO_TOLERANCE = Tolerance()


class EngineName(StrEnum):
    """Where everybody is gone over."""

    LOCAL = "local"
    RAY = "ray"


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetChoice:
    """The options of a check or a sync that are about everybody, as they were given.

    Attributes:
        changed: only users who were changed since their last sync.
        processes: None for one for each core, or for a sync one.
        ray_address: of the cluster's head; None for the one that this machine belongs to.
        embedders: processes of the cluster that embed; None for one.
        gpus_per_embedder: None for none.
    """

    changed: bool = False
    sample: str | None = None
    shard: str | None = None
    until: str | None = None
    rate: float | None = None
    resume: bool = False
    no_memo: bool = False
    processes: int | None = None
    engine: EngineName = EngineName.LOCAL
    ray_address: str | None = None
    embedders: int | None = None
    gpus_per_embedder: float | None = None

    def require_fits(self, *, is_everybody: bool) -> None:
        """See that what was given goes together.

        Raises:
            UsageError: it does not.
        """
        given = [
            name
            for name, is_given in (
                ("--sample", self.sample is not None),
                ("--shard", self.shard is not None),
                ("--until", self.until is not None),
                ("--rate", self.rate is not None),
                ("--resume", self.resume),
                ("--no-memo", self.no_memo),
                ("--processes", self.processes is not None),
                ("--engine", self.engine is not EngineName.LOCAL),
                *self._of_ray(),
            )
            if is_given
        ]
        if given and not is_everybody:
            raise UsageError(
                f"{given[0]} needs --all",
                why="it says how everybody is gone over, and here the users are named or listed.",
                fix=f"give --all, or leave {given[0]} out",
            )
        is_on_ray = self.engine is EngineName.RAY
        of_ray = [name for name, is_given in self._of_ray() if is_given]
        if of_ray and not is_on_ray:
            raise UsageError(
                f"{of_ray[0]} needs --engine ray",
                why="without it everybody is gone over on this machine.",
                fix=f"give --engine ray, or leave {of_ray[0]} out",
            )
        if self.processes is not None and is_on_ray:
            raise UsageError(
                "--processes and --engine ray exclude each other",
                why="a cluster has as many processes as it was started with cores.",
                fix="leave --processes out; `ray start --num-cpus` says how many a machine has",
            )

    def require_here(self, option: str) -> None:
        """See that a run that *option* is given for goes on on this machine.

        Raises:
            UsageError: it does not.
        """
        if self.engine is not EngineName.LOCAL:
            raise UsageError(
                f"{option} and --engine {self.engine} exclude each other",
                why="what a sync would do is looked up on this machine.",
                fix=f"leave --engine out; with it and without {option} the sync is made",
            )

    def _of_ray(self) -> tuple[tuple[str, bool], ...]:
        """The options that only a cluster has, and which of them were given."""
        return (
            ("--ray-address", self.ray_address is not None),
            ("--embedders", self.embedders is not None),
            ("--gpus-per-embedder", self.gpus_per_embedder is not None),
        )
