"""The source: whether it can be read completely, and what becomes of a sample of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace

from undrift.config import Settings, missing_source_url
from undrift.doctor.unread import unread_in_documents, unread_in_rows
from undrift.errors import InvalidDocument, UndriftError
from undrift.findings import Finding, Status, of_error, ok, warning
from undrift.mapping import EntitySpec, FieldsRead, Mapping
from undrift.ports import Source
from undrift.render import Renderer
from undrift.sources import open_source
from undrift.sources.database import Database
from undrift.sources.inspection import columns_of_words, parsed, sample_rows
from undrift.sources.probe import MappedTable, probe_server, probe_table
from undrift.survey import survey, survey_rows

SAMPLED_OWNERS = 100
MAX_NAMED = 8


def probe_source(settings: Settings) -> Iterator[Finding]:
    """Look at the source of *settings*, as far as there is a way."""
    if settings.source_url is None:
        yield _nothing_set(settings)
        return
    try:
        database = Database(settings.source_url)
    except UndriftError as error:
        yield of_error("source.url", error)
        return
    try:
        renderer = Renderer(settings.mapping)
        source = open_source(settings.source_url, settings.mapping, renderer.fields)
    except UndriftError as error:
        yield of_error("configuration.mapping", error)
        return
    with closing(database), closing(source):
        try:
            yield from probe_server(database)
        except UndriftError as error:
            yield of_error("source.server", error)
            return
        yield from _content(settings.mapping, renderer, database, source)


def _nothing_set(settings: Settings) -> Finding:
    """Everything that is not set, at once: the second variable must not come as a surprise."""
    found = of_error("source.url", missing_source_url())
    if settings.store_url is not None:
        return found
    also = (
        "; a server needs VECTOR_URL, too: VECTOR_URL=$DATABASE_URL puts the vectors into the same "
        "PostgreSQL, VECTOR_URL=sqlite:///vectors.db into a file here"
    )
    return replace(found, fix=f"{found.fix}{also}")


def _content(
    mapping: Mapping, renderer: Renderer, database: Database, source: Source
) -> Iterator[Finding]:
    try:
        source.describe()
        mapped = _mapped_tables(mapping, renderer.fields, database)
    except UndriftError as error:
        hint = f"{error.fix}, or let `undrift init` find out what is there"
        yield replace(of_error("source.tables", error), fix=hint)
        return
    is_readable = True
    for table in mapped:
        try:
            findings = probe_table(database, table)
        except UndriftError as error:
            findings = [of_error(f"source.table.{table.table}", error)]
        is_readable &= not any(f.status in (Status.PROBLEM, Status.UNKNOWN) for f in findings)
        yield from findings
    if not is_readable:
        return
    try:
        yield from _sample(renderer, source)
        yield from _unread(mapping, mapped, database)
    except UndriftError as error:
        yield of_error("source.sample", error)


def _mapped_tables(
    mapping: Mapping, fields: Sequence[FieldsRead], database: Database
) -> list[MappedTable]:
    if mapping.documents is not None:
        documents = mapping.documents
        columns = (documents.owner, documents.document)
        return [
            MappedTable(
                table=documents.table,
                owner=documents.owner,
                columns=columns,
                where=documents.where,
            )
        ]
    return [
        _mapped_table(spec, read, database)
        for spec, read in zip(mapping.entities, fields, strict=True)
    ]


def _mapped_table(spec: EntitySpec, read: FieldsRead, database: Database) -> MappedTable:
    table = database.table(spec.table or "", spec.owner, [], setting=f"kind = {spec.kind!r}")
    names = (name for field in sorted(read.all) for name in (field, *spec.aliases.get(field, ())))
    columns = dict.fromkeys([spec.owner, *(name for name in names if name in table.c)])
    return MappedTable(
        table=spec.table or "", owner=spec.owner, columns=tuple(columns), where=spec.where
    )


# --- a sample ---------------------------------------------------------------------------------


def _sample(renderer: Renderer, source: Source) -> Iterator[Finding]:
    """What becomes of the first owners: entities, texts, and documents that nobody can read."""
    owners = next(iter(source.owner_pages(SAMPLED_OWNERS)), ())
    if not owners:
        yield warning(
            "source.sample",
            "The source lists no owner; a sync of everybody would stop rather than delete",
            "check that DATABASE_URL names the right database, and the where condition",
        )
        return
    counts: Counter[str] = Counter()
    without_text = 0
    invalid: list[str] = []
    for content in source.read(owners):
        try:
            wanted = renderer.render(content)
        except InvalidDocument:
            invalid.append(content.owner_id)
            continue
        counts.update(wanted.counts)
        without_text += wanted.without_text
    read = len(owners) - len(invalid)
    if counts:
        listed = ", ".join(f"{kind} {count}" for kind, count in sorted(counts.items()))
        yield ok("source.sample", f"Users sampled: {read}; entities in them: {listed}")
    elif read:
        yield warning(
            "source.sample",
            f"{read} users were sampled, and no [[entity]] finds anything",
            "`undrift init` proposes what fits; compare it with undrift.toml",
        )
    if invalid:
        named = ", ".join(invalid[:3])
        yield warning(
            "source.invalid",
            f"{len(invalid)} of {len(owners)} sampled users cannot be read (such as {named}); "
            "check says unknown for them, and leaves their vectors alone",
            f"undrift check --user-id {invalid[0]} says why",
        )
    if without_text:
        yield warning(
            "source.without_text",
            f"{without_text} of {counts.total()} sampled entities have no text, and so no vector",
            "let their template read a field that they have",
        )


def _unread(
    mapping: Mapping, mapped: Sequence[MappedTable], database: Database
) -> Iterator[Finding]:
    names: list[str] = []
    if mapping.documents is not None:
        documents = mapping.documents
        rows = sample_rows(database, documents.table, [documents.document], where=documents.where)
        names = unread_in_documents(survey(parsed(row[0]) for row in rows), mapping.entities)
    else:
        for spec, table in zip(mapping.entities, mapped, strict=True):
            described = database.table(table.table, table.owner, [], setting="")
            columns = columns_of_words(database, described)
            rows = sample_rows(database, table.table, columns, where=spec.where) if columns else []
            place = survey_rows(dict(zip(columns, row, strict=True)) for row in rows)
            names.extend(unread_in_rows(place, spec))
    if names:
        more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
        yield warning(
            "source.unread",
            f"What is written in {', '.join(names[:MAX_NAMED])}{more} is read by nothing, so that "
            "no search finds it",
            "name it in the text of its [[entity]], or add an [[entity]] for it; see what "
            "`undrift init --config proposal.toml` writes",
        )
