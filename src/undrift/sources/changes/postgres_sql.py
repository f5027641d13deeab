"""The statements of change capture on PostgreSQL.

Triggers are of statement level with transition tables: a bulk write costs one insert of its
distinct owners, many in a row. Their functions belong to whoever installed them and run with
that role's rights, so that the application's role needs none on undrift's schema.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import NamedTuple

from undrift.sources.changes.tracked import TrackedOwner

SCHEMA = "undrift"
CHANNEL = "undrift_change"
CHANGES = "undrift.change"
FUNCTION_PREFIX = "mark_"
SCHEMA_COMMENT = "Made by undrift triggers install, which removes it again when it is empty"

# id: the order in which marks are taken; never a cursor, since a smaller one may commit later.
# owner_id: whom one statement touched; owner_ids: if they are several, at most OWNERS_A_MARK of
# them. Both NULL: everybody. Marks come and go, and the default waits for a fifth of the table.
CREATE_CHANGES = f"""CREATE TABLE IF NOT EXISTS {CHANGES} (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    owner_id text COLLATE "C",
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    owner_ids text[] COLLATE "C"
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000)"""
ADD_OWNER_IDS = f'ALTER TABLE {CHANGES} ADD COLUMN IF NOT EXISTS owner_ids text[] COLLATE "C"'
CREATE_SCHEMA = f'CREATE SCHEMA "{SCHEMA}"'
COMMENT_SCHEMA = f"COMMENT ON SCHEMA \"{SCHEMA}\" IS '{SCHEMA_COMMENT}'"
MARK_EVERYBODY = "INSERT INTO undrift.change (owner_id) VALUES (NULL)"
DROP_CHANGES = f"DROP TABLE IF EXISTS {CHANGES}"
DROP_SCHEMA = f'DROP SCHEMA "{SCHEMA}"'

# What a value prints as must not depend on the session that writes it. pg_temp stands last, or a
# session could put a table of its own in front of the catalogue's.
SETTINGS = (
    ("search_path", "pg_catalog, pg_temp"),
    ("TimeZone", "UTC"),
    ("DateStyle", "ISO, YMD"),
    ("IntervalStyle", "postgres"),
    ("extra_float_digits", "1"),
    ("bytea_output", "hex"),
    # A bulk update is joined with itself, documents included; with the default of 4 MB on disk.
    ("work_mem", "64MB"),
    # Hashed by key, as every column of it can be: the planner would sort both sides, documents and
    # all.
    ("enable_mergejoin", "off"),
)

# A row each, with its index entry, would cost a bulk writer more than all the rest of the trigger;
# and of more UUIDs the row would be stored out of line.
OWNERS_A_MARK = 40

EVENTS = ("insert", "update", "delete", "truncate")
_TRANSITIONS = {
    "insert": " REFERENCING NEW TABLE AS undrift_new",
    "update": " REFERENCING OLD TABLE AS undrift_old NEW TABLE AS undrift_new",
    "delete": " REFERENCING OLD TABLE AS undrift_old",
    "truncate": "",
}
_NAME_BYTES = 38
_INDENT = " " * 16


class KeyColumn(NamedTuple):
    """A column of the primary key.

    Attributes:
        is_hashed: its type's equality is found whatever the search_path, and can be hashed.
    """

    name: str
    is_hashed: bool


class Watch(NamedTuple):
    """What one table's functions are made of.

    Attributes:
        compared: columns of which a change matters; None means any.
        key: the primary key, by which a row is found again; empty if it has none to rely on.
    """

    schema: str
    table: str
    owners: tuple[TrackedOwner, ...]
    compared: tuple[str, ...] | None
    key: tuple[KeyColumn, ...]
    is_notifying: bool


class Function(NamedTuple):
    """A trigger function as it is to be."""

    name: str
    body: str

    def create(self) -> list[str]:
        """The statements that create or replace it."""
        settings = "\n".join(f"SET {name} = {_setting(value)}" for name, value in SETTINGS)
        called = f"{quoted(SCHEMA)}.{quoted(self.name)}()"
        head = f"CREATE OR REPLACE FUNCTION {called} RETURNS trigger\nLANGUAGE plpgsql"
        return [
            f"{head} SECURITY DEFINER\n{settings}\nAS $undrift${self.body}$undrift$",
            f"REVOKE ALL ON FUNCTION {called} FROM PUBLIC",
        ]


def quoted(name: str) -> str:
    """*name* as an identifier."""
    return '"' + name.replace('"', '""') + '"'


def trigger_name(event: str) -> str:
    """What the trigger is called on every table."""
    return f"undrift_{event}"


def create_trigger(schema: str, table: str, event: str, function: str) -> str:
    """The statement that puts a trigger on a table or partition, or replaces it, switched on."""
    return (
        f"CREATE OR REPLACE TRIGGER {quoted(trigger_name(event))} AFTER {event.upper()} "
        f"ON {quoted(schema)}.{quoted(table)}{_TRANSITIONS[event]}\n"
        f"FOR EACH STATEMENT EXECUTE FUNCTION {quoted(SCHEMA)}.{quoted(function)}()"
    )


def drop_function(name: str) -> str:
    """The statement that drops a function and the triggers that call it.

    Of a trigger on its own only the table's owner could rid the table.
    """
    return f"DROP FUNCTION IF EXISTS {quoted(SCHEMA)}.{quoted(name)}() CASCADE"


def grants(role: str) -> list[str]:
    """What a worker's role needs to take marks; locking a mark takes the right to update it."""
    return [
        f"GRANT USAGE ON SCHEMA {quoted(SCHEMA)} TO {quoted(role)}",
        f"GRANT SELECT, UPDATE, DELETE ON {CHANGES} TO {quoted(role)}",
    ]


