"""Which filesystem a file is on, where the system tells (Linux).

Source:
    proc_pid_mountinfo(5); https://www.sqlite.org/wal.html: "All processes using a database must be
    on the same host computer; WAL does not work over a network filesystem."
"""

from __future__ import annotations

import re
from pathlib import Path

NETWORK_FILESYSTEMS = frozenset(
    {
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "fuse.ceph",
        "fuse.gcsfuse",
        "fuse.glusterfs",
        "fuse.rclone",
        "fuse.s3fs",
        "fuse.sshfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "smb3",
        "smbfs",
    }
)
"""Filesystems that several machines may have mounted, as the kernel names them."""

MOUNTINFO = Path("/proc/self/mountinfo")

_OCTAL = re.compile(r"\\([0-7]{3})")


def filesystem_of(path: Path) -> str | None:
    """The type of the filesystem that holds *path*, existing or not; None if it cannot be told."""
    try:
        # Mount points may be named in any encoding.
        mounts = MOUNTINFO.read_text(errors="surrogateescape")
    except OSError:
        return None
    return _type_of(str(path.resolve()), mounts)


def _type_of(path: str, mounts: str) -> str | None:
    found: tuple[int, str] | None = None
    for line in mounts.splitlines():
        place, _, kind = line.partition(" - ")
        mount_point = _OCTAL.sub(lambda octal: chr(int(octal[1], 8)), place.split(" ")[4])
        is_above = path == mount_point or path.startswith(mount_point.rstrip("/") + "/")
        # Of two mounts on one point, the later hides the earlier.
        if is_above and (found is None or len(mount_point) >= found[0]):
            found = len(mount_point), kind.split(" ")[0]
    return found[1] if found else None
