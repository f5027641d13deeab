"""Which field holds the text that was embedded, how that was worded, and by which model."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from undrift.adoption import Field
from undrift.fingerprint import storable_text
from undrift.mapping import MAX_EMBEDDED_CHARACTERS
from undrift.proposal._matches import Match, Record, SourceEntity
from undrift.proposal.naming import is_readable, is_reference

_MODEL_PATH = re.compile(r"model", re.IGNORECASE)
_MODEL_NAME = re.compile(r"[\w./:@-]{1,80}")
_TEMPLATE_SIGNS = re.compile(r"\{[{%#]|[}%#]\}")
_TEXT_NAME = re.compile(r"text|content|document|body|passage|chunk", re.IGNORECASE)
_MIN_TEXT_CHARACTERS = 20
_MIN_WORD_CHARACTERS = 3
_MOSTLY = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """Where the text is.

    Attributes:
        path: empty where no text is stored.
        equal: records whose text equals what the source renders.
        templates: by kind, one that makes most of the stored texts.
    """

    path: str = ""
    reason: str = ""
    equal: int = 0
    notes: tuple[str, ...] = ()
    templates: Mapping[str, str] = field(default_factory=dict)


def guess_text(matches: Sequence[Match], paths: Sequence[str], *, has_parts: bool) -> Contents:
    """The field whose values are the rendered texts, else that with the longest."""
    count = len(matches)
    pairs = [(match.record, next(iter(match.entities.values()))) for match in matches]
    equal = {p: sum(_embedded(r.get(p, "")) == _embedded(e.text) for r, e in pairs) for p in paths}
    path = max(equal, key=lambda path: equal[path], default="")
    if path and equal[path]:
        reason = f"{equal[path]} of {count} texts in {path} equal what the source renders"
        notes = () if equal[path] == count else _differences(pairs, path)
        return Contents(path=path, reason=reason, equal=equal[path], notes=notes)
    pieces = {p: sum(_is_piece(r.get(p, ""), e.text) for r, e in pairs) for p in paths}
    path = max(pieces, key=lambda path: pieces[path], default="")
    if path and pieces[path]:
        reason = f"{pieces[path]} of {count} texts in {path} are pieces of what the source renders"
        return Contents(path=path, reason=reason)
    path = _longest(pairs, paths)
    if not path:
        reason = "no field holds a text, so that a changed one cannot be seen"
        return Contents(reason=reason)
    templates = {} if has_parts else _templates(pairs, path)
    note = "none of the sampled texts equals what the template of [[entity]] renders"
    return Contents(
        path=path,
        reason="it holds the longest texts",
        notes=(f"{note}, so that all of them count as changed", *_differences(pairs, path)),
        templates=templates,
    )


def _embedded(text: str) -> str:
    return storable_text(text).strip()[:MAX_EMBEDDED_CHARACTERS]


def _is_piece(value: str, text: str) -> bool:
    piece = " ".join(value.split())
    return len(piece) >= _MIN_TEXT_CHARACTERS and piece in " ".join(text.split())


def _longest(pairs: Sequence[tuple[Record, SourceEntity]], paths: Sequence[str]) -> str:
    """The path with the longest texts; JSON, as frameworks keep it beside the text, is none."""

    def length(path: str) -> float:
        values = [record.get(path, "") for record, _ in pairs]
        if any(value.lstrip()[:1] in ("{", "[") for value in values):
            return 0
        return sum(map(len, values)) / len(values) if values else 0

    paths = [path for path in paths if length(path) and not _is_other_name(path)]
    named = [path for path in paths if _TEXT_NAME.search(path.rpartition(".")[2])]
    path = max(named or paths, key=length, default="")
    return path if named or (path and length(path) >= _MIN_TEXT_CHARACTERS) else ""


def _is_other_name(path: str) -> bool:
    """Whether a field of this name points at something, or names a model."""
    name = path.rpartition(".")[2]
    return is_reference(name) or _MODEL_PATH.search(name) is not None


def _differences(pairs: Sequence[tuple[Record, SourceEntity]], path: str) -> tuple[str, ...]:
    """How the first text that differs does so, told by the names of fields."""
    for record, entity in pairs:
        stored = record.get(path, "")
        if not stored or _embedded(stored) == _embedded(entity.text):
            continue
        in_stored, in_text = _names_in(stored, entity.fields), _names_in(entity.text, entity.fields)
        only_stored = [name for name in in_stored if name not in in_text]
        only_text = [name for name in in_text if name not in in_stored]
        told = [f"only the stored text holds {', '.join(only_stored)}"] if only_stored else []
        told += [f"only the template renders {', '.join(only_text)}"] if only_text else []
        if not told:
            same = ", ".join(in_text) or "none of its fields"
            told = [f"both hold {same}, in other words or another order"]
        return (f"{entity.kind}:{entity.entity_id} differs: {'; '.join(told)}",)
    return ()


def _names_in(text: str, fields: Mapping[str, str]) -> list[str]:
    return [
        name
        for name, value in fields.items()
        if len(value) >= _MIN_WORD_CHARACTERS and value in text
    ]


# --- how it was worded ------------------------------------------------------------------------


def _templates(pairs: Sequence[tuple[Record, SourceEntity]], path: str) -> dict[str, str]:
    """By kind, the template that makes at least most of the stored texts, if one does."""
    by_kind: dict[str, list[tuple[str, Mapping[str, str]]]] = {}
    for record, entity in pairs:
        by_kind.setdefault(entity.kind, []).append((_embedded(record.get(path, "")), entity.fields))
    found = {kind: _template(examples) for kind, examples in by_kind.items()}
    return {kind: template for kind, template in found.items() if template}


def _template(examples: Sequence[tuple[str, Mapping[str, str]]]) -> str:
    skeletons = Counter(filter(None, (_skeleton(text, fields) for text, fields in examples)))
    for skeleton, _ in skeletons.most_common(3):
        made = sum(_filled(skeleton, fields).strip() == text for text, fields in examples)
        if made >= _MOSTLY * len(examples) and made > 1:
            return "".join(f"{{{{ {part} }}}}" if is_field else part for is_field, part in skeleton)
    return ""


_Skeleton = tuple[tuple[bool, str], ...]


def _skeleton(text: str, fields: Mapping[str, str]) -> _Skeleton:
    """*text* with each field's value replaced by its name; empty where no field is in it."""
    if _TEMPLATE_SIGNS.search(text):
        return ()
    parts: list[tuple[bool, str]] = [(False, text)]
    usable = [
        (value.strip(), name)
        for name, value in fields.items()
        if len(value.strip()) >= 2 and is_readable(name)
    ]
    for value, name in sorted(usable, key=lambda pair: (-len(pair[0]), pair[1])):
        parts = [piece for part in parts for piece in _split(part, value, name)]
    return tuple(parts) if any(is_field for is_field, _ in parts) else ()


