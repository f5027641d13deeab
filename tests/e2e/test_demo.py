"""The demo: its files, its story with both embedders, and that it notices when it goes wrong."""

from __future__ import annotations

import json
import os
import re
import shlex
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from undrift.api import Undrift
from undrift.demo import database, healing, story
from undrift.demo.database import Planted
from undrift.demo.story import Question
from undrift.errors import ConfigError
from undrift.model import SyncReport, SyncStatus

MOST_SECONDS = 60
UNDRIFT = Path(sys.executable).with_name("undrift")


def words(text: str) -> set[str]:
    """The words of *text*, without a plural's s."""
    return {word.removesuffix("s") or word for word in re.findall(r"[^\W\d_]+", text.lower())}


# Words that carry no meaning of their own.
FUNCTION_WORDS = words("a an and at for from in of on or s the their to who with")


@dataclass(frozen=True)
class Told:
    """A run that ended."""

    folder: Path
    exit_code: int
    text: str
    seconds: float

    @property
    def commands(self) -> list[str]:
        return re.findall(r"^\$ (undrift .*)$", self.text, re.MULTILINE)


def tell(folder: Path, embedder: str = "hashing") -> Told:
    lines: list[str] = []
    started = time.perf_counter()
    exit_code = story.run(folder, write=lines.append, embedder=embedder)
    return Told(folder, exit_code, "".join(lines), time.perf_counter() - started)


