"""Embeddings from OpenAI, or from any server that speaks its protocol."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from typing import Final

import numpy as np
from numpy.typing import NDArray

from undrift.embedders._openai_endpoint import Endpoint
from undrift.embedders._openai_errors import TextRefused
from undrift.embedders._rows import unit_rows
from undrift.embedders._tokens import cut_to_certainty, cut_to_estimate, estimated_tokens
from undrift.embedders._twins import repeated_text, without_repeated
from undrift.embedders.options import (
    DEFAULT_MAX_TEXT_TOKENS,
    OFFICIAL_URL,
    EmbedderOptions,
    host_in_identity,
    is_official,
)
from undrift.errors import ConfigError
from undrift.fingerprint import storable_text
from undrift.mapping import MAX_EMBEDDED_CHARACTERS
from undrift.ports import Purpose, Vectors

KNOWN_DIMENSIONS: Final = {
    "text-embedding-3-small": 1536,
    "text-embedding-3-large": 3072,
    "text-embedding-ada-002": 1536,
}
SHORTENABLE: Final = frozenset({"text-embedding-3-small", "text-embedding-3-large"})
"""Models that make shorter vectors when they are asked for them."""

MAX_REQUEST_TOKENS: Final = 150_000
"""Half of what OpenAI takes in one request, since tokens are estimated."""

_CLEARLY_SYSTEMATIC = 3  # texts refused one by one, none taken: it is not the texts

_log = logging.getLogger(__name__)


class OpenAIEmbedder:
    """A model behind OpenAI's embeddings protocol.

    Its identity names the model, the server's host unless that is OpenAI's (or the configured
    revision in its place), the dimension, and, where they are set, the prefixes and the length at
    which texts are cut: ``openai/bge-m3@localhost:1024:l2:p1f2e3d4c``. It holds neither key nor
    port nor path. What it cannot see is a server that serves other weights under the same name:
    then set another ``revision``.

    Vectors are scaled to unit length. Nothing is sent before something is to be embedded: a check
    and a dry run need neither key nor server.

    The SDK reads some variables by itself: ``OPENAI_ORG_ID`` and ``OPENAI_PROJECT_ID``, and, with
    its HTTP client, ``HTTPS_PROXY``, ``NO_PROXY`` and ``SSL_CERT_FILE``.

    Args:
        model: the name that the server knows it by.

    Raises:
        ConfigError: the dimension is not known, or not one that the model makes; an address that
            is none.

    Safety:
        Any number of threads may share one. After a fork, open a new one.

    Source:
        https://platform.openai.com/docs/api-reference/embeddings
    """

    def __init__(self, model: str, options: EmbedderOptions | None = None) -> None:
        options = options or EmbedderOptions()
        self._dimension = _checked_dimension(model, options)
        is_shortened = model in SHORTENABLE and options.dimension not in (
            None,
            KNOWN_DIMENSIONS[model],
        )
        self._options = options
        self._endpoint = Endpoint(
            model,
            options,
            dimension=self._dimension,
            sent_dimension=self._dimension if is_shortened else None,
        )
        self._identity = _identity(model, options, self._dimension)
        self._go_on: Callable[[], None] = lambda: None

    @property
    def model(self) -> str:
        """The embedding's identity."""
        return self._identity

    @property
    def dimension(self) -> int:
        """Components per vector."""
        return self._dimension

    def embed(self, texts: Sequence[str], purpose: Purpose = "document") -> Vectors:
        """Embed *texts*, in as many requests as the server's limits ask for.

        Args:
            texts: each is read as far as its first 20,000 characters or ``max_text_tokens``
                (estimated). The empty text is sent as a blank: servers refuse it.

        Shape:
            ``(len(texts), dimension)`` float32, unit length, one row per text, in order. A text
            that the server refuses while it takes others has a row of NaN, which the core rejects
            by name.

        Raises:
            ConfigError: the key, the model, the address, the dimension or the credit is not good,
                or ``undrift[openai]`` is not installed.
            EmbeddingFailed: no usable answer, after every attempt.
        """
        prefix = self._prefix(purpose)
        sent = [self._readable(prefix, text) for text in texts]
        vectors = np.empty((len(texts), self._dimension), dtype=np.float32)
        for start, stop in self._requests(sent):
            vectors[start:stop] = self._embed_request(sent[start:stop])
        return vectors

    def count_truncated(self, texts: Sequence[str]) -> int:
        """How many of *texts* are longer than what is read, by the estimate of their tokens."""
        limit = self._options.max_text_tokens
        prefix = self._options.document_prefix
        return sum(
            len(text) > MAX_EMBEDDED_CHARACTERS or estimated_tokens(prefix + text) > limit
            for text in map(storable_text, texts)
        )

    def impatient(self, go_on: Callable[[], None]) -> OpenAIEmbedder:
        """The same embedder, on the same connections, which gives up when nobody waits any more.

        Args:
            go_on: called before each request and several times a second while waiting for the
                next; what it raises ends the embedding. A request that was sent is waited for.
        """
        impatient = copy(self)
        impatient._go_on = go_on
        return impatient

    def close(self) -> None:
        """Give back every connection. Safe to call twice; a later call opens new ones."""
        self._endpoint.close()

    # --- requests -----------------------------------------------------------------------------

    def _prefix(self, purpose: Purpose) -> str:
        options = self._options
        return options.query_prefix if purpose == "query" else options.document_prefix

    def _readable(self, prefix: str, text: str) -> str:
        read = prefix + storable_text(text[:MAX_EMBEDDED_CHARACTERS])
        return cut_to_estimate(read, self._options.max_text_tokens) or " "

    def _requests(self, texts: Sequence[str]) -> Iterator[tuple[int, int]]:
        """Where each request begins and ends, with room for the text that is sent twice."""
        start = tokens = longest = 0
        most_texts = max(1, self._options.batch_texts - 1)
        for position, text in enumerate(texts):
            more = estimated_tokens(text)
            is_full = position - start == most_texts
            if position > start and (
                is_full or tokens + more + max(longest, more) > MAX_REQUEST_TOKENS
            ):
                yield start, position
                start = position
                tokens = longest = 0
            tokens += more
            longest = max(longest, more)
        if start < len(texts):
            yield start, len(texts)

    def _ask(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """One request, in which one text comes twice if there are several."""
        place = repeated_text(texts)
        if place is None:
            return self._endpoint.ask(texts, go_on=self._go_on)
        rows = self._endpoint.ask([*texts, texts[place]], go_on=self._go_on)
        return without_repeated(rows, place, embedder="the server")

    def _embed_request(self, texts: Sequence[str]) -> Vectors:
        if len(texts) == 1:
            return self._embed_alone(texts[0])
        try:
            return unit_rows(self._ask(texts))
        except TextRefused as refusal:
            return self._embed_around(texts, refusal)

    def _embed_alone(self, text: str) -> Vectors:
        """One text, at a length that no tokenizer exceeds if it is refused as it is.

        Both tries see the text only, never its neighbours: equal texts have equal vectors.
        """
        try:
            return unit_rows(self._ask([text]))
        except TextRefused:
            shorter = cut_to_certainty(text, self._options.max_text_tokens)
            if shorter == text:
                raise
        return unit_rows(self._ask([shorter]))

    def _embed_around(self, texts: Sequence[str], refusal: TextRefused) -> Vectors:
        """Halve a refused request until what is refused stands alone; the others are embedded."""
        vectors = np.full((len(texts), self._dimension), np.nan, dtype=np.float32)
        pending = _halves(0, len(texts))
        refused = taken = 0
        while pending:
            start, stop = pending.pop()
            try:
                if stop - start == 1:
                    vectors[start] = self._embed_alone(texts[start])[0]
                else:
                    vectors[start:stop] = unit_rows(self._ask(texts[start:stop]))
                taken += 1
            except TextRefused as exc:
                if stop - start > 1:
                    pending += _halves(start, stop)
                    continue
                refused, refusal = refused + 1, exc
                if not taken and refused == _CLEARLY_SYSTEMATIC:
                    raise
        if not taken:
            raise refusal
        if refused:
            _log.warning(
                "The embedding server refuses %d of %d texts: %s",
                refused,
                len(texts),
                refusal.why,
                extra={"action": "embed"},
            )
        return vectors


def _halves(start: int, stop: int) -> list[tuple[int, int]]:
    """Two halves, the first one last, as a stack wants them."""
    middle = (start + stop) // 2
    return [(middle, stop), (start, middle)]


def _checked_dimension(model: str, options: EmbedderOptions) -> int:
    known = KNOWN_DIMENSIONS.get(model)
    wanted = options.dimension
    if wanted is None and known is None:
        raise ConfigError(
            f"How many components a vector of {model!r} has is not known",
            why="undrift knows OpenAI's own models only, and asks no server for what a check must "
            "know without one.",
            fix="set UNDRIFT_EMBEDDER__DIMENSION=…, or dimension = … under [embedder]; the model's "
            "page names it, such as 1024 for bge-m3",
        )
    if wanted is None:
        assert known is not None
        return known
    # Elsewhere the name may stand for another model; the answers will tell.
    is_openai = known is not None and is_official(options.base_url or OFFICIAL_URL)
    if is_openai and known is not None and wanted != known:
        can_shorten = model in SHORTENABLE
        if wanted > known or not can_shorten:
            raise ConfigError(
                f"{model} makes no vectors of {wanted} components",
                why=f"it makes {known}" + (" or, shortened, fewer." if can_shorten else "."),
                fix=f"set UNDRIFT_EMBEDDER__DIMENSION={known}, or leave it out",
            )
    return wanted


def _identity(model: str, options: EmbedderOptions, dimension: int) -> str:
    served = options.revision or host_in_identity(options.base_url)
    parts = [f"openai/{model}" + (f"@{served}" if served else ""), str(dimension), "l2"]
    document, query = options.document_prefix, options.query_prefix
    if document or query:
        both = f"{len(document)}:{document}{query}".encode()  # with the length, so that none moves
        parts.append("p" + hashlib.blake2b(both, digest_size=4).hexdigest())
    if options.max_text_tokens != DEFAULT_MAX_TEXT_TOKENS:
        parts.append(f"t{options.max_text_tokens}")
    return ":".join(parts)
