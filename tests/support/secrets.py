"""Secrets that cannot be taken for anything else, and a witness who reads whatever is said."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from traceback import format_exception
from urllib.parse import quote, quote_plus

from undrift.ports import Vectors

PASSWORD = "pw-Zq7 @:/?#%41é-quokka"
STORE_PASSWORD = "st-Kx2+&=;'\"\\-narwhal"
KEY = "sk-planted-wombat-0123456789"
TEXT = "mulberry platypus"
"""Stands in every text of every profile."""


def spellings(password: str) -> set[str]:
    """A password as it is, as addresses spell it, and its ends, by which a part is known."""
    whole = {password, quote(password), quote(password, safe=""), quote_plus(password)}
    return whole | {password[:6], password[-7:], repr(password)[1:-1]}


def parts_of(vectors: Iterable[Vectors]) -> set[str]:
    """How vectors would look in print: their odd components, and their bytes."""
    found = set()
    for vector in vectors:
        found |= {f"{abs(x):.5f}" for x in vector.tolist() if len(f"{abs(x):.5f}".rstrip("0")) > 5}
        found |= {vector.tobytes().hex()[:24], repr(vector.tobytes()[:8])[2:-1]}
    return found


SECRETS: Mapping[str, set[str]] = {
    "source password": spellings(PASSWORD),
    "store password": spellings(STORE_PASSWORD),
    "api key": {KEY, KEY[:16], KEY[-12:]},
    "profile text": {TEXT, "mulberry", "platypus"},
}


class Witness(logging.Handler):
    """Writes down every log record of every library, as a host program would print it, and more.

    Attributes:
        said: everything: log records with their arguments and tracebacks, and what it is told.
    """

    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s"))
        self.said: list[str] = []
        self.records = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Write *record* down."""
        self.records += 1
        self.said.append(f"{self.format(record)} {record.args!r} {record.__dict__!r}")

    def hear(self, *texts: str) -> None:
        """Write down what was printed."""
        self.said.extend(texts)

    def hear_error(self, error: BaseException) -> None:
        """Write down an error in every way that a program prints one, its causes included."""
        found: BaseException | None = error
        while found is not None:
            self.hear(str(found), repr(found), repr(found.args))
            found = found.__cause__ or found.__context__
        self.hear("".join(format_exception(error)))

    def leaks(self, secrets: Mapping[str, set[str]] = SECRETS) -> dict[str, str]:
        """Which of *secrets* were said, and where."""
        return {
            name: text
            for name, forms in secrets.items()
            for text in self.said
            if any(form in text for form in forms)
        }


@contextmanager
def witness() -> Iterator[Witness]:
    """A witness at the root of all loggers, at the lowest level."""
    root, found = logging.getLogger(), Witness()
    level = root.level
    root.addHandler(found)
    root.setLevel(logging.DEBUG)
    try:
        yield found
    finally:
        root.setLevel(level)
        root.removeHandler(found)
