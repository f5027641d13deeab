"""Runs a page of documentation and compares what happens with what it says.

With ``UNDRIFT_TEST_UPDATE_DOCS=1`` the page is rewritten where it says something else.
"""

from __future__ import annotations

import doctest
import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from support.doc_pages import Block, Order, Page, PageError, commands_of
from support.doc_world import World
from support.postgres import PostgresServer
from undrift.config import load_settings
from undrift.errors import ConfigError

_CREATE_ROLE = re.compile(r"CREATE ROLE (\w+)", re.I)
_SCORE = re.compile(r'(?<=\()-?\d\.\d{3}(?=\)$)|(?<="score": )-?\d\.\d+', re.M)
_MOST_SCORE_DIFFERENCE = 0.05
"""Processors multiply 8-bit weights differently; by how much a score may differ for it."""

_COMPARER = doctest.OutputChecker()
_SETUP_LINE = re.compile(r"^Using source .*\n", re.M)
_CRON_LINE = re.compile(r"(?:[\d*/,-]+ +){5}(?P<command>.+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Something that the page says and that is not so.

    Attributes:
        first: the number of the first line to replace, from 0.
        length: how many lines.
        lines: what to put there.
        error: what a person reads.
    """

    first: int
    length: int
    lines: Sequence[str]
    error: str


@dataclass(slots=True)
class Runner:
    """Runs one page.

    Args:
        new_folder: returns an empty folder.
        new_server: returns the server, for pages on PostgreSQL.

    Attributes:
        differences: what the page says and is not so, in its order.
        has_setup_line: whether the page shows the line that says what a run works on.
    """

    page: Page
    new_folder: Callable[[], Path]
    new_server: Callable[[], PostgresServer]
    differences: list[Difference] = field(default_factory=list)
    has_setup_line: bool = True

    def run(self) -> None:
        """Run every step of the page.

        Raises:
            AssertionError: a step failed, so that going on would say nothing.
        """
        text = "\n".join(self.page.lines)
        roles = tuple(dict.fromkeys(_CREATE_ROLE.findall(text)))
        server = self.new_server() if self.page.on_postgres else None
        with ExitStack() as stack:
            world = stack.enter_context(World(self.new_folder(), server, roles))
            for number, step in enumerate(self.page.steps):
                if not isinstance(step, Order):
                    self._run_block(world, step, number)
                elif step.name == "without":
                    self.has_setup_line = False
                elif step.name == "afresh":
                    stack.close()
                    world = stack.enter_context(World(self.new_folder(), server, roles))
                else:
                    world.obey(step.name)

    def _run_block(self, world: World, block: Block, number: int) -> None:
        if block.file:
            path = world.folder / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
        if block.reason or block.is_answer:
            return
        try:
            match block.language:
                case "console":
                    self._run_console(world, block)
                case "python" if not block.file:
                    name = f"{self.page.path.name}:{block.first}"
                    self._expect_answer(block, number, world.run_python(block.text, name=name))
                case "sql":
                    shown = world.run_sql(block.text, role=block.role)
                    self._expect_answer(block, number, shown)
                case _:
                    self._check_file(world, block)
        except (AssertionError, PageError):
            raise
        except Exception as exc:
            raise AssertionError(f"{self._place(block.first)}: {exc!r}") from exc

    def _run_console(self, world: World, block: Block) -> None:
        for command in commands_of(block):
            if command.outside:
                continue
            shown = world.run(command.line, answers_only=self.page.answers_only)
            if block.is_hidden:
                assert world.code == 0, f"{self._place(block.first)}: {command.line}\n{shown}"
            elif self.page.answers_only and not command.output:
                # Nobody compares what it prints, so its exit code has to say that it works.
                assert world.code in command.unseen_codes, (
                    f"{self._place(block.first + command.first - 1)}: {command.line}\n"
                    f"exits {world.code}:\n{world.unseen}"
                )
            else:
                self._compare(
                    block, block.first + command.first, command.length, command.output, shown
                )

    def _expect_answer(self, block: Block, number: int, shown: str) -> None:
        """Compare what a block prints with the ``text`` block that follows it."""
        following = self.page.steps[number + 1 : number + 2]
        if following and isinstance(following[0], Block) and following[0].is_answer:
            answer = following[0]
            length = len(answer.text.splitlines())
            self._compare(answer, answer.first, length, answer.text, shown)
        elif shown and not (block.is_hidden or self.page.answers_only) and block.language != "sql":
            raise AssertionError(f"{self._place(block.first)}: it prints, unseen:\n{shown}")

    def _check_file(self, world: World, block: Block) -> None:
        """What is not run is read by whoever it is written for."""
        match block.language:
            case "toml":
                self._check_configuration(world, block)
            case "json":
                json.loads(block.text)
            case "yaml":
                for command in _commands_in(list(yaml.safe_load_all(block.text))):
                    self._run_unattended(world, block, command)
            case "crontab":
                for line in block.text.splitlines():
                    self._run_cron_line(world, block, line)
            case _ if block.file:
                pass
            case _:
                raise PageError(
                    f"{self._place(block.first)}: a {block.language or 'nameless'} block needs "
                    "<!-- run: not, and the reason --> before it"
                )

    def _check_configuration(self, world: World, block: Block) -> None:
        path = world.folder / (block.file or "undrift-of-this-page.toml")
        path.write_text(block.text, encoding="utf-8")
        tomllib.loads(block.text)
        try:
            load_settings(path, environ=world.variables)
        except ConfigError:
            assert block.is_wrong, f"{self._place(block.first)}: undrift refuses this"
            return
        finally:
            if not block.file:
                path.unlink()
        assert not block.is_wrong, f"{self._place(block.first)}: undrift accepts this"

    def _run_cron_line(self, world: World, block: Block, line: str) -> None:
        if not line or line.startswith("#"):
            return
        name, is_variable, value = line.partition("=")
        if is_variable and name.isidentifier():
            if name != "PATH":  # undrift is installed elsewhere here
                world.variables[name] = world.as_meant(value)
            return
        found = _CRON_LINE.fullmatch(line)
        assert found, f"{self._place(block.first)}: not a line of a crontab: {line}"
        # There an unescaped % ends the command.
        assert not re.search(r"(?<!\\)%", line), f"{self._place(block.first)}: write \\%"
        self._run_unattended(world, block, found["command"].replace(r"\%", "%"))

    def _run_unattended(self, world: World, block: Block, command: str) -> None:
        shown = world.run(command)
        refused = world.code > 1 or "No such option" in shown
        assert not refused, f"{self._place(block.first)}: {command} exits {world.code}\n{shown}"

    # --- comparing ----------------------------------------------------------------------------

    def _compare(self, block: Block, first: int, length: int, said: str, shown: str) -> None:
        if not self.has_setup_line:
            shown = _SETUP_LINE.sub("", shown)
        shown = _with_scores_of(said, _tidied(shown))
        if _COMPARER.check_output(said, shown, doctest.ELLIPSIS):
            return
        error = (
            f"{self._place(first)}: it says\n{said or '(nothing)'}\nand what happens is\n{shown}"
        )
        lines = [f"{block.indent}{line}".rstrip() for line in shown.splitlines()]
        self.differences.append(Difference(first=first, length=length, lines=lines, error=error))

    def _place(self, line: int) -> str:
        return f"{self.page.path.name}:{line + 1}"


def updated(page: Page, differences: Sequence[Difference]) -> str:
    """The page's text with what really happens."""
    lines = list(page.lines)
    for difference in reversed(differences):
        lines[difference.first : difference.first + difference.length] = difference.lines
    return "".join(f"{line}\n" for line in lines)


def _tidied(text: str) -> str:
    """*text* as a page can hold it: every line ended, no spaces at ends."""
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


def _with_scores_of(said: str, shown: str) -> str:
    """*shown* with the scores that were said, where they are near."""
    before, after = _SCORE.findall(said), _SCORE.findall(shown)
    pairs = zip(before, after, strict=False)
    near = all(abs(float(b) - float(a)) <= _MOST_SCORE_DIFFERENCE for b, a in pairs)
    if len(before) != len(after) or not near:
        return shown
    scores = iter(before)
    return _SCORE.sub(lambda _: next(scores), shown)


def _commands_in(value: object) -> Iterator[str]:
    """Every call of undrift in a parsed YAML document."""
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from _commands_in(inner)
    elif isinstance(value, list):
        if value and value[0] == "undrift":
            yield " ".join(map(str, value))
        else:
            for inner in value:
                yield from _commands_in(inner)
    elif isinstance(value, str):
        lines = (line.removeprefix("exec ") for line in value.splitlines())
        yield from (line for line in lines if line.startswith("undrift "))
