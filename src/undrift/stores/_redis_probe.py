"""Looks at a Redis store: what `_described_probe` looks at, and what the server's settings do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

from undrift.errors import UndriftError
from undrift.findings import Finding, of_error, ok, warning
from undrift.stores._described_probe import probe_described
from undrift.stores._redis_address import parse_address
from undrift.stores._redis_errors import mapped_errors
from undrift.stores._redis_notices import facts_of, notices_of
from undrift.stores._redis_reading import Reading
from undrift.stores._redis_sessions import Sessions
from undrift.stores.probe import COUNTED_RECORDS, RecordCount, StoreProbe


def probe_redis(url: str) -> StoreProbe:
    """Look at the store of *url*; writes nothing."""
    probe = probe_described(url)
    if probe.exists is None:
        return probe
    address = parse_address(url)
    counts: list[RecordCount] | None = None
    with closing(Sessions(address)) as sessions:
        try:
            with mapped_errors(address, "read"), sessions.session() as session:
                findings = list(_settings(facts_of(session)))
            if probe.exists:
                reading = Reading(address, sessions)
                counts = [RecordCount(*row) for row in reading.counted(COUNTED_RECORDS)]
        except UndriftError as error:
            findings = [of_error("store.rights", error)]
    return replace(probe, findings=(*probe.findings, *findings), counts=counts)


def _settings(facts: dict[str, str]) -> Iterator[Finding]:
    said = list(notices_of(facts))
    for notice in said:
        yield warning(f"store.{notice.topic}", notice.summary, notice.fix)
    if "durability" not in {notice.topic for notice in said} and "aof_enabled" in facts:
        yield ok("store.durability", "It writes an append-only file")
