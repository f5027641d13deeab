"""``undrift doctor`` on stores that it knows through their port alone, real ones."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from support.cli import Ran, Shell, experiences

STATE = {"UNDRIFT_STATE__URL": "sqlite:///state.db"}
PLACES = {
    "LanceDB": "lancedb:///vectors?table=vectors",
    "Qdrant's engine": "qdrant+file:///points/vectors",
}


@pytest.fixture(params=PLACES)
def elsewhere(shell: Shell, request: pytest.FixtureRequest) -> tuple[Shell, str]:
    """A user in SQLite, and a store in none of the databases that can hold a state; its name."""
    shell.put(1, experiences("exp_1", "exp_2"))
    scheme, _, rest = PLACES[request.param].partition("///")
    shell.variables["VECTOR_URL"] = f"{scheme}///{shell.folder}/{rest}"
    return shell, request.param


def checks_of(ran: Ran) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in ran.document["checks"]}


def doctor(shell: Shell, **variables: str) -> Ran:
    return shell.undrift("doctor", "--output=json", **variables)


def test_a_store_says_what_it_is_and_promises(elsewhere: tuple[Shell, str]) -> None:
    """Its class in words, with the reason why it is not another."""
    shell, name = elsewhere
    checks = checks_of(doctor(shell, **STATE))
    assert checks["store.server"]["summary"].startswith(f"{name}: ")
    assert "not created yet" in checks["store.server"]["summary"]
    assert "class is C: late writes are refused" in checks["store.class"]["summary"]
    assert {check["status"] for topic, check in checks.items() if topic.startswith("store.")} == {
        "ok"
    }
    assert "PostgreSQL" not in "".join(
        check["summary"] for topic, check in checks.items() if topic.startswith("store.")
    )


def test_looking_creates_nothing(elsewhere: tuple[Shell, str]) -> None:
    """Not even a folder."""
    shell, _ = elsewhere
    before = sorted(path.name for path in shell.folder.iterdir())
    doctor(shell, **STATE)
    assert sorted(path.name for path in shell.folder.iterdir()) == before


def test_a_store_without_a_place_for_its_state_is_a_problem_with_the_line_that_mends_it(
    elsewhere: tuple[Shell, str],
) -> None:
    """It can be checked all the same."""
    shell, _ = elsewhere
    ran = doctor(shell)
    assert ran.code == 2
    assert ran.document["summary"]["could_check"] is True
    assert ran.document["summary"]["could_sync"] is False
    check = checks_of(ran)["state.place"]
    assert check["status"] == "problem"
    assert "UNDRIFT_STATE__URL" in check["fix"]
    assert "sqlite:///state.db" in check["fix"]
    assert doctor(shell, **STATE).code == 0
    assert shell.undrift("sync", "--all", **STATE).code == 0


def test_after_a_sync_all_of_it_is_well(elsewhere: tuple[Shell, str]) -> None:
    """And a model of another dimension is found, with its remedy."""
    shell, _ = elsewhere
    assert shell.undrift("sync", "--all", **STATE).code == 0
    checks = checks_of(doctor(shell, **STATE))
    assert checks["store.server"]["summary"].endswith(" is there")
    assert checks["store.dimension"]["status"] == "ok"
    assert checks["state.right"]["status"] == "ok"
    other = checks_of(doctor(shell, UNDRIFT_EMBEDDER="hashing:8", **STATE))
    assert other["store.dimension"]["status"] == "problem"
    assert other["store.dimension"]["fix"]


def test_a_server_that_does_not_answer_is_not_known(shell: Shell) -> None:
    """Exit 3, and nothing is said of what nobody could see."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    shell.put(1, experiences("exp_1"))
    ran = doctor(shell, VECTOR_URL=f"chroma+http://127.0.0.1:{port}/vectors", **STATE)
    assert ran.code == 3
    check = checks_of(ran)["store.server"]
    assert check["status"] == "unknown"
    assert check["fix"]
    assert "store.class" not in checks_of(ran)


def test_a_script_for_a_dba_grants_nothing_in_a_store_without_roles(
    elsewhere: tuple[Shell, str],
) -> None:
    """There is no SQL to be run there."""
    shell, _ = elsewhere
    ran = shell.undrift("init", "--sql", **STATE)
    assert ran.code == 0
    assert "GRANT" not in ran.out
    assert "state is elsewhere" in ran.out


def test_no_index_is_built_where_none_can_be(elsewhere: tuple[Shell, str]) -> None:
    """And the reason is that store's own."""
    shell, _ = elsewhere
    for command in ("status", "build", "drop"):
        ran = shell.undrift("index", command, **STATE)
        assert ran.code == 2
        what, why, fix = ran.error
        assert what == "undrift builds no search index in this vector store"
        assert "exact" in why
        assert "nothing needs to be done" in fix
