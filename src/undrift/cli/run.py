"""A command from its first line to its exit code.

Whatever happens on the way becomes an answer on stdout, three parts on stderr and a code: an
error, a signal, a reader that goes away, a bug.
"""

from __future__ import annotations

import errno
import gc
import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from undrift.cli import exit_codes, render_json, render_text
from undrift.cli.fleet import NO_TOLERANCE, Tolerance
from undrift.cli.interrupts import Interrupted, Interrupts, before_work
from undrift.cli.logs import logged, plain
from undrift.cli.problems import (
    Bug,
    Interruption,
    LateInterruption,
    OutputFailed,
    trace_of,
)
from undrift.cli.progress import Pace, cannot_count, open_progress
from undrift.cli.report import Kind, Output, Subject, open_reporter
from undrift.cli.selection import Selection
from undrift.cli.streams import Color, Line, Terminal, open_terminal
from undrift.cli.tally import Result, Tally
from undrift.errors import UndriftError, UnknownStateError
from undrift.events import (
    CheckPaused,
    CheckStarted,
    Listener,
    StateCreated,
    StoreCreated,
    SyncEvent,
    TextsEmbedded,
)
from undrift.model import Outcome, SearchResult, SyncReport, SyncStatus

if TYPE_CHECKING:
    from undrift.api import Undrift
    from undrift.connections import Setup
    from undrift.headcount import Headcount

T = TypeVar("T")

_ERRORS = frozenset({Outcome.UNKNOWN, Outcome.FAILED, Outcome.NOT_FOUND})

_log = logging.getLogger(__name__)

_RARELY = (100_000, 20, 100)
"""Objects that are made before the youngest are looked through, and how often the older are."""

Work = Callable[["Undrift", Listener], Iterator[Result]]
"""One call of the API; what it yields is what the run reports."""

Confirm = Callable[[Terminal, "Undrift"], int | None]
"""Asks, and raises to refuse; about how many texts are to be embedded, where somebody looked."""


def everybody(sides: Undrift) -> Headcount | None:
    """How many a run over everybody is about."""
    return sides.headcount()


