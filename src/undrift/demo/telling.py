"""How the story speaks: lines, headlines, commands, and what it holds against itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

Write = Callable[[str], object]


@dataclass(kw_only=True)
class Teller:
    """Writes the story's lines and remembers what did not come out as it must.

    Attributes:
        write: is given text in whole lines, with their ends.
        problems: what did not come out as it must.
        steps: headlines so far.
    """

    write: Write
    problems: list[str] = field(default_factory=list)
    steps: int = 0

    def say(self, *lines: str) -> None:
        """Write *lines*; each may hold several."""
        self.write("".join(f"{line.rstrip()}\n" for line in lines))

    def headline(self, text: str, command: str | None = None) -> None:
        """Begin a step."""
        self.steps += 1
        title = f"{self.steps}. {text}"
        self.say("", "", title, "-" * len(title))
        if command is not None:
            self.command(command)

    def command(self, command: str) -> None:
        """Show the command that does what follows."""
        self.say("", f"$ {command}")

    def require(self, is_so: bool, problem: str) -> None:
        """Note *problem* unless *is_so*."""
        if not is_so:
            self.problems.append(problem)
