"""``undrift check --all`` and its options: parts, pace, thresholds, and what is refused."""

from __future__ import annotations

import time
from datetime import datetime, timedelta

import pytest

from support.cli import Ran, Shell, experiences

OWNERS = range(1, 41)


@pytest.fixture
def synced(any_shell: Shell) -> Shell:
    """Forty users in sync."""
    for owner in OWNERS:
        any_shell.put(owner, experiences("exp_1"))
    assert any_shell.undrift("sync", "--all").code == 0
    return any_shell


@pytest.fixture
def sqlite_synced(shell: Shell) -> Shell:
    """Forty users in sync, in SQLite."""
    for owner in OWNERS:
        shell.put(owner, experiences("exp_1"))
    assert shell.undrift("sync", "--all").code == 0
    return shell


def let_drift(shell: Shell, *owners: int) -> None:
    """Give each of *owners* one more experience."""
    for owner in owners:
        shell.put(owner, experiences("exp_1", "exp_2"))


def owners_in(ran: Ran) -> list[str]:
    """Whom the lines of a run are about."""
    return [line["owner_id"] for line in ran.lines if "owner_id" in line]


def check(shell: Shell, *options: str) -> Ran:
    """A check of everybody as lines of JSON."""
    return shell.undrift("check", "--all", "--output", "jsonl", *options)


# --- what is read ---------------------------------------------------------------------------------


def test_answer_says_what_was_read_and_is_the_same_for_it(synced: Shell) -> None:
    """Digests of everybody, and of whom they agree on nothing else; or everything."""
    let_drift(synced, 7)
    synced.drop(8)
    runs = [check(synced), check(synced), check(synced, "--no-memo")]
    assert [ran.lines[-1]["read"] for ran in runs] == ["digests", "digests", "full"]
    assert {ran.code for ran in runs} == {1}
    cold, warm, full = (ran.lines[:-1] for ran in runs)
    assert cold == warm == full
    assert [line["owner_id"] for line in full if line["outcome"] == "drift"] == ["7", "8"]


# --- parts ----------------------------------------------------------------------------------------


def test_all_shards_together_are_everybody_once(synced: Shell) -> None:
    """And all that differs, owners that only the store has included."""
    let_drift(synced, 3, 14, 15)
    synced.drop(40)
    shards = [check(synced, "--shard", f"{number}/3") for number in (1, 2, 3)]
    found = [owner for ran in shards for owner in owners_in(ran)]
    assert sorted(found) == sorted(map(str, OWNERS))
    assert all(0 < len(owners_in(ran)) < 40 for ran in shards)
    lines = [line for ran in shards for line in ran.lines if line.get("outcome") == "drift"]
    assert sorted(line["owner_id"] for line in lines) == ["14", "15", "3", "40"]
    assert sum(ran.lines[-1]["summary"]["checked"] for ran in shards) == 40


def test_sample_is_the_same_every_time_and_says_what_it_is_worth(synced: Shell) -> None:
    """A greater one holds it; that of everybody is everybody."""
    small, again, great, whole = (
        check(synced, "--sample", share) for share in ("20%", "20%", "60%", "100%")
    )
    assert owners_in(small) == owners_in(again)
    assert set(owners_in(small)) < set(owners_in(great)) < set(owners_in(whole))
    assert owners_in(whole) == owners_in(check(synced))
    assert small.lines[-1]["read"] == "sample"
    at_most = [ran.lines[-1]["summary"]["out_of_sync_at_most"] for ran in (small, great, whole)]
    assert 1 > at_most[0] > at_most[1] > at_most[2] > 0
    text = synced.undrift("check", "--all", "--sample", "20%").out
    assert "95 %" in text


def test_sample_of_nobody_promises_nothing(sqlite_synced: Shell) -> None:
    """So few that nobody is among them: anything may be amiss."""
    ran = check(sqlite_synced, "--sample", "0.000001%")
    assert ran.code == 0
    summary = ran.lines[-1]["summary"]
    assert (summary["checked"], summary["out_of_sync_at_most"]) == (0, 1.0)


def test_users_at_whom_nobody_could_look_count_against_what_a_sample_promises(
    sqlite_synced: Shell,
) -> None:
    """They may be out of sync, as far as anybody knows."""
    before = check(sqlite_synced, "--sample", "60%")
    for owner in owners_in(before)[:9]:
        sqlite_synced.put(int(owner), "[1, 2]")
    after = check(sqlite_synced, "--sample", "60%")
    assert after.code == 3
    summary = after.lines[-1]["summary"]
    assert (summary["unknown"], summary["out_of_sync"]) == (9, 0)
    assert summary["out_of_sync_at_most"] > 9 / len(owners_in(after))


