"""The commands with ``openai:…`` over a real server: what they find, cost and leave behind."""

from __future__ import annotations

import pytest

from support.cli import Document, Shell, experiences
from support.embedding_server import KEY, EmbeddingProxy, Fault
from undrift.embedders.hashing import HashingEmbedder

TITLES = (
    "Translated novels from Russian",
    "Kept the accounts of a small firm",
    "Nurse in intensive care",
)


def jobs(*titles: str) -> Document:
    """A profile with these experiences."""
    return {"experiences": [{"id": f"exp_{n}", "title": title} for n, title in enumerate(titles)]}


def many(prefix: str, number: int) -> Document:
    """A profile with so many experiences, none of which another profile has."""
    return experiences(*(f"{prefix}_{n}" for n in range(number)))


@pytest.fixture
def openai_shell(shell: Shell, embedding_proxy: EmbeddingProxy) -> Shell:
    """A shell whose embedder is a server on this machine."""
    shell.variables |= {
        "UNDRIFT_EMBEDDER": "openai:e5-small",
        "UNDRIFT_EMBEDDER__BASE_URL": embedding_proxy.url,
        "UNDRIFT_EMBEDDER__API_KEY": KEY,
        "UNDRIFT_EMBEDDER__DIMENSION": "384",
    }
    return shell


def test_sync_and_search_work_over_a_server(
    openai_shell: Shell, embedding_proxy: EmbeddingProxy
) -> None:
    """The installed program, in processes of its own; a paraphrase finds its entry."""
    openai_shell.put(123, jobs(*TITLES))
    ran = openai_shell.program("undrift", "sync", "--user-id", "123")
    assert ran.code == 0, ran.err
    assert "openai/e5-small@localhost:384:l2" in ran.err
    assert embedding_proxy.answered == 4  # one of them is sent twice
    found = openai_shell.program(
        "undrift", "search", "--user-id", "123", "bookkeeping", "--output", "json"
    )
    assert found.code == 0, found.err
    assert found.document["hits"][0]["id"] == "experience:exp_1"
    assert openai_shell.program("undrift", "check", "--all").code == 0
    assert embedding_proxy.asked == [4, 1]


def test_a_check_and_a_dry_run_ask_the_server_nothing(
    openai_shell: Shell, embedding_proxy: EmbeddingProxy
) -> None:
    """The cost is told in texts and tokens before it is paid; the control pays it."""
    openai_shell.put(123, jobs(*TITLES))
    assert openai_shell.undrift("check", "--all").code == 1
    ran = openai_shell.undrift("sync", "--all", "--dry-run", "--output", "json")
    assert ran.code == 1
    (owner,) = ran.document["owners"]
    assert owner["cost"]["texts"] == 3
    assert owner["cost"]["tokens"] > 10
    assert embedding_proxy.requests == []
    assert openai_shell.undrift("sync", "--all").code == 0
    assert embedding_proxy.asked == [4]


def test_the_budget_is_kept_at_the_server(
    openai_shell: Shell, embedding_proxy: EmbeddingProxy
) -> None:
    """No text beyond it is sent, but one of several twice; without one, all are."""
    openai_shell.put(123, jobs(*TITLES))
    ran = openai_shell.undrift("sync", "--all", "--max-embeddings", "2")
    assert ran.code == 5
    assert embedding_proxy.asked == [3]
    assert openai_shell.undrift("sync", "--all").code == 0
    assert embedding_proxy.asked == [3, 1]


@pytest.mark.usefixtures("without_waits")
def test_a_server_that_fails_in_the_middle_costs_only_the_rest(
    openai_shell: Shell, embedding_proxy: EmbeddingProxy
) -> None:
    """Exit 1, what was written stays, and the next run embeds what is missing and no more."""
    openai_shell.put(1, many("a", 140))
    openai_shell.put(2, many("b", 140))
    embedding_proxy.when(
        lambda texts: Fault(status=503) if any("b_139" in text for text in texts) else None
    )
    ran = openai_shell.undrift("sync", "--all", "--output", "json")
    assert ran.code == 1
    outcomes = {owner["owner_id"]: owner["outcome"] for owner in ran.document["owners"]}
    assert outcomes == {"1": "in_sync", "2": "failed"}
    assert "again later" in ran.errors[0][2]
    assert openai_shell.undrift("check", "--user-id", "1").code == 0
    embedding_proxy.always(None)
    before = embedding_proxy.answered
    assert openai_shell.undrift("sync", "--all").code == 0
    assert embedding_proxy.answered - before == 141
    assert openai_shell.undrift("check", "--all").code == 0


def test_one_text_that_the_server_refuses_fails_alone(
    openai_shell: Shell, embedding_proxy: EmbeddingProxy
) -> None:
    """Its neighbours are written and found; the run says that one is missing."""
    openai_shell.put(123, jobs(*TITLES))
    embedding_proxy.when(
        lambda texts: Fault(status=400) if any("Nurse" in text for text in texts) else None
    )
    assert openai_shell.undrift("sync", "--all").code == 1
    status = openai_shell.undrift("check", "--user-id", "123", "--diff")
    assert status.code == 1
    assert "+ experience:exp_2" in status.out
    assert "exp_0" not in status.out
    embedding_proxy.always(None)
    assert openai_shell.undrift("sync", "--all").code == 1  # it is parked for a minute
    assert openai_shell.undrift("sync", "--all", "--retry-parked").code == 0


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        (Fault(status=401, error={"message": f"Incorrect API key: {KEY}"}), "accept the key"),
        (Fault(status=404), "does not know the model"),
        (Fault(status=429, error={"code": "insufficient_quota"}), "no credit"),
    ],
)
@pytest.mark.usefixtures("without_waits")
def test_what_only_a_person_can_mend_ends_with_exit_2(
    openai_shell: Shell, embedding_proxy: EmbeddingProxy, fault: Fault, what: str
) -> None:
    """In three parts, at every level of detail without text or key."""
    openai_shell.put(123, jobs(*TITLES))
    embedding_proxy.always(fault)
    ran = openai_shell.program("undrift", "sync", "--all", "-v")
    assert ran.code == 2
    assert what in ran.error[0]
    for secret in (KEY, *TITLES):
        assert secret not in ran.err + ran.out
    assert "Traceback" not in ran.err


def test_a_store_of_another_dimension_is_told_before_anything_is_sent(
    openai_shell: Shell, embedding_proxy: EmbeddingProxy
) -> None:
    """The configured dimension and the store's never differ silently."""
    openai_shell.put(123, jobs(*TITLES))
    hashing = {
        "UNDRIFT_EMBEDDER": f"hashing:{HashingEmbedder(16).dimension}",
        "UNDRIFT_EMBEDDER__DIMENSION": "16",
    }
    assert openai_shell.undrift("sync", "--all", **hashing).code == 0
    for command in ("check", "sync"):
        ran = openai_shell.undrift(command, "--all")
        assert ran.code == 2
        assert "another dimension" in ran.error[0]
    assert embedding_proxy.requests == []
    ran = openai_shell.undrift("sync", "--all", UNDRIFT_EMBEDDER="hashing:16")
    assert ran.code == 2
    assert "makes no vectors of 384" in ran.error[0]
