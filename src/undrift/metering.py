"""What a run has paid for so far, told as it is paid."""

from __future__ import annotations

from collections.abc import Sequence

from undrift.events import Listener, TextsEmbedded
from undrift.ports import Embedder, Purpose, Vectors

CHARACTERS_PER_TOKEN = 4
"""As a plan counts them; a usual estimate."""


class MeteredEmbedder:
    """An embedder that tells of every batch of documents it has embedded.

    Safety:
        As that of the embedder inside.
    """

    def __init__(self, embedder: Embedder, listener: Listener) -> None:
        self._embedder = embedder
        self._listener = listener

    @property
    def model(self) -> str:
        """The embedder's."""
        return self._embedder.model

    @property
    def dimension(self) -> int:
        """The embedder's."""
        return self._embedder.dimension

    def embed(self, texts: Sequence[str], purpose: Purpose = "document") -> Vectors:
        """Embed *texts*, and tell what that cost."""
        vectors = self._embedder.embed(texts, purpose)
        tokens = sum(-(-len(text) // CHARACTERS_PER_TOKEN) for text in texts)
        self._listener(TextsEmbedded(len(texts), tokens))
        return vectors

    def count_truncated(self, texts: Sequence[str]) -> int:
        """As the embedder counts them."""
        return self._embedder.count_truncated(texts)
