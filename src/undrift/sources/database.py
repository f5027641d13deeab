"""One relational database: addresses, snapshots, owner columns and errors.

Everything the two layouts share. A `Database` cannot write: its PostgreSQL transactions are READ
ONLY, its SQLite connections ``query_only``. Only ``postgres_engine(may_write=True)``, which edits a
document for the assistant's tools, opens other ones.
"""

from __future__ import annotations

import os
import sqlite3
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple, Protocol, runtime_checkable
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine, make_url

from undrift.errors import ConfigError, SourceUnavailable, UndriftError
from undrift.mapping import DocumentTable
from undrift.sources.failures import mapped_failures
from undrift.sources.forks import own_after_fork
from undrift.sources.owners import DynamicOwnerColumn, OwnerColumn

CONNECT_TIMEOUT_SECONDS = 10
_PASSWORD_PARAMETERS = ("password", "sslpassword")

# Hidden rows become an error, and a time prints alike whoever runs undrift, and where.
_AS_WE_READ = sa.text(
    "SELECT set_config('row_security', 'off', true), set_config('timezone', 'UTC', true),"
    " set_config('datestyle', 'ISO, YMD', true), set_config('intervalstyle', 'postgres', true)"
)
STREAM_ROWS = 500

# The right to the function is checked before the statement begins, so it is one of its own.
_ORIGIN = sa.text(
    "SELECT pg_is_in_recovery(), current_database(), coalesce(has_function_privilege("
    "to_regprocedure('pg_catalog.pg_control_system()'), 'EXECUTE'), false)"
)
_SYSTEM_IDENTIFIER = sa.text("SELECT system_identifier FROM pg_catalog.pg_control_system()")


class Origin(NamedTuple):
    """See `SourceInfo`."""

    is_standby: bool
    identity: str


PageBehind = Callable[[object], sa.Select[Any]]


@runtime_checkable
class Closable(Protocol):
    """A driver's cursor, as far as it matters here."""

    def close(self) -> None:
        """Close it; may fail."""


