"""A process that ends, or forks, while a heal of it runs.

Arguments: ``exit`` or ``control`` or ``fork``, the source's URL, the store's URL.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from threading import Event, Thread, main_thread

from support.sides import NAMESPACE, CountingEmbedder
from undrift import HealPolicy, Undrift
from undrift.ports import Purpose, Vectors


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


def main() -> None:
    """Set off a heal and do what is asked for."""
    how, source, store = sys.argv[1:]
    embedder = SlowEmbedder()
    sides = Undrift(
        source=source,
        store=store,
        embedder=embedder,
        namespace=NAMESPACE,
        heal=HealPolicy(wait_seconds=60, cool_down_seconds=0),
    )
    if how == "control":
        Thread(target=lambda: sides.sync("1", is_guarded=True)).start()
    else:
        sides._healer.mark("1")
    assert embedder.begun.wait(60)
    if how == "fork":
        embedder.go_on.set()  # for the child's own heal; the parent's may go on too
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
