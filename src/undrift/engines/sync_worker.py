"""What syncs pages on the machines of a cluster: both sides and the state opened once in each.

The sync is that of one machine, `Synchronizer`, with leases of this process. What a process that is
lost had done is found to be done by whoever begins its page again.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from undrift.engines.embedding import Actor, RemoteEmbedder
from undrift.engines.orders import Values, require_release, taken
from undrift.engines.passes import Carried, Share, SyncOpener, carried, unknown_page
from undrift.errors import UndriftError, UnknownStateError
from undrift.events import SyncEvent
from undrift.sync import Synchronizer


class EmbeddedBy(NamedTuple):
    """Who embeds.

    Attributes:
        run: tells this run from every other that the same process may serve.
        model: of the actors, as ``dimension``.
    """

    run: str
    actors: Sequence[Actor]
    model: str
    dimension: int


@dataclass(frozen=True, slots=True)
class _Open:
    synchronizer: Synchronizer
    events: list[SyncEvent]


_opened: dict[str, _Open] = {}
"""By the run; at most one."""


def sync_here(
    values: Values, share: Sequence[object], embedded_by: Sequence[object]
) -> Carried | UndriftError:
    """Sync a page in this process.

    Args:
        values: an `Order`'s.
        share: a `Share`'s.
        embedded_by: an `EmbeddedBy`'s.

    Returns:
        The result; or what ends the run, as a value, because what is raised in a task arrives as
        something else.
    """
    try:
        require_release(values[0])
    except UndriftError as exc:
        return exc
    page, by = Share(*share), EmbeddedBy(*embedded_by)  # type: ignore[arg-type]
    try:
        opened = _opened.get(by.run) or _open(values, by)
    except UnknownStateError as exc:
        return unknown_page(page, exc)
    except UndriftError as exc:
        return exc
    try:
        found = carried(opened.synchronizer, opened.events, page)
    except BaseException:  # called back: nobody is to wait for what this process had
        _close()
        raise
    if isinstance(found, UndriftError):
        _close()
    return found


def _open(values: Values, by: EmbeddedBy) -> _Open:
    open_sync: SyncOpener = pickle.loads(taken(values).opener)  # noqa: S301 - our own
    embedder = RemoteEmbedder(actors=by.actors, model=by.model, dimension=by.dimension)
    events: list[SyncEvent] = []
    synchronizer = open_sync(embedder, events.append)
    embedder.while_waiting = synchronizer.working
    _close()  # a process serves one run at a time
    _opened[by.run] = opened = _Open(synchronizer, events)
    return opened


def _close() -> None:
    while _opened:
        _, opened = _opened.popitem()
        try:
            opened.synchronizer.close()
        except UnknownStateError:
            continue  # the leases end by themselves
