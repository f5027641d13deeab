"""Paths into a document: what they reach, and what they refuse."""

from __future__ import annotations

import pytest

from support.rendering import note
from undrift.errors import ConfigError, InvalidDocument
from undrift.ports import Element
from undrift.sources.paths import PathTree


def collected(document: dict[str, object], *paths: str) -> list[list[Element]]:
    """The elements of each path."""
    tree = PathTree([note(path=path) for path in paths])
    found: list[list[Element]] = [[] for _ in range(tree.spec_count)]
    tree.collect("ann", document, found)
    return found


def fields(document: dict[str, object], path: str) -> list[object]:
    """The fields of the elements of one path."""
    (elements,) = collected(document, path)
    return [element.fields for element in elements]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("jobs[*]", [{"id": 1, "parts": [{"id": 2}, None, "x"]}, {"id": 3}]),
        ("jobs[*].parts[*]", [{"id": 2}, {"value": "x"}]),
        ("jobs[*].missing[*]", []),
        ("missing[*].parts[*]", []),
        ("person", [{"name": "Ann", "tags": ["a", "b"]}]),
        ("person.name", [{"value": "Ann"}]),
        ("person.tags[*]", [{"value": "a"}, {"value": "b"}]),
        ("nothing", []),
        ("nothing[*]", []),
        ("nothing.more[*]", []),
    ],
)
def test_path_reaches_its_elements(path: str, found: list[object]) -> None:
    """Every element of a list, or the one value; what is missing or null is nothing."""
    document: dict[str, object] = {
        "jobs": [{"id": 1, "parts": [{"id": 2}, None, "x"]}, None, {"id": 3}],
        "person": {"name": "Ann", "tags": ["a", "b"]},
        "nothing": None,
    }
    assert fields(document, path) == found


def test_root_is_the_document_itself() -> None:
    """`$` is one element with the document's own fields."""
    document: dict[str, object] = {"name": "Ann"}
    assert fields(document, "$") == [document]
    assert fields({}, "$") == [{}]


def test_child_knows_the_very_element_around_it() -> None:
    """All paths are walked together, whichever is configured first."""
    document: dict[str, object] = {"jobs": [{"parts": [{"more": [1]}]}, {"parts": [{}]}]}
    more, parts, jobs = collected(
        document, "jobs[*].parts[*].more[*]", "jobs[*].parts[*]", "jobs[*]"
    )
    assert [part.parent for part in parts] == jobs
    assert [element.parent for element in more] == parts[:1]
    assert [job.parent for job in jobs] == [None, None]


def test_parent_is_the_nearest_list_element_or_entity() -> None:
    """An object on the way is no parent unless it is an entity itself."""
    document: dict[str, object] = {"jobs": [{"team": {"parts": [{}]}}]}
    jobs, parts = collected(document, "jobs[*]", "jobs[*].team.parts[*]")
    assert [part.parent for part in parts] == jobs
    jobs, teams, parts = collected(document, "jobs[*]", "jobs[*].team", "jobs[*].team.parts[*]")
    assert [part.parent for part in parts] == teams
    assert [team.parent for team in teams] == jobs


def test_several_kinds_may_share_a_path() -> None:
    """Each gets every element."""
    one, other = collected({"jobs": [{"id": 1}, {"id": 2}]}, "jobs[*]", "jobs[*]")
    assert [e.fields for e in one] == [e.fields for e in other] == [{"id": 1}, {"id": 2}]


def test_rows_of_one_owner_add_up() -> None:
    """A second document's elements come behind the first's."""
    tree = PathTree([note(path="jobs[*]")])
    found: list[list[Element]] = [[]]
    tree.collect("ann", {"jobs": [{"id": 1}]}, found)
    tree.collect("ann", {"jobs": [{"id": 2}]}, found)
    assert [element.fields for element in found[0]] == [{"id": 1}, {"id": 2}]


@pytest.mark.parametrize(
    ("document", "path", "name", "found"),
    [
        ({"jobs": {"id": 1}}, "jobs[*]", "jobs", "dict"),
        ({"jobs": "[]"}, "jobs[*]", "jobs", "str"),
        ({"jobs": False}, "jobs[*]", "jobs", "bool"),
        ({"jobs": 0}, "jobs[*]", "jobs", "int"),
        ({"jobs": [[1]]}, "jobs[*]", "jobs", "list"),
        ({"jobs": [{"parts": "x"}]}, "jobs[*].parts[*]", "parts", "str"),
        ({"person": [1]}, "person", "person", "list"),
        ({"person": "Ann"}, "person.tags[*]", "person", "str"),
        ({"person": 1.5}, "person.name", "person", "float"),
    ],
)
def test_value_of_another_shape_is_that_owners_error(
    document: dict[str, object], path: str, name: str, found: str
) -> None:
    """It is never taken for an empty list: that would delete the owner's vectors."""
    with pytest.raises(InvalidDocument) as caught:
        collected(document, path)
    assert caught.value.owner_id == "ann"
    assert repr(name) in caught.value.why
    assert found in caught.value.why


@pytest.mark.parametrize(
    "path",
    [
        "",
        ".",
        "jobs[*].",
        ".jobs[*]",
        "jobs..parts",
        "jobs[0]",
        "jobs[]",
        "jobs[*",
        "jobs*]",
        "[*]",
        "jobs[*][*]",
        "jobs[*]parts",
        "jobs[**]",
    ],
)
def test_malformed_path_is_a_configuration_error(path: str) -> None:
    """The kind and the path are named, and how to write it."""
    with pytest.raises(ConfigError) as caught:
        PathTree([note(path=path)])
    assert repr(path) in caught.value.what
    assert "'note'" in caught.value.what
    assert "[*]" in caught.value.fix


def test_path_from_the_root_does_not_silently_find_nothing() -> None:
    """`$.jobs[*]` is how JSONPath writes it: it is understood or refused, never an empty source."""
    try:
        found = fields({"jobs": [{"id": 1}]}, "$.jobs[*]")
    except ConfigError:
        return
    assert found == [{"id": 1}]


def test_names_may_hold_any_other_character() -> None:
    """Spaces, dashes and accents are part of a name."""
    assert fields({"Berufs-Erfahrung é": [{"id": 1}]}, "Berufs-Erfahrung é[*]") == [{"id": 1}]
