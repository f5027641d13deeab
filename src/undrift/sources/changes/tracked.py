"""What triggers have to watch: the mapped tables, their owners, and the columns that matter."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import sqlalchemy as sa

from undrift.errors import UnsupportedError
from undrift.sources.owners import OwnerColumn

_T = TypeVar("_T")

UNTIL_LOOKED_AT = "what changes there is found when everybody is looked at"


class TrackedOwner(NamedTuple):
    """An owner column.

    Attributes:
        is_padded: it is a ``char(n)``, whose cast to text would take the blanks from behind.
    """

    name: str
    is_padded: bool = False


class TrackedTable(NamedTuple):
    """A mapped table.

    Attributes:
        name: as the mapping writes it, ``table`` or ``schema.table``.
        owners: columns whose values are owners; usually one.
        columns: what is read besides.
        conditions: which rows are read; with any of them every column matters.
    """

    name: str
    owners: tuple[TrackedOwner, ...]
    columns: tuple[str, ...]
    conditions: tuple[str, ...] = ()

    @property
    def compared(self) -> tuple[str, ...] | None:
        """The columns of which a change matters; None means any."""
        if self.conditions:
            return None
        return tuple(dict.fromkeys((*(owner.name for owner in self.owners), *self.columns)))


def tracked_owner(column: sa.Column[Any], owner: OwnerColumn) -> TrackedOwner:
    """How a trigger prints what *owner* lists."""
    is_listed_as_it_is = owner.listed is column
    return TrackedOwner(column.name, is_listed_as_it_is and isinstance(column.type, sa.CHAR))


def merged(tables: Iterable[TrackedTable]) -> tuple[TrackedTable, ...]:
    """Each table once, sorted by name: several kinds may come from one."""
    found: dict[str, TrackedTable] = {}
    for table in tables:
        known = found.get(table.name)
        if known is not None:
            table = TrackedTable(
                table.name,
                _each_once(known.owners, table.owners),
                _each_once(known.columns, table.columns),
                _each_once(known.conditions, table.conditions),
            )
        found[table.name] = table
    return tuple(found[name] for name in sorted(found))


def time_in(condition: str) -> str | None:
    """What in *condition* gives another answer later though no row has changed."""
    code = _words(condition)
    for pattern in _TIMES:
        found = pattern.search(code)
        if found is not None:
            return found[0].strip(" (")
    literal = _NOW_LITERAL.search(condition)
    return literal[0] if literal else None


def refusal_of_conditions(table: TrackedTable) -> str | None:
    """Why *table* cannot be watched, if a condition depends on time."""
    for condition in table.conditions:
        found = time_in(condition)
        if found is not None:
            return (
                f"{table.name}: its where condition depends on time or chance ({found}), so rows "
                f"come and go without a change; {UNTIL_LOOKED_AT}"
            )
    return None


def unseen_by_conditions(table: TrackedTable) -> list[str]:
    """What a condition of *table* reads besides the table."""
    if any(_SUBQUERY.search(_words(condition)) for condition in table.conditions):
        return [f"{table.name}: changes of other tables that its where condition reads"]
    return []


def nothing_to_watch(location: str, refused: Sequence[str]) -> UnsupportedError:
    """No mapped table can have triggers."""
    return UnsupportedError(
        "No mapped table can have triggers",
        why=f"{location}: {'; '.join(refused)}.",
        fix="nothing is needed: without triggers `undrift check --all` and `undrift sync --all` "
        "look at everybody, as often as you run them",
    )


def _each_once(first: tuple[_T, ...], second: tuple[_T, ...]) -> tuple[_T, ...]:
    return tuple(dict.fromkeys((*first, *second)))


_NOT_CODE = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|/\*.*?\*/""", re.DOTALL)


def _words(condition: str) -> str:
    """*condition* without what is quoted or a comment, in lower case."""
    return _NOT_CODE.sub(" '' ", condition).lower()


_SUBQUERY = re.compile(r"\bselect\b")
_TIMES = (
    re.compile(r"\b(?:current_date|current_time|current_timestamp|localtime|localtimestamp)\b"),
    re.compile(
        r"\b(?:now|clock_timestamp|statement_timestamp|transaction_timestamp|timeofday|age|random"
        r"|randomblob|random_normal|gen_random_uuid|uuidv4|uuidv7|txid_current"
        r"|pg_current_xact_id)\s*\("
    ),
    # SQLite's, which mean now where they are given nothing.
    re.compile(r"\b(?:date|time|datetime|julianday|unixepoch)\s*\(\s*\)"),
    re.compile(r"\bstrftime\s*\(\s*''\s*\)"),
)
_NOW_LITERAL = re.compile(r"'\s*(?:now|today|tomorrow|yesterday)\s*'", re.IGNORECASE)
