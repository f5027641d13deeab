"""Embeddings over OpenAI's protocol: a real model on a real server, behind a faulty proxy.

The control of each fault is the naive client: it takes the SDK's answer as it comes.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import numpy as np
import pytest
from openai import OpenAIError

from support.embedding_server import (
    DIMENSION,
    KEY,
    Answer,
    EmbeddingProxy,
    Fault,
    Rule,
    embedder_at,
    naive_vectors,
    one_by_one,
)
from undrift import Undrift
from undrift.embedders._openai_endpoint import _Wait
from undrift.embedders._openai_errors import PassingFault
from undrift.embedders.openai import OpenAIEmbedder
from undrift.errors import ConfigError, EmbeddingFailed
from undrift.ports import Embedder
from undrift.testing.embedder_contract import EmbedderContract, assert_same_direction

TEXTS = ["Built the billing service", "Taught physics", "Cooked in Naples", "Sold houses"]
SECRET_TEXT = "planted-secret-of-the-profile"

Open = Callable[..., OpenAIEmbedder]


@pytest.fixture
def open_embedder(embedding_proxy: EmbeddingProxy) -> Iterator[Open]:
    """Opens embedders over the proxy and closes them."""
    opened: list[OpenAIEmbedder] = []

    def open_one(**options: object) -> OpenAIEmbedder:
        opened.append(embedder_at(embedding_proxy.url, **options))
        return opened[-1]

    yield open_one
    for embedder in opened:
        embedder.close()


class TestOpenAIEmbedder(EmbedderContract):
    @pytest.fixture
    def embedder(self, open_embedder: Open) -> Embedder:
        """With everything that could get texts or roles mixed up."""
        return open_embedder(
            document_prefix="passage: ", query_prefix="query: ", batch_texts=4, max_text_tokens=512
        )


# --- what is sent -----------------------------------------------------------------------------


def test_vectors_are_the_servers(open_embedder: Open, embedding_proxy: EmbeddingProxy) -> None:
    """Nothing is lost between its answer and ours."""
    truth = one_by_one(embedding_proxy.url, TEXTS)
    np.testing.assert_allclose(open_embedder().embed(TEXTS), truth, atol=1e-5)


def test_batches_are_bounded_by_texts(open_embedder: Open, embedding_proxy: EmbeddingProxy) -> None:
    """A server takes so many at once, the one that is sent twice included."""
    texts = [f"text {number}" for number in range(8)]
    vectors = open_embedder(batch_texts=4).embed(texts)
    assert embedding_proxy.asked == [4, 4, 3]
    assert_same_direction(vectors, open_embedder().embed(texts))


def test_batches_are_bounded_by_tokens(
    open_embedder: Open, embedding_proxy: EmbeddingProxy
) -> None:
    """256 long texts would be seven times what one request may hold."""
    embedding_proxy.always(Fault(status=401))  # what is asked first shows it
    texts = [f"{number:02}".ljust(20_000, "x") for number in range(60)]
    with pytest.raises(ConfigError):
        open_embedder().embed(texts)
    assert embedding_proxy.asked == [22]


def test_a_long_text_is_cut_before_it_is_sent_and_counted(
    open_embedder: Open, embedding_proxy: EmbeddingProxy
) -> None:
    """A provider answers a text that is too long with an error, not with a vector."""
    embedder = open_embedder(max_text_tokens=100)
    texts = ["short", "long " * 100, "語" * 100]
    embedder.embed(texts)
    sent = embedding_proxy.requests[0]["input"]
    assert sent[0] == "short"
    assert [len(text) for text in sent[1:3]] == [300, 66]
    assert sent[3] in sent[1:3]  # what is sent twice is as short
    assert embedder.count_truncated(texts) == 2


def test_prefixes_are_sent_with_each_purpose(
    open_embedder: Open, embedding_proxy: EmbeddingProxy
) -> None:
    """And neither stands before the other's texts."""
    embedder = open_embedder(document_prefix="passage: ", query_prefix="query: ")
    embedder.embed(["SQL"])
    embedder.embed(["SQL"], "query")
    embedder.embed([""])
    assert [request["input"] for request in embedding_proxy.requests] == [
        ["passage: SQL"],
        ["query: SQL"],
        ["passage: "],
    ]


