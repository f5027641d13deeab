"""The command ``undrift init``: proposes a mapping, creates the store, or prints SQL for a DBA."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from undrift.cli import options, render_json
from undrift.cli.commands import run_stamp
from undrift.cli.init_collections import (
    Adopted,
    adopted,
    adopted_lines,
    adopted_object,
    file_text,
    next_lines,
)
from undrift.cli.problems import UsageError
from undrift.cli.report import Output
from undrift.cli.run import View, run_without_sides
from undrift.cli.streams import Color, Line, Terminal, Tone
from undrift.errors import ConfigError, DimensionMismatch, UndriftError

if TYPE_CHECKING:
    from undrift.config import Settings
    from undrift.ports import Embedder
    from undrift.proposal import Proposal, ProposedEntity


COMMAND = "init"
EXAMPLES = (
    "undrift init  # look at DATABASE_URL, write undrift.toml",
    "undrift init --sql  # for a DBA: the store's DDL and grants",
    "undrift init --collection jobs  # adopt what another program filled",
    "undrift init --stamp  # then stamp what is as the source has it",
)
CODES = (
    "Exit codes: 0 done; 2 usage or configuration; 3 could not look; with --stamp as check, of "
    "what is left."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class InitOptions:
    """What is asked of it.

    Attributes:
        apply: create the store, too.
        overwrite: replace a file that is there.
        adopt: look for collections that other programs filled.
        collection: the one to adopt; None for the only one there is.
    """

    apply: bool = False
    overwrite: bool = False
    adopt: bool = True
    collection: str | None = None


def init(
    apply: Annotated[
        bool,
        typer.Option(
            "--apply",
            envvar="UNDRIFT_APPLY",
            help="Create the vector store, too; its DDL is announced.",
        ),
    ] = False,
    sql: Annotated[
        bool,
        typer.Option(
            "--sql",
            envvar="UNDRIFT_SQL",
            help="Write nothing; print the store's DDL and the grants for a DBA.",
        ),
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            envvar="UNDRIFT_OVERWRITE",
            help="Replace a configuration that is there already.",
        ),
    ] = False,
    collection: Annotated[
        str | None,
        typer.Option(
            "--collection",
            metavar="NAME",
            envvar="UNDRIFT_COLLECTION",
            help="Adopt this collection, which another program filled; without it the only one "
            "that names users of the source.",
        ),
    ] = None,
    no_adopt: Annotated[
        bool,
        typer.Option(
            "--no-adopt",
            envvar="UNDRIFT_NO_ADOPT",
            help="Adopt none; undrift gets a store of its own.",
        ),
    ] = False,
    stamp: Annotated[
        bool,
        typer.Option(
            "--stamp",
            envvar="UNDRIFT_STAMP",
            help="Write no file; stamp the adopted records whose text is still the source's. "
            "Nothing is embedded or deleted.",
        ),
    ] = False,
    yes: options.Yes = False,
    output: options.Format = Output.TEXT,
    verbose: options.Verbose = False,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            envvar="UNDRIFT_CONFIG",
            help="The file to write; without it ./undrift.toml.",
        ),
    ] = None,
    color: options.Colors = Color.AUTO,
) -> int:
    """Look at the database and write a commented undrift.toml that fits it.

    Reads the tables' names and a sample of their rows; only names end up in the file. Looks at
    VECTOR_URL, too, for a collection that another program filled, and guesses what its fields hold.
    """
    if sql and (apply or overwrite):
        raise UsageError(
            "--sql goes alone",
            why="it prints statements and writes nothing.",
            fix="leave out --apply and --overwrite, or --sql",
        )
    if collection is not None and no_adopt:
        raise UsageError(
            "--collection and --no-adopt exclude each other",
            why="the one names what the other leaves out.",
            fix="leave out one of them",
        )
    view = View(output=output, color=color, is_verbose=verbose, config=config)
    wanted = InitOptions(
        apply=apply, overwrite=overwrite, adopt=not no_adopt, collection=collection
    )
    if stamp:
        if sql or wanted != InitOptions():
            raise UsageError(
                "--stamp goes alone",
                why="it takes the configuration as it is, and writes only to the vector store.",
                fix="leave out the other options, or --stamp",
            )
        return run_stamp(view, is_confirmed=yes)

    def answer(terminal: Terminal) -> int:
        if sql:
            _print_sql(terminal, view)
        else:
            _write_and_create(terminal, view, wanted)
        return 0

    return run_without_sides(view, COMMAND, answer)


# --- the file, and the store ------------------------------------------------------------------


def _write_and_create(terminal: Terminal, view: View, wanted: InitOptions) -> None:
    from undrift.config import FILE_NAME, load_settings, missing_source_url, missing_store_url
    from undrift.proposal.files import exists_already, write_file

    target = view.config or Path(FILE_NAME)
    is_there = os.path.lexists(target)
    if is_there and not (wanted.apply or wanted.overwrite):
        raise exists_already(target)
    is_written = wanted.overwrite or not is_there
    settings = load_settings(None if is_written else target, without_file=is_written)
    if settings.source_url is None:
        raise missing_source_url()
    if wanted.apply and settings.store_url is None:
        raise missing_store_url(settings.source_url)
    proposal, adoption = None, Adopted()
    if is_written:
        proposal = _proposed(terminal, settings.source_url)
        if wanted.adopt:
            adoption = adopted(terminal, settings, proposal, wanted=wanted.collection)
        if adoption.chosen is not None:
            proposal = adoption.chosen.proposal
        text = file_text(settings, proposal, adoption)
        write_file(target, text, overwrite=wanted.overwrite, approve=_loads(settings))
        settings = load_settings(target)
    is_created = wanted.apply and _create(terminal, settings)
    config = "" if view.config is None else f" --config {shlex.quote(str(target))}"
    following = f"undrift check --all{config}"
    if view.output is Output.TEXT:
        terminal.say(_text(target, proposal, settings, is_created, wanted, adoption))
        terminal.say(next_lines(adoption, following, config))
    else:
        document: render_json.Object = {
            "schema_version": render_json.SCHEMA_VERSION,
            "command": COMMAND,
            "file": str(target),
            "written": is_written,
            "store_created": is_created,
            **(_proposal_object(proposal) if proposal is not None else {}),
            **({"collection": found} if (found := adopted_object(adoption)) else {}),
            "next": following,
        }
        dumped = render_json.dumped(document, encoding=terminal.out.encoding)
        terminal.say_text(f"{dumped}\n")


def _proposed(terminal: Terminal, source_url: str) -> Proposal:
    from undrift.proposal import NothingToPropose, propose

    try:
        return propose(source_url)
    except NothingToPropose as error:
        terminal.tell(Line(line) for line in error.example)
        raise


def _loads(settings: Settings) -> Callable[[Path], None]:
    """Read a file as every other command will, and look whether the source is as it says."""
    from undrift.config import load_settings
    from undrift.render import Renderer
    from undrift.sources import open_source

    def approve(draft: Path) -> None:
        mapping = load_settings(draft).mapping
        fields = Renderer(mapping).fields
        with closing(open_source(settings.source_url or "", mapping, fields)) as source:
            source.describe()

    return approve


def _create(terminal: Terminal, settings: Settings) -> bool:
    """Create the store where there is none; whether there was none."""
    from undrift.embedders import close_embedder, open_embedder
    from undrift.stores import open_store

    embedder = open_embedder(settings.embedder, settings.embedder_options)
    opened = open_store(
        settings.store_url or "", namespace=settings.namespace, fields=settings.store_fields
    )
    with closing(opened) as store:
        try:
            dimension, model = embedder.dimension, embedder.model
        finally:
            close_embedder(embedder)
        found = store.describe()
        if found.exists:
            if found.dimension not in (None, dimension):
                raise DimensionMismatch(
                    expected=dimension,
                    found=found.dimension or 0,
                    model=model,
                    fix=found.change_dimension,
                )
            return False
        terminal.tell([Line(f"Creating the vector store {found.location}:")])
        for statement in store.ddl(dimension):
            terminal.tell(Line(line) for line in f"{statement};".splitlines())
        store.create(dimension)
    return True


# --- the answer -------------------------------------------------------------------------------


def _text(
    target: Path,
    proposal: Proposal | None,
    settings: Settings,
    is_created: bool,
    wanted: InitOptions,
    adoption: Adopted,
) -> Iterator[Line]:
    if proposal is not None:
        yield Line(f"🔍 {proposal.chosen}", Tone.HEADING)
        for entity in proposal.entities:
            yield Line(f"  - {entity.kind}: {entity.place} ({entity.seen})")
            if entity.left_out:
                yield Line(f"    left out of the text: {', '.join(entity.left_out)}")
        for note in proposal.notes:
            yield Line(f"  - Note: {note}", Tone.WARNING)
        yield from adopted_lines(adoption)
        yield Line(f"✅ Wrote {target}", Tone.GOOD)
    else:
        yield Line(f"✅ {target} is there already, and was left as it is")
    if wanted.apply:
        said = "Created the vector store" if is_created else "The vector store is there already"
        yield Line(f"✅ {said}", Tone.GOOD)
    if settings.store_url is None and not adoption.export:
        yield Line(
            "⚠️ VECTOR_URL is not set: VECTOR_URL=$DATABASE_URL puts the vectors into the same "
            "PostgreSQL, VECTOR_URL=sqlite:///vectors.db into a file here",
            Tone.WARNING,
        )


def _proposal_object(proposal: Proposal) -> render_json.Object:
    documents = proposal.documents
    found: render_json.Object = {"layout": "tables" if documents is None else "documents"}
    if documents is not None:
        found["documents"] = {
            "table": documents.table,
            "owner": documents.owner,
            "document": documents.document,
        }
    found["chosen"] = proposal.chosen
    found["entities"] = [_entity_object(entity) for entity in proposal.entities]
    found["notes"] = list(proposal.notes)
    return found


def _entity_object(entity: ProposedEntity) -> render_json.Object:
    place = {"table": entity.table} if entity.table is not None else {"path": entity.path}
    return {
        "kind": entity.kind,
        **place,
        "seen": entity.seen,
        "left_out": list(entity.left_out),
    }


# --- SQL --------------------------------------------------------------------------------------


def _print_sql(terminal: Terminal, view: View) -> None:
    from undrift.config import FILE_NAME, load_settings, missing_store_url
    from undrift.embedders import close_embedder, open_embedder
    from undrift.proposal.sql import sql_for_dba

    target = view.config or Path(FILE_NAME)
    settings = load_settings(target if target.exists() else None, without_file=not target.exists())
    if settings.store_fields is not None:
        raise ConfigError(
            "There is no script for an adopted collection",
            why="its table is another program's, and nothing is created there; undrift's own state "
            "is a schema that the first sync creates beside it.",
            fix="let the role of VECTOR_URL have SELECT, INSERT, UPDATE and DELETE on the table, "
            "and CREATE on the database",
        )
    store_url = settings.store_url
    if store_url is None and settings.source_url is not None:
        # A DBA's script guesses nothing: the first line says where it belongs.
        store_url = settings.source_url
        terminal.tell([Line("VECTOR_URL is not set; this is for VECTOR_URL=$DATABASE_URL")])
    if store_url is None:
        raise missing_store_url(None)
    embedder: Embedder = open_embedder(settings.embedder, settings.embedder_options)
    try:
        tables = _source_tables(terminal, settings)
        lines = sql_for_dba(
            store_url,
            embedder,
            tables,
            source_url=settings.source_url,
            state_url=settings.state_url,
        )
    finally:
        close_embedder(embedder)
    if view.output is Output.TEXT:
        terminal.say(Line(line) for line in lines)
        return
    document: render_json.Object = {
        "schema_version": render_json.SCHEMA_VERSION,
        "command": COMMAND,
        "sql": lines,
    }
    terminal.say_text(f"{render_json.dumped(document, encoding=terminal.out.encoding)}\n")


def _source_tables(terminal: Terminal, settings: Settings) -> tuple[str, ...]:
    """The tables to be granted: the file's, else the proposal's, if the source can be asked."""
    from undrift.proposal import propose

    if settings.file is not None:
        documents = settings.mapping.documents
        named = [spec.table for spec in settings.mapping.entities if spec.table is not None]
        return tuple(dict.fromkeys(named if documents is None else [documents.table]))
    if settings.source_url is None:
        return ()
    try:
        return propose(settings.source_url).tables
    except UndriftError as error:
        terminal.tell([Line(f"The source was not looked at: {error.what}")])
        return ()
