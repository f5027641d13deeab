"""A connection to a Ray cluster: found, probed and given back.

Safety:
    Never starts a cluster. Whoever may reach one may run anything on it: Ray asks for no password
    unless it is told to.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

from undrift.errors import ConfigError, UnknownStateError

ADDRESS_VARIABLE = "RAY_ADDRESS"
PROBE_SECONDS = 5.0

SILENCE_SECONDS = 20.0
"""How long a head may be away. Ray gives it a minute, and then ends this process without a word."""

RESUME = "run the same command with --resume"

OOM_RETRIES = 5
"""Times that Ray tries again what it killed for want of memory; by itself it never stops."""

_OOM_VARIABLE = "RAY_task_oom_retries"  # there is no option for a task
_ANY_HERE = "auto"  # Ray's word for the cluster that this machine belongs to
_ADDRESS = re.compile(r"(?P<host>[^\s:/@]+|\[[0-9a-fA-F:.]+\]):(?P<port>[0-9]{1,5})")

_log = logging.getLogger(__name__)


class Cluster:
    """A Ray cluster that this process is connected to.

    Args:
        address: ``host:6379`` of its head; None for the one that ``RAY_ADDRESS`` names, or else the
            one that this machine belongs to.
        again: how a run goes on that has lost it, for people.

    Attributes:
        ray: the library.

    Raises:
        ConfigError: Ray is not installed, the address is none, or this machine is in no cluster.
        UnknownStateError: the cluster does not answer.
    """

    def __init__(self, address: str | None = None, *, again: str = RESUME) -> None:
        self.ray = _imported()
        self._again = again
        self._is_own = not self.ray.is_initialized()
        if self._is_own:
            _connect(self.ray, _reachable(address or os.environ.get(ADDRESS_VARIABLE)))
        self._head = str(self.ray.get_runtime_context().gcs_address)

    def require_head(self) -> None:
        """See that the head is there, and wait for it if it is not.

        Raises:
            UnknownStateError: it did not come back.
        """
        deadline = time.monotonic() + SILENCE_SECONDS
        while (failure := _probe(self._head)) is not None:
            if time.monotonic() > deadline:
                raise UnknownStateError(
                    "The Ray cluster was lost",
                    why=f"its head {self._head} does not answer any more ({failure}).",
                    fix=f"start the cluster again, then {self._again}",
                )
            time.sleep(0.5)

    def cpus(self) -> int:
        """How many tasks can run at once, of those that take one core each."""
        return int(self.ray.cluster_resources().get("CPU", 0))

    def gpus(self) -> list[int]:
        """How many each machine has."""
        return [int(node["Resources"].get("GPU", 0)) for node in self.ray.nodes() if node["Alive"]]

    def hosts(self) -> frozenset[str]:
        """The names of its machines; several nodes may be on one."""
        nodes = self.ray.nodes()
        return frozenset(str(node["NodeManagerHostname"]) for node in nodes if node["Alive"])

    def end(self, actors: Iterable[object]) -> None:
        """End *actors*, which would live as long as the program is connected."""
        if not self._is_own:
            for actor in actors:
                self.ray.kill(actor)

    def close(self) -> None:
        """Leave it, unless the program was connected before. Safe to call twice."""
        if self._is_own:
            self._is_own = False
            with _signals_kept():
                self.ray.shutdown()


def _imported() -> ModuleType:
    os.environ.setdefault(_OOM_VARIABLE, str(OOM_RETRIES))  # read when Ray is imported
    try:
        return import_module("ray")
    except ImportError as error:
        raise ConfigError(
            "Ray is not installed",
            why=f"ray cannot be imported ({error}).",
            fix="pip install 'undrift[ray]', here and on every machine of the cluster",
        ) from error


def _reachable(address: str | None) -> str:
    """*address*, or Ray's word for any, after somebody answered there."""
    if not address or address == _ANY_HERE:
        return _ANY_HERE
    found = _ADDRESS.fullmatch(address)
    if found is None or not 0 < int(found["port"]) < 65_536:
        # Ray's own clients and dashboards have addresses that look like URLs.
        raise ConfigError(
            "--ray-address is no address of a Ray cluster",
            why="it is the head's host and port, and undrift runs on a machine of the cluster.",
            fix="write it like --ray-address head:6379, as `ray start --head` printed it",
        )
    failure = _probe(address)  # Ray itself would try for more than a minute
    if failure is not None:
        raise _no_answer(address, failure)
    return address


def _probe(address: str) -> str | None:
    """Why nobody answers at *address*; None where somebody does."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), PROBE_SECONDS).close()
    except OSError as error:
        return error.strerror or str(error)
    return None


def _connect(ray: ModuleType, address: str) -> None:
    _have_told_to_the_log()
    try:
        with _signals_kept():
            ray.init(address=address, configure_logging=False, log_to_driver=False)
    except ConnectionError as error:
        if address == _ANY_HERE:
            raise _in_no_cluster() from error
        raise _no_answer(address, "something listens there, and lets nobody in") from error
    except RuntimeError as error:
        # Ray compares its own version and Python's; everything else it says so too is a setting.
        raise ConfigError(
            "This program cannot join the Ray cluster",
            why=" ".join(str(error).split())[:500],
            fix="give every machine the same versions of Python and Ray, and start the cluster "
            "again",
        ) from error
    _log.info("joined a Ray cluster", extra={"action": "ray.connect"})


def _have_told_to_the_log() -> None:
    """Log what Ray tells of lost machines: it prints that to stdout, into the middle of an answer.

    Source:
        `listen_error_messages` in Ray's driver; no setting of Ray's turns it off.
    """
    inner = vars(import_module("ray._private.worker"))
    if "print_to_stdstream" in inner:
        inner["print_to_stdstream"] = _log_told


def _log_told(told: Mapping[str, object], **_: object) -> None:
    lines = told.get("lines")
    for message in lines if isinstance(lines, list) else []:
        first = str(message).strip().partition("\n")[0]
        _log.warning("Ray: %s", first, extra={"action": "ray.told"})


def _no_answer(address: str, why: str) -> UnknownStateError:
    return UnknownStateError(
        "The Ray cluster cannot be reached",
        why=f"{address}: {why}.",
        fix="look whether its head runs: `ray status` there; where it asks for a token, set "
        "RAY_AUTH_MODE and RAY_AUTH_TOKEN here too",
    )


def _in_no_cluster() -> ConfigError:
    return ConfigError(
        "This machine is in no Ray cluster",
        why="neither --ray-address nor RAY_ADDRESS names one, and none was started here.",
        fix="run `ray start --head` here, or `ray start --address HEAD:6379` to join one",
    )


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Put back the handlers of signals, which Ray sets without asking."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            if handler is not None:  # None: not Python's, and so not to be set by it
                signal.signal(number, handler)
