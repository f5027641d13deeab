"""Shells over the origin's table, on every backend."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from support.cli import Shell


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Shell]:
    """A SQLite source with an empty table, over the embedded store."""
    shell = Shell(tmp_path, monkeypatch, capsys, source_url="sqlite:///app.db")
    with closing(shell.source):
        shell.create_profiles()
        yield shell


@pytest.fixture
def postgres_shell(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    postgres_url: str,
) -> Iterator[Shell]:
    """A PostgreSQL source with an empty table, and pgvector in the same database."""
    shell = Shell(tmp_path, monkeypatch, capsys, source_url=postgres_url, store_url=postgres_url)
    with closing(shell.source):
        shell.create_profiles()
        yield shell


@pytest.fixture(params=["sqlite", "pgvector"])
def any_shell(request: pytest.FixtureRequest) -> Shell:
    """The one, then the other."""
    name = "shell" if request.param == "sqlite" else "postgres_shell"
    found: Shell = request.getfixturevalue(name)
    return found
