"""Pages of documentation as steps that can be run.

A page is Markdown. Its fenced blocks are run from top to bottom; what a reader need not see, and
what the machinery needs to know, stands in HTML comments that begin with ``run:``. CONTRIBUTING.md
describes the convention for those who write pages.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
_DOCS = (path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts)
PAGES = (ROOT / "README.md", *sorted(_DOCS))

_COMMENT = re.compile(
    r"<!--\s*run\b(?P<colon>:?)[ \t]*(?P<order>[^\n]*?)\s*(?:\n(?P<text>.*?))?-->", re.S
)
_PARSER = MarkdownIt("commonmark")
_RUNNABLE = frozenset({"console", "python", "sql"})

# Commands that a page shows and no page can run, and why that is no gap.
OUTSIDE: Mapping[str, str] = {
    "pip": "needs a package registry; the tests of the wheel install it",
    "make": "runs the tests themselves",
}


class PageError(Exception):
    """A page that does not keep to the convention."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One block of a page.

    Attributes:
        first: the number of its first line of content in the page, from 0.
        indent: what stands before each of its lines, inside a list.
        is_hidden: it stands in a comment; its output is nobody's business, its failure is.
        is_answer: a ``text`` block that shows what the block before it prints.
        file: write it under this name before anything else.
        is_wrong: a configuration that undrift refuses.
        role: the database role that an ``sql`` block is run as; empty for the superuser.
        reason: why it is not run; empty if it is.
    """

    language: str
    text: str
    first: int
    indent: str = ""
    is_hidden: bool = False
    is_answer: bool = False
    file: str = ""
    is_wrong: bool = False
    role: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """An order to the machinery between two blocks.

    Attributes:
        name: its first word: ``afresh``, ``stop``, ``start``, ``without``.
    """

    name: str
    first: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What is to be run.

    Attributes:
        on_postgres: on a real PostgreSQL with pgvector instead of SQLite.
        answers_only: only what goes to standard output is shown, and not everywhere.
    """

    path: Path
    lines: tuple[str, ...]
    steps: tuple[Block | Order, ...]
    on_postgres: bool = False
    answers_only: bool = False

    @property
    def blocks(self) -> Iterator[Block]:
        """The blocks, in order."""
        return (step for step in self.steps if isinstance(step, Block))


@dataclass(slots=True)
class _Reading:
    """What has been read of a page so far.

    Attributes:
        ahead: what a comment says of the block that follows it.
    """

    steps: list[Block | Order] = field(default_factory=list)
    ahead: dict[str, str] = field(default_factory=dict)
    ways: set[str] = field(default_factory=set)


def read_page(path: Path, text: str | None = None) -> Page:
    """Parse a page.

    Args:
        text: instead of the file's.

    Raises:
        PageError: an order that is none, or one that stands before nothing.
    """
    content = path.read_text(encoding="utf-8") if text is None else text
    reading = _Reading()
    for token in _PARSER.parse(content):
        if token.map is None:
            continue
        try:
            if token.type == "html_block":
                for comment in _COMMENT.finditer(token.content):
                    skipped = token.content[: comment.start()].count("\n")
                    _obey(reading, comment, token.map[0] + skipped)
            elif token.type == "fence" and not token.info.startswith("{"):
                _add_fence(reading, token, content.splitlines())
        except PageError as exc:
            raise PageError(f"{path.name}:{token.map[0] + 1}: {exc}") from None
    if reading.ahead:
        raise PageError(f"{path.name}: no block follows {reading.ahead}")
    return Page(
        path=path,
        lines=tuple(content.splitlines()),
        steps=tuple(reading.steps),
        on_postgres="on postgres" in reading.ways,
        answers_only="answers only" in reading.ways,
    )


def _obey(reading: _Reading, comment: re.Match[str], line: int) -> None:
    order, text = comment["order"], comment["text"] or ""
    name, _, rest = order.partition(" ")
    if not comment["colon"]:
        raise PageError("a comment that begins with run needs a colon")
    if order in _RUNNABLE:
        block = Block(language=order, text=text, first=line + 1, is_hidden=True)
        reading.steps.append(block)
    elif order in {"on postgres", "answers only"}:
        if any(isinstance(step, Block) for step in reading.steps):
            raise PageError(f"{order!r} is about the whole page and stands before its blocks")
        reading.ways.add(order)
    elif order in {"afresh", "stop postgres", "start postgres", "without the setup line"}:
        reading.steps.append(Order(name=name, first=line))
    elif name in {"not,", "file", "as"} and rest:
        reading.ahead[name] = rest
    else:
        raise PageError(f"there is no order {order!r}")


def _add_fence(reading: _Reading, token: Token, lines: list[str]) -> None:
    assert token.map is not None
    opening = lines[token.map[0]]
    language = token.info.strip().split(" ")[0]
    ahead, reading.ahead = reading.ahead, {}
    file, _, kind = ahead.get("file", "").partition(", ")
    if not file and language == "toml" and token.content.startswith("# undrift.toml\n"):
        file = "undrift.toml"
    last = reading.steps[-1] if reading.steps else None
    answers = (
        isinstance(last, Block)
        and last.language in {"python", "sql"}
        and not (last.reason or last.file)
    )
    block = Block(
        language=language,
        text=token.content,
        first=token.map[0] + 1,
        indent=opening[: len(opening) - len(opening.lstrip())],
        is_answer=language == "text" and answers and not ahead,
        file=file,
        is_wrong=kind == "wrong",
        role=ahead.get("as", ""),
        reason=ahead.get("not,", ""),
    )
    reading.steps.append(block)


# --- a console's commands ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command and what a page says it prints.

    Attributes:
        line: as bash reads it; several lines where one ends with a backslash.
        output: the lines below it, with their ends.
        first: the number of the output's first line within the block, from 0.
        length: how many lines of output there are.
    """

    line: str
    output: str
    first: int
    length: int

    @property
    def outside(self) -> str:
        """Why no page can run it; empty if one can."""
        return OUTSIDE.get(self.line.split()[0], "")

    @property
    def unseen_codes(self) -> tuple[int, ...]:
        """What it may exit with where a page shows nothing of it: drift is no failure of a look."""
        words = shlex.split(self.line, comments=True)
        is_look = {"undrift", "check"} <= {*words} or {"undrift", "--dry-run"} <= {*words}
        return (0, 1) if is_look else (0,)


def commands_of(block: Block) -> list[Command]:
    """The commands of a ``console`` block.

    Raises:
        PageError: it does not begin with a command.
    """
    lines = block.text.splitlines()
    if not lines or not lines[0].startswith("$ "):
        raise PageError("a console block begins with a command: $ …")
    found: list[Command] = []
    at = 0
    while at < len(lines):
        command = [lines[at].removeprefix("$ ")]
        while command[-1].endswith("\\") and at + 1 < len(lines):
            at += 1
            command.append(lines[at])
        first = at = at + 1
        while at < len(lines) and not lines[at].startswith("$ "):
            at += 1
        output = lines[first:at]
        found.append(
            Command(
                line="\n".join(command),
                output="".join(f"{line}\n" for line in output),
                first=first,
                length=len(output),
            )
        )
    return found
