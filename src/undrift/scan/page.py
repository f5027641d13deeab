"""The check of a page of owners, by digests where the sides give them.

What the store holds is always read in the store, and what the source holds in the source; only what
that content renders to may come from memory. Owners whose digests agree are in sync. Everybody else
is read in full, and looked at twice, as an owner that a person names.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

from undrift.check import check_owners
from undrift.digests import (
    NO_RECORDS,
    DigestingSource,
    DigestingStore,
    RecordsDigest,
    stamps_digest,
    wanted_digest,
)
from undrift.errors import ConfigError, InvalidDocument, UndriftError, UnknownStateError
from undrift.look import Sides
from undrift.memory import FleetMemory, Memo
from undrift.model import Outcome, Outline, Read, SyncStatus
from undrift.ports import OwnerContent

_log = logging.getLogger(__name__)

RENDERED_AT_ONCE = 20
"""Owners; of more there is hardly anything to gain, and their documents are in memory together."""


class Agreed(NamedTuple):
    """An owner whose two sides' digests agree.

    Attributes:
        counts: as in `Memo.counts`.
        by_memo: the source's content was not rendered: what it renders to was remembered.
    """

    owner_id: str
    counts: str
    unmanaged: int
    by_memo: bool

    def status(self) -> SyncStatus:
        """The status that it amounts to."""
        return _agreement(self.counts, self.unmanaged, self.by_memo).of(self.owner_id)


@dataclass(frozen=True, slots=True)
class PageResult:
    """What is known of the owners of a page.

    Attributes:
        found: one for each owner, in their order; owners that are on neither side are left out.
        rendered: owners whose content was rendered, which is what takes the time.
    """

    found: Sequence[Agreed | SyncStatus]
    rendered: int

    def statuses(self) -> Iterator[SyncStatus]:
        """The owners' statuses."""
        for found in self.found:
            yield found.status() if isinstance(found, Agreed) else found


Rendering = Callable[[int], None]
"""Is told how many owners have to be rendered, before they are."""


def nobody_asks(owners: int) -> None:
    """Nobody wants to know how many are rendered."""


