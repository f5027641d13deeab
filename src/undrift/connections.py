"""What an `Undrift` works on: source, store and embedder, opened once, put together for a run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Lock

from undrift.adoption import StoreFields
from undrift.changes import CapturedSource, ChangeFeed, Triggers
from undrift.config import (
    EMBEDDED_STORE,
    embedder_options,
    missing_source_url,
    missing_store_url,
    sqlite_url,
)
from undrift.dry_run import plan_everybody, plan_owners
from undrift.embedders import as_embedder, close_embedder, open_embedder
from undrift.embedders.adapted import EmbeddingModel
from undrift.errors import ConfigError, DimensionMismatch, UnsupportedError
from undrift.events import Listener, StoreCreated, ignore
from undrift.fleet import fleet_pages, pages_of
from undrift.given import GivenSource
from undrift.headcount import CountingSource, Headcount
from undrift.ledger import Ledger, config_digest
from undrift.look import Sides
from undrift.mapping import DocumentTable, default_entities
from undrift.mapping import Mapping as SourceMapping
from undrift.model import SyncReport
from undrift.order import StoreOrder
from undrift.ports import (
    DocumentEditor,
    EditableSource,
    Embedder,
    OwnerContent,
    Source,
    VectorStore,
)
from undrift.recipe import (
    EmbedderOpening,
    Opening,
    Recipe,
    SyncEngine,
    SyncOpening,
    memo_key,
    memory_of,
    settled_owners,
)
from undrift.render import Renderer
from undrift.scan.changed import ChangedScan, no_change_capture
from undrift.scan.options import CheckOptions
from undrift.scan.page import PageCheck
from undrift.scan.progress import Checkpoints, no_progress
from undrift.scan.run import Scan, ScanOptions
from undrift.search_index import SearchIndex
from undrift.sources import open_source
from undrift.stamping import Stamped, Stamper
from undrift.state import State
from undrift.state_access import StateAccess
from undrift.state_order import StateOrder
from undrift.stores import open_store
from undrift.sync import Synchronizer, SyncOptions
from undrift.watch import MAX_MARKS

_log = logging.getLogger(__name__)

Profile = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What a run works on, for people; passwords are hidden.

    Attributes:
        state: where it lies what is remembered of the writes; empty where nothing is.
        notices: what one should know of it, such as that the embedder is not semantic.
        is_adopted: whether another program wrote what the store holds.
    """

    source: str
    store: str
    model: str
    state: str = ""
    notices: tuple[str, ...] = ()
    is_adopted: bool = False


