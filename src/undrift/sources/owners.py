"""Owners between their column's type and their printed form.

The row's spelling is the owner's name. An argument is converted to the column's type; where that
fails, or the value does not print back the same, there is no such owner: '007' is not user 7.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from undrift.fingerprint import is_storable_id

_MAX_BIGINT = 2**63


class OwnerColumn:
    """An owner column, and how its values print.

    Args:
        column: as the database describes it.
        is_dynamic: the column may hold integers and texts at once, whatever its declared type
            (SQLite).
    """

    def __init__(self, column: sa.Column[Any], *, is_dynamic: bool) -> None:
        self.column: sa.ColumnElement[Any] = column
        self._is_dynamic = is_dynamic
        self._types: tuple[type, ...] = (int, str) if is_dynamic else (_python_type(column),)
        if is_dynamic:
            # Compare what is stored, not what a declared type would make of it.
            self.column = sa.type_coerce(column, _Verbatim())
        elif self._types == (object,):
            # A type undrift has no conversion for compares by its printed form: right, if slow.
            self.column = sa.cast(column, sa.Text)
            self._types = (str,)

    def named(self, owners: Sequence[str]) -> sa.ColumnElement[bool]:
        """The condition that a row belongs to one of *owners*."""
        values = [value for owner in owners for value in self.values(owner)]
        # One parameter whatever the number of owners: hundreds of them cost more than the rows.
        if self._is_dynamic:
            listed = sa.func.json_each(json.dumps(values)).table_valued("value")
            return self.column.in_(sa.select(listed.c.value))
        listing = sa.bindparam(None, values, type_=ARRAY(self.column.type))
        return self.column == sa.any_(listing)

    def values(self, owner: str) -> list[object]:
        """The values of the column's type that print as *owner*; none if nothing does."""
        if not is_storable_id(owner):
            return []
        candidates = (_convert(owner, python_type) for python_type in self._types)
        return [value for value in candidates if value is not None and str(value) == owner]


class _Verbatim(sa.types.TypeDecorator[Any]):
    """Passes values through untouched in both directions."""

    impl = sa.types.NullType
    cache_ok = True

    # Comparing must not adopt the literal's own type, or integers and texts could not be mixed.
    def coerce_compared_value(self, op: object, value: object) -> sa.types.TypeEngine[Any]:
        return self


def _python_type(column: sa.Column[Any]) -> type:
    try:
        found = column.type.python_type
    except NotImplementedError:
        return object
    return found if found in (int, str, uuid.UUID, Decimal) else object


def _convert(owner: str, python_type: type) -> object:
    if python_type is str:
        return owner
    try:
        value = python_type(owner)
    except (ValueError, InvalidOperation):
        return None
    if isinstance(value, int) and not -_MAX_BIGINT <= value < _MAX_BIGINT:
        return None
    return value
