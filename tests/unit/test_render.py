"""Rendering: parents, scalars, empty texts, hashes and what may be stored."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.rendering import entities_of, mapping_of, note, rendered, texts_of, the_entity
from undrift.errors import InvalidDocument
from undrift.fingerprint import fingerprint, text_hash
from undrift.mapping import KIND_DEFAULTS, MAX_EMBEDDED_CHARACTERS, EntitySpec
from undrift.model import Entity, Outline
from undrift.render import Renderer
from undrift.sources.documents import DocumentContent, GivenProfile
from undrift.sources.paths import PathTree

PART = note(kind="part", path="notes[*].parts[*]", text="{{ text }} in {{ parent.text }}")
DETAIL = note(
    kind="detail",
    path="notes[*].parts[*].details[*]",
    text="{{ text }} in {{ parent.text }} in {{ parent.parent.text }}",
)


def noted(text: str, **fields: object) -> Entity:
    """The entity of one note."""
    spec = note(metadata=tuple(sorted(fields)))
    return the_entity(rendered({"notes": [{"id": 1, "text": text, **fields}]}, spec))


# --- parents ----------------------------------------------------------------------------------


def test_children_see_the_elements_around_them() -> None:
    """`parent` is the enclosing element, `parent.parent` the one around that."""
    document = {
        "notes": [
            {"id": 1, "text": "A", "parts": [{"id": 1, "text": "B", "details": [{"text": "C"}]}]},
            {"id": 2, "text": "D", "parts": [{"id": 2, "text": "E"}]},
        ]
    }
    wanted = rendered(document, note(), PART, DETAIL)
    assert texts_of(wanted, "part") == ["B in A", "E in D"]
    assert texts_of(wanted, "detail") == ["C in B in A"]


def test_order_of_the_entities_in_the_configuration_does_not_matter() -> None:
    """A child may be configured before its parent."""
    document = {"notes": [{"text": "A", "parts": [{"text": "B", "details": [{"text": "C"}]}]}]}
    one = rendered(document, note(), PART, DETAIL)
    other = rendered(document, DETAIL, PART, note())
    assert one.entities == other.entities


def test_parent_that_is_no_entity_is_seen_too() -> None:
    """An enclosing element serves its children even where it gets no vector itself."""
    wanted = rendered({"notes": [{"text": "A", "parts": [{"id": 1, "text": "B"}]}]}, PART)
    assert the_entity(wanted).text == "B in A"


def test_elements_around_a_parent_that_is_no_entity_are_seen_too() -> None:
    """However few of the levels are entities."""
    document = {"notes": [{"text": "A", "parts": [{"text": "B", "details": [{"text": "C"}]}]}]}
    assert the_entity(rendered(document, DETAIL)).text == "C in B in A"


def test_parents_aliases_are_resolved() -> None:
    """A child reads the parent's fields by the names of the parent's kind."""
    document = {"notes": [{"body": "A", "parts": [{"text": "B", "details": [{"text": "C"}]}]}]}
    parent = note(aliases={"text": ("body",)})
    wanted = rendered(document, parent, PART, DETAIL)
    assert texts_of(wanted, "part") == ["B in A"]
    assert texts_of(wanted, "detail") == ["C in B in A"]


def test_aliases_of_a_parent_below_an_object_are_resolved() -> None:
    """The enclosing element need not be a list's."""
    job = note(kind="job", path="job", aliases={"text": ("body",)})
    part = note(kind="part", path="job.parts[*]", text="{{ text }} in {{ parent.text }}")
    wanted = rendered({"job": {"body": "A", "parts": [{"text": "B"}]}}, job, part)
    assert texts_of(wanted, "part") == ["B in A"]


def test_parents_id_is_the_id_it_was_given_or_minted() -> None:
    """`parent.id` names the record of the enclosing entity."""
    part = note(kind="part", path="notes[*].parts[*]", metadata=("parent.id",))
    parents = [{"id": 7, "parts": [{"text": "B"}]}, {"text": "A", "parts": [{"text": "C"}]}]
    wanted = rendered({"notes": parents}, note(text="{{ text or 'none' }}", key=("text",)), part)
    found = {str(entity.metadata["parent.id"]) for entity in entities_of(wanted, "part")}
    assert found == {entity.entity_id for entity in entities_of(wanted, "note")}


