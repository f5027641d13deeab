"""What undrift remembers of whole fleets: what raw content rendered to, and how far a run is.

Kept beside the state, and nothing that is written or said of an owner depends on it alone. A memo
is keyed by the digest of the very content it was made from, so it can be missing but not out of
date. Progress says which owners a run has done, so that another can go on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable


class Memo(NamedTuple):
    """What one owner's raw content rendered to.

    Attributes:
        raw: the content's digest, by `undrift.digests.DigestingSource`.
        wanted: the digest of the records it wants, by `undrift.digests.wanted_digest`.
        counts: what there is of it by kind, as the fleet check writes it; opaque to a memory.
    """

    raw: bytes
    wanted: bytes
    counts: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a run has come.

    Attributes:
        run_id: which run; whoever begins anew under the same name gets another one.
        position: where to go on, as the run wrote it; opaque to a memory.
        began_seconds: how long ago the run began.
    """

    run_id: str
    position: str
    began_seconds: float


class FleetMemory(Protocol):
    """The memory of one namespace of one store.

    Every call is atomic and raises `StateUnavailable` if there is no definite answer, and
    `ConfigError` if the memory cannot be used, for instance for want of a right.

    Safety:
        May be used from several threads and processes.
    """

    # --- memos

    def memos(self, owners: Sequence[str], key: str) -> Mapping[str, Memo]:
        """What is remembered of *owners* under *key*; others are left out.

        Args:
            key: what the rendering depended on besides the content: templates, kinds, versions.
        """

    def remember(self, memos: Mapping[str, Memo], key: str) -> None:
        """Remember *memos* by owner, in place of what there was under any key."""

    def forget_memos(self, owners: Sequence[str]) -> None:
        """Forget what is remembered of *owners*."""

    # --- progress

    def begin_run(self, name: str, position: str) -> Progress:
        """Begin a run; whatever was saved under *name* is forgotten."""

    def run(self, name: str) -> Progress | None:
        """The run that was begun last under *name* and has not ended."""

    def take_run(self, name: str) -> Progress | None:
        """As `run`, and it becomes the asker's, under another id.

        Whoever had it before, and may be at it still, saves nothing more.
        """

    def advance(self, name: str, run_id: str, position: str, results: Sequence[str]) -> bool:
        """Save a run's position, and add *results* to what it has found, both or neither.

        Args:
            results: opaque to a memory.

        Returns:
            False if the run is no more, as when another one was begun; nothing was saved then.
        """

    def results(self, name: str, run_id: str) -> Iterator[str]:
        """Everything that was added by `advance`, in that order."""

    def end_run(self, name: str, run_id: str) -> None:
        """Forget the run, its position and its results; nothing if it is no more."""


@runtime_checkable
class Remembering(Protocol):
    """A state that has a memory beside it."""

    @property
    def memory(self) -> FleetMemory:
        """The memory."""
