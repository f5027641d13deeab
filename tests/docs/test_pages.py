"""Every command, program, query and file of the documentation is run, every output compared."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from support.doc_pages import OUTSIDE, PAGES, ROOT, Page, commands_of, read_page
from support.doc_runner import Runner, updated

UPDATES = os.environ.get("UNDRIFT_TEST_UPDATE_DOCS") == "1"

MOST_NOT_RUN = 11
"""Blocks that say why they are not run. Each is a promise that nobody keeps but the writer."""


def name_of(path: Path) -> str:
    """The page as people call it."""
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_what_a_page_says_is_what_happens(path: Path, runner_of: Callable[[Page], Runner]) -> None:
    """From its first block to its last, in a folder and on databases of its own."""
    page = read_page(path)
    runner = runner_of(page)
    runner.run()
    if UPDATES and runner.differences:
        path.write_text(updated(page, runner.differences), encoding="utf-8")
    elif runner.differences:
        pytest.fail("\n\n".join(each.error for each in runner.differences), pytrace=False)


def test_hardly_anything_is_not_run_and_all_of_it_says_why() -> None:
    """What no page can run is a short list."""
    pages = [read_page(path) for path in PAGES]
    reasons = [block.reason for page in pages for block in page.blocks if block.reason]
    assert len(reasons) <= MOST_NOT_RUN, reasons
    assert all(len(reason.split()) >= 3 for reason in reasons), reasons


def test_the_outside_commands_are_all_shown() -> None:
    """An exception that nobody needs any more would hide the next page's mistake."""
    blocks = [
        block
        for path in PAGES
        for block in read_page(path).blocks
        if block.language == "console" and not block.reason
    ]
    shown = {command.line.split()[0] for block in blocks for command in commands_of(block)}
    assert set(OUTSIDE) <= shown
