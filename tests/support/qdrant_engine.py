"""Qdrant's engine behind a store's back: its own calls, on the shard that the process shares."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import qdrant_edge as edge

from undrift.stores._qdrant_folder import Folder

# A flush to a disk that others write to takes longer than all else that a test does.
MEMORY = Path("/dev/shm")


@contextmanager
def folder_in_memory() -> Iterator[Path]:
    """A folder for collections that nobody needs after a crash; in memory where there is any."""
    parent = MEMORY if os.access(MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="undrift-qdrant-", dir=parent) as folder:
        yield Path(folder)


@contextmanager
def engine_at(location: str) -> Iterator[edge.EdgeShard]:
    """The engine of the collection at *location*, shared with the stores that have it open."""
    folder = Folder(Path(location.removeprefix("qdrant+file:///")))
    shard = folder.take()
    assert shard is not None, "there is no such collection"
    try:
        yield shard.engine
    finally:
        folder.give_back(shard)
