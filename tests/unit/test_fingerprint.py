"""Content identities: what makes two records equal, and where a record lives."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import pairwise
from uuid import RFC_4122, UUID, uuid5

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from undrift import fingerprint as hashes

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
# Digits and colons are what a length prefix is made of.
TRICKY = st.one_of(TEXTS, st.text("0123456789:%é\x00", max_size=6))
RECORDS = st.tuples(TRICKY, TRICKY, TRICKY, TRICKY, TRICKY)
IDENTITIES = st.tuples(TRICKY, TRICKY, TRICKY, TRICKY)
RECORD_FIELDS = ("kind", "entity_id", "owner_id", "text", "metadata_json")


def fingerprint_of(record: Sequence[str]) -> str:
    kind, entity_id, owner_id, text, metadata = record
    return hashes.fingerprint(kind, entity_id, owner_id, text.encode(), metadata)


# --- fingerprints and vector ids --------------------------------------------------------------


@given(RECORDS, RECORDS)
def test_different_records_have_different_fingerprints(
    one: tuple[str, ...], other: tuple[str, ...]
) -> None:
    """Equal fingerprints mean equal records."""
    assume(one != other)
    assert fingerprint_of(one) != fingerprint_of(other)


@given(TRICKY, st.data())
def test_moving_characters_between_fields_changes_the_fingerprint(
    joined: str, data: st.DataObject
) -> None:
    """The same characters divided otherwise over the five fields are another record."""
    places = st.lists(st.integers(0, len(joined)), min_size=4, max_size=4).map(sorted)
    one, other = data.draw(places), data.draw(places)
    assume(one != other)

    def divided(cuts: list[int]) -> list[str]:
        ends = [0, *cuts, len(joined)]
        return [joined[start:end] for start, end in pairwise(ends)]

    assert fingerprint_of(divided(one)) != fingerprint_of(divided(other))


@pytest.mark.parametrize("field", RECORD_FIELDS)
def test_every_field_of_a_record_counts(field: str) -> None:
    """A change of any one field changes the fingerprint."""
    record = dict.fromkeys(RECORD_FIELDS, "same")
    changed = record | {field: "other"}
    assert fingerprint_of(list(record.values())) != fingerprint_of(list(changed.values()))


@given(IDENTITIES)
def test_vector_id_is_a_name_based_uuid(identity: tuple[str, str, str, str]) -> None:
    """It is what `uuid.uuid5` makes of the length-prefixed identity, in canonical spelling."""
    name = "".join(f"{len(part.encode())}:{part}" for part in identity)
    found = UUID(hashes.vector_id(*identity))
    assert found == uuid5(UUID("5f3c2a52-6d0e-5b0c-9a4e-2f1d8f0b7c31"), name)
    assert (found.version, found.variant) == (5, RFC_4122)
    assert str(found) == hashes.vector_id(*identity)


@given(st.sets(IDENTITIES, max_size=30))
def test_vector_ids_do_not_collide(identities: set[tuple[str, str, str, str]]) -> None:
    """No two identities share a record."""
    assert len({hashes.vector_id(*identity) for identity in identities}) == len(identities)


def test_owners_that_look_alike_have_records_of_their_own() -> None:
    """Neither a prefix, a wildcard, an empty name nor an accent leads to another owner's record."""
    owners = ["1", "10", "1%", "1_", "", " ", "1 ", "é", "e\u0301", "１", "ann", "Ann"]
    entities = ["1", "", "0:1"]
    found = {hashes.vector_id("default", owner, "skill", e) for owner in owners for e in entities}
    assert len(found) == len(owners) * len(entities)


