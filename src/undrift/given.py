"""A profile the caller hands over, standing in for the source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from undrift.ports import OwnerContent, SourceInfo


class GivenSource:
    """A `Source` that knows exactly one owner, whose content the caller vouches for."""

    def __init__(self, content: OwnerContent) -> None:
        self._content = content

    def describe(self) -> SourceInfo:
        """Say that there is no database behind it."""
        return SourceInfo(location="(none)", layout="the given profile")

    def owner_pages(self, page_owners: int, after: str | None = None) -> Iterator[Sequence[str]]:
        """Yield the one owner."""
        if after is None or after < self._content.owner_id:
            yield [self._content.owner_id]

    def present(self, owners: Sequence[str]) -> frozenset[str]:
        """The one owner, if it is asked for."""
        return frozenset({self._content.owner_id}.intersection(owners))

    def read(self, owners: Sequence[str]) -> Iterator[OwnerContent]:
        """Yield the given content, if it is asked for."""
        if self._content.owner_id in owners:
            yield self._content

    def close(self) -> None:
        """Nothing is open."""
