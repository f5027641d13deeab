"""The Python API: puts source, store and embedder together and runs check, sync and search."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from undrift.check import check_all, check_owners
from undrift.config import (
    EMBEDDED_STORE,
    Settings,
    load_settings,
    missing_source_url,
    missing_store_url,
    sqlite_url,
)
from undrift.embedders import DEFAULT_EMBEDDER, open_embedder
from undrift.errors import ConfigError, DimensionMismatch, UnsupportedError
from undrift.events import Listener, StoreCreated, ignore
from undrift.fleet import pages_of
from undrift.given import GivenSource
from undrift.guard import DeleteLimit
from undrift.look import Sides
from undrift.mapping import DocumentTable, default_entities
from undrift.mapping import Mapping as SourceMapping
from undrift.model import SearchResult, SyncReport, SyncStatus
from undrift.ports import Embedder, OwnerContent, Source, VectorStore
from undrift.render import Renderer
from undrift.search import search_owner
from undrift.sources import open_source
from undrift.stores import open_store
from undrift.sync import Synchronizer, SyncOptions, plan_sync

Owner = str | int
Profile = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What a run works on, for people; passwords are hidden.

    Attributes:
        notices: what one should know of it, such as that the embedder is not semantic.
    """

    source: str
    store: str
    model: str
    notices: tuple[str, ...] = ()


