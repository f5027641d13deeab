"""What ``undrift`` and ``db-sync-vector`` have in common: what each command asks the API for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from select import select
from typing import TYPE_CHECKING

from undrift.cli.fleet import NO_TOLERANCE, EngineName, FleetChoice, Tolerance
from undrift.cli.forecast import look_ahead
from undrift.cli.interrupts import before_work
from undrift.cli.problems import UsageError
from undrift.cli.report import Kind, Subject
from undrift.cli.run import OwnersRun, View
from undrift.cli.selection import Selection
from undrift.cli.streams import Line, Terminal
from undrift.cli.tally import Result, StampResult
from undrift.errors import ConfigError
from undrift.events import Listener, ignore
from undrift.guard import require_budget

if TYPE_CHECKING:
    from undrift.api import Undrift
    from undrift.headcount import Headcount
    from undrift.recipe import SyncEngine
    from undrift.scan.options import CheckOptions, EngineFactory

EVERYBODY_AT_ONCE = FleetChoice()

_TURN_SECONDS = 0.2


def run_check(
    selection: Selection,
    view: View,
    *,
    with_ids: bool = False,
    choice: FleetChoice = EVERYBODY_AT_ONCE,
    tolerance: Tolerance = NO_TOLERANCE,
) -> int:
    """Check the selected owners and return the exit code.

    Args:
        choice: how everybody is checked, where nobody is named.
        tolerance: how many may be out of sync without the run failing for it.
    """
    choice.require_fits(is_everybody=selection.is_everybody and not choice.changed)

    def work(sides: Undrift, listener: Listener) -> Iterator[Result]:
        if selection.owners is not None:
            return sides.check_owners(selection.owners)
        if choice.changed:
            return sides.check_changed(listener=listener)
        return sides.check_all(_check_options(choice, listener))

    subject = Subject(kind=Kind.CHECK, owners=selection.count, with_ids=with_ids)
    return OwnersRun(
        subject, selection, view, work, count=_count(choice), tolerance=tolerance
    ).run()


def _count(choice: FleetChoice) -> Callable[[Undrift], Headcount | None] | None:
    """Tells how many users the check is about; None where it looks at whoever was changed."""
    if choice.changed:
        return None

    def count(sides: Undrift) -> Headcount | None:
        found = sides.headcount()
        return None if found is None else found.of_share(_check_options(choice, ignore).share)

    return count


def _check_options(choice: FleetChoice, listener: Listener) -> CheckOptions:
    from undrift.scan.options import CheckOptions, usable_processes

    return CheckOptions(
        memos=not choice.no_memo,
        shard=choice.shard,
        sample=choice.sample,
        owners_per_second=choice.rate,
        until=choice.until,
        resume=choice.resume,
        saves_progress=True,
        processes=usable_processes() if choice.processes is None else choice.processes,
        engine=_engine(choice),
        listener=listener,
    )


def _engine(choice: FleetChoice) -> EngineFactory | None:
    if choice.engine is EngineName.LOCAL:
        return None
    from undrift.engines.on_ray import on_ray

    return on_ray(choice.ray_address)


def _sync_engine(choice: FleetChoice) -> SyncEngine | None:
    if choice.engine is EngineName.LOCAL:
        if choice.processes in (None, 1):
            return None
        from undrift.engines.sync_in_processes import sync_in_processes

        return sync_in_processes(choice.processes)
    from undrift.engines.embedding import EmbedderPool
    from undrift.engines.sync_on_ray import sync_on_ray

    pool = EmbedderPool(
        embedders=1 if choice.embedders is None else choice.embedders,
        gpus=choice.gpus_per_embedder or 0.0,
    )
    return sync_on_ray(choice.ray_address, pool=pool)


def run_plan(
    selection: Selection,
    view: View,
    *,
    force: bool = False,
    with_ids: bool = False,
    choice: FleetChoice = EVERYBODY_AT_ONCE,
) -> int:
    """Say what a sync of the selected owners would do, and return the exit code of a check.

    Args:
        choice: how the sync would go over everybody.
    """
    choice.require_fits(is_everybody=selection.is_everybody)
    choice.require_here("--dry-run")

    def work(sides: Undrift, listener: Listener) -> Iterator[Result]:
        return sides.plan(selection.owners, force=force, listener=listener)

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
    foretells: bool = True,
    with_ids: bool = False,
    choice: FleetChoice = EVERYBODY_AT_ONCE,
) -> int:
    """Sync the selected owners and return the exit code.

    Args:
        choice: where everybody is synced, where nobody is named.
        retry_parked: try again what could not be embedded before.
        is_confirmed: do not ask, however much there is to be written.
        foretells: before everybody is synced, tell the person at the terminal what that does, and
            ask.
    """
    choice.require_fits(is_everybody=selection.is_everybody)
    require_budget(max_embeddings)
    engine = _sync_engine(choice)  # what is impossible is refused before anything is asked

    def work(sides: Undrift, listener: Listener) -> Iterator[Result]:
        if selection.owners is None:
            return sides.sync_all(
                force=force,
                max_delete=max_delete,
                max_embeddings=max_embeddings,
                retry_parked=retry_parked,
                engine=engine,
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

    def confirm(terminal: Terminal, sides: Undrift) -> int | None:
        if not selection.is_everybody or is_confirmed or not is_attended(terminal):
            return None
        texts = None
        if foretells:
            forecast = look_ahead(terminal, sides, force=force, max_delete=max_delete)
            if forecast.is_nothing and not force:
                return 0
            terminal.tell(forecast.lines(max_embeddings=max_embeddings))
            texts = forecast.texts
        if force:
            require_yes(terminal, "Every vector of every user will be embedded anew.")
        elif foretells:
            require_yes(terminal, "Nothing is written yet.")
        return texts

    subject = Subject(kind=Kind.SYNC, owners=selection.count, with_ids=with_ids)
    return OwnersRun(subject, selection, view, work, confirm=confirm).run()


def run_stamp(view: View, *, is_confirmed: bool) -> int:
    """Stamp what another program wrote, wherever it is as the source has it; return the exit code.

    Args:
        is_confirmed: do not ask, however much there is to be stamped.
    """

    def work(sides: Undrift, listener: Listener) -> Iterator[Result]:
        for stamped in sides.stamp(listener=listener):
            yield StampResult.of(stamped)

    def confirm(terminal: Terminal, sides: Undrift) -> None:
        from undrift.config import load_settings

        if load_settings(view.config).store_fields is None:
            raise _nothing_adopted()
        counts = [status.unstamped for status in sides.check_all()]
        records, users = sum(counts), sum(map(bool, counts))
        of_users = f"of {users} user{'' if users == 1 else 's'}"
        said = f"{records} record{'' if records == 1 else 's'} {of_users} will be stamped"
        terminal.tell([Line(f"{said}; no text and no vector changes.")])
        if records and not is_confirmed:
            require_yes(terminal, "Other programs see the stamps among their metadata.")

    subject = Subject(kind=Kind.STAMP)
    return OwnersRun(subject, Selection(None), view, work, confirm=confirm).run()


def _nothing_adopted() -> ConfigError:
    return ConfigError(
        "There is no adopted collection",
        why="the configuration has no [store.fields], so that undrift filled the store itself, and "
        "all of its records have stamps.",
        fix="let `undrift init` look at VECTOR_URL and propose [store.fields], or run `undrift "
        "check --all`",
    )


def is_attended(terminal: Terminal) -> bool:
    """Whether somebody is there to read a question, and to answer it."""
    return sys.stdin is not None and sys.stdin.isatty() and terminal.err.isatty()


def _answer() -> str:
    """What is typed; nothing, if it is no text."""
    try:
        # In short turns: a signal that comes right before a read waits for the end of it.
        while not select([sys.stdin], [], [], _TURN_SECONDS)[0]:
            pass
        return sys.stdin.readline()
    except UnicodeDecodeError:
        return ""


def require_yes(terminal: Terminal, what: str) -> None:
    """Ask whether *what* is meant; where nobody is there to answer, it is.

    Raises:
        UsageError: the answer is anything but yes.
    """
    if not is_attended(terminal):
        return
    with terminal.bar_aside():
        terminal.err.write(f"{what} Go on? [y/N] ")
        with before_work():
            answer = _answer()
    if answer.strip().lower() not in {"y", "yes"}:
        raise UsageError(
            "Nothing was done",
            why="the question was not answered with yes.",
            fix="answer y, or give --yes",
        )
