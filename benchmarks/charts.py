"""Draws charts as SVG: the same on every machine, for light and dark pages, without colour alone.

The background is white, so that the ink is the same on any page. Colours are those that Okabe and
Ito chose to be told apart by everybody; lines differ in their marks too, and bars in their hatches.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
_MARKS = ("o", "s", "^", "D", "v", "P", "X")
_HATCHES = ("", "//", "..", "xx", "\\\\", "++", "oo")
_STYLE: dict[str, Any] = {
    "svg.hashsalt": "undrift",  # names inside the file are otherwise drawn by lot
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",  # comes with the library
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "hatch.linewidth": 0.4,
}
_WIDTH_INCHES, _HEIGHT_INCHES = 8.0, 4.6


class Drawable(Protocol):
    """See `benchmarks.plots.Chart`."""

    @property
    def title(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def across(self) -> str: ...
    @property
    def up(self) -> str: ...
    @property
    def groups(self) -> Sequence[str] | Sequence[float]: ...
    @property
    def series(self) -> Mapping[str, Sequence[float | None]]: ...
    @property
    def is_log(self) -> bool: ...
    @property
    def marks(self) -> Sequence[float] | None: ...
    @property
    def digest(self) -> str: ...


def draw(chart: Drawable) -> str:
    """The chart as SVG, with the digest of its numbers in its description."""
    with style.context(["default", _STYLE]):
        figure = Figure(figsize=(_WIDTH_INCHES, _HEIGHT_INCHES), facecolor="white")
        axes = figure.add_subplot()
        (_lines if chart.kind == "lines" else _bars)(axes, chart)
        axes.set_title(chart.title, loc="left", fontsize=11)
        axes.set_xlabel(chart.across)
        axes.set_ylabel(chart.up)
        _scale(axes, chart)
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.2), ncols=2, frameon=False, fontsize=9)
        out = io.StringIO()
        described = {
            "Date": None,
            "Title": chart.title,
            "Description": f"{chart.title}; numbers sha256:{chart.digest}",
        }
        figure.savefig(out, format="svg", bbox_inches="tight", metadata=described)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def _scale(axes: Any, chart: Drawable) -> None:  # noqa: ANN401 - the library's own are not typed
    """The vertical axis: from 0, or from the power of ten below the least value."""
    if not chart.is_log:
        axes.set_ylim(bottom=0)
        return
    axes.set_yscale("log")
    axes.yaxis.set_minor_formatter(NullFormatter())
    known = [value for values in chart.series.values() for value in values if value]
    axes.set_ylim(bottom=10.0 ** math.floor(math.log10(min(known))))


def _lines(axes: Any, chart: Drawable) -> None:  # noqa: ANN401 - the library's own are not typed
    for number, (name, values) in enumerate(chart.series.items()):
        known = [
            (at, value) for at, value in zip(chart.groups, values, strict=True) if value is not None
        ]
        axes.plot(
            [at for at, _ in known],
            [value for _, value in known],
            label=name,
            color=_COLOURS[number % len(_COLOURS)],
            marker=_MARKS[number % len(_MARKS)],
            linestyle="--" if name.startswith("bare") else "-",
        )
    axes.set_xscale("log")


def _bars(axes: Any, chart: Drawable) -> None:  # noqa: ANN401 - the library's own are not typed
    width = 0.8 / len(chart.series)
    for number, (name, values) in enumerate(chart.series.items()):
        shift = (number - (len(chart.series) - 1) / 2) * width
        bars = axes.bar(
            [group + shift for group in range(len(chart.groups))],
            [0.0 if value is None else value for value in values],
            width,
            label=name,
            color=_COLOURS[number % len(_COLOURS)],
            hatch=_HATCHES[number % len(_HATCHES)],
            edgecolor="white",
        )
        axes.bar_label(bars, [_short(value) for value in values], fontsize=7, padding=1)
    for group, mark in enumerate(chart.marks or ()):
        ends = (group - 0.45, group + 0.45)
        label = "_" if group else "aim"  # one line of the legend for all
        axes.hlines(mark, *ends, colors="black", linestyles="--", label=label)
    axes.set_xticks(range(len(chart.groups)), [str(group) for group in chart.groups])


def _short(value: float | None) -> str:
    """Three figures that matter."""
    if value is None:
        return ""
    if value >= 10_000:
        return f"{value / 1_000:.0f}k"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