def test_format_is_unchanged() -> None:
    """These values are in people's stores: where one changes, FORMAT must change too."""
    assert hashes.FORMAT == "1"
    assert fingerprint_of(["skill", "nk-1", "123", "Gö (expert)", '{"name":"Gö"}']) == (
        "8dcc66c7caf927d72cd53b48d32129f2"
    )
    assert hashes.text_hash("Gö (expert)".encode()) == "3ce015d355de882f945c3c31cf5d7e5e"
    assert hashes.vector_id("default", "123", "skill", "nk-1") == (
        "82baa8dc-3385-5de3-8226-24f36bdc2482"
    )
    assert hashes.mint_id(["Acme", "Engineer", "2019-01"]) == "nk-27275c8005ad338db3ad2fd6"
    assert hashes.mint_id(["Acme"], "0" * 32) == "nk-c9535588402f9db1f97d7196"
    numbers = hashes.canonical_json([1, -0.0, 0.1, 1.0, 1e-7, 1e16, 1e300, 2**53])
    assert numbers == "[1,-0.0,0.1,1.0,1e-7,1e+16,1e+300,9007199254740992]"
    assert hashes.content_digest(["{}", "é"]).hex() == "0994635266b8f6e7a0b13468475be26a"


def test_hashes_have_128_bits() -> None:
    """Text hash, fingerprint and content digest are as wide as the design says."""
    assert len(bytes.fromhex(hashes.text_hash(b""))) == 16
    assert len(bytes.fromhex(fingerprint_of([""] * 5))) == 16
    assert len(hashes.content_digest([])) == 16


@given(st.lists(TRICKY), st.lists(TRICKY))
def test_content_digest_tells_parts_apart(one: list[str], other: list[str]) -> None:
    """Equal digests mean equal parts in equal order."""
    assert (hashes.content_digest(one) == hashes.content_digest(other)) == (one == other)


def test_content_digest_takes_what_no_store_takes() -> None:
    """Raw content is hashed before it is cleaned: lone surrogates are no obstacle."""
    assert hashes.content_digest(["\ud800"]) != hashes.content_digest(["\ufffd"])


# --- minted ids -------------------------------------------------------------------------------


@given(st.lists(TRICKY, min_size=1), st.sampled_from(["", " ", "\n", "\t "]))
def test_white_space_around_a_key_does_not_count(key: list[str], space: str) -> None:
    """Trimming a field in the source does not give its entity another id."""
    assert hashes.mint_id([f"{space}{part}{space}" for part in key]) == hashes.mint_id(key)


@given(st.lists(TEXTS, min_size=2, max_size=4), st.lists(TEXTS, min_size=2, max_size=4))
def test_different_keys_mint_different_ids(one: list[str], other: list[str]) -> None:
    """Equal minted ids mean equal keys."""
    assume([part.strip() for part in one] != [part.strip() for part in other])
    assert hashes.mint_id(one) != hashes.mint_id(other)


def test_content_tells_equal_keys_apart() -> None:
    """The content digest becomes part of the id where it is given."""
    ids = {hashes.mint_id(["SQL"], content) for content in ("", "a", "b")}
    assert len(ids) == 3


@given(st.lists(st.text()))
def test_minted_ids_can_be_stored_whatever_the_key_holds(key: list[str]) -> None:
    """A key of NULs and lone surrogates still gives an id that every store takes."""
    minted = hashes.mint_id(key)
    assert hashes.is_storable_id(minted)
    assert minted.startswith("nk-")


# --- canonical JSON ---------------------------------------------------------------------------

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters(), max_size=4),
    st.text("\x00\ud800\\u0", max_size=4),
)
KEYS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00\ufffd"))
JSON_VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


def reordered(value: object) -> object:
    """*value* with every object's keys in the opposite order."""
    if isinstance(value, dict):
        return {key: reordered(value[key]) for key in reversed(value)}
    return [reordered(item) for item in value] if isinstance(value, list) else value


@given(JSON_VALUES)
def test_canonical_json_does_not_depend_on_the_order_of_keys(value: object) -> None:
    """Equal objects have equal encodings."""
    assert hashes.canonical_json(value) == hashes.canonical_json(reordered(value))


def test_keys_that_only_differ_in_what_cannot_be_stored_do_not_depend_on_their_order() -> None:
    """NUL and U+FFFD become one key; which value it keeps is not the order's to decide."""
    one = {"a\x00": 1, "a\ufffd": 2}
    other = {"a\ufffd": 2, "a\x00": 1}
    assert hashes.canonical_json(one) == hashes.canonical_json(other)


