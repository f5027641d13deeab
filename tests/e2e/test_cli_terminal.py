"""Where the answer goes and what the command is told: streams, terminals, options, environment."""

from __future__ import annotations

import re

import pytest

from support.cli import Shell, experiences
from support.terminals import on_a_terminal

# --- streams ------------------------------------------------------------------------------------


def test_emoji_are_dropped_where_the_encoding_has_none(shell: Shell) -> None:
    """The words stay, and an id that ASCII cannot spell is escaped, not lost."""
    shell.put(1, experiences("exp_ü"))
    ran = shell.program("undrift", "check", "--user-id", "1", "--diff", PYTHONIOENCODING="ascii")
    assert ran.out.startswith("Vector sync check for user 1:\n  - Profile experiences: 1\n")
    assert "    + experience:exp_\\xfc\n" in ran.out
    assert "\nSummary:\n" in ran.out
    assert "\nNOTICE: " in ran.err
    assert (ran.out + ran.err).isascii()
    assert ran.code == 1


def test_control_signs_in_ids_neither_forge_lines_nor_steer_the_terminal(shell: Shell) -> None:
    """What comes out of a profile is printed, not obeyed."""
    shell.put(1, experiences("a\x1b[2J\n  - In sync: true"))
    ran = shell.undrift("check", "--user-id", "1", "--diff")
    assert "    + experience:a\\x1b[2J\\n  - In sync: true\n" in ran.out


def test_colours_are_for_terminals_unless_asked_for(shell: Shell) -> None:
    """Never in a pipe by itself."""
    shell.put(1, experiences("exp_1"))
    assert "\x1b" not in shell.undrift("check", "--user-id", "1").out
    colored = shell.undrift("check", "--user-id", "1", "--color", "always")
    assert "\x1b[31m  - In sync: false\x1b[0m\n" in colored.out
    assert "\x1b" not in shell.undrift("check", "--user-id", "1", UNDRIFT_COLOR="never").out


def test_terminal_has_colours_and_a_progress_bar(shell: Shell) -> None:
    """The bar counts users and makes room for the blocks."""
    for owner in range(1, 4):
        shell.put(owner, experiences("exp_1"))
    code, screen = on_a_terminal(shell, "check", "--all")
    assert code == 1
    assert "\x1b[31m  - In sync: false\x1b[0m\n" in screen
    assert re.search(r"\b[0-3](/3)? users, [0-9.]+ users/s, ETA [a-z0-9:]+, errors: 0", screen)
    assert screen.count("Vector sync check for user") == 3


@pytest.mark.parametrize(("typed", "code"), [("y\n", 0), ("\n", 2)])
def test_forcing_everybody_on_a_terminal_asks_first(shell: Shell, typed: str, code: int) -> None:
    """Anything but yes does nothing."""
    shell.put(1, experiences("exp_1"))
    ended, screen = on_a_terminal(shell, "sync", "--all", "--force", typed=typed)
    assert "will be embedded anew. Go on? [y/N] " in screen
    assert ended == code
    assert ("Users synced: 1" in screen) == (code == 0)
    assert ("Nothing was done" in screen) == (code == 2)


def test_yes_answers_the_question(shell: Shell) -> None:
    """So that a script with a terminal needs nobody."""
    shell.put(1, experiences("exp_1"))
    code, screen = on_a_terminal(shell, "sync", "--all", "--force", "--yes")
    assert "[y/N]" not in screen
    assert code == 0


# --- selection and environment ------------------------------------------------------------------


def test_owners_come_from_a_file_or_from_standard_input(shell: Shell) -> None:
    """Blank lines and comments are skipped, repetitions too."""
    for owner in (1, 2, 3):
        shell.put(owner, experiences("exp_1"))
    listed = "# the broken ones\n3\n\n  1 \n3\n"
    (shell.folder / "owners.txt").write_text(listed)
    from_file = shell.undrift("check", "--owners-from", "owners.txt")
    assert re.findall(r"for user (\d+):", from_file.out) == ["3", "1"]
    from_stdin = shell.undrift("check", "--owners-from", "-", stdin=listed)
    assert from_stdin.out == from_file.out


def test_environment_chooses_where_the_command_line_does_not(shell: Shell) -> None:
    """A flag replaces the environment's choice instead of excluding it."""
    for owner in (1, 2, 3):
        shell.put(owner, experiences("exp_1"))
    named = shell.undrift("check", UNDRIFT_USER_ID="2, 3", UNDRIFT_DIFF="1")
    assert re.findall(r"for user (\d+):", named.out) == ["2", "3"]
    assert "    + experience:exp_1\n" in named.out
    everybody = shell.undrift("check", "--all", UNDRIFT_USER_ID="2")
    assert "  - Users checked: 3\n" in everybody.out
    assert "  - Users checked: 3\n" in shell.undrift("check", UNDRIFT_ALL="true").out
    one = shell.undrift("check", "--user-id", "1", UNDRIFT_ALL="1", UNDRIFT_EXIT_ZERO="1")
    assert "  - Users checked: 1\n" in one.out
    assert one.code == 0


def test_any_setting_can_come_from_the_environment(shell: Shell) -> None:
    """``UNDRIFT_<SECTION>__<KEY>`` beats the file."""
    shell.put(1, experiences("exp_1"))
    (shell.folder / "other.toml").write_text('[store]\nurl = "sqlite:///file.db"\n')
    ran = shell.undrift(
        "sync",
        "--user-id=1",
        UNDRIFT_CONFIG="other.toml",
        UNDRIFT_STORE__URL="sqlite:///environment.db",
        UNDRIFT_EMBEDDER__NAME="hashing:8",
    )
    assert ran.code == 0
    assert "model hashing/bow-v1:8:l2" in ran.err
    assert (shell.folder / "environment.db").exists()
    assert not (shell.folder / "file.db").exists()
