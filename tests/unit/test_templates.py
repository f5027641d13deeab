"""Templates: what a text may say, what missing data prints, and how a bad one is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.rendering import mapping_of, note, rendered, texts_of, the_entity
from undrift.errors import ConfigError, InvalidDocument
from undrift.mapping import EntitySpec
from undrift.render import Renderer


def text_of(template: str, fields: dict[str, object]) -> str:
    """What *template* makes of one element."""
    wanted = rendered({"notes": [{"id": 1, **fields}]}, note(text="|" + template))
    return the_entity(wanted).text.removeprefix("|")


# --- missing and null -------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [{}, {"title": None}], ids=["missing", "null"])
@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("<{{ title }}>", "<>"),
        ("<{{ title.name.first }}>", "<>"),
        ("<{{ title | default('none') }}>", "<none>"),
        ("<{{ title or 'none' }}>", "<none>"),
        ("<{{ title ~ '!' }}>", "<!>"),
        ("<{{ title | upper }}>", "<>"),
        ("<{{ title | names }}>", "<>"),
        ("<{% if title %}yes{% endif %}>", "<>"),
        ("<{% for word in title %}{{ word }}{% endfor %}>", "<>"),
        ("<{{ parent.title }}>", "<>"),
        ("<{{ parent.parent.title | default('none') }}>", "<none>"),
    ],
)
def test_missing_and_null_print_nothing(
    template: str, text: str, fields: dict[str, object]
) -> None:
    """A field that is not there and one that is null are alike, and `default` works on both."""
    assert text_of(template, fields) == text


@pytest.mark.parametrize("inner", [{}, {"b": None}], ids=["missing", "null"])
@pytest.mark.parametrize("template", ["<{{ a.b }}>", "<{{ a['b'] }}>", "<{{ a.b or '' }}>"])
def test_missing_and_null_inside_an_object_print_nothing(
    template: str, inner: dict[str, object]
) -> None:
    """The same holds below the element's own fields."""
    assert text_of(template, {"a": inner}) == "<>"


@pytest.mark.parametrize("outer", [{}, {"title": None}], ids=["missing", "null"])
@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("<{{ parent.title }}>", "<>"),
        ("<{{ parent.title | default('none') }}>", "<none>"),
        ("<{{ parent.title ~ '!' }}>", "<!>"),
        ("<{{ parent.title | upper }}>", "<>"),
        ("<{{ parent.title.name }}>", "<>"),
    ],
)
def test_missing_and_null_in_the_parent_print_nothing(
    template: str, text: str, outer: dict[str, object]
) -> None:
    """A parent's null field is as missing as the element's own."""
    child = note(kind="part", path="notes[*].parts[*]", text=template)
    wanted = rendered({"notes": [{"id": 1, **outer, "parts": [{"id": 2}]}]}, note(), child)
    assert texts_of(wanted, "part") == [text]


@pytest.mark.parametrize("name", ["items", "values", "keys"])
def test_missing_field_named_like_a_method_prints_nothing(name: str) -> None:
    """`parent.items` means the key: the address of Python's method would differ in every run."""
    child = note(kind="part", path="notes[*].parts[*]", text=f"<{{{{ parent.{name} }}}}>")
    wanted = rendered({"notes": [{"id": 1, "parts": [{"id": 2}]}]}, note(), child)
    assert texts_of(wanted, "part") == ["<>"]


@pytest.mark.parametrize("value", ["Acme", ["Acme"], {"b": 1}, 7], ids=lambda v: type(v).__name__)
@pytest.mark.parametrize("name", ["title", "count", "items", "conjugate"])
def test_text_never_holds_the_address_of_a_method(value: object, name: str) -> None:
    """A text that differs from process to process would drift for ever."""
    assert " at 0x" not in text_of(f"<{{{{ a.{name} }}}}>", {"a": value})


@pytest.mark.parametrize("name", ["items", "values", "title"])
def test_field_named_like_a_method_is_the_field(name: str) -> None:
    """An object's keys win over a dict's methods."""
    assert text_of(f"{{{{ a.{name} }}}}", {"a": {name: "mine"}}) == "mine"


def test_objects_and_strings_can_be_taken_apart() -> None:
    """Jinja's usual calls work: `.items()`, `.split()`, filters and loops."""
    fields: dict[str, object] = {"o": {"b": 1, "a": 2}, "s": "2019-01", "l": ["x", "y"]}
    template = (
        "{% for k, v in o.items() | sort %}{{ k }}{{ v }}{% endfor %} {{ s.split('-')[0] }} "
        "{{ l | join('+') }} {% for x in l %}{{ loop.index }}{{ x }}{% endfor %}"
    )
    assert text_of(template, fields) == "a2b1 2019 x+y 1x2y"


# --- values -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1.5, "1.5"), (False, "False"), ("", ""), ("{{ 7 * 7 }}", "{{ 7 * 7 }}")],
)
def test_values_print_as_they_are(value: object, text: str) -> None:
    """Falsy is not missing, and data is never taken for a template."""
    assert text_of("{{ a }}", {"a": value}) == text


@pytest.mark.parametrize("value", ["<b>&amp;", "a\r\nb", "\x01\x1b[0m"])
def test_text_is_not_escaped(value: str) -> None:
    """A text is no HTML."""
    assert text_of("{{ a }}.", {"a": value}) == f"{value}."


