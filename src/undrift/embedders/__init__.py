"""Adapters that turn texts into vectors, opened by name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable

from undrift.errors import ConfigError
from undrift.ports import Embedder

DEFAULT_EMBEDDER = "local"
"""What undrift embeds with when nothing else is configured."""

_ASCII_NUMBER = re.compile(r"[0-9]{1,9}")


def open_embedder(name: str) -> Embedder:
    """The embedder that *name* stands for; nothing is loaded before it embeds.

    Args:
        name: ``local``, ``hashing``, or ``hashing:64`` for vectors of 64 components.

    Raises:
        ConfigError: there is no embedder of that name.
    """
    kind, colon, argument = name.partition(":")
    opener = _OPENERS.get(kind)
    if opener is None or (colon and not argument):
        raise _unknown(name)
    return opener(name, argument)


def _open_local(name: str, argument: str) -> Embedder:
    if argument:
        raise _unknown(name)
    from undrift.embedders.local import LocalEmbedder

    return LocalEmbedder()


def _open_hashing(name: str, argument: str) -> Embedder:
    from undrift.embedders.hashing import DEFAULT_DIMENSION, HashingEmbedder

    if not argument:
        return HashingEmbedder(DEFAULT_DIMENSION)
    if not _ASCII_NUMBER.fullmatch(argument):
        raise ConfigError(
            f"{name!r} is not an embedder",
            why=f"behind 'hashing:' stands the number of components, and {argument!r} is none.",
            fix=f"write hashing:{DEFAULT_DIMENSION}, or leave the number out",
        )
    return HashingEmbedder(int(argument))


_OPENERS: dict[str, Callable[[str, str], Embedder]] = {
    "hashing": _open_hashing,
    "local": _open_local,
}


def _unknown(name: str) -> ConfigError:
    kind = name.partition(":")[0].strip().lower()
    near = difflib.get_close_matches(kind, _OPENERS, n=1, cutoff=0.5)
    # Nothing alike: a person who tries another product's name most likely wants real embeddings.
    nearest = near[0] if near else DEFAULT_EMBEDDER
    return ConfigError(
        f"There is no embedder {name!r}",
        why="undrift knows local (a sentence model on this machine), hashing and hashing:64 "
        "(not semantic, for trials; the number is the dimension).",
        fix=f"set UNDRIFT_EMBEDDER={nearest}, or in undrift.toml under [embedder]: "
        f'name = "{nearest}"',
    )
