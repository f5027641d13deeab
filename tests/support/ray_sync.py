"""A process that syncs everybody for a test, on Ray or by itself, and can be held in mid-run.

Every text that is embedded is noted in a file, wherever that is; from a certain number of pages on
whoever has embedded waits, with nothing of it written, until another file appears.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from support.closing import Closing
from support.ray_driver import TESTS, WAIT_SECONDS, Notes
from support.sides import CountingEmbedder
from undrift import Undrift, failpoints, sync
from undrift.engines.embedding import EmbedderPool
from undrift.engines.sync_on_ray import on_cluster
from undrift.errors import EmbeddingFailed, UndriftError
from undrift.events import Listener
from undrift.fleet import fleet_pages
from undrift.guarded import Passes
from undrift.ports import Embedder, Purpose, Vectors
from undrift.recipe import EmbedderOpening, SyncOpening
from undrift.sync import Synchronizer

PAGE_OWNERS = 10

RETRY_AFTER_SECONDS = 7.5

BUSY, BROKEN = "a text that is refused", "a text that breaks the model"


class NotedEmbedder(CountingEmbedder):
    """The usual embedder of the tests, which notes its texts in a file and can be held.

    Texts with `BUSY` or `BROKEN` in them fail.
    """

    def __init__(self, folder: str, hold_after: int | None) -> None:
        super().__init__()
        self._notes = Notes(folder, hold_after)

    def embed(self, texts: Sequence[str], purpose: Purpose = "document") -> Vectors:
        """Embed *texts*, and note them."""
        if any(BUSY in text for text in texts):
            busy = EmbeddingFailed("The embedder is busy", why="it says so.", fix="wait")
            busy.retry_after_seconds = RETRY_AFTER_SECONDS
            raise busy
        if any(BROKEN in text for text in texts):
            raise ConnectionError(f"broken by {BROKEN}")
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        written = json.dumps([gpus, *texts], separators=(",", ":"))
        self._notes.begin(written.replace(" ", "_"))  # a note has no blank in it
        return super().embed(texts, purpose)


@dataclass(frozen=True)
class HeldOpening:
    """An opening of syncs that note each page that has its vectors, and can be held there."""

    inner: SyncOpening
    notes: Notes

    @property
    def here_only(self) -> Sequence[str]:
        """The inner one's."""
        return self.inner.here_only

    def __call__(self, embedder: Embedder, listener: Listener) -> Synchronizer:
        """Open them."""

        def look(failpoint: str) -> None:
            if failpoint == "sync.embedded":
                self.notes.begin("page")

        failpoints.install(look)
        return self.inner(embedder, listener)


# --- the test's end -------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class SyncRun:
    """What a driver is to do.

    Attributes:
        address: of the Ray cluster; None syncs in threads of the process.
        notes: a folder, with one for the pages and one for the texts in it.
        hold_pages: pages that get their vectors before those behind them wait.
        hold_texts: as many calls of the embedder.
        retries: of pages; and of texts.
    """

    source: str
    notes: str
    address: str | None = None
    hold_pages: int | None = None
    hold_texts: int | None = None
    retries: int = 5
    text_retries: int = 5
    embedders: int = 1
    gpus: float = 0.0
    max_delete: str | None = None
    max_embeddings: int | None = None


class Synced(NamedTuple):
    """What a driver said.

    Attributes:
        error: the class of what ended it, and empty where nothing did.
        outcomes: owners, by outcome.
        failed: whoever has an error, with its class and how long the embedder asks to be left.
        deleted: records.
    """

    error: str
    outcomes: Mapping[str, int]
    failed: Mapping[str, Sequence[object]]
    deleted: int


class SyncDriver(Closing):
    """A process at work on *run*.

    Attributes:
        pages: notes of the pages that have their vectors.
        texts: notes of the texts that were embedded.
    """

    def __init__(self, run: SyncRun, variables: Mapping[str, str]) -> None:
        for name in ("pages", "texts"):
            Path(run.notes, name).mkdir(parents=True)
        self.pages, self.texts = (Notes(str(Path(run.notes, n))) for n in ("pages", "texts"))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "support.ray_sync", json.dumps(asdict(run))],
            cwd=TESTS,
            env=os.environ | dict(variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )

    def embedded(self) -> list[str]:
        """Every text that was embedded so far, repetitions included."""
        return [t for call in self.texts.begun() for t in json.loads(call.owner)[1:]]

    def gpus(self) -> set[tuple[int, str]]:
        """The processes that embedded, each with the GPUs that it was given."""
        return {(call.pid, json.loads(call.owner)[0]) for call in self.texts.begun()}

    def release(self) -> None:
        """Let everything that is held go on."""
        self.pages.release()
        self.texts.release()

    def kill(self) -> None:
        """``kill -9``."""
        self._process.kill()
        self._process.wait(WAIT_SECONDS)

    def synced(self) -> Synced:
        """Wait for the end."""
        out, _ = self._process.communicate(timeout=WAIT_SECONDS)
        assert self._process.returncode == 0
        return Synced(*json.loads(out))

    def close(self) -> None:
        """End it, however far it is."""
        self._process.kill()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process.wait(WAIT_SECONDS)


# --- the driver -----------------------------------------------------------------------------------


def main() -> None:
    """Sync everybody as the argument says, and print what came of it."""
    run = SyncRun(**json.loads(sys.argv[1]))
    vars(sync)["fleet_pages"] = partial(fleet_pages, page_owners=PAGE_OWNERS)
    error, deleted = "", 0
    outcomes: Counter[str] = Counter()
    failed: dict[str, Sequence[object]] = {}
    embedder = NotedEmbedder(str(Path(run.notes, "texts")), run.hold_texts)
    with Undrift(source=run.source, store=run.source, embedder=embedder) as sides:
        engine = None if run.address is None else partial(carried, run)
        try:
            for report in sides.sync_all(
                max_delete=run.max_delete, max_embeddings=run.max_embeddings, engine=engine
            ):
                outcomes[str(report.outcome)] += 1
                deleted += report.deleted
                if report.error is not None:
                    retry_after = getattr(report.error, "retry_after_seconds", None)
                    failed[report.owner_id] = (type(report.error).__name__, retry_after)
        except UndriftError as exc:
            error = type(exc).__name__
    print(json.dumps([error, outcomes, failed, deleted]))


def carried(
    run: SyncRun, opening: SyncOpening | None, embedding: EmbedderOpening, listener: Listener
) -> AbstractContextManager[Passes]:
    """Who carries the pages of *run*."""
    assert opening is not None
    return on_cluster(
        HeldOpening(opening, Notes(str(Path(run.notes, "pages")), run.hold_pages)),
        embedding,
        listener,
        address=run.address,
        pool=EmbedderPool(embedders=run.embedders, gpus=run.gpus, max_retries=run.text_retries),
        max_retries=run.retries,
        max_embeddings=run.max_embeddings,
    )


if __name__ == "__main__":
    from support import ray_sync  # under its name, by which the nodes find what it sends them

    ray_sync.main()
