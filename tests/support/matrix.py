"""What the contract's tests showed of each store: a table behind the run's own summary."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field

import pytest

_CONTRACT = "tests/contract/"


@dataclass
class _Row:
    """One class of tests, which is one store in one configuration."""

    outcomes: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    properties: dict[str, str] = field(default_factory=dict)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table, if the contract was among what ran."""
    rows = _rows(terminalreporter)
    if not rows:
        return
    terminalreporter.section("stores and what they promise")
    for name, row in sorted(rows.items()):
        found = row.properties
        counted = ", ".join(f"{n} {outcome}" for outcome, n in sorted(row.outcomes.items()))
        terminalreporter.line(
            f"{name}: class {found['store_class']}, {found['tested_with']}: {counted}"
        )
        for promise, reason in json.loads(found["why_not"]).items():
            terminalreporter.line(f"    {promise} not promised: {reason}")
        for reason, count in sorted(row.skipped.items()):
            terminalreporter.line(f"    {count} skipped: {reason}")


def _rows(terminalreporter: pytest.TerminalReporter) -> dict[str, _Row]:
    rows: dict[str, _Row] = {}
    for outcome in ("passed", "failed", "skipped", "error"):
        for report in terminalreporter.stats.get(outcome, ()):
            if not report.nodeid.startswith(_CONTRACT) or report.nodeid.count("::") < 2:
                continue
            name = report.nodeid.split("::")[1]
            row = rows.setdefault(name, _Row())
            row.outcomes[outcome] += 1
            row.properties.update({key: str(value) for key, value in report.user_properties})
            if outcome == "skipped" and isinstance(report.longrepr, tuple):
                row.skipped[str(report.longrepr[2]).removeprefix("Skipped: ")] += 1
    return {name: row for name, row in rows.items() if "store_class" in row.properties}
