"""The LanceDB database: connecting, opening tables as they are now, creating them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta

import lancedb
import pyarrow as pa
from lancedb.db import DBConnection
from lancedb.index import BTree
from lancedb.table import Table

from undrift.errors import ConfigError, UnsupportedError
from undrift.stores import _lance_layout as layout
from undrift.stores._lance_address import Address
from undrift.stores._lance_commits import committed, is_taken
from undrift.stores._lance_errors import (
    DAMAGED,
    NO_RIGHTS,
    is_missing_table,
    layout_error,
    mapped_errors,
)
from undrift.stores._meaning import NOT_CREATED

ROWS_AT_ONCE = 4_096
"""Rows of a batch that is read: 6 MB of vectors of 384 components."""

STAMPS_AT_ONCE = 32_768
"""Rows of a batch without texts and vectors: 8 MB. In smaller ones a whole table takes twice as
long, as each is handed from thread to thread."""

# The process that LanceDB's threads run in, which they do from the first use on.
_process_id: int | None = None

Columns = Sequence[str] | Mapping[str, str]
"""Columns to read: names, or expressions by the name that they get."""


class Database:
    """A folder of tables, or a place in object storage.

    A table is opened anew for every call (0.3 ms), which shows it as it was committed last, by
    whomever: also where it was removed and created again.

    Args:
        address: where it is. Nothing is connected to before the first call.

    Safety:
        May be used from several threads.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self._connected: DBConnection | None = None

    @property
    def location(self) -> str:
        """Its address, for people."""
        return self.address.location

    def records(self) -> Table:
        """The table of the records, as it is now.

        Raises:
            ConfigError: it has not been created, or is somebody else's.
        """
        table = self.find_records()
        if table is None:
            raise NOT_CREATED.error(self.location, f"there is no table {self.address.table}")
        return table

    def find_records(self) -> Table | None:
        """The table of the records; None if it certainly has not been created.

        Raises:
            ConfigError: it is somebody else's.
            StoreUnavailable: its files are damaged.
        """
        table = self._find(self.address.table)
        if table is not None and (why := layout.why_unusable(table.schema)):
            raise layout_error(self.location, why)
        return table

    def find_any(self) -> Table | None:
        """The table of the records, whosever it is; None if there is none."""
        return self._find(self.address.table)

    def find_claims(self) -> Table | None:
        """The table of the claims; None if there is none."""
        return self._find(self.address.claims)

    def create_records(self, dimension: int) -> None:
        """Create the table of the records and its index, as far as they are missing."""
        if self._find(self.address.table) is None:
            self._create(self.address.table, layout.records_schema(dimension))
        table = self.records()
        with mapped_errors(self.location):
            if not any(index.columns == [layout.OWNER] for index in table.list_indices()):
                self._create_index(table)

    def create_claims(self) -> Table:
        """The table of the claims, created if it is missing."""
        found = self.find_claims()
        if found is None:
            self._create(self.address.claims, layout.CLAIMS_SCHEMA)
            found = self.find_claims()
        assert found is not None
        return found

    def rows(
        self, table: Table, where: str, columns: Columns, *, at_once: int | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Read the rows of *table* that *where* holds of, all from the version it has.

        Args:
            at_once: rows of a batch at most; `ROWS_AT_ONCE` unless told.

        Raises:
            StoreUnavailable: the read broke off; what was yielded is not all.
        """
        with mapped_errors(self.location):
            query = table.search().where(where)
            query.select({**columns} if isinstance(columns, Mapping) else [*columns])
            yield from query.to_batches(at_once or ROWS_AT_ONCE)

    def close(self) -> None:
        """Give back the connection. Safe to call twice; the next call connects again."""
        self._connected = None

    def _find(self, name: str) -> Table | None:
        if not self._has_folder():
            return None
        with mapped_errors(self.location):
            connection = self._connection()
            try:
                return connection.open_table(name)
            except Exception as error:
                if not is_missing_table(error):
                    raise
        self._refuse_remains(name)
        return None

    def _create(self, name: str, schema: pa.Schema) -> None:
        self._make_folder()
        with mapped_errors(self.location):
            connection = self._connection()
            try:
                committed(lambda: connection.create_table(name, schema=schema))
            except Exception as error:
                if not is_taken(error):  # by another process, just now
                    raise

    def _create_index(self, table: Table) -> None:
        try:
            committed(lambda: table.create_index(layout.OWNER, config=BTree(), replace=False))
        except Exception as error:
            if not is_taken(error):
                raise

    def _connection(self) -> DBConnection:
        _refuse_forked_process()
        connected = self._connected
        if connected is None:
            connected = self._connected = lancedb.connect(
                self.address.uri,
                read_consistency_interval=timedelta(0),
                storage_options=dict(self.address.options) or None,
            )
        return connected

    # --- a folder of this machine, which LanceDB would create just to look into it

    def _has_folder(self) -> bool:
        folder = self.address.folder
        if folder is None:
            return True
        with mapped_errors(self.location):
            try:
                folder.stat()
            except FileNotFoundError:
                return False
        if not folder.is_dir():
            raise NO_RIGHTS.error(self.location, "it is not a folder")
        return True

    def _make_folder(self) -> None:
        folder = self.address.folder
        if folder is None:
            return
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise ConfigError(
                "The vector store's folder cannot be made",
                why=f"{self.location}: {error.strerror}.",
                fix="correct the folder in VECTOR_URL, or make the folders above it",
            ) from error

    def _refuse_remains(self, name: str) -> None:
        """A table whose list of versions is gone is not one that was never created."""
        folder = self.address.folder_of(name)
        if folder is None:
            return
        with mapped_errors(self.location):
            try:
                remains = next((folder / "data").iterdir(), None)
            except FileNotFoundError:
                return
        if remains is not None:
            raise DAMAGED.error(self.location, f"the table {name} has data, but no version")


def _refuse_forked_process() -> None:
    """LanceDB hung in every second forked process, on locks of threads that it did not have."""
    global _process_id
    if _process_id is None:
        _process_id = os.getpid()
    if _process_id != os.getpid():
        raise UnsupportedError(
            "LanceDB cannot be used in this forked process",
            why="the process that it was forked from had used it already, and LanceDB's threads "
            "do not come along.",
            fix="start worker processes by spawn or forkserver, or fork them before the first use "
            "of the store",
        )
