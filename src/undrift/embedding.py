"""Embeds what a run needs: equal texts once, only vectors that can be searched, never over budget.

Stores take what they are given. A vector with a NaN or of length zero is accepted by most and then
never found again, so every vector is looked at here, before it is written anywhere.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from undrift.errors import EmbeddingFailed, UndriftError
from undrift.fingerprint import storable_text
from undrift.guard import require_budget
from undrift.mapping import MAX_EMBEDDED_CHARACTERS
from undrift.ports import Embedder, Purpose, Vectors

MAX_REMEMBERED_TEXTS = 20_000
"""Texts whose vectors a run keeps; at 384 components that is 31 MB, at 3,072 it is 246 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingResult:
    """What became of each requested text: it is in exactly one of the first three.

    Attributes:
        vectors: by text_hash, read-only float32 of shape ``(dimension,)``.
        rejected: text_hash to the reason why its vector cannot be used; the others are unharmed.
        unpaid: text_hashes that the budget had no room for.
        newly_embedded: text_hashes that this call paid for, used or rejected.
        truncated: those of them whose text is longer than what is read of it.
    """

    vectors: Mapping[str, Vectors]
    rejected: Mapping[str, str]
    unpaid: frozenset[str]
    newly_embedded: frozenset[str]
    truncated: frozenset[str]


class TextEmbedder:
    """Embeds the texts of one run, and remembers what it has paid for.

    Args:
        max_embeddings: texts that may be embedded in this run; None means any number.
        batch_texts: texts handed to the embedder at once.
        max_remembered: the least recently used vector is forgotten beyond this number; a text that
            comes again after that is embedded, and paid for, again.
        before_batch: called before each batch; whoever holds leases renews them there.

    Attributes:
        embedded: texts that the embedder has answered, the rejected ones included.
        truncated: those of them that were longer than what is read of a text.

    Safety:
        For one thread. After an exception it can go on being used: what was embedded before stays
        remembered, so that the next try pays for the rest only.
    """

    def __init__(
        self,
        embedder: Embedder,
        *,
        max_embeddings: int | None = None,
        batch_texts: int = 255,  # and one that remote embedders send twice: 256 in a request
        max_remembered: int = MAX_REMEMBERED_TEXTS,
        before_batch: Callable[[], None] = lambda: None,
    ) -> None:
        require_budget(max_embeddings)
        self._embedder = embedder
        self._max_embeddings = max_embeddings
        self._batch_texts = batch_texts
        self._max_remembered = max_remembered
        self._before_batch = before_batch
        self._verdicts: OrderedDict[str, Vectors | str] = OrderedDict()
        self.embedded = 0
        self.truncated = 0

    @property
    def remaining(self) -> int | None:
        """Texts that may still be embedded; None means any number."""
        if self._max_embeddings is None:
            return None
        return self._max_embeddings - self.embedded

    def allow(self, texts: int) -> None:
        """Let so many texts be embedded from now on, whatever was embedded before."""
        self._max_embeddings = self.embedded + texts

    def embed(self, texts: Mapping[str, str]) -> EmbeddingResult:
        """A vector for each of *texts*, as far as they are good and the budget reaches.

        Args:
            texts: text_hash to text, the first 20,000 characters of which are embedded. The budget
                is spent in this order.

        Raises:
            EmbeddingFailed: the embedder failed, or answered with another number of vectors or
                components than it must; which vector belongs to which text is then unknown, so
                none of that batch is used.
            ConfigError: the embedder is not installed or not configured.
        """
        # Collected before anything is embedded: remembering the new may forget some of these.
        verdicts = {text_hash: self._recall(text_hash) for text_hash in texts}
        needed = [text_hash for text_hash, verdict in verdicts.items() if verdict is None]
        paid = needed[: self.remaining]
        truncated: set[str] = set()
        for start in range(0, len(paid), self._batch_texts):
            self._before_batch()
            batch = {text_hash: texts[text_hash] for text_hash in paid[start:][: self._batch_texts]}
            verdicts.update(self._embed_batch(batch))
            truncated |= self._truncated_of(batch)
        return EmbeddingResult(
            vectors={key: made for key, made in verdicts.items() if isinstance(made, np.ndarray)},
            rejected={key: made for key, made in verdicts.items() if isinstance(made, str)},
            unpaid=frozenset(needed[len(paid) :]),
            newly_embedded=frozenset(paid),
            truncated=frozenset(truncated),
        )

    def forget_rejections(self) -> None:
        """Let texts be tried again whose vectors could not be used."""
        for text_hash in [h for h, found in self._verdicts.items() if isinstance(found, str)]:
            del self._verdicts[text_hash]

    def _recall(self, text_hash: str) -> Vectors | str | None:
        verdict = self._verdicts.get(text_hash)
        if verdict is not None:
            self._verdicts.move_to_end(text_hash)
        return verdict

    def _embed_batch(self, batch: Mapping[str, str]) -> Mapping[str, Vectors | str]:
        texts = [text[:MAX_EMBEDDED_CHARACTERS] for text in batch.values()]
        answer = _ask(self._embedder, texts, "document")
        self.embedded += len(texts)  # it has answered, so it has cost, whatever it is worth
        rows = _checked_shape(answer, len(texts), self._embedder)
        verdicts = {
            text_hash: fault or _own_row(row)
            for text_hash, row, fault in zip(batch, rows, _faults(rows), strict=True)
        }
        self._remember(verdicts)
        return verdicts

    def _remember(self, verdicts: Mapping[str, Vectors | str]) -> None:
        # Rejections too: a text that gave NaN once would be paid for again by every owner of it.
        self._verdicts.update(verdicts)
        while len(self._verdicts) > self._max_remembered:
            self._verdicts.popitem(last=False)

    def _truncated_of(self, batch: Mapping[str, str]) -> set[str]:
        found = {key for key, text in batch.items() if len(text) > MAX_EMBEDDED_CHARACTERS}
        whole = {key: text for key, text in batch.items() if key not in found}
        with errors_translated(self._embedder, len(whole)):
            # Nearly always none, and one question settles that.
            if self._embedder.count_truncated(list(whole.values())):
                count = self._embedder.count_truncated
                found.update(key for key, text in whole.items() if count([text]))
        self.truncated += len(found)
        return found


