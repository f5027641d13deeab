"""What the answers of an embedding server mean: worth another try, refused, or misconfigured.

Nothing of an answer's prose is repeated: providers quote the text, and parts of the key. Only its
status and its codes are, and those only where they look like codes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from undrift.errors import ConfigError, EmbeddingFailed, TransientError, UndriftError

MAX_RETRY_AFTER_SECONDS: Final = 60.0
"""The longest wait that is granted; OpenAI's limits are counted by the minute."""

_NO_CREDIT = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"}
_PASSING_STATUS = {408, 409, 425, 429}
_TEXT_STATUS = {400, 413, 422}
_CODE = re.compile(r"[A-Za-z0-9_.$\[\]-]{1,64}")
_NUMBER = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")


class PassingFault(TransientError):
    """The server did not answer this time.

    Attributes:
        reason: what was met, for a sentence.
        wait_seconds: how long the server asks to wait; None if it says nothing.
    """

    def __init__(self, reason: str, *, wait_seconds: float | None = None) -> None:
        super().__init__(
            "The embedding server did not answer", why=f"{reason}.", fix="try again later"
        )
        self.reason = reason
        self.wait_seconds = wait_seconds


class TextRefused(EmbeddingFailed):
    """The server refuses what it was sent; it would refuse the same again."""


def next_wait(exc: Exception) -> bool | float:
    """Whether and when to try again after *exc*, as a stamina backoff hook.

    Units:
        Seconds, as the server asked; True stands for exponential backoff with jitter.
    """
    if not isinstance(exc, PassingFault):
        return False
    if exc.wait_seconds is None:
        return True
    if exc.wait_seconds > MAX_RETRY_AFTER_SECONDS:
        return False
    return exc.wait_seconds


def retry_after_seconds(headers: Mapping[str, str], now: datetime) -> float | None:
    """How long the answer's headers ask to wait; None if they do not say.

    Source:
        RFC 9110, section 10.2.3: seconds, or a date. OpenAI and Azure also send milliseconds.
    """
    milliseconds = headers.get("retry-after-ms", "").strip()
    if _NUMBER.fullmatch(milliseconds):
        return float(milliseconds) / 1000
    value = headers.get("retry-after", "").strip()
    if _NUMBER.fullmatch(value):
        return float(value)
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return max(0.0, (at - now).total_seconds())


def status_error(
    status: int, codes: Mapping[str, str | None], headers: Mapping[str, str], *, model: str
) -> UndriftError:
    """What an answer with the HTTP status *status* means.

    Args:
        codes: the answer's ``code``, ``type`` and ``param``.
    """
    said = _said(status, codes)
    if status == 402 or (status == 429 and _NO_CREDIT & {codes.get("code"), codes.get("type")}):
        return ConfigError(
            "The account with the embedding provider has no credit",
            why=f"it answered {said}; waiting does not help.",
            fix="add credit or raise the limit there, then run the same command again; what was "
            "written is kept",
        )
    if status in _PASSING_STATUS or status >= 500:
        wait = retry_after_seconds(headers, datetime.now(UTC))
        return PassingFault(f"it answered {said}", wait_seconds=wait)
    if status in {401, 403}:
        return ConfigError(
            "The embedding server does not accept the key",
            why=f"it answered {said}.",
            fix="set OPENAI_API_KEY to a valid key for OpenAI; for another server name the "
            "variable that holds its key: api_key = 'env:NAME' under [embedder]",
        )
    if status == 404:
        return ConfigError(
            f"The embedding server does not know the model {model!r}, or is no such server",
            why=f"it answered {said}.",
            fix="check the name behind 'openai:' and the address in base_url, which nearly always "
            "ends in /v1",
        )
    if status in _TEXT_STATUS:
        return TextRefused(
            "The embedding server refuses the texts",
            why=f"it answered {said}.",
            fix="set UNDRIFT_EMBEDDER__MAX_TEXT_TOKENS to what the model reads, or "
            "UNDRIFT_EMBEDDER__BATCH_TEXTS to what the server takes at once",
        )
    return EmbeddingFailed(
        "The embedding server answered something unexpected",
        why=f"it answered {said}.",
        fix="check the address in base_url; what was written is kept",
    )


def gave_up(fault: PassingFault, *, attempts: int) -> EmbeddingFailed:
    """The error after the last attempt."""
    tries = "once" if attempts == 1 else f"{attempts} times"
    why = f"it was asked {tries}, and at last {fault.reason}."
    wait = fault.wait_seconds
    if wait is not None and wait > MAX_RETRY_AFTER_SECONDS:
        why = f"{fault.reason} and asks to wait {wait:.0f} s, longer than undrift waits by itself."
    failed = EmbeddingFailed(
        "The embedding server gives no vectors at the moment",
        why=why,
        fix="run the same command again later; what was written is kept, and only the rest is "
        "embedded",
    )
    failed.retry_after_seconds = wait
    return failed


def _said(status: int, codes: Mapping[str, str | None]) -> str:
    parts = [f"HTTP {status}"]
    for name in ("code", "type", "param"):
        value = codes.get(name)
        if value and _CODE.fullmatch(value):
            parts.append(f"{name} {value}")
    return ", ".join(parts)
