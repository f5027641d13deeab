"""Digests of raw rows, by the server where it can hash, and else of the values that it gave.

What is hashed is the text that a read gets of every value. What the server hashes it hashes in its
own encoding: any text can be had in that one, and it is the same for all who ask.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import aggregate_order_by

Expression = sa.ColumnElement[Any]

# No text of PostgreSQL holds a NUL, and no other value of SQLite's begins with one as it is hashed.
_NULL = hashlib.sha256(b"\x00").digest()
_SEVERAL = b"\x00rows"

_ENCODING = sa.func.getdatabaseencoding()


def hashed_text(text: Expression) -> Expression:
    """The digest of *text*, computed by PostgreSQL; NULL of NULL."""
    return sa.func.sha256(sa.func.convert_to(text, _ENCODING))


def hashed_elsewhere(text: Expression) -> Expression:
    """As `hashed_text`, but NULL where `text_digest` gives the same: hashing here is cheaper."""
    return sa.case((_ENCODING != "UTF8", hashed_text(text)))


def hashed_rows(columns: Sequence[Expression], types: Expression) -> Expression:
    """The digest of a group's rows in any order, computed by PostgreSQL.

    Args:
        columns: what of the rows counts.
        types: see `types_of`.
    """
    row = hashed_text(sa.cast(sa.func.row(*columns), sa.Text))
    nothing: Expression = sa.literal_column("''::bytea")
    rows = sa.func.string_agg(row, aggregate_order_by(nothing, row))
    return sa.func.sha256(hashed_text(types).op("||")(rows))


def types_of(table: sa.Table, columns: Iterable[str]) -> Expression:
    """The types of *columns* as PostgreSQL has them now, found once for a statement.

    Of a value of another type rendering may make something else, though it prints the same.
    """
    found = table.alias("_typed")  # a name of ours, not one made of the table's
    types = sa.cast(sa.func.row(*(sa.func.pg_typeof(found.c[name]) for name in columns)), sa.Text)
    no_rows = sa.select(sa.literal(1)).subquery().outerjoin(found, sa.false())
    return sa.select(types).select_from(no_rows).correlate(None).scalar_subquery()


def text_digest(text: str | bytes | None) -> bytes:
    """What PostgreSQL, with UTF-8 for its encoding, computes for *text*."""
    if text is None:
        return _NULL
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).digest()


def value_digest(value: object) -> bytes:
    """The digest of a value as SQLite stores it; equal values of two types differ."""
    if value is None:
        return _NULL
    if isinstance(value, str):
        stored = b"t" + value.encode("utf-8", "surrogateescape")
    elif isinstance(value, bytes):
        stored = b"b" + value
    else:
        stored = repr(value).encode()  # a number
    return hashlib.sha256(stored).digest()


def values_digest(rows: Iterable[tuple[object, ...]]) -> bytes:
    """The digest of rows in any order, of values as SQLite stores them.

    As Python writes them, in ASCII: in one line, and no two types or texts alike.
    """
    return hashlib.sha256("\n".join(sorted(map(ascii, rows))).encode()).digest()


def rows_digest(digests: Sequence[bytes | None]) -> bytes:
    """The digest of an owner's rows, in any order, from those of each; None is that of NULL."""
    found = [_NULL if digest is None else digest for digest in digests]
    if len(found) == 1:
        return found[0]
    return hashlib.sha256(_SEVERAL + b"".join(sorted(found))).digest()


def tables_digest(parts: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The digest of an owner's tables, from `which_table` and the rows' digest of each."""
    return hashlib.sha256(b"".join(sorted(which + rows for which, rows in parts))).digest()


def which_table(index: int, columns: Sequence[str], decoded: Iterable[str]) -> bytes:
    """What tells a table's part of a digest from every other.

    Args:
        index: which entity of the mapping the table is of.
        columns: those that are read, in the order in which they are hashed.
        decoded: those of which a read makes something else than they hold.
    """
    return hashlib.sha256(ascii((index, tuple(columns), sorted(decoded))).encode()).digest()
