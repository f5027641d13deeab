"""Statuses that are written down and read again."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from undrift.errors import (
    InvalidDocument,
    OwnerNotFound,
    SourceUnavailable,
    UndriftError,
)
from undrift.model import EntityId, Outcome, Read, SyncStatus
from undrift.scan.statuses import dumped, loaded

FULL = SyncStatus(
    owner_id='o"1\n\N{SNOWMAN}',
    outcome=Outcome.DRIFT,
    source={"skill": 3},
    store={"skill": 2, "project": 1},
    missing_ids=(EntityId("skill:a"), EntityId("skill:b:c")),
    stale_ids=(EntityId("project:p"),),
    changed_ids=(EntityId("skill:d"),),
    wrong_model_ids=(EntityId("skill:e"),),
    duplicate_ids=(EntityId("skill:f"),),
    unknown_ids=(EntityId("skill:g"),),
    unstamped=4,
    orphan_owner=True,
    without_text=5,
    unmanaged=6,
    read=Read.DIGESTS,
    against="profile",
    notes=("store not created yet",),
)


def test_status_survives_being_written_down() -> None:
    """All of it; a field that is added to it must be added here too."""
    assert loaded(dumped(FULL)) == FULL
    plain = SyncStatus(owner_id="1", outcome=Outcome.IN_SYNC)
    differing = [
        each.name
        for each in fields(SyncStatus)
        if getattr(FULL, each.name) == getattr(plain, each.name)
    ]
    assert differing == ["error"]
    assert all(isinstance(key, EntityId) for key in loaded(dumped(FULL)).missing_ids)


@pytest.mark.parametrize(
    "error",
    [
        SourceUnavailable("The source is gone", why="nothing answers.", fix="start it"),
        InvalidDocument("ann", why="it is NULL.", fix="store an object"),
        OwnerNotFound("ann"),
    ],
)
def test_error_comes_back_as_what_it_was(error: UndriftError) -> None:
    """Its class decides on the exit code, its parts on what a person reads."""
    status = replace(FULL, outcome=Outcome.UNKNOWN, error=error)
    found = loaded(dumped(status)).error
    assert found is not None
    assert (type(found), found.what, found.why, found.fix) == (
        type(error), error.what, error.why, error.fix,
    )  # fmt: skip
    assert replace(loaded(dumped(status)), error=None) == replace(status, error=None)
