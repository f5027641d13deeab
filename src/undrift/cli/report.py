"""The answer as it grows: one owner after the other, then the sums.

Three reporters for the three kinds of ``--output``. Each is told of the same things in the same
order: ``event`` (from any thread), ``owner``, and once ``end``.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from threading import Lock
from typing import Protocol

from undrift.cli import render_json, render_text
from undrift.cli.problems import Interruption
from undrift.cli.streams import Line, Stream, Terminal
from undrift.cli.tally import Result, StampResult, Tally
from undrift.errors import EmbeddingBudgetSpent, OwnerNotFound, SafetyStop, UndriftError
from undrift.events import (
    BatchDeleted,
    BatchWritten,
    CheckStarted,
    RepairStarted,
    SyncEvent,
)
from undrift.model import Outcome, Read, SyncReport, SyncStatus

MAX_BLOCKS = 20
"""Owners of a run over everybody that are shown one by one; the rest is a number."""


class Output(StrEnum):
    """What the answer is written as."""

    TEXT = "text"
    JSON = "json"
    JSONL = "jsonl"


class Kind(StrEnum):
    """What is done for each owner."""

    CHECK = "check"
    SYNC = "sync"
    PLAN = "plan"
    STAMP = "stamp"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is reported.

    Attributes:
        owners: how many were named; None for a run over everybody, of which only what is amiss is
            shown.
        with_ids: name every entity that differs.
    """

    kind: Kind
    owners: int | None = None
    with_ids: bool = False

    @property
    def command(self) -> str:
        """The command's name."""
        return {Kind.CHECK: "check", Kind.STAMP: "init"}.get(self.kind, "sync")

    @property
    def dry_run(self) -> bool:
        """Whether a sync is only planned."""
        return self.kind is Kind.PLAN

    @property
    def is_everybody(self) -> bool:
        """Whether nobody was named."""
        return self.owners is None


class Reporter(Protocol):
    """Writes the answer of one run."""

    def event(self, event: SyncEvent) -> None:
        """Something happened within an owner, or to the whole run."""

    def owner(self, result: Result) -> None:
        """An owner is done."""

    def end(self, tally: Tally, error: UndriftError | None) -> None:
        """The run is over; *error* is what ended it, if something did."""


def open_reporter(output: Output, terminal: Terminal, subject: Subject) -> Reporter:
    """The reporter for *output*."""
    if output is Output.JSON:
        return JsonDocument(terminal, subject)
    if output is Output.JSONL:
        return JsonLines(terminal, subject)
    return Text(terminal, subject)


def text_of(kind: Kind, results: Iterable[Result]) -> str:
    """What the text of a run over everybody says of *results*, without the last line's end."""
    answer = io.StringIO()
    terminal = Terminal(Stream(answer), Stream(None))
    reporter, tally = Text(terminal, Subject(kind=kind)), Tally()
    for result in results:
        tally.add(result)
        reporter.owner(result)
    reporter.end(tally, None)
    return answer.getvalue().rstrip("\n")


