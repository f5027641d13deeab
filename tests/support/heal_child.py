"""A process that ends, or forks, while a heal of it runs.

Arguments: what to do, the source's URL, the store's URL, and an embedding server's URL where one is
to be asked.

- ``exit``: end in the middle of a heal's batch. ``control``: of a sync in a thread of its own.
- ``pipelined``: of a sync that hands its work to further threads.
- ``down`` and ``control-down``: end while a heal, or a sync, waits for its embedding server.
- ``fork``: fork in the middle of a heal, and heal in the child.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from threading import Event, Thread, main_thread

from support.sides import DIMENSION, NAMESPACE, CountingEmbedder
from undrift import HealPolicy, Undrift
from undrift.ports import Embedder, Purpose, Vectors


class SlowEmbedder(CountingEmbedder):
    """One whose first batch takes until the main program has ended, or for as long as told."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = Event()
        self.go_on = Event()

    def embed(self, texts: Sequence[str], purpose: Purpose = "document") -> Vectors:
        """Embed *texts*, and say so."""
        if purpose == "document":
            print(f"a batch of {len(texts)}", flush=True)
            self.begun.set()
            while main_thread().is_alive() and not self.go_on.is_set():
                main_thread().join(0.01)
        return super().embed(texts, purpose)


class Noticed(logging.Handler):
    """Notices that the embedding server has failed, so that it is waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = Event()

    def emit(self, record: logging.LogRecord) -> None:
        """Look at *record*."""
        if record.getMessage().startswith("No vectors"):
            self.begun.set()


def noticed_waiting() -> Event:
    """An event that is set when an embedder begins to wait for its server."""
    noticed = Noticed()
    logger = logging.getLogger("undrift")
    logger.addHandler(noticed)
    logger.setLevel(logging.INFO)
    return noticed.begun


def opened(source: str, store: str, embedder: Embedder) -> Undrift:
    """Both sides."""
    return Undrift(
        source=source,
        store=store,
        embedder=embedder,
        namespace=NAMESPACE,
        heal=HealPolicy(wait_seconds=60, cool_down_seconds=0),
    )


def main() -> None:
    """Set off a heal and do what is asked for."""
    how, source, store, *server = sys.argv[1:]
    slow = SlowEmbedder()
    embedder: Embedder = slow
    begun = slow.begun
    if server:
        from support.embedding_server import embedder_at

        embedder, begun = (
            embedder_at(server[0], max_attempts=2, dimension=DIMENSION),
            noticed_waiting(),
        )
    sides = opened(source, store, embedder)
    if how.startswith("control"):
        Thread(target=lambda: sides.sync("1", is_guarded=True)).start()
    elif how == "pipelined":
        Thread(target=lambda: list(sides.sync_owners(["1"], max_delete="100%"))).start()
    else:
        sides._healer.mark("1")
    assert begun.wait(60)
    if how == "fork":
        slow.go_on.set()  # for the child's own heal; the parent's may go on too
        child = os.fork()
        if child == 0:
            heal = sides.heal("1")
            print(f"the child's heal: {heal.healing} {heal.error!r}", flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        sides.close()
    print("the main program ends", flush=True)


if __name__ == "__main__":
    main()
