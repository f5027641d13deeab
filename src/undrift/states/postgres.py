"""A state in PostgreSQL, in tables of undrift's own.

Works through transaction poolers: nothing is prepared and no session state is kept. A call is one
statement where that is possible, and otherwise one READ COMMITTED transaction that first locks its
owners, by code point, and then looks at what they hold.

Safety:
    A call is as durable as the server's ``synchronous_commit`` says. Times are the server's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from psycopg import Connection

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
from undrift.states import _pg_people as people
from undrift.states import _pg_queue as queue
from undrift.states import _pg_rows as entities
from undrift.states._pg_address import Address, parse_address
from undrift.states._pg_errors import PASSING, mapped_errors
from undrift.states._pg_layout import Layout
from undrift.states._pg_memory import PostgresMemory
from undrift.states._pg_session import Session, Sessions
from undrift.states._pg_statements import Statements

T = TypeVar("T")


class PostgresFence:
    """What the state does within a store's READ COMMITTED transaction in the same database."""

    def __init__(self, address: Address, statements: Statements, scope: str) -> None:
        self._address = address
        self._statements = statements
        self._scope = scope

    def hold(self, connection: object, expected: Sequence[Expected]) -> frozenset[str]:
        """Lock the owners by code point, and name those of whom a row is not as expected."""
        if not expected:
            return frozenset()

        def work(session: Session) -> frozenset[str]:
            entities.hold(session, (wanted.owner_id for wanted in expected))
            # A statement of its own: its snapshot is from after the wait for the locks.
            return entities.unexpected(session, expected)

        return self._do(connection, work)

    def published(self, connection: object, expected: Sequence[Expected]) -> None:
        """Set ``published_version`` of rows that were just written or deleted."""
        if expected:
            self._do(connection, lambda session: entities.published(session, expected))

    def observe(
        self,
        connection: object,
        observations: Sequence[Observation],
        expected: Sequence[Expected],
    ) -> frozenset[str]:
        """Accept observations; the owners of whom one is refused, or a row is not as expected."""
        observed = {observation.owner_id for observation in observations}
        others = [row for row in expected if row.owner_id not in observed]

        def work(session: Session) -> frozenset[str]:
            # Everybody at once, so that there is one order. Who is not there yet has no lock.
            entities.hold(session, observed.union(wanted.owner_id for wanted in expected))
            accepted = entities.observe(session, observations, published=set(expected))
            unexpected = entities.unexpected(session, others) if others else frozenset()
            return unexpected | (observed - accepted)

        return self._do(connection, work)

    def _do(self, connection: object, work: Callable[[Session], T]) -> T:
        assert isinstance(connection, Connection)
        # What passes is the store's to try again, with its whole transaction.
        with mapped_errors(self._address, "write", but=PASSING):
            return work(Session(connection, self._statements, self._scope))


