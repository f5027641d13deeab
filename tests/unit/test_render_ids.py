"""Ids: given ones are kept or refused, minted ones never depend on an array's order."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from random import Random
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.rendering import entities_of, note, rendered, texts_of, the_entity
from undrift.errors import InvalidDocument
from undrift.fingerprint import mint_id
from undrift.mapping import EntitySpec

KEYED = note(key=("text",), text="{{ text }} {{ more }}")
PART = note(kind="part", path="notes[*].parts[*]", key=("parent.id", "text"))


def ids(notes: list[object], *entities: EntitySpec) -> list[str]:
    """The ids of these notes."""
    wanted = rendered({"notes": notes}, *(entities or (KEYED,)))
    return [entity.entity_id for entity in entities_of(wanted, "note")]


# --- given ids --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_id", "entity_id"),
    [
        ("exp_9", "exp_9"),
        (" exp_9 ", " exp_9 "),
        ("é/✅:1%", "é/✅:1%"),
        ("'; DROP TABLE vectors; --", "'; DROP TABLE vectors; --"),
        (7, "7"),
        (0, "0"),
        (-(2**70), str(-(2**70))),
        ("0", "0"),
        ("007", "007"),
        ("x" * 1000, "x" * 1000),
        (Decimal("1.50"), "1.50"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (date(2020, 3, 1), "2020-03-01"),
    ],
)
def test_given_id_is_kept(given_id: object, entity_id: str) -> None:
    """Strings as they are, numbers and the database's own types as they print."""
    assert ids([{"id": given_id, "text": "A"}]) == [entity_id]


@pytest.mark.parametrize("given_id", [1.0, 0.5, True, False, ["a"], [], {"a": 1}, {}])
def test_id_that_has_no_one_spelling_is_refused(given_id: object) -> None:
    """A float, a boolean, a list or an object is no id, whatever it holds."""
    with pytest.raises(InvalidDocument) as caught:
        ids([{"id": given_id, "text": "A"}])
    assert caught.value.owner_id == "ann"
    assert "note" in caught.value.why
    assert type(given_id).__name__ in caught.value.why


@pytest.mark.parametrize("given_id", ["a\x00b", "\ud800", "x\udfff" * 400, "x" * 500 + "\x00"])
def test_id_that_no_store_takes_is_refused_by_name(given_id: str) -> None:
    """Ids are never altered; the message that names it can be printed."""
    with pytest.raises(InvalidDocument, match="NUL or half a surrogate") as caught:
        ids([{"id": given_id, "text": "A"}])
    str(caught.value).encode()
    assert "id of one note" in caught.value.why


@pytest.mark.parametrize("given_id", ["x" * 1001, "é" * 501, 10**1000])
def test_too_long_id_is_refused(given_id: object) -> None:
    """The limit is in bytes, so that every store's index takes it."""
    with pytest.raises(InvalidDocument, match="1000 bytes") as caught:
        ids([{"id": given_id, "text": "A"}])
    assert caught.value.owner_id == "ann"


def test_error_about_a_long_id_names_the_whole_owner() -> None:
    """The owner whose id is long itself is still found by the error's owner_id."""
    owner = "o" * 400
    with pytest.raises(InvalidDocument) as caught:
        rendered({"notes": [{"id": "x" * 1001, "text": "A"}]}, KEYED, owner_id=owner)
    assert caught.value.owner_id == owner


@pytest.mark.parametrize("given_id", [None, ""])
def test_element_without_an_id_gets_one_from_its_key(given_id: str | None) -> None:
    """Null and the empty string are no ids."""
    minted = ids([{"text": "A"}])
    assert minted == [mint_id(["A"])]
    assert ids([{"id": given_id, "text": "A"}]) == minted


def test_template_of_an_id_is_rendered() -> None:
    """An id may be put together; one that renders to nothing is none."""
    spec = note(id="{{ a }}{% if b %}-{{ b }}{% endif %}", key=("text",))
    assert ids([{"a": "x", "b": 1, "text": "A"}], spec) == ["x-1"]
    assert ids([{"a": " x ", "text": "A"}], spec) == ["x"]
    assert ids([{"text": "A"}], spec) == [mint_id(["A"])]


def test_template_of_a_key_is_rendered() -> None:
    """A part of a key may be a template too, and missing fields are empty."""
    spec = note(key=("{{ text | lower }}", "year", "{{ missing }}"))
    assert ids([{"text": "A", "year": 2020}], spec) == [mint_id(["a", "2020", ""])]


