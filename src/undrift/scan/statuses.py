"""Statuses as text, to be remembered for a run that is taken up again."""

from __future__ import annotations

import json

from undrift import errors
from undrift.errors import UndriftError, UnknownStateError
from undrift.model import EntityId, Outcome, Read, SyncStatus

_PLAIN = ("owner_id", "unstamped", "orphan_owner", "without_text", "unmanaged", "against")
_COUNTS = ("source", "store")
_IDS = (
    "missing_ids",
    "stale_ids",
    "changed_ids",
    "wrong_model_ids",
    "duplicate_ids",
    "unknown_ids",
)


def dumped(status: SyncStatus) -> str:
    """*status* as one line of JSON; its error as what it says."""
    found: dict[str, object] = {name: getattr(status, name) for name in _PLAIN}
    found |= {name: dict(getattr(status, name)) for name in _COUNTS}
    found |= {name: list(getattr(status, name)) for name in _IDS}
    found |= {"outcome": status.outcome.value, "read": status.read.value}
    found["notes"] = list(status.notes)
    error = status.error
    if error is not None:
        found["error"] = [type(error).__name__, error.what, error.why, error.fix]
    return json.dumps(found)


def loaded(text: str) -> SyncStatus:
    """The status that `dumped` wrote."""
    found: dict[str, object] = json.loads(text)
    values: dict[str, object] = {name: found[name] for name in (*_PLAIN, *_COUNTS)}
    for name in _IDS:
        values[name] = tuple(map(EntityId, _strings(found[name])))
    values["notes"] = tuple(_strings(found["notes"]))
    values["outcome"] = Outcome(str(found["outcome"]))
    values["read"] = Read(str(found["read"]))
    if "error" in found:
        values["error"] = _error(*_strings(found["error"]))
    return SyncStatus(**values)  # type: ignore[arg-type]  # by name, as `dumped` took them


def _strings(value: object) -> list[str]:
    assert isinstance(value, list)
    return [str(item) for item in value]


def _error(name: str, what: str, why: str, fix: str) -> UndriftError:
    """An error that says the same, of the same class where that is made of three parts alone."""
    found = getattr(errors, name, None)
    kind: type[UndriftError] = UnknownStateError
    if isinstance(found, type) and issubclass(found, UndriftError):
        kind = found
    made = kind.__new__(kind)
    UndriftError.__init__(made, what, why=why, fix=fix)
    return made
