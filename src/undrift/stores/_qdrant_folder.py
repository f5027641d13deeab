"""One shard of Qdrant's engine for each folder, shared within this process and with no other.

The engine keeps a folder to the process that opened it first, and shows a second one an error of
its log's. A lock of undrift's own beside the folder says who that process is.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import RLock

from qdrant_edge import EdgeConfig, EdgeShard

from undrift.errors import ConfigError, StoreUnavailable
from undrift.forks import leave_to_parent
from undrift.mounts import NETWORK_FILESYSTEMS, filesystem_of

_CONFIG_FILE = "edge_config.json"


@dataclass(slots=True)
class OpenShard:
    """A shard that is open in this process.

    Attributes:
        users: how many stores have it open.
        writing: held while it is changed.
        has_deleted: whether there may be space to win back.
    """

    engine: EdgeShard
    lock_file: int
    users: int = 0
    writing: RLock = field(default_factory=RLock)
    has_deleted: bool = False


class Folder:
    """Where a collection of the engine's lies.

    Args:
        path: the collection's folder; the one above is made if it is missing, those above it are
            not.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.location = f"qdrant+file:///{path}"

    def has_collection(self) -> bool:
        """Whether a collection is there; only its certain absence is a no.

        Raises:
            ConfigError: it cannot be told, something else is there, or it is not safe to use.
        """
        if (kind := filesystem_of(self.path)) in NETWORK_FILESYSTEMS:
            raise self._unusable(
                f"it is on a network filesystem ({kind}), where the engine's files are not safe"
            )
        try:
            names = os.listdir(self.path)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self._unusable(str(error.strerror)) from error
        if names and _CONFIG_FILE not in names:
            raise self._unusable("it holds something else than a collection of Qdrant's engine")
        return bool(names)

    def create(self, config: EdgeConfig, fill_in: Callable[[EdgeShard], None]) -> None:
        """Create the collection if there is none: it is there as a whole, or not at all.

        Args:
            fill_in: completes what the engine made.
        """
        try:
            self.path.parent.mkdir(exist_ok=True)
        except OSError as error:
            raise self._unusable(f"the folder above cannot be made ({error.strerror})") from error
        with _shards_guard:
            if self.path in _shards or self.has_collection():
                return
            lock_file = self._lock()
            try:
                if not self.has_collection():
                    new = self.path.with_name(f".{self.path.name}.new")
                    shutil.rmtree(new, ignore_errors=True)  # of a process that was stopped here
                    engine = EdgeShard.create(str(new), config)
                    fill_in(engine)
                    engine.flush()
                    engine.close()
                    new.rename(self.path)
                    _sync(self.path.parent)
            finally:
                os.close(lock_file)

    def take(self) -> OpenShard | None:
        """Open the collection, or share what is open; None if there is none."""
        with _shards_guard:
            shard = _shards.get(self.path)
            if shard is None:
                if not self.has_collection():
                    return None
                lock_file = self._lock()
                try:
                    shard = OpenShard(EdgeShard.load(str(self.path)), lock_file)
                except BaseException:
                    os.close(lock_file)
                    raise
                _shards[self.path] = shard
            shard.users += 1
            return shard

    def give_back(self, shard: OpenShard) -> None:
        """The last one to give it back closes it, and lets other processes in."""
        with _shards_guard:
            shard.users -= 1
            if shard.users:
                return
            del _shards[self.path]
            try:
                if shard.has_deleted:
                    shard.engine.optimize()  # does nothing unless a fifth of it is gone
                shard.engine.flush()
                shard.engine.close()
            finally:
                os.close(shard.lock_file)

    def _lock(self) -> int:
        """Keep every other process out, and leave word who does."""
        path = self.path.with_name(f".{self.path.name}.lock")
        try:
            lock_file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise self._unusable(str(error.strerror)) from error
        try:
            fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(lock_file, 200, 0).decode(errors="replace").strip()
            os.close(lock_file)
            raise self.in_use(holder) from error
        os.ftruncate(lock_file, 0)
        os.pwrite(lock_file, f"process {os.getpid()} ({_program()})".encode(), 0)
        return lock_file

    def in_use(self, holder: str) -> StoreUnavailable:
        """What to say where another process has the folder."""
        return StoreUnavailable(
            "The vector store is in use by another process",
            why=f"{self.location} is open in {holder or 'a process that left no name'}, and "
            "Qdrant's engine lets one process in at a time.",
            fix="end that process or wait for it; where several are to work at once, run a Qdrant "
            "server and set VECTOR_URL=qdrant+http://host:6333/collection",
        )

    def _unusable(self, why: str) -> ConfigError:
        return ConfigError(
            "The vector store's folder cannot be used",
            why=f"{self.location}: {why}.",
            fix="correct VECTOR_URL (an absolute path begins with a fourth slash), or the rights "
            "on the folder and the one above it",
        )


_shards: dict[Path, OpenShard] = {}
_shards_guard = RLock()


def _begin_afresh() -> None:
    """Leave what was open to the parent: of its locks, a closed copy unlocks nothing."""
    global _shards_guard
    _shards_guard = RLock()
    for shard in _shards.values():
        leave_to_parent(shard)
        os.close(shard.lock_file)
    _shards.clear()


os.register_at_fork(after_in_child=_begin_afresh)


def _program() -> str:
    return Path(sys.argv[0]).name or "python"


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
