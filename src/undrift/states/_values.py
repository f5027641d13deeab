"""What every state does with its arguments before its driver sees them.

The rules are kept here, once, because drivers disagree: SQLite stores a NUL that PostgreSQL
refuses. No owner is called so, which makes it no error: nothing is remembered of such a one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

from undrift.fingerprint import is_storable_id, storable_text
from undrift.state import (
    EntityRow,
    Failure,
    Identity,
    Note,
    OwnerNote,
    Standing,
    VersionRaise,
)

DAY_SECONDS = 86_400.0

BUDGET_SECONDS = 60.0
"""Deletes are counted by the minute: a day of them is a thousand rows, however many there are."""

_ERROR_CHARACTERS = 1_000

_NAME_CHARACTERS = 400  # PostgreSQL's keys end at 2,700 bytes
_ESCAPED = re.compile("[\\\\\x00\ud800-\udfff]")
_ESCAPE = re.compile(r"\\(?:\\|u([0-9a-f]{4}))")

T = TypeVar("T")


def ordered(owners: Iterable[str]) -> list[str]:
    """The distinct *owners* that can be remembered, by code point.

    Everybody locks them in this order, so that no two wait for each other.
    """
    return sorted(filter(is_storable_id, set(owners)))


def by_owner(items: Iterable[tuple[str, T]]) -> list[T]:
    """Those of *items* whose owner can be remembered, one for each owner, by code point."""
    found = {owner_id: item for owner_id, item in items if is_storable_id(owner_id)}
    return [found[owner_id] for owner_id in sorted(found)]


def distinct_rows(rows: Iterable[EntityRow]) -> list[EntityRow]:
    """One row for each identity, the newest, in their order."""
    newest: dict[Identity, EntityRow] = {}
    for row in rows:
        identity = row[:2]  # `row.identity`, without a call for every entity there is
        rival = newest.get(identity)
        if rival is None or rival.version < row.version:
            newest[identity] = row
    return [newest[identity] for identity in sorted(newest)]


def one_line(failure: Failure) -> str:
    """What happened, as any database can store it."""
    return " ".join(storable_text(failure.error).split())[:_ERROR_CHARACTERS]


def kept_text(text: str) -> str:
    """Any *text* as every database holds it; `text_kept` gives it back as it was."""
    return _ESCAPED.sub(_escape, text)


def text_kept(kept: str) -> str:
    """The text of which `kept_text` made *kept*."""
    return _ESCAPE.sub(_unescape, kept) if "\\" in kept else kept


def kept_name(name: str) -> str:
    """*name* as a key: any database holds it, and it is never too long for one."""
    kept = kept_text(name)
    if len(kept) <= _NAME_CHARACTERS:
        return kept
    digest = hashlib.sha256(kept.encode()).hexdigest()
    return f"{kept[: _NAME_CHARACTERS - len(digest)]}{digest}"


def _escape(found: re.Match[str]) -> str:
    character = found[0]
    return "\\\\" if character == "\\" else f"\\u{ord(character):04x}"


def _unescape(found: re.Match[str]) -> str:
    return chr(int(found[1], 16)) if found[1] else "\\"


def is_raisable(wish: VersionRaise, current: Mapping[Identity, EntityRow]) -> bool:
    """Whether the *current* rows are as *wish* observed them, and those it adds are not there."""
    observed = {row.identity for row in wish.observed}
    return all(
        (found := current.get(row.identity)) is not None and found.is_as(row)
        for row in wish.observed
    ) and all(row.identity in observed or row.identity not in current for row in wish.raised)


def entered(
    before: Standing, config: str, above_epoch: int, *, was_current: bool, is_adopted: bool
) -> Standing:
    """What the standing becomes when a writer enters; *before* if its configuration is superseded.

    Args:
        was_current: *config* is, or once was, the current one.
    """
    is_current = config == before.config
    if was_current and not is_current and not is_adopted:
        return before
    is_round_begun = is_adopted or (bool(before.config) and not is_current)
    epoch = max(before.epoch, above_epoch) + 1
    return Standing(before.state_id, epoch, config, before.round + is_round_begun)


def note_from(
    standing: Standing,
    asked: Iterable[str],
    owners: Iterable[tuple[str, int, int, int, int]],
    entities: Iterable[tuple[str, EntityRow]],
) -> Note:
    """The note of what was *asked* for.

    Args:
        owners: ``(owner_id, generation, synced_generation, observation, floor)`` of those that are
            known.
        entities: rows and whose they are.
    """
    rows: dict[str, dict[Identity, EntityRow]] = {}
    for owner_id, row in entities:
        rows.setdefault(owner_id, {})[row.identity] = row
    notes = {owner_id: OwnerNote(owner_id=owner_id) for owner_id in asked}
    for owner_id, generation, synced_generation, observation, floor in owners:
        notes[owner_id] = OwnerNote(
            owner_id=owner_id,
            generation=generation,
            synced_generation=synced_generation,
            observation=observation,
            floor=floor,
            entities=rows.get(owner_id, {}),
        )
    return Note(standing=standing, owners=notes)


class Waiting:
    """Dirty owners from several lists, merged into one order.

    Args:
        limit: how many are wanted.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._found: dict[str, tuple[int, float, int]] = {}

    def add(self, owner_id: str, priority: int, waited_seconds: float, attempts: int) -> None:
        """One owner of one list; the longer wait counts."""
        found = self._found.get(owner_id)
        if found is None or found[1] < waited_seconds:
            self._found[owner_id] = priority, waited_seconds, attempts

    def first(self) -> list[tuple[str, float, int]]:
        """Owner, seconds and attempts: higher priority first, then the longest wait."""
        found = sorted(self._found.items(), key=lambda item: (-item[1][0], -item[1][1], item[0]))
        return [(owner_id, waited, tries) for owner_id, (_, waited, tries) in found[: self._limit]]