class Errors:
    """Writes errors to standard error: each once, and not more than a person reads."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._told: set[tuple[str, str]] = set()
        self._left_out = 0

    def of_owner(self, result: Result) -> None:
        """The error of one owner, if it has one."""
        error = result.error
        if error is None and result.outcome is Outcome.NOT_FOUND:
            error = OwnerNotFound(result.owner_id)
        # What ends the whole run is told at its end.
        if error is None or isinstance(error, SafetyStop | EmbeddingBudgetSpent):
            return
        if (error.what, error.why) in self._told:
            return
        if len(self._told) >= MAX_BLOCKS:
            self._left_out += 1
            return
        self._tell(error)

    def at_end(self, error: UndriftError | None) -> None:
        """What ended the run, if something did."""
        if self._left_out:
            self._terminal.tell([Line(f"… and {self._left_out} more errors")])
        if error is not None and (error.what, error.why) not in self._told:
            self._tell(error)

    def _tell(self, error: UndriftError) -> None:
        self._told.add((error.what, error.why))
        self._terminal.tell(render_text.error_lines(error))


# --- text -------------------------------------------------------------------------------------


class Text:
    """Blocks and lines for people."""

    def __init__(self, terminal: Terminal, subject: Subject) -> None:
        self._terminal = terminal
        self._subject = subject
        self._errors = Errors(terminal)
        # With several owners, events wait for their owner's turn: a batch does not say whose it is.
        self._transcripts: dict[str, list[Line]] = {}
        self._lock = Lock()
        self._is_live = False
        self._started: set[str] = set()
        self._last_lines = 0
        self._blocks = 0
        self._left_out = 0

    def event(self, event: SyncEvent) -> None:
        """Write what happened, at once if it can only belong to one owner."""
        if not isinstance(event, RepairStarted | BatchWritten | BatchDeleted):
            self._terminal.tell(render_text.notice_lines(event))
            return
        if self._subject.is_everybody or self._is_said(event):
            return
        if self._subject.owners == 1:
            self._is_live = True
            self._terminal.say(render_text.event_lines(event))
            return
        with self._lock:
            lines = self._transcripts.setdefault(event.owner_id, [])
            lines.extend(render_text.event_lines(event))

    def owner(self, result: Result) -> None:
        """Write an owner's block, unless the run is over everybody and nothing is amiss."""
        self._errors.of_owner(result)
        with self._lock:
            transcript = self._transcripts.pop(result.owner_id, [])
        if self._subject.is_everybody:
            if not _is_amiss(result):
                return
            if self._blocks >= MAX_BLOCKS:
                self._left_out += 1
                return
        self._blocks += 1
        self._block([*transcript, *self._ending(result)], goes_on=self._is_live)

    def end(self, tally: Tally, error: UndriftError | None) -> None:
        """Write the sums, if there was anything to count, and the error."""
        if self._left_out:
            self._block([Line(f"… and {self._left_out} more")])
        is_cut_off = isinstance(error, Interruption) and error.has_begun
        if tally.owners or error is None or is_cut_off:
            self._block(_summary_lines(self._subject, tally))
        self._errors.at_end(error)

    def _is_said(self, event: SyncEvent) -> bool:
        """Whether *event* begins what has begun: a run with a delete limit goes over it twice."""
        if not isinstance(event, RepairStarted):
            return False
        is_said = event.owner_id in self._started
        self._started.add(event.owner_id)
        return is_said

    def _ending(self, result: Result) -> list[Line]:
        with_ids = self._subject.with_ids
        if isinstance(result, SyncStatus):
            return render_text.check_block(result, with_ids=with_ids)
        if isinstance(result, StampResult):
            return render_text.check_block(result.status, with_ids=with_ids)
        if result.dry_run:
            return render_text.plan_block(result, with_ids=with_ids)
        return render_text.sync_ending(result, with_ids=with_ids)

    def _block(self, lines: list[Line], *, goes_on: bool = False) -> None:
        """Write *lines*, behind a blank one if these or the last ones are several."""
        is_apart = self._last_lines and not goes_on and max(self._last_lines, len(lines)) > 1
        self._last_lines = len(lines)
        self._terminal.say([Line(""), *lines] if is_apart else lines)


def _is_amiss(result: Result) -> bool:
    return result.outcome is not Outcome.IN_SYNC or _is_to_do(result)


def _is_to_do(result: Result) -> bool:
    return isinstance(result, SyncReport) and result.dry_run and not result.skipped


def _summary_lines(subject: Subject, tally: Tally) -> list[Line]:
    match subject.kind:
        case Kind.CHECK:
            return render_text.check_summary(tally)
        case Kind.PLAN:
            return render_text.plan_summary(tally)
        case Kind.STAMP:
            return render_text.stamp_summary(tally)
        case Kind.SYNC:
            return render_text.sync_summary(tally, is_everybody=subject.is_everybody)


