"""Logs on standard error: for a person, for a journal, or for a program that collects them.

What undrift logs holds ids, numbers and addresses without passwords: never a profile's text and
never a vector.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum

from undrift.cli.streams import Line, Terminal

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
"""What every record has; the rest came with ``extra=``."""


class LogFormat(StrEnum):
    """What a line of a log is written as."""

    TEXT = "text"
    JSON = "json"


def plain() -> logging.Formatter:
    """For a person who looks on: the level, the module, the message."""
    return logging.Formatter("%(levelname)s %(name)s: %(message)s")


def formatter_for(chosen: LogFormat) -> logging.Formatter:
    """For what runs unattended: every line with its time."""
    return JsonFormatter() if chosen is LogFormat.JSON else TimedFormatter()


class TimedFormatter(logging.Formatter):
    """A line with its time, and behind the message what else the record says."""

    def format(self, record: logging.LogRecord) -> str:
        """*record* as a line."""
        parts = [timestamp(record.created), record.levelname, record.getMessage()]
        told = {"action", "owner", "outcome"}  # by the message
        parts.extend(f"{k}={v}" for k, v in fields_of(record).items() if k not in told)
        line = " ".join(parts)
        # An id may hold anything; a line break in it must not make a line of its own.
        return line if line.isprintable() else line.encode("unicode_escape").decode("ascii")


class JsonFormatter(logging.Formatter):
    """One JSON object: ``ts``, ``level``, ``message``, and what else the record says."""

    def format(self, record: logging.LogRecord) -> str:
        """*record* as a line."""
        line = {
            "ts": timestamp(record.created),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **fields_of(record),
        }
        # ASCII, so that no stream's encoding can take anything from it.
        return json.dumps(line, default=str)


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    """What the code that logged *record* said beside the message."""
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def timestamp(seconds: float) -> str:
    """A moment as RFC 3339 has it, in UTC, to the millisecond."""
    at = datetime.fromtimestamp(seconds, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class TerminalHandler(logging.Handler):
    """Writes log records to stderr, around the progress bar."""

    def __init__(self, terminal: Terminal, formatter: logging.Formatter) -> None:
        super().__init__()
        self._terminal = terminal
        self.setFormatter(formatter)

    def emit(self, record: logging.LogRecord) -> None:
        """Write *record*."""
        self._terminal.tell(Line(line) for line in self.format(record).splitlines())


@contextmanager
def logged(
    terminal: Terminal, formatter: logging.Formatter, *, level: int = logging.DEBUG
) -> Iterator[None]:
    """Write what undrift logs to *terminal* for as long as the context lasts."""
    logger = logging.getLogger("undrift")
    handler, before = TerminalHandler(terminal, formatter), logger.level
    logger.addHandler(handler)
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
