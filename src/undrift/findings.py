"""What an examination finds: a claim, how bad it is, and the command that mends it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from undrift.errors import ConfigError, UndriftError, UnsupportedError


class Status(StrEnum):
    """How a finding stands."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: what it is about, ``group.topic``; stable, for programs.
        summary: a sentence without a full stop. No profile's text, no password.
        fix: the next step, a command where there is one; None where nothing needs mending.
        stops_check: a problem that keeps even a check from running, not only a sync.
    """

    name: str
    status: Status
    summary: str
    fix: str | None = None
    stops_check: bool = False

    @property
    def group(self) -> str:
        """Which part of the setup it belongs to."""
        return self.name.partition(".")[0]


def ok(name: str, summary: str) -> Finding:
    """Looked at, and good."""
    return Finding(name=name, status=Status.OK, summary=summary)


def warning(name: str, summary: str, fix: str) -> Finding:
    """A sync can run, and there is something that a person should know."""
    return Finding(name=name, status=Status.WARNING, summary=summary, fix=fix)


def problem(name: str, summary: str, fix: str, *, stops_check: bool = True) -> Finding:
    """A sync cannot run, and unless *stops_check* is False neither can a check.

    Args:
        summary: where a check can run, what a sync lacks; that it is a sync which lacks it is
            added by whoever tells it.
        fix: the same; it follows "to sync, ".
    """
    return Finding(
        name=name, status=Status.PROBLEM, summary=summary, fix=fix, stops_check=stops_check
    )


def of_error(name: str, error: UndriftError, *, stops_check: bool = True) -> Finding:
    """The finding that *error* is: a problem if it can be mended, else not known."""
    is_problem = isinstance(error, ConfigError | UnsupportedError)
    return Finding(
        name=name,
        status=Status.PROBLEM if is_problem else Status.UNKNOWN,
        summary=f"{error.what}: {error.why.rstrip('.')}",
        fix=error.fix,
        stops_check=stops_check,
    )
