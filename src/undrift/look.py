"""Reading both sides for a group of owners: the one place where a comparison's input comes from.

A look believes nothing that it did not read itself. Where it cannot read, the owner's look carries
the error instead, so that an outage can never be taken for absence (I9).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from undrift.diff import OwnerDiff, diff_owner, status_of
from undrift.errors import InvalidDocument, UnknownStateError
from undrift.model import NOT_CREATED, Stamp, SyncStatus, Wanted
from undrift.ports import OwnerContent, Source, VectorStore
from undrift.render import Renderer
from undrift.state import Observation

First = Literal["store", "source"]

SourceSide = tuple[Wanted | None, bytes | None, UnknownStateError | None]
"""What the source wants of an owner, the digest of its raw content, why it cannot be read."""

NOT_THERE: SourceSide = (None, None, None)
"""A complete read does not show the owner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What one look at both sides showed of one owner.

    Attributes:
        wanted: the source's side; None if a complete read does not show the owner.
        digest: of the raw content that ``wanted`` was rendered from.
        stamps: the store's side.
        unmanaged: records of the owner outside the namespace.
        observation: what has to be accepted when its records are written, and was not yet.
        noted_at: when it began, by the worker's clock; 0 where nobody asks.
        error: why the owner could not be looked at; then nothing else counts.
    """

    owner_id: str
    wanted: Wanted | None = None
    digest: bytes | None = None
    stamps: Sequence[Stamp] = ()
    unmanaged: int = 0
    observation: Observation | None = None
    noted_at: float = 0.0
    error: UnknownStateError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """Both sides and how to compare them.

    Attributes:
        store_exists: False when the store certainly has not been created yet.
        model: the identity that current embeddings carry.
        against: what the source is, ``source`` or ``profile`` where the caller gives it.
    """

    source: Source
    store: VectorStore
    renderer: Renderer
    model: str
    store_exists: bool = True
    against: str = "source"

    def look(
        self,
        owners: Sequence[str],
        *,
        first: First,
        before: Mapping[str, Look] | None = None,
        given: Mapping[str, OwnerContent] | None = None,
    ) -> dict[str, Look]:
        """Read both sides of *owners*.

        Args:
            first: which side is read first. A sync without a state enumerates before it reads the
                source, so that what it deletes was seen before the source was read without it.
            before: an earlier look; where the raw content is still the same, its rendering is
                used again.
            given: content to use in the source's place.

        Returns:
            One look for each of *owners*; a side that failed makes all of them unknown.
        """
        try:
            store_side = self.read_store(owners) if first == "store" else None
            contents = self.read_source(owners, before, given or {})
            stamps, unmanaged = store_side or self.read_store(owners)
        except UnknownStateError as exc:
            return {owner: Look(owner_id=owner, error=exc) for owner in owners}
        looks = {}
        for owner in owners:
            wanted, digest, error = contents.get(owner, NOT_THERE)
            looks[owner] = Look(
                owner_id=owner,
                wanted=wanted,
                digest=digest,
                stamps=stamps.get(owner, ()),
                unmanaged=unmanaged.get(owner, 0),
                error=error,
            )
        return looks

    def diff(self, look: Look) -> OwnerDiff:
        """The difference that *look* shows; it must not carry an error."""
        return diff_owner(
            look.owner_id,
            look.wanted,
            look.stamps,
            model=self.model,
            kinds=self.renderer.mapping.kinds,
            adoption=self.store.capabilities.adoption,
        )

    def status(self, diff: OwnerDiff, look: Look) -> SyncStatus:
        """The status that *diff* amounts to."""
        notes = () if self.store_exists else (NOT_CREATED,)
        return status_of(diff, unmanaged=look.unmanaged, notes=notes)

    def read_store(self, owners: Sequence[str]) -> tuple[dict[str, list[Stamp]], Mapping[str, int]]:
        """The store's side alone: stamps, and the number of unmanaged records, by owner.

        Raises:
            UnknownStateError: it could not be read to the end.
        """
        stamps = self.read_stamps(owners)
        return stamps, self.store.unmanaged(owners) if self.store_exists else {}

    def read_stamps(self, owners: Sequence[str]) -> dict[str, list[Stamp]]:
        """The stamps of *owners* alone.

        Raises:
            UnknownStateError: they could not be read to the end.
        """
        stamps: dict[str, list[Stamp]] = {}
        if not self.store_exists:
            return stamps
        for stamp in self.store.stamps(owners):
            known = stamps.get(stamp.owner_id)
            if known is None:
                stamps[stamp.owner_id] = [stamp]
            else:
                known.append(stamp)
        return stamps

    def read_source(
        self,
        owners: Sequence[str],
        before: Mapping[str, Look] | None,
        given: Mapping[str, OwnerContent],
    ) -> dict[str, SourceSide]:
        """The source's side alone, all from one snapshot that begins with this call.

        Returns:
            By owner; one that is not there is not in the source.

        Raises:
            UnknownStateError: it could not be read to the end.
        """
        found: dict[str, SourceSide] = {}
        asked = [owner for owner in owners if owner not in given]
        contents = [given[owner] for owner in owners if owner in given]
        if asked:
            # The list is complete only when the iterator has ended normally.
            contents.extend(self.source.read(asked))
        names = set(owners)
        for content in contents:
            owner_id = content.owner_id
            if owner_id in found:
                found[owner_id] = (None, None, _given_twice(owner_id))
            elif owner_id in names:
                found[owner_id] = self._rendered(content, before)
        return found

    def _rendered(self, content: OwnerContent, before: Mapping[str, Look] | None) -> SourceSide:
        try:
            if before is None:
                return self.renderer.render(content), None, None
            digest = content.digest
            earlier = before.get(content.owner_id)
            if earlier is not None and earlier.wanted is not None and earlier.digest == digest:
                return earlier.wanted, digest, None
            return self.renderer.render(content), digest, None
        except InvalidDocument as exc:
            return None, None, exc


def _given_twice(owner_id: str) -> InvalidDocument:
    return InvalidDocument(
        owner_id,
        why="the source gives this owner twice, and either may be only a part.",
        fix="check that the owner column's values print differently from one another",
    )
