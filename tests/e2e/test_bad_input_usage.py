"""Bad input: flags that contradict each other or do not exist, settings and users unknown."""

from __future__ import annotations

import pytest

from support.bad_input import (
    CALLS,
    assert_refused,
    assert_three_parts,
    assert_told,
    drifted,
    nothing_lost,
)
from support.cli import Ran, Shell, experiences

WRONG_FLAGS = [
    # both, then neither, of --userId and --all
    ("undrift check --userId=1 --all", "--user-id and --all exclude each other", "one way"),
    ("undrift sync --userId=1 --all", "--user-id and --all exclude each other", "one way"),
    ("undrift check", "Nobody is named", "does not guess"),
    ("undrift sync", "Nobody is named", "does not guess"),
    ("undrift search words", "Nobody is named", "does not guess"),
    (
        "db-sync-vector --check --userId=1 --all",
        "--userId and --all exclude each other",
        "one user",
    ),
    ("db-sync-vector --sync -u 1 -a", "--userId and --all exclude each other", "one user"),
    ("db-sync-vector --check", "Neither --userId nor --all", "one user"),
    ("db-sync-vector --sync", "Neither --userId nor --all", "one user"),
    # both, then neither, of --check and --sync
    ("db-sync-vector --check --sync --all", "--check and --sync exclude each other", "compares"),
    ("db-sync-vector -csu 1", "--check and --sync exclude each other", "compares"),
    ("db-sync-vector --all", "Neither --check nor --sync", "compares or repairs"),
    ("db-sync-vector --userId=1", "Neither --check nor --sync", "compares or repairs"),
    ("db-sync-vector", "Neither --check nor --sync", "compares or repairs"),
    # who checks everybody
    ("undrift check --userId=1 --engine ray", "--engine needs --all", "everybody"),
    ("undrift check --all --ray-address h:1", "--ray-address needs --engine ray", "this machine"),
    ("undrift sync --user-id=1 --engine ray", "--engine needs --all", "everybody"),
    ("undrift sync --user-id=1 --processes 2", "--processes needs --all", "everybody"),
    ("undrift sync --user-id=1 --dry-run --processes 2", "--processes needs --all", "everybody"),
    ("undrift sync --all --processes 0", "--processes 0 is not possible", "1 to"),
    ("undrift sync --all --embedders 2", "--embedders needs --engine ray", "this machine"),
    (
        "undrift sync --all --gpus-per-embedder 1",
        "--gpus-per-embedder needs --engine ray",
        "this machine",
    ),
    (
        "undrift sync --all --engine ray --dry-run",
        "--dry-run and --engine ray exclude each other",
        "on this machine",
    ),
    (
        "undrift check --all --engine ray --processes 2",
        "--processes and --engine ray exclude each other",
        "cores",
    ),
    # unknown flags and commands, with the nearest name
    ("undrift sync --all --frce", "No such option: --frce", "did you mean --force?"),
    ("undrift check --userid 1", "No such option: --userid", "did you mean --user-id?"),
    ("undrift check --zzz", "No such option: --zzz", "there are --all, --changed, --color, "),
    ("undrift chek --all", "No such command: chek", "did you mean check?"),
    ("db-sync-vector --chek --all", "No such option: --chek", "did you mean --check?"),
    ("db-sync-vector --sync --al", "No such option: --al", "did you mean --all?"),
    ("db-sync-vector --sync --all --fource", "No such option: --fource", "did you mean --force?"),
    # nobody, by an empty variable of the shell
    ("undrift check --userId=", "A user id is empty", "variable that is not set"),
    ("db-sync-vector --sync --userId=", "A user id is empty", "variable that is not set"),
]


@pytest.mark.parametrize(("line", "what", "why"), WRONG_FLAGS, ids=lambda value: str(value)[:40])
def test_wrong_flags_exit_2_and_do_nothing(shell: Shell, line: str, what: str, why: str) -> None:
    """In three parts, before anything is looked at; with the nearest name where there is one."""
    program, *arguments = line.split()
    assert_refused(shell(program, *arguments), 2, what, why=why)
    assert not (shell.folder / ".undrift").exists()


