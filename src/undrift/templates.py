"""Jinja as undrift uses it: sandboxed, null-tolerant, and one call for many elements.

Rendering is the largest part of a check. One call per owner is about five times faster than one
per element, so `OwnerTemplate` compiles every entity's text into one template that loops over the
elements, with the fields a text uses as loop variables (the fastest lookup Jinja has).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

from jinja2 import ChainableUndefined, Template, TemplateSyntaxError, meta, nodes
from jinja2.sandbox import SandboxedEnvironment

from undrift.errors import ConfigError

MISSING = ChainableUndefined()
"""What a template sees for a field that is missing or null: it prints as nothing."""

Row = tuple[object, ...]


class _Environment(SandboxedEnvironment):
    """A sandbox in which ``a.b`` on an object of the document means its key, not a dict method."""

    def getattr(self, obj: object, attribute: str) -> Any:  # noqa: ANN401  Jinja's signature
        if isinstance(obj, dict) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)


def _names(value: object) -> str:
    """The filter ``names``: a list of strings or of objects with a ``name``, joined by commas."""
    items = value if isinstance(value, list | tuple) else [value]
    names = (item.get("name") if isinstance(item, dict) else item for item in items)
    return ", ".join(str(name) for name in names if name is not None and name != "")


def _printable(value: object) -> object:
    """*value* as a text shows it: null as nothing.

    What can be called is a method that a missing field's name happened to meet; its printed form
    holds an address, which differs from run to run.
    """
    return "" if value is None or callable(value) else value


def _environment() -> SandboxedEnvironment:
    environment = _Environment(
        undefined=ChainableUndefined,
        finalize=_printable,
        autoescape=False,
    )
    environment.filters["names"] = _names
    for name in ("lipsum", "dict"):
        del environment.globals[name]
    return environment


_ENVIRONMENT = _environment()

_REMEMBERED = 256  # templates; the defaults are a dozen, and one takes 3 ms to compile


@lru_cache(maxsize=_REMEMBERED)
def _compiled(source: str) -> Template:
    return _ENVIRONMENT.from_string(source)


def is_template(value: str) -> bool:
    """Whether *value* is a template rather than a field's name."""
    return "{{" in value or "{%" in value


class _Uses(NamedTuple):
    """What a template asks for."""

    names: frozenset[str]
    has_other_templates: bool


@lru_cache(maxsize=_REMEMBERED)
def _uses(source: str) -> _Uses:
    """What *source* asks for.

    Raises:
        TemplateSyntaxError: it is not valid.
    """
    tree = _ENVIRONMENT.parse(source)
    _compiled(source)
    has_others = any(meta.find_referenced_templates(tree)) or tree.find(nodes.Block) is not None
    return _Uses(frozenset(meta.find_undeclared_variables(tree)), has_others)


def variables(source: str, *, where: str) -> tuple[str, ...]:
    """The names a template reads from an element, sorted.

    Args:
        where: which setting holds the template, for the error.

    Raises:
        ConfigError: the template is not valid Jinja, or uses what makes no sense in a text.
    """
    try:
        uses = _uses(source)
    except TemplateSyntaxError as exc:
        raise ConfigError(
            f"The template of {where} is not valid",
            why=f"{exc.message} (line {exc.lineno}).",
            fix="correct it; the syntax is Jinja's, such as {{ title }} at {{ company }}",
        ) from exc
    if uses.has_other_templates:
        raise ConfigError(
            f"The template of {where} is not valid",
            why="include, import, extends and block have no meaning in the text of one entity.",
            fix="write the whole text in this one template",
        )
    if "loop" in uses.names:
        raise ConfigError(
            f"The template of {where} is not valid",
            why="loop has a meaning inside {% for %} only; a text is of one entity.",
            fix="leave it out, or rename the field by an alias",
        )
    return tuple(sorted(uses.names - set(_ENVIRONMENT.globals)))


def compile_value(source: str) -> Callable[[Mapping[str, object]], str]:
    """A template for one value, such as an id; called with the element's fields."""
    template = _compiled(source)
    return lambda fields: template.render(fields)


@cache
def _separator() -> str:
    """Random, so that no text can hold it by accident or by design; the same for all templates."""
    return f"\x00{secrets.token_hex(16)}\x00"


class OwnerTemplate:
    """The texts of several kinds of entity, rendered in one call.

    Args:
        texts: for each entity spec its template and the variables it reads, in the order in
            which its rows give their values.
    """

    def __init__(self, texts: Iterable[tuple[str, Sequence[str]]]) -> None:
        self._texts = list(texts)
        self._template = _compiled(
            "".join(_loop(i, s, n, _separator()) for i, (s, n) in enumerate(self._texts))
        )

    def render(self, rows: Sequence[Sequence[Row]]) -> list[str]:
        """Render every row of every spec.

        Order:
            The specs' order, and each spec's rows in the given order.

        Raises:
            Exception: whatever a template raises on the data it met.
        """
        context = {f"rows_{index}": spec_rows for index, spec_rows in enumerate(rows)}
        texts = self._template.render(context).split(_separator())
        assert len(texts) == 1 + sum(map(len, rows)), "a text would be taken for another row's"
        return texts[:-1]

    def failing_spec(self, rows: Sequence[Sequence[Row]]) -> int:
        """Which spec's template fails on *rows*: the slow way, after `render` has raised."""
        for index, ((source, names), spec_rows) in enumerate(zip(self._texts, rows, strict=True)):
            try:
                _compiled(_loop(0, source, names, "")).render({"rows_0": spec_rows})
            except Exception:  # noqa: BLE001  the same as above, to find out which
                return index
        return 0


def _loop(index: int, source: str, names: Sequence[str], separator: str) -> str:
    target = ", ".join(names) + "," if names else "unused,"
    return f"{{% for ({target}) in rows_{index} %}}{source}{separator}{{% endfor %}}"
