"""The tables of a state in SQLite: how they are created, and whether those found are they.

Times are REAL, in seconds of the state's clock; nothing else is.
"""

from __future__ import annotations

from collections.abc import Collection
from uuid import uuid4

from undrift.states._meaning import FOREIGN, NEWER_LAYOUT, OLDER_LAYOUT
from undrift.states._sqlite_file import Connection

_STANDING = """\
CREATE TABLE undrift_state_standing (
    scope TEXT PRIMARY KEY NOT NULL,
    state_id TEXT NOT NULL,
    epoch INTEGER NOT NULL DEFAULT 0,
    config TEXT NOT NULL DEFAULT '',
    round INTEGER NOT NULL DEFAULT 0,
    round_at REAL NOT NULL DEFAULT 0,
    again_at REAL,
    refused_at REAL,
    scrub_after TEXT,
    scrub_is_second INTEGER NOT NULL DEFAULT 0,
    scrub_began_at REAL,
    scrub_holder TEXT NOT NULL DEFAULT '',
    scrub_until REAL NOT NULL DEFAULT 0
) WITHOUT ROWID"""
_CONFIG = """\
CREATE TABLE undrift_state_config (
    scope TEXT NOT NULL,
    config TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    PRIMARY KEY (scope, config)
) WITHOUT ROWID"""
# A row that is not known holds nothing but a lease.
_OWNER = """\
CREATE TABLE undrift_owner_state (
    scope TEXT NOT NULL,
    owner_id TEXT NOT NULL,
    is_known INTEGER NOT NULL DEFAULT 0,
    generation INTEGER NOT NULL DEFAULT 0,
    synced_generation INTEGER NOT NULL DEFAULT 0,
    observation INTEGER NOT NULL DEFAULT 0,
    floor INTEGER NOT NULL DEFAULT 0,
    round INTEGER NOT NULL DEFAULT 0,
    live INTEGER NOT NULL DEFAULT 0,
    priority INTEGER NOT NULL DEFAULT 0,
    dirty_since REAL,
    suspect_until REAL,
    lease_holder TEXT NOT NULL DEFAULT '',
    lease_until REAL NOT NULL DEFAULT 0,
    verified_at REAL,
    attempts INTEGER NOT NULL DEFAULT 0,
    next_attempt_at REAL NOT NULL DEFAULT 0,
    last_error TEXT NOT NULL DEFAULT '',
    last_error_at REAL,
    PRIMARY KEY (scope, owner_id)
) WITHOUT ROWID"""
_ENTITY = """\
CREATE TABLE undrift_entity_state (
    scope TEXT NOT NULL,
    owner_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    entity_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    fingerprint TEXT NOT NULL,
    model TEXT NOT NULL,
    deleted INTEGER NOT NULL,
    deleted_at REAL,
    published_version INTEGER NOT NULL DEFAULT 0,
    parked_reason TEXT NOT NULL DEFAULT '',
    parked_attempts INTEGER NOT NULL DEFAULT 0,
    parked_until REAL,
    PRIMARY KEY (scope, owner_id, kind, entity_id)
) WITHOUT ROWID"""
# Live entities of each kind, kept as they come and go: counting a million takes too long.
_KIND = """\
CREATE TABLE undrift_kind_state (
    scope TEXT NOT NULL,
    kind TEXT NOT NULL,
    live INTEGER NOT NULL,
    PRIMARY KEY (scope, kind)
) WITHOUT ROWID"""
_DELETE = """\
CREATE TABLE undrift_state_delete (
    scope TEXT NOT NULL,
    kind TEXT NOT NULL,
    minute_at REAL NOT NULL,
    records INTEGER NOT NULL,
    PRIMARY KEY (scope, kind, minute_at)
) WITHOUT ROWID"""
_WORKER = """\
CREATE TABLE undrift_state_worker (
    scope TEXT NOT NULL,
    worker_id TEXT NOT NULL,
    owners INTEGER NOT NULL,
    failures INTEGER NOT NULL,
    embedded INTEGER NOT NULL,
    written INTEGER NOT NULL,
    deleted INTEGER NOT NULL,
    started_at REAL NOT NULL,
    seen_at REAL NOT NULL,
    PRIMARY KEY (scope, worker_id)
) WITHOUT ROWID"""

# What raw content rendered to, and runs over the fleet: see `undrift.memory`.
_MEMO = """\
CREATE TABLE undrift_state_memo (
    scope TEXT NOT NULL,
    owner_id TEXT NOT NULL,
    key TEXT NOT NULL,
    raw BLOB NOT NULL,
    wanted BLOB NOT NULL,
    counts TEXT NOT NULL,
    PRIMARY KEY (scope, owner_id)
) WITHOUT ROWID"""
_RUN = """\
CREATE TABLE undrift_state_run (
    scope TEXT NOT NULL,
    name TEXT NOT NULL,
    run_id TEXT NOT NULL,
    position TEXT NOT NULL,
    results INTEGER NOT NULL DEFAULT 0,
    began_at REAL NOT NULL,
    PRIMARY KEY (scope, name)
) WITHOUT ROWID"""
# With a rowid: a result can be longer than what suits the pages of a tree of keys.
_RESULT = """\
CREATE TABLE undrift_state_result (
    scope TEXT NOT NULL,
    name TEXT NOT NULL,
    run_id TEXT NOT NULL,
    number INTEGER NOT NULL,
    result TEXT NOT NULL,
    PRIMARY KEY (scope, name, run_id, number)
)"""