@pytest.mark.parametrize(
    ("written", "what", "hint"),
    [
        ("[source.documents]\ntabel = 'x'", "source.documents.tabel", "'table'?"),
        ("[source]\nurll = 'x'", "source.urll", "'url'?"),
        ("[store]\nkeep_txt = true", "store.keep_txt", "'keep_text'?"),
        ("[embeder]\nname = 'local'", "embeder", "'embedder'?"),
        ("[[entity]]\nkind = 'note'\npth = 'notes[*]'", "entity.0.pth", "'path'?"),
        ("[store]\nzzz = 1", "store.zzz", "there are: fields, keep_text, namespace, url"),
    ],
)
def test_unknown_key_in_the_file_names_the_nearest(
    any_shell: Shell, written: str, what: str, hint: str
) -> None:
    """With the file it stands in; a setting that is not understood is not passed over."""
    drifted(any_shell)
    (any_shell.folder / "undrift.toml").write_text(f"{written}\n")
    with nothing_lost(any_shell):
        for call in (CALLS[0], CALLS[6], CALLS[-1]):
            ran = any_shell(call.program, *call.arguments)
            _, why, fix = assert_told(ran, call, 2, f"Unknown setting {what!r}")
            assert hint in why
            assert "undrift.toml" in why
            assert "correct the name" in fix


def assert_unknown(ran: Ran, user: str) -> None:
    """One error about *user*, told once on stderr; stdout's block says it in one line."""
    assert ran.code == 2
    assert_three_parts(ran)
    what, why, fix = ran.error
    assert what == f"No such user: {user}"
    assert "neither" in ran.out.lower() or "not found" in ran.out.lower() or ran.out == ""
    assert "a complete read of the source does not show this owner" in why
    assert "spelling" in fix
    assert what not in ran.out
    assert fix not in ran.out


def test_unknown_user_is_told_once(any_shell: Shell) -> None:
    """By every command; nothing is written for nobody, and '007' is not user 7."""
    any_shell.put(7, experiences("exp_1"))
    drifted(any_shell)
    with nothing_lost(any_shell):
        for user in ("999", "007", "seven", "7 or 1=1"):
            for program, *arguments in (
                ("undrift", "check"),
                ("undrift", "sync"),
                ("undrift", "sync", "--force"),
                ("undrift", "sync", "--dry-run"),
                ("undrift", "search", "words"),
                ("db-sync-vector", "--check"),
                ("db-sync-vector", "--sync"),
            ):
                assert_unknown(any_shell(program, *arguments, f"--userId={user}"), user)
    checked = any_shell.undrift("check", "--user-id=999").out
    assert "  - Not found: neither the source nor the vector store has this user\n" in checked
    assert "  - Users not found: 1\n" in checked
    assert any_shell.undrift("sync", "--user-id=999").out.startswith("❌ User 999 not found\n\n📊")


def test_unknown_user_stops_nobody_else(any_shell: Shell) -> None:
    """Those beside it are repaired; the exit code still says that something was wrong."""
    drifted(any_shell)
    ran = any_shell.undrift("sync", "--user-id=999", "--user-id=2")
    assert_unknown(ran, "999")
    assert "sync completed for user 2" in ran.out
    assert any_shell.undrift("check", "--user-id=2").code == 0


def test_search_before_the_first_sync_says_why_it_finds_nothing(any_shell: Shell) -> None:
    """No result is not "there is nothing": the store is still to be created."""
    any_shell.put(1, experiences("exp_1"))
    ran = any_shell.undrift("search", "title", "--user-id=1")
    assert ran.code == 0
    assert "0 results" in ran.out
    assert "  - Note: store not created yet; what other programs stored is not read\n" in ran.out
    as_json = any_shell.undrift("search", "title", "--user-id=1", "--output=json")
    assert as_json.document["notes"] == ["store not created yet"]
    any_shell.undrift("sync", "--user-id=1")
    assert "not created" not in any_shell.undrift("search", "title", "--user-id=1").out
