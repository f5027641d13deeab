"""What `benchmarks.peers` kept, put into its page: ``python -m benchmarks.peers_table``.

The page has a place for each table, between comments that name it.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

RESULT = Path(__file__).parent / "results" / "peers.json"
PAGE = Path(__file__).parent.parent / "docs" / "explanation" / "peers.md"

_LINE_CHARACTERS = 100

Scenarios = Mapping[str, Mapping[str, Any]]
"""The figures of one system, by scenario."""

USUAL = {
    "initial": "everything from nothing",
    "no-op": "nothing to do",
    "one change": "one text changed in the source",
    "100 stale": "100 texts gone from the source",
    "100 lost": "100 vectors deleted behind its back",
    "one ghost": "a record inserted behind its back",
}
REPAIRS = ("repair", "rebuild")

COMPARED = {
    "initial": ("initial", "everything from nothing, by `sync --all`"),
    "no-op": ("no-op", "nothing to do, by `sync --all`"),
    "no-op, check": ("no-op", "nothing to do, by `check --all`"),
    "no-op, first check": ("no-op", "nothing to do, by the first `check --all`"),
    "100 lost": ("100 lost", "100 lost vectors repaired, by `sync --all`"),
}
"""What undrift did, with what of the others it is compared, and what it is."""


def tables(result: Mapping[str, Any]) -> dict[str, str]:
    """The tables in Markdown, by what they are about."""
    systems: Mapping[str, Scenarios] = result["systems"]
    times: Mapping[str, Any] = result["ratios"]
    return {
        "ratios": _table(
            "",
            times,
            [_row(title, times, name, _times) for name, (_, title) in COMPARED.items()],
        ),
        "verdicts": _table("", systems, [_verdicts(name, systems) for name in list(USUAL)[2:]]),
        "seconds": _table(
            "seconds, of them the program's CPU",
            systems,
            [_row(title, systems, name, _time) for name, title in _titles(systems).items()],
        ),
        "memory": _table(
            "",
            systems,
            [
                _row(f"largest memory, {name}, MB", systems, name, _memory)
                for name in ("initial", "no-op")
            ]
            + [
                _row(f"server's CPU, {name}, s", systems, name, _server)
                for name in ("initial", "no-op")
            ]
            + [_row("embeddings paid, initial", systems, "initial", _embedded)],
        ),
    }


def ratios(systems: Mapping[str, Scenarios]) -> dict[str, dict[str, dict[str, float]]]:
    """How many times as long as undrift the others took, by what.

    In time, and in CPU of the program and the server together, which other work on the machine
    disturbs less. Empty without undrift.
    """
    own = systems.get("undrift", {})
    return {
        other: {
            name: {
                "seconds": theirs["seconds"] / own[name]["seconds"],
                "cpu": _cpu(theirs) / _cpu(own[name]),
            }
            for name, (what, _) in COMPARED.items()
            for theirs in [last(scenarios, what)]
        }
        for other, scenarios in systems.items()
        if own and other != "undrift"
    }


def _cpu(step: Mapping[str, Any]) -> float:
    seconds: float = step["cpu_seconds"] + step["server_cpu_seconds"]
    return seconds


def last(scenarios: Scenarios, name: str) -> Mapping[str, Any]:
    """The last thing that was run after *name* had happened: what repaired it, if anything did."""
    ran = [name, *(f"{name}, {repair}" for repair in REPAIRS)]
    return [scenarios[step] for step in ran if step in scenarios][-1]


def _titles(systems: Mapping[str, Scenarios]) -> dict[str, str]:
    """Every scenario that any system had, in order, with its title."""
    titles: dict[str, str] = {}
    for name, title in USUAL.items():
        found = {step for scenarios in systems.values() for step in scenarios}
        titles[name] = title
        for suffix in ("first check", "check", *REPAIRS):
            if f"{name}, {suffix}" in found:
                titles[f"{name}, {suffix}"] = f"– {suffix}"
    return titles


def _table(corner: str, systems: Iterable[str], rows: Sequence[str]) -> str:
    head = f"| {' | '.join([corner, *systems])} |"
    rule = "| --- " * (head.count("|") - 1) + "|"
    return "\n".join([head, rule, *rows])


def _verdicts(name: str, systems: Mapping[str, Scenarios]) -> str:
    cells = [_verdict(name, scenarios) for scenarios in systems.values()]
    return f"| {' | '.join([USUAL[name], *cells])} |"


def _verdict(name: str, scenarios: Scenarios) -> str:
    usual = scenarios[name]
    if usual["repaired"]:
        return f"repaired, {_embeddings(usual)}"
    noticed = "noticed, not repaired" if usual["noticed"] else "not noticed"
    for repair in REPAIRS:
        step = scenarios.get(f"{name}, {repair}")
        if step is not None and step["repaired"]:
            return f"{noticed}; by *{repair}*, {_embeddings(step)}"
    return noticed


def _embeddings(step: Mapping[str, Any]) -> str:
    paid = step["embedded"]
    return f"{paid:,} embedding{'s' if paid != 1 else ''}"


def _row(
    title: str,
    systems: Mapping[str, Scenarios],
    name: str,
    cell: Callable[[Mapping[str, Any]], str],
) -> str:
    cells = [cell(found[name]) if name in found else "" for found in systems.values()]
    return f"| {' | '.join([title, *cells])} |"


def _time(step: Mapping[str, Any]) -> str:
    return f"{step['seconds']:.2f} ({step['cpu_seconds']:.2f})"


def _times(ratio: Mapping[str, Any]) -> str:
    return f"{ratio['seconds']:.1f} ({ratio['cpu']:.1f})"


def _memory(step: Mapping[str, Any]) -> str:
    return f"{step['peak_mb']:.0f}"


def _server(step: Mapping[str, Any]) -> str:
    return f"{step['server_cpu_seconds']:.2f}"


def _embedded(step: Mapping[str, Any]) -> str:
    return f"{step['embedded']:,}"


def written(page: str, result: Mapping[str, Any]) -> str:
    """*page* with the tables, and the versions, of *result*.

    Raises:
        ValueError: a place is missing.
    """
    named = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    lines = textwrap.wrap(
        f"Rounds: {result['rounds']}. Versions: {named}.", _LINE_CHARACTERS, break_on_hyphens=False
    )
    for about, text in (tables(result) | {"versions": "\n".join(lines)}).items():
        start, end = f"<!-- measured: {about} -->\n", "\n<!-- end of it -->"
        before, found, rest = page.partition(start)
        _, ended, after = rest.partition(end)
        if not (found and ended):
            raise ValueError(f"the page has no place for {about}")
        page = f"{before}{start}{text}{end}{after}"
    return page


def main() -> None:
    """Put the last run into the page."""
    PAGE.write_text(written(PAGE.read_text(), json.loads(RESULT.read_text())))


if __name__ == "__main__":
    main()