def test_parents_id_is_read_where_the_parents_kind_keeps_it() -> None:
    """A kind whose ids are in another field than `id`."""
    part = note(kind="part", path="notes[*].parts[*]", metadata=("parent.id",))
    document = {"notes": [{"uuid": "n1", "text": "A", "parts": [{"id": 1, "text": "B"}]}]}
    wanted = rendered(document, note(id="uuid"), part)
    assert wanted.entities["part", "1"].metadata == {"parent.id": "n1"}


def test_two_kinds_from_one_path_have_ids_of_their_own() -> None:
    """The same element may be two entities, each with its own id field."""
    document = {"notes": [{"a": "a1", "b": "b1", "text": "A"}]}
    wanted = rendered(document, note(id="a"), note(kind="other", id="b"))
    assert sorted(wanted.entities) == [("note", "a1"), ("other", "b1")]


def test_one_kind_may_take_two_texts_from_one_element() -> None:
    """As a profile's headline and its summary, both at the root."""
    facts = [
        note(kind="fact", path="$", key=(key,), text=f"{{{{ {key} }}}}", id="no_id")
        for key in ("headline", "summary")
    ]
    wanted = rendered({"headline": "Engineer", "summary": "Ten years"}, *facts)
    assert texts_of(wanted, "fact") == ["Engineer", "Ten years"]


# --- elements and texts -----------------------------------------------------------------------


def test_scalar_element_is_its_value() -> None:
    """A string in a list is an element with the one field `value`."""
    spec = note(text="{{ value }}", key=("value",), metadata=("value",))
    wanted = rendered({"notes": ["A", 7, 1.5, True]}, spec)
    assert texts_of(wanted, "note") == ["1.5", "7", "A", "True"]
    assert {str(e.metadata["value"]) for e in entities_of(wanted, "note")} == set(
        texts_of(wanted, "note")
    )


def test_text_is_trimmed() -> None:
    """White space around a text is nobody's content."""
    assert noted(" \n A \t").text == "A"
    assert noted(" A ").fingerprint == noted("A").fingerprint


@pytest.mark.parametrize("text", [None, "", " \n\t"])
def test_empty_text_wants_no_record_and_is_counted(text: str | None) -> None:
    """Such an entity is in the source all the same."""
    wanted = rendered({"notes": [{"id": 1, "text": text}, {"id": 2, "text": "B"}]}, note())
    assert list(wanted.entities) == [("note", "2")]
    assert dict(wanted.counts) == {"note": 2}
    assert wanted.without_text == 1


def test_equal_empty_elements_count_once() -> None:
    """Two elements that are one entity are one without a text."""
    wanted = rendered({"notes": [{"id": 1}, {"id": 1}]}, note())
    assert dict(wanted.counts) == {"note": 1}
    assert wanted.without_text == 1


def test_what_no_store_takes_is_replaced_before_hashing() -> None:
    """NUL and lone surrogates in text and metadata become U+FFFD, and the hashes agree with it."""
    dirty = noted("A\x00\ud800", title="\udfffB")
    clean = noted("A\ufffd\ufffd", title="\ufffdB")
    assert dirty == clean
    assert dirty.metadata == {"title": "\ufffdB"}


@given(st.text(st.characters()), st.text(st.characters()))
def test_entity_can_be_stored_whatever_the_document_holds(text: str, title: str) -> None:
    """Text and metadata are UTF-8 without NUL."""
    entity = noted(f"<{text}", title=title)
    for stored in (entity.text, str(entity.metadata["title"]), entity.metadata_json):
        assert "\x00" not in stored
        stored.encode()