@pytest.fixture(scope="module")
def semantic(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """The demo as `make demo` runs it, once."""
    return tell(tmp_path_factory.mktemp("demo") / "undrift-demo", story.SEMANTIC)


@pytest.fixture(scope="module")
def hashed(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """The demo with the embedder that needs nothing installed, once."""
    return tell(tmp_path_factory.mktemp("demo") / "undrift-demo")


# --- the story ----------------------------------------------------------------------------------


def test_demo_ends_well_and_in_time_with_real_embeddings(semantic: Told) -> None:
    assert semantic.exit_code == 0, semantic.text
    assert semantic.seconds < MOST_SECONDS
    assert "❌" not in semantic.text


def test_demo_ends_well_without_the_model_and_says_that_it_understands_nothing(
    hashed: Told,
) -> None:
    assert hashed.exit_code == 0, hashed.text
    assert "not semantic" in hashed.text


def test_profiles_are_many_and_all_of_them_are_in_the_database_but_the_deleted(
    hashed: Told,
) -> None:
    profiles = {profile.user_id for profile in database.load_profiles()}
    assert len(profiles) >= 30
    assert user_ids(hashed.folder) == profiles - {int(database.PROFILE_DELETED.owner_id)}


def test_repair_pays_for_the_difference_only(semantic: Told) -> None:
    found = re.search(r"(\d+) texts embedded in .* would embed (\d+)", semantic.text)
    assert found is not None
    repaired, anew = map(int, found.groups())
    assert 0 < repaired < anew / 4


def test_gone_experience_is_withheld_before_the_repair(semantic: Told) -> None:
    (gone,) = database.EXPERIENCE_DELETED.ids
    shown = [line for line in semantic.text.splitlines() if gone in line and " 0." in line]
    assert len(shown) == 1  # while it was still in the database
    assert f"withheld: {gone}" in semantic.text


@pytest.mark.parametrize(
    "question",
    [story.MONEY_BACK, story.REFUGEES, story.PRACTICES, story.NIGHT_SKY, story.MOTH],
    ids=lambda question: question.query,
)
def test_query_shares_no_content_word_with_what_it_finds(question: Question) -> None:
    query = words(question.query) - FUNCTION_WORDS
    assert query
    assert not query & words(text_found_by(question))


def test_tool_that_is_handed_a_dead_id_heals_and_succeeds_when_called_again(
    semantic: Told, hashed: Told
) -> None:
    for told in (semantic, hashed):
        assert "ToolRetry(code='stale_reference', healed=True," in told.text
        assert re.search(r"ToolDone\(key='project:p_\w+', vector='written'\)", told.text)
        with closing(sqlite3.connect(told.folder / "app.db")) as source:
            ((raw,),) = source.execute("SELECT filtered_data FROM profiles WHERE user_id = 105")
        healed = json.loads(raw)["experiences"][0]
        assert healed["id"] == "exp_2019a"
        assert healed["projects"][-1]["title"] == healing.PROJECT["title"]
    assert not words(healing.QUERY) - FUNCTION_WORDS & words(" ".join(healing.PROJECT.values()))


def test_demo_in_a_test_environment_heals_nothing_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNDRIFT_ENV", "test")
    told = tell(tmp_path / "demo")
    assert told.exit_code == 0, told.text
    assert "nothing heals by itself here" in told.text


def test_files_are_left_and_in_sync(semantic: Told) -> None:
    with opened(semantic.folder, story.SEMANTIC) as undrift:
        statuses = list(undrift.check_all())
    assert all(status.is_in_sync for status in statuses)
    assert sorted(path.name for path in semantic.folder.iterdir()) == [
        ".undrift",
        "app.db",
        "undrift-demo.txt",
    ]


def test_results_are_told_by_the_given_renderers(tmp_path: Path) -> None:
    lines: list[str] = []

    def check(statuses: Sequence[SyncStatus]) -> str:
        return f"<checked {len(statuses)}>\n"

    def sync(reports: Sequence[SyncReport]) -> str:
        return f"<synced {len(reports)}>"

    story.run(
        tmp_path / "demo",
        write=lines.append,
        render_check=check,
        render_sync=sync,
        embedder="hashing",
    )
    text = "".join(lines)
    everybody = len(database.load_profiles())
    assert re.findall(r"^<.*>$", text, re.MULTILINE) == [
        f"<synced {everybody - database.IMPORTED}>",
        "<checked 2>",
        f"<synced {everybody}>",
        f"<checked {everybody - 1}>",
    ]
    assert text.endswith("\n")


def test_every_command_that_the_story_shows_runs_in_the_folder(hashed: Told) -> None:
    variables = exported(hashed.text)
    assert hashed.commands
    for command in dict.fromkeys(hashed.commands):
        done = undrift(command, hashed.folder, variables)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


def test_playing_as_told_at_the_end_shows_drift_and_repairs_it(tmp_path: Path) -> None:
    told = tell(tmp_path / "demo")
    (statement,) = re.findall(r'sqlite3 app\.db "(.*)"', told.text)
    with closing(sqlite3.connect(told.folder / "app.db")) as source, source:
        source.execute(statement)
    played = re.findall(r"^  (undrift .*?)\s+# (?:see|repair) it$", told.text, re.MULTILINE)
    codes = [undrift(command, told.folder, exported(told.text)).returncode for command in played]
    assert codes == [1, 0]


# --- the folder ---------------------------------------------------------------------------------


def test_second_run_starts_afresh_and_keeps_what_is_not_the_demos(tmp_path: Path) -> None:
    first = tell(tmp_path / "demo")
    (first.folder / "notes.txt").write_text("mine")
    (first.folder / ".undrift" / "other.db").write_text("mine too")
    again = tell(first.folder)
    assert again.exit_code == 0, again.text
    assert "An earlier run's files" in again.text
    assert (first.folder / "notes.txt").read_text() == "mine"
    assert (first.folder / ".undrift" / "other.db").read_text() == "mine too"


def test_empty_folder_is_used(tmp_path: Path) -> None:
    assert tell(tmp_path).exit_code == 0


def foreign_database(folder: Path) -> None:
    (folder / "app.db").write_text("somebody's")


def foreign_marker(folder: Path) -> None:
    foreign_database(folder)
    (folder / database.MARKER_FILE).write_text("shopping list")


def linked_vectors(folder: Path) -> None:
    elsewhere = folder.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "undrift.db").write_text("somebody's")
    database.prepare_folder(folder)
    (folder / ".undrift").rmdir()
    (folder / ".undrift").symlink_to(elsewhere)


@pytest.mark.parametrize("make", [foreign_database, foreign_marker, linked_vectors])
def test_foreign_folder_is_refused_and_left_as_it_was(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    folder = tmp_path / "demo"
    folder.mkdir()
    make(folder)
    before = contents(tmp_path)
    with pytest.raises(ConfigError) as refused:
        tell(folder)
    assert "--folder" in refused.value.fix
    assert contents(tmp_path) == before


def test_file_in_the_folders_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "demo").write_text("mine")
    with pytest.raises(ConfigError, match="not the demo's folder"):
        tell(tmp_path / "demo")
    with pytest.raises(ConfigError, match="cannot be used"):
        tell(tmp_path / "demo" / "inside")


def test_missing_model_is_an_error_that_names_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError) as missing:
        tell(tmp_path / "demo", story.SEMANTIC)
    assert "pip install 'undrift[local]'" in missing.value.fix