# --- JSON -------------------------------------------------------------------------------------


class JsonDocument:
    """One document, written as it grows: a run over everybody needs no memory for it."""

    def __init__(self, terminal: Terminal, subject: Subject) -> None:
        self._terminal = terminal
        self._subject = subject
        self._errors = Errors(terminal)
        self._has_begun = False
        self._has_owners = False
        self._read = Read.FULL

    def event(self, event: SyncEvent) -> None:
        """Tell people what happened to the whole run."""
        if isinstance(event, CheckStarted):
            self._read = event.read
        self._terminal.tell(render_text.notice_lines(event))

    def owner(self, result: Result) -> None:
        """Append an owner: every one that was named, of everybody those that were not in sync."""
        self._errors.of_owner(result)
        if self._subject.is_everybody and not _was_out_of_sync(result):
            return
        self._begin()
        # In one piece: a signal between a comma and what follows would leave no JSON.
        between = ",\n" if self._has_owners else "\n"
        self._has_owners = True
        self._terminal.say_text(f"{between}{self._dumped(render_json.owner_object(result))}")

    def end(self, tally: Tally, error: UndriftError | None) -> None:
        """Close the document."""
        self._begin()
        tail = _tail(self._subject, tally, error)
        between = "\n], " if self._has_owners else "], "
        self._terminal.say_text(f"{between}{self._dumped(tail)[1:]}\n")
        self._errors.at_end(error)

    def _begin(self) -> None:
        if self._has_begun:
            return
        self._has_begun = True
        subject = self._subject
        head = render_json.head(subject.command, read=self._read, dry_run=subject.dry_run)
        self._terminal.say_text(f'{self._dumped(head)[:-1]}, "owners": [')

    def _dumped(self, value: object) -> str:
        return render_json.dumped(value, encoding=self._terminal.out.encoding)


class JsonLines:
    """A line for each owner as it finishes, and always a last one with the sums."""

    def __init__(self, terminal: Terminal, subject: Subject) -> None:
        self._terminal = terminal
        self._subject = subject
        self._errors = Errors(terminal)
        self._read = Read.FULL

    def event(self, event: SyncEvent) -> None:
        """Tell people what happened to the whole run."""
        if isinstance(event, CheckStarted):
            self._read = event.read
        self._terminal.tell(render_text.notice_lines(event))

    def owner(self, result: Result) -> None:
        """Write an owner's line."""
        self._errors.of_owner(result)
        self._line(render_json.owner_object(result))

    def end(self, tally: Tally, error: UndriftError | None) -> None:
        """Write the last line."""
        subject = self._subject
        head = render_json.head(subject.command, read=self._read, dry_run=subject.dry_run)
        self._line({**head, **_tail(self._subject, tally, error)})
        self._errors.at_end(error)

    def _line(self, value: object) -> None:
        text = render_json.dumped(value, encoding=self._terminal.out.encoding)
        self._terminal.say_text(f"{text}\n")


def _was_out_of_sync(result: Result) -> bool:
    if result.outcome is not Outcome.IN_SYNC:
        return True
    return isinstance(result, SyncReport) and not result.skipped


def _tail(subject: Subject, tally: Tally, error: UndriftError | None) -> dict[str, object]:
    tail: dict[str, object] = {"summary": _summary_object(subject, tally)}
    if error is not None:
        tail["error"] = render_json.error_object(error)
    return tail


def _summary_object(subject: Subject, tally: Tally) -> render_json.Object:
    match subject.kind:
        case Kind.CHECK:
            return render_json.check_summary(tally)
        case Kind.PLAN:
            return render_json.plan_summary(tally)
        case Kind.STAMP:
            return render_json.stamp_summary(tally)
        case Kind.SYNC:
            return render_json.sync_summary(tally)
