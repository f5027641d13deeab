"""Whose vectors a command is about: named owners, a list of them, or everybody."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from undrift.errors import ConfigError

_WAYS = "--user-id ID (as often as needed), --owners-from FILE or --all"
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"", "0", "false", "no", "off"})


@dataclass(frozen=True, slots=True)
class Selection:
    """Whom a command is about.

    Attributes:
        owners: each once, in the given order; None for every owner of either side.
    """

    owners: tuple[str, ...] | None

    @property
    def is_everybody(self) -> bool:
        """Whether nobody was named."""
        return self.owners is None

    @property
    def count(self) -> int | None:
        """How many were named; None if nobody knows how many there are."""
        return None if self.owners is None else len(self.owners)


def select_owners(
    user_ids: Sequence[str],
    owners_from: str | None,
    everybody: bool,
    *,
    changed: bool = False,
    ways: str = _WAYS,
    environ: Mapping[str, str] | None = None,
) -> Selection:
    """The selection that the options make; the environment counts only where they make none.

    Args:
        changed: whoever was changed since the last sync, which is another way to name nobody.
        ways: what a person can give instead of nothing.

    ``UNDRIFT_USER_ID`` holds one id, or several separated by commas.

    Raises:
        ConfigError: no way or more than one was given, an id is empty, or the list is unusable.
    """
    if not (user_ids or owners_from or everybody or changed):
        environ = os.environ if environ is None else environ
        user_ids = [part.strip() for part in environ.get("UNDRIFT_USER_ID", "").split(",")]
        user_ids = user_ids if any(user_ids) else []
        owners_from = environ.get("UNDRIFT_OWNERS_FROM") or None
        everybody = _is_true(environ.get("UNDRIFT_ALL", ""))
    _require_one_way(user_ids, owners_from, everybody, ways, changed=changed)
    if everybody or changed:
        return Selection(None)
    owners = user_ids if owners_from is None else _listed(owners_from)
    if not all(owners):
        raise ConfigError(
            "A user id is empty",
            why="an empty id names nobody; often it is a shell variable that is not set.",
            fix="give the id, as in --user-id 123",
        )
    return Selection(tuple(dict.fromkeys(owners)))


def _require_one_way(
    user_ids: Sequence[str],
    owners_from: str | None,
    everybody: bool,
    ways: str,
    *,
    changed: bool = False,
) -> None:
    given = [
        name
        for name, is_given in (
            ("--user-id", bool(user_ids)),
            ("--owners-from", owners_from is not None),
            ("--all", everybody),
            ("--changed", changed),
        )
        if is_given
    ]
    if len(given) > 1:
        raise ConfigError(
            f"{' and '.join(given)} exclude each other",
            why="there is exactly one way at a time to say whose vectors are meant.",
            fix=f"keep one of {ways}",
        )
    if not given:
        raise ConfigError(
            "Nobody is named",
            why="undrift does not guess whose vectors are meant.",
            fix=f"give {ways}",
        )


def _listed(file: str) -> list[str]:
    try:
        lines = _bytes_of(file).decode("utf-8-sig").split("\n")
    except OSError as exc:
        raise ConfigError(
            "The list of users cannot be read",
            why=f"{file}: {exc.strerror}.",
            fix="correct --owners-from; - reads standard input",
        ) from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(
            "The list of users is not text",
            why=f"{file} is not UTF-8 at byte {exc.start}.",
            fix="write it as UTF-8, one id per line",
        ) from exc
    owners = [line.strip() for line in lines]
    owners = [owner for owner in owners if owner and not owner.startswith("#")]
    if not owners:
        # Exit 0 would say "in sync" of whatever a failed query before the pipe did not list.
        raise ConfigError(
            "The list of users names nobody",
            why=f"{'standard input' if file == '-' else file} holds no line with an id.",
            fix="write one id per line, or use --all",
        )
    return owners


def _bytes_of(file: str) -> bytes:
    if file != "-":
        return Path(file).read_bytes()
    return sys.stdin.buffer.read() if sys.stdin is not None else b""


def _is_true(value: str) -> bool:
    if value.strip().lower() in _TRUE:
        return True
    if value.strip().lower() in _FALSE:
        return False
    raise ConfigError(
        "UNDRIFT_ALL is neither true nor false",
        why="it stands for --all.",
        fix="set it to 1, or unset it",
    )
