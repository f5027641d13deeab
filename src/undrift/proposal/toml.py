"""A proposal as the lines of ``undrift.toml``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator

from undrift.adoption import Field
from undrift.mapping import KIND_DEFAULTS, DocumentTable
from undrift.proposal.collections import FIELD_NAMES, REQUIRED_FIELDS, FieldsProposal
from undrift.proposal.model import Proposal, ProposedEntity

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_CONTROL_SIGNS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_COMMENT_CHARACTERS = 96


def written(
    proposal: Proposal,
    *,
    source_url: str,
    store_url: str,
    embedder: str,
    namespace: str,
    adopted: FieldsProposal | None = None,
) -> str:
    """The file's text.

    Args:
        source_url: a reference such as ``env:DATABASE_URL``, never an address with a password.
        store_url: the same.
        adopted: the collection of another program that is the store; None for undrift's own.
    """
    lines = [
        "# What undrift reads, and what it makes of it. Written by `undrift init`; edit it as you",
        "# like: `undrift check --all` compares, `undrift sync --all` repairs, `undrift doctor`",
        "# says what is amiss. Environment variables are stronger than this file.",
        "",
        "[source]",
        f"url = {quoted(source_url)}",
        *_comment(f"{proposal.chosen}."),
        *(line for note in proposal.notes for line in _comment(f"Note: {note}.")),
    ]
    if proposal.documents is not None:
        lines.extend(_documents(proposal.documents))
    for entity in proposal.entities:
        lines.extend(["", *_entity(entity)])
    lines.extend(
        [
            "",
            "[store]",
            "# sqlite:///vectors.db, or postgresql://… for pgvector. Where it is not set, a SQLite",
            "# source has its vectors in .undrift/undrift.db beside this file.",
            f"url = {quoted(store_url)}",
            f"namespace = {quoted(namespace)}",
            *(_fields(adopted) if adopted is not None else ()),
            "",
            "[embedder]",
            f"name = {quoted(embedder)}",
        ]
    )
    return "\n".join(lines) + "\n"


def quoted(value: str) -> str:
    """*value* as a TOML string."""
    # JSON's escapes are TOML's, but for one sign that TOML will not have bare.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _documents(documents: DocumentTable) -> list[str]:
    return [
        "",
        "[source.documents]",
        f"table = {quoted(documents.table)}",
        f"owner = {quoted(documents.owner)}",
        f"document = {quoted(documents.document)}",
        '# where = "deleted_at IS NULL"',
    ]


def _entity(entity: ProposedEntity) -> Iterator[str]:
    if entity.seen:
        yield from _comment(f"{entity.seen}.")
    if entity.left_out:
        yield from _comment(f"Left out of the text: {', '.join(entity.left_out)}.")
    yield "[[entity]]"
    yield f"kind = {quoted(entity.kind)}"
    if entity.table is not None:
        yield f"table = {quoted(entity.table)}"
        yield f"owner = {quoted(entity.owner or '')}"
        if entity.where:
            yield f"# where = {quoted(entity.where)}  (all rows are read without it)"
    else:
        yield f"path = {quoted(entity.path or '')}"
    if entity.id is not None:
        yield f"id = {quoted(entity.id)}"
    if entity.key is not None:
        yield f"key = {_list(entity.key)}"
    default = KIND_DEFAULTS.get(entity.kind)
    if entity.text is not None:
        yield f"text = {quoted(entity.text)}"
    elif default is not None:
        yield f"# text = {quoted(default.text)}  (the default)"
    if entity.metadata is not None:
        yield f"metadata = {_list(entity.metadata)}"
    if entity.aliases is not None and (entity.aliases or default is not None):
        yield f"aliases = {_table(entity)}"


def _fields(guess: FieldsProposal) -> Iterator[str]:
    """``[store.fields]``; as comments to be completed, where something is missing."""
    sample = guess.sample
    writer = f", as {sample.writer} writes it" if sample.writer else ""
    yield ""
    yield from _comment(f"{sample.name or sample.location} was filled by another program{writer}.")
    if sample.parameter:
        yield from _comment(f"VECTOR_URL has to end in {sample.parameter}.")
    if sample.why_not:
        yield from _comment(f"It cannot be adopted as it is: {sample.why_not}.")
    is_whole = guess.fields is not None
    before = "" if is_whole else "# "
    if not is_whole:
        yield from _comment("Complete these lines and take the # away.")
    yield f"{before}[store.fields]"
    for name in FIELD_NAMES:
        found, missing = guess.found.get(name), guess.missing.get(name)
        if missing is not None and not sample.why_not:
            yield from _comment(f"{name}: {missing}.")
        if found is not None:
            yield from _comment(f"{guess.reasons[name]}.")
            yield f"{before}{name} = {_field(found)}"
        elif name in REQUIRED_FIELDS:
            yield f'{before}{name} = ""'
    if guess.fixed:
        pairs = (f"{_key(path)} = {quoted(value)}" for path, value in guess.fixed.items())
        yield f"{before}fixed = {{ {', '.join(pairs)} }}"
    for note in guess.notes:
        yield from _comment(f"Note: {note}.")


def _field(found: Field) -> str:
    if found.value is not None:
        return f"{{ value = {quoted(found.value)} }}"
    return quoted(".".join(found.path))


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else quoted(name)


def _list(values: Iterable[str]) -> str:
    return f"[{', '.join(map(quoted, values))}]"


def _table(entity: ProposedEntity) -> str:
    pairs = (f"{_key(name)} = {_list(fields)}" for name, fields in (entity.aliases or {}).items())
    return f"{{ {', '.join(pairs)} }}" if entity.aliases else "{}"


def _comment(text: str) -> Iterator[str]:
    """*text* as comments, whatever the names in it hold."""
    line = "#"
    for word in _CONTROL_SIGNS.sub(" ", text).split(" "):
        if len(line) + len(word) >= _COMMENT_CHARACTERS and line != "#":
            yield line
            line = "#"
        line += f" {word}"
    yield line
