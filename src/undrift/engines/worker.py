"""What runs on the machines of a cluster: both sides opened once in each process, pages checked."""

from __future__ import annotations

import os
import pickle
import socket
from collections.abc import Sequence
from typing import NamedTuple

from undrift.errors import ConfigError, UndriftError, UnknownStateError
from undrift.model import SyncStatus
from undrift.recipe import release
from undrift.scan.engine import Opener
from undrift.scan.page import PageCheck, PageResult


class Order(NamedTuple):
    """What the machines are to do. It travels as a tuple of plain values, which any release reads.

    Attributes:
        release: of undrift, which must be theirs too; stays the first.
        opener: the `Opener`, pickled.
        host: the only machine that can do it; None if any can.
        folder: where relative paths begin, on that machine.
    """

    release: str
    opener: bytes
    host: str | None
    folder: str


def order(open_check: Opener) -> Order:
    """The order to check by *open_check*, given from here."""
    return Order(
        release=release(),
        opener=pickle.dumps(open_check),
        host=socket.gethostname() if open_check.here_only else None,
        folder=os.getcwd(),
    )


_opened: dict[bytes, PageCheck] = {}


def check_here(
    values: tuple[str, bytes, str | None, str], owners: Sequence[str]
) -> PageResult | UndriftError:
    """Check a page in this process.

    Args:
        values: an `Order`'s.

    Returns:
        The result; or why nobody can have one from here, as a value, because what is raised in a
        task arrives as something else.
    """
    if values[0] != release():
        return _other_release(values[0])
    order = Order(*values)
    try:
        check = _opened.get(order.opener)
        if check is None:
            check = _open(order)
            _opened.clear()  # a process serves one run at a time
            _opened[order.opener] = check
    except UnknownStateError as exc:
        return PageResult([SyncStatus.unknown(owner, exc) for owner in owners], 0)
    except UndriftError as exc:
        return exc
    return check(owners)


def _open(order: Order) -> PageCheck:
    if order.host is not None:
        if order.host != socket.gethostname():
            raise elsewhere(socket.gethostname())
        os.chdir(order.folder)
    open_check: Opener = pickle.loads(order.opener)  # noqa: S301 - our own, by Ray's hands
    return open_check()


def _other_release(other: str) -> ConfigError:
    return ConfigError(
        "The machines have different releases of undrift",
        why=f"{socket.gethostname()} has {release()}, and the program that checks {other}.",
        fix="install the same release on every machine, and start the cluster's nodes again",
    )


def elsewhere(host: str, sides: Sequence[str] = ()) -> ConfigError:
    """*host* is to check databases whose addresses mean another machine."""
    which = " and ".join(sides) or "a database"
    return ConfigError(
        "Not every machine of the cluster can reach both sides",
        why=f"the address of {which} means the machine it is used on (a file, a socket or "
        f"localhost), and {host} is another one.",
        fix="name a server by a host name that all machines know, in DATABASE_URL and VECTOR_URL; "
        "or leave --engine ray out",
    )