def test_a_paraphrase_finds_its_target(open_embedder: Open) -> None:
    """It is a sentence model that answers, and the roles do not get in its way."""
    embedder = open_embedder(document_prefix="passage: ", query_prefix="query: ")
    targets = [
        "Translated novels from Russian",
        "Kept the accounts of a small firm",
        "Cared for patients in intensive care",
        "Moved the site to PostgreSQL",
    ]
    queries = [
        "literary translator of Slavic fiction",
        "bookkeeper",
        "nurse on a hospital ward",
        "database migration",
    ]
    scores = embedder.embed(queries, "query") @ embedder.embed(targets).T
    assert scores.argmax(axis=1).tolist() == [0, 1, 2, 3]


def test_a_dimension_is_asked_for_only_where_the_model_is_known_to_shorten(
    open_embedder: Open, embedding_proxy: EmbeddingProxy
) -> None:
    """Other servers refuse the parameter, or ignore it as this one does."""
    open_embedder().embed(["SQL"])
    known = embedder_at(embedding_proxy.url, model="text-embedding-3-small")
    with closing(known):
        known.embed(["SQL"])
    assert ["dimensions" in request for request in embedding_proxy.requests] == [False, True]
    assert embedding_proxy.requests[1]["dimensions"] == DIMENSION
    assert {request["encoding_format"] for request in embedding_proxy.requests} == {"float"}


def test_the_key_is_sent_and_a_server_without_one_gets_none_of_the_environments(
    open_embedder: Open, embedding_proxy: EmbeddingProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SDK would send OPENAI_API_KEY wherever the address points."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-somebody-else")
    open_embedder().embed(["SQL"])
    open_embedder(api_key=None).embed(["SQL"])
    assert embedding_proxy.keys == [f"Bearer {KEY}", "Bearer none"]


def test_it_can_be_closed_twice_and_used_again(
    open_embedder: Open, embedding_proxy: EmbeddingProxy
) -> None:
    """As the stores can."""
    embedder = open_embedder()
    embedder.close()
    embedder.embed(["SQL"])
    embedder.close()
    embedder.close()
    embedder.embed(["SQL"])
    assert embedding_proxy.answered == 2


def test_undrift_closes_the_connections_of_its_embedder(
    embedding_proxy: EmbeddingProxy, tmp_path: Path
) -> None:
    """As it does those of its store; an embedder that holds none is left alone."""
    embedder = embedder_at(embedding_proxy.url)
    with Undrift(store=f"sqlite:///{tmp_path / 'vectors.db'}", embedder=embedder) as sides:
        sides.sync(7, {"skills": ["SQL"]})
        is_open = [embedder._endpoint._client is not None]
    is_open.append(embedder._endpoint._client is not None)
    assert is_open == [True, False]
    Undrift(store=f"sqlite:///{tmp_path / 'other.db'}", embedder="hashing").close()


# --- answers that are wrong ---------------------------------------------------------------------


def shuffle(answer: Answer) -> None:
    """The right vectors with their right indexes, in another order."""
    random.Random(3).shuffle(answer["data"])
    assert [item["index"] for item in answer["data"]] != list(range(len(answer["data"])))


def drop_one(answer: Answer) -> None:
    """One vector less."""
    del answer["data"][1]


def duplicate_one(answer: Answer) -> None:
    """As many vectors as texts, and one of them twice."""
    answer["data"][2] = dict(answer["data"][1])


def forget_indexes(answer: Answer) -> None:
    """Every vector says it is the first text's."""
    for item in answer["data"]:
        item["index"] = 0


def shorten_one(answer: Answer) -> None:
    """One vector has lost a component."""
    answer["data"][1]["embedding"].pop()


def shorten_all(answer: Answer) -> None:
    """Another model's vectors."""
    for item in answer["data"]:
        del item["embedding"][256:]


