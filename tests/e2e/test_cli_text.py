"""What a person reads: the origin's words line for line, on every backend."""

from __future__ import annotations

import re
from textwrap import dedent

import pytest

from support.cli import Ran, Shell, experiences, origin_drift

CHECK_OF_THE_ORIGIN = dedent(
    """\
    🔍 Vector sync check for user 123:
      - Profile experiences: 4
      - Vector experiences: 6
      - Missing from vectors: 1
      - Stale in vectors: 3
      - In sync: false

    📊 Summary:
      - Users checked: 1
      - Users in sync: 0
      - Users out of sync: 1
    """
)
SYNC_OF_THE_ORIGIN = dedent(
    """\
    🔄 Starting vector database sync for user 123...
    📥 Importing fresh profile data for user 123...
    ✅ Wrote batch 1: 1 vectors (total: 1)
    🧹 Clearing vector batch 1 for user 123...
    ✅ Deleted batch 1: 3 vectors (total: 3)
    ✅ Vector database sync completed for user 123
    🎉 Vector database sync verification successful

    📊 Summary:
      - Users synced: 1
      - Users failed: 0
    """
)
CHECK_AFTER_THE_SYNC = dedent(
    """\
    🔍 Vector sync check for user 123:
      - Profile experiences: 4
      - Vector experiences: 4
      - Missing from vectors: 0
      - Stale in vectors: 0
      - In sync: true

    📊 Summary:
      - Users checked: 1
      - Users in sync: 1
      - Users out of sync: 0
    """
)
SUMMARY_OF_A_SYNC = dedent(
    """\

    📊 Summary:
      - Users synced: 1
      - Users failed: 0
    """
)


def assert_answer(ran: Ran, code: int, out: str) -> None:
    assert ran.out == out
    assert ran.code == code, ran.err
    assert ran.errors == []


# --- the origin's example -----------------------------------------------------------------------


def test_check_sync_check_prints_the_origins_blocks(any_shell: Shell) -> None:
    """Drift is reported and exits 1, its repair is verified and exits 0, and then it is gone."""
    origin_drift(any_shell)
    assert_answer(any_shell.undrift("check", "--user-id", "123"), 1, CHECK_OF_THE_ORIGIN)
    assert_answer(any_shell.undrift("sync", "--user-id", "123"), 0, SYNC_OF_THE_ORIGIN)
    assert_answer(any_shell.undrift("check", "--user-id", "123"), 0, CHECK_AFTER_THE_SYNC)


@pytest.mark.parametrize(
    ("command", "check", "sync"),
    [
        ("undrift", ("check", "--user-id=123"), ("sync", "--owner", "123")),
        ("db-sync-vector", ("--check", "--userId=123"), ("-s", "-u", "123")),
    ],
)
def test_installed_programs_print_the_origins_blocks(
    shell: Shell, command: str, check: tuple[str, ...], sync: tuple[str, ...]
) -> None:
    """The entry points do what their functions do."""
    origin_drift(shell)
    assert_answer(shell.program(command, *check), 1, CHECK_OF_THE_ORIGIN)
    assert_answer(shell.program(command, *sync), 0, SYNC_OF_THE_ORIGIN)


def test_user_in_sync_is_skipped_in_one_line(shell: Shell) -> None:
    """A second sync says so, and writes nothing."""
    origin_drift(shell)
    shell.undrift("sync", "--user-id", "123")
    again = shell.undrift("sync", "--user-id", "123")
    assert_answer(again, 0, f"✅ User 123 is already in sync\n{SUMMARY_OF_A_SYNC}")


def test_force_rewrites_what_is_in_sync(shell: Shell) -> None:
    """Everything is written anew and nothing is deleted."""
    shell.put(7, experiences("exp_1", "exp_2"))
    shell.undrift("sync", "--user-id", "7")
    forced = shell.undrift("sync", "--user-id", "7", "--force")
    assert "✅ Wrote batch 1: 2 vectors (total: 2)\n" in forced.out
    assert "Deleted" not in forced.out
    assert forced.code == 0


def test_stderr_says_what_is_used_and_that_hashing_is_not_semantic(any_shell: Shell) -> None:
    """One line with source, store and model, then the embedder's notice; no password."""
    any_shell.put(1, experiences("exp_1"))
    ran = any_shell.undrift("check", "--user-id", "1")
    used, notice = ran.err.splitlines()
    assert used.startswith("Using source ")
    assert "profiles(user_id, filtered_data); store " in used
    assert used.endswith("; model hashing/bow-v1:16:l2")
    assert notice.startswith("⚠️ NOTICE: The hashing embedder is not semantic")
    password = re.search(r":([^:/@]+)@", any_shell.variables["DATABASE_URL"])
    assert password is None or password[1] not in used


# --- further lines ------------------------------------------------------------------------------


def test_check_of_a_store_not_created_says_so_and_creates_nothing(shell: Shell) -> None:
    """Everything is missing; no file appears."""
    shell.put(1, experiences("exp_1"))
    ran = shell.undrift("check", "--user-id", "1")
    assert "  - Missing from vectors: 1\n" in ran.out
    note = "  - Note: store not created yet; what other programs stored is not read\n"
    assert f"{note}  - In sync: false\n" in ran.out
    assert ran.code == 1
    assert [path.name for path in shell.folder.iterdir()] == ["app.db"]


