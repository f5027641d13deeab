"""Going over owners in pages, when to give up, and a source that knows one owner only."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.rendering import mapping_of
from undrift.errors import (
    InvalidDocument,
    SafetyStop,
    SourceUnavailable,
    StoreUnavailable,
    UndriftError,
    UnknownStateError,
)
from undrift.fleet import MAX_FAILED_PAGES, PageFailures, is_outage, pages_of
from undrift.given import GivenSource
from undrift.sources.documents import GivenProfile
from undrift.sources.paths import PathTree

OUTAGE = SourceUnavailable("The source is gone", why="nothing answers.", fix="start it")
ONE_OWNERS = InvalidDocument("ann", why="it is NULL.", fix="store an object")


# --- pages ------------------------------------------------------------------------------------


@given(st.lists(st.text(max_size=2)), st.integers(1, 5))
def test_pages_hold_every_owner_once_in_the_given_order(owners: list[str], size: int) -> None:
    """An owner that is named twice is looked at once; no page is too long and none is empty."""
    pages = list(pages_of(owners, page_owners=size))
    assert [owner for page in pages for owner in page] == list(dict.fromkeys(owners))
    assert all(len(page) == size for page in pages[:-1])
    assert all(0 < len(page) <= size for page in pages)


# --- giving up --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (None, False),
        (OUTAGE, True),
        (StoreUnavailable("x", why="y.", fix="z"), True),
        (ONE_OWNERS, False),
        (SafetyStop("x", why="y.", fix="z"), False),
    ],
)
def test_outage_is_what_concerns_every_owner(error: UndriftError | None, expected: bool) -> None:
    """One owner's unreadable document is none."""
    assert is_outage(error) is expected


def failures_after(*pages: list[UndriftError | None]) -> UnknownStateError | None:
    """What `PageFailures` says after these pages."""
    failures = PageFailures()
    for errors in pages:
        failures.saw(errors)
    return failures.error


def test_pages_in_a_row_that_fail_are_the_reason_to_give_up() -> None:
    """It names the last one's, and carries it as the cause."""
    failed: list[UndriftError | None] = [OUTAGE, OUTAGE]
    error = failures_after(*[failed] * MAX_FAILED_PAGES)
    assert error is not None
    assert "The source is gone" in error.why
    assert error.fix == "start it"
    assert error.__cause__ is OUTAGE


@pytest.mark.parametrize(
    "other",
    [[None], [OUTAGE, None], [OUTAGE, ONE_OWNERS], [ONE_OWNERS], []],
    ids=["read", "read in part", "read, one invalid", "one invalid", "empty"],
)
def test_page_of_which_something_was_read_starts_the_count_anew(
    other: list[UndriftError | None],
) -> None:
    """A run goes on as long as it sees anything."""
    failed: list[list[UndriftError | None]] = [[OUTAGE]] * (MAX_FAILED_PAGES - 1)
    assert failures_after(*failed) is None
    assert failures_after(*failed, other, *failed) is None


# --- a given profile --------------------------------------------------------------------------


@pytest.fixture
def given_source() -> GivenSource:
    """A source that knows Ann."""
    paths = PathTree(mapping_of().entities)
    return GivenSource(GivenProfile("ann", {"skills": ["SQL"]}, paths))


def test_given_source_knows_one_owner(given_source: GivenSource) -> None:
    """And nobody else."""
    assert [list(page) for page in given_source.owner_pages(10)] == [["ann"]]
    assert given_source.present(["ann", "bob"]) == {"ann"}
    assert given_source.present(["bob"]) == frozenset()
    assert [content.owner_id for content in given_source.read(["bob", "ann"])] == ["ann"]
    assert list(given_source.read(["bob"])) == []


@pytest.mark.parametrize(("after", "pages"), [("ann", []), ("bob", []), ("a", [["ann"]])])
def test_given_source_goes_on_behind_an_owner(
    given_source: GivenSource, after: str, pages: list[list[str]]
) -> None:
    """As any source does."""
    assert [list(page) for page in given_source.owner_pages(10, after)] == pages


def test_given_source_says_that_it_is_none(given_source: GivenSource) -> None:
    """There is no database behind it, and nothing to close."""
    info = given_source.describe()
    assert (info.location, info.layout, info.is_standby) == ("(none)", "the given profile", False)
    given_source.close()
    given_source.close()
