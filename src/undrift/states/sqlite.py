"""A state in a SQLite file: undrift's own, or the one that holds the vectors or the application.

Safety:
    Every call that writes is one ``BEGIN IMMEDIATE`` transaction in WAL mode with
    ``synchronous=FULL``, so one at a time decides, and what was answered survives a loss of power.
    Nothing that takes time happens under the lock; asking whether anybody is dirty takes none.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from typing import cast

from undrift.state import (
    Acknowledgement,
    AllowDeletes,
    Buried,
    DirtyOwner,
    Expected,
    Failure,
    Note,
    Observation,
    ParkedRecord,
    Parking,
    ScrubTurn,
    Standing,
    StateSummary,
    VersionRaise,
    WorkerReport,
)
from undrift.states import _sqlite_layout as layout
from undrift.states import _sqlite_people as people
from undrift.states import _sqlite_queue as queue
from undrift.states import _sqlite_rows as entities
from undrift.states._sqlite_errors import mapped_errors
from undrift.states._sqlite_file import Connection, SqliteFile
from undrift.states._sqlite_memory import SqliteMemory
from undrift.states._sqlite_session import Session, Sessions


class SqliteFence:
    """What the state does within a store's ``BEGIN IMMEDIATE`` in the same file.

    Such a transaction keeps every other writer out, so there is nothing more to lock.
    """

    def __init__(self, scope: str, location: str, clock: Callable[[], float]) -> None:
        self._scope = scope
        self._location = location
        self._clock = clock

    def hold(self, connection: object, expected: Sequence[Expected]) -> frozenset[str]:
        """The owners of whom a row is no longer as expected, or is gone."""
        with mapped_errors(self._location):
            return entities.unexpected(self._session(connection), expected)

    def published(self, connection: object, expected: Sequence[Expected]) -> None:
        """Set ``published_version`` of rows that were just written or deleted."""
        with mapped_errors(self._location):
            entities.published(self._session(connection), expected)

    def observe(
        self,
        connection: object,
        observations: Sequence[Observation],
        expected: Sequence[Expected],
    ) -> frozenset[str]:
        """Accept observations; the owners of whom one is refused, or a row is not as expected."""
        observed = {observation.owner_id for observation in observations}
        others = [row for row in expected if row.owner_id not in observed]
        with mapped_errors(self._location):
            session = self._session(connection)
            accepted = entities.accepted(session, observations)
            entities.put_observed(session, accepted, published=set(expected))
            refused = observed.difference(each.owner_id for each in accepted)
            return entities.unexpected(session, others) | refused

    def _session(self, connection: object) -> Session:
        assert isinstance(connection, sqlite3.Connection)
        return Session(cast(Connection, connection), self._scope, self._clock())


class SqliteState:
    """The `FencedState` in one SQLite file.

    Args:
        path: the file; a relative one is below the working directory.
        scope: whose state, of those in the file.
        read_only: open the file with ``mode=ro``.
        clock: positive seconds since any moment, the same for everybody who uses the file.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        scope: str,
        read_only: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._file = SqliteFile(path, read_only=read_only)
        self._scope = scope
        sessions = Sessions(self._file, scope, clock)
        self._reading, self._writing = sessions.reading, sessions.writing
        self._memory = SqliteMemory(self._file.location, sessions)
        self._fence = SqliteFence(scope, self._file.location, clock)

    @property
    def location(self) -> str:
        """The file as a URL."""
        return self._file.location

    @property
    def fence(self) -> SqliteFence:
        """What a store in the same file is to do within a publish."""
        return self._fence

    @property
    def memory(self) -> SqliteMemory:
        """What is remembered of whole fleets, in the same file."""
        return self._memory

    # --- being there

    def exists(self) -> bool:
        """Whether the file, the tables and the scope's state are there."""
        if not self._file.exists():
            return False
        with self._file.connection() as connection:
            version = layout.found_version(connection, self.location)
            return version > 0 and layout.has_scope(connection, self._scope)

    def ddl(self) -> Sequence[str]:
        """The statements that `create` runs where there is nothing yet."""
        return layout.ddl()

    def create(self) -> None:
        """Create the file and what is missing in it, safely in several processes at once."""
        if self._file.exists():
            with self._file.connection() as connection:
                version = layout.found_version(connection, self.location)
                if version == len(layout.VERSIONS) and layout.has_scope(connection, self._scope):
                    return
        with self._file.creation() as connection:
            layout.create(connection, self.location, self._scope)

    def standing(self) -> Standing:
        """Which state this is."""
        with self._reading() as session:
            return people.standing(session, self.location)

    def enter(self, config: str, *, above_epoch: int = 0) -> Standing:
        """Begin to write under *config*, unless it is superseded."""
        return self._enter(config, above_epoch, is_adopted=False)

    def adopt(self, config: str, *, above_epoch: int = 0) -> Standing:
        """Begin to write under *config*, superseded or not, and mark everybody."""
        return self._enter(config, above_epoch, is_adopted=True)

    def _enter(self, config: str, above_epoch: int, *, is_adopted: bool) -> Standing:
        with self._writing() as session:
            layout.refuse_older(session.connection, self.location)
            before = people.standing(session, self.location)
            return people.enter(session, before, config, above_epoch, is_adopted=is_adopted)

    # --- leases

    def lease(
        self, owners: Sequence[str], holder: str, seconds: float, *, over: Sequence[str] = ()
    ) -> Mapping[str, str]:
        """Lease those of *owners* that are to be had."""
        if not owners:
            return {}
        with self._writing() as session:
            return queue.lease(session, owners, holder, seconds, over)

    def renew(self, owners: Sequence[str], holder: str, seconds: float) -> None:
        """Prolong the leases that *holder* still has."""
        if owners:
            with self._writing() as session:
                queue.renew(session, owners, holder, seconds)

    def release(self, owners: Sequence[str], holder: str) -> None:
        """Give up the leases that *holder* has."""
        if owners:
            with self._writing() as session:
                queue.release(session, owners, holder)

    # --- the protocol's steps

    def note(self, owners: Sequence[str]) -> Note:
        """What is remembered of *owners*, in one moment."""
        with self._reading() as session:
            return entities.note(session, people.standing(session, self.location), owners)

    def observe(self, observations: Sequence[Observation]) -> frozenset[str]:
        """Accept those observations before which no other was accepted."""
        if not observations:
            return frozenset()
        with self._writing() as session:
            accepted = entities.accepted(session, observations)
            entities.put_observed(session, accepted)
        return frozenset(observation.owner_id for observation in accepted)

    def raise_versions(self, raises: Sequence[VersionRaise]) -> frozenset[str]:
        """Raise the rows of owners whose rows are all as observed."""
        if not raises:
            return frozenset()
        with self._writing() as session:
            return entities.raise_versions(session, raises)

    def suspect(self, owners: Sequence[str], seconds: float) -> None:
        """Remember that writes may still land for so long."""
        if owners:
            with self._writing() as session:
                queue.suspect(session, owners, seconds)

    def acknowledge(self, acknowledgements: Sequence[Acknowledgement], holder: str) -> None:
        """End syncs that succeeded."""
        if acknowledgements:
            with self._writing() as session:
                entities.read_back(session, acknowledgements)
                queue.acknowledge(session, acknowledgements, holder)

    def fail(self, failures: Sequence[Failure], holder: str) -> None:
        """End syncs that did not succeed."""
        if failures:
            with self._writing() as session:
                queue.fail(session, failures, holder)

    def park(self, parkings: Sequence[Parking]) -> None:
        """Remember records that cannot be made."""
        if parkings:
            with self._writing() as session:
                entities.park(session, parkings)

    def unpark(self, owners: Sequence[str] | None) -> int:
        """Let parked records be tried again at once."""
        with self._writing() as session:
            found = entities.unpark(session, owners)
            queue.mark(session, found, 0)
            queue.let_try(session, found)
        return sum(found.values())

    def parked(self, limit: int) -> Sequence[ParkedRecord]:
        """Parked records, by owner, kind and id."""
        with self._reading() as session:
            return entities.parked(session, limit)

    # --- who is to be looked at

    def mark(self, owners: Sequence[str], *, priority: int = 0) -> None:
        """Raise the generation of *owners*."""
        if owners:
            with self._writing() as session:
                queue.mark(session, owners, priority)

    def mark_everyone(self, *, again_after_seconds: float | None = None) -> None:
        """Raise the round."""
        with self._writing() as session:
            people.standing(session, self.location)
            queue.mark_everyone(session, again_after_seconds)

    def claim_dirty(self, holder: str, limit: int, seconds: float) -> Sequence[DirtyOwner]:
        """Lease dirty owners that are free and due."""
        with self._reading() as session:
            if not queue.is_any_dirty(session):
                return []
        with self._writing() as session:
            return queue.claim(session, holder, limit, seconds)

    def dirty_owners(self, limit: int, after: str | None = None) -> Sequence[str]:
        """Dirty owners behind *after*, by code point, whoever has them."""
        with self._reading() as session:
            return queue.dirty(session, limit, after)

    def settled_owners(self, owners: Sequence[str]) -> Mapping[str, int]:
        """Those of *owners* of whom nothing is left to do, with their live entities."""
        with self._reading() as session:
            return queue.settled(session, owners)

    def stale_owners(self, owners: Sequence[str], seconds: float) -> Sequence[str]:
        """Those of *owners* that were not verified within *seconds*."""
        with self._reading() as session:
            return queue.stale(session, owners, seconds)

    def scrub_turn(self, holder: str, seconds: float) -> ScrubTurn | None:
        """Lease the scrub."""
        with self._writing() as session:
            people.standing(session, self.location)
            return queue.scrub_turn(session, holder, seconds)

    def scrubbed(self, holder: str, after: str | None, *, is_second_side: bool) -> None:
        """Remember how far the scrub is."""
        with self._writing() as session:
            queue.scrubbed(session, holder, after, is_second_side=is_second_side)

    # --- safety, housekeeping, people

    def spend_deletes(self, planned: Mapping[str, int], allow: AllowDeletes) -> str | None:
        """Count deletes, if *allow* lets them pass."""
        with self._writing() as session:
            people.standing(session, self.location)
            return people.spend(session, planned, allow)

    def buried(self, older_than_seconds: float, limit: int) -> Sequence[Buried]:
        """Rows of entities that have been deleted for longer."""
        with self._reading() as session:
            return entities.buried(session, older_than_seconds, limit)

    def forget(self, rows: Sequence[Buried]) -> None:
        """Remove rows that are still deleted and of that version."""
        if rows:
            with self._writing() as session:
                entities.forget(session, rows)

    def report_worker(self, report: WorkerReport) -> None:
        """Say that a worker is alive."""
        with self._writing() as session:
            people.report(session, report)

    def worker_left(self, worker_id: str) -> None:
        """Say that a worker has ended."""
        with self._writing() as session:
            people.left(session, worker_id)

    def summary(self) -> StateSummary:
        """The state in numbers."""
        with self._reading() as session:
            return people.summary(session, people.standing(session, self.location))

    def close(self) -> None:
        """Close every connection. Safe to call twice."""
        self._file.close()