def test_null_metadata_is_left_out() -> None:
    """A missing field and a null one are the same record."""
    assert noted("A", title=None).metadata == {}
    assert noted("A", title="").metadata == {"title": ""}
    assert noted("A", title=0).metadata == {"title": 0}


def test_metadata_keeps_its_shape() -> None:
    """Lists and objects are stored as they are."""
    value = {"b": [1, {"c": None}], "a": "x"}
    assert noted("A", title=value).metadata == {"title": value}


def test_metadata_reaches_into_objects() -> None:
    """A dotted name is a path, in `parent` and elsewhere."""
    spec = note(metadata=("place.city",))
    entity = the_entity(rendered({"notes": [{"text": "A", "place": {"city": "Rome"}}]}, spec))
    assert entity.metadata == {"place.city": "Rome"}


@pytest.mark.parametrize("field", ["metadata", "key"])
def test_value_nested_too_deeply_concerns_only_its_owner(field: str) -> None:
    """Somebody's absurd document must not end the run of all the others."""
    deep: object = "end"
    for _ in range(100_000):
        deep = [deep]
    spec = note(**{field: ("deep",)})
    with pytest.raises(InvalidDocument):
        rendered({"notes": [{"text": "A", "deep": deep}]}, spec)


@pytest.mark.parametrize("field", ["id", "key", "metadata", "text"])
def test_number_of_thousands_of_digits_concerns_only_its_owner(field: str) -> None:
    """Python refuses to print it; no JSON parser lets it in, a profile given by a program may."""
    settings: dict[str, object] = {"id": "n", "key": ("n",), "metadata": ("n",), "text": "{{ n }}"}
    spec = note(**{field: settings[field]})
    with pytest.raises(InvalidDocument):
        rendered({"notes": [{"text": "A", "n": 10**5_000}]}, spec)


# --- hashes -----------------------------------------------------------------------------------


def test_hashes_are_those_of_what_is_stored() -> None:
    """The fingerprint covers kind, id, owner, text and metadata."""
    entity = noted("A", title="T")
    assert entity.text_hash == text_hash(b"A")
    assert entity.fingerprint == fingerprint("note", "1", "ann", b"A", '{"title":"T"}')


def test_metadata_changes_the_fingerprint_alone() -> None:
    """The vector still belongs to the text."""
    one, other = noted("A", title="T"), noted("A", title="U")
    assert one.fingerprint != other.fingerprint
    assert one.text_hash == other.text_hash


def test_owner_changes_the_fingerprint_alone() -> None:
    """Two owners' equal texts share an embedding, not a record."""
    one = the_entity(rendered({"skills": ["SQL"]}, owner_id="ann"))
    other = the_entity(rendered({"skills": ["SQL"]}, owner_id="bob"))
    assert one.fingerprint != other.fingerprint
    assert one.text_hash == other.text_hash


@pytest.mark.parametrize("letter", ["x", "é", "\U0001f600"])
def test_only_the_beginning_of_a_long_text_is_embedded(letter: str) -> None:
    """text_hash covers 20,000 characters (not bytes), the fingerprint all of them."""
    beginning = letter * MAX_EMBEDDED_CHARACTERS
    whole, longer, other = noted(beginning), noted(beginning + "a"), noted(beginning + "b")
    assert MAX_EMBEDDED_CHARACTERS == 20_000
    assert whole.text_hash == longer.text_hash == other.text_hash == text_hash(beginning.encode())
    assert len({whole.fingerprint, longer.fingerprint, other.fingerprint}) == 3
    assert longer.text == beginning + "a"


def test_change_within_the_beginning_changes_both_hashes() -> None:
    """The last character that is embedded counts."""
    one = noted("x" * (MAX_EMBEDDED_CHARACTERS - 1) + "a" + "tail")
    other = noted("x" * (MAX_EMBEDDED_CHARACTERS - 1) + "b" + "tail")
    assert one.text_hash != other.text_hash
    assert one.fingerprint != other.fingerprint


