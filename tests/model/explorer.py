"""Walks through every state that a small model can reach, breadth first.

Two questions are answered. Is there a way to something that must not be? The shortest one is told.
And can rest be reached from everywhere, so that nothing is ever stuck?
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np

S = TypeVar("S", bound=Hashable)

LIMIT = 2_000_000
"""States; a model that has more is not small, or counts something up for ever."""


class Model(Protocol[S]):
    """What can happen, and what must not."""

    def initial(self) -> S:
        """Where everything begins."""

    def steps(self, state: S) -> Iterator[tuple[str, S]]:
        """Every single step that can happen in *state*: its name, and the state behind it."""

    def is_at_rest(self, state: S) -> bool:
        """Whether nothing is left to do; what the world may still do does not count."""

    def wrong_with(self, state: S) -> str:
        """What must not be so in *state*; empty if nothing."""

    def wrong_between(self, before: S, step: str, after: S) -> str:
        """What must not happen in this step; empty if nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exploration:
    """What was found.

    Attributes:
        states: how many were reached.
        seconds: of the processor.
        steps: names of the steps that were taken anywhere.
        wrong: what must not be and is; empty if there is no such thing.
        path: the shortest way to it, a line for each step.
        rests: states at rest.
        stuck: states from which rest cannot be reached; counted only if nothing is wrong.
    """

    states: int
    seconds: float
    steps: frozenset[str]
    wrong: str
    path: Sequence[str]
    rests: int
    stuck: int

    def __str__(self) -> str:
        told = f"{self.states} states, {self.rests} at rest, {self.stuck} stuck"
        return "\n".join((f"{told}, {self.seconds:.1f} s; {self.wrong or 'all well'}", *self.path))


class _Walk(Generic[S]):
    """The states in the order in which they are reached, and how each was reached first."""

    def __init__(self, model: Model[S]) -> None:
        self._model = model
        self._numbers: dict[S, int] = {}
        self._origins = array("l")
        self._names: list[str] = []
        self._from, self._to = array("l"), array("l")
        self.states: list[S] = []
        self._reach(model.initial(), -1, "")

    def run(self) -> tuple[str, int]:
        """Visit every state; stop at the first wrong one: what is wrong, and its number."""
        for number, state in enumerate(self.states):  # which grow meanwhile
            if wrong := self._model.wrong_with(state):
                return wrong, number
            for name, after in self._model.steps(state):
                behind = self._reach(after, number, name)
                if wrong := self._model.wrong_between(state, name, after):
                    return wrong, behind
            if len(self.states) > LIMIT:
                raise RuntimeError(f"more than {LIMIT} states: not explored to the end")
        return "", -1

    def _reach(self, state: S, origin: int, name: str) -> int:
        number = self._numbers.setdefault(state, len(self.states))
        if number == len(self.states):
            self.states.append(state)
            self._origins.append(origin)
            self._names.append(name)
        self._from.append(origin)
        self._to.append(number)
        return number

    def path(self, number: int) -> list[str]:
        """The way to a state."""
        lines = []
        while number >= 0:
            lines.append(f"{self._names[number] or 'begin'}: {self.states[number]}")
            number = self._origins[number]
        return lines[::-1]

    def names(self) -> frozenset[str]:
        """The steps that led to a new state."""
        return frozenset(self._names) - {""}

    def rests(self) -> list[int]:
        """States at rest."""
        return [i for i, state in enumerate(self.states) if self._model.is_at_rest(state)]

    def stuck(self, rests: Sequence[int]) -> int:
        """How many states have no way to any of *rests*."""
        reaches = np.zeros(len(self.states), dtype=bool)
        reaches[list(rests)] = True
        source = np.frombuffer(self._from, dtype=np.dtype("l"))[1:]  # the first came from nowhere
        target = np.frombuffer(self._to, dtype=np.dtype("l"))[1:]
        while True:
            found = source[reaches[target] & ~reaches[source]]
            if not len(found):
                return int(np.count_nonzero(~reaches))
            reaches[found] = True


def explore(model: Model[S]) -> Exploration:
    """Visit every state of *model*, or stop at the first that is wrong.

    Raises:
        RuntimeError: there are more than `LIMIT` states, and nothing is proved.
    """
    began = time.process_time()
    walk = _Walk(model)
    wrong, number = walk.run()
    rests = walk.rests()
    stuck = 0 if wrong else walk.stuck(rests)
    return Exploration(
        states=len(walk.states),
        seconds=time.process_time() - began,
        steps=walk.names(),
        wrong=wrong,
        path=walk.path(number),
        rests=len(rests),
        stuck=stuck,
    )
