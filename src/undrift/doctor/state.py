"""The state: where it is, whose the vectors are, and whether this configuration may write."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing

from undrift.api import Undrift
from undrift.config import Settings
from undrift.errors import UndriftError
from undrift.findings import Finding, of_error, ok, problem
from undrift.service import StateInfo
from undrift.state import TransactionalStore
from undrift.states.rights import lacking_grants
from undrift.stores import open_store


def probe_state(settings: Settings) -> Iterator[Finding]:
    """Look at the state of *settings*, both sides of which have been found to be there."""
    try:
        lacking = _lacking(settings)
        if lacking:
            summary = "The state's role may not read and write all of its tables"
            fix = f"let their owner run: {'; '.join(lacking)}"
            yield problem("state.rights", summary, fix, stops_check=False)
            return
        with Undrift.from_settings(settings) as sides:
            info = sides.state_info()
    except UndriftError as error:
        yield of_error("state.place", error, stops_check=False)
        return
    yield ok("state.place", _place(info))
    if info.refusal is not None:
        yield of_error("state.right", info.refusal, stops_check=False)
    elif info.claim is not None:
        yield ok("state.right", "The vectors belong to it, and this configuration may write them")


def _lacking(settings: Settings) -> Sequence[str]:
    """The grants without which the role can write no state."""
    url = settings.state_url
    if url is None and settings.store_url is not None:
        with closing(open_store(settings.store_url, namespace=settings.namespace)) as store:
            if isinstance(store, TransactionalStore):
                url, _ = store.state_address()
    return () if url is None else lacking_grants(url)


def _place(info: StateInfo) -> str:
    if info.standing is None:
        return f"{info.location} has not been created yet; the first sync creates it"
    return f"{info.location} is the state {info.standing.state_id}, epoch {info.standing.epoch}"
