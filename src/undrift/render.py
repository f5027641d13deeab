"""From an owner's raw content to the entities the store should hold.

Pure: content in, `Wanted` out. Three steps: give every element its id, parents before children;
render all texts in one call; hash.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

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
    encoded_kind: bytes
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
        (owner,) = self._rendered([content], _entity)
        if isinstance(owner, InvalidDocument):
            raise owner
        return Wanted(owner.owner_id, owner.made, owner.counts, len(owner.empty))

    def outlines(self, contents: Iterable[OwnerContent]) -> Sequence[Outline | InvalidDocument]:
        """What the entities of several owners are, by their fingerprints alone.

        Jinja is called once for all of them, which takes half the time of one call for each.

        Returns:
            In the order of *contents*; in place of an outline what `render` would raise.
        """
        return [
            owner
            if isinstance(owner, InvalidDocument)
            else Outline(owner.owner_id, owner.made, owner.counts, len(owner.empty))
            for owner in self._rendered(contents, _fingerprint)
        ]

    def identify(self, content: OwnerContent) -> Sequence[Sequence[Element]]:
        """The owner's elements by entity spec, each with its id and view, without their texts.

        Raises:
            InvalidDocument: an id is unusable.
        """
        elements = content.elements()
        self._identities.assign(content.owner_id, elements)
        return elements

    def _rendered(
        self, contents: Iterable[OwnerContent], make: _Make[T]
    ) -> Sequence[_Owner[T] | InvalidDocument]:
        """What *make* makes of every entity of the owners, or why it cannot be said of an owner."""
        asked = list(contents)
        begun = [self._begun(content) for content in asked]
        owners = [owner for owner in begun if not isinstance(owner, InvalidDocument)]
        if not self._make_all(owners, make):
            # Each for itself, to know of whom; anew, as a template may change what it sees.
            return [owner for content in asked for owner in self._rendered([content], make)]
        return [
            owner if isinstance(owner, InvalidDocument) else owner.refusal or owner
            for owner in begun
        ]

    def _begun(self, content: OwnerContent) -> _Owner[Any] | InvalidDocument:
        """An owner whose elements have their ids."""
        owner_id = content.owner_id
        try:
            require_storable(owner_id, "owner id", owner_id, MAX_OWNER_BYTES)
            elements = content.elements()
        except InvalidDocument as refusal:
            return refusal
        try:
            self._identities.assign(owner_id, elements)
        except InvalidDocument as refusal:
            return refusal
        except (RecursionError, ValueError) as exc:
            return _beyond_python(owner_id, exc)
        return _Owner(owner_id, elements)

    def _make_all(self, owners: Sequence[_Owner[T]], make: _Make[T]) -> bool:
        """Make the entities of *owners*, of whom any may be refused.

        Returns:
            False if a template fails on one of several owners; nothing was made then.
        """
        rows: list[list[Row]] = [
            [
                compiled.row(element.view or {})
                for owner in owners
                for element in owner.elements[index]
            ]
            for index, compiled in enumerate(self._specs)
        ]
        try:
            texts = self._template.render(rows)
        except Exception as exc:  # noqa: BLE001  whatever a template raises on what it met
            if len(owners) == 1:
                owners[0].refusal = self._template_failed(owners[0].owner_id, rows, exc)
            return len(owners) == 1
        first = 0
        for index, compiled in enumerate(self._specs):
            for owner in owners:
                behind = first + len(owner.elements[index])
                if behind > first and owner.refusal is None:
                    try:
                        owner.take(compiled, owner.elements[index], texts[first:behind], make)
                    except InvalidDocument as refusal:
                        owner.refusal = refusal
                    except (RecursionError, ValueError) as exc:
                        owner.refusal = _beyond_python(owner.owner_id, exc)
                first = behind
        for owner in owners:
            owner.end()
        return True

    def _template_failed(
        self, owner_id: str, rows: Sequence[Sequence[Row]], exc: Exception
    ) -> InvalidDocument:
        kind = self._specs[self._template.failing_spec(rows)].kind
        refusal = InvalidDocument(
            owner_id,
            why=f"the text template of kind {kind} fails on it ({type(exc).__name__}).",
            fix=f"make the template of [[entity]] kind = {kind!r} cope with this content",
        )
        refusal.__cause__ = exc
        return refusal


class _Owner(Generic[T]):
    """An owner on the way from its elements to what is made of each.

    Attributes:
        encoded: as every fingerprint holds the owner.
        made: by kind and id; of the elements that have a text.
        counts: elements by kind, when `end` was called.
        empty: the elements without a text.
        refusal: why nothing can be said of the owner.
    """

    __slots__ = ("counts", "elements", "empty", "encoded", "made", "owner_id", "refusal")

    def __init__(self, owner_id: str, elements: Sequence[Sequence[Element]]) -> None:
        self.owner_id = owner_id
        self.encoded = hashes.of_owner(owner_id)
        self.elements = elements
        self.made: dict[_Identity, T] = {}
        self.counts: dict[str, int] = {}
        self.empty: set[_Identity] = set()
        self.refusal: InvalidDocument | None = None

    def take(
        self,
        compiled: _CompiledSpec,
        elements: Sequence[Element],
        texts: Sequence[str],
        make: _Make[T],
    ) -> None:
        """Make something of the elements of one spec, by the text of each.

        Raises:
            InvalidDocument: an id is given twice.
            RecursionError, ValueError: a value is beyond what Python can print.
        """
        kind, made = compiled.kind, self.made
        before = len(made)
        for element, rendered in zip(elements, texts, strict=True):
            text, encoded = _encoded(rendered.strip())
            identity = (kind, element.entity_id)
            if not text:
                self.empty.add(identity)
                continue
            one = make(self, compiled, element, text, encoded)
            if made.setdefault(identity, one) != one:
                raise _duplicate_id(self.owner_id, identity)
        self.counts[kind] = self.counts.get(kind, 0) + len(made) - before

    def end(self) -> None:
        """All elements were taken."""
        conflict = self.empty & self.made.keys()
        if conflict and self.refusal is None:
            self.refusal = _duplicate_id(self.owner_id, min(conflict))
        for kind, _ in self.empty:
            self.counts[kind] = self.counts.get(kind, 0) + 1


_Make = Callable[[_Owner[Any], _CompiledSpec, Element, str, bytes], T]
"""Makes something of an entity: owner, spec, element, text and the text's UTF-8."""