class Database:
    """A lazily connected, read-only database.

    Args:
        url: as people write it; ``postgres://`` and ``postgresql://`` both mean psycopg 3.

    Raises:
        ConfigError: the URL is malformed or names a database undrift does not read.

    Safety:
        May be used from several threads.
    """

    def __init__(self, url: str) -> None:
        self.url = _parse(url)
        self.is_postgres = self.url.get_backend_name() == "postgresql"
        self._engine: Engine | None = None
        self._opening = Lock()

    @property
    def location(self) -> str:
        """The address, with the password hidden."""
        url = self.url.set(drivername=self.url.get_backend_name())
        hidden = {name: "***" for name in _PASSWORD_PARAMETERS if name in url.query}
        return url.update_query_dict(hidden).render_as_string(hide_password=True)

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """One read-only transaction in which every statement sees the same state.

        On PostgreSQL row level security is switched off for it, which makes the server refuse a
        read that a policy would silently shorten.

        Raises:
            ConfigError: the address, the password or a name is wrong.
            SourceUnavailable: the server cannot be reached or broke off.
            IncompleteRead: a policy hides rows from this role.
        """
        with mapped_failures(self.location), self._connect() as connection:
            if self.is_postgres:
                connection.execute(_AS_WE_READ)
            yield connection

    def origin(self) -> Origin:
        """Which database this is, and whether it is the primary.

        A PostgreSQL is told by the identifier that `initdb` gave its cluster, which standbys share,
        and so does a copy of the whole cluster; a file by its name, as folders may be moved.
        """
        if not self.is_postgres:
            name = os.path.basename(os.path.realpath(self.url.database or ""))
            return Origin(is_standby=False, identity=name)
        with self.snapshot() as connection:
            is_standby, database, may_ask = connection.execute(_ORIGIN).one()
            if not may_ask:
                return Origin(is_standby=is_standby, identity="")
            identifier = connection.scalar(_SYSTEM_IDENTIFIER)
            return Origin(is_standby=is_standby, identity=f"{identifier}/{database}")

    def table(self, name: str, owner: str, columns: Sequence[str], *, setting: str) -> sa.Table:
        """The table *name* as the database describes it.

        Args:
            name: ``table`` or ``schema.table``; a view serves too.
            owner: its owner column.
            columns: other columns that must exist.
            setting: which setting names it, for the error.

        Raises:
            ConfigError: there is no such table or column.
        """
        schema, _, table_name = name.rpartition(".")
        with self.snapshot() as connection:
            inspector = sa.inspect(connection)
            try:
                with warnings.catch_warnings():
                    # Columns of types SQLAlchemy does not know, such as vectors, are not ours.
                    warnings.simplefilter("ignore", sa.exc.SAWarning)
                    found = inspector.get_columns(table_name, schema=schema or None)
            except sa.exc.NoSuchTableError:
                found = []
            if not found:
                raise self._no_such_table(inspector, schema or None, name, setting)
        table = sa.Table(
            table_name,
            sa.MetaData(),
            *(sa.Column(column["name"], column["type"]) for column in found),
            schema=schema or None,
        )
        for column in (owner, *columns):
            if column not in table.c:
                raise no_such_column(name, column, list(table.c.keys()), setting)
        return table

    def document_table(self, layout: DocumentTable) -> tuple[sa.Table, OwnerColumn]:
        """The table of *layout*, and how its owners are spelled.

        Raises:
            ConfigError: there is no such table or column.
        """
        table = self.table(
            layout.table,
            layout.owner,
            [layout.document],
            setting="[source.documents] table, owner and document",
        )
        return table, self.owner_column(table.c[layout.owner])

    def owner_column(self, column: sa.Column[Any]) -> OwnerColumn:
        """How owners are spelled in *column*."""
        return OwnerColumn(column) if self.is_postgres else DynamicOwnerColumn(column)

    def stream(self, connection: Connection, statement: sa.Select[Any]) -> Iterator[sa.Row[Any]]:
        """The rows of *statement* through a server-side cursor, in constant memory."""
        options = {"stream_results": True, "max_row_buffer": STREAM_ROWS}
        with connection.execute(statement, execution_options=options) as result:
            cursor = result.cursor
            try:
                for rows in result.partitions(STREAM_ROWS):
                    yield from rows
            finally:
                # A reader that leaves when the connection has just broken: see _close_cursor.
                _close_at_last(cursor)

    def pages(
        self, owner: OwnerColumn, page_behind: PageBehind, after: str | None
    ) -> Iterator[Sequence[str]]:
        """Owners page by page, each page in a transaction of its own.

        Args:
            page_behind: the query of a page, given the last value of the page before.
            after: the owner behind whom to begin; None for the first.
        """
        behind: object = None
        if after is not None:
            behind = next(iter(owner.values(after)), after)
        seen: set[str] = set()
        while True:
            with self.snapshot() as connection:
                page = connection.scalars(page_behind(behind)).all()
            if not page:
                return
            if any(isinstance(value, bytes) for value in page):
                raise _bytes_for_owners(self.location)
            printed = [str(value) for value in page]
            if owner.may_print_alike:
                printed = [name for name in dict.fromkeys(printed) if name not in seen]
                seen.update(printed)
            if printed:
                yield printed
            behind = page[-1]

    def close(self) -> None:
        """Close every pooled connection."""
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    def _connect(self) -> Connection:
        with self._opening:
            if self._engine is None:
                self._engine = postgres_engine(self.url) if self.is_postgres else _sqlite(self.url)
            engine = self._engine
        return engine.connect()

    def _no_such_table(
        self, inspector: sa.Inspector, schema: str | None, name: str, setting: str
    ) -> UndriftError:
        known = [
            *inspector.get_table_names(schema=schema),
            *inspector.get_view_names(schema=schema),
        ]
        nearest = get_close_matches(name.rpartition(".")[2], known, n=1)
        listed = ", ".join(sorted(known)[:10]) or "none"
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        return ConfigError(
            f"No table {name!r}",
            why=f"{self.location} has no such table or view that this role may see "
            f"(there are: {listed}{hint}).",
            fix=f"set {setting} in undrift.toml, or point DATABASE_URL at the right database",
        )