class Connections:
    """Both sides and the embedder, connected to when they are first asked.

    Args:
        source: see `undrift.Undrift` for these.

    Attributes:
        open_embedder: opens the same embedder in another process.

    Safety:
        May be used from several threads.
    """

    def __init__(
        self,
        *,
        source: str | Source | None,
        store: str | VectorStore | None,
        state: str | State | None,
        embedder: str | Embedder | EmbeddingModel,
        mapping: SourceMapping | None,
        namespace: str,
        keep_text: bool,
        fields: StoreFields | None,
    ) -> None:
        self.mapping = mapping or SourceMapping(
            documents=DocumentTable(), entities=default_entities()
        )
        self.renderer = Renderer(self.mapping)
        embedded: str | None = None
        addresses = (source, store, state)
        if isinstance(source, str):
            if source.startswith("sqlite"):
                embedded = sqlite_url(Path.cwd() / EMBEDDED_STORE)
            source = open_source(source, self.mapping, self.renderer.fields)
        self.source = source
        if store is None:
            store = embedded
        if store is None:
            raise missing_store_url(None)
        is_own_store = not isinstance(store, str)
        if isinstance(store, str):
            store = open_store(store, namespace=namespace, keep_text=keep_text, fields=fields)
        self.store = store
        self.states = StateAccess(store, state, is_own_store=is_own_store)
        self.open_embedder: Callable[[], Embedder] = (
            partial(open_embedder, embedder, embedder_options())
            if isinstance(embedder, str)
            else partial(as_embedder, embedder)
        )
        self.embedder = self.open_embedder()
        self._addresses = (addresses[0], addresses[1] or embedded, addresses[2])
        self._namespace = namespace
        self._keep_text = keep_text
        self._fields = fields
        self._editor: DocumentEditor | None = None
        self._triggers: Triggers | None = None
        self._feed: ChangeFeed | None = None
        self._opening = Lock()

    @property
    def documents(self) -> DocumentEditor:
        """Changes owners' documents in the source, each under its row's lock.

        Raises:
            UnsupportedError: the entities come from tables, or the source cannot be written.
        """
        if self.mapping.documents is None:
            raise UnsupportedError(
                "Only documents can be edited",
                why="the entities come from tables, one row each, and which of their columns a "
                "change belongs into is the application's knowledge.",
                fix="write the row with your own SQL, then call sync(owner)",
            )
        if not isinstance(self.source, EditableSource):
            raise UnsupportedError(
                "This source cannot be edited",
                why="there is none, or it is not one of undrift's own.",
                fix="open the source by its URL, or write it by your own means and call "
                "sync(owner)",
            )
        with self._opening:
            if self._editor is None:
                self._editor = self.source.editor()
            return self._editor

    def describe(self) -> Setup:
        """Connect to both sides and say what they are.

        Raises:
            ConfigError: a side is not what the configuration says.
            UnknownStateError: a side cannot be reached.
        """
        source = "no source, profiles are given"
        if self.source is not None:
            info = self.source.describe()
            standby = " on a standby" if info.is_standby else ""
            source = f"{info.location} {info.layout}{standby}"
        store = self.store.describe()
        notice = getattr(self.embedder, "notice", "")
        return Setup(
            source=source,
            store=store.location + ("" if store.exists else " (not created yet)"),
            model=self.embedder.model,
            state=self.states.describe(),
            notices=(notice,) if notice else (),
            is_adopted=self.store.capabilities.adoption is not None,
        )

    def given(self, owner_id: str, profile: Profile) -> OwnerContent:
        """The content of a profile that the caller hands over.

        Raises:
            UnsupportedError: the entities come from tables.
            ConfigError: it is no document.
        """
        if self.mapping.documents is None:
            raise UnsupportedError(
                "profile= needs a document layout",
                why="the entities come from tables, one row each, so there is no profile to give.",
                fix="leave profile= out",
            )
        if not isinstance(profile, Mapping):
            raise ConfigError(
                "profile= is not a document",
                why=f"it is a {type(profile).__name__}, and a profile is an object.",
                fix="hand over the decoded document, a dict",
            )
        from undrift.sources.documents import GivenProfile
        from undrift.sources.paths import PathTree

        return GivenProfile(owner_id, profile, PathTree(self.mapping.entities))

    def sides(self, content: OwnerContent | None = None) -> Sides:
        """Both sides, found to be there and to fit each other.

        Args:
            content: the profile, where no source is configured.

        Raises:
            ConfigError: a side is not what the configuration says.
            UnknownStateError: a side cannot be reached.
        """
        source, against = self.source, "source"
        if source is None:
            if content is None:
                raise missing_source_url()
            source, against = GivenSource(content), "profile"
        source.describe()
        store = self.store.describe()
        if store.dimension not in (None, self.embedder.dimension):
            raise DimensionMismatch(
                expected=self.embedder.dimension,
                found=store.dimension or 0,
                model=self.embedder.model,
                fix=store.change_dimension,
            )
        return Sides(
            source=source,
            store=self.store,
            renderer=self.renderer,
            model=self.embedder.model,
            store_exists=store.exists,
            against=against,
        )

    def headcount(self) -> Headcount | None:
        """How many owners the source has; None where that cannot be told quickly.

        Raises:
            ConfigError: there is no source, or it is not what the configuration says.
            SourceUnavailable: it cannot be reached.
        """
        source = self.source_only().source
        return source.headcount() if isinstance(source, CountingSource) else None

    def planning(
        self, owners: Iterable[str] | None, *, force: bool, listener: Listener
    ) -> Iterator[SyncReport]:
        """What a sync of *owners* would do, or of everybody; see `undrift.dry_run`.

        Raises:
            ConfigError: a side is not what the configuration says.
            UnknownStateError: a side cannot be reached.
        """
        sides = self.sides()
        if owners is not None:
            return plan_owners(sides, owners, force=force)
        check = PageCheck(sides, memory_of(self.states), key=memo_key(self.mapping))
        return plan_everybody(sides, check, force=force, listener=listener)

    def scan(self, options: CheckOptions) -> Scan:
        """A check of everybody that may begin.

        Raises:
            ConfigError: an option is malformed, or a side is not what the configuration says.
            UnknownStateError: a side cannot be reached.
        """
        part, pace = options.part(), options.pace()
        sides = self.sides()
        memory = memory_of(self.states)
        key = memo_key(self.mapping)
        check = PageCheck(sides, memory if options.memos else None, key=key)
        recipe = self._recipe()
        open_check = None
        if recipe is not None:
            open_check = Opening(recipe, with_memos=options.memos)
        checkpoints = None
        if options.keeps_progress and memory is not None:
            name = f"{options.run_name} {config_digest(self.mapping, model=sides.model)}"
            checkpoints = Checkpoints(memory, name)
        elif options.resume or options.until is not None:
            raise no_progress()
        return Scan(
            sides,
            check,
            options.open_engine(check, open_check),
            ScanOptions(part=part, pace=pace, listener=options.listener),
            checkpoints=checkpoints,
            resume=options.resume or options.until is not None,
        )

    def changed_scan(self, listener: Listener) -> ChangedScan:
        """A check of whoever was changed since the last sync, which may begin.

        Raises:
            ConfigError: the source can have no triggers, there is no place for a state, or a side
                is not what the configuration says.
            UnknownStateError: a side cannot be reached.
        """
        sides = self.sides()
        feed = self.change_feed()
        if feed is None:
            raise no_change_capture()
        state = self.states.state
        options = CheckOptions(listener=listener)
        check = PageCheck(sides, None, key=memo_key(self.mapping), expects_drift=True)
        return ChangedScan(
            options.open_engine(check, None),
            feed,
            state,
            everybody=lambda: self.scan(options),
            listener=listener,
        )

    def _recipe(self) -> Recipe | None:
        """How both sides are opened elsewhere; None if they are objects of the caller's."""
        source, store, state = self._addresses
        if not isinstance(source, str) or not isinstance(store, str):
            return None
        if state is not None and not isinstance(state, str):
            return None
        return Recipe(
            source_url=source,
            store_url=store,
            state_url=state,
            mapping=self.mapping,
            namespace=self._namespace,
            keep_text=self._keep_text,
            fields=self._fields,
            model=self.embedder.model,
        )

    def search_index(self) -> SearchIndex:
        """The store's search index.

        Raises:
            UnsupportedError: it can have none.
        """
        store = self.store
        if isinstance(store, SearchIndex):
            return store
        location, promises = store.describe().location, store.capabilities
        if promises.exact_owner_search:
            why = f"a search in {location} is exact without one: it finds a user's true nearest."
        else:
            why = f"{location} makes and keeps its own ({promises.why_not['exact_owner_search']})."
        raise UnsupportedError(
            "undrift builds no search index in this vector store",
            why=why,
            fix="nothing needs to be done; these commands are for PostgreSQL with pgvector",
        )

    def source_only(self) -> Sides:
        """The source, with a store that is not looked at.

        Raises:
            ConfigError: there is no source, or it is not what the configuration says.
            SourceUnavailable: it cannot be reached.
        """
        if self.source is None:
            raise missing_source_url()
        self.source.describe()
        return Sides(
            source=self.source,
            store=self.store,
            renderer=self.renderer,
            model=self.embedder.model,
            store_exists=False,
        )

    def synchronizer(
        self,
        options: SyncOptions,
        content: OwnerContent | None = None,
        *,
        may_create: bool = True,
        takes_marks: bool = False,
        embedder: Embedder | None = None,
    ) -> Synchronizer:
        """A sync that may begin; see `writing`.

        Args:
            takes_marks: the sync is of everybody, so that it answers for whatever the source's
                triggers have told of until now.
            embedder: None means this one's.
        """
        sides, ledger = self.writing(options, content, may_create=may_create)
        if takes_marks and ledger is not None:
            self._take_marks(ledger)
        settled = settled_owners(sides, self.states, ledger, options) if takes_marks else None
        return Synchronizer(
            sides, embedder or self.embedder, options, ledger=ledger, settled=settled
        )

    def syncing_everybody(
        self, options: SyncOptions, engine: SyncEngine | None
    ) -> Iterator[SyncReport]:
        """A sync of everybody; see `Synchronizer.sync_all`.

        Args:
            engine: None for this process.

        Raises:
            UnsupportedError: the store can be used by one process only, and the engine has several.
        """
        if engine is None:
            yield from self.synchronizer(options, takes_marks=True).sync_all()
            return
        if not self.store.capabilities.many_processes:
            raise _one_process(self.store)
        recipe, opening = self._recipe(), None
        if recipe is not None:
            opening = SyncOpening(recipe=recipe, options=replace(options, listener=ignore))
        embedding = EmbedderOpening(
            model=self.embedder.model, dimension=self.embedder.dimension, open=self.open_embedder
        )
        # First of all: nothing is created for a run that cannot begin.
        with engine(opening, embedding, options.listener) as passes:
            yield from self.synchronizer(options, takes_marks=True).sync_all(passes)

    def stamping(self, options: SyncOptions, owners: Iterable[str] | None) -> Iterator[Stamped]:
        """Stamp the records of *owners*, or of everybody; see `Stamper`.

        Raises:
            UnsupportedError: the store was filled by undrift itself.
        """
        if self.store.capabilities.adoption is None:
            raise UnsupportedError(
                "There is nothing to stamp",
                why="[store.fields] does not say that another program filled this store, and what "
                "undrift writes carries a stamp.",
                fix="run `undrift sync`, or `undrift init`, which looks for collections of other "
                "programs",
            )
        sides, ledger = self.writing(options)
        order = StoreOrder(sides) if ledger is None else StateOrder(sides, ledger)
        pages = fleet_pages(sides) if owners is None else pages_of(owners)
        return Stamper(sides, order, listener=options.listener).stamp(pages)

    def writing(
        self,
        options: SyncOptions,
        content: OwnerContent | None = None,
        *,
        may_create: bool = True,
    ) -> tuple[Sides, Ledger | None]:
        """Both sides and the right to write: the source is no standby, store and state exist.

        Args:
            content: the profile, where no source is configured.
            may_create: create store and state if they do not exist yet.

        Raises:
            ConfigError: a side cannot be synced.
            UnknownStateError: a side cannot be reached.
        """
        sides = self.sides(content)
        info = sides.source.describe()
        if info.is_standby:
            raise ConfigError(
                "The source is a standby",
                why=f"{info.location} may lag behind its primary, and what it does not show yet "
                "would be deleted.",
                fix="sync from the primary; a standby serves check and search",
            )
        if not sides.store_exists and not may_create:
            raise ConfigError(
                "The vector store does not exist yet",
                why=f"nothing has been created at {self.store.describe().location}, and only a "
                "sync that a person runs creates it.",
                fix="run `undrift sync --all`",
            )
        if not sides.store_exists:
            self.states.require_place()  # before anything is created
            dimension = self.embedder.dimension
            statements = self.store.ddl(dimension)
            self.store.create(dimension)
            options.listener(StoreCreated(self.store.describe().location, statements))
            sides = replace(sides, store_exists=True)
        return sides, self.states.ledger(sides, options.listener, may_create=may_create)

    def _take_marks(self, ledger: Ledger) -> None:
        feed = self.change_feed()
        if feed is None:
            return
        state = ledger.state
        try:
            while feed.drain(MAX_MARKS, state.mark, state.mark_everyone) >= MAX_MARKS:
                pass
        except ConfigError as exc:
            # No triggers, or a role that may not: then a watch takes them, or nobody does.
            _log.info("marks are left: %s", exc.why, extra={"action": "sync.marks"})

    @property
    def triggers(self) -> Triggers:
        """The source's triggers.

        Raises:
            UnsupportedError: it can have none.
        """
        if not isinstance(self.source, CapturedSource):
            raise UnsupportedError(
                "This source can have no triggers",
                why="profiles are handed over, or it is an object of your own without them.",
                fix="use a source of undrift's, by its URL; without triggers everybody is looked "
                "at by `undrift check --all` and `undrift sync --all`",
            )
        with self._opening:
            if self._triggers is None:
                self._triggers = self.source.triggers()
            return self._triggers

    def change_feed(self) -> ChangeFeed | None:
        """The marks of the source's triggers; None where it has none to be had.

        Raises:
            ConfigError: the source is not what the configuration says.
            SourceUnavailable: it cannot be reached.
        """
        if not isinstance(self.source, CapturedSource):
            return None
        with self._opening:
            if self._feed is None:
                self._feed = self.source.change_feed()
            return self._feed

    def close(self) -> None:
        """Give back everything, also where a part of it cannot be closed. Safe to call twice."""
        with ExitStack() as closing:
            closing.callback(close_embedder, self.embedder)
            closing.callback(self.store.close)
            closing.callback(self.states.close)
            if self.source is not None:
                closing.callback(self.source.close)
            if self._editor is not None:
                closing.callback(self._editor.close)
            if self._triggers is not None:
                closing.callback(self._triggers.close)
            if self._feed is not None:
                closing.callback(self._feed.close)


def _one_process(store: VectorStore) -> UnsupportedError:
    return UnsupportedError(
        "This vector store can be used by one process only",
        why=f"{store.capabilities.why_not['many_processes']}.",
        fix="run it as a server, or sync in one process, without --processes and --engine ray",
    )