def poison_one(answer: Answer, value: float | None = float("nan")) -> None:
    """One text's vector has a component that is not a number, as often as it was asked for."""
    bad = list(answer["data"][1]["embedding"])
    for item in answer["data"]:
        if item["embedding"] == bad:
            item["embedding"][7] = value


def null_one(answer: Answer) -> None:
    """The same, as strict JSON writes it."""
    poison_one(answer, None)


def test_order_is_restored_by_index(open_embedder: Open, embedding_proxy: EmbeddingProxy) -> None:
    """The control gives texts one another's vectors."""
    truth = one_by_one(embedding_proxy.url, TEXTS)
    embedding_proxy.always(Fault(rewritten=shuffle))
    np.testing.assert_allclose(open_embedder().embed(TEXTS), truth, atol=1e-5)
    assert not np.allclose(naive_vectors(embedding_proxy.url, TEXTS), truth, atol=1e-2)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (drop_one, "holds 4 vectors for 5 texts"),
        (duplicate_one, "two vectors for text 1"),
        (forget_indexes, "two vectors for text 0"),
    ],
)
def test_vectors_that_cannot_be_told_apart_are_refused(
    open_embedder: Open,
    embedding_proxy: EmbeddingProxy,
    fault: Callable[[Answer], None],
    said: str,
) -> None:
    """The control takes what there is: too few vectors, or one text's for another's."""
    truth = one_by_one(embedding_proxy.url, TEXTS)
    embedding_proxy.always(Fault(rewritten=fault))
    with pytest.raises(EmbeddingFailed, match=said):
        open_embedder().embed(TEXTS)
    naive = naive_vectors(embedding_proxy.url, TEXTS)
    if fault is forget_indexes:  # taken in order, these are right; nothing says that they are
        np.testing.assert_allclose(naive, truth, atol=1e-5)
    else:
        assert naive.shape != truth.shape or not np.allclose(naive, truth, atol=1e-2)


def test_a_missing_index_is_no_riddle_with_one_text(
    open_embedder: Open, embedding_proxy: EmbeddingProxy
) -> None:
    """Servers that leave it out work with batches of one, as the error's fix says."""
    embedding_proxy.always(Fault(rewritten=lambda answer: answer["data"][0].pop("index")))
    truth = one_by_one(embedding_proxy.url, TEXTS)
    np.testing.assert_allclose(open_embedder(batch_texts=1).embed(TEXTS), truth, atol=1e-5)


def test_another_dimension_is_a_configuration_error_that_names_it(
    open_embedder: Open, embedding_proxy: EmbeddingProxy
) -> None:
    """The control stores vectors that no query can be compared with."""
    embedding_proxy.always(Fault(rewritten=shorten_all))
    with pytest.raises(ConfigError) as caught:
        open_embedder().embed(TEXTS)
    assert "UNDRIFT_EMBEDDER__DIMENSION=256" in caught.value.fix
    assert naive_vectors(embedding_proxy.url, TEXTS).shape == (4, 256)


def test_mixed_dimensions_fail_the_batch(
    open_embedder: Open, embedding_proxy: EmbeddingProxy
) -> None:
    """One short vector says that the server is broken, not that the setting is wrong."""
    embedding_proxy.always(Fault(rewritten=shorten_one))
    with pytest.raises(EmbeddingFailed, match="mixes vectors of 383, 384 components"):
        open_embedder().embed(TEXTS)
    with pytest.raises(ValueError, match="inhomogeneous"):
        naive_vectors(embedding_proxy.url, TEXTS)


@pytest.mark.parametrize("fault", [poison_one, null_one])
def test_a_component_that_is_no_number_spoils_its_own_row_only(
    open_embedder: Open, embedding_proxy: EmbeddingProxy, fault: Callable[[Answer], None]
) -> None:
    """The core then rejects that entity and writes the others; the control stores the NaN."""
    truth = one_by_one(embedding_proxy.url, TEXTS)
    embedding_proxy.always(Fault(rewritten=fault))
    vectors = open_embedder().embed(TEXTS)
    assert np.isnan(vectors[1]).any()
    np.testing.assert_allclose(vectors[[0, 2, 3]], truth[[0, 2, 3]], atol=1e-5)
    assert np.isnan(naive_vectors(embedding_proxy.url, TEXTS)).any()


