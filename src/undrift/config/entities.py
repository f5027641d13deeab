"""From the ``[[entity]]`` list to the mapping: defaults filled in, contradictions refused."""

from __future__ import annotations

from undrift.config.sections import DocumentsSection, EntitySection, File
from undrift.errors import ConfigError
from undrift.mapping import KIND_DEFAULTS, DocumentTable, EntitySpec, Mapping, default_entities


def mapping_of(parsed: File) -> Mapping:
    """What becomes an entity, as *parsed* describes it.

    Raises:
        ConfigError: an entity is not complete, or documents and tables are mixed.
    """
    entities = tuple(_entity_spec(entity) for entity in parsed.entity)
    tables = [entity for entity in entities if entity.table is not None]
    if tables and len(tables) < len(entities):
        raise ConfigError(
            "Some entities come from a document and some from tables",
            why=f"kind {tables[0].kind!r} has a table, others have a path.",
            fix="give every [[entity]] a table, or every one a path",
        )
    if tables:
        if parsed.source.documents is not None:
            raise ConfigError(
                "[source.documents] is not used",
                why="every [[entity]] has a table of its own.",
                fix="remove [source.documents], or give the entities a path",
            )
        return Mapping(documents=None, entities=entities)
    documents = parsed.source.documents or DocumentsSection()
    return Mapping(
        documents=DocumentTable(**documents.model_dump()), entities=entities or default_entities()
    )


def _entity_spec(entity: EntitySection) -> EntitySpec:
    default = KIND_DEFAULTS.get(entity.kind, EntitySpec(kind=entity.kind))
    if (entity.table is None) == (entity.path is None) and (entity.table or not default.path):
        raise _entity_error(entity, "needs a path into the document, or a table, and not both")
    if entity.table is not None and not entity.owner:
        raise _entity_error(entity, "has a table but no owner column")
    if entity.table is None and (entity.owner or entity.where):
        raise _entity_error(entity, "has owner or where, which go with a table only")
    text = entity.text or default.text
    if not text:
        raise _entity_error(entity, "has no text template")
    return EntitySpec(
        kind=entity.kind,
        path=None if entity.table is not None else entity.path or default.path or "",
        table=entity.table,
        owner=entity.owner or "",
        where=entity.where,
        id=entity.id or default.id,
        key=tuple(entity.key) if entity.key is not None else default.key,
        text=text,
        metadata=tuple(entity.metadata) if entity.metadata is not None else default.metadata,
        aliases=(
            {name: tuple(others) for name, others in entity.aliases.items()}
            if entity.aliases is not None
            else default.aliases
        ),
    )


def _entity_error(entity: EntitySection, why: str) -> ConfigError:
    return ConfigError(
        f"The [[entity]] of kind {entity.kind!r} is not complete",
        why=f"it {why}.",
        fix="correct it in undrift.toml, such as path = 'experiences[*]' or table = 'experiences' "
        "with owner = 'user_id'",
    )
