"""The example that turns a folder of JSON Resume files into `profiles` rows."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "import_json_resume.py"

GARDENER: dict[str, Any] = {
    "basics": {"name": "Sample persona", "summary": None},
    "work": [
        {
            "name": "Quince Hall",
            "position": "Head Gardener",
            "startDate": "2019-03",
            "endDate": None,
            "summary": "Looks after a walled garden.",
            "highlights": ["Rebuilt the glasshouse", "", "Trained four apprentices"],
        }
    ],
    "volunteer": [
        {"organization": "Seed Exchange", "position": "Treasurer", "startDate": "2021-01"}
    ],
    "projects": [
        {
            "name": "Pear archive",
            "description": "Forty old varieties on one wall.",
            "keywords": "grafting",
            "roles": ["Grafter", "Archivist"],
        }
    ],
    "education": [
        {"institution": "Moss College", "studyType": "Diploma", "area": "Horticulture"},
    ],
    "skills": [{"name": "Pruning", "level": "Master", "keywords": ["espalier"]}, "Grafting", None],
}
COBBLER: dict[str, Any] = {
    "work": [
        {"company": "Last & Welt", "position": "Cobbler", "startDate": "", "highlights": None}
    ],
    "volunteer": None,
    "projects": [{"name": " ", "highlights": []}],
    "skills": [{"name": "Welting"}],
}
FRESH: dict[str, Any] = {
    "name": "Sample persona",
    "meta": {"format": "FRESH@0.6.0"},
    "employment": {"history": [{"employer": "Elsewhere", "position": "Clerk"}]},
    "skills": {"sets": []},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one run of the script left: its exit code and what it printed."""

    code: int
    stdout: str
    stderr: str


