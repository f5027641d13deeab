"""Lines for people: what is always there, and what only when it says something."""

from __future__ import annotations

import pytest

from undrift.cli.render_text import (
    check_block,
    check_summary,
    error_lines,
    label,
    search_block,
    sync_ending,
    sync_summary,
)
from undrift.cli.streams import Line
from undrift.cli.tally import Tally
from undrift.errors import ConfigError, WriteFailed
from undrift.model import EntityId, Hit, Outcome, SearchResult, SyncReport, SyncStatus


def texts(lines: list[Line]) -> list[str]:
    return [line.text for line in lines]


def ids(*keys: str) -> tuple[EntityId, ...]:
    return tuple(map(EntityId, keys))


def test_empty_user_still_has_the_experiences_and_the_three_verdicts() -> None:
    """The five lines of the origin, whatever there is."""
    status = SyncStatus(owner_id="1", outcome=Outcome.IN_SYNC)
    assert texts(check_block(status)) == [
        "🔍 Vector sync check for user 1:",
        "  - Profile experiences: 0",
        "  - Vector experiences: 0",
        "  - Missing from vectors: 0",
        "  - Stale in vectors: 0",
        "  - In sync: true",
    ]


def test_every_further_line_appears_once_it_is_not_zero() -> None:
    """In a fixed order, before the verdict."""
    status = SyncStatus(
        owner_id="1",
        outcome=Outcome.DRIFT,
        changed_ids=ids("experience:a"),
        wrong_model_ids=ids("experience:a", "experience:b"),
        duplicate_ids=ids("experience:c"),
        without_text=4,
        unmanaged=5,
        orphan_owner=True,
        notes=("store not created yet",),
    )
    assert texts(check_block(status))[5:] == [
        "  - Content changed: 1",
        "  - Wrong model: 2",
        "  - Duplicates: 1",
        "  - Without text: 4",
        "  - Unmanaged: 5",
        "  - Orphan owner: true",
        "  - Note: store not created yet; what other programs stored is not read",
        "  - In sync: false",
    ]


def test_entity_that_differs_in_several_ways_is_named_once() -> None:
    """With all its reasons."""
    status = SyncStatus(
        owner_id="1",
        outcome=Outcome.DRIFT,
        changed_ids=ids("experience:a"),
        wrong_model_ids=ids("experience:a"),
        duplicate_ids=ids("experience:b"),
    )
    assert texts(check_block(status, with_ids=True))[-2:] == [
        "    * experience:a (changed, wrong model)",
        "    * experience:b (duplicate)",
    ]


@pytest.mark.parametrize(
    ("outcome", "verdict"),
    [
        (Outcome.IN_SYNC, "true"),
        (Outcome.DRIFT, "false"),
        (Outcome.IN_MOTION, "in motion"),
        (Outcome.UNKNOWN, "unknown"),
    ],
)
def test_verdict_says_true_false_in_motion_or_unknown(outcome: Outcome, verdict: str) -> None:
    """Unknown is neither true nor false."""
    error = ConfigError("x", why="y", fix="z") if outcome is Outcome.UNKNOWN else None
    status = SyncStatus(owner_id="1", outcome=outcome, error=error)
    assert texts(check_block(status))[-1] == f"  - In sync: {verdict}"


def test_unknown_shows_no_counts() -> None:
    """A zero that nobody counted would be a lie."""
    status = SyncStatus.unknown("1", WriteFailed("The disk is gone", why="y", fix="z"))
    assert texts(check_block(status))[1:] == [
        "  - Could not look: The disk is gone",
        "  - In sync: unknown",
    ]


@pytest.mark.parametrize(
    ("kind", "plural"),
    [
        ("project_update", "project updates"),
        ("education", "education"),
        ("side_gig", "side gigs"),
    ],
)
def test_kinds_are_labelled_in_the_plural(kind: str, plural: str) -> None:
    """Any other kind with spaces and an s."""
    assert label(kind) == plural


def test_kinds_of_ones_own_follow_the_known_ones() -> None:
    """In alphabetical order."""
    status = SyncStatus(
        owner_id="1",
        outcome=Outcome.DRIFT,
        source={"zeal": 1, "skill": 1},
        store={"award": 2, "project": 0},
    )
    profile_lines = [line for line in texts(check_block(status)) if "Profile" in line]
    assert profile_lines == [
        "  - Profile experiences: 0",
        "  - Profile skills: 1",
        "  - Profile awards: 0",
        "  - Profile zeals: 1",
    ]


def test_failed_verification_prints_the_advice() -> None:
    """As the origin did: what to do next stands in the answer."""
    error = WriteFailed("The sync of user 1 is not verified", why="w", fix="run it with --force")
    report = SyncReport(
        owner_id="1",
        outcome=Outcome.FAILED,
        before=SyncStatus(owner_id="1", outcome=Outcome.DRIFT),
        written=2,
        error=error,
    )
    assert texts(sync_ending(report)) == [
        "❌ Vector database sync failed for user 1",
        "  - Vectors written: 2",
        "  - The sync of user 1 is not verified",
        "  - Fix: run it with --force",
    ]


def test_ending_with_ids_names_what_was_repaired() -> None:
    """``sync --diff`` shows what differed before."""
    report = SyncReport(
        owner_id="1",
        outcome=Outcome.IN_SYNC,
        before=SyncStatus(owner_id="1", outcome=Outcome.DRIFT, missing_ids=ids("experience:a")),
    )
    assert texts(sync_ending(report, with_ids=True)) == [
        "    + experience:a",
        "✅ Vector database sync completed for user 1",
        "🎉 Vector database sync verification successful",
    ]


def test_summaries_count_everybody_and_name_the_rare_outcomes() -> None:
    """Each owner in exactly one line of a check's sums but the first."""
    tally = Tally()
    for outcome in Outcome:
        tally.add(SyncStatus(owner_id="1", outcome=outcome))
    assert texts(check_summary(tally))[1:] == [
        "  - Users checked: 6",
        "  - Users in sync: 1",
        "  - Users out of sync: 2",
        "  - Users in motion: 1",
        "  - Users unknown: 1",
        "  - Users not found: 1",
    ]
    assert texts(sync_summary(tally))[1:] == [
        "  - Users synced: 1",
        "  - Users failed: 1",
        "  - Users out of sync: 1",
        "  - Users in motion: 1",
        "  - Users unknown: 1",
        "  - Users not found: 1",
    ]


def test_long_text_of_a_hit_is_one_short_line() -> None:
    """Line ends and length are the profile's, not the answer's."""
    hit = Hit(
        owner_id="1",
        key=EntityId("skill:x"),
        score=0.5,
        text="one\ntwo " + "three " * 100,
        metadata={},
    )
    result = SearchResult(owner_id="1", query="q", hits=(hit,))
    heading, rank, text = texts(search_block(result))
    assert (heading, rank) == ("🔍 1 result for user 1:", "  1. skill:x (0.500)")
    assert text.startswith("     one two three")
    assert text.endswith("…")
    assert len(text) == 205


def test_error_has_its_three_parts_in_three_lines() -> None:
    """What, why, fix."""
    assert texts(error_lines(ConfigError("No x", why="there is none.", fix="set x"))) == [
        "❌ Error: No x",
        "   Why: there is none.",
        "   Fix: set x",
    ]
