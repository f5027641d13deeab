"""Pages of documentation, ready to be run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from itertools import count
from pathlib import Path

import pytest

from support.cli import Shell, profile_shell
from support.doc_pages import Page
from support.doc_runner import Runner
from undrift.embedders import local


@pytest.fixture(scope="module", autouse=True)
def _model_is_loaded_once() -> Iterator[None]:
    """A page's commands run in one process, and each would load the same weights anew."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "_open_session", cache(local._open_session))
        yield


@pytest.fixture
def runner_of(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[Page], Runner]:
    """A function that returns a page's runner; the server is started for pages that need it."""
    numbers = count(1)

    def new_folder() -> Path:
        folder = tmp_path / str(next(numbers)) / "app"
        folder.mkdir(parents=True)
        return folder

    def runner(page: Page) -> Runner:
        return Runner(page, new_folder, lambda: request.getfixturevalue("postgres_server"))

    return runner


@pytest.fixture
def shell(
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