def test_name_of_a_jinja_function_never_prints_an_address() -> None:
    """Whether `range` is the field or nothing, it is the same in every process."""
    assert " at 0x" not in text_of("<{{ range }}>", {"range": "5 km"})


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=5))
def test_every_element_gets_its_own_text(texts: list[str]) -> None:
    """One call renders them all, and no text runs into its neighbour, NULs or not."""
    notes = [{"id": f"n{place}", "text": text} for place, text in enumerate(texts)]
    wanted = rendered({"notes": notes}, note(text="<{{ text }}>"))
    for place, text in enumerate(texts):
        entity = wanted.entities["note", f"n{place}"]
        assert entity.text == f"<{text}>".replace("\x00", "\ufffd")


@pytest.mark.parametrize("count", [1, 2, 3])
def test_text_that_imitates_a_separator_stays_whole(count: int) -> None:
    """No text can end an element: the separator is random, and NULs in data are only data."""
    imitation = "\x00" + "0" * 32 + "\x00"
    notes = [{"id": n, "text": imitation * n} for n in range(1, count + 1)]
    wanted = rendered({"notes": notes}, note())
    assert len(wanted.entities) == count
    for n in range(1, count + 1):
        expected = imitation.replace("\x00", "\ufffd") * n
        assert wanted.entities["note", str(n)].text == expected


def test_constant_text_is_a_text() -> None:
    """A template need not read anything."""
    assert text_of("always", {}) == "always"


@pytest.mark.parametrize(
    "template",
    ["{% set x = a %}{{ x }}", "{%- if a -%} {{ a }} {%- endif -%}", "{# c #}{{ a }}", "{{- a -}}"],
)
def test_jinjas_statements_work(template: str) -> None:
    """Assignments, conditions, comments and white space control."""
    assert text_of(template, {"a": "A"}) == "A"


def test_one_elements_variable_is_not_seen_by_the_next() -> None:
    """Elements are rendered in one call and must not know each other."""
    spec = note(text="{% if text %}{% set last = text %}{% endif %}<{{ last }}>")
    wanted = rendered({"notes": [{"id": 1, "text": "A"}, {"id": 2}]}, spec)
    assert texts_of(wanted, "note") == ["<>", "<A>"]


# --- bad templates ----------------------------------------------------------------------------


def refusal(*entities: EntitySpec) -> ConfigError:
    """The error that these entities' templates are refused with."""
    with pytest.raises(ConfigError) as caught:
        Renderer(mapping_of(*entities))
    return caught.value


@pytest.mark.parametrize(
    "template",
    [
        "{{ title",
        "{% if title %}",
        "{{ title | no_such_filter }}",
        "{% endfor %}{% for x in y %}",
        "{{ }}",
        "{% include 'other' %}",
        "{% extends 'other' %}",
        "{% import 'other' as o %}",
        "{% block b %}{{ title }}{% endblock %}",
        "{%- block b %}{{ title }}{% endblock %}",
        "{%block b%}{{ title }}{%endblock%}",
        "{{ loop }}",
    ],
)
def test_unusable_template_is_a_configuration_error(template: str) -> None:
    """It is found when the configuration is read, and the kind is named."""
    error = refusal(note(text=template))
    assert "note" in error.what
    assert error.fix


@pytest.mark.parametrize("setting", ["id", "key"])
def test_unusable_template_of_an_id_is_a_configuration_error(setting: str) -> None:
    """Ids and keys may be templates too."""
    value: object = "{{ a" if setting == "id" else ("{{ a",)
    assert "note" in refusal(note(**{setting: value})).what


def test_error_names_the_line() -> None:
    """A long template is easier to mend so."""
    assert "line 3" in refusal(note(text="{{ a }}\n\n{{ b | no_such_filter }}")).why


def test_template_that_fails_on_one_owner_names_the_kind() -> None:
    """That owner is unknown; the value that it failed on is not told."""
    other = note(kind="other", path="others[*]", text="{{ text }}")
    with pytest.raises(InvalidDocument) as caught:
        rendered(
            {"notes": [{"id": 1, "n": "secret"}], "others": [{"id": 1, "text": "ok"}]},
            other,
            note(text="{{ 10 / n }}"),
        )
    assert caught.value.owner_id == "ann"
    assert "note" in caught.value.why
    assert "'note'" in caught.value.fix
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("setting", ["id", "key"])
def test_id_template_that_fails_on_one_owner_names_the_kind(setting: str) -> None:
    """One owner's data must not end the run of all the others."""
    value: object = "{{ 10 // n }}" if setting == "id" else ("{{ 10 // n }}",)
    with pytest.raises(InvalidDocument) as caught:
        rendered({"notes": [{"text": "t", "n": 0}]}, note(**{setting: value}))
    assert "note" in caught.value.why


@pytest.mark.parametrize(
    "template",
    ["{{ ''.__class__.__mro__ }}", "{{ text.__init__ }}", "{{ ''['__class__'] }}"],
)
def test_templates_are_sandboxed(template: str) -> None:
    """Python's inner attributes are either refused or print nothing."""
    try:
        text = text_of(template, {"text": "t"})
    except InvalidDocument:
        return
    assert text == ""


def test_big_loop_is_refused() -> None:
    """A template cannot eat the memory with `range`."""
    with pytest.raises(InvalidDocument):
        text_of("{% for x in range(10000000) %}{{ x }}{% endfor %}", {})
