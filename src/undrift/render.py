"""From an owner's raw content to the entities the store should hold.

Pure: content in, `Wanted` out. Three steps: give every element its id, parents before children;
render all texts in one call; hash.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar

from undrift import fingerprint as hashes
from undrift.errors import InvalidDocument
from undrift.identity import MAX_OWNER_BYTES, Identities, View, dotted, require_storable
from undrift.mapping import KIND_DEFAULTS, MAX_EMBEDDED_CHARACTERS, EntitySpec, FieldsRead
from undrift.mapping import Mapping as SourceMapping
from undrift.model import Entity, Outline, Wanted
from undrift.ports import Element, OwnerContent
from undrift.templates import MISSING, OwnerTemplate, Row, is_template, variables

T = TypeVar("T")
_Identity = tuple[str, str]
"""Kind and id."""


class _CompiledSpec(NamedTuple):
    """An entity spec, ready to run."""

    kind: str
    row: Callable[[View], Row]
    metadata: tuple[str, ...]
    dotted_metadata: tuple[tuple[str, Callable[[View], object]], ...]


class Renderer:
    """Renders one owner at a time. Immutable after construction, so threads may share it.

    Args:
        mapping: what becomes an entity, and how.

    Raises:
        ConfigError: a template is not valid.
    """

    def __init__(self, mapping: SourceMapping) -> None:
        self.mapping = mapping
        names = [variables(spec.text, where=f"kind {spec.kind}") for spec in mapping.entities]
        self._specs = [
            _compile(spec, spec_names)
            for spec, spec_names in zip(mapping.entities, names, strict=True)
        ]
        self._identities = Identities(mapping.entities)
        texts = [spec.text for spec in mapping.entities]
        self._template = OwnerTemplate(zip(texts, names, strict=True))

    @property
    def fields(self) -> tuple[FieldsRead, ...]:
        """For each entity spec the fields it reads; what a table must select."""
        return tuple(_fields_read(spec) for spec in self.mapping.entities)

    def render(self, content: OwnerContent) -> Wanted:
        """The entities of one owner.

        Raises:
            InvalidDocument: an id is unusable or given twice, or a template fails on this content.
        """
        entities, counts, without_text = self._rendered(content, _entity)
        return Wanted(content.owner_id, entities, counts, without_text)

    def outline(self, content: OwnerContent) -> Outline:
        """What the entities of one owner are, by their fingerprints alone.

        Raises:
            InvalidDocument: as `render` does.
        """
        fingerprints, counts, without_text = self._rendered(content, _fingerprint)
        return Outline(content.owner_id, fingerprints, counts, without_text)

    def identify(self, content: OwnerContent) -> Sequence[Sequence[Element]]:
        """The owner's elements by entity spec, each with its id and view, without their texts.

        Raises:
            InvalidDocument: an id is unusable.
        """
        elements = content.elements()
        self._identities.assign(content.owner_id, elements)
        return elements

    def _rendered(
        self, content: OwnerContent, make: _Make[T]
    ) -> tuple[dict[_Identity, T], dict[str, int], int]:
        """What *make* makes of each entity, how many there are by kind, how many have no text."""
        owner_id = content.owner_id
        require_storable(owner_id, "owner id", owner_id, MAX_OWNER_BYTES)
        elements = content.elements()
        try:
            self._identities.assign(owner_id, elements)
            texts = self._render_texts(owner_id, elements)
            return self._made(owner_id, elements, texts, make)
        except (RecursionError, ValueError) as exc:
            raise InvalidDocument(
                owner_id,
                why="a value in it is nested too deeply, or a number of thousands of digits.",
                fix="correct it, or leave the field out of metadata, id and key",
            ) from exc

    def _render_texts(self, owner_id: str, elements: Sequence[Sequence[Element]]) -> list[str]:
        rows: list[list[Row]] = [
            [compiled.row(element.view or {}) for element in spec_elements]
            for compiled, spec_elements in zip(self._specs, elements, strict=True)
        ]
        try:
            return self._template.render(rows)
        except Exception as exc:
            kind = self._specs[self._template.failing_spec(rows)].kind
            raise InvalidDocument(
                owner_id,
                why=f"the text template of kind {kind} fails on it ({type(exc).__name__}).",
                fix=f"make the template of [[entity]] kind = {kind!r} cope with this content",
            ) from exc

    def _made(
        self,
        owner_id: str,
        elements: Sequence[Sequence[Element]],
        texts: Iterable[str],
        make: _Make[T],
    ) -> tuple[dict[_Identity, T], dict[str, int], int]:
        made: dict[_Identity, T] = {}
        empty: set[_Identity] = set()
        counts: dict[str, int] = {}
        remaining = iter(texts)
        for compiled, spec_elements in zip(self._specs, elements, strict=True):
            kind = compiled.kind
            for element in spec_elements:
                text, encoded = _encoded(next(remaining).strip())
                identity = (kind, element.entity_id)
                if not text:
                    empty.add(identity)
                    continue
                one = make(owner_id, compiled, element, text, encoded)
                if identity not in made:
                    made[identity] = one
                    counts[kind] = counts.get(kind, 0) + 1
                elif made[identity] != one:
                    raise _duplicate_id(owner_id, identity)
        conflict = empty & made.keys()
        if conflict:
            raise _duplicate_id(owner_id, min(conflict))
        for kind, _ in empty:
            counts[kind] = counts.get(kind, 0) + 1
        return made, counts, len(empty)


_Make = Callable[[str, _CompiledSpec, Element, str, bytes], T]
"""Makes something of an entity: owner, spec, element, text and the text's UTF-8."""


