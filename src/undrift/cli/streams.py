"""Standard output and standard error: what they can carry, in which colours, and who still reads.

stdout is the answer, stderr is everything about it. Lines are written whole and flushed, so that
a reader at the other end of a pipe sees each when it is true.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from enum import Enum, StrEnum
from threading import RLock
from typing import NamedTuple, Protocol, TextIO

EMOJI = ("🔍", "📊", "🔄", "📥", "✅", "🧹", "🎉", "❌", "⚠️", "⏳", "❓")
"""Every emoji that begins a line of ours."""

_EMOJI_AT_START = re.compile(rf"^(\x1b\[\d+m)?(?:{'|'.join(EMOJI)})\s*", re.MULTILINE)
_PLAIN_SIGNS = str.maketrans({"…": "...", "→": "->", "–": "-"})
# An id or a profile's text must neither forge a line of the answer nor steer the terminal.
_CONTROL_SIGNS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class Color(StrEnum):
    """When lines are coloured; ``auto`` means on a terminal, unless ``NO_COLOR`` is set."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


class Tone(Enum):
    """What a line means, as the code of its colour."""

    PLAIN = ""
    HEADING = "1"
    GOOD = "32"
    BAD = "31"
    WARNING = "33"


class Line(NamedTuple):
    """One line of output, without its end."""

    text: str
    tone: Tone = Tone.PLAIN


class Pausable(Protocol):
    """Something on the terminal that must step aside while lines are written."""

    def paused(self) -> AbstractContextManager[None]:
        """Step aside for as long as the context lasts."""


class Stream:
    """One text stream. Writing never raises: who reads may leave at any time.

    Args:
        raw: None where the process was started without the stream.

    Attributes:
        failure: why nothing is written any more.
        has_written: whether anything of ours may have gone out.

    Safety:
        May be written to from several threads.
    """

    def __init__(self, raw: TextIO | None, *, is_colored: bool = False) -> None:
        self._raw = raw
        self._is_colored = is_colored
        self._lock = RLock()
        self.encoding = getattr(raw, "encoding", None) or "utf-8"
        self._carries_emoji = _can_encode("".join(EMOJI), self.encoding)
        self.failure: OSError | None = None
        self.has_written = False

    def isatty(self) -> bool:
        """Whether a person sees it as it is written."""
        return _is_terminal(self._raw)

    def lines(self, lines: Iterable[Line]) -> None:
        """Write *lines* together."""
        self.write("".join(f"{self._painted(line)}\n" for line in lines))

    def write(self, text: str) -> int:
        """Write *text* as far as the stream's encoding carries it, and flush."""
        raw = self._raw
        if raw is not None and self.failure is None and text:
            carried = self._carried(text)
            with self._lock:
                self.has_written = True
                try:
                    raw.write(carried)
                    raw.flush()
                except OSError as exc:
                    self.failure = exc
                    _forget_what_is_buffered(raw)
                except ValueError:  # so Python puts it where a program has closed its own stream
                    self.failure = OSError(errno.EBADF, os.strerror(errno.EBADF))
        return len(text)

    def flush(self) -> None:
        """Do nothing: every write is flushed."""

    def _painted(self, line: Line) -> str:
        text = _CONTROL_SIGNS.sub(_escaped, line.text)
        if self._is_colored and line.tone is not Tone.PLAIN:
            return f"\x1b[{line.tone.value}m{text}\x1b[0m"
        return text

    def _carried(self, text: str) -> str:
        if not self._carries_emoji:
            text = _EMOJI_AT_START.sub(r"\1", text)
        if _can_encode(text, self.encoding):
            return text
        text = text.translate(_PLAIN_SIGNS)
        return text.encode(self.encoding, "backslashreplace").decode(self.encoding)


class Terminal:
    """Both streams of a run, and the progress bar that may stand between them.

    Args:
        out: the answer.
        err: progress, logs, errors.

    Attributes:
        bar: steps aside while lines are written where it stands.
    """

    def __init__(self, out: Stream, err: Stream) -> None:
        self.out = out
        self.err = err
        self.bar: Pausable | None = None
        self._lock = RLock()

    def say(self, lines: Iterable[Line]) -> None:
        """Write *lines* of the answer."""
        with self._bar_aside_if(self.out.isatty()):
            self.out.lines(lines)

    def say_text(self, text: str) -> None:
        """Write a part of the answer as it is."""
        with self._bar_aside_if(self.out.isatty()):
            self.out.write(text)

    def tell(self, lines: Iterable[Line]) -> None:
        """Write *lines* about the answer."""
        if listed := list(lines):
            with self.bar_aside():
                self.err.lines(listed)

    @contextmanager
    def bar_aside(self) -> Iterator[None]:
        """Keep the bar away for as long as the context lasts."""
        with self._lock, self.bar.paused() if self.bar is not None else nullcontext():
            yield

    def _bar_aside_if(self, is_in_the_way: bool) -> AbstractContextManager[None]:
        return self.bar_aside() if is_in_the_way else nullcontext()


def open_terminal(color: Color = Color.AUTO) -> Terminal:
    """The terminal over this process's streams."""
    return Terminal(_stream(sys.stdout, color), _stream(sys.stderr, color))


def is_colored(
    color: Color, *, is_terminal: bool, environ: Mapping[str, str] | None = None
) -> bool:
    """Whether a stream is written to in colours; an explicit choice beats ``NO_COLOR``."""
    if color is not Color.AUTO:
        return color is Color.ALWAYS
    environ = os.environ if environ is None else environ
    return is_terminal and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


def _stream(raw: TextIO | None, color: Color) -> Stream:
    return Stream(raw, is_colored=is_colored(color, is_terminal=_is_terminal(raw)))


def _is_terminal(raw: TextIO | None) -> bool:
    with suppress(ValueError):  # a closed stream is no terminal
        return raw is not None and raw.isatty()
    return False


def _can_encode(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")


def _forget_what_is_buffered(raw: TextIO) -> None:
    """Let the interpreter's last flush go nowhere instead of failing once more."""
    with suppress(OSError, ValueError):  # a stream that is no file has nothing to redirect
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, raw.fileno())
        finally:
            os.close(nowhere)
