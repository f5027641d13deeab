"""A world in one of the classes in which late writes are kept out: T or C (`undrift.ports`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

from support.closing import Closing
from support.sides import Database, World
from support.wrappers import Before, SteppedClaimableStore, SteppedStore, nothing
from undrift import Undrift
from undrift.heal import NO_HEALING
from undrift.mapping import Mapping as SourceMapping
from undrift.ports import Embedder, Source, VectorStore
from undrift.render import Renderer
from undrift.sources import open_source
from undrift.state import Tombstone, TransactionalStore
from undrift.stores import open_store
from undrift.sync import SyncOptions
from undrift.watch import Watcher, WatchOptions

STATE_TABLES = (
    "state_standing",
    "state_config",
    "owner_state",
    "entity_state",
    "kind_state",
    "state_delete",
    "state_worker",
    "state_memo",
    "state_run",
    "state_result",
    "state_layout",
)


class _TellingOfTombstones(SteppedClaimableStore):
    """A store that also tells of the tombstones it is about to put."""

    def bury(self, tombstones: Sequence[Tombstone]) -> None:
        """See `ClaimableStore.bury`."""
        self._before("store.publish")
        super().bury(tombstones)
        self._before("store.publish returned")


class _TransactionalTellingOfTombstones(_TellingOfTombstones, SteppedStore):
    """The same for a store whose database can hold the state too."""


def stepped(store: VectorStore, before: Before) -> VectorStore:
    """*store*, which tells *before* of its steps."""
    if isinstance(store, TransactionalStore):
        return _TransactionalTellingOfTombstones(store, before)
    return _TellingOfTombstones(store, before)


class Classed(Closing):
    """A world whose state is beside the vectors (T), or in another database (C).

    Args:
        state_url: where, in class C; None means class T.
    """

    def __init__(self, world: World, state_url: str | None) -> None:
        self.world = world
        self.state_url = state_url
        self.keeps_tombstones = state_url is not None
        self.state = Database(state_url or world.store_url)
        self._opened = ExitStack()
        self._opened.callback(self.state.close)

    def close(self) -> None:
        """Close everything that was opened."""
        self._opened.close()

    def open(
        self,
        before: Before = nothing,
        *,
        source: Callable[[Source], Source] = lambda source: source,
        embedder: Embedder | None = None,
        mapping: SourceMapping | None = None,
        state_url: str | None = None,
    ) -> Undrift:
        """A worker of its own.

        Args:
            before: told of every step of the store.
            source: wraps the source.
            state_url: in place of the usual one.
        """
        world = self.world
        mapping = mapping or world.layout.mapping
        fields = Renderer(mapping).fields
        sides = Undrift(
            source=source(open_source(world.source_url, mapping, fields)),
            store=stepped(open_store(world.store_url), before),
            state=state_url or self.state_url,
            embedder=embedder or world.embedder,
            mapping=mapping,
            heal=NO_HEALING,
        )
        return self._opened.enter_context(sides)

    def watcher(self, sides: Undrift) -> Watcher:
        """A worker of a watch over *sides*, without triggers."""
        opened, ledger = sides._connections.writing(SyncOptions())
        assert ledger is not None
        assert (ledger.fence is None) == self.keeps_tombstones
        return Watcher(opened, sides._connections.embedder, ledger, None, WatchOptions())

    @property
    def tables_of_state(self) -> list[str]:
        """The state's tables, as SQL names them."""
        prefix = "undrift." if self.state.is_postgres else "undrift_"
        return [prefix + name for name in STATE_TABLES]

    @property
    def tables_of_store(self) -> list[str]:
        """The tables of the records, as SQL names them."""
        vectors = self.world.store.vectors
        return [vectors] if self.world.store.database.is_postgres else [vectors, "embeddings"]


class Copy:
    """A backup of some tables, in the database itself."""

    def __init__(self, database: Database, tables: Sequence[str]) -> None:
        self._database = database
        self._copies = {table: f"copy_of_{table.replace('.', '_')}" for table in tables}
        for table, copy in self._copies.items():
            database.run(f"CREATE TABLE {copy} AS SELECT * FROM {table}")

    def restore(self) -> None:
        """Put the tables back to what they were."""
        with self._database.connection() as connection, connection.begin():
            for table, copy in self._copies.items():
                connection.exec_driver_sql(f"DELETE FROM {table}")
                connection.exec_driver_sql(f"INSERT INTO {table} SELECT * FROM {copy}")
