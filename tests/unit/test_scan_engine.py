"""Who checks which page, and in which order the answers come."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, wait
from typing import NoReturn

import pytest

from support.spawned import Checker
from undrift.errors import StoreUnavailable
from undrift.scan import engine
from undrift.scan.feed import Page, Position
from undrift.scan.page import PageResult, Rendering, nobody_asks

NOBODY: Sequence[str] = ()


class Log:
    """Pages and jobs that write down what is asked of them."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def pages(self, *owners: Sequence[str]) -> Iterator[Page]:
        for number, listed in enumerate(owners):
            self.events.append(f"list {number}")
            yield Page(listed, Position(False, str(number)))

    def submit(self, owners: Sequence[str]) -> engine.Job:
        (owner,) = owners
        self.events.append(f"begin {owner}")

        def job() -> PageResult:
            self.events.append(f"await {owner}")
            return PageResult([], rendered=1)

        return job

    def run(self, window: int, *owners: Sequence[str]) -> list[tuple[str | None, int]]:
        found = engine.in_order(self.pages(*owners), self.submit, lambda: window)
        return [(page.end.after, result.rendered) for page, result in found]


def test_as_many_pages_are_under_way_as_the_window_has_room_for() -> None:
    log = Log()
    assert log.run(2, "a", "b", "c") == [("0", 1), ("1", 1), ("2", 1)]
    expected = "list 0, begin a, list 1, begin b, await a, list 2, begin c, await b, await c"
    assert ", ".join(log.events) == expected


def test_pages_without_anybody_are_listed_while_others_are_checked() -> None:
    """They are told behind those all the same, and nobody is asked to check them."""
    log = Log()
    found = log.run(3, "a", "b", NOBODY, NOBODY, NOBODY)
    assert found == [("0", 1), ("1", 1), ("2", 0), ("3", 0), ("4", 0)]
    expected = "list 0, begin a, list 1, begin b, list 2, list 3, list 4, await a, await b"
    assert ", ".join(log.events) == expected


def test_pages_that_wait_for_an_answer_are_not_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "LISTED_AHEAD", 1)
    log = Log()
    assert len(log.run(2, "a", NOBODY, NOBODY, NOBODY)) == 4
    assert ", ".join(log.events) == "list 0, begin a, list 1, list 2, await a, list 3"


def test_what_is_under_way_is_told_before_a_failure_to_list() -> None:
    """And the failure of a check is one at once."""
    log = Log()
    told: list[str | None] = []

    def pages() -> Iterator[Page]:
        yield from log.pages("a", "b", NOBODY)
        raise StoreUnavailable("The store is gone", why="it is.", fix="wait")

    with pytest.raises(StoreUnavailable):
        told.extend(page.end.after for page, _ in engine.in_order(pages(), log.submit, lambda: 4))
    assert told == ["0", "1", "2"]


def test_pages_without_anybody_are_told_at_once_where_nothing_is_under_way() -> None:
    log = Log()
    found = engine.in_order(log.pages(NOBODY, NOBODY), log.submit, lambda: 4)
    assert next(found)[0].end.after == "0"
    assert log.events == ["list 0"]


def test_this_process_and_the_others_share_the_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them is checked once, and this one goes on when the others have begun."""
    monkeypatch.setattr(engine, "MANY_RENDERED", 1)
    local = engine.LocalEngine(Checker(), Checker, processes=3)

    def pages() -> Iterator[Page]:
        for number in range(200):
            yield Page([str(number)], Position(False, str(number)))
            if local._beginning:
                wait(local._beginning)

    try:
        found = [(page.end.after, result.rendered) for page, result in local.check(pages())]
    finally:
        local.close()
    assert [after for after, _ in found] == [str(number) for number in range(200)]
    behind_the_start = [process for _, process in found[20:]]
    assert len(set(behind_the_start)) > 1
    assert behind_the_start.count(os.getpid()) > 1


class Renders(Checker):
    """A check that has to render its owners, and notes when it does."""

    def __init__(self, begun: list[str], *, at_most: int = 100) -> None:
        self._begun = begun
        self._at_most = at_most

    def __call__(self, owners: Sequence[str], rendering: Rendering = nobody_asks) -> PageResult:
        """Say how many, and note it."""
        rendering(min(len(owners), self._at_most))
        self._begun.append(f"page {owners[0]}")
        return PageResult([], len(owners))


def test_processes_start_before_the_first_page_is_rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """As soon as it is known that it has to be, and that more are to come; and once only."""
    begun: list[str] = []

    class NoPool:
        def __init__(self, *_: object) -> None:
            begun.append("pool")

        def submit(self, *_: object) -> Future[None]:
            return Future()  # never begun: this process checks every page

        def close(self) -> None:
            begun.append("closed")

    monkeypatch.setattr(engine, "SpawnedPool", NoPool)
    monkeypatch.setattr(engine, "MANY_RENDERED", 2)
    monkeypatch.setattr(engine, "THREADS", 1)
    local = engine.LocalEngine(Renders(begun), Checker, processes=2)
    pages = [Page(["a", "b", "c", "d", "e", "f"], Position()), Page(["g"], Position())]
    assert len(list(local.check(iter(pages)))) == 2
    local.close()
    assert begun == ["pool", "page a", "page g", "closed"]


@pytest.mark.parametrize(("rendered", "listed"), [(1, 40), (5, 5)])
def test_processes_are_not_started_for_few(
    monkeypatch: pytest.MonkeyPatch, rendered: int, listed: int
) -> None:
    """Of a large fleet, or of one that is soon done."""

    def no_pool(*_: object) -> NoReturn:
        raise AssertionError("a process was started")

    monkeypatch.setattr(engine, "MANY_RENDERED", 2)
    monkeypatch.setattr(engine, "SpawnedPool", no_pool)
    local = engine.LocalEngine(Renders([], at_most=rendered), Checker, processes=2)
    page = Page([str(number) for number in range(listed)], Position())
    assert len(list(local.check(iter([page])))) == 1
    local.close()
