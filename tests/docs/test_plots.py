"""The plots in the documentation are those of the benchmarks' results beside it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from benchmarks import plots
from benchmarks.charts import draw

from support.doc_pages import ROOT

DOCS = ROOT / "docs"
DRAWN = sorted(path.stem for path in plots.PLOTS.glob("*.svg"))


@pytest.mark.parametrize("name", DRAWN)
def test_a_plot_shows_the_numbers_that_its_benchmark_wrote(name: str) -> None:
    """Drawn again from the result it carries the digest that the file in the documentation has."""
    chart = plots.chart_of(name)
    assert chart is not None, "the result is gone, the plot is still there"
    kept = (plots.PLOTS / f"{name}.svg").read_text()
    assert plots.kept_digest(kept) == plots.kept_digest(draw(chart)) == chart.digest


def test_every_result_that_can_be_drawn_is_drawn() -> None:
    """Whoever keeps a new result draws it too: `make plots`."""
    there = [name for name in plots.CHARTS if plots.chart_of(name) is not None]
    assert sorted(there) == DRAWN
    assert len(there) >= 3


def test_every_plot_is_on_a_page_with_a_text_in_its_place() -> None:
    """A plot that nobody sees is not documentation, and not everybody sees."""
    shown: dict[str, str] = {}
    for page in DOCS.rglob("*.md"):
        for text, target in re.findall(r"!\[([^\]]*)\]\(([^)]+\.svg)\)", page.read_text()):
            path = (page.parent / target).resolve()
            assert path.is_file(), f"{page} shows {target}, which is not there"
            shown[path.stem] = text
    assert set(DRAWN) <= shown.keys()
    assert all(shown.values())


def test_one_number_more_makes_another_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: a result that was run again without drawing it is noticed."""
    result = json.loads((plots.RESULTS / "watch.json").read_text())
    result["polling"]["freshness_ms"]["p99"] += 0.1
    (tmp_path / "watch.json").write_text(json.dumps(result))
    kept = (plots.PLOTS / "watch.svg").read_text()
    monkeypatch.setattr(plots, "RESULTS", tmp_path)
    chart = plots.chart_of("watch")
    assert chart is not None
    assert plots.kept_digest(draw(chart)) != plots.kept_digest(kept)


def test_the_same_numbers_give_the_same_file() -> None:
    """Byte by byte, so that drawing again changes nothing."""
    chart = plots.chart_of("watch")
    assert chart is not None
    assert draw(chart) == draw(chart)


def test_a_result_that_is_not_there_is_passed_over_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A first run of one benchmark can be drawn without the others."""
    (tmp_path / "results").mkdir()
    kept = (plots.RESULTS / "watch.json").read_text()
    (tmp_path / "results" / "watch.json").write_text(kept)
    monkeypatch.setattr(plots, "RESULTS", tmp_path / "results")
    plots.main([str(tmp_path / "plots")])
    assert [path.name for path in (tmp_path / "plots").iterdir()] == ["watch.svg"]
    told = capsys.readouterr().out
    assert "stores: left out, there is no benchmarks/results/stores.json" in told
