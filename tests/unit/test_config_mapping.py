"""The `[[entity]]` list: what a known kind need not say, and what cannot be left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from undrift.config import load_settings
from undrift.errors import ConfigError
from undrift.mapping import KIND_DEFAULTS, DocumentTable, Mapping


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file is found but those that a test writes."""
    monkeypatch.chdir(tmp_path)


def mapping_of(toml: str) -> Mapping:
    """The mapping that this file describes."""
    Path("undrift.toml").write_text(toml, encoding="utf-8")
    return load_settings(environ={}).mapping


def refusal(toml: str) -> ConfigError:
    """The error that this file is refused with."""
    with pytest.raises(ConfigError) as caught:
        mapping_of(toml)
    assert caught.value.fix
    return caught.value


def test_known_kind_needs_nothing_but_its_name() -> None:
    """Path, id, key, text, metadata and aliases have defaults."""
    found = mapping_of('[[entity]]\nkind = "skill"')
    assert found.entities == (KIND_DEFAULTS["skill"],)
    assert found.kinds == ("skill",)


def test_every_part_of_a_known_kind_can_be_replaced() -> None:
    """Empty lists count: no key, no metadata."""
    (spec,) = mapping_of(
        '[[entity]]\nkind = "skill"\npath = "abilities[*]"\nid = "uuid"\nkey = []\n'
        'text = "{{ name }}!"\nmetadata = []\n[entity.aliases]\nname = ["label"]'
    ).entities
    assert (spec.path, spec.id, spec.key, spec.metadata) == ("abilities[*]", "uuid", (), ())
    assert (spec.text, spec.aliases) == ("{{ name }}!", {"name": ("label",)})


def test_kind_of_ones_own_needs_a_path_and_a_text() -> None:
    """And no more."""
    (spec,) = mapping_of(
        '[[entity]]\nkind = "note"\npath = "notes[*]"\ntext = "{{ value }}"'
    ).entities
    assert (spec.kind, spec.path, spec.text) == ("note", "notes[*]", "{{ value }}")
    assert (spec.id, spec.key, spec.metadata, spec.aliases) == ("id", (), (), {})


def test_tables_take_the_documents_place() -> None:
    """Every entity has a table; then there is no document table."""
    mapping = mapping_of(
        '[[entity]]\nkind="skill"\ntable="skills"\nowner="uid"\nwhere="hidden = 0"\n'
        '[[entity]]\nkind="note"\ntable="notes"\nowner="uid"\ntext="{{ body }}"'
    )
    assert mapping.documents is None
    skill, other = mapping.entities
    assert (skill.table, skill.owner, skill.where, skill.path) == (
        "skills",
        "uid",
        "hidden = 0",
        None,
    )
    assert skill.text == KIND_DEFAULTS["skill"].text
    assert (other.table, other.path) == ("notes", None)


def test_document_table_can_be_configured() -> None:
    """Table, owner, document and a condition."""
    documents = mapping_of(
        '[source.documents]\ntable="people"\nowner="uid"\ndocument="doc"\nwhere="old = 0"'
    ).documents
    assert documents == DocumentTable(table="people", owner="uid", document="doc", where="old = 0")


@pytest.mark.parametrize(
    ("entity", "reason"),
    [
        ('kind="note"\ntext="x"', "a path into the document, or a table"),
        ('kind="project"', "a path into the document, or a table"),
        ('kind="note"\npath="a"\ntable="b"\nowner="o"\ntext="x"', "and not both"),
        ('kind="skill"\npath="a"\ntable="b"\nowner="o"', "and not both"),
        ('kind="note"\ntable="b"\ntext="x"', "no owner column"),
        ('kind="note"\npath="a"\nowner="o"\ntext="x"', "go with a table only"),
        ('kind="note"\npath="a"\nwhere="o"\ntext="x"', "go with a table only"),
        ('kind="note"\npath="a"', "no text template"),
        ('kind="note"\npath="a"\ntext=""', "no text template"),
    ],
)
def test_incomplete_entity_says_what_it_lacks(entity: str, reason: str) -> None:
    """The kind is named, for there are many."""
    error = refusal(f"[[entity]]\n{entity}")
    assert "of kind" in error.what
    assert reason in error.why


def test_tables_and_paths_do_not_mix() -> None:
    """An owner is in the document table or in the others, never half."""
    error = refusal(
        '[[entity]]\nkind="skill"\n[[entity]]\nkind="note"\ntable="t"\nowner="o"\ntext="x"'
    )
    assert "'note'" in error.why
    assert "document" in error.what


def test_document_table_and_entity_tables_do_not_mix() -> None:
    """It would never be read."""
    error = refusal('[source.documents]\n[[entity]]\nkind="skill"\ntable="t"\nowner="o"')
    assert error.what == "[source.documents] is not used"