def test_sample_that_was_not_seen_to_its_end_promises_nothing(
    sqlite_synced: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who comes first is no sample of everybody."""
    monkeypatch.setattr("undrift.scan.options.next_time", lambda text: time.time() - 1)
    ran = check(sqlite_synced, "--sample", "60%", "--until", "06:00")
    assert ran.lines[-1]["summary"]["is_partial"] is True
    assert "out_of_sync_at_most" not in ran.lines[-1]["summary"]
    text = sqlite_synced.undrift("check", "--all", "--sample", "60%", "--until", "06:00").out
    assert "at most" not in text


# --- pace -----------------------------------------------------------------------------------------


def test_rate_holds_a_run_back(sqlite_synced: Shell) -> None:
    """40 users at 50 a second are one page; at 20 a second the second waits for its turn."""
    began = time.monotonic()
    ran = check(sqlite_synced, "--rate", "20")
    assert ran.code == 0
    assert len(owners_in(ran)) == 40
    assert time.monotonic() - began >= 1


def test_time_that_has_passed_today_is_tomorrows(sqlite_synced: Shell) -> None:
    """A run that begins at night and is to end in the morning."""
    passed = datetime.now().astimezone() - timedelta(minutes=1)
    ran = check(sqlite_synced, "--until", passed.strftime("%H:%M"))
    assert ran.code == 0
    assert "is_partial" not in ran.lines[-1]["summary"]
    assert len(owners_in(ran)) == 40


def test_run_whose_time_is_up_says_so_and_the_next_one_goes_on(
    sqlite_synced: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has not seen it does not call in sync."""
    monkeypatch.setattr("undrift.scan.feed.PAGE_OWNERS", 10)
    let_drift(sqlite_synced, 3, 33)
    with monkeypatch.context() as over:
        ends = iter([time.time() - 1])
        over.setattr("undrift.scan.options.next_time", lambda text: next(ends))
        ran = check(sqlite_synced, "--until", "06:00")
    assert ran.code == 0
    assert ran.lines[-1]["summary"]["is_partial"] is True
    assert owners_in(ran) == []
    assert "The time is up; 0 users are done, and the next run goes on" in ran.err
    ran = check(sqlite_synced, "--until", "06:00")
    assert "Going on with the check that began" in ran.err
    assert len(owners_in(ran)) == 40
    assert "is_partial" not in ran.lines[-1]["summary"]


# --- thresholds -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "code"),
    [("0", 1), ("3", 1), ("4", 0), ("5", 0), ("9.9%", 1), ("10%", 0), ("100%", 0), ("0%", 1)],
)
def test_run_fails_above_its_limit_and_not_at_it(
    sqlite_synced: Shell, limit: str, code: int
) -> None:
    """Four of forty differ; the answer names them in any case."""
    let_drift(sqlite_synced, 3, 14, 15, 33)
    ran = check(sqlite_synced, "--fail-above", limit)
    assert ran.code == code
    assert ran.lines[-1]["summary"]["out_of_sync"] == 4


def test_limit_hides_no_user_at_whom_nobody_could_look(sqlite_synced: Shell) -> None:
    """Unknown is not drift, and no number of users allows it."""
    let_drift(sqlite_synced, 3)
    sqlite_synced.put(4, "[1, 2]")
    assert check(sqlite_synced, "--fail-above", "100%").code == 3
    assert check(sqlite_synced, "--fail-above", "40", "--exit-zero").code == 3


def test_limit_of_users_who_are_named_counts_them(sqlite_synced: Shell) -> None:
    """It is of any check, not only of everybody's; who is not there is no drift."""
    let_drift(sqlite_synced, 3)
    named = ("check", "--user-id", "3", "--user-id", "4")
    assert sqlite_synced.undrift(*named, "--fail-above", "50%").code == 0
    assert sqlite_synced.undrift(*named, "--fail-above", "49%").code == 1
    assert sqlite_synced.undrift(*named, "--user-id", "999", "--fail-above", "50%").code == 2


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--shard", "0/4"),
        ("--shard", "5/4"),
        ("--shard", "2"),
        ("--shard", "a/b"),
        ("--shard", "-1/4"),
        ("--shard", "1/100001"),
        ("--sample", "0%"),
        ("--sample", "101%"),
        ("--sample", "5"),
        ("--sample", "five%"),
        ("--until", "25:00"),
        ("--until", "6am"),
        ("--rate", "0"),
        ("--rate", "-5"),
        ("--rate", "nan"),
        ("--rate", "inf"),
        ("--processes", "0"),
        ("--processes", "-1"),
        ("--processes", "100000"),
        ("--fail-above", "-1"),
        ("--fail-above", "101%"),
        ("--fail-above", "1.5"),
        ("--fail-above", "nan%"),
        ("--fail-above", "few"),
        ("--fail-above", ""),
    ],
)
def test_value_that_is_none_is_refused_before_anybody_is_checked(
    shell: Shell, option: str, value: str
) -> None:
    """With what, why and how."""
    shell.put(1, experiences("exp_1"))
    ran = shell.undrift("check", "--all", f"{option}={value}")
    assert ran.code == 2
    what, why, fix = ran.error
    assert option.removeprefix("--") in what or value in what or option in fix
    assert why
    assert fix
    assert ran.out == ""


@pytest.mark.parametrize(
    "option",
    [
        "--shard=1/2",
        "--sample=1%",
        "--until=06:00",
        "--rate=5",
        "--resume",
        "--no-memo",
        "--processes=2",
    ],
)
@pytest.mark.parametrize("whom", [["--user-id", "1"], ["--owners-from", "-"], ["--changed"]])
def test_options_of_everybody_need_everybody(shell: Shell, whom: list[str], option: str) -> None:
    """What cannot be obeyed is not passed over in silence."""
    ran = shell.undrift("check", *whom, option, stdin="1\n")
    assert ran.code == 2
    what, _, fix = ran.error
    assert "--all" in what
    assert option.partition("=")[0] in fix


def test_resuming_where_nothing_can_have_been_saved_is_refused(shell: Shell) -> None:
    """Nothing was synced yet, so there is no state."""
    shell.put(1, experiences("exp_1"))
    for option in ("--resume", "--until=06:00"):
        ran = shell.undrift("check", "--all", option)
        assert ran.code == 2
        assert ran.error[0] == "There is no saved progress"
    assert shell.undrift("check", "--all").code == 1