class PostgresState:
    """The `FencedState` in one schema of a PostgreSQL database.

    Args:
        url: ``postgresql://…[?schema=undrift&…]``; all other parameters are libpq's.
        scope: whose state, of those in the schema.
        schema: where the tables are, unless the URL says so.

    Raises:
        ConfigError: the URL is malformed.
    """

    def __init__(self, url: str, *, scope: str, schema: str | None = None) -> None:
        self._address = parse_address(url, schema)
        self._scope = scope
        self._statements = Statements(self._address)
        self._layout = Layout(self._address, self._statements, scope)
        self._sessions = Sessions(self._address, self._statements, scope)
        self._once, self._together = self._sessions.once, self._sessions.together
        self._fence = PostgresFence(self._address, self._statements, scope)
        self._memory = PostgresMemory(self._address, self._layout, self._sessions)

    @property
    def location(self) -> str:
        """Its address without a password."""
        return self._address.location

    @property
    def fence(self) -> PostgresFence:
        """What a store in the same database is to do within a publish."""
        return self._fence

    @property
    def memory(self) -> PostgresMemory:
        """What is remembered of whole fleets, in the same schema."""
        return self._memory

    # --- being there

    def exists(self) -> bool:
        """Whether the tables and the scope's state are there."""

        def work(session: Session) -> bool:
            is_there = self._layout.found_version(session.connection) > 0
            return is_there and self._layout.has_scope(session.connection)

        return self._once("read", work)

    def ddl(self) -> Sequence[str]:
        """The statements that `create` runs where there is nothing yet."""
        return self._layout.ddl()

    def create(self) -> None:
        """Create or migrate what is missing, safely in several processes at once."""
        if not self._once("read", lambda session: self._layout.is_current(session.connection)):
            self._once("create", lambda session: self._layout.create(session.connection))

    def standing(self) -> Standing:
        """Which state this is."""
        return self._once("read", lambda session: people.standing(session, self.location))

    def enter(self, config: str, *, above_epoch: int = 0) -> Standing:
        """Begin to write under *config*, unless it is superseded."""
        return self._enter(config, above_epoch, is_adopted=False)

    def adopt(self, config: str, *, above_epoch: int = 0) -> Standing:
        """Begin to write under *config*, superseded or not, and mark everybody."""
        return self._enter(config, above_epoch, is_adopted=True)

    def _enter(self, config: str, above_epoch: int, *, is_adopted: bool) -> Standing:
        def work(session: Session) -> Standing:
            self._layout.refuse_older(session.connection)
            before = people.standing(session, self.location, locked=True)
            return people.enter(session, before, config, above_epoch, is_adopted=is_adopted)

        return self._together("write", work)

    # --- leases

    def lease(
        self, owners: Sequence[str], holder: str, seconds: float, *, over: Sequence[str] = ()
    ) -> Mapping[str, str]:
        """Lease those of *owners* that are to be had."""
        if not owners:
            return {}
        return self._once(
            "write", lambda session: queue.lease(session, owners, holder, seconds, over)
        )

    def renew(self, owners: Sequence[str], holder: str, seconds: float) -> None:
        """Prolong the leases that *holder* still has."""
        if owners:
            self._once("write", lambda session: queue.renew(session, owners, holder, seconds))

    def release(self, owners: Sequence[str], holder: str) -> None:
        """Give up the leases that *holder* has."""
        if owners:
            self._once("write", lambda session: queue.release(session, owners, holder))

    # --- the protocol's steps

    def note(self, owners: Sequence[str]) -> Note:
        """What is remembered of *owners*, in one moment."""
        found = self._once("read", lambda session: entities.note(session, owners))
        if found is None:
            raise people.missing(self.location)
        return found

    def observe(self, observations: Sequence[Observation]) -> frozenset[str]:
        """Accept those observations before which no other was accepted."""
        if not observations:
            return frozenset()
        return self._together("write", lambda session: entities.observe(session, observations))

    def raise_versions(self, raises: Sequence[VersionRaise]) -> frozenset[str]:
        """Raise the rows of owners whose rows are all as observed."""
        if not raises:
            return frozenset()
        return self._together("write", lambda session: entities.raise_versions(session, raises))

    def suspect(self, owners: Sequence[str], seconds: float) -> None:
        """Remember that writes may still land for so long."""
        if owners:
            self._once("write", lambda session: queue.suspect(session, owners, seconds))

    def acknowledge(self, acknowledgements: Sequence[Acknowledgement], holder: str) -> None:
        """End syncs that succeeded."""
        left = [done.owner_id for done in acknowledgements if done.generation is None]
        read_back = [done for done in acknowledgements if done.published]

        def work(session: Session) -> None:
            if left:
                entities.hold(session, (done.owner_id for done in acknowledgements))
            queue.acknowledge(session, acknowledgements, holder)
            entities.read_back(session, read_back)
            if left:
                queue.release(session, left, holder)

        if acknowledgements:
            # Without anything to read back and without anybody left it is a single statement.
            do = self._together if left or read_back else self._once
            do("write", work)

    def fail(self, failures: Sequence[Failure], holder: str) -> None:
        """End syncs that did not succeed."""
        if failures:
            self._once("write", lambda session: queue.fail(session, failures, holder))

    def park(self, parkings: Sequence[Parking]) -> None:
        """Remember records that cannot be made."""
        if parkings:
            self._together("write", lambda session: entities.park(session, parkings))

    def unpark(self, owners: Sequence[str] | None) -> int:
        """Let parked records be tried again at once."""

        def work(session: Session) -> int:
            found = entities.parked_owners(session, owners)
            if found:
                queue.mark(session, found, 0)
                queue.let_try(session, found)
                entities.unpark(session, found)
            return sum(found.values())

        return self._together("write", work)

    def parked(self, limit: int) -> Sequence[ParkedRecord]:
        """Parked records, by owner, kind and id."""
        return self._once("read", lambda session: entities.parked(session, limit))

    # --- who is to be looked at

    def mark(self, owners: Sequence[str], *, priority: int = 0) -> None:
        """Raise the generation of *owners*."""
        if owners:
            self._once("write", lambda session: queue.mark(session, owners, priority))

    def mark_everyone(self, *, again_after_seconds: float | None = None) -> None:
        """Raise the round."""
        self._once("write", lambda session: queue.mark_everyone(session, again_after_seconds))

    def claim_dirty(self, holder: str, limit: int, seconds: float) -> Sequence[DirtyOwner]:
        """Lease dirty owners that are free and due."""
        return self._once("write", lambda session: queue.claim(session, holder, limit, seconds))

    def dirty_owners(self, limit: int, after: str | None = None) -> Sequence[str]:
        """Dirty owners behind *after*, by code point, whoever has them."""
        return self._once("read", lambda session: queue.dirty(session, limit, after))

    def settled_owners(self, owners: Sequence[str]) -> Mapping[str, int]:
        """Those of *owners* of whom nothing is left to do, with their live entities."""
        return self._once("read", lambda session: queue.settled(session, owners)) if owners else {}

    def stale_owners(self, owners: Sequence[str], seconds: float) -> Sequence[str]:
        """Those of *owners* that were not verified within *seconds*."""
        return self._once("read", lambda session: queue.stale(session, owners, seconds))

    def scrub_turn(self, holder: str, seconds: float) -> ScrubTurn | None:
        """Lease the scrub."""
        return self._once("write", lambda session: queue.scrub_turn(session, holder, seconds))

    def scrubbed(self, holder: str, after: str | None, *, is_second_side: bool) -> None:
        """Remember how far the scrub is."""
        self._once(
            "write",
            lambda session: queue.scrubbed(session, holder, after, is_second_side=is_second_side),
        )

    # --- safety, housekeeping, people

    def spend_deletes(self, planned: Mapping[str, int], allow: AllowDeletes) -> str | None:
        """Count deletes, if *allow* lets them pass."""

        def work(session: Session) -> str | None:
            people.standing(session, self.location, locked=True)
            return people.spend(session, planned, allow)

        return self._sessions.untried("write", work)  # so often is *allow* to be asked

    def buried(self, older_than_seconds: float, limit: int) -> Sequence[Buried]:
        """Rows of entities that have been deleted for longer."""
        return self._once(
            "read", lambda session: entities.buried(session, older_than_seconds, limit)
        )

    def forget(self, rows: Sequence[Buried]) -> None:
        """Remove rows that are still deleted and of that version."""
        if rows:
            self._together("write", lambda session: entities.forget(session, rows))

    def report_worker(self, report: WorkerReport) -> None:
        """Say that a worker is alive."""
        self._once("write", lambda session: people.report(session, report))

    def worker_left(self, worker_id: str) -> None:
        """Say that a worker has ended."""
        self._once("write", lambda session: people.left(session, worker_id))

    def summary(self) -> StateSummary:
        """The state in numbers."""
        return self._together("read", lambda session: people.summary(session, self.location))

    def close(self) -> None:
        """Close every connection. Safe to call twice."""
        self._sessions.close()
