"""Whose a collection is: one point for each namespace, which no enumeration shows.

It has neither an owner nor a vector. Qdrant does not say whether a condition held, so whoever wrote
a claim reads it back, and finds a word of its own among the last ones, also where another claim has
come behind it in the meantime.
"""

from __future__ import annotations

from typing import NamedTuple
from uuid import uuid4

from undrift.fingerprint import vector_id
from undrift.state import Claim
from undrift.stores._adopted import put_at, value_at
from undrift.stores._qdrant_conditions import Equals, HasId, Not, every
from undrift.stores._qdrant_payload import VERSION
from undrift.stores._qdrant_points import (
    Change,
    NewPoint,
    NotThere,
    Payload,
    Points,
    json_path,
)

# Of as many claims that follow one another within one call, each is recognised.
_REMEMBERED = 64

_CLAIM, _TOKENS = "claim", "tokens"
_FIELDS = (_CLAIM, VERSION, _TOKENS)


class _Found(NamedTuple):
    """A claim as it is stored.

    Attributes:
        version: grows with each claim.
        tokens: one for each of the last claims, the newest first.
    """

    claim: Claim
    version: int
    tokens: tuple[str, ...]


class Claims:
    """The claim of one namespace of a collection.

    Args:
        above: the path of the object that it lies in; empty for the point's payload itself.
    """

    def __init__(self, points: Points, namespace: str, *, above: tuple[str, ...] = ()) -> None:
        self._points = points
        self._namespace = namespace
        self._above = above
        self._version_field = json_path((*above, VERSION))
        # No entity has such an id: a kind is never empty.
        self._id = vector_id(namespace, "", "", "claim")

    def find(self) -> Claim | None:
        """The claim; None if nobody has claimed the namespace."""
        try:
            found = self._find()
        except NotThere:
            return None
        return None if found is None else found.claim

    def put(self, claim: Claim, *, replacing: Claim | None) -> bool:
        """Claim the namespace, if the claim is still *replacing*; say whether it was."""
        before = self._find()
        if (before.claim if before else None) != replacing:
            return False
        token = uuid4().hex
        if before is None:
            # The condition holds for no point that exists, so nothing is replaced.
            point = NewPoint(self._id, {}, self._payload(claim, 1, (token,)))
            self._points.upsert([point], Not(HasId([self._id])))
        else:
            version = before.version + 1
            tokens = (token, *before.tokens[: _REMEMBERED - 1])
            where = every(HasId([self._id]), Equals(self._version_field, before.version))
            self._points.change([Change(self._payload(claim, version, tokens), where)])
        self._points.settle()
        after = self._find()
        return after is not None and token in after.tokens

    def _find(self) -> _Found | None:
        found = self._points.retrieve([self._id], None)
        if not found:
            return None
        stored = (value_at(found[0].payload, (*self._above, field)) for field in _FIELDS)
        claim, version, tokens = stored
        if not isinstance(claim, dict) or not isinstance(version, int):
            return None
        return _Found(
            Claim(str(claim["source"]), str(claim["state_id"]), int(claim["epoch"])),
            version,
            tuple(tokens) if isinstance(tokens, list) else (),
        )

    def _payload(self, claim: Claim, version: int, tokens: tuple[str, ...]) -> Payload:
        stored: dict[str, object] = {
            _CLAIM: {**claim._asdict(), "namespace": self._namespace},
            VERSION: version,
            _TOKENS: list(tokens),
        }
        if not self._above:
            return stored
        payload: dict[str, object] = {}
        put_at(payload, self._above, stored)
        return payload