class Undrift:
    """Keeps one vector store true to one relational database.

    Args:
        source: a URL, or any `Source`; None if every profile is handed over by ``profile=``.
        store: a URL, or any `VectorStore`; None means the embedded store when the source is a
            SQLite file.
        embedder: a name such as ``local`` or ``hashing``, or any `Embedder`.
        mapping: what becomes an entity; None means the career profile's layout.
        namespace: which records of the store belong to this configuration.
        keep_text: whether the store keeps texts and metadata beside the vectors.

    Raises:
        ConfigError: something is missing or malformed. Nothing is connected to before the first
            call.

    Safety:
        May be used from several threads. Every call reads both sides anew; nothing is cached
        between calls but connections and the loaded model.
    """

    def __init__(
        self,
        *,
        source: str | Source | None = None,
        store: str | VectorStore | None = None,
        embedder: str | Embedder = DEFAULT_EMBEDDER,
        mapping: SourceMapping | None = None,
        namespace: str = "default",
        keep_text: bool = True,
    ) -> None:
        self._mapping = mapping or SourceMapping(
            documents=DocumentTable(), entities=default_entities()
        )
        self._renderer = Renderer(self._mapping)
        embedded: str | None = None
        if isinstance(source, str):
            if source.startswith("sqlite"):
                embedded = sqlite_url(Path.cwd() / EMBEDDED_STORE)
            source = open_source(source, self._mapping, self._renderer.fields)
        self._source = source
        if store is None:
            store = embedded
        if store is None:
            raise missing_store_url(None)
        if isinstance(store, str):
            store = open_store(store, namespace=namespace, keep_text=keep_text)
        self._store = store
        self._embedder = open_embedder(embedder) if isinstance(embedder, str) else embedder

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
        source = open_source(settings.source_url, settings.mapping, renderer.fields)
        if settings.store_url is None:
            raise missing_store_url(settings.source_url)
        return cls(
            source=source,
            store=settings.store_url,
            embedder=settings.embedder,
            mapping=settings.mapping,
            namespace=settings.namespace,
            keep_text=settings.keep_text,
        )

    # --- looking ------------------------------------------------------------------------------

    def describe(self) -> Setup:
        """Connect to both sides and say what they are.

        Raises:
            ConfigError: a side is not what the configuration says.
            UnknownStateError: a side cannot be reached.
        """
        source = "no source, profiles are given"
        if self._source is not None:
            info = self._source.describe()
            standby = " on a standby" if info.is_standby else ""
            source = f"{info.location} {info.layout}{standby}"
        store = self._store.describe()
        notice = getattr(self._embedder, "notice", "")
        return Setup(
            source=source,
            store=store.location + ("" if store.exists else " (not created yet)"),
            model=self._embedder.model,
            notices=(notice,) if notice else (),
        )

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
        content = None if profile is None else self._given(owner_id, profile)
        sides = self._sides(content)
        given = None if content is None else {owner_id: content}
        return check_owners(sides, [owner_id], given=given)[0].status

    def check_owners(self, owners: Iterable[Owner]) -> Iterator[SyncStatus]:
        """Check the named *owners*, each once, in the given order."""
        sides = self._sides()
        for page in pages_of(map(str, owners)):
            for checked in check_owners(sides, page):
                yield checked.status

    def check_all(self) -> Iterator[SyncStatus]:
        """Check every owner of either side.

        Order:
            The source's own, then owners that only the store has.

        Raises:
            ConfigError: a side is not what the configuration says.
            UnknownStateError: the owners could not be listed to the end; what was yielded stands.
        """
        for checked in check_all(self._sides()):
            yield checked.status

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
        sides = self._sides()
        return search_owner(sides, self._embedder, str(owner), query, kinds=kinds, limit=limit)

    # --- repairing ----------------------------------------------------------------------------

    def plan(self, owners: Iterable[Owner] | None, *, force: bool = False) -> Iterator[SyncReport]:
        """What a sync of *owners* would do and cost; writes nothing.

        Args:
            owners: None for every owner of either side.
        """
        named = None if owners is None else map(str, owners)
        return plan_sync(self._sides(), named, force=force)

    def sync(
        self,
        owner: Owner,
        profile: Profile | None = None,
        *,
        force: bool = False,
        max_embeddings: int | None = None,
        listener: Listener = ignore,
    ) -> SyncReport:
        """Repair one owner and prove it; does nothing if it is in sync and not forced.

        Args:
            profile: the owner's document; must be what the source holds. With no source
                configured it is the truth, and the report says so.
            force: rewrite and re-embed everything, without a gap.
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
        if profile is None:
            return next(self._synchronizer(options).sync_owners([owner_id]))
        content = self._given(owner_id, profile)
        return self._synchronizer(options, content).sync_given(owner_id, content)

    def sync_owners(
        self,
        owners: Iterable[Owner],
        *,
        force: bool = False,
        max_delete: str | None = None,
        max_embeddings: int | None = None,
        listener: Listener = ignore,
    ) -> Iterator[SyncReport]:
        """Repair the named *owners*; see `sync_all` for the arguments and errors.

        Args:
            max_delete: None means no limit, since a person named the owners.
        """
        options = _options(force, max_delete, max_embeddings, listener)
        yield from self._synchronizer(options).sync_owners(map(str, owners))

    def sync_all(
        self,
        *,
        force: bool = False,
        max_delete: str | None = None,
        max_embeddings: int | None = None,
        listener: Listener = ignore,
    ) -> Iterator[SyncReport]:
        """Repair every owner of either side and prove it.

        Args:
            force: rewrite and re-embed everything, without a gap.
            max_delete: ``50`` or ``10%`` of the managed records; None means the default guard.
            max_embeddings: texts that may be embedded.
            listener: told about every batch, from another thread.

        Raises:
            SafetyStop: too many deletes; writes were made.
            EmbeddingBudgetSpent: the budget is used up; progress is kept.
            UnknownStateError: the owners could not be listed to the end; nothing was deleted.

        Safety:
            Works while it is iterated; a run that is given up in between is finished by the next.
        """
        options = _options(force, max_delete, max_embeddings, listener)
        yield from self._synchronizer(options).sync_all()

    # --- plumbing -----------------------------------------------------------------------------

    def close(self) -> None:
        """Give back all connections. Safe to call twice."""
        if self._source is not None:
            self._source.close()
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _given(self, owner_id: str, profile: Profile) -> OwnerContent:
        if self._mapping.documents is None:
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

        return GivenProfile(owner_id, profile, PathTree(self._mapping.entities))

    def _sides(self, content: OwnerContent | None = None) -> Sides:
        """Both sides, found to be there."""
        source, against = self._source, "source"
        if source is None:
            if content is None:
                raise missing_source_url()
            source, against = GivenSource(content), "profile"
        source.describe()
        store = self._store.describe()
        if store.dimension not in (None, self._embedder.dimension):
            raise DimensionMismatch(
                expected=self._embedder.dimension,
                found=store.dimension or 0,
                model=self._embedder.model,
                fix=store.change_dimension,
            )
        return Sides(
            source=source,
            store=self._store,
            renderer=self._renderer,
            model=self._embedder.model,
            store_exists=store.exists,
            against=against,
        )

    def _synchronizer(
        self, options: SyncOptions, content: OwnerContent | None = None
    ) -> Synchronizer:
        sides = self._sides(content)
        info = sides.source.describe()
        if info.is_standby:
            raise ConfigError(
                "The source is a standby",
                why=f"{info.location} may lag behind its primary, and what it does not show yet "
                "would be deleted.",
                fix="sync from the primary; a standby serves check and search",
            )
        if not sides.store_exists:
            dimension = self._embedder.dimension
            statements = self._store.ddl(dimension)
            self._store.create(dimension)
            options.listener(StoreCreated(self._store.describe().location, statements))
            sides = replace(sides, store_exists=True)
        return Synchronizer(sides, self._embedder, options)


def _options(
    force: bool, max_delete: str | None, max_embeddings: int | None, listener: Listener
) -> SyncOptions:
    return SyncOptions(
        force=force,
        max_embeddings=max_embeddings,
        max_delete=None if max_delete is None else DeleteLimit.parse(max_delete),
        listener=listener,
    )