@pytest.mark.parametrize(
    "body",
    [
        b"<html>Sign in to the hotel's network</html>",
        b'{"data": [',
        b"[]",
        b'{"data": {}}',
        b'{"error": {"message": "no"}}',
        b'{"data": ["a", "b", "c", "d"]}',
        b'{"data": [{"index": 0, "embedding": "AAAA"}, {}, {}, {}]}',
        b"\xff\xfe",
    ],
)
def test_an_answer_that_is_none_fails_the_batch(
    open_embedder: Open, embedding_proxy: EmbeddingProxy, body: bytes
) -> None:
    """The control fails with whatever comes to its mind, or holds no vectors and does not know."""
    embedding_proxy.always(Fault(body=body))
    with pytest.raises(EmbeddingFailed) as caught:
        open_embedder().embed(TEXTS)
    assert caught.value.what == "The embedding server's answer is not usable"
    assert "hotel" not in str(caught.value)
    try:
        naive = naive_vectors(embedding_proxy.url, TEXTS)
    except (OpenAIError, ValueError, TypeError, AttributeError):
        return
    assert naive.shape != (4, DIMENSION)


# --- servers that fail --------------------------------------------------------------------------

BUSY = Fault(status=429, error={"code": "rate_limit_exceeded"})


@pytest.mark.parametrize(
    "fault",
    [
        BUSY,
        Fault(status=500),
        Fault(status=503, headers={"Retry-After": "1"}),
        Fault(status=408),
        Fault(is_cut_off=True),
    ],
)
@pytest.mark.usefixtures("without_waits")
def test_a_fault_that_passes_is_waited_out(
    open_embedder: Open, embedding_proxy: EmbeddingProxy, fault: Fault
) -> None:
    """Two failures, then the right vectors; the control fails at the first."""
    truth = one_by_one(embedding_proxy.url, TEXTS)
    embedding_proxy.requests.clear()
    embedding_proxy.next(fault, fault)
    np.testing.assert_allclose(open_embedder().embed(TEXTS), truth, atol=1e-5)
    assert embedding_proxy.asked == [5, 5, 5]
    embedding_proxy.next(fault)
    with pytest.raises(OpenAIError):
        naive_vectors(embedding_proxy.url, TEXTS)


@pytest.mark.usefixtures("without_waits")
def test_a_server_that_hangs_is_given_up_after_its_time_and_asked_again(
    open_embedder: Open, embedding_proxy: EmbeddingProxy
) -> None:
    """The limit of one request; by default 30 seconds."""
    embedding_proxy.next(Fault(is_hanging=True))
    vectors = open_embedder(timeout_seconds=2.0).embed(["SQL"])
    assert vectors.shape == (1, DIMENSION)
    assert embedding_proxy.asked == [1, 1]


@pytest.mark.usefixtures("without_waits")
def test_a_server_that_stays_down_is_given_up_with_the_way_on(
    open_embedder: Open, embedding_proxy: EmbeddingProxy
) -> None:
    """After the configured number of attempts, and after one each from then on."""
    embedding_proxy.always(Fault(status=503))
    embedder = open_embedder(max_attempts=5)
    with pytest.raises(EmbeddingFailed) as caught:
        embedder.embed(TEXTS)
    assert "5 times" in caught.value.why
    assert "HTTP 503" in caught.value.why
    assert "again later" in caught.value.fix
    assert len(embedding_proxy.requests) == 5
    with pytest.raises(EmbeddingFailed, match="asked once"):
        embedder.embed(TEXTS)
    assert len(embedding_proxy.requests) == 6
    embedding_proxy.next(None, Fault(status=503))  # it is back, and its next fault is waited out
    embedding_proxy.always(None)
    embedder.embed(TEXTS)
    embedder.embed(TEXTS)
    assert len(embedding_proxy.requests) == 9


@pytest.mark.usefixtures("without_waits")
def test_a_server_that_is_not_there_is_given_up(embedding_proxy: EmbeddingProxy) -> None:
    """Its address names nothing that listens."""
    embedding_proxy.__exit__()
    with (
        closing(embedder_at(embedding_proxy.url, max_attempts=3)) as embedder,
        pytest.raises(EmbeddingFailed, match="3 times, and at last the connection failed"),
    ):
        embedder.embed(["SQL"])


