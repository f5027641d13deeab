"""How an entity is proposed to be told: its text, its id and its metadata, from what was seen."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from undrift.mapping import KIND_DEFAULTS, EntitySpec
from undrift.proposal import naming
from undrift.proposal.model import ProposedEntity
from undrift.proposal.naming import TemplateNames
from undrift.survey import Field, Look, Place
from undrift.templates import variables

RARE = 0.05
"""A field that fewer elements have is left out."""

MAX_SHORT, MAX_LONG, MAX_METADATA = 8, 8, 8

# An id that is none: the field is not unique, so every element has its key.
NO_ID = "{{ '' }}"

_LEADING = {
    "experience": ("title", "company"),
    "project": ("title",),
    "project_update": ("title", "description"),
    "education": ("degree", "field", "school"),
    "skill": ("name",),
}


@dataclass(frozen=True, slots=True)
class Sorted:
    """The fields of a place by their part in the text.

    Attributes:
        short: what comes first, titles before all else.
        long: whole sentences, and lists of names.
        dates: fit for metadata.
        left_out: the reason by the name. A kind's own template may read one all the same.
    """

    short: tuple[Field, ...]
    long: tuple[Field, ...]
    dates: tuple[Field, ...]
    left_out: Mapping[str, str]


def sort_fields(place: Place, own_entities: Collection[str]) -> Sorted:
    """Sort the fields of *place*.

    Args:
        own_entities: fields whose elements are entities themselves.
    """
    short, long, dates = [], [], []
    left_out: dict[str, str] = {}
    for field in place.fields.values():
        name, reason = field.name, ""
        if name in own_entities or naming.is_reference(name):
            continue
        if naming.is_secret(name):
            reason = "it may be a secret"
        elif field.look is Look.DATE:
            dates.append(field)
        elif not (field.look.is_text or _is_named_object(field)):
            reason = "" if field.look is Look.NOTHING else f"{field.look}"
        elif place.elements and place.share(name) < RARE:
            reason = "it is rare"
        elif naming.is_label(name):
            reason = "it sorts things, and does not describe them"
        elif field.look is Look.SHORT_TEXT or _is_named_object(field):
            short.append(field)
        else:
            long.append(field)
        if reason:
            left_out[name] = reason
    order = {field.name: number for number, field in enumerate(short)}
    short.sort(key=lambda field: (naming.title_rank(field.name), order[field.name]))
    too_many = [*short[MAX_SHORT:], *long[MAX_LONG:]]
    left_out |= {field.name: "there are enough without it" for field in too_many}
    return Sorted(tuple(short[:MAX_SHORT]), tuple(long[:MAX_LONG]), tuple(dates), left_out)


def _is_named_object(field: Field) -> bool:
    return field.look is Look.OBJECT and field.named_objects * 2 > field.present


# --- kinds that undrift knows -----------------------------------------------------------------


def fits_defaults(kind: str, place: Place) -> bool:
    """Whether the default template of *kind* has something to say of these elements."""
    default = KIND_DEFAULTS.get(kind)
    if default is None:
        return False
    return any(
        sum(place.share(other) for other in (name, *default.aliases.get(name, ()))) >= 0.5
        for name in _LEADING[kind]
    )


def unread_by(spec: EntitySpec, names: Sequence[Field]) -> list[Field]:
    """Those of *names* that the text of *spec* does not read, under any alias."""
    read = _read_by(spec.text, spec.aliases)
    return [field for field in names if field.name not in read]


def _read_by(text: str, aliases: Mapping[str, Sequence[str]]) -> set[str]:
    """Every field that the template *text* reads, under any of *aliases*."""
    read = set(variables(text, where="a proposed text"))
    return read.union(*(aliases.get(name, ()) for name in read))


def _left_out(parts: Sorted, text: str, aliases: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """What *text* does not read, for people."""
    read = _read_by(text, aliases)
    return tuple(f"{name} ({why})" for name, why in parts.left_out.items() if name not in read)


def default_entity(kind: str, place: Place, parts: Sorted, seen: str) -> ProposedEntity:
    """An entity of a known kind: as it is by default, with the further texts that were seen."""
    default = KIND_DEFAULTS[kind]
    further = unread_by(default, [*parts.short, *parts.long])
    names = TemplateNames(place.fields)
    appended = "".join(_clause(names, field) for field in further)
    text, aliases = f"{default.text}{appended}", {**default.aliases, **names.aliases}
    return ProposedEntity(
        kind=kind,
        path=place.path,
        id=_id(kind, place)[0],
        text=text if appended else None,
        aliases=aliases if names.aliases else None,
        seen=seen,
        left_out=_left_out(parts, text, aliases),
    )


# --- any other kind ---------------------------------------------------------------------------


def explicit_entity(
    kind: str, place: Place, parts: Sorted, seen: str, *, parent_title: str | None = None
) -> ProposedEntity:
    """An entity whose text is put together from the fields that were seen.

    Args:
        parent_title: the field that names what encloses it.
    """
    names = TemplateNames(place.fields)
    id_field, is_total = _id(kind, place)
    is_nested = place.parent != "$" and place.path != "$"
    key = [names.name(field.name) for field in (*parts.short[:2], *parts.dates[:1])]
    if not key:
        key = [names.name(field.name) for field in parts.long[:1]]
    told = [names.name(field.name) for field in (*parts.short, *parts.dates)]
    text = template(names, parts, parent_title)
    identifier = None if id_field is None else id_field
    if identifier is not None and identifier != NO_ID:
        identifier = names.name(identifier)
    return ProposedEntity(
        kind=kind,
        path=place.path,
        id=identifier,
        key=None if is_total else tuple(["parent.id", *key] if is_nested else key),
        text=text,
        metadata=tuple(told[:MAX_METADATA]),
        aliases=dict(names.aliases),
        seen=seen,
        left_out=_left_out(parts, text, names.aliases),
    )


def template(names: TemplateNames, parts: Sorted, parent_title: str | None = None) -> str:
    """The text's template: what it is called, then what is said of it."""
    called = [
        f"{names.name(field.name)} | names" if _is_named_object(field) else names.name(field.name)
        for field in parts.short
    ]
    if len(called) > 1:
        listed = ", ".join(f"({name})" if "|" in name else name for name in called)
        text = f"{{{{ [{listed}] | select | join(', ') }}}}"
    else:
        text = "".join(f"{{{{ {name} }}}}" for name in called)
    if parent_title is not None and text:
        text += f"{{% if parent.{parent_title} %}} ({{{{ parent.{parent_title} }}}}){{% endif %}}"
    told = list(parts.long)
    if not text and told:
        first = told.pop(0)
        text = f"{{{{ {_printed(names, first)} }}}}"
    return text + "".join(_clause(names, field) for field in told)


def _clause(names: TemplateNames, field: Field) -> str:
    name = names.name(field.name)
    return f"{{% if {name} %}}. {{{{ {_printed(names, field)} }}}}{{% endif %}}"


def _printed(names: TemplateNames, field: Field) -> str:
    name = names.name(field.name)
    is_plain = field.look in (Look.SHORT_TEXT, Look.LONG_TEXT)
    return name if is_plain else f"{name} | names"


def _id(kind: str, place: Place) -> tuple[str | None, bool]:
    """The field that holds the id, None for the usual one; and whether every element has it."""
    objects = place.elements - place.scalars
    for name in ("id", "_id", "uuid", "key", f"{kind}_id", f"{kind}Id", f"{kind}_uuid"):
        field = place.fields.get(name)
        if field is not None and field.is_id and field.present == objects > 0:
            return (None if name == "id" else name), not place.scalars
    usual = place.fields.get("id")
    if usual is not None and usual.present and not usual.is_id:
        return NO_ID, False
    return None, False
