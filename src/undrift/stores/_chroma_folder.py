"""Keeps a second program out of a folder that Chroma's engine has open.

The engine keeps vectors in memory and looks at the files only when it opens them: measured, a
second process went on finding what the first had deleted, and what it wrote was lost to it. Chroma
itself locks nothing. So here a person must say that no other program opens the folder meanwhile, a
lock keeps a second undrift out, and where the system tells (Linux) nobody else may have the files
open.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from undrift.errors import ConfigError
from undrift.forks import after_fork
from undrift.mounts import NETWORK_FILESYSTEMS, filesystem_of
from undrift.stores._chroma_address import FolderAddress

DATABASE_FILE = "chroma.sqlite3"

PROCESSES = Path("/proc")

_LOOK_SECONDS = 1.0
_SERVER = (
    "run a server, which any number of programs may use (`chroma run --path FOLDER --port 8000`), "
    "and set VECTOR_URL=chroma+http://host:8000/collection"
)


class _Held(NamedTuple):
    """A lock of this process.

    Attributes:
        descriptor: of the folder.
        users: how many have it open here.
    """

    descriptor: int
    users: int


class _Registry:
    """What this process has locked; a forked one begins with nothing."""

    def __init__(self) -> None:
        self.begin_afresh()
        after_fork(self, _Registry.begin_afresh)

    def begin_afresh(self) -> None:
        """Forget everything, and a lock that another thread may have held."""
        self.changing = Lock()
        self.held: dict[Path, _Held] = {}


_registry = _Registry()


class FolderLock:
    """The right to have the folder of *address* open.

    Safety:
        The lock is the system's and belongs to the process, in which several may share it; it ends
        with the process. No file is created for it.
    """

    def __init__(self, address: FolderAddress) -> None:
        self._address = address
        self._looked_at = -_LOOK_SECONDS
        if (filesystem := filesystem_of(address.folder)) in NETWORK_FILESYSTEMS:
            raise _refused(
                address,
                f"it is on {filesystem}, where nobody can tell whether another machine has it open",
                _SERVER,
            )
        self._process = os.getpid()
        with _registry.changing:
            held = _registry.held.get(address.folder)
            descriptor = self._lock() if held is None else held.descriptor
            _registry.held[address.folder] = _Held(descriptor, 1 + (held.users if held else 0))

    @property
    def is_ours(self) -> bool:
        """Whether it was this very process that took it, not its parent."""
        return self._process == os.getpid()

    def require_alone(self) -> None:
        """Look whether another program has the files open, once in a while.

        Raises:
            ConfigError: one has.
        """
        if time.monotonic() - self._looked_at < _LOOK_SECONDS:
            return
        for process in _processes_with(self._address.folder / DATABASE_FILE):
            raise _refused(
                self._address, f"the process {process} has it open", f"end that one, or {_SERVER}"
            )
        self._looked_at = time.monotonic()

    def release(self) -> None:
        """Give it back; the last one of the process unlocks the folder."""
        if not self.is_ours:
            return
        with _registry.changing:
            held = _registry.held.pop(self._address.folder)
            if held.users > 1:
                _registry.held[self._address.folder] = held._replace(users=held.users - 1)
                return
            fcntl.flock(held.descriptor, fcntl.LOCK_UN)
            os.close(held.descriptor)

    def _lock(self) -> int:
        try:
            descriptor = os.open(self._address.folder, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise _refused(
                self._address,
                str(error.strerror),
                "correct VECTOR_URL, or the rights on the folder",
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise _refused(
                self._address,
                "another undrift has it open",
                f"wait until that one ends, or {_SERVER}",
            ) from error
        return descriptor


def require_consent(address: FolderAddress) -> None:
    """Refuse the folder unless a person has said that nobody else opens it.

    Raises:
        ConfigError: nobody has.
    """
    if not address.is_sole_process:
        raise _refused(
            address,
            "Chroma's engine keeps vectors in memory, so that a second process that opens the "
            "folder goes on finding what this one deletes, and what it writes is lost",
            f"{_SERVER}; or, if certainly no other program opens the folder while undrift runs, "
            "add ?sole_process=yes",
        )


def _refused(address: FolderAddress, why: str, fix: str) -> ConfigError:
    return ConfigError("Chroma's folder cannot be used", why=f"{address.location}: {why}.", fix=fix)


def _processes_with(file: Path) -> Iterator[int]:
    """Other processes that have *file* open, as far as the system shows them to this user."""
    try:
        sought = file.stat()
        names = os.listdir(PROCESSES)
    except OSError:  # no such file, or a system without such a folder
        return
    for name in names:
        if name.isdigit() and int(name) != os.getpid():
            with suppress(OSError):  # it has ended, or is another user's
                if any(_is_same(link, sought) for link in (PROCESSES / name / "fd").iterdir()):
                    yield int(name)


def _is_same(link: Path, sought: os.stat_result) -> bool:
    """Whether what *link* stands for is the file *sought*; a descriptor may be closed meanwhile."""
    try:
        found = link.stat()
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == (sought.st_dev, sought.st_ino)