@pytest.mark.usefixtures("without_waits")
@pytest.mark.parametrize("as_date", [False, True])
def test_the_wait_is_the_one_that_the_server_asks_for(
    open_embedder: Open,
    embedding_proxy: EmbeddingProxy,
    caplog: pytest.LogCaptureFixture,
    as_date: bool,
) -> None:
    """In seconds or as a date; what is chosen is measured, not waited for."""
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=40), usegmt=True)
    asked = {"Retry-After": at if as_date else "37"}
    embedding_proxy.next(Fault(status=429, headers=asked))
    with caplog.at_level(logging.INFO, "undrift"):
        open_embedder().embed(["SQL"])
    (waited,) = [r.__dict__["wait_seconds"] for r in caplog.records if "asks to wait" in r.message]
    assert 20 < waited <= 40 if as_date else waited == 37


def test_a_wait_is_really_waited(open_embedder: Open, embedding_proxy: EmbeddingProxy) -> None:
    """No switch for tests is on here."""
    embedding_proxy.next(*[Fault(status=429, headers={"retry-after-ms": "400"})] * 2)
    begun = time.monotonic()
    open_embedder().embed(["SQL"])
    assert time.monotonic() - begun >= 0.8


def test_where_the_server_says_nothing_the_waits_grow(
    open_embedder: Open, embedding_proxy: EmbeddingProxy
) -> None:
    """The first is half a second, and up to one more so that clients do not come all at once."""
    embedding_proxy.next(Fault(status=429))
    begun = time.monotonic()
    open_embedder().embed(["SQL"])
    assert time.monotonic() - begun >= 0.5

    wait = _Wait()
    waits = []
    for _ in range(8):
        assert wait.is_granted(PassingFault("it is busy")) == 0.0
        waits.append(wait.seconds)
    for number, seconds in enumerate(waits):
        assert min(0.5 * 2**number, 30.0) <= seconds <= min(0.5 * 2**number + 1.0, 30.0)


def test_a_wait_beyond_reason_is_not_begun(
    open_embedder: Open, embedding_proxy: EmbeddingProxy
) -> None:
    """A day's limit is used up: the person is told, and nothing sleeps."""
    embedding_proxy.always(Fault(status=429, headers={"Retry-After": "3600"}))
    with pytest.raises(EmbeddingFailed, match="asks to wait 3600 s") as caught:
        open_embedder().embed(["SQL"])
    assert caught.value.retry_after_seconds == 3600
    assert len(embedding_proxy.requests) == 1


# --- servers that refuse ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        (Fault(status=401), "does not accept the key"),
        (Fault(status=403), "does not accept the key"),
        (Fault(status=404, error={"code": "model_not_found"}), "does not know the model"),
        (Fault(status=402), "has no credit"),
        (Fault(status=429, error={"code": "insufficient_quota"}), "has no credit"),
        (Fault(status=429, error={"type": "insufficient_quota"}), "has no credit"),
    ],
)
def test_what_no_retry_mends_is_a_configuration_error_at_once(
    open_embedder: Open, embedding_proxy: EmbeddingProxy, fault: Fault, what: str
) -> None:
    """One request, and what to do; the key stays out of it."""
    embedding_proxy.always(fault)
    with pytest.raises(ConfigError, match=what) as caught:
        open_embedder().embed(TEXTS)
    assert f"HTTP {fault.status}" in caught.value.why
    assert KEY not in str(caught.value)
    assert len(embedding_proxy.requests) == 1
    with pytest.raises(OpenAIError):
        naive_vectors(embedding_proxy.url, TEXTS)


def refuses(sign: str) -> Rule:
    """The rule of a server that answers HTTP 400 to every request with *sign* in it."""
    refusal = Fault(
        status=400, error={"code": "bad_input", "message": f"cannot read {SECRET_TEXT}"}
    )
    return lambda texts: refusal if any(sign in text for text in texts) else None


