"""`Triggers` of a PostgreSQL source."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from undrift.changes import LOCK_SECONDS, ChangeStatus
from undrift.errors import ConfigError
from undrift.sources.changes import postgres_sql as sql
from undrift.sources.changes.failures import mapped_change_failures
from undrift.sources.changes.postgres_catalog import (
    Catalogue,
    FoundFunction,
    Relation,
    read_catalogue,
    read_key,
    read_relations,
    refusal,
    unseen_by_parents,
)
from undrift.sources.changes.tracked import (
    TrackedTable,
    nothing_to_watch,
    refusal_of_conditions,
    unseen_by_conditions,
)
from undrift.sources.database import Database, postgres_engine

_log = logging.getLogger(__name__)

_UNSEEN = (
    "sessions that set session_replication_role to replica",
    "what logical replication writes here",
)
_INSTALL_RIGHTS = (
    "let the tables' owner run GRANT TRIGGER on the mapped tables and their partitions, and let "
    "an administrator run CREATE SCHEMA undrift AUTHORIZATION for this role; or let somebody who "
    "may run the statements of `undrift triggers install --sql`"
)
_REMOVE_RIGHTS = (
    "run it as the role that installed them, or let an administrator run the statements of "
    "`undrift triggers remove --sql`"
)
LOOK_RIGHTS = (
    'let the role that installed them run: GRANT USAGE ON SCHEMA "undrift" and GRANT SELECT ON '
    '"undrift"."change" to this role'
)
_MARKS = """
SELECT coalesce(sum({size}), 0) AS marks,
       extract(epoch FROM clock_timestamp() - min(at)) AS oldest_seconds
