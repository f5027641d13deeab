"""Shells over the origin's table, on every backend."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cli import Shell, profile_shell


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Shell]:
    """A SQLite source with an empty table, over the embedded store."""
    with profile_shell(tmp_path, monkeypatch, capsys, source_url="sqlite:///app.db") as shell:
        yield shell


@pytest.fixture
def postgres_shell(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    postgres_url: str,
) -> Iterator[Shell]:
    """A PostgreSQL source with an empty table, and pgvector in the same database."""
    with profile_shell(
        tmp_path, monkeypatch, capsys, source_url=postgres_url, store_url=postgres_url
    ) as shell:
        yield shell


@pytest.fixture(params=["sqlite", "pgvector"])
def any_shell(request: pytest.FixtureRequest) -> Shell:
    """The one, then the other."""
    name = "shell" if request.param == "sqlite" else "postgres_shell"
    found: Shell = request.getfixturevalue(name)
    return found
