"""Who takes part in a kill loop, each a forked process: the writer, the reader, and the workers.

They tell of themselves on a `Board` in shared memory, which outlives whoever is killed.
"""

from __future__ import annotations

import mmap
import os
import time
import traceback
from collections.abc import Callable
from random import Random

from kill_loop.arena import (
    OWNERS,
    STEADY_OWNERS,
    Arena,
    count_in,
    first_document,
    write_documents,
)
from support.layouts import Document
from support.naive import NaiveWriter
from support.sides import DIMENSION, NAMESPACE, ORIGIN
from undrift import guard
from undrift.changes import CapturedSource
from undrift.embedders.hashing import HashingEmbedder
from undrift.events import ignore
from undrift.look import Sides
from undrift.render import Renderer
from undrift.sources import open_source
from undrift.state_access import StateAccess
from undrift.stores import open_store
from undrift.testing.faults import kill_at
from undrift.watch import Watcher, WatchOptions

LEASE_SECONDS = 1.0
"""Of the workers in the loop; a watch's own is a minute. A killed one's owners wait for its end."""

_WRITE_SECONDS = 0.01
_IDS = ("a", "b", "c", "d")
_SKILLS = ("Go", "SQL", "Rust", "C")
_TEXTS = ("one", "two", "three")  # so few that a text comes back: A, then B, then A again

RENDERER = Renderer(ORIGIN)
"""Made once: compiling the templates takes longer than all else that a new worker does."""

Feed = Callable[[], list[str]]


class Board:
    """Numbers that all processes of a loop see.

    Attributes:
        is_resting: the writer is to stop for now; has_rested: it has.
        is_over: everybody is to come to an end.
        writes: transactions on the source.
        looks: of the reader; gaps: how often a look did not show what had been published and never
            went; older: how often it showed older content than the look before.
    """

    _NAMES = ("is_resting", "has_rested", "is_over", "writes", "looks", "gaps", "older")

    def __init__(self) -> None:
        self._numbers = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("q")

    def __getattr__(self, name: str) -> int:
        return self._numbers[self._place(name)]

    def __setattr__(self, name: str, value: object) -> None:
        if name.startswith("_"):
            super().__setattr__(name, value)
        else:
            assert isinstance(value, int)
            self._numbers[self._place(name)] = value

    def _place(self, name: str) -> int:
        if name not in self._NAMES:
            raise AttributeError(name)
        return self._NAMES.index(name)


def fork(work: Callable[[], None]) -> int:
    """Do *work* in a child of this process, and return its process id."""
    child = os.fork()
    if child:
        return child
    exit_code = 1
    try:
        work()
        exit_code = 0
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        os._exit(exit_code)


# --- the writer -----------------------------------------------------------------------------------


def write(arena: Arena, board: Board, seed: int) -> None:
    """Change the source without a pause, until the board says that it is over."""
    random = Random(seed)
    documents: dict[str, Document | None] = dict.fromkeys(OWNERS) | arena.documents()
    while not board.is_over:
        board.has_rested = board.is_resting
        if board.is_resting:
            time.sleep(_WRITE_SECONDS)
            continue
        changed = _edited(documents, random)
        write_documents(arena.source, changed)
        documents.update(changed)
        board.writes += 1
        time.sleep(_WRITE_SECONDS)


def _edited(documents: dict[str, Document | None], random: Random) -> dict[str, Document | None]:
    """What one transaction makes of some owners' documents."""
    owner, other = random.sample(OWNERS, 2)
    found = documents[owner]
    if found is None:
        return {owner: first_document()}
    if owner not in STEADY_OWNERS and random.random() < 0.2:
        return {owner: None}
    document, there = _counted_up(found), documents[other]
    if there is not None and random.random() < 0.4:
        there = _counted_up(there)
        _move_between(document, there, random.choice(_IDS))
        return {owner: document, other: there}
    random.choice((_toggle, _toggle, _touch_skills))(document, random)
    return {owner: document}


def _counted_up(document: Document) -> Document:
    """A copy whose `KEPT` says so."""
    kept, *others = document["experiences"]
    count = count_in(kept["description"]) + 1
    kept = kept | {"description": f"count {count}", "projects": list(kept.get("projects", []))}
    return {"experiences": [kept, *others], "skills": list(document["skills"])}


