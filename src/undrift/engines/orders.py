"""What the machines of a cluster are told to do, and how they find out that they cannot."""

from __future__ import annotations

import os
import pickle
import socket
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from undrift.errors import ConfigError
from undrift.recipe import release

Values = tuple[str, bytes, str | None, str]
"""An order's."""


class Opener(Protocol):
    """Opens something in another process."""

    @property
    def here_only(self) -> Sequence[str]:
        """The sides whose addresses mean another database on another machine, for people."""


class Order(NamedTuple):
    """What the machines are to do. It travels as a tuple of plain values, which any release reads.

    Attributes:
        release: of undrift, which must be theirs too; stays the first.
        opener: what opens both sides, pickled.
        host: the only machine that can do it; None if any can.
        folder: where relative paths begin, on that machine.
    """

    release: str
    opener: bytes
    host: str | None
    folder: str


def order(opener: Opener) -> Order:
    """The order to open *opener*, given from here."""
    return Order(
        release=release(),
        opener=pickle.dumps(opener),
        host=socket.gethostname() if opener.here_only else None,
        folder=os.getcwd(),
    )


def taken(values: Values) -> Order:
    """The order of *values*, as a machine of the cluster takes it.

    Raises:
        ConfigError: this is not a machine that can do it.
    """
    require_release(values[0])
    order = Order(*values)
    if order.host is not None:
        if order.host != socket.gethostname():
            raise elsewhere(socket.gethostname())
        os.chdir(order.folder)
    return order


def require_release(other: str) -> None:
    """See that this machine has the release *other*.

    Raises:
        ConfigError: it has not.
    """
    if other != release():
        raise ConfigError(
            "The machines have different releases of undrift",
            why=f"{socket.gethostname()} has {release()}, and the program that was started "
            f"{other}.",
            fix="install the same release on every machine, and start the cluster's nodes again",
        )


def require_reachable(hosts: Iterable[str], here_only: Sequence[str]) -> None:
    """See that all of *hosts* mean the same databases as this machine.

    Args:
        here_only: the sides whose addresses mean another database on another machine.

    Raises:
        ConfigError: there are other machines.
    """
    others = set(hosts) - {socket.gethostname()}
    if here_only and others:
        raise elsewhere(min(others), here_only)


def elsewhere(host: str, sides: Sequence[str] = ()) -> ConfigError:
    """*host* is to open databases whose addresses mean another machine."""
    which = " and ".join(sides) or "a database"
    return ConfigError(
        "Not every machine of the cluster can reach both sides",
        why=f"the address of {which} means the machine it is used on (a file, a socket or "
        f"localhost), and {host} is another one.",
        fix="name a server by a host name that all machines know, in DATABASE_URL and VECTOR_URL; "
        "or leave --engine ray out",
    )
