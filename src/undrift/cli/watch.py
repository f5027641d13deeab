"""The command ``undrift watch``."""

from __future__ import annotations

import json
import logging
import time
from typing import TYPE_CHECKING, Annotated

import typer

from undrift.cli import options, render_text
from undrift.cli.interrupts import Interrupts
from undrift.cli.logs import LogFormat, formatter_for, logged, timestamp
from undrift.cli.problems import Interruption
from undrift.cli.run import View, ended, opened
from undrift.cli.streams import Color, open_terminal
from undrift.events import StateCreated, StoreCreated, SyncEvent

if TYPE_CHECKING:
    from undrift.connections import Setup
    from undrift.errors import UndriftError
    from undrift.watch import WatchOptions

EXAMPLES = (
    "undrift watch  # until it is told to stop",
    "undrift watch --workers 4 --log-format json  # as a service",
    "undrift watch --scrub-within 6  # look at everybody every six hours",
)
CODES = (
    "Exit codes: 2 usage or configuration; 3 could not look to begin with; 130, 143 stopped by "
    "SIGINT or SIGTERM, with what was under way finished."
)

_log = logging.getLogger(__name__)
_SECONDS_PER_HOUR = 3600.0


def watch(
    workers: Annotated[
        int,
        typer.Option(
            "--workers",
            metavar="N",
            envvar="UNDRIFT_WORKERS",
            help="Sync so many batches of users at once in this process, 1 to 64.",
        ),
    ] = 1,
    poll: Annotated[
        float,
        typer.Option(
            "--poll",
            metavar="SECONDS",
            min=0.001,
            max=3600,
            envvar="UNDRIFT_POLL",
            help="How often to look for work when there is none.",
        ),
    ] = 0.05,
    scrub_within: Annotated[
        float,
        typer.Option(
            "--scrub-within",
            metavar="HOURS",
            min=0.01,
            max=8760,
            envvar="UNDRIFT_SCRUB_WITHIN",
            help="Look at every user at least once in so many hours, whatever the triggers say.",
        ),
    ] = 24.0,
    log_format: Annotated[
        LogFormat,
        typer.Option(
            "--log-format",
            envvar="UNDRIFT_LOG_FORMAT",
            help="json: one object in each line of standard error.",
        ),
    ] = LogFormat.TEXT,
    verbose: options.Verbose = False,
    config: options.Config = None,
    color: options.Colors = Color.AUTO,
) -> int:
    """Sync whoever is touched, continuously, and look at everybody within a deadline.

    Any number of these may run at once, on one machine or on many. One that is killed loses
    nothing. It is told of changes by `undrift triggers install`; without triggers it finds them
    when it next looks at everybody.
    """
    from undrift.watch import WatchOptions

    chosen = WatchOptions(
        poll_seconds=poll, scrub_seconds=scrub_within * _SECONDS_PER_HOUR, listener=_tell_event
    )
    view = View(is_verbose=verbose, config=config, color=color)
    return _Service(view, log_format, chosen, workers).run()


class _Service:
    """A watch from its first line to its exit code."""

    def __init__(
        self, view: View, log_format: LogFormat, chosen: WatchOptions, workers: int
    ) -> None:
        self._view = view
        self._is_json = log_format is LogFormat.JSON
        self._formatter = formatter_for(log_format)
        self._options = chosen
        self._workers = workers
        self._terminal = open_terminal(view.color)
        self._interrupts = Interrupts(_announcement) if self._is_json else Interrupts()

    def run(self) -> int:
        """Watch until a signal comes, or it cannot be gone on; return the exit code."""
        level = logging.DEBUG if self._view.is_verbose else logging.INFO
        view, interrupts = self._view, self._interrupts
        with interrupts.caught(), logged(self._terminal, self._formatter, level=level):
            error, code = ended(self._terminal, view, interrupts, self._watch, is_logged=True)
            if error is not None and not isinstance(error, Interruption):
                self._tell_error(error)
        return code

    def _watch(self) -> None:
        interrupts = self._interrupts
        with opened(self._terminal, self._view, tell=self._tell_setup) as sides:
            # From here on nothing is interrupted: what is under way is finished first.
            with interrupts.noted():
                sides.watch(
                    workers=self._workers,
                    options=self._options,
                    is_over=lambda: interrupts.received is not None,
                )
            interrupts.raise_received()

    def _tell_setup(self, setup: Setup) -> None:
        if not self._is_json:
            self._terminal.tell(render_text.setup_lines(setup, writes=True))
            return
        used = {
            "action": "watch.setup",
            "source": setup.source,
            "store": setup.store,
            "state": setup.state,
            "model": setup.model,
        }
        _log.info("using", extra=used)
        for notice in setup.notices:
            _log.warning("%s", notice, extra={"action": "watch.setup"})

    def _tell_error(self, error: UndriftError) -> None:
        if not self._is_json:
            self._terminal.tell(render_text.error_lines(error))
            return
        parts = {"error": type(error).__name__, "why": error.why, "fix": error.fix}
        _log.error("%s", error.what, extra={"action": "watch.failed", **parts})


def _tell_event(event: SyncEvent) -> None:
    """Log what was created; what is synced is logged by the watch itself."""
    if isinstance(event, StoreCreated | StateCreated):
        for line in render_text.notice_lines(event):
            _log.info("%s", line.text, extra={"action": "create"})
        for statement in event.statements:
            _log.debug("ran: %s", statement, extra={"action": "create"})


def _announcement() -> bytes:
    """What a signal is answered with, where every line is an object."""
    line = {
        "ts": timestamp(time.time()),
        "level": "info",
        "message": "stopping after what is under way; once more stops at once",
        "action": "watch.stopping",
    }
    return json.dumps(line).encode() + b"\n"
