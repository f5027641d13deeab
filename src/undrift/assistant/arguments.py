"""What a language model gave for an argument, made sense of or refused in words for it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Literal

import orjson

from undrift.assistant.draft import Fields
from undrift.fingerprint import is_storable_id
from undrift.identity import MAX_ID_BYTES
from undrift.model import Candidate, Retry

_QUOTED_CHARACTERS = 200


class Refused(Exception):
    """Ends an edit before anything is written.

    Attributes:
        code: why; see `undrift.Retry`.
        asked: the reference that was meant, if one was.
        message: what to tell the model.
        candidates: what it may have meant.
    """

    def __init__(
        self,
        code: Literal["stale_reference", "ambiguous_reference", "invalid_arguments"],
        message: str,
        *,
        asked: str = "",
        candidates: Sequence[Candidate] = (),
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.asked = asked
        self.candidates = tuple(candidates)


def invalid(message: str, *, asked: str = "") -> Refused:
    """The arguments make no sense."""
    return Refused("invalid_arguments", message, asked=asked)


def invalid_arguments(owner_id: str, message: str) -> Retry:
    """The answer to a call that makes no sense."""
    return Retry(owner_id=owner_id, code="invalid_arguments", missing_id="", message=message)


def quoted(text: str) -> str:
    """*text* in quotes, shortened: a model must not be answered with megabytes of its own."""
    return repr(text if len(text) <= _QUOTED_CHARACTERS else f"{text[:_QUOTED_CHARACTERS]}…")


def fields_given(given: object, what: str) -> Fields:
    """The fields of an entry as they may be written.

    Args:
        what: what is given, for the message.

    Raises:
        Refused: it is no object, empty, or not JSON that every database takes.
    """
    fields = dict(given) if isinstance(given, Mapping) else {}
    reason = "it is empty, or no object" if not fields else unwritable(fields)
    if reason is not None:
        raise invalid(f"The {what} cannot be saved: {reason}.")
    return fields


def name_given(given: object, parameter: str) -> str:
    """The id or title that *given* is; an integer is the id that prints like it.

    Raises:
        Refused: it can be neither.
    """
    if isinstance(given, int) and not isinstance(given, bool):
        # Python refuses to print numbers of thousands of digits.
        given = str(given) if given.bit_length() < MAX_ID_BYTES else "9" * (MAX_ID_BYTES + 1)
    if not isinstance(given, str):
        raise invalid(f"{parameter} must be a text.")
    if not given.strip():
        raise invalid(f"{parameter} is empty.")
    if len(given) > MAX_ID_BYTES:
        raise invalid(f"{parameter} is too long: nothing here has so long a name.")
    if not is_storable_id(given):
        raise invalid(f"{parameter} holds a NUL or half a surrogate pair, as no name here does.")
    return given


def unwritable(value: object) -> str | None:
    """Why *value* cannot go into a document, or None: it must be JSON that every database takes."""
    try:
        json.dumps(value, allow_nan=False)
        orjson.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return "it holds something that is no JSON, is nested too deeply or is no finite number"
    return None if _is_storable(value) else "it holds a NUL character"


def _is_storable(value: object) -> bool:
    if isinstance(value, str):
        return is_storable_id(value)
    if isinstance(value, dict):
        return all(map(_is_storable, (*value, *value.values())))
    return all(map(_is_storable, value)) if isinstance(value, list | tuple) else True
