"""Looks at a store in a SQLite file, and rehearses in it what a sync does."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote, unquote

from undrift.errors import UndriftError
from undrift.findings import Finding, of_error, ok, problem, warning
from undrift.ports import StoreInfo
from undrift.stores import _sqlite_sql as sql
from undrift.stores._sqlite_errors import mapped_errors
from undrift.stores.probe import COUNTED_RECORDS, RecordCount, StoreProbe
from undrift.stores.sqlite import SqliteStore

BUSY_SECONDS = 5.0
"""A writer that holds the file longer is itself a finding."""

# Where the system can tell, ask for the user as whom this process acts.
_BY_EFFECTIVE_USER = os.access in os.supports_effective_ids

_COUNTS = """
SELECT namespace, coalesce(model, ''), coalesce(kind, ''), count(*)
FROM (SELECT namespace, model, kind FROM vectors WHERE deleted IS NOT 1 LIMIT :limit)
GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"""
_TRIED = {"vector_id": "undrift-doctor", "namespace": "undrift-doctor", "owner_id": "undrift"}
_INSERT = """
INSERT INTO vectors (vector_id, namespace, owner_id) VALUES (:vector_id, :namespace, :owner_id)"""
_UPDATE = "UPDATE vectors SET version = 1 WHERE vector_id = :vector_id"
_DELETE = "DELETE FROM vectors WHERE vector_id = :vector_id"


def probe_sqlite(url: str) -> StoreProbe:
    """Look at the file of *url*; creates nothing, and what is written is rolled back."""
    address, _, query = url.partition("://")[2].partition("?")
    path = Path(unquote(address[1:])).absolute()
    is_read_only = query == "mode=ro"
    try:
        with closing(SqliteStore(path, read_only=is_read_only)) as store:
            info = store.describe()
    except UndriftError as error:
        return StoreProbe(findings=(of_error("store.file", error),))
    if not path.exists():
        return _result(info, [_new_file(info, path, is_read_only=is_read_only)])
    findings: list[Finding] = []
    counts: list[RecordCount] | None = None
    try:
        with _opened(path, "ro" if is_read_only else "rw") as connection:
            findings.append(_file(connection, info))
            if info.exists:
                rows = connection.execute(_COUNTS, {"limit": COUNTED_RECORDS})
                counts = [RecordCount(*row) for row in rows]
                findings.extend(_journal(connection, path))
    except UndriftError as error:
        return _result(info, [of_error("store.file", error)])
    findings.append(_rehearsed(path, info, is_read_only=is_read_only))
    return _result(info, findings, counts)


def _result(
    info: StoreInfo, findings: list[Finding], counts: list[RecordCount] | None = None
) -> StoreProbe:
    return StoreProbe(
        findings=tuple(findings),
        exists=info.exists,
        dimension=info.dimension,
        change_dimension=info.change_dimension,
        counts=counts,
    )


def _new_file(info: StoreInfo, path: Path, *, is_read_only: bool) -> Finding:
    """What is to be said of a file that is not there; the first sync makes one folder for it."""
    folder = path.parent if path.parent.exists() else path.parent.parent
    may_write = os.access(folder, os.W_OK | os.X_OK, effective_ids=_BY_EFFECTIVE_USER)
    if not is_read_only and folder.is_dir() and may_write:
        return ok("store.file", f"{info.location} is not created yet; the first sync does that")
    why = "it is to be opened with mode=ro" if is_read_only else f"{folder} cannot be written"
    return problem(
        "store.file",
        f"{info.location} is not created yet, and {why}",
        "leave out ?mode=ro in VECTOR_URL"
        if is_read_only
        else f"mkdir -p {path.parent}, and let "
        "this user write it, or set VECTOR_URL to another place",
        stops_check=False,
    )


def _file(connection: sqlite3.Connection, info: StoreInfo) -> Finding:
    (version,) = connection.execute("SELECT sqlite_version()").fetchone()
    state = "" if info.exists else ", in which the first sync creates the store's tables"
    return ok("store.file", f"SQLite {version}, {info.location}{state}")


def _journal(connection: sqlite3.Connection, path: Path) -> Iterator[Finding]:
    (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    if mode == "wal":
        yield ok("store.journal", "It is in WAL mode: readers and a writer do not wait")
    else:
        yield warning(
            "store.journal",
            f"Its journal mode is {mode}, so that every check holds up a writer",
            f"sqlite3 {path} 'PRAGMA journal_mode = WAL'",
        )


def _rehearsed(path: Path, info: StoreInfo, *, is_read_only: bool) -> Finding:
    """Write as a sync does, and roll it back."""
    statements = (sql.CREATE_CLAIMS,) if info.exists else sql.CREATE
    try:
        with _opened(path, "ro" if is_read_only else "rw") as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                for statement in statements:
                    connection.execute(statement)
                for statement in (_INSERT, _UPDATE, _DELETE):
                    connection.execute(statement, _TRIED)
            finally:
                connection.rollback()
    except UndriftError as error:
        return of_error("store.rights", error, stops_check=False)
    return ok("store.rights", "It can be written (tried, and rolled back)")


@contextmanager
def _opened(path: Path, mode: str) -> Iterator[sqlite3.Connection]:
    with mapped_errors(f"sqlite:///{path}"):
        connection = sqlite3.connect(
            f"file:{quote(str(path))}?mode={mode}",
            uri=True,
            timeout=BUSY_SECONDS,
            isolation_level=None,
        )
        with closing(connection):
            yield connection
