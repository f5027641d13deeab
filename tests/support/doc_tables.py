"""Tables of the reference pages, as rows by heading."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt

from support.doc_pages import ROOT

Row = dict[str, str]

_PARSER = MarkdownIt("commonmark").enable("table")


def tables_of(page: str) -> dict[str, list[Row]]:
    """The tables of a page below ``docs``, by the heading above them.

    Each row is its cells by the column's name, without the marks of code.
    """
    tables: dict[str, list[Row]] = {}
    heading, columns, cells = "", [""], [""]
    tokens = _PARSER.parse(Path(ROOT / "docs" / page).read_text(encoding="utf-8"))
    for before, token in pairwise(tokens):
        if before.type == "heading_open":
            heading = token.content.replace("`", "")
        elif before.type == "tr_open":
            cells = []
        elif before.type in {"th_open", "td_open"}:
            cells.append(token.content)
        if token.type == "tr_close":
            if before.type == "th_close":
                columns = cells
            else:
                row = dict(zip(columns, cells, strict=True))
                tables.setdefault(heading, []).append(row)
    return tables


def code(cell: str) -> str:
    """The first code in *cell*."""
    return cell.split("`")[1] if "`" in cell else ""
