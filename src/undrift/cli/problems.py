"""Errors that only the command line knows: wrong usage, an interruption, a bug of ours."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from traceback import extract_tb
from typing import Protocol, TypeGuard

from undrift.errors import ConfigError, UndriftError


class UsageError(ConfigError):
    """The command line cannot be understood."""


class Interruption(UndriftError):
    """A signal, or a reader that went away, ended the run.

    Attributes:
        has_begun: whether there was any work that it ended; if not, a question was still open.
    """

    def __init__(self, by: str, *, fix: str = "", has_begun: bool = True) -> None:
        why = "the run ended before it had seen everybody; progress is kept."
        again = "run the same command again, it repairs what is left"
        if not has_begun:
            why = "the question was not answered, and nothing was done."
            again = "run the same command again, and answer it"
        super().__init__(f"Interrupted by {by}", why=why, fix=fix or again)
        self.by = by
        self.has_begun = has_begun

    def to_resume(self) -> Interruption:
        """The same, of a run that another one can take up."""
        if not self.has_begun:
            return self
        return Interruption(self.by, fix="run the same command with --resume, and it goes on")


class LateInterruption(UndriftError):
    """A signal came when the work was over and its answer was being written."""

    def __init__(self, by: str) -> None:
        super().__init__(
            f"Interrupted by {by}",
            why="it came while the answer was being written, which is whole all the same.",
            fix="take the answer as it is, nothing was left out for the signal's sake",
        )


class OutputFailed(UndriftError):
    """The answer could not be written where it was to go."""

    def __init__(self, failure: OSError) -> None:
        super().__init__(
            "The answer could not be written",
            why=f"standard output: {failure.strerror}.",
            fix="make room, or write it elsewhere, and run the same command again",
        )


class Bug(UndriftError):
    """An exception that undrift did not foresee."""

    def __init__(self, exc: Exception) -> None:
        # Only where and what kind: the message of a foreign exception may quote a profile.
        frames = extract_tb(exc.__traceback__)
        place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
        super().__init__(
            "undrift failed unexpectedly",
            why=f"{type(exc).__name__}{place}; this is a bug in undrift, and nothing is known of "
            "the users that were not reported.",
            fix="run the same command with -v and report what it prints",
        )


def trace_of(exc: BaseException) -> list[str]:
    """Where *exc* and its causes were raised, and of what kind they are, for a report.

    Nothing more: a foreign exception's message may quote a profile, or a password.
    """
    before = exc.__cause__ or (None if exc.__suppress_context__ else exc.__context__)
    lines = [] if before is None else [*trace_of(before), "which led to"]
    frames = extract_tb(exc.__traceback__)
    lines.extend(f"  {frame.filename}:{frame.lineno} in {frame.name}" for frame in frames)
    return [*lines, type(exc).__qualname__]


_INVALID_VALUE = re.compile(
    r"Invalid value for '(.*?)'(?: \(env var: '.*?'\))?: (?:Value error, )?(.*)"
)

# --- the parser's complaints ------------------------------------------------------------------


class Complaint(Protocol):
    """What the parser raises: typer's own copy of click's ``ClickException``, or click's."""

    def format_message(self) -> str:
        """The complaint as one sentence."""


def is_complaint(exc: object) -> TypeGuard[Complaint]:
    """Whether *exc* is the parser's. By its shape: where the class lives is typer's secret."""
    return isinstance(exc, Exception) and callable(getattr(exc, "format_message", None))


def usage_error(complaint: Complaint, *, called: str) -> UsageError:
    """The parser's *complaint*, in three parts.

    Args:
        called: the program and its command, for complaints that do not know.
    """
    context = getattr(complaint, "ctx", None)
    command = getattr(context, "command_path", None) or called
    message = complaint.format_message().split("\n")[0]
    fix = f"see `{command} --help`"
    if message.startswith("No such option"):
        asked = str(getattr(complaint, "option_name", message))
        why = _nearest(asked, _options(context), command, "option")
        return UsageError(f"No such option: {asked}", why=why, fix=fix)
    unknown = re.match(r"No such command '(.*?)'", message)
    if unknown is not None:
        why = _nearest(unknown[1], _commands(context), command, "command")
        return UsageError(f"No such command: {unknown[1]}", why=why, fix=fix)
    unusable = _INVALID_VALUE.match(message)
    if unusable is not None:
        what = f"Unusable value for {unusable[1]}"
        return UsageError(what, why=f"{unusable[2].rstrip('.')}.", fix=fix)
    if message.startswith("Got unexpected extra argument") and "--user-id" in _options(context):
        fix = f"name a user with --user-id, or {fix}"
    return UsageError(message.rstrip("."), why=f"`{command}` is not called like that.", fix=fix)


def _nearest(asked: str, known: Sequence[str], command: str, thing: str) -> str:
    # Without the dashes, which would make any two options alike.
    by_name = {name.lstrip("-"): name for name in known}
    near = get_close_matches(asked.lstrip("-"), by_name, n=1)
    hint = f"did you mean {by_name[near[0]]}?" if near else f"there are {', '.join(known)}."
    return f"`{command}` has no such {thing}; {hint}"


def _options(context: object) -> list[str]:
    command = getattr(context, "command", None)
    names: Iterator[str] = (
        name
        for parameter in getattr(command, "params", ())
        for name in parameter.opts
        if name.startswith("--")
    )
    return sorted([*names, "--help"])


def _commands(context: object) -> list[str]:
    return sorted(getattr(getattr(context, "command", None), "commands", ()))
