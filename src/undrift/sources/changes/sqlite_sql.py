"""The statements of change capture on SQLite.

They run in the application's own SQLite library, whichever that is: nothing in them needs more
than 3.9.

``INSERT OR REPLACE`` and ``UPDATE OR REPLACE`` take rows away that stand in their way, and fire no
delete trigger for them unless the application has switched ``recursive_triggers`` on. So a trigger
before the write looks for those rows, by every unique key.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

CHANGES = "undrift_change"
PREFIX = "undrift_"

# owner_id has no type, so that it keeps the value as the row holds it. token tells a mark from a
# later one under the same id, which SQLite uses again; AUTOINCREMENT would leave a table behind.
# julianday('now') is as old as SQLite; unixepoch() is not.
CREATE_CHANGES = f"""CREATE TABLE {CHANGES} (
    id INTEGER PRIMARY KEY,
    owner_id,
    at REAL NOT NULL DEFAULT (julianday('now')),
    token INTEGER NOT NULL DEFAULT (random())
)"""
DROP_CHANGES = f"DROP TABLE IF EXISTS {CHANGES}"
MARK_EVERYBODY = "INSERT INTO undrift_change (owner_id) VALUES (NULL)"


class KeyTerm(NamedTuple):
    """A column or an expression of a unique index.

    Attributes:
        column: empty for an expression.
        expression: as the index has it; empty for a column.
    """

    column: str
    expression: str
    collation: str


class UniqueKey(NamedTuple):
    """A unique index.

    Attributes:
        predicate: which rows are in it; empty for all.
    """

    terms: tuple[KeyTerm, ...]
    predicate: str
    is_primary: bool


class Watch(NamedTuple):
    """What one table's triggers are made of.

    Attributes:
        compared: columns of which a change matters.
        columns: all of them, generated ones too.
        rowid: a name for the row's number; empty for a table without.
    """

    table: str
    owners: tuple[str, ...]
    compared: tuple[str, ...]
    columns: tuple[str, ...]
    rowid: str
    keys: tuple[UniqueKey, ...]


def quoted(name: str) -> str:
    """*name* as an identifier."""
    return '"' + name.replace('"', '""') + '"'


def triggers(watch: Watch) -> dict[str, str]:
    """The statements that create a table's triggers, by trigger name, as SQLite keeps them."""
    table = quoted(watch.table)
    found: dict[str, str] = {}

    def add(event: str, head: str, marks: Sequence[str], when: str = "") -> None:
        name = f"{PREFIX}{watch.table}_{event}"
        body = ";\n    ".join(marks)
        begin = f"CREATE TRIGGER {quoted(name)} {head} ON {table} FOR EACH ROW{when}"
        found[name] = f"{begin}\nBEGIN\n    {body};\nEND"

    add("insert", "AFTER INSERT", [_mark("NEW", o) for o in watch.owners])
    add("delete", "AFTER DELETE", [_mark("OLD", o) for o in watch.owners])
    both = [_mark("OLD", o) for o in watch.owners]
    both += [f"{_mark('NEW', o)} AND {_differs(f'OLD.{quoted(o)}', o)}" for o in watch.owners]
    add("update", "AFTER UPDATE", both, f" WHEN {_changed(watch)}")
    replaced = list(_replaced(watch, is_update=False))
    moved = list(_replaced(watch, is_update=True))
    if replaced:
        add("replace", "BEFORE INSERT", replaced)
        add("move", "BEFORE UPDATE", moved)
    return found


def drop_trigger(name: str) -> str:
    """The statement that drops a trigger."""
    return f"DROP TRIGGER IF EXISTS {quoted(name)}"


def _mark(row: str, owner: str) -> str:
    value = f"{row}.{quoted(owner)}"
    return f"INSERT INTO {CHANGES} (owner_id) SELECT {value} WHERE {value} IS NOT NULL"


