"""``undrift status``: who waits, what cannot be done, who is at work, what a monitor is told."""

from __future__ import annotations

import re
from contextlib import closing
from datetime import UTC, datetime

import pytest

from support.cli import Shell, experiences
from support.embedding_server import KEY, EmbeddingProxy, Fault, Rule
from support.watching import DEADLINE_SECONDS, state_table, until, watching

RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@pytest.fixture
def synced(any_shell: Shell) -> Shell:
    """Two users in sync."""
    any_shell.put(1, experiences("exp_1", "exp_2"))
    any_shell.put(2, experiences("exp_3"))
    assert any_shell.undrift("sync", "--all").code == 0
    return any_shell


def test_before_anything_was_synced_a_person_is_asked_to_begin(any_shell: Shell) -> None:
    """And nothing is created."""
    ran = any_shell.undrift("status")
    assert ran.code == 1
    assert "Not created yet; `undrift sync --all` creates it" in ran.out
    document = any_shell.undrift("status", "--output=json").document
    assert document["needs_attention"]
    assert "owners" not in document
    assert not (any_shell.folder / ".undrift").exists()
    assert any_shell.undrift("status", "--exit-zero").code == 0


def test_what_is_in_sync_is_quiet(synced: Shell) -> None:
    """Exit 0, in text and JSON."""
    ran = synced.undrift("status")
    assert (ran.code, ran.errors) == (0, [])
    assert "  - Users: 2\n  - Users waiting: 0\n  - Users failing: 0\n" in ran.out
    assert "  - Entities published: 3 of 3\n" in ran.out
    assert "  - Records parked: 0\n" in ran.out
    document = synced.undrift("status", "--output=json").document
    assert not document["needs_attention"]
    assert (document["owners"], document["dirty"], document["published"]) == (2, 0, 3)
    assert document["deletes"]["managed"] == {"experience": 3}
    assert RFC_3339.fullmatch(document["unverified_since"])
    verified = datetime.fromisoformat(document["unverified_since"])
    assert 0 <= (datetime.now(UTC) - verified).total_seconds() < DEADLINE_SECONDS
    assert document["changes"] == {
        "is_installed": False,
        "problems": [],
        "marks": 0,
        "oldest_mark_seconds": None,
    }


def test_status_changes_nothing(synced: Shell) -> None:
    """Not even when somebody waits."""
    synced.undrift("triggers", "install")
    synced.put(1, experiences("exp_9"))
    before = [synced.undrift("status", "--output=json").document for _ in range(2)]
    marks = [document["changes"]["marks"] for document in before]
    assert marks[0] == marks[1] > 0
    assert synced.undrift("check", "--all").code == 1


def test_waiting_users_and_marks_are_told_without_alarm(synced: Shell) -> None:
    """Work that has just come is no failure; marks of yesterday are."""
    synced.undrift("triggers", "install")
    synced.put(1, experiences("exp_9"))
    ran = synced.undrift("status")
    assert ran.code == 0
    assert re.search(r"  - Marks not taken: [1-9]\d*, the oldest \d+ s old\n", ran.out)
    age_marks(synced)
    ran = synced.undrift("status")
    assert ran.code == 1
    assert "⚠️ Warning: Marks are older than a day: no watch takes them." in ran.out
    assert synced.undrift("status", "--exit-zero").code == 0


def test_a_missing_trigger_is_a_warning(synced: Shell) -> None:
    """Somebody dropped it; the table itself is what it was."""
    synced.undrift("triggers", "install")
    assert synced.undrift("status").code == 0
    drop_a_trigger(synced)
    ran = synced.undrift("status", "--output=json")
    assert ran.code == 1
    assert ran.document["changes"]["problems"]
    assert set(ran.document["changes"]["problems"]) <= set(ran.document["warnings"])


def test_a_failing_user_and_its_error_are_told_until_it_succeeds(
    any_shell: Shell, embedding_proxy: EmbeddingProxy
) -> None:
    """The error names no text; `Retry-After` is waited for, far beyond the usual delay."""
    use_server(any_shell, embedding_proxy)
    any_shell.put(1, experiences("exp_1"))
    embedding_proxy.always(Fault(status=429, headers={"Retry-After": "3600"}))
    with watching(any_shell) as watch:
        watch.await_logged("watch.synced", owner="1", outcome="failed")
        ran = any_shell.undrift("status", "--output=json")
        assert ran.code == 1
        assert ran.document["failing"] == 1
        assert "asks to wait 3600 s" in ran.document["last_error"]
        assert "Title of" not in ran.out
        text = any_shell.undrift("status").out
        assert "  - Users failing: 1\n  - Last error: The embedding server" in text
        assert (ran.document["workers"][0]["worker_id"]) in text
        (delay,) = delays(any_shell)
        assert 3000 < delay <= 3602
        assert len(watch.logged("watch.synced", owner="1")) == 1
        assert watch.end() == 143
    embedding_proxy.always(None)
    assert any_shell.undrift("sync", "--user-id=1").code == 0
    assert any_shell.undrift("status").code == 0


