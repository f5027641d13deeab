"""Owners between their column's type and their printed form.

The row's spelling is the owner's name. An argument is converted to the column's type; where that
fails, or the value does not print back the same, there is no such owner: '007' is not user 7.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from undrift.fingerprint import is_storable_id

_MAX_BIGINT = 2**63

Expression = sa.ColumnElement[Any]


class OwnerColumn:
    """An owner column of PostgreSQL, and how its values print.

    Attributes:
        listed: the expression by which owners are told apart and ordered.
        may_print_alike: two values of the column may print the same, and are one owner.
    """

    may_print_alike = False

    def __init__(self, column: sa.Column[Any]) -> None:
        self._type = _python_type(column)
        self.listed: Expression = column
        if self._type is object:
            # A type undrift has no conversion for compares by its printed form: right, if slow.
            self._type = str
            self.listed = sa.cast(column, sa.Text)
        # Integers of any size may be asked for; a narrower cast would end the whole page.
        self._parameter: Any = sa.BigInteger() if self._type is int else self.listed.type

    @property
    def order(self) -> Sequence[Expression]:
        """An order in which all rows of an owner stand together."""
        if self._type is not str:
            return [self.listed]
        # A collation may find two spellings equal, and they are two owners.
        return [self.listed, sa.collate(sa.cast(self.listed, sa.Text), "C")]

    def named(self, owners: Sequence[str]) -> sa.ColumnElement[bool]:
        """A condition that the rows of *owners* fulfil, and hardly any others."""
        values = [value for owner in owners for value in self.values(owner)]
        # One parameter whatever the number of owners: hundreds of them cost more than the rows.
        listing = sa.bindparam(None, values, type_=ARRAY(self._parameter))
        return self.listed == sa.any_(listing)

    def values(self, owner: str) -> list[object]:
        """The values of the column's type that print as *owner*; none if nothing does."""
        if not is_storable_id(owner):
            return []
        value = _converted(owner, self._type)
        return [value] if value is not None and str(value) == owner else []

    def bound(self, value: object) -> object:
        """*value*, read from this column, as a parameter."""
        return value


class DynamicOwnerColumn(OwnerColumn):
    """An owner column of SQLite, which holds values of any type, whatever it declares."""

    def __init__(self, column: sa.Column[Any]) -> None:
        super().__init__(column)
        declared = column.type
        self._is_integer = isinstance(declared, sa.Integer)
        # Only a column without a type keeps 1 and '1' apart.
        self.may_print_alike = isinstance(declared, sa.types.NullType | sa.LargeBinary)
        # What is stored, not what a declared type or collation would make of it.
        verbatim = sa.type_coerce(column, Verbatim())
        self._stored: Expression = verbatim
        self.listed = verbatim if self._is_integer else sa.collate(verbatim, "BINARY")

    @property
    def order(self) -> Sequence[Expression]:
        """An order in which all rows of an owner stand together."""
        if self._is_integer:
            return [self._stored]
        return [sa.collate(sa.cast(self._stored, sa.Text), "BINARY")]

    def named(self, owners: Sequence[str]) -> sa.ColumnElement[bool]:
        """A condition that the rows of *owners* fulfil, and hardly any others."""
        storable = [owner for owner in owners if is_storable_id(owner)]
        values = [value for owner in storable for value in self.values(owner)]
        listed = sa.func.json_each(json.dumps(values)).table_valued("value")
        named = self._stored.in_(sa.select(listed.c.value))
        odd = [self.bound(owner) for owner in owners if _is_unstorable_text(owner)]
        return sa.or_(named, self._stored.in_(odd)) if odd else named

    def values(self, owner: str) -> list[object]:
        """The values that print as *owner*: a text, and a number if it is one."""
        candidates = (_converted(owner, python_type) for python_type in (int, float))
        numbers = [value for value in candidates if value is not None and str(value) == owner]
        return [*numbers, owner]

    def bound(self, value: object) -> object:
        """*value* as a parameter; text that is not UTF-8 goes as its bytes."""
        if isinstance(value, str) and not is_storable_id(value):
            return sa.cast(sa.literal(value.encode("utf-8", "surrogateescape")), sa.Text)
        return value


def _is_unstorable_text(owner: str) -> bool:
    """Whether a row may spell its owner so, though no store can hold it."""
    try:
        owner.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return not is_storable_id(owner)


class Verbatim(sa.types.TypeDecorator[Any]):
    """Passes values through untouched in both directions."""

    impl = sa.types.NullType
    cache_ok = True

    # Comparing must not adopt the literal's own type, or integers and texts could not be mixed.
    def coerce_compared_value(self, op: object, value: object) -> sa.types.TypeEngine[Any]:
        """Compare with anything."""
        return self


def _python_type(column: sa.Column[Any]) -> type:
    if isinstance(column.type, sa.Enum):
        return object
    try:
        found = column.type.python_type
    except NotImplementedError:
        return object
    # Numerics print in several ways (1.5 and 1.50), so they are told apart by their texts.
    return found if found in (int, str, uuid.UUID) else object


def _converted(owner: str, python_type: type) -> object:
    if python_type is str:
        return owner
    try:
        value = python_type(owner)
    except ValueError:
        return None
    if isinstance(value, int) and not -_MAX_BIGINT <= value < _MAX_BIGINT:
        return None
    # Databases differ in what they make of NaN, and nobody is called so.
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