def _changed(watch: Watch) -> str:
    """A mapped column differs, byte for byte and in its type: 1 and 1.0 print differently."""
    return " OR ".join(_differs(f"OLD.{quoted(name)}", name) for name in watch.compared)


def _differs(value: str, name: str) -> str:
    """*value* is another one than that of the column *name* in NEW, or prints differently."""
    new = f"NEW.{quoted(name)}"
    return f"({new} COLLATE BINARY IS NOT {value} OR typeof({new}) IS NOT typeof({value}))"


def _replaced(watch: Watch, *, is_update: bool) -> Iterator[str]:
    """Marks for the owners of rows that stand in the way of NEW."""
    table = quoted(watch.table)
    itself = _itself(watch) if is_update else ""
    conditions = [f"{watch.rowid} = NEW.{watch.rowid}"] if watch.rowid else []
    conditions += [_equal(watch, key) for key in watch.keys]
    for condition in conditions:
        for name in watch.owners:
            owner = quoted(name)
            # What an insert puts in has its own mark; an update need not have one.
            other = "" if is_update else f" AND {_differs(owner, name)}"
            rows = f"FROM {table} WHERE {condition}{itself} AND {owner} IS NOT NULL{other}"
            yield f"INSERT INTO {CHANGES} (owner_id) SELECT {owner} {rows}"


def _itself(watch: Watch) -> str:
    """A condition that leaves out the row that is being updated."""
    if watch.rowid:
        return f" AND {watch.rowid} <> OLD.{watch.rowid}"
    terms = next((key.terms for key in watch.keys if key.is_primary), ())
    same = " AND ".join(
        f"{quoted(t.column)} COLLATE {quoted(t.collation)} IS OLD.{quoted(t.column)}" for t in terms
    )
    return f" AND NOT ({same})"


def _equal(watch: Watch, key: UniqueKey) -> str:
    """A condition that a row fulfils which has the same key as NEW."""
    # Under the table's name: an expression may say it in front of a column's.
    row = ", ".join(f"NEW.{c} AS {c}" for c in map(quoted, watch.columns))
    new = f"FROM (SELECT {row}) AS {quoted(watch.table)}"
    parts = []
    for term in key.terms:
        collated = f"COLLATE {quoted(term.collation)}"
        if term.column:
            column = quoted(term.column)
            parts.append(f"{column} {collated} = NEW.{column}")
        else:
            parts.append(f"({term.expression}) {collated} = (SELECT {term.expression} {new})")
    # Without its predicate a partial index would not be used, and every write read the table.
    return " AND ".join([*parts, *([f"({key.predicate})"] if key.predicate else [])])


# --- the text of an index ---------------------------------------------------------------------

_TOKEN = re.compile(
    r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\]|--[^\n]*|/\*.*?\*/|\w+|.""",
    re.DOTALL,
)
_DIRECTION = re.compile(r"\s+(?:ASC|DESC)\s*$", re.IGNORECASE)


def parse_index(statement: str) -> tuple[list[str], str]:
    """The terms of a CREATE INDEX statement, and its predicate; empty if it has none."""
    tokens = (token[0] for token in _TOKEN.finditer(statement))
    # A comment that goes to the end of its line would swallow what is put behind it.
    statement = "".join(" " if text.startswith(("--", "/*")) else text for text in tokens)
    terms: list[str] = []
    depth = begin = 0
    predicate = ""
    for token in _TOKEN.finditer(statement):
        text = token[0]
        if text == "(":
            depth += 1
            if depth == 1:
                begin = token.end()
        elif text == ")" or (text == "," and depth == 1):
            if depth == 1:
                terms.append(_DIRECTION.sub("", statement[begin : token.start()]).strip())
                begin = token.end()
            depth -= text == ")"
        elif depth == 0 and terms and text.upper() == "WHERE":
            predicate = statement[token.end() :].strip()
            break
    return terms, predicate