def test_a_parked_record_is_listed_with_its_reason_and_retried_on_request(
    any_shell: Shell, embedding_proxy: EmbeddingProxy
) -> None:
    """Everything else of the user is synced; without the request it waits for its time."""
    use_server(any_shell, embedding_proxy)
    any_shell.put(1, experiences("exp_1", "exp_2"))
    embedding_proxy.when(refuse("exp_2"))
    assert any_shell.undrift("sync", "--all").code == 1
    status = any_shell.undrift("status", "--output=json")
    assert status.code == 1
    assert status.document["parked"] == 1
    (parked,) = status.document["parked_records"]
    assert (parked["owner_id"], parked["id"], parked["attempts"]) == ("1", "experience:exp_2", 1)
    assert 0 < parked["retry_in_seconds"] <= 60
    assert RFC_3339.fullmatch(parked["retry_at"])
    text = any_shell.undrift("status").out
    assert "  - Records parked: 1\n    experience:exp_2 of user 1: " in text
    assert "… and 1 more" in any_shell.undrift("status", "--parked=0").out

    embedding_proxy.always(None)
    embedding_proxy.requests.clear()
    assert any_shell.undrift("sync", "--all").code == 1
    assert embedding_proxy.requests == []
    assert any_shell.undrift("sync", "--all", "--retry-parked").code == 0
    assert len(embedding_proxy.requests) == 1
    quiet = any_shell.undrift("status")
    assert quiet.code == 0, quiet.out


def test_workers_are_told_with_their_rates(synced: Shell) -> None:
    """As long as they are there."""
    synced.undrift("triggers", "install")
    with watching(synced, "--workers=2") as watch:
        until(lambda: len(workers(synced)) == 2, "two workers")
        found = workers(synced)
        assert all(RFC_3339.fullmatch(each["started_at"]) for each in found)
        assert {each["worker_id"] for each in found} == {
            line["worker"] for line in watch.logged("watch.begin")
        }
        assert re.search(r"  - Worker \S+: \d+ users \(\d+\.\d/s\), ", synced.undrift("status").out)
        assert watch.end() == 143
    assert workers(synced) == []


def test_a_server_that_is_away_is_unknown_and_not_quiet(postgres_shell: Shell) -> None:
    """Exit 3, which --exit-zero does not hide; 2 for a wrong option."""
    gone = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}
    gone["VECTOR_URL"] = gone["DATABASE_URL"]
    ran = postgres_shell.undrift("status", "--exit-zero", "--output=json", **gone)
    assert ran.code == 3
    assert ran.document["error"]["type"].endswith("Unavailable")
    assert postgres_shell.undrift("status", "--parked=-1").code == 2


# --- support ------------------------------------------------------------------------------------


def workers(shell: Shell) -> list[dict[str, str]]:
    """The workers of the answer."""
    found: list[dict[str, str]] = shell.undrift("status", "--output=json").document["workers"]
    return found


def use_server(shell: Shell, proxy: EmbeddingProxy) -> None:
    """Let the commands embed with a server that can be told to fail."""
    shell.variables |= {
        "UNDRIFT_EMBEDDER": "openai:e5-small",
        "UNDRIFT_EMBEDDER__BASE_URL": proxy.url,
        "UNDRIFT_EMBEDDER__API_KEY": KEY,
        "UNDRIFT_EMBEDDER__DIMENSION": "384",
    }


def refuse(word: str) -> Rule:
    """A server that refuses texts with *word* in them."""
    refusal = Fault(status=400, error={"code": "bad_input"})
    return lambda texts: refusal if any(word in text for text in texts) else None


def age_marks(shell: Shell) -> None:
    """Let every mark be two days old, by SQL."""
    if shell.source.is_postgres:
        shell.source.run("UPDATE undrift.change SET at = at - interval '2 days'")
    else:
        shell.source.run("UPDATE undrift_change SET at = at - 172800")


def drop_a_trigger(shell: Shell) -> None:
    """Take away one of undrift's triggers, by SQL."""
    if shell.source.is_postgres:
        query = (
            "SELECT tgname AS name FROM pg_trigger "
            "WHERE tgrelid = 'profiles'::regclass AND tgname LIKE 'undrift%' ORDER BY 1 LIMIT 1"
        )
        (row,) = shell.source.rows(query)
        shell.source.run(f'DROP TRIGGER "{row["name"]}" ON profiles')
    else:
        query = "SELECT name FROM sqlite_master WHERE type = 'trigger' ORDER BY 1 LIMIT 1"
        (row,) = shell.source.rows(query)
        shell.source.run(f'DROP TRIGGER "{row["name"]}"')


def delays(shell: Shell) -> list[float]:
    """Seconds until each failing user is tried again, by SQL."""
    database, owners = state_table(shell, "owner_state")
    if shell.source.is_postgres:
        left = "extract(epoch FROM next_attempt_at - now())"
    else:
        left = "next_attempt_at - unixepoch()"
    with closing(database):
        rows = database.rows(f"SELECT {left} AS seconds FROM {owners} WHERE attempts > 0")
    return [float(row["seconds"]) for row in rows]