def test_sync_announces_the_creation_of_the_store(shell: Shell) -> None:
    """On stderr, and with -v statement by statement."""
    shell.put(1, experiences("exp_1"))
    ran = shell.undrift("sync", "--user-id", "1", "-v")
    assert re.search(r"^Created the vector store .*undrift\.db", ran.err, re.MULTILINE)
    assert "CREATE TABLE" in ran.err
    assert "Created" not in ran.out


def test_every_kind_on_either_side_has_its_pair_of_lines(shell: Shell) -> None:
    """Kinds in the plural, experiences first, those that exist nowhere left out."""
    document = {
        "experiences": [
            {
                "id": "e",
                "title": "Engineer",
                "projects": [{"id": "p", "title": "Billing", "updates": [{"title": "Launched"}]}],
            }
        ],
        "skills": ["SQL", "Go"],
    }
    shell.put(1, document)
    shell.undrift("sync", "--user-id", "1")
    shell.put(1, {"education": [{"school": "MIT"}]})
    lines = shell.undrift("check", "--user-id", "1").out.splitlines()
    assert lines[1:13] == [
        "  - Profile experiences: 0",
        "  - Vector experiences: 1",
        "  - Profile projects: 0",
        "  - Vector projects: 1",
        "  - Profile project updates: 0",
        "  - Vector project updates: 1",
        "  - Profile education: 1",
        "  - Vector education: 0",
        "  - Profile skills: 0",
        "  - Vector skills: 2",
        "  - Missing from vectors: 1",
        "  - Stale in vectors: 5",
    ]


def test_diff_names_what_differs_and_how(shell: Shell) -> None:
    """Plus is missing, minus stale, a star is in both but not the same."""
    shell.put(1, experiences("kept", "edited", "gone"))
    shell.undrift("sync", "--user-id", "1")
    changed = experiences("kept", "edited", "new")
    changed["experiences"][1]["title"] = "Another title"
    shell.put(1, changed)
    ran = shell.undrift("check", "--user-id", "1", "--diff")
    assert "  - Content changed: 1\n  - In sync: false\n" in ran.out
    assert "    + experience:new\n    - experience:gone\n    * experience:edited (changed)\n" in (
        ran.out
    )


def test_orphan_owner_is_drift_and_is_removed_by_name(any_shell: Shell) -> None:
    """A user whose row is gone but whose vectors are not."""
    any_shell.put(1, experiences("exp_1"))
    any_shell.put(2, experiences("exp_1"))
    any_shell.undrift("sync", "--all")
    any_shell.drop(2)
    ran = any_shell.undrift("check", "--user-id", "2")
    assert ran.code == 1
    assert "  - Orphan owner: true\n  - In sync: false\n" in ran.out
    assert any_shell.undrift("sync", "--user-id", "2").code == 0
    assert any_shell.undrift("check", "--user-id", "2").code == 2


# --- several owners -----------------------------------------------------------------------------


def test_several_named_users_have_a_block_each_in_the_given_order(shell: Shell) -> None:
    """A batch does not say whose it is, so no two users' lines are mixed."""
    for owner in (1, 2):
        shell.put(owner, experiences("exp_1"))
    ran = shell.undrift("sync", "--user-id", "2", "--user-id", "1", "--user-id", "2")
    block = dedent(
        """\
        🔄 Starting vector database sync for user {0}...
        📥 Importing fresh profile data for user {0}...
        ✅ Wrote batch 1: 1 vectors (total: 1)
        ✅ Vector database sync completed for user {0}
        🎉 Vector database sync verification successful

        """
    )
    summary = "📊 Summary:\n  - Users synced: 2\n  - Users failed: 0\n"
    assert_answer(ran, 0, block.format(2) + block.format(1) + summary)


def test_fleet_check_shows_only_who_is_not_in_sync(any_shell: Shell) -> None:
    """Blocks for those, then the sums of everybody."""
    for owner in range(1, 6):
        any_shell.put(owner, experiences("exp_1"))
    any_shell.undrift("sync", "--all")
    any_shell.put(3, experiences("exp_1", "exp_2"))
    ran = any_shell.undrift("check", "--all")
    assert re.findall(r"for user (\d+):", ran.out) == ["3"]
    assert ran.out.endswith(
        "📊 Summary:\n  - Users checked: 5\n  - Users in sync: 4\n  - Users out of sync: 1\n"
        "  - Read: digests of both sides, and in full whoever differs\n"
    )
    assert ran.code == 1


def test_fleet_check_shows_twenty_blocks_and_counts_the_rest(shell: Shell) -> None:
    """Twenty are read, two hundred are not."""
    for owner in range(1, 24):
        shell.put(owner, experiences("exp_1"))
    ran = shell.undrift("check", "--all")
    assert ran.out.count("🔍 Vector sync check for user") == 20
    assert "\n\n… and 3 more\n\n📊 Summary:\n  - Users checked: 23\n" in ran.out