# --- it judges itself ---------------------------------------------------------------------------


def test_drift_that_nobody_planted_fails_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = database.drift_store

    def secretive(folder: Path) -> list[Planted]:
        return [one for one in real(folder) if "project:ghost" not in one.ids]

    monkeypatch.setattr(database, "drift_store", secretive)
    told = tell(tmp_path / "demo")
    assert told.exit_code == 1
    assert "never planted, yet found: user 113: stale project:ghost" in told.text


def test_drift_that_is_not_found_fails_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = database.drift_source

    def boastful(folder: Path) -> list[Planted]:
        return [*real(folder), replace(database.RETITLED, owner_id="108", needs_embedding=False)]

    monkeypatch.setattr(database, "drift_source", boastful)
    told = tell(tmp_path / "demo")
    assert told.exit_code == 1
    assert "❌ not found: A job title is corrected" in told.text


def test_repair_at_another_price_fails_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = database.drift_source

    def mistaken(folder: Path) -> list[Planted]:
        return [replace(one, needs_embedding=False) for one in real(folder)]

    monkeypatch.setattr(database, "drift_source", mistaken)
    told = tell(tmp_path / "demo")
    assert told.exit_code == 1
    assert "were planned" in told.text


# --- helpers ------------------------------------------------------------------------------------


def opened(folder: Path, embedder: str) -> Undrift:
    return Undrift(
        source=f"sqlite:///{folder / 'app.db'}",
        store=f"sqlite:///{folder / '.undrift' / 'undrift.db'}",
        embedder=embedder,
    )


def user_ids(folder: Path) -> set[int]:
    with closing(sqlite3.connect(folder / "app.db")) as source:
        return {user_id for (user_id,) in source.execute("SELECT user_id FROM profiles")}


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


def text_found_by(question: Question) -> str:
    """Everything that is written in the element that *question* finds."""
    if question is story.NIGHT_SKY:
        return database.REWRITTEN.sql
    (profile,) = (p for p in database.load_profiles() if str(p.user_id) == question.owner_id)
    experiences = elements(profile.document, "experiences")
    candidates = {
        "experience": experiences,
        "project": [
            *elements(profile.document, "projects"),
            *(
                project
                for experience in experiences
                for project in elements(experience, "projects")
            ),
        ],
    }
    (element,) = (
        found for found in candidates[question.finds.kind] if found["id"] == question.finds.id
    )
    return json.dumps(
        {name: value for name, value in element.items() if name not in ("projects", "updates")},
        ensure_ascii=False,
    )


def elements(holder: Mapping[str, object], name: str) -> list[dict[str, object]]:
    found = holder.get(name, [])
    assert isinstance(found, list)
    return found


def exported(text: str) -> dict[str, str]:
    """The variables that the story tells one to export."""
    (line,) = set(re.findall(r"^  export (DATABASE_URL=.*)$", text, re.MULTILINE))
    return dict(pair.split("=", 1) for pair in line.split())


def undrift(
    command: str, folder: Path, variables: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [UNDRIFT, *shlex.split(command, comments=True)[1:]],
        cwd=folder,
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=MOST_SECONDS,
        check=False,
    )
