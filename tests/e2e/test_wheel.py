"""The wheel as a stranger meets it: an empty environment, an empty folder, nothing of development.

Needs the package registry. The packages are of the versions in `requirements/dev.txt`, so that a
release of somebody else's cannot turn an unrelated change red.
"""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

pytestmark = pytest.mark.wheel

CHECKOUT = Path(__file__).resolve().parents[2]
INSTALL_SECONDS = 600
RUN_SECONDS = 180


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the checkout."""
    folder = tmp_path_factory.mktemp("dist")
    run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], CHECKOUT)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def pinned_versions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A constraints file with the versions of `requirements/dev.txt`, without the hashes.

    With hashes pip would ask for one of the wheel under test as well.
    """
    lines = (CHECKOUT / "requirements" / "dev.txt").read_text().splitlines()
    pins = [line.removesuffix("\\").rstrip() for line in lines if re.match(r"[a-z0-9]", line)]
    path = tmp_path_factory.mktemp("pins") / "constraints.txt"
    path.write_text("\n".join(pins) + "\n")
    return path


class Environment:
    """A virtual environment that holds only what was installed from the wheel."""

    def __init__(self, folder: Path, requirement: str, pinned_versions: Path) -> None:
        self.bin = folder / "venv" / "bin"
        run([sys.executable, "-m", "venv", folder / "venv"], folder)
        install: list[str | Path] = [self.bin / "pip", "install", "--quiet", "--no-compile"]
        run([*install, "-c", pinned_versions, requirement], folder, seconds=INSTALL_SECONDS)

    def run(
        self, *command: str, folder: Path, exit_code: int = 0, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run an installed command in *folder* and require its exit code."""
        return run([self.bin / command[0], *command[1:]], folder, exit_code, variables=variables)


def run(
    command: Sequence[str | Path],
    folder: Path,
    exit_code: int = 0,
    *,
    seconds: float = RUN_SECONDS,
    variables: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run *command* as from a fresh shell, fail with its whole output on another exit code."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "VIRTUAL_ENV", "COV"))
    }
    done = subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env={**inherited, **(variables or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=seconds,
        check=False,
    )
    assert done.returncode == exit_code, (
        f"{command} ended with {done.returncode}, not {exit_code}\n{done.stdout}\n{done.stderr}"
    )
    return done


@pytest.fixture
def empty_folder(tmp_path: Path) -> Path:
    """An empty working directory."""
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def local_environment(
    wheel: Path, pinned_versions: Path, tmp_path_factory: pytest.TempPathFactory
) -> Environment:
    """The wheel with the extra `local`."""
    folder = tmp_path_factory.mktemp("local")
    return Environment(folder, f"{wheel}[local]", pinned_versions)


@pytest.fixture(scope="module")
def bare_environment(
    wheel: Path, pinned_versions: Path, tmp_path_factory: pytest.TempPathFactory
) -> Environment:
    """The wheel without extras."""
    return Environment(tmp_path_factory.mktemp("bare"), str(wheel), pinned_versions)


def test_wheel_holds_the_package_its_data_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {"undrift/py.typed", "undrift/demo/profiles.json"} <= set(names)
    (metadata,) = {name.split("/")[0] for name in names} - {"undrift"}
    assert metadata.endswith(".dist-info")
    assert f"{metadata}/licenses/LICENSE" in names


def test_demo_runs_from_the_wheel_with_the_local_model(
    local_environment: Environment, empty_folder: Path
) -> None:
    local_environment.run("undrift", "demo", folder=empty_folder)


@pytest.mark.parametrize(
    ("command", "known_word"), [("undrift", "check"), ("db-sync-vector", "--force")]
)
def test_help_needs_no_extra(
    bare_environment: Environment, empty_folder: Path, command: str, known_word: str
) -> None:
    assert known_word in bare_environment.run(command, "--help", folder=empty_folder).stdout


def test_check_of_a_database_never_synced_finds_drift_without_extras(
    bare_environment: Environment, empty_folder: Path
) -> None:
    with sqlite3.connect(empty_folder / "app.db") as database:
        database.execute("CREATE TABLE profiles (user_id integer primary key, filtered_data text)")
        database.execute(
            """INSERT INTO profiles VALUES
            (1, '{"experiences": [{"id": "exp_1", "title": "Engineer", "company": "Acme"}]}')"""
        )
    database.close()
    checked = bare_environment.run(
        "undrift",
        "check",
        "--all",
        folder=empty_folder,
        exit_code=1,
        DATABASE_URL="sqlite:///app.db",
        UNDRIFT_EMBEDDER="hashing",
    )
    assert "Users out of sync: 1" in checked.stdout
    assert [path.name for path in empty_folder.iterdir()] == ["app.db"]
