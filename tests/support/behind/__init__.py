"""Stores as their own drivers reach them, past undrift: what a test plants and looks at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

Row = Mapping[str, Any]


class Behind(Protocol):
    """What `support.sides.StoreTables` is for tables, for any store.

    A row has the columns of the SQL stores; a tombstone's ``deleted`` is 1.
    """

    @property
    def exists(self) -> bool:
        """Whether the store has been created."""

    def records(self) -> dict[str, Row]:
        """Every record, managed or not, with its vector, by vector_id."""

    def managed(self) -> dict[str, Row]:
        """The records of the namespace and the configured kinds, no tombstones, by vector_id."""

    def set(self, vector_id: str, **changes: object) -> None:
        """Tamper with one record."""

    def delete(self, vector_id: str) -> None:
        """Delete one record."""

    def lose_vector(self, vector_id: str) -> None:
        """Take the vector from one record."""

    def move(self, vector_id: str, to: str | None = None) -> str:
        """Put one record under another vector_id, by default a new one, and return that."""

    def copy(self, vector_id: str, **changes: object) -> str:
        """Copy one record, vector included, with *changes* under a new vector_id; return that."""

    def close(self) -> None:
        """Close every connection."""