def test_aliases_reach_the_key() -> None:
    """The same job is the same entity by whichever name its fields go."""
    one = rendered({"experiences": [{"title": "E", "company": "A", "start": "2019"}]})
    other = rendered({"experiences": [{"position": "E", "organization": "A", "startDate": "2019"}]})
    assert the_entity(one).entity_id == the_entity(other).entity_id
    assert the_entity(one).entity_id == mint_id(["A", "E", "2019"])


def test_explicit_id_given_twice_is_refused() -> None:
    """Two contents under one id: it cannot be told which is true."""
    with pytest.raises(InvalidDocument, match="'1'") as caught:
        ids([{"id": 1, "text": "A"}, {"id": "1", "text": "B"}])
    assert "note" in caught.value.why
    assert "'A'" not in str(caught.value)


def test_explicit_id_given_twice_to_a_text_and_to_none_is_refused() -> None:
    """An entity cannot be wanted and not wanted at once."""
    for notes in ([{"id": 1, "text": "A"}, {"id": 1}], [{"id": 1}, {"id": 1, "text": "A"}]):
        with pytest.raises(InvalidDocument):
            ids([*notes])


def test_same_content_under_the_same_id_is_one_entity() -> None:
    """A repetition is no contradiction."""
    wanted = rendered({"notes": [{"id": 1, "text": "A"}, {"id": 1, "text": "A"}]}, KEYED)
    assert len(wanted.entities) == 1
    assert dict(wanted.counts) == {"note": 1}


def test_ids_are_unique_within_a_kind_only() -> None:
    """Two kinds may use the same id."""
    other = note(kind="other", path="others[*]")
    wanted = rendered(
        {"notes": [{"id": 1, "text": "A"}], "others": [{"id": 1, "text": "B"}]}, KEYED, other
    )
    assert sorted(wanted.entities) == [("note", "1"), ("other", "1")]


def test_ids_are_unique_within_a_kind_over_all_its_paths() -> None:
    """Two specs of one kind share their ids."""
    other = note(path="others[*]")
    with pytest.raises(InvalidDocument):
        rendered(
            {"notes": [{"id": 1, "text": "A"}], "others": [{"id": 1, "text": "B"}]}, KEYED, other
        )


# --- minted ids -------------------------------------------------------------------------------

WORDS = st.sampled_from(["A", "B", " A", "", "a"])
NOTES = st.fixed_dictionaries({"text": WORDS}, optional={"more": WORDS, "unseen": WORDS})
PARENTS = st.fixed_dictionaries(
    {"text": WORDS}, optional={"more": WORDS, "parts": st.lists(NOTES, max_size=3)}
)


def shuffled(value: object, random: Random) -> object:
    """*value* with every list in another order."""
    if isinstance(value, dict):
        return {key: shuffled(item, random) for key, item in value.items()}
    if isinstance(value, list):
        return random.sample([shuffled(item, random) for item in value], len(value))
    return value


@given(st.lists(PARENTS, max_size=5), st.randoms(use_true_random=False))
def test_order_of_a_list_is_never_identity(notes: list[object], random: Random) -> None:
    """Sorting a list in the source changes nothing: not an id, not a text, not a count."""
    wanted = rendered({"notes": notes}, KEYED, PART)
    again = rendered({"notes": shuffled(notes, random)}, KEYED, PART)
    assert wanted.entities == again.entities
    assert wanted.counts == again.counts
    assert wanted.without_text == again.without_text


@given(st.lists(NOTES, max_size=6))
def test_every_distinct_element_is_an_entity(notes: list[dict[str, str]]) -> None:
    """None is lost to another of the same key."""
    distinct = {tuple(sorted(n.items())) for n in notes if (n["text"] + n.get("more", "")).strip()}
    wanted = rendered({"notes": notes}, KEYED)
    # Elements of one key are told apart by all their fields, so as many entities as contents.
    assert len(wanted.entities) == len(distinct)


def test_equal_key_and_equal_content_are_one_entity() -> None:
    """The same line twice in a profile is one thing."""
    assert ids([{"text": "A", "more": "x"}] * 3) == [mint_id(["A"])]


def test_equal_key_and_different_content_are_told_apart_in_any_order() -> None:
    """All of them gain a digest: none keeps the plain id by coming first."""
    one: dict[str, object] = {"text": "A", "more": "x"}
    other: dict[str, object] = {"text": "A", "more": "y"}
    found = ids([one, other])
    assert len(set(found)) == 2
    assert mint_id(["A"]) not in found
    assert ids([other, one]) == found
    assert ids([other, one, other]) == found


def test_equal_key_in_two_lists_of_one_kind_is_told_apart() -> None:
    """No id was given, so nobody could mend it by giving another."""
    other = note(path="others[*]", key=("text",), text="{{ text }} {{ more }}")
    document = {"notes": [{"text": "A", "more": "x"}], "others": [{"text": "A", "more": "y"}]}
    assert texts_of(rendered(document, KEYED, other), "note") == ["A x", "A y"]


