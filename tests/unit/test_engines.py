"""The engine for other machines, where no cluster is needed to see what it does."""

from __future__ import annotations

import importlib.util
import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from undrift import Undrift
from undrift.embedders.hashing import HashingEmbedder
from undrift.engines import worker
from undrift.engines.budget import TextBudget
from undrift.engines.cluster import Cluster
from undrift.engines.embedding import room_for
from undrift.engines.on_ray import on_ray
from undrift.engines.orders import order
from undrift.engines.sync_on_ray import sync_on_ray
from undrift.engines.worker import check_here
from undrift.errors import (
    ConfigError,
    StoreUnavailable,
    UndriftError,
    UnknownStateError,
    UnsupportedError,
)
from undrift.events import ignore
from undrift.mapping import DocumentTable, default_entities
from undrift.mapping import Mapping as SourceMapping
from undrift.model import Outcome
from undrift.recipe import EmbedderOpening, Recipe, SyncOpening, means_this_machine
from undrift.scan.options import CheckOptions
from undrift.scan.page import PageCheck, PageResult, Rendering, nobody_asks
from undrift.sync import SyncOptions


@dataclass(frozen=True)
class Opening:
    """An opener that finds what it is told to find."""

    error: UndriftError | None = None
    here_only: Sequence[str] = ()

    def __call__(self) -> PageCheck:
        if self.error is not None:
            raise self.error
        opened.append(os.getpid())
        return Nobody()


class Nobody(PageCheck):
    """A check that finds nobody."""

    def __init__(self) -> None: ...

    def __call__(self, owners: Sequence[str], rendering: Rendering = nobody_asks) -> PageResult:
        return PageResult([], 0)


opened: list[int] = []

EMBEDDING = EmbedderOpening(model="hashing/16", dimension=16, open=HashingEmbedder)


@pytest.fixture(autouse=True)
def _nothing_is_open() -> None:
    opened.clear()
    worker._opened.clear()


@pytest.mark.parametrize(
    ("url", "is_here"),
    [
        ("sqlite:///app.db", True),
        ("sqlite:////srv/app.db", True),
        ("lancedb:///folder?table=vectors", True),
        ("qdrant+file:///folder/collection", True),
        ("postgresql:///app", True),
        ("postgresql://user:pass%40@localhost:5432/app", True),
        ("postgresql://user@127.0.0.1/app", True),
        ("postgresql://user@127.1.2.3/app", True),
        ("postgresql://user@[::1]:5432/app", True),
        ("postgresql://user@/app?host=/run/postgresql", True),
        ("postgresql://user@db1:5432,localhost:5433/app", True),
        ("redis://localhost:6379/0", True),
        ("postgresql://user:localhost@db.example.com/app", False),
        ("postgresql://user@10.0.0.7:5432/app", False),
        ("postgresql://user@[2001:db8::7]:5432/app", False),
        ("postgresql:///app?host=db.example.com", False),
        ("qdrant+http://qdrant:6333/collection", False),
        ("lancedb+s3://bucket/folder", False),
    ],
)
def test_an_address_that_means_another_database_elsewhere_is_told(url: str, is_here: bool) -> None:
    assert means_this_machine(url) == is_here


def test_a_process_opens_both_sides_once() -> None:
    given = order(Opening())
    for _ in range(3):
        assert check_here(given, ["1"]) == PageResult([], 0)
    assert len(opened) == 1


def test_another_release_is_refused_before_anything_is_opened() -> None:
    given = order(Opening())._replace(release="0.0.1", opener=b"whatever that one writes")
    refused = check_here(given, ["1"])
    assert isinstance(refused, ConfigError)
    assert "different releases" in refused.what
    assert "0.0.1" in refused.why
    assert opened == []


def test_a_file_or_localhost_is_opened_on_no_other_machine() -> None:
    given = order(Opening(here_only=["the source"]))
    assert given.host == socket.gethostname()
    assert check_here(given, ["1"]) == PageResult([], 0)
    worker._opened.clear()
    refused = check_here(given._replace(host="another.example.com"), ["1"])
    assert isinstance(refused, ConfigError)
    assert "another one" in refused.why


def test_a_machine_that_cannot_reach_a_side_leaves_its_page_unknown_and_tries_again() -> None:
    outage = StoreUnavailable("The store is away", why="it is.", fix="wait")
    result = check_here(order(Opening(outage)), ["1", "2"])
    assert isinstance(result, PageResult)
    assert [status.outcome for status in result.statuses()] == [Outcome.UNKNOWN] * 2
    assert worker._opened == {}


