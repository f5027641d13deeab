"""A process that searches one owner's records, again and again, and reports what it sees.

`support.processes.Searcher` is the other end. A request on stdin has a number; the observation that
bears it began after the request was sent.
"""

from __future__ import annotations

import json
import os
import select
from collections.abc import Mapping
from typing import Any

from support.sides import NAMESPACE, CountingEmbedder
from undrift import EntityId, Undrift
from undrift.heal import NO_HEALING
from undrift.stores import open_store

LIMIT = 1_000  # more than any owner of these tests has records, so that a search shows them all


class Watch:
    """One owner of one world, looked at like a user of the application does."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        self._owner = request["owner"]
        self._store = open_store(request["store"], namespace=NAMESPACE)
        self._sides = Undrift(
            source=request["source"],
            store=request["store"],
            state=request["state"],
            embedder=CountingEmbedder(),
            namespace=NAMESPACE,
            heal=NO_HEALING,  # it looks on; a repair of its own would take the writer's away
        )

    def observe(self) -> dict[str, list[str] | None]:
        """Search exactly, and enumerate."""
        result = self._sides.search(self._owner, "keeps books", limit=LIMIT)
        stamps = self._store.stamps([self._owner])
        return {
            "hits": sorted(hit.key for hit in result.hits),
            "stamps": sorted(EntityId.of(stamp.kind, stamp.entity_id) for stamp in stamps),
        }

    def close(self) -> None:
        """Give back every connection."""
        self._sides.close()
        self._store.close()


def main() -> None:
    """Observe without a pause until stdin is closed."""
    watch: Watch | None = None
    number = 0
    buffer = b""
    reported: object = None
    while True:
        # Idle, it waits for a request; at work, it only looks whether there is one.
        ready, _, _ = select.select([0], [], [], 0 if watch is not None else None)
        if ready:
            received = os.read(0, 65_536)
            if not received:
                break
            buffer += received
        *lines, buffer = buffer.split(b"\n")
        for line in lines:
            request = json.loads(line)
            number = request["number"]
            if "owner" in request:
                if watch is not None:
                    watch.close()
                watch = Watch(request) if request["owner"] is not None else None
        if watch is not None:
            seen = {"number": number, **watch.observe()}
            # What is seen again is not told again: a full pipe would stop the watching.
            if seen != reported:
                tell(seen)
                reported = seen
        elif lines:
            tell({"number": number, "hits": None, "stamps": None})
    if watch is not None:
        watch.close()


def tell(seen: Mapping[str, object]) -> None:
    """Write one line to stdout, at once."""
    os.write(1, json.dumps(seen).encode() + b"\n")


if __name__ == "__main__":
    main()