class PageCheck:
    """Checks pages of owners.

    Args:
        memory: where memos are; None for none.
        key: what rendering depends on besides the content, see `FleetMemory.memos`.
        expects_drift: most owners differ, so that all are read in full at once.

    Attributes:
        uses_memos: whether owners can be told to be in sync without rendering them.

    Safety:
        May be used from several threads.
    """

    def __init__(
        self, sides: Sides, memory: FleetMemory | None, *, key: str, expects_drift: bool = False
    ) -> None:
        self._sides = sides
        self._key = key
        adopted = sides.store.capabilities.adoption is not None
        self._by_digests = sides.store_exists and not adopted and not expects_drift
        self._others_differ = self._by_digests or expects_drift
        self._source = sides.source if isinstance(sides.source, DigestingSource) else None
        self._memory = memory if self._by_digests and self._source is not None else None

    @property
    def uses_memos(self) -> bool:
        """Whether owners can be told to be in sync without rendering them."""
        return self._memory is not None

    def __call__(self, owners: Sequence[str], rendering: Rendering = nobody_asks) -> PageResult:
        """Check *owners*; errors of reading are in the statuses."""
        agreed: dict[str, Agreed] = {}
        rendered = 0
        if self._by_digests and owners:
            try:
                agreed, rendered = self._agreed(owners, rendering)
            except UnknownStateError as exc:
                return PageResult([SyncStatus.unknown(owner, exc) for owner in owners], 0)
        else:
            rendering(len(owners))
        others = [owner for owner in owners if owner not in agreed]
        checked = (
            check_owners(self._sides, others, expects_drift=self._others_differ) if others else []
        )
        statuses = {
            result.status.owner_id: result.status
            for result in checked
            # Who is gone from both sides by now, or has unmanaged records only, is nobody.
            if result.status.outcome is not Outcome.NOT_FOUND
        }
        found = (agreed.get(owner) or statuses.get(owner) for owner in owners)
        return PageResult([one for one in found if one is not None], rendered + len(others))

    def agreed(self, owners: Sequence[str]) -> Mapping[str, Agreed]:
        """Those of *owners* whose digests agree; whoever is not there is to be looked at.

        Raises:
            UnknownStateError: a side could not be read.
        """
        return self._agreed(owners)[0] if self._by_digests and owners else {}

    def remembers_most(self, owners: Sequence[str]) -> bool:
        """Whether what most of *owners* render to need not be found out anew."""
        return bool(owners) and 2 * len(self._current_memos(owners)) > len(owners)

    # --- by digests

    def _agreed(
        self, owners: Sequence[str], rendering: Rendering = nobody_asks
    ) -> tuple[dict[str, Agreed], int]:
        """The owners whose sides agree, and how many had to be rendered for it."""
        stored = self._stored(owners)
        memos = self._current_memos(owners)
        agreed: dict[str, Agreed] = {}
        for owner, memo in memos.items():
            _note_if_equal(agreed, owner, memo, stored.get(owner, NO_RECORDS), by_memo=True)
        unknown = [owner for owner in owners if owner not in memos]
        if not unknown:
            return agreed, 0
        rendering(len(unknown))
        made = dict(self._made(unknown))
        for owner, memo in made.items():
            _note_if_equal(agreed, owner, memo, stored.get(owner, NO_RECORDS), by_memo=False)
        self._remember(made)
        return agreed, len(made)

    def _stored(self, owners: Sequence[str]) -> Mapping[str, RecordsDigest]:
        sides, store = self._sides, self._sides.store
        kinds = sides.renderer.mapping.kinds
        if isinstance(store, DigestingStore):
            return store.digests(owners, model=sides.model, kinds=kinds)
        stamps, unmanaged = sides.read_store(owners)
        digests = {
            owner: stamps_digest(found, model=sides.model, kinds=kinds)
            for owner, found in stamps.items()
        }
        for owner, count in unmanaged.items():
            digest = digests.get(owner, NO_RECORDS)
            digests[owner] = digest._replace(unmanaged=digest.unmanaged + count)
        return digests

    def _current_memos(self, owners: Sequence[str]) -> dict[str, Memo]:
        """The memos of those *owners* whose content is still that of the memo."""
        memory = self._memory  # another thread may find that there is none
        if memory is None or self._source is None:
            return {}
        try:
            memos = memory.memos(owners, self._key)
        except (ConfigError, UnknownStateError) as exc:
            self._do_without(exc)
            return {}
        raw = self._source.digests(list(memos)) if memos else {}
        return {owner: memo for owner, memo in memos.items() if raw.get(owner) == memo.raw}

    def _made(self, owners: Sequence[str]) -> Iterator[tuple[str, Memo]]:
        """What *owners* render to; those of whom nothing can be said are left out."""
        made: dict[str, Memo | None] = {}
        contents = iter(self._contents(owners))
        while part := list(islice(contents, RENDERED_AT_ONCE)):
            outlines = self._sides.renderer.outlines([content for content, _ in part])
            for (content, raw), outline in zip(part, outlines, strict=True):
                owner = content.owner_id
                # An owner that is given twice is no owner to remember.
                made[owner] = None if owner in made else _memo(outline, raw)
        names = set(owners)
        for owner, memo in made.items():
            if memo is not None and owner in names:
                yield owner, memo

    def _contents(self, owners: Sequence[str]) -> Iterable[tuple[OwnerContent, bytes]]:
        if self._memory is not None and self._source is not None:
            return self._source.read_digested(owners)
        return ((content, b"") for content in self._sides.source.read(owners))

    def _remember(self, made: Mapping[str, Memo]) -> None:
        memory = self._memory
        if memory is None or not made:
            return
        try:
            memory.remember(made, self._key)
        except (ConfigError, UnknownStateError) as exc:
            self._do_without(exc)

    def _do_without(self, error: UndriftError) -> None:
        self._memory = None
        _log.info(
            "going on without memos: %s: %s",
            error.what,
            error.why,
            extra={"action": "check.no_memos"},
        )


def _note_if_equal(
    agreed: dict[str, Agreed], owner: str, memo: Memo, stored: RecordsDigest, *, by_memo: bool
) -> None:
    if stored.digest == memo.wanted and not stored.amiss:
        agreed[owner] = Agreed(owner, memo.counts, stored.unmanaged, by_memo)


def _memo(outline: Outline | InvalidDocument, raw: bytes) -> Memo | None:
    if isinstance(outline, InvalidDocument):
        return None  # the full check says why
    return Memo(raw, wanted_digest(outline.fingerprints), _counts_text(outline))


# --- what a memo says of an owner's entities ------------------------------------------------------


def _counts_text(outline: Outline) -> str:
    if not outline.without_text:
        return _counted(tuple(outline.counts.items()))
    store = Counter(kind for kind, _ in outline.fingerprints)
    return json.dumps([dict(outline.counts), dict(store), outline.without_text])


@lru_cache(maxsize=10_000)
def _counted(counts: tuple[tuple[str, int], ...]) -> str:
    return json.dumps([dict(counts)])


@lru_cache(maxsize=10_000)
def _agreement(counts: str, unmanaged: int, by_memo: bool) -> SyncStatus:
    """The status of anybody whose sides agree and have so many entities."""
    source, *more = json.loads(counts)
    store, without_text = more or (source, 0)
    return SyncStatus(
        owner_id="",
        outcome=Outcome.IN_SYNC,
        source=source,
        store=store,
        without_text=without_text,
        unmanaged=unmanaged,
        read=Read.DIGESTS if by_memo else Read.FULL,
    )