def test_a_text_that_the_server_refuses_does_not_take_its_neighbours_along(
    open_embedder: Open, embedding_proxy: EmbeddingProxy
) -> None:
    """The control has no vector for any of them."""
    texts = [f"text {number}" for number in range(16)]
    truth = one_by_one(embedding_proxy.url, texts)
    embedding_proxy.when(refuses("text 11"))
    embedding_proxy.requests.clear()
    vectors = open_embedder().embed(texts)
    assert np.isnan(vectors[11]).all()
    good = [row for row in range(16) if row != 11]
    np.testing.assert_allclose(vectors[good], truth[good], atol=1e-5)
    assert len(embedding_proxy.requests) == 9  # 16, then two halves of 16, 8, 4 and 2
    with pytest.raises(OpenAIError):
        naive_vectors(embedding_proxy.url, texts)


def test_a_server_that_refuses_everything_is_not_asked_text_by_text(
    open_embedder: Open, embedding_proxy: EmbeddingProxy
) -> None:
    """A wrong parameter is soon told from a bad text."""
    embedding_proxy.always(Fault(status=422, error={"param": "encoding_format"}))
    with pytest.raises(EmbeddingFailed, match="HTTP 422, param encoding_format"):
        open_embedder().embed([f"text {number}" for number in range(64)])
    assert len(embedding_proxy.requests) <= 12


def test_a_text_longer_than_estimated_is_cut_where_no_tokenizer_can_object(
    open_embedder: Open, embedding_proxy: EmbeddingProxy
) -> None:
    """Its vector is the same in whatever company it comes."""
    refusal = Fault(status=400, error={"code": "context_length_exceeded"})
    embedding_proxy.when(lambda texts: refusal if max(map(len, texts)) > 100 else None)
    embedder = open_embedder(max_text_tokens=100)
    text = "0x" + "7f3a" * 60
    alone = embedder.embed([text])
    together = embedder.embed(["SQL", text, "Go"])
    assert np.isfinite(together).all()
    assert_same_direction(together[1:2], alone)
    assert len(embedding_proxy.requests[1]["input"][0]) == 92


# --- secrets ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        None,
        BUSY,
        Fault(
            status=400, error={"message": f"bad: {SECRET_TEXT} {KEY}", "code": SECRET_TEXT + " "}
        ),
        Fault(status=401, error={"message": f"Incorrect API key provided: {KEY}"}),
        Fault(status=429, error={"code": "insufficient_quota", "message": SECRET_TEXT}),
        Fault(body=SECRET_TEXT.encode()),
        Fault(is_cut_off=True),
    ],
)
@pytest.mark.usefixtures("without_waits")
def test_neither_text_nor_key_is_in_any_log_or_error(
    open_embedder: Open,
    embedding_proxy: EmbeddingProxy,
    caplog: pytest.LogCaptureFixture,
    fault: Fault | None,
) -> None:
    """At any level and from any library, and with every cause that a traceback would print."""
    import traceback

    embedding_proxy.always(fault)
    with caplog.at_level(logging.DEBUG):
        try:
            open_embedder(max_attempts=2).embed([SECRET_TEXT])
        except (ConfigError, EmbeddingFailed) as exc:
            told = "".join(traceback.format_exception(exc))
        else:
            told = ""
    assert "httpcore" in caplog.text  # the libraries do log at this level
    records = "".join(str(record.__dict__) for record in caplog.records)
    for secret in (SECRET_TEXT, KEY):
        assert secret not in told
        assert secret not in caplog.text
        assert secret not in records


def test_many_threads_share_one_embedder_under_faults(
    open_embedder: Open, embedding_proxy: EmbeddingProxy
) -> None:
    """Each gets its own vectors, whatever the server does to the order."""
    truth = one_by_one(embedding_proxy.url, TEXTS)
    embedding_proxy.always(Fault(rewritten=shuffle))
    embedder = open_embedder()
    with ThreadPoolExecutor(max_workers=8) as pool:
        for vectors in pool.map(embedder.embed, [TEXTS] * 16):
            np.testing.assert_allclose(vectors, truth, atol=1e-5)
