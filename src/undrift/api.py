"""The Python API: puts source, store and embedder together and runs check, sync and search."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from undrift import service
from undrift.adoption import StoreFields
from undrift.changes import Triggers
from undrift.check import check_owners
from undrift.config import (
    Settings,
    is_test_environment,
    load_settings,
    missing_source_url,
    missing_store_url,
)
from undrift.connections import Connections, Profile, Setup
from undrift.embedders import DEFAULT_EMBEDDER, open_embedder
from undrift.embedders.adapted import EmbeddingModel
from undrift.errors import ConfigError, OwnerNotFound
from undrift.events import Listener, ignore
from undrift.fleet import pages_of
from undrift.guard import DeleteLimit, require_budget
from undrift.headcount import Headcount
from undrift.heal import DEFAULT_POLICY, Healer, HealPolicy, InterruptibleEmbedder, is_testing
from undrift.mapping import Mapping as SourceMapping
from undrift.model import (
    Entity,
    Found,
    Heal,
    Healing,
    Retry,
    SearchResult,
    SyncReport,
    SyncStatus,
)
from undrift.ports import (
    DocumentEditor,
    Embedder,
    Source,
    VectorStore,
)
from undrift.recipe import SyncEngine
from undrift.render import Renderer
from undrift.resolve import read_wanted, resolve_entity
from undrift.scan.options import DEFAULT_CHECK, CheckOptions
from undrift.search import require_known_kinds, search_owner
from undrift.search_index import (
    DEFAULT_PARAMETERS,
    IndexParameters,
    IndexStatus,
    ProgressListener,
    ignore_progress,
)
from undrift.service import StateInfo, SyncState, never
from undrift.sources import open_source
from undrift.stamping import Stamped
from undrift.state import Standing, State
from undrift.sync import SyncOptions
from undrift.watch import DEFAULT_WATCH, WatchOptions

Owner = str | int


class Undrift:
    """Keeps one vector store true to one relational database.

    Args:
        source: a URL, or any `Source`; None if every profile is handed over by ``profile=``.
        store: a URL, or any `VectorStore`; None means the embedded store when the source is a
            SQLite file.
        state: a URL, or any `State`, for undrift's own memory; None means beside the vectors. A
            store object of your own without a state is written in the order of its own versions,
            which keeps no late write out.
        embedder: a name such as ``local`` or ``openai:text-embedding-3-small``, any `Embedder`, or
            any object with ``embed_documents`` and ``embed_query`` that says which model it is; see
            `adapt_embedder`.
        mapping: what becomes an entity; None means the career profile's layout.
        namespace: which records of the store belong to this configuration.
        keep_text: whether the store keeps texts and metadata beside the vectors.
        fields: where the store's records hold what, if another program filled it.
        heal: when `search` and `resolve` may set off a repair; never in a test environment.

    Raises:
        ConfigError: something is missing or malformed. Nothing is connected to before the first
            call.

    Safety:
        May be used from several threads. Every call reads both sides' content anew; between calls
        only connections, the loaded model and the tables' descriptions are kept, so that a column
        whose type has changed needs a new `Undrift`.
    """

    def __init__(
        self,
        *,
        source: str | Source | None = None,
        store: str | VectorStore | None = None,
        state: str | State | None = None,
        embedder: str | Embedder | EmbeddingModel = DEFAULT_EMBEDDER,
        mapping: SourceMapping | None = None,
        namespace: str = "default",
        keep_text: bool = True,
        fields: StoreFields | None = None,
        heal: HealPolicy = DEFAULT_POLICY,
    ) -> None:
        self._connections = Connections(
            source=source,
            store=store,
            state=state,
            embedder=embedder,
            mapping=mapping,
            namespace=namespace,
            keep_text=keep_text,
            fields=fields,
        )
        self._is_test_environment = is_test_environment()
        self._healer = Healer(self._repaired, heal)

    @classmethod
    def from_env(
        cls, config: str | Path | None = None, *, environ: Mapping[str, str] | None = None
    ) -> Undrift:
        """The instance that the environment and ``undrift.toml`` describe.

        Args:
            config: the configuration file; None means ``UNDRIFT_CONFIG`` or ``./undrift.toml``.
            environ: None means this process's environment.

        Raises:
            ConfigError: something is missing or malformed.
        """
        return cls.from_settings(load_settings(config, environ=environ))

    @classmethod
    def from_settings(cls, settings: Settings) -> Undrift:
        """The instance that *settings* describe; they must name a source."""
        if settings.source_url is None:
            raise missing_source_url()
        # Opened first: a malformed DATABASE_URL is the more useful message.
        renderer = Renderer(settings.mapping)
        open_source(settings.source_url, settings.mapping, renderer.fields).close()
        if settings.store_url is None:
            raise missing_store_url(settings.source_url)
        open_named = partial(open_embedder, settings.embedder, settings.embedder_options)
        sides = cls(
            source=settings.source_url,
            store=settings.store_url,
            state=settings.state_url,
            embedder=open_named(),
            mapping=settings.mapping,
            namespace=settings.namespace,
            keep_text=settings.keep_text,
            fields=settings.store_fields,
            heal=settings.heal,
        )
        sides._is_test_environment |= settings.environment == "test"
        sides._connections.open_embedder = open_named
        return sides

    @property
    def is_testing(self) -> bool:
        """Whether this is a test environment, in which nothing is synced by itself."""
        # Asked each time: a test's fixture may come after the program has opened both sides.
        return self._is_test_environment or is_test_environment() or is_testing()

    @property
    def mapping(self) -> SourceMapping:
        """What becomes an entity."""
        return self._connections.mapping

    @property
    def renderer(self) -> Renderer:
        """Turns an owner's content into entities; immutable, any thread may use it."""
        return self._connections.renderer

    @property
    def documents(self) -> DocumentEditor:
        """Changes owners' documents in the source, each under its row's lock.

        Raises:
            UnsupportedError: the entities come from tables, or the source cannot be written.
        """
        return self._connections.documents

    # --- looking ------------------------------------------------------------------------------

    def describe(self) -> Setup:
        """Connect to both sides and say what they are.

        Raises:
            ConfigError: a side is not what the configuration says.
            UnknownStateError: a side cannot be reached.
        """
        return self._connections.describe()

    def headcount(self) -> Headcount | None:
        """How many owners the source has, told in a fraction of a second, however many there are.

        Owners that only the store has are not among them.

        Returns:
            None where it cannot be told so fast, and for a source of your own.

        Raises:
            ConfigError: there is no source, or it is not what the configuration says.
            UnknownStateError: it cannot be reached.
        """
        return self._connections.headcount()

    def check(self, owner: Owner, profile: Profile | None = None) -> SyncStatus:
        """Compare both sides of one owner, exactly; writes nothing.

        Args:
            profile: the owner's document, if the caller has it at hand; it replaces the first read
                of the source. A difference is still confirmed against the source.

        Raises:
            ConfigError: a side is not what the configuration says.
            UnknownStateError: a side cannot be reached at all. What fails later makes the outcome
                ``unknown``.
        """
        owner_id = str(owner)
        content = None if profile is None else self._connections.given(owner_id, profile)
        sides = self._connections.sides(content)
        given = None if content is None else {owner_id: content}
        return check_owners(sides, [owner_id], given=given)[0].status

    def check_owners(self, owners: Iterable[Owner]) -> Iterator[SyncStatus]:
        """Check the named *owners*, each once, in the given order."""
        sides = self._connections.sides()
        for page in pages_of(map(str, owners)):
            for checked in check_owners(sides, page):
                yield checked.status

    def check_all(self, options: CheckOptions = DEFAULT_CHECK) -> Iterator[SyncStatus]:
        """Check every owner of either side, or of the part that *options* name.

        The store is always read, and so is the source; but of owners whose digests agree, nothing
        is read in full, and content that was rendered before is not rendered again.

        Order:
            The source's own, then owners that only the store has; what an earlier run found comes
            first, where one is taken up.

        Raises:
            ConfigError: an option is malformed, a side is not what the configuration says, or there
                is no saved progress to take up.
            UnknownStateError: the owners could not be listed to the end, or page after page could
                not be read; what was yielded stands.
        """
        yield from self._connections.scan(options).statuses()

    def check_changed(self, *, listener: Listener = ignore) -> Iterator[SyncStatus]:
        """Check the owners who were changed since their last sync, exactly; writes nothing.

        They are those whom the source's triggers have marked, and those whom the state says are to
        be synced. No mark is taken, and nobody is kept from syncing them meanwhile. What triggers
        do not see is not seen here; `check_all` sees it. Where a mark is for everybody, as
        TRUNCATE leaves one, this is `check_all`, and the statuses say so in what they read.

        Args:
            listener: told how the run begins, and what the triggers do not see.

        Order:
            By owner, by code point.

        Raises:
            ConfigError: there are no triggers, no state yet, or a side is not what the
                configuration says.
            UnknownStateError: marks or state could not be read to the end, or page after page could
                not be read; what was yielded stands.
        """
        yield from self._connections.changed_scan(listener).statuses()

    def search(
        self, owner: Owner, query: str, *, kinds: Sequence[str] | None = None, limit: int = 10
    ) -> SearchResult:
        """What of *owner* is nearest to *query*, joined to the source.

        Args:
            kinds: restrict to these kinds; None means all.
            limit: how many hits, at most 1,000.

        Raises:
            OwnerNotFound: neither side has the owner.
            ConfigError: an empty query, an unknown kind, a limit out of range.
            UnknownStateError: a side could not be read; hits are never returned unjoined.
        """
        result = search_owner(
            self._connections.sides(),
            self._connections.embedder,
            str(owner),
            query,
            kinds=kinds,
            limit=limit,
        )
        if not result.met_drift:
            return result
        if self.is_testing:
            return replace(result, healing=Healing.SWITCHED_OFF)
        return replace(result, healing=self._healer.mark(result.owner_id).healing)

    def entities(self, owner: Owner, *, kinds: Sequence[str] | None = None) -> tuple[Entity, ...]:
        """What the source holds of *owner* now; the store is not asked.

        Args:
            kinds: only these; None means all.

        Order:
            The source's own. Entities without a text are left out.

        Raises:
            OwnerNotFound: the source does not have the owner.
            ConfigError: an unknown kind.
            UnknownStateError: the source could not be read.
        """
        require_known_kinds(self._connections.mapping.kinds, kinds)
        wanted = read_wanted(self._connections.source_only(), str(owner))
        if wanted is None:
            raise OwnerNotFound(str(owner), in_source_only=True)
        found = wanted.entities.values()
        return tuple(entity for entity in found if kinds is None or entity.kind in kinds)

    def resolve(self, owner: Owner, entity_id: str) -> Found | Retry:
        """Whether the source has the entity; for any tool that takes an id from a search.

        An id that the source does not have sets off a heal of *owner* and is answered with what
        there is instead. The call waits for the heal as long as the `HealPolicy` says.

        Args:
            entity_id: ``kind:id``, as hits print their ``key``.

        Raises:
            ConfigError: *entity_id* names no configured kind.
            OwnerNotFound: neither side has the owner.
            UnknownStateError: the source could not be read.

        Safety:
            Any number of threads may ask: an owner has one heal in flight. A store that is down is
            told in the answer and loses nothing.
        """
        return resolve_entity(self._connections.source_only(), str(owner), entity_id, self.heal)

    def heal(self, owner: Owner) -> Heal:
        """Check one owner and sync it if it is out of sync, as a reader does who met drift.

        One heal is in flight per owner; who asks meanwhile waits for the same one. Nothing is done
        within the cool-down, in a test environment, or where healing is switched off. Deletes pass
        the default guard, and a store that does not exist is not created.

        Returns:
            How it went; errors are in it and not raised.
        """
        if self.is_testing:
            return Heal(owner_id=str(owner), healing=Healing.SWITCHED_OFF)
        return self._healer.heal(str(owner))

    # --- repairing ----------------------------------------------------------------------------

    def plan(
        self, owners: Iterable[Owner] | None, *, force: bool = False, listener: Listener = ignore
    ) -> Iterator[SyncReport]:
        """What a sync of *owners* would do and cost; writes nothing.

        Of everybody, those whose digests agree are not read, as `check_all` reads none of them.

        Args:
            owners: None for every owner of either side.
            force: of a sync that rewrites everything.
            listener: told what is read of everybody.

        Raises:
            ConfigError: a side is not what the configuration says.
            UnknownStateError: a side cannot be reached, or page after page could not be read; what
                was yielded stands.
        """
        named = None if owners is None else map(str, owners)
        return self._connections.planning(named, force=force, listener=listener)

    def sync(
        self,
        owner: Owner,
        profile: Profile | None = None,
        *,
        force: bool = False,
        is_guarded: bool = False,
        max_embeddings: int | None = None,
        listener: Listener = ignore,
    ) -> SyncReport:
        """Repair one owner and prove it; does nothing if it is in sync and not forced.

        Args:
            profile: the owner's document; must be what the source holds. With no source
                configured it is the truth, and the report says so.
            force: rewrite and re-embed everything, without a gap.
            is_guarded: nobody has named this owner by hand, so the default guard decides on its
                deletes (the report carries `SafetyStop`), and no store is created. Not together
                with ``profile``.
            max_embeddings: texts that may be embedded; when they are used up, the report carries
                `EmbeddingBudgetSpent` and what was written stays.
            listener: told about every batch.

        Raises:
            ConfigError: a side is not what the configuration says.
            UnknownStateError: a side cannot be reached at all.
            InvalidDocument: the given profile cannot be read as entities, and the source's can.
            ProfileOutdated: the source holds something else; nothing was written.

        Safety:
            Idempotent. A crash at any point leaves every record old or new, never absent, and the
            next sync finishes.
        """
        owner_id = str(owner)
        options = SyncOptions(force=force, max_embeddings=max_embeddings, listener=listener)
        if is_guarded and profile is not None:
            raise ConfigError(
                "A guarded sync takes no profile=",
                why="it is for programs that repair on their own, from what the source holds.",
                fix="leave profile= out, or leave is_guarded= out",
            )
        if is_guarded:
            return self._connections.synchronizer(options, may_create=False).sync_guarded(owner_id)
        if profile is None:
            return next(self._connections.synchronizer(options).sync_owners([owner_id]))
        content = self._connections.given(owner_id, profile)
        return self._connections.synchronizer(options, content).sync_given(owner_id, content)

    def sync_owners(
        self,
        owners: Iterable[Owner],
        *,
        force: bool = False,
        max_delete: str | None = None,
        max_embeddings: int | None = None,
        retry_parked: bool = False,
        listener: Listener = ignore,
    ) -> Iterator[SyncReport]:
        """Repair the named *owners*; see `sync_all` for the arguments and errors.

        Args:
            max_delete: None means no limit, since a person named the owners.
        """
        options = _options(force, max_delete, max_embeddings, retry_parked, listener)
        yield from self._connections.synchronizer(options).sync_owners(map(str, owners))

    def sync_all(
        self,
        *,
        force: bool = False,
        max_delete: str | None = None,
        max_embeddings: int | None = None,
        retry_parked: bool = False,
        engine: SyncEngine | None = None,
        listener: Listener = ignore,
    ) -> Iterator[SyncReport]:
        """Repair every owner of either side and prove it.

        Args:
            force: rewrite and re-embed everything, without a gap.
            max_delete: ``50`` or ``10%`` of the managed records; None means the default guard.
            max_embeddings: texts that may be embedded.
            retry_parked: try at once what could not be embedded before, instead of later.
            engine: makes who carries the pages, such as `undrift.engines.sync_on_ray.sync_on_ray`;
                None for this process.
            listener: told about every batch, from another thread.

        Raises:
            SafetyStop: too many deletes; writes were made.
            EmbeddingBudgetSpent: the budget is used up; progress is kept.
            UnknownStateError: the owners could not be listed to the end, or page after page
                failed. In the first pass nothing was deleted; in the second some may be.

        Safety:
            Works while it is iterated; a run that is given up in between is finished by the next.
        """
        options = _options(force, max_delete, max_embeddings, retry_parked, listener)
        yield from self._connections.syncing_everybody(options, engine)

    def stamp(
        self, owners: Iterable[Owner] | None = None, *, listener: Listener = ignore
    ) -> Iterator[Stamped]:
        """Stamp what another program wrote from the very texts that the source renders to now.

        Nothing is embedded, deleted or otherwise changed; what differs is told and left.

        Args:
            owners: None for every owner of either side.
            listener: told about every batch.

        Raises:
            UnsupportedError: the store was filled by undrift itself, whose records have stamps.
            ConfigError: a side is not what the configuration says.
            UnknownStateError: a side cannot be reached, or page after page could not be read.

        Safety:
            Idempotent; works while it is iterated.
        """
        options = SyncOptions(listener=listener)
        yield from self._connections.stamping(options, None if owners is None else map(str, owners))

    # --- continuously -------------------------------------------------------------------------

    def watch(
        self,
        *,
        workers: int = 1,
        options: WatchOptions = DEFAULT_WATCH,
        is_over: Callable[[], bool] = never,
    ) -> None:
        """Sync whoever is touched, and look at everybody within a deadline, until it is over.

        Any number of processes may watch at once. The source's triggers, where they are installed,
        say who was touched; without them everybody is found by the scrub alone.

        Args:
            workers: owners are synced by so many threads.
            is_over: asked at least every second.

        Raises:
            ConfigError: a side or the state is not what the configuration says.
            UnknownStateError: a side could not be reached to begin with; later outages are waited
                for.

        Safety:
            May be killed at any time. Deletes are bound by a budget over 24 hours, kept in the
            state; writes are not.
        """
        service.watch(self._connections, options, workers=workers, is_over=is_over)

    def status(self, *, max_parked: int = 20) -> SyncState:
        """Who waits to be synced, what cannot be, and who is at work; writes nothing.

        Raises:
            ConfigError: there is no state, or a side is not what the configuration says.
            UnknownStateError: state or source cannot be reached.
        """
        return service.sync_state(self._connections, max_parked=max_parked)

    def state_info(self) -> StateInfo:
        """Which state the store has, whose the store is, and whether this configuration may write.

        Writes nothing.

        Raises:
            ConfigError: a side is not what the configuration says, or there is no state.
            UnknownStateError: a side or the state cannot be reached.
        """
        return service.state_info(self._connections)

    def retry_parked(self, owners: Iterable[Owner] | None = None) -> int:
        """Let records be tried again that could not be made, at the next sync of their owners.

        Args:
            owners: None for all.

        Returns:
            How many there are.
        """
        named = None if owners is None else list(map(str, owners))
        return service.retry_parked(self._connections, named)

    def adopt_state(self, *, listener: Listener = ignore) -> Standing:
        """Take the store over for this state, this source and this configuration.

        For a person who knows that the state that the store belongs to is lost or given up, that
        the source has moved, or that an earlier configuration is to count again. Everybody is
        looked at again, now and once more after every write on its way must have landed.

        Raises:
            ConfigError: a side is not what the configuration says, or there is no state.
            UnknownStateError: a side or the state cannot be reached.
        """
        return service.adopt(self._connections, SyncOptions(listener=listener))

    # --- the store's search index ---------------------------------------------------------------

    def index_status(self) -> IndexStatus:
        """What there is of an approximate index, and whether one is worth having; writes nothing.

        Raises:
            UnsupportedError: the store has none.
            ConfigError: the store has not been created.
            StoreUnavailable: it could not be looked at.
        """
        return self._connections.search_index().index_status()

    def index_ddl(self, parameters: IndexParameters = DEFAULT_PARAMETERS) -> Sequence[str]:
        """The statements that `build_index` runs, for people.

        Raises:
            UnsupportedError: the store has none.
            ConfigError: see `build_index`.
        """
        return self._connections.search_index().index_ddl(parameters)

    def build_index(
        self,
        parameters: IndexParameters = DEFAULT_PARAMETERS,
        listener: ProgressListener = ignore_progress,
    ) -> IndexStatus:
        """Build the index while others read and write; one that is there already is kept.

        Args:
            listener: told every second how far it is, from another thread.

        Raises:
            UnsupportedError: the store has none.
            ConfigError: the store has not been created, a parameter is out of range, the vectors
                have too many components, or an index is there that differs.
            TransientError: another build is under way.
            StoreUnavailable: no definite answer.

        Safety:
            A build that ends early leaves at most an invalid index, which no search uses and the
            next build replaces.
        """
        return self._connections.search_index().build_index(parameters, listener)

    def drop_index_ddl(self) -> Sequence[str]:
        """The statements that `drop_index` runs, for people; empty where there is no index.

        Raises:
            UnsupportedError: the store has none.
            ConfigError: see `drop_index`.
        """
        return self._connections.search_index().drop_index_ddl()

    def drop_index(self) -> IndexStatus:
        """Drop the index while others read and write, an unfinished one too; never another's.

        Raises:
            UnsupportedError: the store has none.
            ConfigError: the store has not been created.
            TransientError: a build is under way.
            StoreUnavailable: no definite answer.

        Safety:
            Idempotent; one that ends early is finished by the next.
        """
        return self._connections.search_index().drop_index()

    # --- change capture -----------------------------------------------------------------------

    @property
    def triggers(self) -> Triggers:
        """Puts triggers into the source that say who was touched, and takes them out again.

        Raises:
            UnsupportedError: the source can have none.
        """
        return self._connections.triggers

    # --- plumbing -----------------------------------------------------------------------------

    def close(self) -> None:
        """End healing and give back all connections. Safe to call twice."""
        try:
            self._healer.close()
        finally:
            self._connections.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _repaired(self, owner_id: str) -> SyncReport:
        """What a heal does: a guarded sync that ends early when nobody waits for it any more."""
        embedder = InterruptibleEmbedder(self._connections.embedder, lambda: self._healer.is_over)
        synchronizer = self._connections.synchronizer(
            SyncOptions(), may_create=False, embedder=embedder
        )
        self._connections.states.mark_first(owner_id)
        return synchronizer.sync_guarded(owner_id)


def _options(
    force: bool,
    max_delete: str | None,
    max_embeddings: int | None,
    retry_parked: bool,
    listener: Listener,
) -> SyncOptions:
    require_budget(max_embeddings)
    return SyncOptions(
        force=force,
        max_embeddings=max_embeddings,
        max_delete=None if max_delete is None else DeleteLimit.parse(max_delete),
        retry_parked=retry_parked,
        listener=listener,
    )
