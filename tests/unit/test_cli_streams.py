"""Streams: what can be carried and coloured."""

from __future__ import annotations

import errno
import io
from collections.abc import Callable

import pytest

from undrift.cli.streams import (
    EMOJI,
    Color,
    Line,
    Stream,
    Tone,
    is_colored,
    open_terminal,
)


def written(encoding: str, text: str) -> str:
    raw = io.BytesIO()
    stream = Stream(io.TextIOWrapper(raw, encoding=encoding, newline=""))
    stream.lines([Line(text)])
    return raw.getvalue().decode(encoding)


def test_utf8_carries_everything() -> None:
    """And nothing is changed."""
    assert written("utf-8", "🔍 … é") == "🔍 … é\n"


def test_latin1_loses_the_emoji_and_keeps_the_accents() -> None:
    """The sign goes with its space; other signs become their plain likeness."""
    assert written("latin-1", "🔍 done… for é") == "done... for é\n"


@pytest.mark.parametrize("emoji", EMOJI)
def test_no_emoji_of_ours_reaches_ascii(emoji: str) -> None:
    """Not even half of a two-part one."""
    assert written("ascii", f"{emoji} words") == "words\n"


def test_coloured_line_loses_the_emoji_and_keeps_the_colour() -> None:
    """The colour's code stands before the sign."""
    raw = io.BytesIO()
    stream = Stream(io.TextIOWrapper(raw, encoding="ascii", newline=""), is_colored=True)
    stream.lines([Line("❌ Error: no", Tone.BAD)])
    assert raw.getvalue() == b"\x1b[31mError: no\x1b[0m\n"


def test_emoji_within_an_id_is_escaped_not_dropped() -> None:
    """Two ids must not become one."""
    assert written("ascii", "  - user 🔍1") == "  - user \\U0001f50d1\n"


def test_lone_surrogate_of_a_shell_argument_is_escaped() -> None:
    """No encoding has it, and the answer must come out all the same."""
    assert written("utf-8", "user \udcff") == "user \\udcff\n"


def test_missing_stream_takes_everything() -> None:
    """A process may be started without standard output."""
    stream = Stream(None)
    assert stream.write("x") == 1
    assert stream.failure is None
    assert not stream.isatty()


def closed() -> io.TextIOWrapper:
    raw = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    raw.close()
    return raw


def detached() -> io.TextIOWrapper:
    raw = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    raw.detach()
    return raw


@pytest.mark.parametrize("unusable", [closed, detached])
def test_stream_that_the_host_program_has_closed_is_a_failure_and_no_exception(
    unusable: Callable[[], io.TextIOWrapper], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python says ValueError there, where the operating system would say bad file descriptor."""
    monkeypatch.setattr("sys.stdout", unusable())
    stream = open_terminal().out
    assert not stream.isatty()
    assert stream.write("x") == 1
    assert stream.failure is not None
    assert stream.failure.errno == errno.EBADF
    assert stream.failure.strerror
    assert stream.write("y") == 1


@pytest.mark.parametrize(
    ("color", "is_terminal", "environ", "expected"),
    [
        (Color.AUTO, True, {}, True),
        (Color.AUTO, False, {}, False),
        (Color.AUTO, True, {"NO_COLOR": "1"}, False),
        (Color.AUTO, True, {"NO_COLOR": ""}, True),
        (Color.AUTO, True, {"TERM": "dumb"}, False),
        (Color.ALWAYS, False, {"NO_COLOR": "1"}, True),
        (Color.NEVER, True, {}, False),
    ],
)
def test_colours_follow_the_choice_then_the_terminal(
    color: Color, is_terminal: bool, environ: dict[str, str], expected: bool
) -> None:
    """An explicit choice beats NO_COLOR, which beats the terminal."""
    assert is_colored(color, is_terminal=is_terminal, environ=environ) is expected


def test_coloured_line_ends_its_colour() -> None:
    """A plain one has none."""
    raw = io.StringIO()
    Stream(raw, is_colored=True).lines([Line("bad", Tone.BAD), Line("plain")])
    assert raw.getvalue() == "\x1b[31mbad\x1b[0m\nplain\n"
