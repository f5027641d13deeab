"""The documentation builds without a warning, needs nobody else's server, and is complete."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.doc_pages import ROOT

DOCS = ROOT / "docs"

# What the origin's own guide advises and explains.
PRACTICES = (
    "Automatic sync",
    "Regular monitoring",
    "Batch operations",
    "Use `--force` sparingly",
    "Test environment",
)
TROUBLES = ("Script errors", "Performance", "Verification failed")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; warnings are errors, dangling references among them."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", "-E"]
    built = subprocess.run(
        [*command, "-d", folder / "doctrees", "-b", "html", DOCS, folder / "html"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        # What the tests are measured by would double the time, and measure autodoc.
        env={name: value for name, value in os.environ.items() if not name.startswith("COV")},
    )
    assert built.returncode == 0, built.stderr
    return folder / "html"


def test_every_page_is_built_without_a_warning(site: Path) -> None:
    """From its Markdown."""
    sources = {path.relative_to(DOCS).with_suffix(".html") for path in DOCS.rglob("*.md")}
    assert all((site / page).is_file() for page in sources)


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    """No fonts, no scripts, no styles: it is read offline, and tells nobody who reads it."""
    loaded = re.compile(r"<(?:script|link|img)\b[^>]*?(?:src|href)=\"(?:https?:)?//[^\"]*\"")
    imported = re.compile(r"(?:@import|url\()\s*['\"]?(?:https?:)?//")
    for page in site.rglob("*.html"):
        assert not loaded.findall(page.read_text()), page
    for style in site.rglob("*.css"):
        assert not imported.findall(style.read_text()), style


def test_docstring_sections_of_our_own_are_shown(site: Path) -> None:
    """Safety, Order, Shape and so on are part of what is promised."""
    page = (site / "reference" / "python.html").read_text()
    for section in ("Safety", "Order"):
        assert f'<p class="rubric">{section}</p>' in page


@pytest.mark.parametrize(
    ("page", "headings"), [("best-practices", PRACTICES), ("troubleshooting", TROUBLES)]
)
def test_the_headings_of_the_guide_that_undrift_took_over_are_all_there(
    page: str, headings: tuple[str, ...]
) -> None:
    """In its order."""
    text = (DOCS / "how-to" / f"{page}.md").read_text()
    found = re.findall(r"^## (.*)$", text, re.M)
    assert [heading for heading in found if heading in headings] == list(headings)


def test_glossary_words_have_one_meaning_each() -> None:
    """A word is explained once."""
    text = (DOCS / "glossary.md").read_text()
    terms = re.findall(r"^(\S.*)\n  \S", text, re.M)
    assert len(terms) > 25
    assert len(terms) == len({term.lower() for term in terms})
