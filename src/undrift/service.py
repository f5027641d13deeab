"""The watch as a service: its workers, and what people ask of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from threading import Event

from undrift.changes import ChangeFeed, ChangeStatus
from undrift.connections import Connections
from undrift.errors import ConfigError, StateMismatch
from undrift.ports import StoreClass
from undrift.state import Claim, ParkedRecord, Standing, StateSummary
from undrift.sync import SyncOptions
from undrift.watch import Watcher, WatchOptions

_log = logging.getLogger(__name__)

MAX_WORKERS = 64
_LOOK_SECONDS = 0.2
UNWATCHED_SECONDS = 86_400.0
"""Dirty owners that have waited longer are nobody's: no watcher runs."""


def never() -> bool:
    """The end of a watch that only a signal ends."""
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncState:
    """What is remembered of everybody, for people; see `Undrift.status`.

    Attributes:
        location: the state's address without a password; empty where there is none.
        summary: the state in numbers; None while nothing has been synced.
        parked: records that cannot be made, the first of them.
        changes: the source's triggers and marks; None where there can be none.
        warnings: what a person should do something about, a sentence each.
    """

    location: str
    summary: StateSummary | None
    parked: Sequence[ParkedRecord] = ()
    changes: ChangeStatus | None = None
    warnings: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StateInfo:
    """Which state writes a store, and whether this configuration may; see `Undrift.state_info`.

    Attributes:
        location: the state's address without a password.
        standing: which state it is; None while it has not been created.
        config: the digest of this configuration.
        claim: whose the store is; None if nobody has written it yet.
        store_class: how late writes are kept out.
        refusal: why this configuration may not write; None if it may.
    """

    location: str
    standing: Standing | None
    config: str
    claim: Claim | None
    store_class: StoreClass
    refusal: ConfigError | None = None


def watch(
    connections: Connections,
    options: WatchOptions,
    *,
    workers: int,
    is_over: Callable[[], bool],
) -> None:
    """Watch with so many workers until it is over, or one of them cannot go on.

    Raises:
        ConfigError: a side or the state is not what the configuration says, or there is no state.
        UnknownStateError: a side could not be reached to begin with.
    """
    if not 1 <= workers <= MAX_WORKERS:
        raise ConfigError(
            f"{workers} workers are not possible",
            why=f"a watch has 1 to {MAX_WORKERS} of them in a process.",
            fix="give --workers a number in that range, and start more processes if need be",
        )
    feed = _installed_feed(connections)
    stopped = Event()

    def is_ended() -> bool:
        return stopped.is_set() or is_over()

    crew = [_watcher(connections, feed, options, is_ended) for _ in range(workers)]
    if workers == 1:
        crew[0].run()
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="undrift-watch") as threads:
        running: list[Future[None]] = [threads.submit(watcher.run) for watcher in crew]
        try:
            # Waiting in short turns: a signal's handler runs in this thread only.
            while not wait(running, _LOOK_SECONDS, return_when=FIRST_EXCEPTION).done:
                pass
        finally:
            stopped.set()
    for future in running:
        future.result()


def sync_state(connections: Connections, *, max_parked: int) -> SyncState:
    """What is remembered of everybody; writes nothing.

    Raises:
        ConfigError: there is no state, or a side is not what the configuration says.
        UnknownStateError: the state or the source cannot be reached.
    """
    feed = connections.change_feed()
    changes = None if feed is None else feed.pending()
    state = connections.states.state
    if not state.exists():
        return SyncState(location=state.location, summary=None, changes=changes)
    summary = state.summary()
    return SyncState(
        location=state.location,
        summary=summary,
        parked=state.parked(max_parked),
        changes=changes,
        warnings=_warnings(summary, changes),
    )


def retry_parked(connections: Connections, owners: Sequence[str] | None) -> int:
    """Let parked records be tried again; see `State.unpark`."""
    state = connections.states.state
    return state.unpark(owners) if state.exists() else 0


def state_info(connections: Connections) -> StateInfo:
    """Which state the store has, and whether this configuration may write; writes nothing.

    Raises:
        ConfigError: a side is not what the configuration says, or there is no place for a state.
        UnknownStateError: a side or the state cannot be reached.
    """
    sides = connections.sides()
    ledger = connections.states.looking(sides)
    claim = ledger.store.claim() if sides.store_exists else None
    standing = ledger.state.standing() if ledger.state.exists() else None
    if standing is not None:
        refusal = ledger.refusal(claim, standing)
    else:
        refusal = None if claim is None else _lost_state(ledger.state.location, claim)
    return StateInfo(
        location=ledger.state.location,
        standing=standing,
        config=ledger.config,
        claim=claim,
        store_class=ledger.store_class,
        refusal=refusal,
    )


def adopt(connections: Connections, options: SyncOptions) -> Standing:
    """Take the store over for this state, source and configuration.

    Raises:
        ConfigError: a side is not what the configuration says, or there is no state.
        UnknownStateError: a side or the state cannot be reached.
    """
    sides = connections.sides()
    return connections.states.adopting(sides, options.listener).adopt()


def _installed_feed(connections: Connections) -> ChangeFeed | None:
    """The marks of the source's triggers, if there are triggers; says what they do not see."""
    feed = connections.change_feed()
    if feed is None:
        return None
    changes = feed.pending()
    if not changes.is_installed:
        _log.warning(
            "no triggers are installed, so changes are found by the scrub alone; "
            "`undrift triggers install` puts them in",
            extra={"action": "watch.no_triggers"},
        )
        return None
    for sentence in (*changes.problems, *changes.refused):
        _log.warning("%s", sentence, extra={"action": "watch.triggers"})
    return feed


def _watcher(
    connections: Connections,
    feed: ChangeFeed | None,
    options: WatchOptions,
    is_over: Callable[[], bool],
) -> Watcher:
    sides, ledger = connections.writing(SyncOptions(listener=options.listener))
    if ledger is None:
        raise ConfigError(
            "A watch needs a state",
            why="this store is an object of your own, and nothing remembers who is to be synced.",
            fix="give state= a URL, such as sqlite:///undrift-state.db",
        )
    return Watcher(sides, connections.embedder, ledger, feed, options, is_over=is_over)


def _lost_state(location: str, claim: Claim) -> ConfigError:
    return StateMismatch(
        "The state that the vector store belongs to is not there",
        why=f"its writes are ordered by the state {claim.state_id[:8]}…, and nothing has been "
        f"created at {location}.",
        fix="use the state that belongs to it (state.url), or, if that one is lost, run `undrift "
        "state adopt`",
    )


def _warnings(summary: StateSummary, changes: ChangeStatus | None) -> list[str]:
    found = []
    waiting = summary.oldest_dirty_seconds or 0.0
    if waiting > UNWATCHED_SECONDS:
        found.append("An owner has been waiting for more than a day: no watch seems to run.")
    if changes is not None and changes.is_unwatched:
        found.append("Marks are older than a day: no watch takes them.")
    if changes is not None and changes.is_installed:
        found.extend(changes.problems)
    if summary.deletes_waiting:
        found.append(
            "Deletes wait: programs have deleted as much within 24 hours as they may. Look at the "
            "source, then run undrift sync for the users concerned."
        )
    return found
