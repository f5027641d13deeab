"""Real text through the local model: synced, checked, searched, drifted and repaired.

`UNDRIFT_TEST_RESUMES` names a folder of JSON Resume files that nobody here wrote; without it the
demo's profiles serve.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path

import pytest

from support.layouts import Document
from support.sides import Identity, World, drift_of, sqlite_world
from undrift import EntityId, Undrift
from undrift.embedders.hashing import HashingEmbedder
from undrift.embedders.local import LocalEmbedder
from undrift.ports import Embedder, Purpose, Vectors

IMPORTER = Path(__file__).parents[2] / "examples" / "import_json_resume.py"
MAX_OWNERS = 14  # some 150 texts: two seconds of the model's time, six on a busy machine


class CountingLocal(LocalEmbedder):
    """The local model, which remembers every text it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def embed(self, texts: Sequence[str], purpose: Purpose = "document") -> Vectors:
        """Embed *texts*."""
        if purpose == "document":
            self.texts.extend(texts)
        return super().embed(texts, purpose)


def demo_profiles() -> dict[str, Document]:
    """The demo's profiles, by owner."""
    profiles = json.loads(files("undrift.demo").joinpath("profiles.json").read_text("utf-8"))
    return {str(row["user_id"]): row["filtered_data"] for row in profiles}


@pytest.fixture(scope="module")
def local() -> CountingLocal:
    """The model, loaded once."""
    return CountingLocal()


@pytest.fixture(scope="module")
def synced_folder(tmp_path_factory: pytest.TempPathFactory, local: CountingLocal) -> Path:
    """The files of a world of real text, in sync."""
    folder = tmp_path_factory.mktemp("resumes")
    with sqlite_world(folder) as world:
        if resumes := os.environ.get("UNDRIFT_TEST_RESUMES"):
            command = [sys.executable, str(IMPORTER), resumes, "--database-url", world.source_url]
            subprocess.run(command, check=True, capture_output=True)
            world.source.run("DELETE FROM profiles WHERE user_id > :last", last=MAX_OWNERS)
        else:
            world.put_all(dict(list(demo_profiles().items())[:MAX_OWNERS]))
        local.texts.clear()
        reports = list(world.open(embedder=local).sync_all())
    assert reports
    assert all(report.is_in_sync and report.verified for report in reports)
    assert sum(report.written for report in reports) >= len(local.texts) > 0
    return folder


@pytest.fixture
def world(synced_folder: Path, tmp_path: Path) -> Iterator[World]:
    """A copy of it, this test's own."""
    shutil.copytree(synced_folder, tmp_path / "copy")
    with sqlite_world(tmp_path / "copy", create=False) as copy:
        yield copy


@pytest.fixture
def sides(world: World, local: CountingLocal) -> Undrift:
    """An `Undrift` over it, with the local model."""
    local.texts.clear()
    return world.open(embedder=local)


def test_real_text_is_in_sync_after_a_sync_and_costs_nothing_again(
    world: World, sides: Undrift, local: CountingLocal
) -> None:
    """Every owner, every kind, nothing left out; the second sync does nothing."""
    before = world.store.records()

    statuses = list(sides.check_all())
    reports = list(sides.sync_all())

    assert all(status.is_in_sync for status in statuses)
    for status in statuses:
        assert sum(status.source.values()) == sum(status.store.values()) + status.without_text
    assert all(report.skipped for report in reports)
    assert local.texts == []
    assert world.store.records() == before


def test_drift_in_real_text_is_found_and_repaired_at_its_own_cost(
    world: World, sides: Undrift, local: CountingLocal
) -> None:
    """Records lost, tampered with and of another model; texts edited; an owner removed."""
    identities = world.store.identities()
    owners = sorted({identity.owner_id for identity in identities})
    expected, to_embed = plant(world, owners, identities)

    found = {s.owner_id: drift for s in sides.check_all() if (drift := drift_of(s))}
    reports = {report.owner_id: report for report in sides.sync_all()}

    assert found == expected
    assert all(report.is_in_sync for report in reports.values())
    assert len(local.texts) == len(to_embed)
    assert all(status.is_in_sync for status in sides.check_all())
    after = world.store.records()
    edited = [row for row in after.values() if row["owner_id"] == owners[2]]
    assert sum(row["text"].endswith("Retired since.") for row in edited) == len(
        expected[owners[2]]["changed"]
    )