def test_a_wrong_configuration_comes_back_as_it_is() -> None:
    wrong = ConfigError("The driver is missing", why="there.", fix="install it")
    found = check_here(order(Opening(wrong)), ["1"])
    assert isinstance(found, ConfigError)
    assert str(found) == str(wrong)


def test_sides_of_ones_own_are_for_this_process_alone() -> None:
    options = CheckOptions(engine=on_ray("127.0.0.1:6379"))
    with pytest.raises(ConfigError, match="by their URLs"):
        options.open_engine(Nobody(), None)


def test_a_sync_of_sides_of_ones_own_is_for_this_process_alone() -> None:
    with pytest.raises(ConfigError, match="by their URLs"):
        sync_on_ray("127.0.0.1:6379")(None, EMBEDDING, ignore)


def sync_opening(state_url: str) -> SyncOpening:
    """What a program at these addresses sends to a cluster."""
    recipe = Recipe(
        source_url="postgresql://db/app",
        store_url="qdrant+http://qdrant:6333/collection",
        state_url=state_url,
        mapping=SourceMapping(documents=DocumentTable(), entities=default_entities()),
        namespace="default",
        keep_text=True,
        fields=None,
        model=EMBEDDING.model,
    )
    return SyncOpening(recipe=recipe, options=SyncOptions())


@pytest.mark.parametrize(
    ("state_url", "here_only"),
    [("postgresql://db/app", ()), ("sqlite:///state.db", ("the state",))],
)
def test_a_sync_needs_the_state_on_every_machine(
    state_url: str, here_only: tuple[str, ...]
) -> None:
    assert sync_opening(state_url).here_only == here_only


def test_a_store_for_one_process_is_not_written_by_several(tmp_path: Path) -> None:
    """Before anything is opened: two engines on one folder are silently wrong."""
    pytest.importorskip("chromadb", reason="Chroma is not installed: undrift[chroma-embedded]")
    folder = f"chroma+file://{tmp_path / 'c'}/records?sole_process=yes"
    source = f"sqlite:///{tmp_path / 'app.db'}"
    with (
        Undrift(source=source, store=folder, embedder="hashing:16") as sides,
        pytest.raises(UnsupportedError, match="one process only"),
    ):
        next(sides.sync_all(engine=sync_on_ray("127.0.0.1:6379")))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seed", range(20))
def test_parts_of_an_embedding_budget_never_exceed_it_and_reach_its_last_text(seed: int) -> None:
    """Whatever the pages spend of their parts, in whatever order they end."""
    chance = Random(seed)
    limit, spent = chance.randrange(200), 0
    budget = TextBudget(limit)
    out: list[int] = []
    while budget.stop is None:
        if not budget.is_out and (not out or chance.random() < 0.6):
            part = budget.part(4)
            assert part
            out.append(part)
            assert spent + sum(out) <= limit
        else:
            part = out.pop(chance.randrange(len(out)))
            used = chance.randint(0, part)
            spent += used
            budget.settle(part, used)
    assert spent == limit
    assert budget.stop.limit == limit


@pytest.mark.parametrize(
    ("each", "gpus", "room"),
    [
        (1, [4, 0, 2], 6),
        (2, [3, 3], 2),  # one of each machine is of no use
        (0.5, [1, 1], 4),
        (0.75, [1, 1, 1], 3),  # no embedder has parts of two
        (1, [], 0),
    ],
)
def test_embedders_fit_as_their_gpus_are_on_one_machine_each(
    each: float, gpus: Sequence[int], room: int
) -> None:
    assert room_for(each, gpus) == room


def test_without_a_budget_nothing_is_counted() -> None:
    budget = TextBudget(None)
    assert budget.part(4) is None
    budget.settle(None, 1_000)
    assert not budget.is_out
    assert budget.stop is None


def test_without_ray_it_is_said_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'undrift\[ray\]'"):
        Cluster("127.0.0.1:6379")


with_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed: undrift[ray]"
)


@with_ray
@pytest.mark.parametrize(
    "address", ["ray://head:10001", "head", "http://head:8265", "head:0", "head:99999", "a b:1"]
)
def test_what_is_no_address_of_a_head_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="like --ray-address head:6379"):
        Cluster(address)


@with_ray
def test_a_head_that_does_not_answer_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it is named by the option or by Ray's variable; Ray itself takes a minute."""
    with socket.socket() as bound:  # nobody listens
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(UnknownStateError, match=address):
            Cluster(address)
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(UnknownStateError, match=address):
            Cluster()