def _unasked(terminal: Terminal, sides: Undrift) -> None:
    """Go on without a question."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """How a run is configured and shown.

    Attributes:
        config: the configuration file, None for the usual one.
        is_verbose: log to stderr.
        exit_zero: exit 0 in place of 1.
    """

    output: Output = Output.TEXT
    color: Color = Color.AUTO
    is_verbose: bool = False
    config: Path | None = None
    exit_zero: bool = False


# --- check and sync ---------------------------------------------------------------------------


class OwnersRun:
    """A check or a sync.

    Args:
        confirm: asked when both sides are known and nothing has been done.
        count: tells how many there are, where nobody is named; None where nobody can.
        tolerance: how many owners may be out of sync without the run failing for it.
    """

    def __init__(
        self,
        subject: Subject,
        selection: Selection,
        view: View,
        work: Work,
        *,
        confirm: Confirm = _unasked,
        count: Callable[[Undrift], Headcount | None] | None = everybody,
        tolerance: Tolerance = NO_TOLERANCE,
    ) -> None:
        self._subject = subject
        self._selection = selection
        self._view = view
        self._work = work
        self._confirm = confirm
        self._count = count
        self._tolerance = tolerance
        self._terminal = open_terminal(view.color)
        self._reporter = open_reporter(view.output, self._terminal, subject)
        self._tally = Tally()
        self._interrupts = Interrupts()
        self._is_resumable = False
        self._pace = Pace(selection.count)
        self._unseen = dict.fromkeys(selection.owners or ())

    def run(self) -> int:
        """Do the work, report every owner of it, and return the exit code."""
        with self._interrupts.caught():
            error, code = ended(self._terminal, self._view, self._interrupts, self._report_owners)
            if isinstance(error, Interruption) and self._is_resumable:
                error = error.to_resume()
            self._reporter.end(self._tally, error)
            codes = [
                code,
                self._code_of_outcomes(),
                _answer_code(self._terminal, self._interrupts, error),
            ]
            code = exit_codes.strongest(codes)
            return exit_codes.IN_SYNC if self._view.exit_zero and code == exit_codes.DRIFT else code

    def _code_of_outcomes(self) -> int:
        tally = self._tally
        outcomes = {outcome for outcome, count in tally.outcomes.items() if count}
        if self._tolerance.allows(tally.out_of_sync, of=tally.owners):
            outcomes -= {Outcome.DRIFT, Outcome.FAILED}
        return exit_codes.of_outcomes(outcomes, are_named=not self._selection.is_everybody)

    def _report_owners(self) -> None:
        results = self._results()
        try:
            for result in self._interrupts.watched(results):
                if self._selection.is_everybody and result.outcome is Outcome.NOT_FOUND:
                    continue  # it vanished from both sides while we looked
                self._add(result)
                embedded = result.embedded if isinstance(result, SyncReport) else 0
                self._pace.user_done(is_error=result.outcome in _ERRORS, embedded=embedded)
                if self._terminal.out.failure is not None:
                    break
        except UnknownStateError as exc:
            for owner in list(self._unseen):
                self._add(self._unknown(owner, exc))
            raise
        finally:
            results.close()  # what it has done so far is saved before its connections go

    def _results(self) -> Generator[Result, None, None]:
        writes = self._subject.kind in (Kind.SYNC, Kind.STAMP)
        with opened(self._terminal, self._view, writes=writes) as sides:
            self._interrupts.raise_received()
            with before_work():
                planned = self._confirm(self._terminal, sides)
            count = self._count
            self._pace = Pace(
                self._selection.count,
                count=cannot_count if count is None else partial(count, sides),
                planned=planned,
            )
            progress = open_progress(self._terminal, self._pace)
            try:
                yield from self._work(sides, self._listen)
            finally:
                progress.close()

    def _listen(self, event: SyncEvent) -> None:
        if isinstance(event, StoreCreated | StateCreated):
            for statement in event.statements:
                _log.info("ran: %s", statement, extra={"action": "store.create"})
        if isinstance(event, TextsEmbedded):
            self._pace.embedded(event.texts, event.tokens)
            return
        if isinstance(event, CheckStarted):
            done, in_sync = sum(event.outcomes.values()), event.outcomes.get(Outcome.IN_SYNC, 0)
            self._pace.take_up(done, again=done - in_sync)
            self._is_resumable = event.is_saved
            self._tally.read = event.read
            self._tally.take_up(event.outcomes)
        if isinstance(event, CheckPaused):
            self._tally.is_partial = True
        self._reporter.event(event)

    def _add(self, result: Result) -> None:
        self._unseen.pop(result.owner_id, None)
        self._tally.add(result)
        self._reporter.owner(result)

    def _unknown(self, owner_id: str, error: UnknownStateError) -> Result:
        """The result of a named owner at whom the run did not get to look."""
        status = SyncStatus.unknown(owner_id, error)
        if self._subject.kind is Kind.CHECK:
            return status
        return SyncReport(
            owner_id=owner_id,
            outcome=status.outcome,
            before=status,
            dry_run=self._subject.dry_run,
            error=error,
        )


# --- search -----------------------------------------------------------------------------------


def run_search(view: View, search: Callable[[Undrift], SearchResult]) -> int:
    """Search, write the hits, and return the exit code."""
    terminal, tally = open_terminal(view.color), Tally()
    found: list[SearchResult] = []

    def find() -> None:
        with opened(terminal, view) as sides:
            found.append(search(sides))

    interrupts = Interrupts()
    with interrupts.caught():
        error, code = ended(terminal, view, interrupts, find)
        if view.output is not Output.TEXT:
            encoding = terminal.out.encoding
            for document in _search_documents(view.output, found, tally, error):
                terminal.say_text(f"{render_json.dumped(document, encoding=encoding)}\n")
        elif found:
            terminal.say(render_text.search_block(found[0]))
        if error is not None:
            terminal.tell(render_text.error_lines(error))
        return exit_codes.strongest([code, _answer_code(terminal, interrupts, error)])


def _search_documents(
    output: Output, found: Sequence[SearchResult], tally: Tally, error: UndriftError | None
) -> Iterator[render_json.Object]:
    if output is Output.JSONL:
        if found:
            yield from render_json.search_objects(found[0])
        yield render_json.search_summary(found[0] if found else None, tally, error)
    elif found:
        yield render_json.search_document(found[0])
    elif error is not None:
        yield render_json.error_document("search", error)


# --- any other answer -------------------------------------------------------------------------


def run_answer(
    view: View,
    command: str,
    work: Callable[[Undrift, Terminal], T],
    *,
    lines: Callable[[T], list[Line]],
    document: Callable[[T], render_json.Object],
    exit_code: Callable[[T], int] = lambda answer: exit_codes.IN_SYNC,
) -> int:
    """Do *work*, write its one answer in the form that was asked for, and return the exit code.

    Args:
        exit_code: what the answer asks for by itself.
    """
    terminal = open_terminal(view.color)
    found: list[T] = []

    def find() -> None:
        with opened(terminal, view) as sides:
            found.append(work(sides, terminal))

    interrupts = Interrupts()
    with interrupts.caught():
        error, code = ended(terminal, view, interrupts, find)
        if view.output is Output.TEXT:
            terminal.say(lines(found[0]) if found else [])
        else:
            failure = () if error is None else (render_json.error_document(command, error),)
            for answer in (*map(document, found), *failure)[:1]:
                terminal.say_text(f"{render_json.dumped(answer, encoding=terminal.out.encoding)}\n")
        if error is not None:
            terminal.tell(render_text.error_lines(error))
        codes = [code, *map(exit_code, found), _answer_code(terminal, interrupts, error)]
        return exit_codes.strongest(codes)


def run_without_sides(view: View, command: str, answer: Callable[[Terminal], int]) -> int:
    """Run a command that needs neither side to be there, and return the exit code.

    Args:
        command: its name, for an answer that it could not give.
        answer: writes to the terminal and returns the exit code.
    """
    terminal = open_terminal(view.color)
    codes: list[int] = []
    interrupts = Interrupts()
    with interrupts.caught():
        error, code = ended(terminal, view, interrupts, lambda: codes.append(answer(terminal)))
        if error is not None:
            # A signal may come behind the answer, and one document is not two.
            is_answered = view.output is Output.JSON and terminal.out.has_written
            if view.output is not Output.TEXT and not is_answered:
                document = render_json.error_document(command, error)
                dumped = render_json.dumped(document, encoding=terminal.out.encoding)
                terminal.say_text(f"{dumped}\n")
            terminal.tell(render_text.error_lines(error))
        return exit_codes.strongest([code, *codes, _answer_code(terminal, interrupts, error)])


# --- how a run ends ---------------------------------------------------------------------------


def ended(
    terminal: Terminal,
    view: View,
    interrupts: Interrupts,
    body: Callable[[], None],
    *,
    is_logged: bool = False,
) -> tuple[UndriftError | None, int]:
    """Run *body*; what ended it early, if something did, and the exit code of that.

    Only in here does a signal raise. What comes behind it is the answer, and is written whole.

    Args:
        is_logged: the caller has logs of its own.
    """
    is_silent = is_logged or not view.is_verbose
    try:
        with interrupts.raised(), nullcontext() if is_silent else logged(terminal, plain()):
            body()
    except UndriftError as exc:
        return exc, exit_codes.of_error(exc)
    except KeyboardInterrupt as exc:
        interrupted = exc if isinstance(exc, Interrupted) else Interrupted(2)
        told = Interruption(interrupted.name, has_begun=interrupted.has_begun)
        return told, interrupted.exit_code
    except Exception as exc:  # noqa: BLE001  the last resort: nobody is shown a traceback
        if view.is_verbose:
            terminal.tell(map(Line, trace_of(exc)))
        return Bug(exc), exit_codes.UNKNOWN
    return None, exit_codes.IN_SYNC


def _answer_code(terminal: Terminal, interrupts: Interrupts, error: UndriftError | None) -> int:
    """The exit code that writing the answer asks for: its stream's, or that of a late signal."""
    if interrupts.received is None or isinstance(error, Interruption):
        return _output_code(terminal)
    late = Interrupted(interrupts.received)
    terminal.tell(render_text.error_lines(LateInterruption(late.name)))
    return exit_codes.strongest([late.exit_code, _output_code(terminal)])


