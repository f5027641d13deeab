"""``undrift state``: where it is, whose the vectors are, and how they are taken over."""

from __future__ import annotations

import re
import shutil
from contextlib import closing

import pytest

from support.cli import Shell, experiences
from support.sides import Database

ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@pytest.fixture
def synced(any_shell: Shell) -> Shell:
    """A user in sync."""
    any_shell.put(1, experiences("exp_1", "exp_2"))
    assert any_shell.undrift("sync", "--all").code == 0
    return any_shell


def elsewhere(shell: Shell, name: str = "state.db") -> dict[str, str]:
    """The variables that put the state into a file of its own."""
    return {"UNDRIFT_STATE__URL": f"sqlite:///{shell.folder / name}"}


# --- show ---------------------------------------------------------------------------------------


def test_before_the_first_sync_there_is_none_and_none_is_created(any_shell: Shell) -> None:
    """This configuration could begin."""
    ran = any_shell.undrift("state", "show", "--output=json")
    assert ran.code == 0
    assert (ran.document["standing"], ran.document["claim"]) == (None, None)
    assert ran.document["may_write"]
    assert "Not created yet" in any_shell.undrift("state", "show").out
    assert not (any_shell.folder / ".undrift").exists()


def test_it_says_which_state_writes_the_vectors(synced: Shell) -> None:
    """Beside the vectors, so that both change in one transaction; and it changes nothing itself."""
    ran = synced.undrift("state", "show", "--output=json")
    assert ran.code == 0
    document = ran.document
    standing, claim = document["standing"], document["claim"]
    assert ID.fullmatch(standing["state_id"])
    assert (claim["state_id"], claim["epoch"]) == (standing["state_id"], standing["epoch"])
    assert standing["config"] == document["config"]
    assert document["store_class"] == "T"
    assert claim["source"]
    text = synced.undrift("state", "show").out
    assert f"  - State id: {standing['state_id']}\n" in text
    assert "  - Store class: T: state and vectors change in one transaction" in text
    assert text.endswith("  - This configuration may write: true\n")
    assert synced.undrift("state", "show", "--output=json").document == document


def test_a_state_elsewhere_makes_the_store_class_c(any_shell: Shell) -> None:
    """The line at the start of every run that writes names the file."""
    variables = elsewhere(any_shell)
    any_shell.put(1, experiences("exp_1"))
    ran = any_shell.undrift("sync", "--all", **variables)
    assert ran.code == 0
    assert f"; state {variables['UNDRIFT_STATE__URL']}; model " in ran.err
    assert "; state " not in any_shell.undrift("check", "--all", **variables).err
    shown = any_shell.undrift("state", "show", **variables)
    assert "  - Store class: C: every write is conditional on its version" in shown.out
    assert any_shell.undrift("status", **variables).code == 0


# --- another state, and adopt -------------------------------------------------------------------


def test_another_state_may_not_write_until_it_adopts_and_then_the_first_may_not(
    synced: Shell,
) -> None:
    """Both refusals come before anything is written; a check goes on working throughout."""
    variables = elsewhere(synced)
    synced.put(1, experiences("exp_9"))
    refused = synced.undrift("sync", "--all", **variables)
    assert refused.code == 2
    assert "belongs to another state" in refused.error[0]
    assert "undrift state adopt" in refused.error[2]
    shown = synced.undrift("state", "show", "--output=json", **variables)
    assert shown.code == 2
    assert not shown.document["may_write"]
    assert shown.document["refusal"]["type"] == "StateMismatch"
    assert synced.undrift("check", "--all", **variables).code == 1

    adopted = synced.undrift("state", "adopt", "--output=json", **variables)
    assert adopted.code == 0
    assert adopted.document["is_adopted"]
    assert adopted.document["may_write"]
    assert adopted.document["claim"]["state_id"] == adopted.document["standing"]["state_id"]
    assert synced.undrift("sync", "--all", **variables).code == 0
    assert synced.undrift("check", "--all").code == 0
    assert synced.undrift("sync", "--all").code == 2
    assert "may write: false" in synced.undrift("state", "show").out


def test_a_lost_state_is_named_and_adopted(synced: Shell) -> None:
    """What is in the vectors is kept, and what changed meanwhile is repaired."""
    variables = elsewhere(synced)
    assert synced.undrift("state", "adopt", **variables).code == 0
    assert synced.undrift("sync", "--all", **variables).code == 0
    for file in synced.folder.glob("state.db*"):
        file.unlink()
    shown = synced.undrift("state", "show", **variables)
    assert shown.code == 2
    assert "The state that the vector store belongs to is not there" in shown.out
    synced.put(1, experiences("exp_1", "exp_9"))
    assert synced.undrift("sync", "--all", **variables).code == 2
    assert synced.undrift("state", "adopt", **variables).code == 0
    assert synced.undrift("sync", "--all", **variables).code == 0
    assert synced.undrift("check", "--all", **variables).code == 0


