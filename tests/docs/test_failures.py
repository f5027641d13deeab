"""The table of failures knows every place where a worker can be killed."""

from __future__ import annotations

import re
from pathlib import Path

from undrift.failpoints import FAILPOINTS, SCAN_FAILPOINTS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "explanation" / "consistency.md"


def test_every_failpoint_has_its_row_in_the_table_of_failures() -> None:
    """What a user sees, what is lost, what mends it; and no row is of a place that is not there."""
    row = r"^\| `((?:sync|store|scan)\.[a-z._]+)` \|(.*)\|$"
    rows = re.findall(row, PAGE.read_text(), re.MULTILINE)
    assert sorted(name for name, _ in rows) == sorted(FAILPOINTS | SCAN_FAILPOINTS)
    for _, cells in rows:
        assert all(cell.strip() for cell in cells.split("|"))
        assert len(cells.split("|")) == 3
