"""The state: where it is, whose the vectors are, and whether this configuration may write."""

from __future__ import annotations

from collections.abc import Iterator

from undrift.api import Undrift
from undrift.config import Settings
from undrift.errors import UndriftError
from undrift.findings import Finding, of_error, ok
from undrift.service import StateInfo


def probe_state(settings: Settings) -> Iterator[Finding]:
    """Look at the state of *settings*, both sides of which have been found to be there."""
    try:
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


def _place(info: StateInfo) -> str:
    if info.standing is None:
        return f"{info.location} has not been created yet; the first sync creates it"
    return f"{info.location} is the state {info.standing.state_id}, epoch {info.standing.epoch}"