def run_script(*arguments: str | Path, environment: dict[str, str] | None = None) -> Outcome:
    """Run the script in a process of its own, with nothing but *environment*."""
    finished = subprocess.run(
        [sys.executable, "-W", "error", str(SCRIPT), *map(str, arguments)],
        env={"PYTHONUTF8": "1", **(environment or {})},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    return Outcome(code=finished.returncode, stdout=finished.stdout, stderr=finished.stderr)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two JSON Resumes and three files that are none."""
    path = tmp_path / "resumes"
    path.mkdir()
    documents = {"1-fresh.json": FRESH, "2-gardener.json": GARDENER, "4-cobbler.json": COBBLER}
    for name, document in documents.items():
        (path / name).write_text(json.dumps(document), encoding="utf-8")
    (path / "3-broken.json").write_text('{"work": [', encoding="utf-8")
    (path / "5-list.json").write_text("[]", encoding="utf-8")
    (path / "notes.txt").write_text("not looked at", encoding="utf-8")
    return path


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A SQLite file that does not exist yet."""
    return tmp_path / "profiles.db"


@pytest.fixture
def import_into(database: Path) -> Callable[..., Outcome]:
    """The script, writing to *database*."""

    def run(*arguments: str | Path) -> Outcome:
        return run_script(*arguments, "--database-url", f"sqlite:///{database}")

    return run


def rows_in(database: Path) -> dict[int, dict[str, Any]]:
    """Return user id → document of every row."""
    with closing(sqlite3.connect(database)) as connection:
        rows = connection.execute("SELECT user_id, filtered_data FROM profiles").fetchall()
    return {owner: json.loads(document) for owner, document in rows}


def test_every_json_resume_becomes_one_row_in_file_name_order(
    folder: Path, database: Path, import_into: Callable[..., Outcome]
) -> None:
    """User ids count the imported files from 1, and the summary says how many there were."""
    outcome = import_into(folder)

    assert (outcome.code, outcome.stdout) == (0, "imported 2, skipped 3\n")
    companies = {
        owner: document["experiences"][0]["company"]
        for owner, document in rows_in(database).items()
    }
    assert companies == {1: "Quince Hall", 2: "Last & Welt"}


def test_a_json_resume_is_mapped_to_the_profile_layout(
    folder: Path, database: Path, import_into: Callable[..., Outcome]
) -> None:
    """Volunteering is an experience, highlights end the description, and no ids are minted."""
    import_into(folder)

    assert rows_in(database)[1] == {
        "experiences": [
            {
                "title": "Head Gardener",
                "company": "Quince Hall",
                "start": "2019-03",
                "description": "Looks after a walled garden.\n"
                "Rebuilt the glasshouse\n"
                "Trained four apprentices",
            },
            {"title": "Treasurer", "company": "Seed Exchange", "start": "2021-01"},
        ],
        "projects": [
            {
                "title": "Pear archive",
                "description": "Forty old varieties on one wall.",
                "technologies": ["grafting"],
                "role": "Grafter, Archivist",
            }
        ],
        "education": [{"school": "Moss College", "degree": "Diploma", "field": "Horticulture"}],
        "skills": [
            {"name": "Pruning", "level": "Master", "keywords": ["espalier"]},
            {"name": "Grafting"},
        ],
    }


def test_null_blank_and_absent_fields_leave_no_trace(
    folder: Path, database: Path, import_into: Callable[..., Outcome]
) -> None:
    """A null section is empty, a blank date is left out, and an all-blank entry is no entry."""
    import_into(folder)

    assert rows_in(database)[2] == {
        "experiences": [{"title": "Cobbler", "company": "Last & Welt"}],
        "projects": [],
        "education": [],
        "skills": [{"name": "Welting"}],
    }


def test_a_file_that_is_no_json_resume_is_skipped_with_its_name_and_the_reason(
    folder: Path, import_into: Callable[..., Outcome]
) -> None:
    """FRESH, broken JSON and a JSON list each get one line on stderr."""
    lines = import_into(folder).stderr.splitlines()

    assert len(lines) == 3
    assert lines[0] == "skipped 1-fresh.json: a FRESH resume, not a JSON Resume"
    assert lines[1].startswith("skipped 3-broken.json: not JSON (")
    assert lines[2] == "skipped 5-list.json: not a JSON object"


@pytest.mark.parametrize(
    "document",
    [
        pytest.param({"employment": {"history": []}, "skills": []}, id="employment"),
        pytest.param({"meta": {"format": "FRESH@0.1.0"}, "skills": []}, id="declared format"),
    ],
)
def test_fresh_is_recognised_by_either_of_its_marks(
    document: dict[str, Any], tmp_path: Path, import_into: Callable[..., Outcome]
) -> None:
    """A FRESH file is skipped if it has `employment` or declares its format."""
    (tmp_path / "only.json").write_text(json.dumps(document), encoding="utf-8")

    assert "a FRESH resume" in import_into(tmp_path).stderr


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b'{"name": "left-pad"}', "has none of the sections", id="other JSON"),
        pytest.param(b'{"work": "\xff"}', "not UTF-8 text", id="not UTF-8"),
        pytest.param(b"[" * 200_000, "not JSON", id="nested too deeply"),
    ],
)
def test_a_folder_without_any_json_resume_exits_with_1_and_creates_nothing(
    content: bytes,
    reason: str,
    tmp_path: Path,
    database: Path,
    import_into: Callable[..., Outcome],
) -> None:
    """Nothing to import is an answer of its own, and not even the database file is made."""
    (tmp_path / "only.json").write_bytes(content)

    outcome = import_into(tmp_path)

    assert (outcome.code, outcome.stdout) == (1, "imported 0, skipped 1\n")
    assert reason in outcome.stderr
    assert not database.exists()


def test_importing_twice_leaves_the_same_rows(
    folder: Path, database: Path, import_into: Callable[..., Outcome]
) -> None:
    """The second run upserts: same exit code, same output, same rows."""
    first = import_into(folder)
    rows = rows_in(database)

    assert import_into(folder) == first
    assert rows_in(database) == rows


