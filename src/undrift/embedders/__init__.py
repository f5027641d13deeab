"""Adapters that turn texts into vectors, opened by name or around an object."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from undrift.embedders.options import EmbedderOptions
from undrift.errors import ConfigError

if TYPE_CHECKING:  # numpy, which reading a configuration does without
    from undrift.embedders.adapted import EmbeddingModel
    from undrift.ports import Embedder

DEFAULT_EMBEDDER = "local"
"""What undrift embeds with when nothing else is configured."""

_ASCII_NUMBER = re.compile(r"[0-9]{1,9}")


def open_embedder(name: str, options: EmbedderOptions | None = None) -> Embedder:
    """The embedder that *name* stands for; nothing is loaded or asked before it embeds.

    Args:
        name: ``local``, ``hashing``, ``hashing:64`` for vectors of 64 components, or ``openai:``
            and a model's name.
        options: what the name does not say.

    Raises:
        ConfigError: there is no embedder of that name, or it makes vectors of another dimension
            than the options say.
    """
    kind, colon, argument = name.partition(":")
    opener = _OPENERS.get(kind)
    if opener is None or (colon and not argument):
        raise _unknown(name)
    options = options or EmbedderOptions()
    embedder = opener(name, argument, options)
    if options.dimension not in (None, embedder.dimension):
        raise ConfigError(
            f"{name} makes no vectors of {options.dimension} components",
            why=f"it makes {embedder.dimension}, and dimension under [embedder] (or "
            "UNDRIFT_EMBEDDER__DIMENSION) says otherwise.",
            fix=f"set it to {embedder.dimension}, or remove it",
        )
    return embedder


def as_embedder(given: Embedder | EmbeddingModel) -> Embedder:
    """*given* as it is if it is an `Embedder`, else what `adapt_embedder` makes of it.

    Raises:
        ConfigError: it is neither, or does not say which model it is.
    """
    # Only the methods are looked for: to look at `dimension` may cost an embedding.
    if all(callable(getattr(given, method, None)) for method in ("embed", "count_truncated")):
        return cast("Embedder", given)
    from undrift.embedders.adapted import adapt_embedder

    return adapt_embedder(cast("EmbeddingModel", given))


def close_embedder(embedder: Embedder) -> None:
    """Give back the connections of *embedder*, if it is of a kind that holds any."""
    close = getattr(embedder, "close", None)
    if callable(close):
        close()


def _open_local(name: str, argument: str, options: EmbedderOptions) -> Embedder:
    if argument:
        raise _unknown(name)
    from undrift.embedders.local import LocalEmbedder

    return LocalEmbedder()


def _open_hashing(name: str, argument: str, options: EmbedderOptions) -> Embedder:
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


def _open_openai(name: str, argument: str, options: EmbedderOptions) -> Embedder:
    if not argument.strip():
        raise ConfigError(
            f"{name!r} does not say which model",
            why="behind 'openai:' stands the name that the server knows the model by.",
            fix="write openai:text-embedding-3-small, or your server's model",
        )
    from undrift.embedders.openai import OpenAIEmbedder

    return OpenAIEmbedder(argument.strip(), options)


_OPENERS: dict[str, Callable[[str, str, EmbedderOptions], Embedder]] = {
    "hashing": _open_hashing,
    "local": _open_local,
    "openai": _open_openai,
}


def _unknown(name: str) -> ConfigError:
    kind = name.partition(":")[0].strip().lower()
    near = difflib.get_close_matches(kind, _OPENERS, n=1, cutoff=0.5)
    # Nothing alike: a person who tries another product's name most likely wants real embeddings.
    nearest = near[0] if near else DEFAULT_EMBEDDER
    if nearest == "openai":
        nearest = "openai:text-embedding-3-small"
    return ConfigError(
        f"There is no embedder {name!r}",
        why="undrift knows local (a sentence model on this machine), openai:MODEL (OpenAI, or any "
        "server with its protocol), hashing and hashing:64 (not semantic, for trials; the number "
        "is the dimension).",
        fix=f"set UNDRIFT_EMBEDDER={nearest}, or in undrift.toml under [embedder]: "
        f'name = "{nearest}"',
    )
