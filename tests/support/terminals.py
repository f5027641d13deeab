"""Programs on a terminal of their own, as a person has them before them."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.cli import Program, Shell

_SECONDS = 60
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL


class Screen:
    """What a program shows, and where one types.

    Attributes:
        shown: everything on the screen so far.
    """

    def __init__(self, process: subprocess.Popen[str], screen: int) -> None:
        self.process = process
        self._screen = screen
        self._raw = bytearray()

    @property
    def shown(self) -> str:
        """Everything so far."""
        return self._raw.decode(errors="replace").replace("\r\n", "\n")

    def type(self, text: str) -> None:
        """Type *text*, whether anybody reads it yet or not."""
        self.type_bytes(text.encode())

    def type_bytes(self, typed: bytes) -> None:
        """Type what need not be text."""
        os.write(self._screen, typed)

    def until(self, words: str) -> None:
        """Watch until *words* are on the screen."""
        while words not in self.shown:
            assert self._read(), f"the program ended, and showed {self.shown!r}"

    def end(self) -> tuple[int, str]:
        """Watch to the end; the exit code, and everything that was shown."""
        while self._read():
            pass
        return self.process.wait(_SECONDS), self.shown

    def _read(self) -> bool:
        try:
            part = os.read(self._screen, 65536)
        except OSError:  # Linux says so when the program has closed its side
            part = b""
        self._raw += part
        return bool(part)


@contextmanager
def before_a_terminal(
    shell: Shell,
    *arguments: str,
    command: str = "undrift",
    reads_it: bool = True,
    answer: str | None = None,
) -> Iterator[Screen]:
    """Start *command* on a terminal.

    Args:
        reads_it: False starts it without anything to read from, as cron does.
        answer: a file of the shell's folder that gets standard output; None means the terminal.
    """
    screen, side = pty.openpty()
    out = os.dup(side) if answer is None else os.open(shell.folder / answer, _NEW_FILE)
    with Program(
        [Path(sys.executable).with_name(command), *arguments],
        stdin=side if reads_it else subprocess.DEVNULL,
        stdout=out,
        stderr=side,
        cwd=shell.folder,
        env={**os.environ, **shell.variables, "TERM": "xterm", "NO_COLOR": ""},
    ) as process:
        os.close(side)
        os.close(out)
        try:
            yield Screen(process, screen)
        finally:
            os.close(screen)


def on_a_terminal(shell: Shell, *arguments: str, typed: str = "") -> tuple[int, str]:
    """Run ``undrift`` on a terminal; its exit code and everything on the screen."""
    with before_a_terminal(shell, *arguments) as screen:
        screen.type(typed)
        return screen.end()
