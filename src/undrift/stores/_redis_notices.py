"""What a Redis server's settings do to vectors: what it may lose, and what it throws away."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from redis import exceptions

from undrift.stores._redis_address import Address
from undrift.stores._redis_sessions import Session

_log = logging.getLogger(__name__)


class Notice(NamedTuple):
    """Something that a person should know.

    Attributes:
        topic: what it is about.
        summary: a sentence without a full stop.
        fix: the next step.
    """

    topic: str
    summary: str
    fix: str


def notices_of(facts: Mapping[str, str]) -> Iterator[Notice]:
    """What is to be said of a server of which `facts_of` tells *facts*."""
    if facts.get("aof_enabled") == "0":
        yield Notice(
            "durability",
            "It keeps no append-only file: what is written since its last snapshot is gone when "
            "it ends unexpectedly",
            "CONFIG SET appendonly yes, and the same in its configuration file",
        )
    policy = facts.get("maxmemory_policy", "noeviction")
    if facts.get("maxmemory", "0") != "0" and policy.startswith("allkeys"):
        yield Notice(
            "eviction",
            f"It throws away any keys when its memory is full (maxmemory-policy {policy}), "
            "vectors too",
            "CONFIG SET maxmemory-policy noeviction, or volatile-lru where other keys expire",
        )


def tell_notices(session: Session, address: Address) -> None:
    """Put the notices into the log."""
    for notice in notices_of(facts_of(session)):
        _log.warning(
            "%s: %s: %s",
            address.location,
            notice.summary,
            notice.fix,
            extra={"action": "store.notice"},
        )


def facts_of(session: Session) -> dict[str, str]:
    """What ``INFO`` says; nothing where the user may not ask."""
    facts: dict[str, str] = {}
    for answer in session.ask(("INFO", "server"), ("INFO", "memory"), ("INFO", "persistence")):
        if isinstance(answer, exceptions.ResponseError):
            continue
        text = answer.decode(errors="replace") if isinstance(answer, bytes) else str(answer)
        lines = (line.partition(":") for line in text.splitlines())
        facts.update({name: value for name, separator, value in lines if separator})
    return facts
