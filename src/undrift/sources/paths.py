"""Paths into a document, such as ``experiences[*].projects[*]``.

A path is a chain of names; ``[*]`` behind a name means every element of that list. All configured
paths are walked together, so that a project's parent is the very element its experience is made
from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from undrift.errors import ConfigError, InvalidDocument
from undrift.mapping import EntitySpec
from undrift.ports import Element

ROOT = "$"
_STEP = re.compile(r"(?P<name>[^.\[\]]+)(?P<each>\[\*\])?")


class _Node:
    """A name on the way, the specs that end here, and the names below."""

    __slots__ = ("below", "each", "name", "specs")

    def __init__(self, name: str, *, each: bool) -> None:
        self.name = name
        self.each = each
        self.specs: list[int] = []
        self.below: list[_Node] = []


class PathTree:
    """The paths of all entity specs, ready to be walked.

    Raises:
        ConfigError: a path is malformed.
    """

    def __init__(self, entities: Sequence[EntitySpec]) -> None:
        self.spec_count = len(entities)
        self._root = _Node(ROOT, each=False)
        for index, spec in enumerate(entities):
            node = self._root
            for name, each in _steps(spec):
                node = _descend(node, name, each=each)
            node.specs.append(index)

    def collect(
        self, owner_id: str, document: Mapping[str, object], found: Sequence[list[Element]]
    ) -> None:
        """Append the elements of *document* to the list of each spec in *found*.

        Raises:
            InvalidDocument: there is something else than a list or an object where a path goes on.
        """
        if self._root.specs:
            for index in self._root.specs:
                found[index].append(Element(document))
        for node in self._root.below:
            _walk(owner_id, node, document, None, found)


def _walk(
    owner_id: str,
    node: _Node,
    fields: Mapping[str, object],
    parent: Element | None,
    found: Sequence[list[Element]],
) -> None:
    value = fields.get(node.name)
    if value is None:
        return
    items = value if node.each else [value]
    if not isinstance(items, list):
        raise _unexpected(owner_id, node, value)
    for item in items:
        if isinstance(item, dict):
            own: Mapping[str, object] = item
        elif item is None:
            continue
        elif isinstance(item, list) or (node.below and not node.each):
            raise _unexpected(owner_id, node, item)
        else:
            own = {"value": item}
        enclosing = parent
        if node.specs or node.each:
            enclosing = Element(own, parent)
            for number, index in enumerate(node.specs):
                # Each kind gives the element an id of its own; children belong to the first.
                found[index].append(enclosing if number == 0 else Element(own, parent))
        for below in node.below:
            if below.name in own:
                _walk(owner_id, below, own, enclosing, found)


def _unexpected(owner_id: str, node: _Node, value: object) -> InvalidDocument:
    expected = "a list" if node.each and not isinstance(value, list) else "an object or a value"
    return InvalidDocument(
        owner_id,
        why=f"{node.name!r} is or holds a {type(value).__name__} where {expected} was expected.",
        fix=f"correct {node.name!r} in the source, or the path in undrift.toml",
    )


def _descend(node: _Node, name: str, *, each: bool) -> _Node:
    for below in node.below:
        if below.name == name and below.each == each:
            return below
    below = _Node(name, each=each)
    node.below.append(below)
    return below


def _steps(spec: EntitySpec) -> list[tuple[str, bool]]:
    path = (spec.path or "").removeprefix(f"{ROOT}.")
    if path == ROOT:
        return []
    steps = [_STEP.fullmatch(part) for part in path.split(".")]
    if not all(steps):
        raise ConfigError(
            f"The path {path!r} of kind {spec.kind!r} is malformed",
            why="a path is names joined by dots, each with [*] behind it where it is a list.",
            fix="write it like experiences[*].projects[*]",
        )
    return [(step["name"], step["each"] is not None) for step in steps if step]