def test_a_moved_source_is_refused_until_somebody_says_that_it_has_moved(shell: Shell) -> None:
    """The same rows in another file; a wrong DATABASE_URL would look just so."""
    shell.put(1, experiences("exp_1"))
    assert shell.undrift("sync", "--all").code == 0
    moved = {"DATABASE_URL": "sqlite:///moved.db"}
    shutil.copy(shell.folder / "app.db", shell.folder / "moved.db")
    refused = shell.undrift("sync", "--all", **moved)
    assert refused.code == 2
    assert "built from another source" in refused.error[0]
    assert shell.undrift("state", "adopt", "--yes", **moved).code == 0
    assert shell.undrift("sync", "--all", **moved).code == 0
    assert shell.undrift("sync", "--all").code == 2


def test_a_superseded_configuration_may_go_back_by_adopting(synced: Shell) -> None:
    """The older one is refused, adopts, and then the newer one is."""
    (synced.folder / "newer.toml").write_text(
        '[[entity]]\nkind = "experience"\npath = "experiences[*]"\ntext = "{{ title }}, newer"\n'
    )
    newer = ("--config", str(synced.folder / "newer.toml"))
    assert synced.undrift("sync", "--all", *newer).code == 0
    refused = synced.undrift("sync", "--all")
    assert refused.code == 2
    assert "Another configuration writes this store" in refused.error[0]
    assert synced.undrift("state", "show", *newer).code == 0
    assert synced.undrift("state", "adopt").code == 0
    assert synced.undrift("sync", "--all").code == 0
    assert synced.undrift("check", "--all").code == 0
    assert synced.undrift("sync", "--all", *newer).code == 2


def test_adopting_tells_what_it_did_and_everybody_waits_to_be_looked_at(synced: Shell) -> None:
    """In words, and in the status behind it."""
    ran = synced.undrift("state", "adopt")
    assert ran.code == 0
    assert ran.out.startswith(
        "✅ The vectors belong to this state, source and configuration now\n"
        "   Everybody is looked at again by the next syncs\n"
    )
    assert synced.undrift("status", "--output=json").document["dirty"] == 1
    assert synced.undrift("sync", "--all").code == 0
    assert synced.undrift("status", "--output=json").document["dirty"] == 0


def test_a_store_without_a_claim_is_claimed_by_the_next_sync(synced: Shell) -> None:
    """Such as one that an older undrift wrote."""
    url = synced.variables.get("VECTOR_URL", f"sqlite:///{synced.folder}/.undrift/undrift.db")
    with closing(Database(url)) as database:
        (table,) = claim_tables(database)
        assert database.run(f"DELETE FROM {table}") == 1
    shown = synced.undrift("state", "show", "--output=json")
    assert (shown.code, shown.document["claim"]) == (0, None)
    assert "claimed by: nobody yet" in synced.undrift("state", "show").out
    assert synced.undrift("sync", "--all").code == 0
    assert synced.undrift("state", "show", "--output=json").document["claim"] is not None


def test_doctor_says_where_the_state_is_and_who_may_write(synced: Shell) -> None:
    """And finds a store that is another state's; a role that only checks needs no right."""
    document = synced.undrift("doctor", "--output=json").document
    found = {check["name"]: check["status"] for check in document["checks"]}
    assert (found["state.place"], found["state.right"]) == ("ok", "ok")
    wrong = synced.undrift("doctor", "--output=json", **elsewhere(synced))
    assert wrong.code == 2
    found = {check["name"]: check for check in wrong.document["checks"]}
    assert found["state.right"]["status"] == "problem"
    assert "undrift state adopt" in found["state.right"]["fix"]
    assert wrong.document["summary"]["could_check"]
    assert not wrong.document["summary"]["could_sync"]
    assert synced.undrift("doctor", "--read-only", **elsewhere(synced)).code == 0


def test_what_cannot_be_looked_at_is_unknown(postgres_shell: Shell) -> None:
    """Exit 3 from both."""
    gone = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}
    for command in ("show", "adopt"):
        ran = postgres_shell.undrift("state", command, "--output=json", **gone)
        assert ran.code == 3
        assert ran.document["error"]["type"] == "SourceUnavailable"


# --- support ------------------------------------------------------------------------------------


def claim_tables(database: Database) -> list[str]:
    """Where the store keeps its claims."""
    if database.is_postgres:
        query = (
            "SELECT 'undrift.' || relname AS name FROM pg_class "
            "WHERE relnamespace = 'undrift'::regnamespace AND relkind = 'r' AND relname ~ 'claim'"
        )
    else:
        query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE '%claim%'"
    return [row["name"] for row in database.rows(query)]
