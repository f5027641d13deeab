"""What opens both sides anew somewhere else: in another process, or on another machine."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from ipaddress import ip_address
from typing import Protocol
from urllib.parse import parse_qs

from undrift.adoption import StoreFields
from undrift.digests import FORMAT
from undrift.errors import ConfigError, UnknownStateError
from undrift.events import Listener
from undrift.guarded import Passes
from undrift.ledger import Ledger, config_digest
from undrift.look import Sides
from undrift.mapping import Mapping as SourceMapping
from undrift.memory import FleetMemory, Remembering
from undrift.ports import Embedder
from undrift.render import Renderer
from undrift.scan.page import PageCheck
from undrift.scan.settled import SettledOwners
from undrift.sources import open_source
from undrift.state_access import StateAccess
from undrift.stores import open_store
from undrift.sync import Synchronizer, SyncOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Addresses and rules, and nothing that is open; can be pickled.

    Attributes:
        source_url: with its password, as the others.
        state_url: None for the usual place.
        model: the identity that current embeddings carry.
    """

    source_url: str = field(repr=False)
    store_url: str = field(repr=False)
    state_url: str | None = field(repr=False)
    mapping: SourceMapping
    namespace: str
    keep_text: bool
    fields: StoreFields | None
    model: str

    def open_check(self, *, with_memos: bool) -> PageCheck:
        """Open both sides, for as long as the process lives, and what checks pages of them."""
        sides = self._sides()
        memory = memory_of(self._states(sides)) if with_memos else None
        return PageCheck(sides, memory, key=memo_key(self.mapping))

    def open_sync(self, options: SyncOptions, embedder: Embedder) -> Synchronizer:
        """Open both sides and the state, for as long as the process lives, and a sync of pages.

        Raises:
            ConfigError: another configuration has taken over, or nothing was created yet.
            UnknownStateError: a side or the state cannot be reached.
        """
        sides = self._sides()
        states = self._states(sides)
        ledger = states.ledger(sides, options.listener, may_create=False)
        settled = settled_owners(sides, states, ledger, options)
        return Synchronizer(sides, embedder, options, ledger=ledger, settled=settled)

    def _sides(self) -> Sides:
        renderer = Renderer(self.mapping)
        source = open_source(self.source_url, self.mapping, renderer.fields)
        store = open_store(
            self.store_url, namespace=self.namespace, keep_text=self.keep_text, fields=self.fields
        )
        return Sides(
            source=source,
            store=store,
            renderer=renderer,
            model=self.model,
            store_exists=store.describe().exists,
        )

    def _states(self, sides: Sides) -> StateAccess:
        return StateAccess(sides.store, self.state_url, is_own_store=False)


@dataclass(frozen=True, slots=True)
class Opening:
    """Opens what a recipe describes; can be pickled."""

    recipe: Recipe
    with_memos: bool

    @property
    def here_only(self) -> tuple[str, ...]:
        """The sides that cannot be opened on another machine, for people."""
        sides = {"the source": self.recipe.source_url, "the vector store": self.recipe.store_url}
        return tuple(side for side, url in sides.items() if means_this_machine(url))

    def __call__(self) -> PageCheck:
        """Open both sides, and what checks pages of them."""
        return self.recipe.open_check(with_memos=self.with_memos)


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncOpening:
    """Opens a sync of what a recipe describes; can be pickled.

    Attributes:
        options: without a listener, which exists in one process only.
    """

    recipe: Recipe
    options: SyncOptions

    @property
    def here_only(self) -> tuple[str, ...]:
        """The sides that cannot be opened on another machine, for people."""
        state = self.recipe.state_url
        is_elsewhere = state is not None and means_this_machine(state)
        sides = Opening(self.recipe, with_memos=True).here_only
        return (*sides, "the state") if is_elsewhere else sides

    def __call__(self, embedder: Embedder, listener: Listener) -> Synchronizer:
        """Open both sides and the state; vectors come from *embedder*."""
        return self.recipe.open_sync(replace(self.options, listener=listener), embedder)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedderOpening:
    """Opens an embedder.

    Attributes:
        model: the identity that its vectors carry.
        dimension: of its vectors.
        open: makes one; can be pickled, unless it holds an object of the caller's that cannot.
    """

    model: str
    dimension: int
    open: Callable[[], Embedder] = field(repr=False)


class SyncEngine(Protocol):
    """Has the pages of a sync of everybody carried elsewhere."""

    def __call__(
        self, opening: SyncOpening | None, embedding: EmbedderOpening, listener: Listener, /
    ) -> AbstractContextManager[Passes]:
        """Begin, until the context ends.

        Args:
            opening: None where the sides cannot be opened in another process.
            listener: told what happened there.
        """


def means_this_machine(url: str) -> bool:
    """Whether *url* names another database when it is used on another machine.

    So do files, sockets and loopback addresses, and URLs without a host.
    """
    _, _, rest = url.partition("://")
    authority, _, query = rest.partition("?")
    named = authority.partition("/")[0].rpartition("@")[2].split(",")
    hosts = parse_qs(query).get("host", named)  # libpq takes it in either place
    return any(map(_is_this_machine, hosts))


def _is_this_machine(host: str) -> bool:
    if host.startswith("["):
        name = host[1:].partition("]")[0]
    else:
        name = host.partition(":")[0] if host.count(":") == 1 else host
    if name in ("", "localhost") or name.startswith("/"):
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def memory_of(states: StateAccess) -> FleetMemory | None:
    """The memory of a state that is there; None where there is none that can be asked.

    A check needs none: it reads more instead.
    """
    try:
        if not states.is_kept or not states.state.exists():
            return None
        state = states.state
        if not isinstance(state, Remembering):
            return None
        memory = state.memory
        memory.memos(["?"], "")  # an older undrift's state has none, and some roles may not read it
    except (ConfigError, UnknownStateError):
        return None
    return memory


def settled_owners(
    sides: Sides, states: StateAccess, ledger: Ledger | None, options: SyncOptions
) -> SettledOwners | None:
    """What tells who needs nothing; None where everybody is to be looked at."""
    if ledger is None or ledger.fence is None or options.force or options.retry_parked:
        return None
    check = PageCheck(sides, memory_of(states), key=memo_key(sides.renderer.mapping))
    return SettledOwners(check, ledger.state) if check.uses_memos else None


def memo_key(mapping: SourceMapping) -> str:
    """What a memo's content depends on besides the source's: the mapping, and who renders it."""
    return f"{FORMAT}/{release()}/{config_digest(mapping, model='')}"


@cache
def release() -> str:
    """Which release of undrift this is."""
    try:
        return version("undrift")
    except PackageNotFoundError:  # run from a folder, without being installed
        return "?"
