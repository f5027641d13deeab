"""What a caller may hand over as a profile, and what is refused before anything is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from undrift import ConfigError, Outcome, Undrift
from undrift.embedders.hashing import HashingEmbedder


def opened(folder: Path) -> Undrift:
    """An instance without a source."""
    return Undrift(store=f"sqlite:///{folder / 'vectors.db'}", embedder=HashingEmbedder(8))


@pytest.mark.parametrize("profile", [[], "{}", 5])
def test_profile_that_is_no_object_is_refused(tmp_path: Path, profile: object) -> None:
    """An empty list is not an empty profile: taking it for one would delete everything."""
    with opened(tmp_path) as sides:
        for call in (sides.check, sides.sync):
            with pytest.raises(ConfigError):
                call("1", profile=profile)  # type: ignore[arg-type]


def test_profile_nested_too_deeply_is_invalid_and_no_crash(tmp_path: Path) -> None:
    """Built by a program, since no parser would give it."""
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    profile = {"skills": [{"name": "SQL", "level": deep}]}
    with opened(tmp_path) as sides:
        assert sides.check("1", profile=profile).outcome is Outcome.UNKNOWN
        assert sides.sync("1", profile=profile).outcome is Outcome.UNKNOWN


def test_a_guarded_sync_takes_no_profile(tmp_path: Path) -> None:
    """The guard needs what the source holds; dropping it silently would delete without a limit."""
    with opened(tmp_path) as sides, pytest.raises(ConfigError, match="takes no profile="):
        sides.sync("1", {"skills": []}, is_guarded=True)
    assert list(tmp_path.iterdir()) == []