def _split(part: tuple[bool, str], value: str, name: str) -> Iterable[tuple[bool, str]]:
    is_field, text = part
    before, found, behind = (text, "", "") if is_field else text.partition(value)
    if not found:
        return [part]
    return [(False, before), (True, name), *_split((False, behind), value, name)]


def _filled(skeleton: _Skeleton, fields: Mapping[str, str]) -> str:
    return "".join(fields.get(part, "") if is_field else part for is_field, part in skeleton)


# --- model ------------------------------------------------------------------------------------


class ModelGuess(NamedTuple):
    """Of which model the vectors are; no field where it is not the configured one."""

    field: Field | None
    reason: str


def guess_model(records: Sequence[Record], paths: Sequence[str], model: str) -> ModelGuess:
    """A field with *model*'s identity, else that identity for all records."""
    for path in paths:
        named = sum(record.get(path) == model for record in records)
        if named:
            reason = f"{named} of {len(records)} sampled records name the model in {path}"
            return ModelGuess(Field(path=tuple(path.split("."))), reason)
    for path in paths:
        names = {r[path] for r in records if path in r}
        if not _MODEL_PATH.search(path.rpartition(".")[2]) or not names:
            continue
        if not all(map(_MODEL_NAME.fullmatch, names)):
            continue  # some other thing's model
        others = sorted(name for name in names if not _is_named(name, model))
        if others:
            return ModelGuess(
                None,
                f"{path} names {', '.join(others[:3])}, and the configured embedder is {model}; "
                "set [embedder] name to the one that filled the collection",
            )
        return ModelGuess(Field(value=model), f"{path} names it {', '.join(sorted(names))}")
    return ModelGuess(
        Field(value=model),
        "nothing in the records names a model, so that this is your word; take the line out if "
        "another one may have filled the collection",
    )


def _is_named(name: str, model: str) -> bool:
    """Whether *name*, as somebody else spells it, is *model*."""
    plain = re.sub(r"[^a-z0-9]", "", name.rpartition("/")[2].lower())
    return bool(plain) and plain in re.sub(r"[^a-z0-9]", "", model.lower())
