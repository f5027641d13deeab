"""The benchmark of a watch under load: its service and its runs are what they claim to be."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from benchmarks.load_model import Crew, Load, Pace, texts_sent
from benchmarks.load_run import Arena
from benchmarks.load_service import DIMENSION, INSTANT, EmbeddingService

from support.embedding_server import embedder_at
from support.postgres import PostgresServer


@pytest.fixture
def service() -> Iterator[EmbeddingService]:
    with EmbeddingService() as running:
        yield running


def test_the_service_answers_as_slowly_as_it_is_told(service: EmbeddingService) -> None:
    """And equal texts alike, or undrift would not believe it."""
    service.set_pace(Pace(call_seconds=0.1, text_seconds=0.05))
    began = time.monotonic()
    vectors = embedder_at(service.url).embed(["a", "b", "c"])
    assert time.monotonic() - began >= 0.1 + 0.05 * 4
    assert vectors.shape == (3, DIMENSION)
    assert [len(call.texts) for call in service.calls] == [texts_sent(3)]


def test_a_limit_makes_the_embedder_wait_for_as_long_as_the_service_says(
    service: EmbeddingService,
) -> None:
    """Three requests of four texts each: the second and the third wait for those before them."""
    embedder = embedder_at(service.url)
    service.set_pace(Pace(call_seconds=0.0, text_seconds=0.0, texts_per_second=20.0))
    began = time.monotonic()
    for number in range(3):
        embedder.embed([f"{number} a", f"{number} b", f"{number} c"])
    limited = time.monotonic() - began
    assert limited >= 2 * 4 / 20
    assert service.taken == 3

    service.set_pace(INSTANT)  # the control
    began = time.monotonic()
    embedder.embed(["d", "e", "f"])
    assert time.monotonic() - began < limited


def test_a_run_has_every_change_fresh_and_a_calibration_a_cost_of_every_part(
    service: EmbeddingService,
) -> None:
    """No change is fresh before the service can have answered; so the pace is really applied."""
    settings = {"track_commit_timestamp": "on"}
    pace = Pace(call_seconds=0.2, text_seconds=0.01, texts_per_second=200.0)
    load = Load(rate=20, seconds=2)
    with PostgresServer(settings=settings) as server, server.database() as url:
        arena = Arena(url, service, owners=120)
        arena.prepare()
        costs = arena.calibrate(bursts=(1, 5, 20), rounds=2)
        changes = arena.run(load, Crew(workers=2), pace)
    for part in (costs.before, costs.publish, costs.after):
        assert part.seconds(100) > 0
    assert len(changes) == len(load.arrivals())
    assert all(change.fresh - change.committed >= pace.seconds(1) for change in changes)
    committed = sorted(change.committed for change in changes)
    assert all(at >= planned for at, planned in zip(committed, load.arrivals(), strict=True))
