"""The page about other tools has the figures that the benchmark wrote."""

from __future__ import annotations

import json

import pytest
from benchmarks.peers_table import PAGE, RESULT, tables, written

MEASURED = json.loads(RESULT.read_text())


def test_the_page_has_every_table_of_the_last_run_and_the_versions_that_were_measured() -> None:
    """Written by `make bench-peers`, and by nobody's hand."""
    page = PAGE.read_text()
    assert written(page, MEASURED) == page
    assert all(table in page for table in tables(MEASURED).values())


def test_the_page_says_how_much_was_run() -> None:
    assert f"{MEASURED['texts']:,} texts" in PAGE.read_text()


def test_a_page_without_a_place_for_a_table_is_refused() -> None:
    """Rather than left with old figures."""
    page = PAGE.read_text().replace("measured: ratios", "measured: nothing")
    with pytest.raises(ValueError, match="ratios"):
        written(page, MEASURED)