def functions(watch: Watch) -> dict[str, Function]:
    """The functions of a table, by event."""
    return {event: Function(_function_name(watch, event), _body(watch, event)) for event in EVENTS}


def _setting(value: str) -> str:
    # search_path is a list of names; in quotes it would be one name.
    return value if value.startswith("pg_catalog") else f"'{value}'"


def _function_name(watch: Watch, event: str) -> str:
    place = f"{len(watch.schema)}:{watch.schema}{watch.table}".encode()
    digest = blake2b(place, digest_size=4).hexdigest()
    readable = watch.table.encode()[:_NAME_BYTES].decode(errors="ignore")
    return f"{FUNCTION_PREFIX}{readable}_{digest}_{event}"


def _body(watch: Watch, event: str) -> str:
    if event == "truncate":
        return f"\nBEGIN\n    {MARK_EVERYBODY};{_notify(watch)}\n    RETURN NULL;\nEND\n"
    if event == "update":
        changed = _changed_by_key(watch) if watch.key else _changed_by_content(watch)
        probed = "undrift_old"
    else:
        probed = "undrift_new" if event == "insert" else "undrift_old"
        changed = f"FROM {probed} AS r\n{_INDENT}CROSS JOIN LATERAL {_owners(watch)}"
    return f"""
BEGIN
    BEGIN
        PERFORM {_probe(watch, event)} FROM {probed} LIMIT 0;
    EXCEPTION WHEN undefined_column THEN
        -- A column has another name, or is gone: the application's write goes on all the same.
        {MARK_EVERYBODY};
        RETURN NULL;
    END;
    INSERT INTO {CHANGES} (owner_id, owner_ids)
    SELECT CASE WHEN count(*) = 1 THEN min(owner) END,
           CASE WHEN count(*) > 1 THEN array_agg(owner) END
    FROM (SELECT owner, (row_number() OVER () - 1) / {OWNERS_A_MARK} AS mark
          FROM (SELECT DISTINCT m.owner
                {changed}
                WHERE m.owner IS NOT NULL) AS touched) AS numbered
    GROUP BY mark;{_notify(watch)}
    RETURN NULL;
END
"""  # noqa: S608


def _notify(watch: Watch) -> str:
    if not watch.is_notifying:
        return ""
    return f"\n    IF FOUND THEN\n        PERFORM pg_notify('{CHANNEL}', '');\n    END IF;"


def _probe(watch: Watch, event: str) -> str:
    names = [owner.name for owner in watch.owners]
    if event == "update":
        names += [*(watch.compared or ()), *(column.name for column in watch.key)]
    return ", ".join(map(quoted, dict.fromkeys(names)))


def _owners(watch: Watch) -> str:
    """A set ``m(owner)`` of the owners of the row ``r``, as the source prints them."""
    values = [f"({_printed('r', owner)})" for owner in watch.owners]
    return f"(VALUES {', '.join(values)}) AS m(owner)"


def _printed(row: str, owner: TrackedOwner) -> str:
    """An owner's text, byte for byte: no collation may find two spellings equal."""
    column = f"{row}.{quoted(owner.name)}"
    text = f"{column}::text"
    if owner.is_padded:
        text = f"CASE WHEN {column} IS NOT NULL THEN format('%s', {column}) END"
    return f'({text}) COLLATE "C"'


def _row(watch: Watch, row: str) -> str:
    if watch.compared is None:
        return f"{row}.*"
    return f"ROW({', '.join(f'{row}.{quoted(name)}' for name in watch.compared)})"


def _changed_by_key(watch: Watch) -> str:
    """Rows found again by their key and compared as they are stored: 1 and 1.0 print differently.

    A row whose key changed is found on neither side, and marks both.
    """
    joined = " AND ".join(
        f"o.{quoted(c.name)} = n.{quoted(c.name)}"
        if c.is_hashed
        else f'o.{quoted(c.name)}::text COLLATE "C" = n.{quoted(c.name)}::text COLLATE "C"'
        for c in watch.key
    )
    owners = ", ".join(_printed(row, owner) for row in ("o", "n") for owner in watch.owners)
    # OFFSET keeps the comparison, which may unpack two documents, from being done for each owner.
    is_equal = f"record_image_eq({_row(watch, 'o')}, {_row(watch, 'n')})"
    return f"""FROM (SELECT ARRAY[{owners}] AS owners
{_INDENT}      FROM undrift_old AS o FULL JOIN undrift_new AS n ON {joined}
{_INDENT}      WHERE {is_equal} IS NOT TRUE
{_INDENT}      OFFSET 0) AS c
{_INDENT}CROSS JOIN LATERAL unnest(c.owners) AS m(owner)"""  # noqa: S608


def _changed_by_content(watch: Watch) -> str:
    """Rows that one side has more of than the other, by all that is compared, printed."""

    def side(table: str) -> str:
        owners = ", ".join(_printed("r", owner) for owner in watch.owners)
        content = f'({_row(watch, "r")})::text COLLATE "C"'
        return f"SELECT ARRAY[{owners}] AS owners, {content} AS content FROM {table} AS r"  # noqa: S608

    old, new = side("undrift_old"), side("undrift_new")
    return (
        f"FROM (({old} EXCEPT ALL {new})\n"
        f"{_INDENT}      UNION ALL ({new} EXCEPT ALL {old})) AS c\n"
        f"{_INDENT}CROSS JOIN LATERAL unnest(c.owners) AS m(owner)"
    )