def _entity(
    owner: _Owner[Entity], compiled: _CompiledSpec, element: Element, text: str, encoded: bytes
) -> Entity:
    embedded = encoded
    if len(text) > MAX_EMBEDDED_CHARACTERS:
        embedded = text[:MAX_EMBEDDED_CHARACTERS].encode()
    entity_id = element.entity_id
    metadata = _metadata(compiled, element)
    return Entity(
        compiled.kind,
        entity_id,
        owner.owner_id,
        text,
        metadata.decode(),
        hashes.text_hash(embedded),
        hashes.fingerprint_of(compiled.encoded_kind, entity_id, owner.encoded, encoded, metadata),
    )


def _fingerprint(
    owner: _Owner[str], compiled: _CompiledSpec, element: Element, text: str, encoded: bytes
) -> str:
    del text
    metadata = _metadata(compiled, element)
    return hashes.fingerprint_of(
        compiled.encoded_kind, element.entity_id, owner.encoded, encoded, metadata
    )


def _metadata(compiled: _CompiledSpec, element: Element) -> bytes:
    view = element.view or {}
    values = {name: view[name] for name in compiled.metadata if name in view}
    for name, lookup in compiled.dotted_metadata:
        value = lookup(view)
        if value is not None:
            values[name] = value
    return hashes.canonical_utf8(values)


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


def _beyond_python(owner_id: str, exc: Exception) -> InvalidDocument:
    refusal = InvalidDocument(
        owner_id,
        why="a value in it is nested too deeply, or a number of thousands of digits.",
        fix="correct it, or leave the field out of metadata, id and key",
    )
    refusal.__cause__ = exc
    return refusal


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
        encoded_kind=hashes.of_kind(spec.kind),
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
