"""What is closed when its ``with`` ends, however that ends."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Closing(ABC):
    """A context manager over its own `close`."""

    @abstractmethod
    def close(self) -> None:
        """Give back everything."""

    def __enter__(self) -> Self:
        """Return this very thing, which is open already."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()
