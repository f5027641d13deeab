"""The examples at the end of every ``--help``; a test runs each of them.

A command declares its own: ``@app.command(epilog=epilog("undrift check --all", …))``. An example is
a whole command line, from ``undrift`` on, and after two blanks and a ``#`` what it is for.
"""

from __future__ import annotations

HEADING = "Examples:"


def epilog(*examples: str, note: str = "") -> str:
    """What a command's help ends with.

    Args:
        examples: two to four command lines that work as they stand.
        note: a paragraph before them.
    """
    # \b keeps the lines of its paragraph from being filled into one.
    lines = "\n".join(["\b", HEADING, *(f"  {example}" for example in examples)])
    return f"{note}\n\n{lines}" if note else lines


def examples_in(text: str) -> list[str]:
    """The command lines that the help *text* shows, without what they are for."""
    _, _, tail = text.partition(HEADING)
    lines = (line.strip() for line in tail.splitlines())
    return [line.partition("  #")[0].rstrip() for line in lines if line]
