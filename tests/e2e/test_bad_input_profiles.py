"""Bad input: documents that are none, ids given twice, texts and ids that no store takes as is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from support.bad_input import (
    CHECKS,
    OWNER,
    SEARCH,
    SYNCS,
    BothSides,
    assert_clean,
    assert_three_parts,
    drifted,
)
from support.cli import Ran, Shell, experiences

CALLS = (CHECKS[0], CHECKS[2], SYNCS[1], SYNCS[3], SYNCS[4], SEARCH)

SECRET = "zebra crossing"
"""Stands in every broken profile: its text is shown in no output but a search's hits."""

ACME = {"title": f"Title {SECRET}", "company": "Acme"}
TWICE = [{"id": "same", **ACME}, {"id": "same", **ACME, "company": "Other"}]

BROKEN = {
    "invalid JSON": (f'{{"experiences": [{{"title": "{SECRET}"', "it is not valid JSON"),
    "half a document": (f'{{"experiences": "{SECRET}"}} and more', "it is not valid JSON"),
    "no number": ('{"experiences": [NaN]}', "it is not valid JSON"),
    "empty": ("", "it is not valid JSON"),
    "NULL": (None, "NULL"),
    "null": ("null", "NULL"),
    "a list": (json.dumps([{"title": SECRET}]), "list"),
    "a string": (json.dumps(SECRET), "str"),
    "a number": ("7", "a JSON number"),
    "no list inside": (json.dumps({"experiences": {"a": SECRET}}), "experiences"),
    "ids given twice": (json.dumps({"experiences": TWICE}), "same"),
    "NUL in an id": (json.dumps({"experiences": [{"id": "a\0b", **ACME}]}), "NUL"),
    "half a pair in an id": (json.dumps({"experiences": [{"id": "a\ud800", **ACME}]}), "surrogate"),
    "endless id": (json.dumps({"experiences": [{"id": "x" * 2_000, **ACME}]}), "longer than"),
}


@pytest.fixture
def loose_shell(any_shell: Shell) -> Shell:
    """A shell whose documents may hold anything: a text column."""
    if any_shell.source.is_postgres:
        any_shell.source.run("ALTER TABLE profiles ALTER COLUMN filtered_data TYPE text")
    return any_shell


def put(shell: Shell, owner: int, raw: str | None) -> None:
    """Make *raw* the owner's document, as it is."""
    shell.source.run(
        "UPDATE profiles SET filtered_data = :raw WHERE user_id = :owner", raw=raw, owner=owner
    )


def records(shell: Shell, owner: int) -> Mapping[str, Any]:
    """The owner's records."""
    found = BothSides(shell).rows().store
    return {key: row for key, row in found.items() if row["owner_id"] == str(owner)}


@pytest.mark.parametrize("case", BROKEN)
def test_profile_that_is_no_document_is_unknown_and_stops_nobody_else(
    loose_shell: Shell, case: str
) -> None:
    """Exit 3: what cannot be read is not absent. Its records stay; the others are repaired."""
    raw, why = BROKEN[case]
    drifted(loose_shell)
    put(loose_shell, OWNER, raw)
    kept = records(loose_shell, OWNER)
    source = BothSides(loose_shell).rows().source
    assert len(kept) == 2

    for call in CALLS:
        ran = loose_shell(call.program, *call.arguments)
        assert ran.code == 3, (str(call), ran.err)
        assert_three_parts(ran, SECRET)
        found = ran.error if "--all" not in call.arguments else ran.errors[0]
        assert found[0] == f"The document of user {OWNER} cannot be read"
        assert why in found[1]
        assert records(loose_shell, OWNER) == kept

    assert BothSides(loose_shell).rows().source == source
    assert loose_shell.undrift("check", "--user-id=2", "--user-id=3").code == 0


def test_ids_given_twice_are_harmless_where_they_say_the_same(any_shell: Shell) -> None:
    """One entity, written twice into the profile, is one entity."""
    any_shell.put(OWNER, {"experiences": [TWICE[0], TWICE[0]]})
    assert any_shell.undrift("sync", "--all").code == 0
    assert len(records(any_shell, OWNER)) == 1