def _toggle(document: Document, random: Random) -> None:
    """Let an id appear, change, go, or stand for an entity of another kind."""
    entity_id = random.choice(_IDS)
    _take_out(document, entity_id)
    entity = {"id": entity_id, "title": entity_id, "description": random.choice(_TEXTS)}
    kind = random.choice(("experience", "project", "gone"))
    if kind == "experience":
        document["experiences"].append(entity | {"company": "Acme"})
    elif kind == "project":
        document["experiences"][0]["projects"].append(entity)


def _touch_skills(document: Document, random: Random) -> None:
    name = random.choice(_SKILLS)
    skills = document["skills"]
    document["skills"] = [s for s in skills if s != name] if name in skills else [*skills, name]


def _move_between(document: Document, there: Document, entity_id: str) -> None:
    """Let an entity change its owner; what the other one has of that id comes back for it."""
    ours, theirs = _take_out(document, entity_id), _take_out(there, entity_id)
    for entity, target in ((ours, there), (theirs, document)):
        if entity is not None and "company" in entity:
            target["experiences"].append(entity)
        elif entity is not None:
            target["experiences"][0]["projects"].append(entity)


def _take_out(document: Document, entity_id: str) -> Document | None:
    kept, *others = document["experiences"]
    found = [e for e in (*others, *kept.get("projects", [])) if e["id"] == entity_id]
    document["experiences"] = [kept, *(e for e in others if e["id"] != entity_id)]
    kept["projects"] = [p for p in kept.get("projects", []) if p["id"] != entity_id]
    return found[0] if found else None


# --- the reader -----------------------------------------------------------------------------------


def read(arena: Arena, board: Board) -> None:
    """Look at what never goes, until it is over: that it is there, and never older than before."""
    seen: dict[str, int] = {}
    while not board.is_over:
        counts = arena.kept_counts()
        board.gaps += len(seen.keys() - counts.keys())
        board.older += sum(count < seen.get(owner, 0) for owner, count in counts.items())
        seen.update(counts)
        board.looks += 1
        time.sleep(_WRITE_SECONDS)


# --- the workers ----------------------------------------------------------------------------------


def watch(arena: Arena, board: Board, failpoint: str | None, occurrence: int) -> None:
    """Be a worker of a watch; die at *failpoint* if there is one."""
    if failpoint is not None:
        kill_at(failpoint, occurrence)
    # The loop deletes more in a minute than a day's budget lets pass, which is another test's.
    guard.HARMLESS_DELETES = 10**9
    embedder = HashingEmbedder(DIMENSION)
    source = open_source(arena.place.source, ORIGIN, RENDERER.fields)
    store = open_store(arena.place.store, namespace=NAMESPACE)
    sides = Sides(
        source=source, store=store, renderer=RENDERER, model=embedder.model, store_exists=True
    )
    states = StateAccess(store, arena.place.state, is_own_store=False)
    ledger = states.ledger(sides, ignore, may_create=False)
    assert ledger is not None
    assert (ledger.fence is None) == arena.place.name.endswith("C")
    ledger.lease_seconds = LEASE_SECONDS
    options = WatchOptions(batch_owners=4, poll_seconds=0.02, scrub_pause_seconds=0.5)
    assert isinstance(source, CapturedSource)
    feed = source.change_feed()
    Watcher(sides, embedder, ledger, feed, options, is_over=lambda: bool(board.is_over)).run()


def work_naively(arena: Arena, board: Board, failpoint: str | None, occurrence: int) -> None:
    """The control: take the marks, then clear each owner and import it anew."""
    if failpoint is not None:
        kill_at(failpoint, occurrence)
    source = open_source(arena.place.source, ORIGIN, RENDERER.fields)
    store = open_store(arena.place.store, namespace=NAMESPACE)
    writer = NaiveWriter(source, store, RENDERER, HashingEmbedder(DIMENSION))
    assert isinstance(source, CapturedSource)
    feed = source.change_feed()
    touched: set[str] = set()
    while not (board.is_over and not touched):
        feed.drain(100, touched.update, lambda: touched.update(OWNERS))
        for owner in sorted(touched):
            writer.sync(owner)
        touched.clear()
        time.sleep(_WRITE_SECONDS)
