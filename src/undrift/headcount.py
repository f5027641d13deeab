"""How many owners there are: counted where that is cheap, else estimated. For people, and plans."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

from undrift.ports import Source


class Headcount(NamedTuple):
    """How many owners the source has.

    Attributes:
        is_estimate: nobody counted them; by what the database knows of its tables it is about so
            many.
    """

    owners: int
    is_estimate: bool = False

    def of_share(self, share: float) -> Headcount:
        """How many a part of so great a *share* has, 0 to 1."""
        if share == 1:
            return self
        return Headcount(round(self.owners * share), is_estimate=True)


@runtime_checkable
class CountingSource(Source, Protocol):
    """A source that can tell how many owners it has without going over them."""

    def headcount(self) -> Headcount | None:
        """How many there are, in a fraction of a second; None where that cannot be told so fast.

        Raises:
            ConfigError: a table or column is not there.
            SourceUnavailable: the database cannot be reached.
            IncompleteRead: the role is shown only part of the rows.
        """