def _output_code(terminal: Terminal) -> int:
    """The exit code that the answer's stream asks for; says why, unless its reader just left."""
    failure = terminal.out.failure
    if failure is None:
        return exit_codes.IN_SYNC
    if failure.errno == errno.EPIPE:
        return exit_codes.BROKEN_PIPE
    terminal.tell(render_text.error_lines(OutputFailed(failure)))
    return exit_codes.UNKNOWN


@contextmanager
def opened(
    terminal: Terminal,
    view: View,
    *,
    writes: bool = False,
    tell: Callable[[Setup], None] | None = None,
) -> Iterator[Undrift]:
    """Both sides as the environment describes them, after saying on stderr what they are.

    Args:
        writes: the command writes, so that it matters where the state is.
        tell: says it in place of the usual line.
    """
    from undrift.api import Undrift
    from undrift.config import load_settings
    from undrift.heal import NO_HEALING

    # A person repairs with `undrift sync`; a search at the prompt only reads.
    settings = replace(load_settings(view.config), heal=NO_HEALING)
    if settings.embedder.startswith("openai:"):
        _keep_retries_off_the_streams()
    with Undrift.from_settings(settings) as sides:
        setup = sides.describe()
        if tell is None:
            terminal.tell(render_text.setup_lines(setup, writes=writes))
        else:
            tell(setup)
        # What the libraries have loaded by now stays, and a run makes hardly any cycles; looking
        # for them again and again took a quarter of a check's time and a third of a sync's.
        gc.freeze()
        gc.set_threshold(*_RARELY)
        yield sides


def _keep_retries_off_the_streams() -> None:
    """Let the retry library tell nobody: where structlog is installed it would print to stdout.

    undrift logs each retry itself.
    """
    with suppress(ImportError):
        from stamina.instrumentation import set_on_retry_hooks

        set_on_retry_hooks([])