def test_equal_key_on_two_levels_of_one_kind_is_told_apart() -> None:
    """As `projects` within an experience and beside it; what is nearer to the root keeps its id."""
    inner = note(path="notes[*].notes[*]", key=("text",), text="{{ text }} {{ more }}")
    alone = {"notes": [{"text": "A", "more": "x"}]}
    nested = {"notes": [{"text": "A", "more": "x", "notes": [{"text": "A", "more": "y"}]}]}
    one, both = rendered(alone, KEYED, inner), rendered(nested, inner, KEYED)
    assert texts_of(both, "note") == ["A x", "A y"]
    assert one.entities.items() <= both.entities.items()


def test_field_that_is_called_id_and_is_none_keeps_its_value() -> None:
    """A kind whose ids are elsewhere may have a field `id` of another meaning."""
    spec = note(id="uuid", key=("text",), text="{{ text }} {{ id }} {{ more }}")
    notes: list[object] = [{"id": 5, "text": "A", "more": more} for more in ("x", "y")]
    assert texts_of(rendered({"notes": notes}, spec), "note") == ["A 5 x", "A 5 y"]


def test_key_without_parts_tells_elements_apart_by_content() -> None:
    """A kind of one's own needs neither id nor key."""
    wanted = rendered({"notes": [{"text": "A"}, {"text": "B"}, {"text": "A"}]}, note())
    assert texts_of(wanted, "note") == ["A", "B"]


def test_field_the_text_does_not_show_tells_elements_apart_too() -> None:
    """Two jobs may read alike and still be two."""
    wanted = rendered({"notes": [{"text": "A", "unseen": 1}, {"text": "A", "unseen": 2}]}, KEYED)
    assert texts_of(wanted, "note") == ["A", "A"]


def test_parents_that_differ_in_their_children_only_are_one() -> None:
    """The children are entities of their own, and all of them stay."""
    notes: list[object] = [
        {"text": "A", "parts": [{"text": "1"}]},
        {"text": "A", "parts": [{"text": "2"}]},
    ]
    wanted = rendered({"notes": notes}, KEYED, PART)
    assert texts_of(wanted, "note") == ["A"]
    assert texts_of(wanted, "part") == ["1", "2"]


def test_text_that_shows_its_children_tells_parents_apart() -> None:
    """Then the children are content: one id with two texts would be nobody's fault but ours."""
    spec = note(key=("text",), text="{{ text }}: {{ parts | names }}")
    part = note(kind="part", path="notes[*].parts[*]", key=("parent.id", "name"), text="{{ name }}")
    notes = [{"text": "A", "parts": [{"name": "1"}]}, {"text": "A", "parts": [{"name": "2"}]}]
    assert texts_of(rendered({"notes": notes}, spec, part), "note") == ["A: 1", "A: 2"]


def test_children_of_parents_without_ids_belong_to_their_own_parent() -> None:
    """Equal children of different parents are different entities."""
    notes: list[object] = [
        {"text": "A", "more": more, "parts": [{"text": "P"}]} for more in ("x", "y")
    ]
    wanted = rendered({"notes": notes}, KEYED, PART)
    parents = {entity.entity_id for entity in entities_of(wanted, "note")}
    parts = {entity.entity_id for entity in entities_of(wanted, "part")}
    assert parts == {mint_id([parent, "P"]) for parent in parents}
    assert len(parts) == 2


def test_changing_what_is_no_key_keeps_the_id() -> None:
    """A new description is a change, not another entity."""
    before = rendered({"experiences": [{"title": "E", "company": "A", "description": "old"}]})
    after = rendered({"experiences": [{"title": "E", "company": "A", "description": "new"}]})
    assert the_entity(before).entity_id == the_entity(after).entity_id
    assert the_entity(before).fingerprint != the_entity(after).fingerprint


def test_white_space_in_a_key_keeps_the_id() -> None:
    """A trimmed field is the same thing."""
    assert ids([{"text": "  A\n"}]) == ids([{"text": "A"}])


@pytest.mark.parametrize("value", [1, 1.5, True, ["a"], {"b": 1, "a": 2}])
def test_key_may_be_of_any_type(value: object) -> None:
    """Its canonical JSON stands for it."""
    (one,) = ids([{"text": value, "more": "x"}])
    (other,) = ids([{"text": value, "more": "y"}])
    assert one == other


def test_number_and_its_spelling_are_one_key() -> None:
    """2019 and "2019" are the same year."""
    assert ids([{"text": 2019, "more": "x"}]) == ids([{"text": "2019", "more": "x"}])
