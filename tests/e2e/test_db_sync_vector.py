"""The origin's command: its flags unchanged, in every spelling that fingers know."""

from __future__ import annotations

import pytest

from support.cli import Shell, experiences, origin_drift

CHECKS = [
    ("--check", "--userId=123"),
    ("--check", "--userId", "123"),
    ("-c", "-u", "123"),
    ("-cu", "123"),
    ("--check", "--user-id=123"),
    ("--", "--check", "--userId=123"),
    ("--check", "--", "--userId=123"),
]


@pytest.mark.parametrize("arguments", CHECKS, ids=" ".join)
def test_check_in_every_spelling_prints_the_origins_block(
    shell: Shell, arguments: tuple[str, ...]
) -> None:
    """The same answer as `undrift check`, a bare ``--`` or not."""
    origin_drift(shell)
    modern = shell.undrift("check", "--user-id", "123")
    ran = shell("db-sync-vector", *arguments)
    assert ran.out == modern.out
    assert ran.out.startswith("🔍 Vector sync check for user 123:\n  - Profile experiences: 4\n")
    assert ran.code == 1


def test_sync_of_one_user_repairs_it(any_shell: Shell) -> None:
    """On every backend, and through the leading ``--`` of npm scripts."""
    origin_drift(any_shell)
    ran = any_shell("db-sync-vector", "--", "--sync", "--userId=123")
    assert ran.out.splitlines() == [
        "🔄 Starting vector database sync for user 123...",
        "📥 Importing fresh profile data for user 123...",
        "✅ Wrote batch 1: 1 vectors (total: 1)",
        "🧹 Clearing vector batch 1 for user 123...",
        "✅ Deleted batch 1: 3 vectors (total: 3)",
        "✅ Vector database sync completed for user 123",
        "🎉 Vector database sync verification successful",
        "",
        "📊 Summary:",
        "  - Users synced: 1",
        "  - Users failed: 0",
    ]
    assert ran.code == 0
    assert any_shell("db-sync-vector", "--check", "--userId=123").code == 0


def test_sync_of_everybody_with_force_rewrites_everything(shell: Shell) -> None:
    """Short flags may be joined."""
    for owner in (1, 2):
        shell.put(owner, experiences("exp_1"))
    assert shell("db-sync-vector", "--sync", "--all").code == 0
    ran = shell("db-sync-vector", "-saf")
    assert ran.out == "📊 Summary:\n  - Users synced: 2\n  - Users failed: 0\n"
    assert ran.code == 0


def test_environment_chooses_nobody(shell: Shell) -> None:
    """The script had no variables but the databases'; an inherited one must not widen it."""
    shell.put(1, experiences("exp_1"))
    assert shell("db-sync-vector", "--check", UNDRIFT_ALL="1", UNDRIFT_USER_ID="1").code == 2
