"""Users whose names look like flags, lists, SQL or control signs, named on the command line."""

from __future__ import annotations

import json

import pytest

from support.cli import Shell
from support.hostile import HOSTILE
from support.sides import ORIGIN, Database, StoreTables

NAMEABLE = [owner for owner in HOSTILE if "\0" not in owner]


@pytest.fixture
def named_shell(any_shell: Shell) -> Shell:
    """A shell in whose table everybody is called by a text, in sync, and then edited."""
    source = any_shell.source
    source.run("DROP TABLE profiles")
    source.run("CREATE TABLE profiles (user_id text PRIMARY KEY, filtered_data text)")
    rows = [{"owner": owner, "raw": document("Title")} for owner in NAMEABLE]
    source.run_many("INSERT INTO profiles VALUES (:owner, :raw)", rows)
    assert any_shell.undrift("sync", "--all").code == 0
    source.run("UPDATE profiles SET filtered_data = :raw", raw=document("Edited"))
    return any_shell


def document(title: str) -> str:
    """A profile of one experience."""
    return json.dumps({"experiences": [{"id": "exp_1", "title": title}]})


def edited(shell: Shell) -> set[str]:
    """The users whose record holds the edited text, by SQL."""
    embedded = f"sqlite:///{shell.folder / '.undrift' / 'undrift.db'}"
    database = Database(shell.variables.get("VECTOR_URL", embedded))
    records = StoreTables(database, ORIGIN.kinds).records()
    database.close()
    return {row["owner_id"] for row in records.values() if row["text"] == "Edited"}


def test_each_name_means_just_its_user(named_shell: Shell) -> None:
    """Whatever it looks like; one is synced after the other, and nobody besides."""
    done: set[str] = set()
    for owner in NAMEABLE[::4]:
        checked = named_shell.undrift("check", f"--user-id={owner}", "--output=json")
        assert checked.code == 1
        (found,) = checked.document["owners"]
        assert (found["owner_id"], found["changed_ids"]) == (owner, ["experience:exp_1"])
        program, *arguments = (
            ("undrift", "sync", "--output=json") if len(done) % 2 else ("db-sync-vector", "--sync")
        )
        assert named_shell(program, *arguments, f"--userId={owner}").code == 0
        done.add(owner)
        assert edited(named_shell) == done
    assert named_shell.undrift("check", "--all", "--output=json").document["summary"][
        "out_of_sync"
    ] == len(NAMEABLE) - len(done)


@pytest.mark.parametrize("flag", ["--userId", "--user-id", "-u"])
@pytest.mark.parametrize("owner", ["--all", "--userId=1", "-a", "-"])
def test_flag_in_the_place_of_a_name_is_never_everybody(
    named_shell: Shell, flag: str, owner: str
) -> None:
    """It is a user of that name, or refused; a script's quoting mistake must not widen a sync."""
    ran = named_shell("db-sync-vector", "--sync", flag, owner)
    assert (ran.code, edited(named_shell)) in [(0, {owner}), (2, set())]


def test_comma_separates_users_in_the_variable_and_nowhere_else(named_shell: Shell) -> None:
    """``a,b`` is a user on the command line, and two in ``UNDRIFT_USER_ID``."""
    ran = named_shell.undrift("check", "--user-id=a,b", "--output=json")
    assert [found["owner_id"] for found in ran.document["owners"]] == ["a,b"]
    ran = named_shell.undrift("check", "--output=json", UNDRIFT_USER_ID="a,ab")
    assert [found["owner_id"] for found in ran.document["owners"]] == ["a", "ab"]
    ran = named_shell.undrift("check", "--output=json", UNDRIFT_USER_ID="a,'; DROP TABLE profiles")
    assert ran.code == 2
    assert [found["outcome"] for found in ran.document["owners"]] == ["drift", "not_found"]


def test_list_of_users_is_taken_line_by_line(named_shell: Shell) -> None:
    """Spaces around a name are the list's, whatever is inside it is the name's."""
    names = ["'; DROP TABLE profiles; --", "%", "a,b", "--all", "{{ 7*7 }}", "\u202edrawkcab"]
    ran = named_shell.undrift(
        "sync", "--owners-from=-", "--output=jsonl", stdin="".join(f"  {n}\n" for n in names)
    )
    assert ran.code == 0
    assert [line["owner_id"] for line in ran.lines[:-1]] == names
    assert edited(named_shell) == {*names}


def test_control_signs_in_a_name_forge_no_line(named_shell: Shell) -> None:
    r"""A user called "\n  - In sync: true" says nothing of its own."""
    forged = "x\n  - In sync: true\x1b[2J\r\u2028"
    named_shell.source.run(
        "INSERT INTO profiles VALUES (:owner, :raw)", owner=forged, raw=document("Edited")
    )
    for arguments in (("check",), ("check", "--diff"), ("sync", "--dry-run"), ("sync",)):
        ran = named_shell.undrift(*arguments, f"--user-id={forged}")
        for text in (ran.out, ran.err):
            assert "\n  - In sync: true\\x1b" not in text
            assert "\x1b" not in text
            assert "\r" not in text
            assert "\u2028" not in text
        assert "  - In sync: true" not in ran.out.splitlines()