def test_entity_without_text_wants_no_record(any_shell: Shell) -> None:
    """Exit 0, and it is counted: an empty text would be found by every query."""
    any_shell.put(OWNER, {"experiences": [ACME], "skills": ["", {"name": None}, {"name": "  "}]})
    ran = any_shell.undrift("sync", "--all")
    assert_clean(ran, SECRET)
    assert ran.code == 0
    assert [row["kind"] for row in records(any_shell, OWNER).values()] == ["experience"]
    checked = any_shell.undrift("check", f"--user-id={OWNER}")
    assert checked.code == 0
    assert "  - Without text: " in checked.out


def test_text_of_ten_megabytes_is_compared_whole_and_embedded_in_part(any_shell: Shell) -> None:
    """Exit 0; a change of its last letter is seen, and no output but a hit holds any of it."""
    text = f"{SECRET} " * (10 * 1024 * 1024 // len(f"{SECRET} "))
    any_shell.put(OWNER, {"experiences": [{"id": "long", "title": "Long", "description": text}]})
    any_shell.put(2, experiences("exp_2"))
    for arguments in (("sync", "--all", "-v"), ("check", "--all", "-v"), ("sync", "--all")):
        ran = any_shell.undrift(*arguments)
        assert_clean(ran, SECRET)
        assert ran.code == 0
    (record,) = records(any_shell, OWNER).values()
    assert record["text"] == f"Long. {text}"[:20_000]
    hit = any_shell.undrift("search", "zebra", f"--user-id={OWNER}")
    assert hit.code == 0
    assert len(hit.out) < 1_000
    any_shell.put(OWNER, {"experiences": [{"id": "long", "title": "L", "description": text + "!"}]})
    assert "Content changed: 1" in any_shell.undrift("check", f"--user-id={OWNER}").out


def test_nul_and_half_a_pair_in_a_text_become_replacement_characters(loose_shell: Shell) -> None:
    """Exit 0; the store holds what it can, and a check finds both sides equal."""
    if loose_shell.source.is_postgres:
        loose_shell.source.run(
            "ALTER TABLE profiles ALTER COLUMN filtered_data TYPE json USING filtered_data::json"
        )
    raw = json.dumps({"experiences": [{"id": "odd", "title": "Nul \0 zebra \ud800 crossing"}]})
    loose_shell.source.run("INSERT INTO profiles (user_id) VALUES (1)")
    value = "CAST(:raw AS json)" if loose_shell.source.is_postgres else ":raw"
    loose_shell.source.run(f"UPDATE profiles SET filtered_data = {value}", raw=raw)
    assert loose_shell.undrift("sync", "--all").code == 0
    (record,) = records(loose_shell, OWNER).values()
    assert (
        record["text"] == "Nul \N{REPLACEMENT CHARACTER} zebra \N{REPLACEMENT CHARACTER} crossing"
    )
    checked = loose_shell.undrift("check", "--all", "-v")
    assert checked.code == 0
    assert_clean(checked, "zebra", "crossing")


def test_owner_that_no_store_takes_is_refused_by_name(shell: Shell) -> None:
    """SQLite holds a NUL or half a pair in any column; the others go on."""
    drifted(shell)
    shell.source.run(
        "INSERT INTO profiles VALUES ('a' || char(0) || 'b', '{}'), (CAST(x'61ff' AS text), '{}')"
    )
    for arguments in (("check", "--all"), ("sync", "--all")):
        ran: Ran = shell.undrift(*arguments)
        assert ran.code == 3
        assert_three_parts(ran)
        told = [error for error in ran.errors if "cannot be read" in error[0]]
        assert len(told) == 2
        assert all("holds a NUL or half a surrogate pair" in why for _, why, _ in told)
        assert all("ids are never altered" in fix for _, _, fix in told)
        assert "\0" not in ran.out + ran.err
    assert shell.undrift("check", "--user-id=1", "--user-id=2", "--user-id=3").code == 0