def test_text_of_ten_megabytes_is_fingerprinted_whole() -> None:
    """A change of its last character is seen, and costs no embedding."""
    long = "lorem ipsum " * 900_000
    one, other = noted(long + "a"), noted(long + "b")
    assert len(one.text) > 10_000_000
    assert one.fingerprint != other.fingerprint
    assert one.text_hash == other.text_hash


# --- owners -----------------------------------------------------------------------------------


@pytest.mark.parametrize("owner_id", ["a\x00b", "\ud800", "x" * 501, "é" * 251])
def test_owner_that_no_store_takes_is_refused_by_name(owner_id: str) -> None:
    """It is unknown, and its error can be printed and stored."""
    with pytest.raises(InvalidDocument) as caught:
        rendered({}, owner_id=owner_id)
    str(caught.value).encode()
    assert "owner id" in caught.value.why


@pytest.mark.parametrize(
    "owner_id", ["", " ", "1%", "'; DROP TABLE profiles", "x" * 500, "é" * 250]
)
def test_owner_is_taken_as_it_is(owner_id: str) -> None:
    """Whatever can be stored is a name."""
    assert the_entity(rendered({"skills": ["SQL"]}, owner_id=owner_id)).owner_id == owner_id


def test_renderer_says_which_fields_a_table_must_have() -> None:
    """Those of texts, ids, keys and metadata, without aliases and without `parent`."""
    spec = EntitySpec(
        kind="note",
        path="notes[*]",
        id="{{ a }}-{{ b }}",
        key=("c", "{{ d }}"),
        text="{{ e }} {{ parent.f }} {% set g = 1 %}{{ g }}",
        metadata=("h", "parent.i", "j.k"),
        aliases={"e": ("z",)},
    )
    (fields,) = Renderer(mapping_of(spec)).fields
    assert fields.all == fields.required == frozenset("abcdehj")


@pytest.mark.parametrize(
    ("settings", "required"),
    [
        ({}, set()),
        ({"text": "{{ name }} {{ years }}"}, {"name", "years"}),
        ({"metadata": ("name", "level", "years")}, {"years"}),
        ({"key": ("name", "years")}, {"years"}),
        ({"id": "uuid"}, set()),
        ({"id": "uuid", "key": ()}, {"uuid"}),
        ({"key": ()}, {"id"}),
        ({"id": "{{ uuid }}"}, {"uuid"}),
    ],
)
def test_kind_with_defaults_requires_what_somebody_asked_for(
    settings: dict[str, object], required: set[str]
) -> None:
    """A default that has no column is passed; a name of one's own that has none is a mistake."""
    spec = replace(KIND_DEFAULTS["skill"], **settings)  # type: ignore[arg-type]
    (fields,) = Renderer(mapping_of(spec)).fields
    assert fields.required == required
    assert fields.required <= fields.all


def test_metadata_that_cannot_be_kept_matters_only_where_there_is_a_text() -> None:
    """What has no text is in no store, and refuses no document."""
    deep: object = []
    for _ in range(100_000):
        deep = [deep]
    spec = note(metadata=("deep",))
    wanted = rendered({"notes": [{"id": 1, "text": "", "deep": deep}]}, spec)
    assert (wanted.entities, wanted.counts, wanted.without_text) == ({}, {"note": 1}, 1)
    with pytest.raises(InvalidDocument, match="nested too deeply"):
        rendered({"notes": [{"id": 1, "text": "A", "deep": deep}]}, spec)


# --- many owners at once --------------------------------------------------------------------------

STRICT = note(text="{{ text }} {{ 12 // share }}")
FINE: dict[str, object] = {
    "notes": [{"id": 1, "text": "A", "share": 3}, {"id": 2, "text": "B", "share": 4}]
}
WITH_PARTS: dict[str, object] = {
    "notes": [
        {"id": 1, "text": "C", "share": 1, "parts": [{"id": n, "text": f"p{n}"} for n in range(3)]},
        {"id": 2, "text": "D", "share": 2, "parts": [{"id": 9, "text": "q"}]},
    ]
}
AMISS: dict[str, dict[str, object]] = {
    "template fails": {"notes": [{"id": 1, "text": "A", "share": 3}, {"id": 2, "share": 0}]},
    "id given twice": {"notes": [{"id": 1, "text": t, "share": 1} for t in "AB"]},
    "no list": {"notes": "none"},
    "id unusable": {"notes": [{"id": [1], "share": 1}]},
    "nothing": {"notes": []},
    "no text": {"notes": [{"id": 1, "text": "", "parts": [{"id": 1}], "share": 2}]},
}


