"""What a program reads: one document, or a line for each owner and a last one."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from support.cli import Shell, experiences, origin_drift
from undrift.api import Undrift
from undrift.cli.streams import Stream
from undrift.model import SyncStatus

OWNER_OF_THE_ORIGIN = {
    "owner_id": "123",
    "outcome": "drift",
    "source": {"experience": 4},
    "store": {"experience": 6},
    "missing_ids": ["experience:exp_9"],
    "stale_ids": ["experience:old_1", "experience:old_2", "experience:old_3"],
    "changed_ids": [],
    "wrong_model_ids": [],
    "duplicate_ids": [],
    "orphan_owner": False,
    "without_text": 0,
    "unmanaged": 0,
    "error": None,
}


def without_duration(summary: dict[str, Any]) -> dict[str, Any]:
    duration = summary.pop("duration_seconds")
    assert isinstance(duration, float)
    assert duration >= 0
    return summary


def test_check_of_the_origins_example_is_one_document(any_shell: Shell) -> None:
    """Key for key, in the documented order."""
    origin_drift(any_shell)
    ran = any_shell.undrift("check", "--user-id", "123", "--output", "json")
    document = ran.document
    assert without_duration(document["summary"]) == {
        "checked": 1,
        "in_sync": 0,
        "out_of_sync": 1,
        "in_motion": 0,
        "unknown": 0,
    }
    assert document == {
        "schema_version": "1",
        "command": "check",
        "read": "full",
        "owners": [OWNER_OF_THE_ORIGIN],
        "summary": document["summary"],
    }
    assert list(document) == ["schema_version", "command", "read", "owners", "summary"]
    assert list(document["owners"][0]) == list(OWNER_OF_THE_ORIGIN)
    assert ran.code == 1


def test_sync_tells_what_it_did_beside_what_it_found(any_shell: Shell) -> None:
    """The counts before, the outcome after."""
    origin_drift(any_shell)
    ran = any_shell.undrift("sync", "--user-id", "123", UNDRIFT_OUTPUT="json")
    document = ran.document
    assert document["command"] == "sync"
    assert document["owners"] == [
        {
            **OWNER_OF_THE_ORIGIN,
            "outcome": "in_sync",
            "written": 1,
            "deleted": 3,
            "embedded": 1,
            "verified": True,
        }
    ]
    summary = without_duration(document["summary"])
    assert summary == {"synced": 1, "failed": 0, "embedded": 1, "in_motion": 0, "unknown": 0}
    assert ran.code == 0


def test_document_holds_the_named_owners_and_of_everybody_those_not_in_sync(
    any_shell: Shell,
) -> None:
    """A fleet of a million that is in sync is an empty list."""
    for owner in (1, 2, 3):
        any_shell.put(owner, experiences("exp_1"))
    any_shell.undrift("sync", "--user-id", "1", "--user-id", "2")

    def listed(*arguments: str) -> list[str]:
        document = any_shell.undrift(*arguments, "--output", "json").document
        return [owner["owner_id"] for owner in document["owners"]]

    assert listed("check", "--user-id", "2", "--user-id", "1") == ["2", "1"]
    assert listed("check", "--all") == ["3"]
    assert listed("sync", "--all") == ["3"]
    assert listed("sync", "--all") == []
    assert listed("sync", "--user-id", "1") == ["1"]


def test_lines_hold_every_owner_and_end_with_the_summary(any_shell: Shell) -> None:
    """In sync or not; the last line is the only one with a summary."""
    for owner in (1, 2, 3):
        any_shell.put(owner, experiences("exp_1"))
    any_shell.undrift("sync", "--user-id", "1")
    *owners, last = any_shell.undrift("check", "--all", "--output", "jsonl").lines
    assert {owner["owner_id"]: owner["outcome"] for owner in owners} == {
        "1": "in_sync",
        "2": "drift",
        "3": "drift",
    }
    assert last["command"] == "check"
    assert last["summary"]["checked"] == 3
    assert not any("summary" in owner for owner in owners)


def test_creation_of_the_store_is_told_beside_the_answer(shell: Shell) -> None:
    """On stderr, in every format: the lines hold owners and nothing else."""
    shell.put(1, experiences("exp_1"))
    ran = shell.undrift("sync", "--all", "--output", "jsonl")
    assert "Created the vector store " in ran.err
    assert [line.get("owner_id") for line in ran.lines] == ["1", None]


def test_dry_run_carries_its_cost(shell: Shell) -> None:
    """For each owner and in sum; nothing is written."""
    origin_drift(shell)
    ran = shell.undrift("sync", "--user-id", "123", "--dry-run", "--output", "json")
    cost = {"texts": 1, "tokens": 6, "writes": 1, "deletes": 3}
    (owner,) = ran.document["owners"]
    assert owner["cost"] == cost
    assert (owner["written"], owner["verified"], owner["outcome"]) == (0, False, "drift")
    assert ran.document["dry_run"] is True
    assert ran.document["summary"]["cost"] == cost
    assert ran.document["summary"]["out_of_sync"] == 1
    assert ran.code == 1


def test_notes_and_unknown_users_are_there_when_there_are_any(shell: Shell) -> None:
    """Keys that the examples do not show say something or are absent."""
    shell.put(1, experiences("exp_1"))
    ran = shell.undrift("check", "--user-id", "1", "--user-id", "9", "--output", "json")
    first, second = ran.document["owners"]
    assert first["notes"] == ["store not created yet"]
    assert second["outcome"] == "not_found"
    assert ran.document["summary"]["not_found"] == 1
    assert ran.code == 2


def test_unreadable_document_carries_its_error(shell: Shell) -> None:
    """What, why and fix, and the kind to program against."""
    shell.put(1, "[]")
    (owner,) = shell.undrift("check", "--user-id", "1", "--output", "json").document["owners"]
    assert owner["outcome"] == "unknown"
    assert owner["error"] == {
        "type": "InvalidDocument",
        "what": "The document of user 1 cannot be read",
        "why": "it is a JSON list, not an object; undrift does not take that for an empty profile.",
        "fix": "store an object ({} for an empty profile), or leave the row out by a where "
        "condition",
    }


def test_search_document_joins_hits_and_withholds_the_stale(shell: Shell) -> None:
    """Hits with kind, id, score, text and metadata."""
    shell.put(1, experiences("exp_1", "exp_2"))
    shell.undrift("sync", "--user-id", "1")
    shell.put(1, experiences("exp_1"))
    document = shell.undrift("search", "--user-id", "1", "Title", "--output", "json").document
    (hit,) = document["hits"]
    assert 0 < hit.pop("score") <= 1
    assert hit == {
        "id": "experience:exp_1",
        "kind": "experience",
        "entity_id": "exp_1",
        "text": "Title of exp_1 at Acme",
        "metadata": {"title": "Title of exp_1", "company": "Acme"},
        "changed": False,
    }
    assert (document["owner_id"], document["query"]) == ("1", "Title")
    assert document["stale_ids"] == ["experience:exp_2"]
    *hits, last = shell.undrift("search", "--user-id", "1", "Title", "--output", "jsonl").lines
    assert [line["id"] for line in hits] == ["experience:exp_1"]
    assert last["summary"]["hits"] == 1


def test_ascii_stream_gets_escaped_json_with_nothing_lost(shell: Shell) -> None:
    """An id beyond ASCII is the same id after parsing."""
    shell.put(1, experiences("exp_ü🔍"))
    ran = shell.program(
        "undrift", "check", "--user-id=1", "--output=json", PYTHONIOENCODING="ascii"
    )
    assert ran.out.isascii()
    assert ran.document["owners"][0]["missing_ids"] == ["experience:exp_ü🔍"]


# --- errors -------------------------------------------------------------------------------------


def test_configuration_error_is_a_document_too(shell: Shell) -> None:
    """On stdout for the program, as text on stderr for the person."""
    ran = shell.undrift("check", "--all", "--output", "json", DATABASE_URL="")
    assert ran.document["error"]["type"] == "ConfigError"
    assert ran.document["error"]["what"] == "DATABASE_URL is not set"
    assert ran.document["owners"] == []
    assert ran.document["summary"]["checked"] == 0
    assert ran.error[0] == "DATABASE_URL is not set"
    assert ran.code == 2


@pytest.mark.parametrize("output", ["--output=jsonl", "--output=json"])
def test_usage_error_is_in_the_format_asked_for(shell: Shell, output: str) -> None:
    """Even where the command line could not be parsed."""
    ran = shell.undrift("sync", "--frce", output)
    assert ran.document["command"] == "sync"
    assert ran.document["error"]["type"] == "UsageError"
    assert "did you mean --force?" in ran.document["error"]["why"]
    assert "summary" in ran.document
    assert ran.code == 2


def test_usage_error_of_a_search_is_a_document(shell: Shell) -> None:
    """Without the lists of a check."""
    ran = shell.undrift("search", "--output", "json")
    assert set(ran.document) == {"schema_version", "command", "error"}
    assert ran.code == 2
    empty = shell.undrift("search", "", "--user-id=1", "--output", "json")
    assert empty.document["error"]["what"] == "The query is empty"
    last = shell.undrift("search", "x", "--user-id=1", "--output", "jsonl").lines[-1]
    assert last["error"]["type"] == "OwnerNotFound"
    assert last["summary"]["hits"] == 0


def test_outage_makes_every_named_owner_unknown(shell: Shell) -> None:
    """Each has an answer, and no answer is drift."""
    ran = shell.undrift(
        "check",
        "--user-id=1",
        "--user-id=2",
        "--output=jsonl",
        DATABASE_URL="postgresql://app:hidden@127.0.0.1:1/app",
        VECTOR_URL="sqlite:///vectors.db",
    )
    first, second, last = ran.lines
    assert [(o["owner_id"], o["outcome"]) for o in (first, second)] == [
        ("1", "unknown"),
        ("2", "unknown"),
    ]
    assert first["error"]["type"] == last["error"]["type"] == "SourceUnavailable"
    assert last["summary"]["unknown"] == 2
    assert len(ran.errors) == 1
    assert "hidden" not in ran.out + ran.err
    assert ran.code == 3


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("output", ["json", "jsonl", "text"])
def test_interrupted_run_ends_with_the_summary_so_far(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, code: int, output: str
) -> None:
    """Whole documents and lines, and the signal's own exit code."""
    for owner in (1, 2, 3):
        shell.put(owner, experiences("exp_1"))
    check_owners = Undrift.check_owners

    def interrupted_after_the_first(self: Undrift, owners: Iterable[str]) -> Iterator[SyncStatus]:
        for status in check_owners(self, owners):
            yield status
            signal.raise_signal(number)

    monkeypatch.setattr(Undrift, "check_owners", interrupted_after_the_first)
    ran = shell.undrift("check", "--user-id=1", "--user-id=2", f"--output={output}")
    assert ran.code == code
    assert ran.error[0] == f"Interrupted by {number.name}"
    assert "progress is kept" in ran.error[1]
    if output == "text":
        assert "  - Users checked: 1\n" in ran.out
        return
    last = ran.document if output == "json" else ran.lines[-1]
    assert last["summary"]["checked"] == 1
    assert last["error"]["type"] == "Interruption"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize(
    ("command", "output", "last_word"),
    [
        (["check", "--all"], "json", '"summary"'),
        (["check", "--all"], "jsonl", '"summary"'),
        (["check", "--all"], "text", "Summary:"),
        (["sync", "--all"], "json", '"summary"'),
        (["search", "words", "--user-id=1"], "json", '"hits"'),
        (["doctor", "--read-only"], "json", '"summary"'),
    ],
)
def test_signal_while_the_answer_is_written_waits_for_it(
    shell: Shell,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    code: int,
    command: list[str],
    output: str,
    last_word: str,
) -> None:
    """The answer is whole and the only one, the code is the signal's, and the error says so."""
    shell.put(1, experiences("exp_1"))
    assert shell.undrift("sync", "--all").code == 0
    whole = shell.undrift(*command, f"--output={output}")
    write, signals = Stream.write, [number]

    def interrupted_at_the_end(self: Stream, text: str) -> int:
        if last_word in text and signals:
            signal.raise_signal(signals.pop())
        return write(self, text)

    def interrupted_behind_it(self: Stream, text: str) -> int:
        written = write(self, text)
        if last_word in text and signals:
            signal.raise_signal(signals.pop())
        return written

    is_separate = command[0] != "doctor"  # which writes within its work
    interrupted = interrupted_at_the_end if is_separate else interrupted_behind_it
    monkeypatch.setattr(Stream, "write", interrupted)
    ran = shell.undrift(*command, f"--output={output}")
    assert not signals
    assert ran.code == code
    assert ran.error[0] == f"Interrupted by {number.name}"
    assert without_numbers(ran.out) == without_numbers(whole.out)


def without_numbers(answer: str) -> str:
    return re.sub(r"[\d.]+", "0", answer)