@given(JSON_VALUES)
def test_canonical_json_can_be_stored_everywhere(value: object) -> None:
    """It is UTF-8, strict JSON, and no string in it holds a NUL."""

    def refuse(constant: str) -> object:
        raise AssertionError(constant)

    def strings(value: object) -> list[str]:
        if isinstance(value, str):
            return [value]
        if isinstance(value, dict):
            return [*value, *strings(list(value.values()))]
        return [s for item in value for s in strings(item)] if isinstance(value, list) else []

    encoded = hashes.canonical_json(value)
    encoded.encode()
    decoded = json.loads(encoded, parse_constant=refuse)
    assert not any("\x00" in text for text in strings(decoded))


@given(JSON_VALUES)
def test_canonical_json_is_idempotent(value: object) -> None:
    """What was stored and read back encodes to the same."""
    encoded = hashes.canonical_json(value)
    assert hashes.canonical_json(json.loads(encoded)) == encoded


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        ({"b": 1, "a": [1, 2.5, None, True]}, '{"a":[1,2.5,null,true],"b":1}'),
        ("Zürich ✅", '"Zürich ✅"'),
        ("a\x00b\ud800", '"a\ufffdb\ufffd"'),
        ({"k\x00": ["\udfff"]}, '{"k\ufffd":["\ufffd"]}'),
        ("\\u0000", '"\\\\u0000"'),
        ([float("nan"), float("inf"), -float("inf"), 0.5], "[null,null,null,0.5]"),
        ({"d": date(2020, 3, 1), "n": float("nan")}, '{"d":"2020-03-01","n":null}'),
        (Decimal("1.50"), '"1.50"'),
        (datetime(2020, 3, 1, 12, tzinfo=UTC), '"2020-03-01 12:00:00+00:00"'),
        (UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        (("a", "b"), '["a","b"]'),
        ({2: "a", 1: "b"}, '{"1":"b","2":"a"}'),
        ({2: "a", "1": "b"}, '{"1":"b","2":"a"}'),
        ({(1, 2): "a"}, '{"(1, 2)":"a"}'),
        ({}, "{}"),
    ],
)
def test_values_have_one_encoding(value: object, encoded: str) -> None:
    """What JSON has no word for becomes a string, what no store takes becomes U+FFFD or null."""
    assert hashes.canonical_json(value) == encoded


@pytest.mark.parametrize("dirty", ["\x00", "\ud800"])
@given(value=JSON_VALUES)
@example(value=1e-7)
@example(value={"b": 2**70, "a": 1e22})
def test_value_that_must_be_cleaned_encodes_like_its_clean_twin(dirty: str, value: object) -> None:
    """What stands beside it is spelled as always, numbers above all."""
    assert hashes.canonical_json([value, dirty]) == hashes.canonical_json([value, "\ufffd"])


# --- texts and ids ----------------------------------------------------------------------------


@given(st.text(st.characters()))
def test_storable_text_replaces_nothing_but_what_no_store_takes(text: str) -> None:
    """The length stays, every other character stays, and the result is UTF-8 without NUL."""
    stored = hashes.storable_text(text)
    stored.encode()
    assert "\x00" not in stored
    assert len(stored) == len(text)
    assert all(
        new == old or (new == "\ufffd" and (old == "\x00" or "\ud800" <= old <= "\udfff"))
        for old, new in zip(text, stored, strict=True)
    )
    assert hashes.storable_text(stored) == stored


@pytest.mark.parametrize("value", ["", "exp_9", "1%", "é✅", "\U0001f600", "'; DROP TABLE", "\n"])
def test_ids_are_taken_as_they_are(value: str) -> None:
    """Anything but NUL and lone surrogates is an id."""
    assert hashes.is_storable_id(value)


@pytest.mark.parametrize("value", ["\x00", "a\x00b", "\ud800", "ok\udfff"])
def test_ids_that_no_store_takes_are_known(value: str) -> None:
    """NUL and half a surrogate pair are not storable."""
    assert not hashes.is_storable_id(value)