@given(
    st.lists(
        st.sampled_from([FINE, WITH_PARTS, *AMISS.values()]),
        max_size=8,
    )
)
def test_outlines_of_many_are_those_of_each(documents: list[dict[str, object]]) -> None:
    """Whoever is refused, the others are neither refused nor mixed up."""
    mapping = mapping_of(STRICT, PART)
    renderer, paths = Renderer(mapping), PathTree(mapping.entities)

    def outlines(owners: range) -> list[str]:
        contents = [GivenProfile(f"user {owner}", documents[owner], paths) for owner in owners]
        return [repr(found) for found in renderer.outlines(contents)]

    every = range(len(documents))
    assert outlines(every) == [
        found for owner in every for found in outlines(range(owner, owner + 1))
    ]


@pytest.mark.parametrize("amiss", ["template fails", "id given twice", "no list", "id unusable"])
def test_owner_who_is_refused_is_named_among_the_others(amiss: str) -> None:
    """And nothing is said of what was made of it before."""
    mapping = mapping_of(STRICT)
    renderer, paths = Renderer(mapping), PathTree(mapping.entities)
    documents = [FINE, AMISS[amiss], FINE]
    contents = [GivenProfile(f"user{n}", d, paths) for n, d in enumerate(documents)]
    first, refused, last = renderer.outlines(contents)
    assert isinstance(refused, InvalidDocument)
    assert refused.owner_id == "user1"
    assert isinstance(first, Outline)
    assert isinstance(last, Outline)
    assert (first.owner_id, last.owner_id) == ("user0", "user2")
    assert len(first.fingerprints) == len(last.fingerprints) == 2
    assert set(first.fingerprints.values()).isdisjoint(last.fingerprints.values())


def test_owner_beside_one_on_whom_the_template_fails_is_rendered_afresh() -> None:
    """A template that changes what it sees has seen it once already."""
    mapping = mapping_of(note(text="{{ text }} {{ tags.pop() }} {{ 12 // share }}"))
    renderer, paths = Renderer(mapping), PathTree(mapping.entities)
    fine = json.dumps({"notes": [{"id": 1, "text": "A", "share": 3, "tags": ["x", "y"]}]})
    amiss = json.dumps({"notes": [{"id": 1, "text": "A", "share": 0, "tags": ["x", "y"]}]})
    contents = [DocumentContent(o, [d], paths) for o, d in (("a", fine), ("b", amiss))]
    (alone,) = renderer.outlines(contents[:1])
    assert renderer.outlines(contents)[0] == alone


@pytest.mark.parametrize(
    "text",
    [
        "{% set seen = (seen or 0) + 1 %}{{ text }} {{ seen }}",
        "{% set ns = namespace(n=0) %}{% set ns.n = ns.n + 1 %}{{ text }} {{ ns.n }}",
        "{% set next_one = cycler('a', 'b') %}{{ next_one.next() }} {{ text }}",
        "{% macro shown(x) %}{{ x }}!{% endmacro %}{{ shown(text) }}",
    ],
)
def test_template_cannot_tell_whose_text_was_rendered_before(text: str) -> None:
    """What it sets is gone with the element: no owner's text depends on another owner's."""
    mapping = mapping_of(note(text=text))
    renderer, paths = Renderer(mapping), PathTree(mapping.entities)
    contents = [GivenProfile(f"user{number}", FINE, paths) for number in range(3)]
    together = renderer.outlines(contents)
    alone = [outline for content in contents for outline in renderer.outlines([content])]
    assert together == alone
