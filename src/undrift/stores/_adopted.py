"""What every adapter does with the records of another program."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from undrift.errors import ConfigError
from undrift.fingerprint import storable_text, text_hash
from undrift.mapping import MAX_EMBEDDED_CHARACTERS

STAMP_KEY = "undrift"
"""The key under which a stamp lies among another program's fields."""

# As many digits as 64 bits always hold.
_INTEGER = re.compile("0|-?[1-9][0-9]{0,17}")


def hash_of(text: str | None) -> str:
    """The text_hash of a text as a collection holds it; empty where it holds none."""
    if text is None:
        return ""
    embedded = storable_text(text).strip()[:MAX_EMBEDDED_CHARACTERS]
    return text_hash(embedded.encode())


def value_at(fields: Mapping[str, object], path: Sequence[str]) -> object:
    """What lies at *path* in nested objects; None where nothing does."""
    found: object = fields
    for key in path:
        if not isinstance(found, Mapping):
            return None
        found = found.get(key)
    return found


def id_at(fields: Mapping[str, object], path: Sequence[str]) -> str:
    """An id at *path* as text; empty where there is none. The number 7 reads "7"."""
    found = value_at(fields, path)
    if isinstance(found, str):
        return found
    return str(found) if isinstance(found, int) and not isinstance(found, bool) else ""


def put_at(fields: dict[str, object], path: Sequence[str], value: object) -> None:
    """Put *value* at *path*; what is no object on the way becomes one. Nested ones are copied."""
    *above, last = path
    for key in above:
        inner = fields.get(key)
        fields[key] = dict(inner) if isinstance(inner, Mapping) else {}
        fields = fields[key]  # type: ignore[assignment]
    fields[last] = value


def as_number(id_: str) -> int | None:
    """The number that *id_* spells just as it would be printed; None if it spells none."""
    return int(id_) if _INTEGER.fullmatch(id_) else None


def typed(id_: str, *, is_number: bool) -> str | int:
    """*id_* as the other program stores ids: what it holds as a number stays one."""
    number = as_number(id_) if is_number else None
    return id_ if number is None else number


def misfit(location: str, why: str, fix: str) -> ConfigError:
    """The collection at *location* is not as the fields say; *fix* ends before "[store.fields]"."""
    return ConfigError(
        "The collection is not as [store.fields] says",
        why=f"{location}: {why}.",
        fix=f"{fix} [store.fields] of undrift.toml; `undrift init` proposes one",
    )