def _entity(
    owner_id: str, compiled: _CompiledSpec, element: Element, text: str, encoded: bytes
) -> Entity:
    embedded = encoded
    if len(text) > MAX_EMBEDDED_CHARACTERS:
        embedded = text[:MAX_EMBEDDED_CHARACTERS].encode()
    kind, entity_id = compiled.kind, element.entity_id
    metadata_json = _metadata_json(compiled, element)
    return Entity(
        kind,
        entity_id,
        owner_id,
        text,
        metadata_json,
        hashes.text_hash(embedded),
        hashes.fingerprint(kind, entity_id, owner_id, encoded, metadata_json),
    )


def _fingerprint(
    owner_id: str, compiled: _CompiledSpec, element: Element, text: str, encoded: bytes
) -> str:
    del text
    metadata_json = _metadata_json(compiled, element)
    return hashes.fingerprint(compiled.kind, element.entity_id, owner_id, encoded, metadata_json)


def _metadata_json(compiled: _CompiledSpec, element: Element) -> str:
    view = element.view or {}
    values = {name: view[name] for name in compiled.metadata if name in view}
    for name, lookup in compiled.dotted_metadata:
        value = lookup(view)
        if value is not None:
            values[name] = value
    return hashes.canonical_json(values)


def _encoded(text: str) -> tuple[str, bytes]:
    """*text* as every store can hold it, and its UTF-8."""
    try:
        encoded = text.encode()
    except UnicodeEncodeError:
        encoded = b"\x00"
    if b"\x00" in encoded:
        text = hashes.storable_text(text)
        encoded = text.encode()
    return text, encoded


def _duplicate_id(owner_id: str, identity: _Identity) -> InvalidDocument:
    kind, entity_id = identity
    return InvalidDocument(
        owner_id,
        why=f"two entities of kind {kind} have the id {entity_id!r} and different content, so it "
        "cannot be told which is true.",
        fix="give each its own id in the source",
    )


def _compile(spec: EntitySpec, names: Sequence[str]) -> _CompiledSpec:
    return _CompiledSpec(
        kind=spec.kind,
        row=_row(names),
        metadata=tuple(name for name in spec.metadata if "." not in name),
        dotted_metadata=tuple((name, dotted(name)) for name in spec.metadata if "." in name),
    )


def _row(names: Sequence[str]) -> Callable[[View], Row]:
    """A function from a view to the values of *names*, in their order."""
    names = names or ("",)  # Jinja's loop wants a variable even where the text has none

    def row(view: View) -> Row:
        get = view.get
        return tuple([get(name, MISSING) for name in names])

    return row


def _fields_read(spec: EntitySpec) -> FieldsRead:
    default = KIND_DEFAULTS.get(spec.kind)
    read: set[str] = set()
    required: set[str] = set()

    def add(names: Iterable[str], *, is_default: bool) -> None:
        read.update(names)
        if not is_default:
            required.update(names)

    is_default_text = default is not None and spec.text == default.text
    add(variables(spec.text, where=f"kind {spec.kind}"), is_default=is_default_text)
    for name in spec.metadata:
        add([_head(name)], is_default=default is not None and name in default.metadata)
    for part in spec.key:
        add(_names_in(spec, part), is_default=default is not None and part in default.key)
    # An element without an id has its key.
    add(_names_in(spec, spec.id), is_default=bool(spec.key) and not is_template(spec.id))
    return FieldsRead(frozenset(read - {"parent"}), frozenset(required - {"parent"}))


def _names_in(spec: EntitySpec, value: str) -> Sequence[str]:
    if is_template(value):
        return variables(value, where=f"an id or key of kind {spec.kind}")
    return [_head(value)]


def _head(name: str) -> str:
    return name.partition(".")[0]