FROM undrift.change"""
_SIZE = "greatest(1, cardinality(owner_ids))"
_IS_EMPTY = sa.text("""
SELECT NOT EXISTS (
    SELECT FROM pg_depend WHERE refclassid = CAST('pg_namespace' AS regclass)
    AND refobjid = CAST(to_regnamespace(:schema) AS oid)
)""")
_LIMIT_WAITING = sa.text("SELECT set_config('lock_timeout', :milliseconds, true)")


class _Plan(NamedTuple):
    """What one mapped table needs."""

    table: TrackedTable
    relations: Sequence[Relation]
    functions: dict[str, sql.Function]


class _Look(NamedTuple):
    """What is there, and what should be."""

    catalogue: Catalogue
    plans: Sequence[_Plan]
    refused: tuple[str, ...]
    is_notifying: bool

    @property
    def is_installed(self) -> bool:
        """Anything of it is there."""
        return self.catalogue.server.has_changes or bool(self.catalogue.functions)

    @property
    def left_over(self) -> list[str]:
        """Functions that no mapped table needs."""
        wanted = {function.name for plan in self.plans for function in plan.functions.values()}
        return sorted(self.catalogue.functions.keys() - wanted)


class PostgresTriggers:
    """Triggers in a PostgreSQL database, looked up in its catalogue at every call.

    Args:
        tracked: asks for the mapped tables.
    """

    def __init__(self, database: Database, tracked: Callable[[], Sequence[TrackedTable]]) -> None:
        self._database = database
        self._tracked = tracked
        self._engine: Engine | None = None
        self._opening = Lock()

    # --- looking ------------------------------------------------------------------------------

    def status(self) -> ChangeStatus:
        """Say what there is; changes nothing."""
        with self._database.snapshot() as connection:
            look = self._look(connection, notify=None)
            marks, oldest_seconds = 0, None
            if look.catalogue.server.has_changes:
                with mapped_change_failures(self._database.location, rights=LOOK_RIGHTS):
                    size = _SIZE if look.catalogue.server.has_owner_ids else "1"
                    row = connection.execute(sa.text(_MARKS.format(size=size))).one()
                marks = int(row.marks)
                oldest_seconds = None if row.marks == 0 else max(0.0, float(row.oldest_seconds))
        problems = [problem for plan in look.plans for problem in _problems(plan, look.catalogue)]
        if look.is_installed and not look.catalogue.server.has_changes:
            problems.append(f"the table {sql.SCHEMA}.change is missing")
        elif look.is_installed and not look.catalogue.server.has_owner_ids:
            problems.append(f"the table {sql.SCHEMA}.change is of an earlier undrift")
        if look.is_installed and look.left_over:
            problems.append(f"left over: {', '.join(look.left_over)}")
        unseen = [
            line
            for plan in look.plans
            for line in (
                *unseen_by_parents(plan.table, plan.relations),
                *unseen_by_conditions(plan.table),
            )
        ]
        return ChangeStatus(
            location=self._database.location,
            tables=tuple(plan.table.name for plan in look.plans),
            refused=look.refused,
            is_installed=look.is_installed,
            problems=tuple(problems if look.is_installed else ()),
            unseen=(*unseen, *(_UNSEEN if look.plans else ())),
            is_notified=look.is_notifying,
            marks=marks,
            oldest_seconds=oldest_seconds,
        )

    def ddl(self, *, notify: bool = False) -> Sequence[str]:
        """What `install` runs where nothing is installed or all is old, and the rights to drain."""
        with self._database.snapshot() as connection:
            look = self._look(connection, notify=notify)
        self._require_plans(look)
        statements = [f"CREATE SCHEMA IF NOT EXISTS {sql.quoted(sql.SCHEMA)}", sql.CREATE_CHANGES]
        if look.catalogue.server.has_changes and not look.catalogue.server.has_owner_ids:
            statements.append(sql.ADD_OWNER_IDS)
        for plan in look.plans:
            statements += _statements(plan)
        # Whatever was written until now was seen by nobody.
        return [*statements, sql.MARK_EVERYBODY, *sql.grants(look.catalogue.server.role)]

    def removal_ddl(self) -> Sequence[str]:
        """What `remove` runs; none where nothing is installed."""
        with self._database.snapshot() as connection:
            catalogue = read_catalogue(connection)
        dropped = [sql.drop_function(name) for name in catalogue.functions]
        return [*dropped, *([sql.DROP_CHANGES] if catalogue.server.has_changes else [])]

    # --- changing -----------------------------------------------------------------------------

    def install(
        self, *, notify: bool = False, lock_timeout_seconds: float = LOCK_SECONDS
    ) -> ChangeStatus:
        """Put in what is missing, renew what is outdated, take out what no mapped table needs."""
        with self._database.snapshot() as connection:
            look = self._look(connection, notify=notify)
        self._require_primary(look.catalogue)
        self._require_plans(look)
        with self._changing(sql.SCHEMA, _INSTALL_RIGHTS, lock_timeout_seconds) as connection:
            if not look.catalogue.server.has_schema:
                # IF NOT EXISTS would ask for the right to create one even where it is there.
                _run(connection, [sql.CREATE_SCHEMA, sql.COMMENT_SCHEMA])
            _run(connection, [sql.CREATE_CHANGES])
            if look.catalogue.server.has_changes and not look.catalogue.server.has_owner_ids:
                _run(connection, [sql.ADD_OWNER_IDS])
        amiss = [plan for plan in look.plans if _problems(plan, look.catalogue)]
        for plan in amiss:
            with self._changing(
                plan.table.name, _INSTALL_RIGHTS, lock_timeout_seconds
            ) as connection:
                # All triggers of the table, not only the missing one: putting a trigger in waits
                # for transactions that still run the old function.
                _run(connection, _statements(plan))
        self._drop(look.left_over, lock_timeout_seconds)
        if amiss:
            with self._changing(sql.SCHEMA, _INSTALL_RIGHTS, lock_timeout_seconds) as connection:
                _run(connection, [sql.MARK_EVERYBODY])
        return self.status()

    def remove(self, *, lock_timeout_seconds: float = LOCK_SECONDS) -> None:
        """Take everything out again, marks included, and the schema if it was made for them."""
        with self._database.snapshot() as connection:
            catalogue = read_catalogue(connection)
        self._require_primary(catalogue)
        self._drop(list(catalogue.functions), lock_timeout_seconds)
        with self._changing(sql.SCHEMA, _REMOVE_RIGHTS, lock_timeout_seconds) as connection:
            if catalogue.server.has_changes:
                _run(connection, [sql.DROP_CHANGES])
            is_ours = catalogue.server.comment == sql.SCHEMA_COMMENT
            if is_ours and connection.scalar(_IS_EMPTY, {"schema": sql.quoted(sql.SCHEMA)}):
                _run(connection, [sql.DROP_SCHEMA])

    def close(self) -> None:
        """Give back every connection. Safe to call twice."""
        with self._opening:
            engine, self._engine = self._engine, None
        if engine is not None:
            engine.dispose()

    # --- how ----------------------------------------------------------------------------------

    def _look(self, connection: Connection, *, notify: bool | None) -> _Look:
        """Read the catalogue. *notify* is None for as it is."""
        catalogue = read_catalogue(connection)
        if notify is None:
            notify = any("pg_notify" in f.body for f in catalogue.functions.values())
        plans, refused = [], []
        for table in self._tracked():
            relations = read_relations(connection, table)
            why_not = refusal_of_conditions(table) or refusal(table, relations)
            if why_not is not None:
                refused.append(why_not)
                continue
            watch = sql.Watch(
                relations[0].schema,
                relations[0].name,
                table.owners,
                table.compared,
                read_key(connection, relations[0]),
                notify,
            )
            plans.append(_Plan(table, relations, sql.functions(watch)))
        return _Look(catalogue, plans, tuple(refused), notify)

    def _drop(self, functions: Sequence[str], lock_timeout_seconds: float) -> None:
        for name in functions:
            # One by one: together they would keep every table locked until the last is free.
            with self._changing(name, _REMOVE_RIGHTS, lock_timeout_seconds) as connection:
                _run(connection, [sql.drop_function(name)])

    @contextmanager
    def _changing(self, what: str, rights: str, lock_seconds: float) -> Iterator[Connection]:
        """A transaction that waits for locks only so long."""
        milliseconds = f"{max(1, round(lock_seconds * 1000))}"
        with (
            mapped_change_failures(
                self._database.location, table=what, rights=rights, lock_seconds=lock_seconds
            ),
            self._opened().begin() as connection,
        ):
            connection.execute(_LIMIT_WAITING, {"milliseconds": milliseconds})
            yield connection

    def _opened(self) -> Engine:
        with self._opening:
            if self._engine is None:
                self._engine = postgres_engine(self._database.url, may_write=True)
            return self._engine

    def _require_plans(self, look: _Look) -> None:
        if not look.plans:
            raise nothing_to_watch(self._database.location, look.refused)

    def _require_primary(self, catalogue: Catalogue) -> None:
        if catalogue.server.is_standby:
            raise ConfigError(
                "The source is a standby",
                why=f"{self._database.location} takes no triggers; they come from its primary.",
                fix="point DATABASE_URL at the primary, and run the same command again",
            )


def _statements(plan: _Plan) -> list[str]:
    """Everything that one mapped table gets, partitions included."""
    statements: list[str] = []
    for function in plan.functions.values():
        statements += function.create()
    for relation in plan.relations:
        for event, function in plan.functions.items():
            statements.append(
                sql.create_trigger(relation.schema, relation.name, event, function.name)
            )
    return statements


def _run(connection: Connection, statements: Sequence[str]) -> None:
    for statement in statements:
        # Straight to the driver: a colon or a percent sign in a name is only a character.
        connection.exec_driver_sql(statement.replace("%", "%%"))
        _log.info("ran: %s", statement, extra={"action": "triggers.change"})


def _problems(plan: _Plan, catalogue: Catalogue) -> list[str]:
    """What is missing, switched off or outdated at one mapped table, a sentence each."""
    problems: list[str] = []
    for relation in plan.relations:
        found = {
            event: catalogue.triggers.get((relation.oid, sql.trigger_name(event)))
            for event in plan.functions
        }
        wanted = {event: function.name for event, function in plan.functions.items()}
        missing = [e for e, t in found.items() if t is None or t.function != wanted[e]]
        disabled = [e for e, t in found.items() if t is not None and not t.is_on]
        if missing:
            problems.append(f"{relation.title} has no trigger for {', '.join(missing)}")
        if disabled:
            problems.append(f"{relation.title}: triggers for {', '.join(disabled)} are disabled")
    outdated = [
        event
        for event, function in plan.functions.items()
        if function.name in catalogue.functions
        and not _is_current(catalogue.functions[function.name], function)
    ]
    if outdated:
        problems.append(
            f"{plan.relations[0].title}: the functions for {', '.join(outdated)} are outdated, as "
            "the mapping, the table or undrift has changed since"
        )
    return problems


def _is_current(found: FoundFunction, wanted: sql.Function) -> bool:
    if not found.is_definer or found.body != wanted.body:
        return False
    settings = {tuple(setting.split("=", 1)) for setting in found.settings}
    return settings == set(sql.SETTINGS)