def test_importing_again_brings_in_what_was_edited(
    folder: Path, database: Path, import_into: Callable[..., Outcome]
) -> None:
    """A row that is already there gets the file's new content."""
    import_into(folder)
    edited = COBBLER | {"skills": [{"name": "Resoling"}]}
    (folder / "4-cobbler.json").write_text(json.dumps(edited), encoding="utf-8")

    import_into(folder)

    assert rows_in(database)[2]["skills"] == [{"name": "Resoling"}]


def test_one_owner_gathers_the_entries_of_all_files(
    folder: Path, database: Path, import_into: Callable[..., Outcome]
) -> None:
    """With --one-owner there is one row, and it has every entry in file-name order."""
    outcome = import_into(folder, "--one-owner", "42")

    assert (outcome.code, outcome.stdout) == (0, "imported 2, skipped 3\n")
    rows = rows_in(database)
    assert list(rows) == [42]
    titles = [experience["title"] for experience in rows[42]["experiences"]]
    assert titles == ["Head Gardener", "Treasurer", "Cobbler"]


def test_characters_that_a_database_refuses_are_replaced(
    tmp_path: Path, database: Path, import_into: Callable[..., Outcome]
) -> None:
    """NUL and lone surrogates, which JSON can spell, become U+FFFD; a whole pair is kept."""
    (tmp_path / "only.json").write_text(
        r'{"skills": ["a\u0000b", "c\ud800d", "\ud83d\ude00"]}', encoding="utf-8"
    )

    import_into(tmp_path)

    skills = [skill["name"] for skill in rows_in(database)[1]["skills"]]
    assert skills == ["a\ufffdb", "c\ufffdd", "\U0001f600"]


def test_the_database_defaults_to_the_environment(folder: Path, database: Path) -> None:
    """Without --database-url the script writes to DATABASE_URL."""
    outcome = run_script(folder, environment={"DATABASE_URL": f"sqlite:///{database}"})

    assert outcome.code == 0
    assert len(rows_in(database)) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param([], "no database: set DATABASE_URL", id="no database"),
        pytest.param(["--database-url", "mysql://h/d"], "neither PostgreSQL nor", id="MySQL"),
        pytest.param(["--database-url", "postgres://u:s3cret@h:x/d"], "malformed", id="bad port"),
        pytest.param(
            ["--database-url", "sqlite:////no/such/dir/x.db"], "refused", id="no database folder"
        ),
        pytest.param(["--one-owner", "0"], "--one-owner", id="no user id"),
        pytest.param(["--unknown"], "--unknown", id="unknown option"),
    ],
)
def test_a_command_that_cannot_run_exits_with_2(
    arguments: list[str], message: str, folder: Path
) -> None:
    """The reason is on stderr without a traceback or a password, and stdout stays empty."""
    outcome = run_script(folder, *arguments)

    assert (outcome.code, outcome.stdout) == (2, "")
    assert message in outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert "s3cret" not in outcome.stderr


def test_a_folder_that_is_not_there_exits_with_2(
    tmp_path: Path, import_into: Callable[..., Outcome]
) -> None:
    """The message names the folder as it was given."""
    outcome = import_into(tmp_path / "elsewhere")

    assert (outcome.code, outcome.stdout) == (2, "")
    assert outcome.stderr == f"error: no such folder: {tmp_path / 'elsewhere'}\n"


def test_postgresql_gets_jsonb_and_takes_the_short_scheme(folder: Path, postgres_url: str) -> None:
    """With a postgres:// URL, two runs leave the two rows, as JSONB that SQL can look into."""
    url = postgres_url.replace("postgresql://", "postgres://", 1)

    codes = [run_script(folder, "--database-url", url).code for _ in range(2)]

    assert codes == [0, 0]
    with psycopg.connect(postgres_url) as connection:
        rows = connection.execute(
            "SELECT user_id, pg_typeof(filtered_data)::text, filtered_data #>> '{skills,0,name}'"
            " FROM profiles ORDER BY user_id"
        ).fetchall()
    assert rows == [(1, "jsonb", "Pruning"), (2, "jsonb", "Welting")]