# A million owners that are clean, and entities that are neither parked nor deleted, are in none of
# these but the second, whose beginning alone is read. A claim's lists read one each.
_INDEXES = (
    """\
CREATE INDEX undrift_owner_state_dirty ON undrift_owner_state (
    scope, priority DESC, dirty_since) WHERE dirty_since IS NOT NULL AND next_attempt_at <= 0""",
    """\
CREATE INDEX undrift_owner_state_round ON undrift_owner_state (scope, round)
WHERE is_known = 1 AND next_attempt_at <= 0""",
    """\
CREATE INDEX undrift_owner_state_failed ON undrift_owner_state (scope, next_attempt_at)
WHERE next_attempt_at > 0""",
    """\
CREATE INDEX undrift_owner_state_suspect ON undrift_owner_state (scope, suspect_until)
WHERE suspect_until IS NOT NULL""",
    """\
CREATE INDEX undrift_entity_state_parked ON undrift_entity_state (scope, parked_until)
WHERE parked_until IS NOT NULL""",
    """\
CREATE INDEX undrift_entity_state_deleted ON undrift_entity_state (scope, deleted_at, kind)
WHERE deleted = 1""",
)

VERSIONS: list[tuple[str, ...]] = [
    (
        "CREATE TABLE undrift_state_layout (version INTEGER NOT NULL)",
        "INSERT INTO undrift_state_layout VALUES (0)",
        *(_STANDING, _CONFIG, _OWNER, _ENTITY, _KIND, _DELETE, _WORKER),
        *_INDEXES,
    ),
    (_MEMO, _RUN, _RESULT),
]
"""What leads from each layout to the next: the first from nothing to version 1."""

_MEMORY_VERSION = 2

SET_VERSION = "UPDATE undrift_state_layout SET version = :version"

_MEMORY = {"undrift_state_memo", "undrift_state_run", "undrift_state_result"}
_OURS = (
    "undrift_state_layout",
    "undrift_state_standing",
    "undrift_state_config",
    "undrift_owner_state",
    "undrift_entity_state",
    "undrift_kind_state",
    "undrift_state_delete",
    "undrift_state_worker",
    *sorted(_MEMORY),
)
_FIND_TABLES = f"SELECT name FROM sqlite_master WHERE name IN {_OURS!r}"  # noqa: S608 - constants
_HAS_SCOPE = "SELECT 1 FROM undrift_state_standing WHERE scope = :scope"
_ADD_SCOPE = """
INSERT INTO undrift_state_standing (scope, state_id) VALUES (:scope, :state_id)
ON CONFLICT (scope) DO NOTHING"""


def found_version(connection: Connection, location: str) -> int:
    """The version of the layout that is there; 0 if there is none.

    Raises:
        ConfigError: it is of a newer undrift, or these are somebody else's tables.
    """
    found = {name for (name,) in connection.execute(_FIND_TABLES)}
    if not found:
        return 0
    missing = set(_OURS) - found
    _refuse_without(missing - _MEMORY, location)
    (version,) = connection.execute("SELECT max(version) FROM undrift_state_layout").fetchone()
    if not isinstance(version, int):
        raise FOREIGN.error(location, "undrift_state_layout names no version")
    if version > len(VERSIONS):
        raise NEWER_LAYOUT.error(
            location, f"its layout is version {version}, this undrift knows {len(VERSIONS)}"
        )
    if version >= _MEMORY_VERSION:
        _refuse_without(missing, location)
    return version


def _refuse_without(missing: Collection[str], location: str) -> None:
    """Let pass only where no table is *missing*."""
    if missing:
        names = ", ".join(sorted(missing))
        raise FOREIGN.error(location, f"of undrift's tables, {names} is missing")


def refuse_older(connection: Connection, location: str) -> None:
    """Let only the current layout pass; a newer one was refused before."""
    version = found_version(connection, location)
    if 0 < version < len(VERSIONS):
        raise OLDER_LAYOUT.error(
            location, f"its layout is version {version}, this undrift needs {len(VERSIONS)}"
        )


def has_scope(connection: Connection, scope: str) -> bool:
    """Whether the scope's state has been created."""
    return connection.execute(_HAS_SCOPE, {"scope": scope}).fetchone() is not None


def create(connection: Connection, location: str, scope: str) -> None:
    """Create or migrate what is missing, within a transaction that nobody else can be in."""
    version = found_version(connection, location)
    for statements in VERSIONS[version:]:
        for statement in statements:
            connection.execute(statement)
    if version < len(VERSIONS):
        connection.execute(SET_VERSION, {"version": len(VERSIONS)})
    connection.execute(_ADD_SCOPE, {"scope": scope, "state_id": str(uuid4())})


def ddl() -> list[str]:
    """The statements that create a state from nothing, for people."""
    statements = [statement for statements in VERSIONS for statement in statements]
    return [*statements, SET_VERSION.replace(":version", str(len(VERSIONS)))]
