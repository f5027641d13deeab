"""Where the state of a store is, and the right to write that comes from it."""

from __future__ import annotations

from dataclasses import replace
from threading import Lock

from undrift import clocks
from undrift.clocks import new_holder
from undrift.errors import ConfigError
from undrift.events import Listener, StateCreated
from undrift.ledger import Ledger, config_digest
from undrift.look import Sides
from undrift.ports import VectorStore
from undrift.state import ClaimableStore, ObservingFence, State, TransactionalStore
from undrift.states import open_state

# What a store's address says of how it is used, and not of where it is.
_USES = {"search", "vectors"}

READER_PRIORITY = 10
"""What a reader has met goes before what only a trigger has told of."""


class StateAccess:
    """The state of one store, opened when it is first asked for.

    Beside the vectors when the store's database can hold it: then a publish and what is remembered
    of it are one transaction. Anywhere else late writes are kept out by their versions.

    Args:
        given: a URL, any `State`, or None for the usual place.
        is_own_store: the store is an object of the caller's; without a state of its own it is
            written in the order of the versions that it holds itself.

    Safety:
        May be used from several threads.
    """

    def __init__(
        self, store: VectorStore, given: str | State | None, *, is_own_store: bool
    ) -> None:
        self._store = store
        self._given = given
        self._is_own_store = is_own_store
        self._opening = Lock()
        self._state: State | None = None
        self._fence: ObservingFence | None = None
        self._entered: Ledger | None = None

    @property
    def is_kept(self) -> bool:
        """Whether there is a state at all."""
        return self._given is not None or isinstance(self._store, TransactionalStore)

    @property
    def state(self) -> State:
        """The state, opened; it may not have been created yet.

        Raises:
            ConfigError: it has no place, or an address that is none.
        """
        with self._opening:
            if self._state is None:
                self._state, self._fence = self._open()
            return self._state

    def require_place(self) -> None:
        """See that there is a place for what a sync remembers, if it remembers anything.

        Raises:
            ConfigError: there is none.
        """
        if not self.is_kept and not self._is_own_store:
            raise _no_place(self._store)

    def ledger(self, sides: Sides, listener: Listener, *, may_create: bool) -> Ledger | None:
        """The right to write, for one run; None for a store of one's own without a state.

        Args:
            may_create: create the state where there is none yet.

        Raises:
            ConfigError: there is no state and it may not be created; see `Ledger.enter` too.
            UnknownStateError: state or store cannot be reached.
        """
        if not self.is_kept:
            if self._is_own_store:
                return None
            raise _no_place(self._store)
        state = self.state
        if self._entered is None:
            self._create(state, listener, may_create=may_create)
            entered = self._ledger(sides)
            entered.enter()
            self._entered = entered
        # Leases are one run's: two threads that sync the same owner are two holders.
        return replace(self._ledger(sides), holder=new_holder())

    def mark_first(self, owner_id: str) -> None:
        """Let whoever is free see to *owner_id* before others: a reader has met its drift."""
        if self.is_kept:
            self.state.mark([owner_id], priority=READER_PRIORITY)

    def adopting(self, sides: Sides, listener: Listener) -> Ledger:
        """A ledger that has not entered, for a person who takes a store over.

        Raises:
            ConfigError, UnknownStateError: see `ledger`.
        """
        if not self.is_kept:
            raise _no_place(self._store)
        self._create(self.state, listener, may_create=True)
        return self._ledger(sides)

    def describe(self) -> str:
        """Where it is, for people, without a password; empty where there is none to be had."""
        if not self.is_kept:
            return ""
        try:
            location = self.state.location
        except ConfigError:
            return ""  # whoever is to write will be told why
        return location if self._fence is None else "beside the vectors"

    def looking(self, sides: Sides) -> Ledger:
        """A ledger that has not entered, for whoever only looks; creates nothing.

        Raises:
            ConfigError: there is no place for a state.
        """
        if not self.is_kept:
            raise _no_place(self._store)
        return self._ledger(sides)

    def close(self) -> None:
        """Give back every connection. Safe to call twice."""
        with self._opening:
            if self._state is not None:
                self._state.close()

    def _open(self) -> tuple[State, ObservingFence | None]:
        store = self._store
        if self._given is not None and not isinstance(self._given, str):
            return self._given, None
        if isinstance(store, TransactionalStore):
            beside, scope = store.state_address()
            if self._given is None or self._given == beside:
                state = open_state(beside, scope=scope)
                return state, state.fence
            if store.capabilities.adoption is not None:
                raise _belongs_beside(store)
        if self._given is None:
            raise _no_place(store)
        location = store.describe().location
        return open_state(self._given, scope=f"{store.namespace}@{_place(location)}"), None

    def _create(self, state: State, listener: Listener, *, may_create: bool) -> None:
        if state.exists():
            if may_create:
                state.create()  # brings the layout of an older undrift up to date
            return
        if not may_create:
            raise ConfigError(
                "The state does not exist yet",
                why=f"nothing has been created at {state.location}, and only a sync that a person "
                "runs creates it.",
                fix="run `undrift sync --all`",
            )
        statements = state.ddl()
        state.create()
        listener(StateCreated(state.location, statements))

    def _ledger(self, sides: Sides) -> Ledger:
        if not isinstance(self._store, ClaimableStore):
            raise ConfigError(
                "This vector store cannot be written with a state",
                why="it keeps no claim and no tombstones, see undrift.state.ClaimableStore.",
                fix="leave state= out, or give the store those methods",
            )
        return Ledger(
            state=self.state,
            store=self._store,
            config=config_digest(sides.renderer.mapping, model=sides.model),
            source=sides.source.describe().identity,
            fence=self._fence,
            is_gone=clocks.is_gone,
        )


def _place(location: str) -> str:
    """*location* without who logs in and how: whoever writes there shares one state."""
    scheme, separator, rest = location.partition("://")
    authority, slash, path = rest.partition("/")
    path, _, query = path.partition("?")
    kept = [part for part in query.split("&") if part and part.partition("=")[0] not in _USES]
    host = authority.rpartition("@")[2]
    return f"{scheme}{separator}{host}{slash}{path}" + (f"?{'&'.join(kept)}" if kept else "")


def _belongs_beside(store: VectorStore) -> ConfigError:
    return ConfigError(
        "The state of an adopted table belongs beside it",
        why="with the state elsewhere, a delete would have to leave something behind in "
        f"{store.describe().location}, where other programs would find it.",
        fix="leave state.url out of undrift.toml (UNDRIFT_STATE__URL); the state is then in a "
        "schema of undrift's own in the same database",
    )


def _no_place(store: VectorStore) -> ConfigError:
    return ConfigError(
        "There is no place for the state",
        why=f"{store.describe().location} cannot hold it beside the vectors.",
        fix="set state.url in undrift.toml (UNDRIFT_STATE__URL): 'env:DATABASE_URL' where the "
        "source is PostgreSQL, else another postgresql://…, or sqlite:///state.db if all programs "
        "that write are on this machine",
    )