def embed_query(embedder: Embedder, query: str) -> Vectors:
    """The vector to search with.

    Shape:
        ``(dimension,)`` float32, read-only.

    Raises:
        EmbeddingFailed: the embedder failed, or its vector cannot be compared with any other.
        ConfigError: the embedder is not installed or not configured.
    """
    text = storable_text(query[:MAX_EMBEDDED_CHARACTERS])
    rows = _checked_shape(_ask(embedder, [text], "query"), 1, embedder)
    fault = _faults(rows)[0]
    if fault is not None:
        raise EmbeddingFailed(
            "The query has no usable vector",
            why=f"{embedder.model} answered, but {fault}.",
            fix="word the query otherwise; if that does not help, the embedder is at fault",
        )
    return _own_row(rows[0])


def _ask(embedder: Embedder, texts: Sequence[str], purpose: Purpose) -> Vectors:
    with errors_translated(embedder, len(texts)):
        return embedder.embed(texts, purpose)


@contextmanager
def errors_translated(embedder: Embedder, texts: int) -> Iterator[None]:
    """Let whatever *embedder* raises for so many texts be an `UndriftError`."""
    try:
        yield
    except UndriftError:
        raise  # the adapter knows better than this layer what a caller can do
    except Exception as exc:  # embedders are anybody's code
        # Only the kind of the exception: its message may quote the text, or the provider's key.
        raise EmbeddingFailed(
            "The embedder failed",
            why=f"{embedder.model} raised {type(exc).__name__} for a batch of {texts} texts.",
            fix="mend what the embedder reports (this error's cause) and run the same command "
            "again; what was written is kept",
        ) from exc


def _checked_shape(answer: object, texts: int, embedder: Embedder) -> Vectors:
    """*answer* as float32 of shape ``(texts, dimension)``."""
    expected = (texts, embedder.dimension)
    try:
        with np.errstate(all="ignore"):  # what overflows float32 becomes infinite, and is rejected
            rows = np.asarray(answer, dtype=np.float32)
    except (TypeError, ValueError) as exc:
        raise _misshapen(embedder, expected, "something that is no table of numbers") from exc
    if rows.shape != expected:
        raise _misshapen(embedder, expected, f"numbers of shape {rows.shape}")
    return rows


def _misshapen(embedder: Embedder, expected: tuple[int, int], found: str) -> EmbeddingFailed:
    return EmbeddingFailed(
        "The embedder's answer does not fit the question",
        why=f"{embedder.model} was to give {expected[0]} vectors of {expected[1]} components and "
        f"gave {found}; which vector belongs to which text cannot be told.",
        fix="check that the embedder's model and its dimension are those that are configured",
    )


def _faults(rows: Vectors) -> list[str | None]:
    """For each row why it cannot be searched, or None.

    Lengths are computed as most stores do, in float32: components of 1e-30 square to zero there.
    """
    with np.errstate(all="ignore"):
        squares = np.einsum("ij,ij->i", rows, rows)
    faults: list[str | None] = [None] * len(rows)
    for row in np.flatnonzero(~np.isfinite(squares) | (squares == 0)):
        if not np.isfinite(rows[row]).all():
            faults[row] = "its vector holds numbers that are not finite"
        elif squares[row] == 0:
            faults[row] = "its vector has length zero"
        else:
            faults[row] = "its vector is too long for 32-bit floats"
    return faults


def _own_row(row: Vectors) -> Vectors:
    """A read-only copy: a view would keep the whole batch alive, and several records share it."""
    own = row.copy()
    own.setflags(write=False)
    return own
