"""An embedding budget that several processes spend at once, here or on other machines."""

from __future__ import annotations

from undrift.errors import EmbeddingBudgetSpent


class TextBudget:
    """Texts that a run may embed, handed out in parts to the pages that are under way.

    No part is ever larger than what all the others leave, so the limit holds however they are
    spent. Only a page that was under way on a machine that is lost begins again with its whole
    part: what it had paid is known to nobody.

    Args:
        limit: None for any number.
    """

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._left = limit or 0
        self._out = 0

    def part(self, pages: int) -> int | None:
        """A page's part, of so many that may be under way; None for any number of texts."""
        if self._limit is None:
            return None
        part = -(-self._left // pages)
        self._left -= part
        self._out += part
        return part

    def settle(self, part: int | None, spent: int) -> None:
        """Take back what a page has left of its *part*."""
        if part is not None:
            self._out -= part
            self._left += part - spent

    @property
    def is_out(self) -> bool:
        """Whether nothing is left but what pages under way may give back."""
        return self._limit is not None and not self._left and self._out > 0

    @property
    def stop(self) -> EmbeddingBudgetSpent | None:
        """The error of a run that needs more, once nothing is left at all."""
        if self._limit is None or self._left or self._out:
            return None
        return EmbeddingBudgetSpent(self._limit)
