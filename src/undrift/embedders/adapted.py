"""Any object with ``embed_documents`` and ``embed_query`` as an embedder: LangChain's all are."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Protocol

import numpy as np

from undrift.embedders._rows import unit_rows
from undrift.embedders._twins import repeated_text, without_repeated
from undrift.errors import ConfigError, EmbeddingFailed, UndriftError
from undrift.fingerprint import storable_text
from undrift.mapping import MAX_EMBEDDED_CHARACTERS
from undrift.ports import Embedder, Purpose, Vectors

NAME_ATTRIBUTES: Final = ("model", "model_name", "model_id", "repo_id", "model_path")
"""Where an object's model is looked for, in this order; the first text that is not empty counts."""

DIMENSION_ATTRIBUTES: Final = ("dimensions", "dimension")


class EmbeddingModel(Protocol):
    """The interface of LangChain's ``Embeddings``, which many other libraries share."""

    def embed_documents(self, texts: list[str], /) -> list[list[float]]:
        """A vector for each of *texts*, in order."""

    def embed_query(self, text: str, /) -> list[float]:
        """The vector to search with."""


class AdaptedEmbedder:
    """An `EmbeddingModel` behind the `Embedder` port. `adapt_embedder` makes one.

    Vectors are scaled to unit length, whatever length the model gives them. Where the dimension is
    neither given nor told by the object, the first call that needs it embeds one word to learn it.

    Safety:
        As safe in several threads as the object it wraps; it adds no lock of its own.
    """

    def __init__(self, wrapped: EmbeddingModel, *, name: str, dimension: int | None) -> None:
        self._wrapped = wrapped
        self._name = name
        self._dimension = dimension
        self._learning = threading.Lock()

    @property
    def model(self) -> str:
        """The embedding's identity; may need the dimension, and so one embedding."""
        return f"custom/{self._name}:{self.dimension}:l2"

    @property
    def dimension(self) -> int:
        """Components per vector.

        Raises:
            EmbeddingFailed: it had to be learned, and the model failed.
        """
        with self._learning:  # threads that ask at once pay once
            if self._dimension is None:
                with self._faults_named(1):
                    self._dimension = len(self._wrapped.embed_query("dimension"))
            return self._dimension

    def embed(self, texts: Sequence[str], purpose: Purpose = "document") -> Vectors:
        """Embed *texts*: queries with ``embed_query``, documents with ``embed_documents``.

        Args:
            texts: each is read as far as its first 20,000 characters; NUL and lone surrogates
                become U+FFFD, which every tokenizer takes.

        Shape:
            ``(len(texts), dimension)`` float32, unit length, one row per text, in order.

        Raises:
            EmbeddingFailed: the model failed, or gave another number of vectors or components.
        """
        dimension = self.dimension
        if not texts:
            return np.empty((0, dimension), dtype=np.float32)
        read = [storable_text(text[:MAX_EMBEDDED_CHARACTERS]) for text in texts]
        place = repeated_text(read) if purpose == "document" else None
        asked = read if place is None else [*read, read[place]]
        with self._faults_named(len(texts)):
            if purpose == "query":
                answer = [self._wrapped.embed_query(text) for text in asked]
            else:
                answer = list(self._wrapped.embed_documents(asked))
            rows = np.array(answer, dtype=np.float64)
        if rows.shape != (len(asked), dimension):
            raise EmbeddingFailed(
                "The embedder's answer does not fit the question",
                why=f"{self._name} was to give {len(asked)} vectors of {dimension} components and "
                f"gave numbers of shape {rows.shape}.",
                fix="check the model and its dimension; adapt_embedder(…, dimension=…) sets the "
                "latter",
            )
        return unit_rows(
            rows if place is None else without_repeated(rows, place, embedder=self._name)
        )

    def count_truncated(self, texts: Sequence[str]) -> int:
        """How many of *texts* go on behind their first 20,000 characters.

        What the model itself cuts off is not known: the interface has no question for it.
        """
        return sum(len(text) > MAX_EMBEDDED_CHARACTERS for text in texts)

    @contextmanager
    def _faults_named(self, texts: int) -> Iterator[None]:
        try:
            yield
        except UndriftError:
            raise
        except Exception as exc:  # noqa: BLE001  the wrapped object is anybody's code
            # Neither its message nor the exception itself goes on: both may quote a text or a key.
            raise EmbeddingFailed(
                "The embedder failed",
                why=f"{self._name} raised {type(exc).__name__} for a batch of {texts} texts.",
                fix=f"call embed_documents of {type(self._wrapped).__name__} on its own to see "
                "what it reports, mend that and run the same command again; what was written is "
                "kept",
            ) from None


def adapt_embedder(
    wrapped: EmbeddingModel, *, model: str | None = None, dimension: int | None = None
) -> Embedder:
    """*wrapped* as an embedder, under a name that tells its vectors from every other model's.

    Args:
        model: what to call it in the store. It must change whenever the same text would give
            another vector: put revision, quantisation or instructions into it. None means the
            object's own ``model``, ``model_name``, ``model_id``, ``repo_id`` or ``model_path``.
        dimension: components per vector; None means the object's ``dimensions`` or ``dimension``,
            else they are counted in a first vector.

    Raises:
        ConfigError: nothing names the model, or the object lacks a method.
    """
    missing = [
        method
        for method in ("embed_documents", "embed_query")
        if not callable(getattr(wrapped, method, None))
    ]
    kind = type(wrapped).__name__
    if missing:
        raise ConfigError(
            f"{kind} is not an embedder",
            why=f"it has no {' and no '.join(missing)}.",
            fix="give a name such as 'local', an object with embed_documents and embed_query, or "
            "one with the members of undrift.ports.Embedder",
        )
    name = model or _first_name(wrapped)
    if not name:
        # The class's name would do for one model, and pass a second one off as the first.
        raise ConfigError(
            f"{kind} does not say which model it is",
            why=f"it has none of the attributes {', '.join(NAME_ATTRIBUTES)} as a text, and "
            "vectors of two models must not be taken for one another's.",
            fix="name it: embedder=undrift.adapt_embedder(…, model='name-and-revision')",
        )
    components = dimension if dimension is not None else _first_dimension(wrapped)
    if components is not None and components < 1:
        raise ConfigError(
            f"Vectors cannot have {components} components",
            why="dimension is a count of one or more.",
            fix="give the model's own dimension, or leave it out to have it counted",
        )
    return AdaptedEmbedder(wrapped, name=name, dimension=components)


def _first_name(wrapped: object) -> str | None:
    found = (getattr(wrapped, attribute, None) for attribute in NAME_ATTRIBUTES)
    return next((value for value in found if isinstance(value, str) and value.strip()), None)


def _first_dimension(wrapped: object) -> int | None:
    found = (getattr(wrapped, attribute, None) for attribute in DIMENSION_ATTRIBUTES)
    return next(
        (value for value in found if isinstance(value, int) and not isinstance(value, bool)), None
    )