def plant(
    world: World, owners: list[str], identities: dict[Identity, str]
) -> tuple[dict[str, dict[str, set[str]]], set[str]]:
    """Plant drift by SQL; return what is to be found, and what is to be embedded."""
    keys = {owner: [i.key for i in identities if i.owner_id == owner] for owner in owners}
    lost, tampered, edited, foreign, orphan = owners[:5]
    world.store.delete(identities[Identity(lost, keys[lost][0])])
    world.store.set(identities[Identity(tampered, keys[tampered][0])], fingerprint="0" * 32)
    world.store.set(identities[Identity(foreign, keys[foreign][-1])], model="local/other")
    (row,) = world.source.rows(
        "SELECT filtered_data FROM profiles WHERE user_id = :owner", owner=int(edited)
    )
    document = json.loads(row["filtered_data"])
    for experience in document["experiences"]:
        experience["description"] = f"{experience.get('description', '')} Retired since."
    world.put(edited, document)
    world.remove_owners([orphan])
    changed = {key for key in keys[edited] if key.kind == "experience"}
    return {
        lost: {"missing": {keys[lost][0]}},
        tampered: {"changed": {keys[tampered][0]}},
        edited: {"changed": set(changed)},
        foreign: {"wrong_model": {keys[foreign][-1]}},
        orphan: {"stale": set(keys[orphan])},
    }, {lost, foreign, *changed}


def owners_whose_first_hit_is_an_education(sides: Undrift) -> tuple[int, int]:
    """How many, and of how many: the query names none of their schools, subjects or degrees."""
    found = asked = 0
    for status in sides.check_all():
        if status.source.get("education"):
            asked += 1
            hits = sides.search(status.owner_id, "academic qualification", limit=3).hits
            found += hits[0].key.kind == "education"
    return found, asked


def test_search_by_meaning_finds_what_words_do_not(world: World, sides: Undrift) -> None:
    """Degrees are found by what they are; the control, which counts words, finds fewer."""
    found, asked = owners_whose_first_hit_is_an_education(sides)

    by_words = world.open(embedder=HashingEmbedder(384))
    assert all(report.is_in_sync for report in by_words.sync_all(force=True))
    control, _ = owners_whose_first_hit_is_an_education(by_words)

    assert asked > 0
    assert found >= asked * 0.6
    assert control < found


PARAPHRASES = [
    ("101", "shoppers wanting a return of money", "project:p_2"),
    ("102", "helping sick people to breathe by themselves again", "project:p_1"),
    ("102", "letting the sick sleep", "project:p_2"),
    ("105", "fish caught by accident and put overboard alive", "project:p_2"),
]


@pytest.fixture(scope="module")
def demo_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Three of the demo's owners."""
    profiles = demo_profiles()
    with sqlite_world(tmp_path_factory.mktemp("demo")) as demo:
        demo.put_all({owner: profiles[owner] for owner in ("101", "102", "105")})
        yield demo


def first_hits(world: World, embedder: Embedder) -> list[tuple[EntityId, str]]:
    """Key and text of the first hit of each paraphrase."""
    sides = world.open(embedder=embedder)
    assert all(report.is_in_sync for report in sides.sync_all(force=True))
    hits = [sides.search(owner, query).hits[0] for owner, query, _ in PARAPHRASES]
    return [(hit.key, hit.text) for hit in hits]


def words(text: str) -> set[str]:
    """Its words of more than three letters."""
    return {word for word in re.findall(r"\w+", text.lower()) if len(word) > 3}


def test_paraphrase_without_a_common_word_finds_its_entity(
    demo_world: World, local: CountingLocal
) -> None:
    """The local model finds all of them first; the control, which counts words, does not."""
    expected = [key for _, _, key in PARAPHRASES]

    found = first_hits(demo_world, local)
    control = first_hits(demo_world, HashingEmbedder(384))

    assert [key for key, _ in found] == expected
    for (_, query, _), (_, text) in zip(PARAPHRASES, found, strict=True):
        assert words(query).isdisjoint(words(text))
    assert [key for key, _ in control] != expected