def _bytes_for_owners(location: str) -> ConfigError:
    return ConfigError(
        "An owner is a sequence of bytes",
        why=f"the owner column of {location} holds a BLOB, which has no spelling.",
        fix="use a column of text or numbers, such as a view with hex(user_id), or leave those "
        "rows out by a where condition",
    )


def no_such_column(table: str, column: str, known: list[str], setting: str) -> ConfigError:
    """*column* is configured, and *table* has no such thing."""
    nearest = get_close_matches(column, known, n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    return ConfigError(
        f"No column {column!r} in table {table!r}",
        why=f"its columns are {', '.join(sorted(known))}{hint}.",
        fix=f"set {setting} in undrift.toml",
    )


def condition(where: str) -> list[sa.ColumnElement[bool]]:
    """A person's SQL condition, exactly as written; none if it is empty."""
    return [sa.literal_column(f"({where})", sa.Boolean)] if where else []


# --- addresses --------------------------------------------------------------------------------


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url.strip())
        parsed.port  # noqa: B018  a malformed port fails here
    except (sa.exc.ArgumentError, ValueError) as exc:
        raise _malformed() from exc
    backend = {"postgres": "postgresql"}.get(parsed.get_backend_name(), parsed.get_backend_name())
    if backend == "sqlite":
        return _sqlite_file(parsed)
    if backend == "postgresql":
        if "@" in f"{parsed.host or ''}{parsed.database or ''}":
            raise _malformed()  # a password with a bare @ or / was cut in two, and may be shown
        if find_spec("psycopg") is None:
            raise ConfigError(
                "The PostgreSQL driver is not installed",
                why="DATABASE_URL names a PostgreSQL server, and psycopg cannot be imported.",
                fix="pip install 'undrift[postgres]'",
            )
        return parsed.set(drivername="postgresql+psycopg")
    raise ConfigError(
        f"undrift does not read {backend} databases",
        why=f"DATABASE_URL begins with {parsed.drivername}://.",
        fix="use postgresql:// or sqlite:///",
    )


def _malformed() -> ConfigError:
    return ConfigError(
        "DATABASE_URL is malformed",
        why="it cannot be read as a database address (it is not shown, as it may hold a password).",
        fix="write it like postgresql://user:password@host:5432/database or sqlite:///app.db; in a "
        "user name or password write @ as %40, / as %2F, : as %3A, ? as %3F, # as %23 and % as %25",
    )


def _sqlite_file(url: URL) -> URL:
    if not url.database or url.database == ":memory:":
        raise ConfigError(
            "DATABASE_URL names no file",
            why="an in-memory SQLite database is empty for every process that opens it.",
            fix="write it like sqlite:///app.db (relative) or sqlite:////srv/app.db (absolute)",
        )
    return url.set(drivername="sqlite")


def postgres_engine(url: URL, *, may_write: bool = False) -> Engine:
    """A pool of connections, each call a transaction of its own.

    Args:
        may_write: READ COMMITTED transactions that may write, in place of one read-only snapshot.
    """
    arguments: dict[str, object] = {"prepare_threshold": None}  # poolers in transaction mode
    if "connect_timeout" not in url.query:
        arguments["connect_timeout"] = CONNECT_TIMEOUT_SECONDS
    if "application_name" not in url.query:
        arguments["application_name"] = "undrift"
    reading = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    writing = {"isolation_level": "READ COMMITTED"}
    engine = sa.create_engine(
        url,
        connect_args=arguments,
        pool_pre_ping=True,
        hide_parameters=True,  # an edited profile is one, and a log or an error would quote it
        execution_options=writing if may_write else reading,
    )

    # A server-side cursor whose connection breaks stays open on its first attempt to close, and
    # complains when it is collected. The attempt after this one finds the connection closed.
    @sa.event.listens_for(engine, "handle_error")
    def _close_cursor(context: sa.engine.ExceptionContext) -> None:
        _close_at_last(getattr(context.execution_context, "cursor", None))

    return own_after_fork(engine)


