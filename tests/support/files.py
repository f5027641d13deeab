"""Files of a database that this user may not touch, or whose pages are damaged."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

NOBODY = 65_534


@contextmanager
def as_nobody(folder: Path) -> Iterator[None]:
    """Become a user without rights, where the tests run as root; *folder* stays reachable."""
    if os.geteuid() != 0:
        yield
        return
    for parent in (folder, *folder.parents):
        if parent.owner() == "root" and parent.stat().st_mode & 0o077 == 0:
            parent.chmod(0o711)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def damage(file: Path) -> None:
    """Overwrite half of a database's pages."""
    with closing(sqlite3.connect(file)) as connection:
        roots = {root for (root,) in connection.execute("SELECT rootpage FROM sqlite_master")}
        ((page_bytes,),) = connection.execute("PRAGMA page_size")
        ((pages,),) = connection.execute("PRAGMA page_count")
    with file.open("r+b") as content:
        for page in range(2, pages + 1, 2):
            if page not in roots:
                content.seek((page - 1) * page_bytes)
                content.write(b"\xff" * page_bytes)
