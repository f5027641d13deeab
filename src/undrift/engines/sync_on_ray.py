"""A sync of everybody on a Ray cluster: pages as tasks, embedding as actors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from uuid import uuid4

from undrift.engines.cluster import Cluster
from undrift.engines.embedding import EmbedderPool
from undrift.engines.on_ray import sides_of_ones_own
from undrift.engines.orders import Order, Values, order, require_reachable
from undrift.engines.passes import Carried, PassesElsewhere, Share, SyncOpener
from undrift.engines.sync_worker import EmbeddedBy
from undrift.engines.tasks import MAX_RETRIES, Tasks
from undrift.errors import UndriftError, UnknownStateError
from undrift.events import Listener
from undrift.guarded import Passes
from undrift.recipe import EmbedderOpening, SyncEngine, SyncOpening

AGAIN = "run the same command again; who is done costs no embedding"

RELEASE_SECONDS = 3.0
"""How long a run that is ended early waits for the machines to give up their leases."""

ONE_EMBEDDER = EmbedderPool()


def sync_on_ray(
    address: str | None = None,
    *,
    pool: EmbedderPool = ONE_EMBEDDER,
    max_retries: int = MAX_RETRIES,
) -> SyncEngine:
    """What has everybody synced on a Ray cluster, for `Undrift.sync_all`.

    Args:
        address: see `Cluster`.
        pool: who embeds.
        max_retries: times that a page is tried again when the process that had it was lost.
    """

    def make(
        opening: SyncOpening | None, embedding: EmbedderOpening, listener: Listener
    ) -> AbstractContextManager[Passes]:
        if opening is None:
            raise sides_of_ones_own()
        return on_cluster(
            opening,
            embedding,
            listener,
            address=address,
            pool=pool,
            max_retries=max_retries,
            max_embeddings=opening.options.max_embeddings,
        )

    return make


@contextmanager
def on_cluster(
    opener: SyncOpener,
    embedding: EmbedderOpening,
    listener: Listener,
    *,
    address: str | None = None,
    pool: EmbedderPool = ONE_EMBEDDER,
    max_retries: int = MAX_RETRIES,
    max_embeddings: int | None = None,
) -> Iterator[Passes]:
    """Both passes on a cluster, which is joined for the time.

    Raises:
        ConfigError: see `Cluster` and `EmbedderPool.start`; or the cluster has machines from which
            the sides or the state cannot be reached.
        UnknownStateError: the cluster does not answer.
    """
    cluster = Cluster(address, again=AGAIN)
    try:
        require_reachable(cluster.hosts(), opener.here_only)
        actors = pool.start(cluster, embedding)
        by = EmbeddedBy(uuid4().hex, actors, embedding.model, embedding.dimension)
        tasks = Tasks(cluster, _task(), max_retries=max_retries, lost=_lost)
        try:
            carriers = RayCarriers(tasks, order(opener), by)
            yield PassesElsewhere(carriers, listener, max_embeddings=max_embeddings)
        finally:
            tasks.call_back(wait_seconds=RELEASE_SECONDS)
            cluster.end(actors)
    finally:
        cluster.close()


class RayCarriers:
    """The processes of a cluster; see `undrift.engines.passes.Carriers`.

    Args:
        values: what they are to open.
        by: who embeds for them.
    """

    def __init__(self, tasks: Tasks[Carried], values: Order, by: EmbeddedBy) -> None:
        self._tasks = tasks
        self._order = tuple(values)
        self._by = tuple(by)

    def window(self) -> int:
        """Twice as many as the cluster has cores."""
        return self._tasks.window()

    def submit(self, share: Share) -> Callable[[], Carried]:
        """Have *share* carried by whichever process is free."""
        return self._tasks.submit(self._order, tuple(share), self._by)


def _lost(failure: BaseException) -> UnknownStateError:
    return UnknownStateError(
        "The cluster could not sync a page of users",
        why=f"every process that had it was lost ({type(failure).__name__}).",
        fix=f"look at `ray status` and at the machines' memory, then {AGAIN}",
    )


def _task() -> Callable[[Values, Sequence[object], Sequence[object]], Carried | UndriftError]:
    """The task."""
    # A function within a function travels whole; see the check's.

    def sync_page(
        values: Values, share: Sequence[object], by: Sequence[object]
    ) -> Carried | UndriftError:
        from undrift.engines.sync_worker import sync_here

        return sync_here(values, share, by)

    return sync_page