def test_fleet_sync_shows_the_sums_and_failures_only(any_shell: Shell) -> None:
    """Nobody reads a line for each of a million users."""
    for owner in range(1, 4):
        any_shell.put(owner, experiences("exp_1"))
    any_shell.undrift("sync", "--user-id", "1")
    ran = any_shell.undrift("sync", "--all")
    assert_answer(
        ran,
        0,
        "📊 Summary:\n  - Users synced: 3\n  - Users failed: 0\n  - Users in sync already: 1\n",
    )


def test_unreadable_document_is_unknown_and_the_others_go_on(shell: Shell) -> None:
    """One user's broken JSON exits 3, named and explained, and repairs everybody else."""
    shell.put(1, experiences("exp_1"))
    shell.put(2, "{nope")
    ran = shell.undrift("sync", "--all")
    assert ran.code == 3
    assert "❓ Vector database sync result unknown for user 2\n" in ran.out
    assert "  - Users synced: 1\n" in ran.out
    assert "  - Users unknown: 1\n" in ran.out
    what, why, fix = ran.error
    assert what == "The document of user 2 cannot be read"
    assert "not valid JSON" in why
    assert fix == "correct the document in the source"
    checked = shell.undrift("check", "--user-id", "1", "--user-id", "2")
    assert checked.code == 3
    assert "  - Could not look: The document of user 2 cannot be read\n  - In sync: unknown\n" in (
        checked.out
    )


# --- dry run ------------------------------------------------------------------------------------


def test_dry_run_prints_plan_and_cost_writes_nothing_and_exits_as_check(shell: Shell) -> None:
    """The block of a check, what a sync would do, and the same exit code."""
    origin_drift(shell)
    ran = shell.undrift("sync", "--user-id", "123", "--dry-run")
    plan = (
        "  - Texts to embed: 1 (about 6 tokens)\n"
        "  - Vectors to write: 1\n"
        "  - Vectors to delete: 3\n"
    )
    block, summary = CHECK_OF_THE_ORIGIN.split("\n\n")
    heading, _, rest = block.partition("\n")
    expected = f"🔍 Vector sync plan for user 123 (dry run):\n{rest}\n{plan}\n{summary}{plan}"
    assert heading == "🔍 Vector sync check for user 123:"
    assert_answer(ran, 1, expected)
    assert_answer(shell.undrift("check", "--user-id", "123"), 1, CHECK_OF_THE_ORIGIN)


def test_dry_run_over_everybody_shows_who_would_be_written(shell: Shell) -> None:
    """With --force that is everybody, in sync or not; the exit code stays a check's."""
    for owner in (1, 2):
        shell.put(owner, experiences("exp_1"))
    shell.undrift("sync", "--all")
    assert "dry run" not in shell.undrift("sync", "--all", "--dry-run").out
    forced = shell.undrift("sync", "--all", "--dry-run", "--force")
    assert forced.out.count("(dry run):\n") == 2
    assert "  - Vectors to write: 2\n" in forced.out
    assert forced.code == 0


# --- search -------------------------------------------------------------------------------------


def test_search_prints_hits_with_their_text(any_shell: Shell) -> None:
    """Best first, as many as asked for."""
    any_shell.put(1, experiences("exp_1", "exp_2"))
    any_shell.undrift("sync", "--user-id", "1")
    ran = any_shell.undrift("search", "--user-id", "1", "Title of exp_2", "--limit", "1")
    assert re.fullmatch(
        r"🔍 1 result for user 1:\n  1\. experience:exp_2 \(\d\.\d{3}\)\n"
        r"     Title of exp_2 at Acme\n",
        ran.out,
    )
    assert ran.code == 0


def test_search_leaves_out_and_names_what_is_gone(shell: Shell) -> None:
    """A stale vector is never a hit; a changed one comes with the source's text."""
    shell.put(1, experiences("exp_1", "exp_2"))
    shell.undrift("sync", "--user-id", "1")
    document = experiences("exp_1")
    document["experiences"][0]["title"] = "Title anew"
    shell.put(1, document)
    ran = shell.undrift("search", "--user-id", "1", "Title", "--kind", "experience")
    assert "changed since it was embedded)\n     Title anew at Acme\n" in ran.out
    assert "  - Stale in vectors, left out: experience:exp_2\n" in ran.out


def test_demo_tells_its_story_in_the_words_of_the_commands(shell: Shell) -> None:
    """In a folder of its own, whatever databases the environment names."""
    ran = shell.undrift("demo", "--folder", "shown", "--embedder", "hashing")
    assert ran.code == 0, ran.out
    assert "🔍 Vector sync check for user " in ran.out
    assert "📊 Summary:\n  - Users synced: " in ran.out
    assert (shell.folder / "shown" / "app.db").exists()
    (shell.folder / "mine").mkdir()
    (shell.folder / "mine" / "app.db").write_text("precious")
    refused = shell.undrift("demo", "--folder", "mine", "--embedder", "hashing")
    assert refused.code == 2
    assert refused.error
