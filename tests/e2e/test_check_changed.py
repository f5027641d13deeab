"""``undrift check --changed``: only who was changed since the last sync."""

from __future__ import annotations

import pytest

from support.cli import Shell, experiences
from undrift import Undrift

NOBODY = """\
📊 Summary:
  - Users checked: 0
  - Users in sync: 0
  - Users out of sync: 0
  - Read: users who were changed since their last sync
"""


@pytest.fixture
def watched(any_shell: Shell) -> Shell:
    """Three users in sync, and triggers whose marks a watch has taken."""
    for owner in (1, 2, 3):
        any_shell.put(owner, experiences(f"exp_{owner}"))
    assert any_shell.undrift("sync", "--all").code == 0
    assert any_shell.undrift("triggers", "install").code == 0
    take_marks(any_shell)
    return any_shell


def take_marks(shell: Shell) -> None:
    """Let a watch take every mark, and sync whoever is dirty."""
    with Undrift.from_env(environ=shell.variables) as sides:

        def is_over() -> bool:
            status = sides.status()
            assert status.summary is not None
            assert status.changes is not None
            return status.changes.marks == 0 and status.summary.dirty == 0

        sides.watch(is_over=is_over)


def said(error: str) -> list[str]:
    """The lines on standard error, but for those that say what every run works on."""
    usual = ("Using ", "⚠️ NOTICE: The hashing embedder ")
    return [line for line in error.splitlines() if not line.startswith(usual)]


def test_who_was_changed_is_checked_and_nobody_else(watched: Shell) -> None:
    """Exit 1 for drift among them, and 0 when there is none, whoever else drifted unseen."""
    before = watched.undrift("check", "--changed")
    assert (before.code, before.out, said(before.err)) == (0, NOBODY, [])
    watched.put(2, experiences("exp_2", "exp_9"))
    ran = watched.undrift("check", "--changed", "--diff")
    assert ran.code == 1
    assert "check for user 2:" in ran.out
    assert "+ experience:exp_9" in ran.out
    assert ran.out.endswith(
        "  - Users checked: 1\n  - Users in sync: 0\n  - Users out of sync: 1\n"
        "  - Read: users who were changed since their last sync\n"
    )
    take_marks(watched)
    after = watched.undrift("check", "--changed")
    assert (after.code, after.out) == (0, NOBODY)


def test_what_was_read_stands_in_the_json(watched: Shell) -> None:
    """In the document's head, and in the last line of a line for each user."""
    watched.put(1, experiences("exp_1"))
    watched.put(2, experiences("exp_9"))
    ran = watched.undrift("check", "--changed", "--output=json")
    assert ran.code == 1
    assert ran.document["read"] == "changed"
    assert [owner["owner_id"] for owner in ran.document["owners"]] == ["2"]
    summary = ran.document["summary"]
    assert (summary["checked"], summary["in_sync"], summary["out_of_sync"]) == (2, 1, 1)
    *owners, last = watched.undrift("check", "--changed", "--output=jsonl").lines
    assert [(owner["owner_id"], owner["outcome"]) for owner in owners] == [
        ("1", "in_sync"),
        ("2", "drift"),
    ]
    assert last["read"] == "changed"


def test_a_changed_user_who_cannot_be_read_is_unknown(watched: Shell) -> None:
    """Exit 3, as of any check."""
    column = "'[1]'" if not watched.source.is_postgres else "'[1]'::jsonb"
    watched.source.run(f"UPDATE profiles SET filtered_data = {column} WHERE user_id = 2")
    ran = watched.undrift("check", "--changed", "--output=json")
    assert ran.code == 3
    assert ran.document["owners"][0]["outcome"] == "unknown"


def test_without_triggers_or_state_it_says_what_to_do(any_shell: Shell) -> None:
    """Exit 2: seeing nobody would look like nobody changed."""
    any_shell.put(1, experiences("exp_1"))
    ran = any_shell.undrift("check", "--changed")
    what, why, fix = ran.error
    assert (ran.code, what) == (2, "Nothing tells who was changed")
    assert "has no triggers of undrift's" in why
    assert fix.startswith("run `undrift triggers install`")
    assert any_shell.undrift("triggers", "install").code == 0
    ran = any_shell.undrift("check", "--changed")
    what, _, fix = ran.error
    assert (ran.code, what) == (2, "Nothing was synced yet")
    assert fix.startswith("run `undrift sync --all` once")


def test_a_mark_for_everybody_checks_everybody_and_says_so(watched: Shell) -> None:
    """As an installation leaves one: what is read is told as it was."""
    watched.undrift("triggers", "remove")
    watched.put(3, experiences("exp_9"))
    assert watched.undrift("triggers", "install").code == 0
    ran = watched.undrift("check", "--changed", "--output=json")
    assert ran.code == 1
    assert ran.document["read"] in ("digests", "full")
    assert ran.document["summary"]["checked"] == 3
    assert said(ran.err) == ["Anybody may have been changed, so everybody is checked"]


def test_a_trigger_that_is_missing_is_told_on_standard_error(watched: Shell) -> None:
    """What it misses is not found; the answer is still one of those who were marked."""
    watched.source.run(
        "ALTER TABLE profiles DISABLE TRIGGER USER"
        if watched.source.is_postgres
        else "DROP TRIGGER undrift_profiles_update"
    )
    ran = watched.undrift("check", "--changed")
    assert (ran.code, ran.out) == (0, NOBODY)
    (line,) = said(ran.err)
    assert line.startswith("⚠️ NOTICE: changes may be missing here: ")
    assert "profiles" in line
