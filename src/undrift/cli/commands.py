"""What ``undrift`` and ``db-sync-vector`` have in common: each command as one call of the API."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from undrift.cli.problems import UsageError
from undrift.cli.report import Kind, Subject
from undrift.cli.run import OwnersRun, View
from undrift.cli.selection import Selection
from undrift.cli.streams import Terminal
from undrift.cli.tally import Result
from undrift.events import Listener

if TYPE_CHECKING:
    from undrift.api import Undrift


def run_check(selection: Selection, view: View, *, with_ids: bool = False) -> int:
    """Check the selected owners and return the exit code."""

    def work(sides: Undrift, listener: Listener) -> Iterator[Result]:
        if selection.owners is None:
            return sides.check_all()
        return sides.check_owners(selection.owners)

    subject = Subject(kind=Kind.CHECK, owners=selection.count, with_ids=with_ids)
    return OwnersRun(subject, selection, view, work).run()


def run_plan(
    selection: Selection, view: View, *, force: bool = False, with_ids: bool = False
) -> int:
    """Say what a sync of the selected owners would do, and return the exit code of a check."""

    def work(sides: Undrift, listener: Listener) -> Iterator[Result]:
        return sides.plan(selection.owners, force=force)

    subject = Subject(kind=Kind.PLAN, owners=selection.count, with_ids=with_ids)
    return OwnersRun(subject, selection, view, work).run()


def run_sync(
    selection: Selection,
    view: View,
    *,
    force: bool = False,
    max_delete: str | None = None,
    max_embeddings: int | None = None,
    retry_parked: bool = False,
    is_confirmed: bool = False,
    with_ids: bool = False,
) -> int:
    """Sync the selected owners and return the exit code.

    Args:
        retry_parked: try again what could not be embedded before.
        is_confirmed: do not ask, however much there is to be rewritten.
    """

    def work(sides: Undrift, listener: Listener) -> Iterator[Result]:
        if selection.owners is None:
            return sides.sync_all(
                force=force,
                max_delete=max_delete,
                max_embeddings=max_embeddings,
                retry_parked=retry_parked,
                listener=listener,
            )
        return sides.sync_owners(
            selection.owners,
            force=force,
            max_delete=max_delete,
            max_embeddings=max_embeddings,
            retry_parked=retry_parked,
            listener=listener,
        )

    def confirm(terminal: Terminal) -> None:
        if selection.is_everybody and force and not is_confirmed:
            require_yes(terminal, "Every vector of every user will be embedded anew.")

    subject = Subject(kind=Kind.SYNC, owners=selection.count, with_ids=with_ids)
    return OwnersRun(subject, selection, view, work, confirm=confirm).run()


def require_yes(terminal: Terminal, what: str) -> None:
    """Ask whether *what* is meant; where nobody is there to answer, it is.

    Raises:
        UsageError: the answer is anything but yes.
    """
    if sys.stdin is None or not sys.stdin.isatty() or not terminal.err.isatty():
        return
    with terminal.bar_aside():
        terminal.err.write(f"{what} Go on? [y/N] ")
        answer = sys.stdin.readline()
    if answer.strip().lower() not in {"y", "yes"}:
        raise UsageError(
            "Nothing was done",
            why="the question was not answered with yes.",
            fix="answer y, or give --yes",
        )
