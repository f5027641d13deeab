"""The same API for programs on an event loop: every call runs in a worker thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from undrift.api import Owner, Undrift
from undrift.config import Settings
from undrift.connections import Profile, Setup
from undrift.events import Listener, ignore
from undrift.headcount import Headcount
from undrift.model import Entity, Found, Heal, Retry, SearchResult, SyncReport, SyncStatus
from undrift.recipe import SyncEngine
from undrift.scan.options import DEFAULT_CHECK, CheckOptions
from undrift.search_index import (
    DEFAULT_PARAMETERS,
    IndexParameters,
    IndexStatus,
    ProgressListener,
    ignore_progress,
)
from undrift.service import StateInfo, SyncState, never
from undrift.stamping import Stamped
from undrift.state import Standing
from undrift.watch import DEFAULT_WATCH, WatchOptions

T = TypeVar("T")


class AsyncUndrift:
    """`Undrift` with the same methods as coroutines and asynchronous iterators.

    Args:
        sides: the instance that does the work.

    Safety:
        Cancelling an awaiting task does not stop the thread: the call it waits for runs to its end.
    """

    def __init__(self, sides: Undrift) -> None:
        self._sides = sides

    @classmethod
    def from_env(
        cls, config: str | Path | None = None, *, environ: Mapping[str, str] | None = None
    ) -> AsyncUndrift:
        """See `Undrift.from_env`."""
        return cls(Undrift.from_env(config, environ=environ))

    @classmethod
    def from_settings(cls, settings: Settings) -> AsyncUndrift:
        """See `Undrift.from_settings`."""
        return cls(Undrift.from_settings(settings))

    async def describe(self) -> Setup:
        """See `Undrift.describe`."""
        return await asyncio.to_thread(self._sides.describe)

    async def headcount(self) -> Headcount | None:
        """See `Undrift.headcount`."""
        return await asyncio.to_thread(self._sides.headcount)

    async def check(self, owner: Owner, profile: Profile | None = None) -> SyncStatus:
        """See `Undrift.check`."""
        return await asyncio.to_thread(self._sides.check, owner, profile)

    async def check_owners(self, owners: Iterable[Owner]) -> AsyncIterator[SyncStatus]:
        """See `Undrift.check_owners`."""
        async for status in _in_thread(self._sides.check_owners(owners)):
            yield status

    async def check_all(self, options: CheckOptions = DEFAULT_CHECK) -> AsyncIterator[SyncStatus]:
        """See `Undrift.check_all`."""
        async for status in _in_thread(self._sides.check_all(options)):
            yield status

    async def check_changed(self, *, listener: Listener = ignore) -> AsyncIterator[SyncStatus]:
        """See `Undrift.check_changed`."""
        async for status in _in_thread(self._sides.check_changed(listener=listener)):
            yield status

    async def search(
        self, owner: Owner, query: str, *, kinds: Sequence[str] | None = None, limit: int = 10
    ) -> SearchResult:
        """See `Undrift.search`."""
        return await asyncio.to_thread(self._sides.search, owner, query, kinds=kinds, limit=limit)

    async def entities(
        self, owner: Owner, *, kinds: Sequence[str] | None = None
    ) -> tuple[Entity, ...]:
        """See `Undrift.entities`."""
        return await asyncio.to_thread(self._sides.entities, owner, kinds=kinds)

    async def resolve(self, owner: Owner, entity_id: str) -> Found | Retry:
        """See `Undrift.resolve`."""
        return await asyncio.to_thread(self._sides.resolve, owner, entity_id)

    async def heal(self, owner: Owner) -> Heal:
        """See `Undrift.heal`."""
        return await asyncio.to_thread(self._sides.heal, owner)

    async def plan(
        self, owners: Iterable[Owner] | None, *, force: bool = False, listener: Listener = ignore
    ) -> AsyncIterator[SyncReport]:
        """See `Undrift.plan`."""
        plan = self._sides.plan
        reports = await asyncio.to_thread(plan, owners, force=force, listener=listener)
        async for report in _in_thread(reports):
            yield report

    async def sync(
        self,
        owner: Owner,
        profile: Profile | None = None,
        *,
        force: bool = False,
        is_guarded: bool = False,
        max_embeddings: int | None = None,
        listener: Listener = ignore,
    ) -> SyncReport:
        """See `Undrift.sync`."""
        return await asyncio.to_thread(
            self._sides.sync,
            owner,
            profile,
            force=force,
            is_guarded=is_guarded,
            max_embeddings=max_embeddings,
            listener=listener,
        )

    async def sync_owners(
        self,
        owners: Iterable[Owner],
        *,
        force: bool = False,
        max_delete: str | None = None,
        max_embeddings: int | None = None,
        retry_parked: bool = False,
        listener: Listener = ignore,
    ) -> AsyncIterator[SyncReport]:
        """See `Undrift.sync_owners`."""
        reports = self._sides.sync_owners(
            owners,
            force=force,
            max_delete=max_delete,
            max_embeddings=max_embeddings,
            retry_parked=retry_parked,
            listener=listener,
        )
        async for report in _in_thread(reports):
            yield report

    async def sync_all(
        self,
        *,
        force: bool = False,
        max_delete: str | None = None,
        max_embeddings: int | None = None,
        retry_parked: bool = False,
        engine: SyncEngine | None = None,
        listener: Listener = ignore,
    ) -> AsyncIterator[SyncReport]:
        """See `Undrift.sync_all`."""
        reports = self._sides.sync_all(
            force=force,
            max_delete=max_delete,
            max_embeddings=max_embeddings,
            retry_parked=retry_parked,
            engine=engine,
            listener=listener,
        )
        async for report in _in_thread(reports):
            yield report

    async def stamp(
        self, owners: Iterable[Owner] | None = None, *, listener: Listener = ignore
    ) -> AsyncIterator[Stamped]:
        """See `Undrift.stamp`."""
        async for stamped in _in_thread(self._sides.stamp(owners, listener=listener)):
            yield stamped

    async def watch(
        self,
        *,
        workers: int = 1,
        options: WatchOptions = DEFAULT_WATCH,
        is_over: Callable[[], bool] = never,
    ) -> None:
        """See `Undrift.watch`; a cancelled one ends as if it were over."""
        is_cancelled = threading.Event()
        watching = asyncio.ensure_future(
            asyncio.to_thread(
                self._sides.watch,
                workers=workers,
                options=options,
                is_over=lambda: is_cancelled.is_set() or is_over(),
            )
        )
        try:
            await asyncio.shield(watching)
        except asyncio.CancelledError:
            is_cancelled.set()
            await asyncio.wait([watching])
            raise

    async def status(self, *, max_parked: int = 20) -> SyncState:
        """See `Undrift.status`."""
        return await asyncio.to_thread(self._sides.status, max_parked=max_parked)

    async def state_info(self) -> StateInfo:
        """See `Undrift.state_info`."""
        return await asyncio.to_thread(self._sides.state_info)

    async def retry_parked(self, owners: Iterable[Owner] | None = None) -> int:
        """See `Undrift.retry_parked`."""
        return await asyncio.to_thread(self._sides.retry_parked, owners)

    async def adopt_state(self, *, listener: Listener = ignore) -> Standing:
        """See `Undrift.adopt_state`."""
        return await asyncio.to_thread(self._sides.adopt_state, listener=listener)

    async def index_status(self) -> IndexStatus:
        """See `Undrift.index_status`."""
        return await asyncio.to_thread(self._sides.index_status)

    async def index_ddl(self, parameters: IndexParameters = DEFAULT_PARAMETERS) -> Sequence[str]:
        """See `Undrift.index_ddl`."""
        return await asyncio.to_thread(self._sides.index_ddl, parameters)

    async def build_index(
        self,
        parameters: IndexParameters = DEFAULT_PARAMETERS,
        listener: ProgressListener = ignore_progress,
    ) -> IndexStatus:
        """See `Undrift.build_index`."""
        return await asyncio.to_thread(self._sides.build_index, parameters, listener)

    async def drop_index_ddl(self) -> Sequence[str]:
        """See `Undrift.drop_index_ddl`."""
        return await asyncio.to_thread(self._sides.drop_index_ddl)

    async def drop_index(self) -> IndexStatus:
        """See `Undrift.drop_index`."""
        return await asyncio.to_thread(self._sides.drop_index)

    async def close(self) -> None:
        """See `Undrift.close`."""
        await asyncio.to_thread(self._sides.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


async def _in_thread(items: Iterator[T]) -> AsyncIterator[T]:
    """Each item of *items*, fetched in a worker thread; the iterator is closed there too."""
    end = object()
    try:
        while True:
            fetching = asyncio.ensure_future(asyncio.to_thread(next, items, end))
            try:
                item = await asyncio.shield(fetching)
            except asyncio.CancelledError:
                await asyncio.wait([fetching])  # an iterator that runs cannot be closed
                raise
            if item is end:
                return
            yield item  # type: ignore[misc]
    finally:
        close = getattr(items, "close", None)
        if close is not None:
            await asyncio.to_thread(close)