def _close_at_last(cursor: object) -> None:
    """Close a driver's *cursor*, whose first attempt may fail on a broken connection."""
    if not isinstance(cursor, Closable):
        return
    for _ in range(2):
        with suppress(Exception):
            cursor.close()


def _sqlite(url: URL) -> Engine:
    path = Path(url.database or "")
    if not path.is_file():
        raise ConfigError(
            "The source database does not exist",
            why=f"there is no file {path}.",
            fix="correct DATABASE_URL; undrift never creates a source",
        )
    engine = sa.create_engine(
        "sqlite://", creator=_opener(path), poolclass=sa.QueuePool, hide_parameters=True
    )

    # A path may come to mean another file, as after a restore; what was opened before shows the old
    # one for as long as it is open.
    @sa.event.listens_for(engine, "connect")
    def _remember(dbapi: object, record: sa.pool.ConnectionPoolEntry) -> None:
        record.info["file"] = _file_id(path)

    @sa.event.listens_for(engine, "checkout")
    def _compare(dbapi: object, record: sa.pool.ConnectionPoolEntry, proxy: object) -> None:
        if record.info.get("file") != _file_id(path):
            raise sa.exc.DisconnectionError

    # sqlite3 opens no transaction for reads by itself; without BEGIN every statement would see a
    # state of its own.
    @sa.event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    return own_after_fork(engine)


def _file_id(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _opener(path: Path) -> Callable[[], sqlite3.Connection]:
    def connect() -> sqlite3.Connection:
        mode = "rw" if _is_ours_to_write(path) else "ro"
        if mode == "ro" and _is_resting_wal(path):
            raise ConfigError(
                "The source cannot be read without leaving files beside it",
                why=f"{path} is in WAL mode and nobody has it open; reading it with no right to "
                "write it would leave lock files there that its owner could not write.",
                fix="read it as the file's owner, or while the application has it open",
            )
        try:
            connection = sqlite3.connect(
                f"file:{quote(str(path.absolute()))}?mode={mode}",
                uri=True,
                isolation_level=None,
                check_same_thread=False,
                timeout=30.0,
            )
        except sqlite3.Error as exc:
            raise SourceUnavailable(
                "The source database cannot be opened",
                why=f"{path}: {exc}.",
                fix="check the file's permissions",
            ) from exc
        connection.execute("PRAGMA query_only = ON")
        # Bytes that are not UTF-8 reach the one owner they belong to, instead of ending the page.
        connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
        return connection

    return connect


def _is_ours_to_write(path: Path) -> bool:
    """Whether SQLite may tidy up its own lock files behind a reader.

    With ``mode=ro`` it leaves ``-wal`` and ``-shm`` files beside a database in WAL mode, with the
    reader's owner and rights, and the application may then no longer write.
    """
    return os.access(path, os.W_OK) and os.access(path.absolute().parent, os.W_OK)


def _is_resting_wal(path: Path) -> bool:
    """Whether the file is in WAL mode and no process has it open.

    Source:
        The SQLite file format: byte 18 of the header is 2 in WAL mode.
    """
    try:
        with path.open("rb") as file:
            header = file.read(20)
    except OSError:
        return False
    in_wal_mode = header.startswith(b"SQLite format 3") and header[18:19] == b"\x02"
    return in_wal_mode and not path.with_name(f"{path.name}-shm").exists()
