"""Settings: the environment over ``undrift.toml`` over the defaults.

The only module that reads the environment. It turns what people wrote into a `Settings`, or into a
`ConfigError` that names the setting; values are never repeated in a message, since they may hold a
password.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping as Dict
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from undrift.embedders.options import EmbedderOptions, with_openai_variables
from undrift.errors import ConfigError
from undrift.heal import DEFAULT_POLICY, HealPolicy
from undrift.mapping import KIND_DEFAULTS, DocumentTable, EntitySpec, Mapping, default_entities

FILE_NAME = "undrift.toml"
EMBEDDED_STORE = Path(".undrift") / "undrift.db"
_PREFIX = "UNDRIFT_"
_SHORT_NAMES = {
    "DATABASE_URL": ("source", "url"),
    "VECTOR_URL": ("store", "url"),
    "UNDRIFT_EMBEDDER": ("embedder", "name"),
}

Name = Annotated[str, Field(pattern=r"^[^:\s\x00]{1,100}$")]

_OPTIONS = EmbedderOptions()


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Documents(_Section):
    table: str = "profiles"
    owner: str = "user_id"
    document: str = "filtered_data"
    where: str = ""


class _Source(_Section):
    url: str | None = None
    documents: _Documents | None = None


class _Entity(_Section):
    kind: Name
    path: str | None = None
    table: str | None = None
    owner: str | None = None
    where: str = ""
    id: str | None = None
    key: list[str] | None = None
    text: str | None = None
    metadata: list[str] | None = None
    aliases: dict[str, list[str]] | None = None


class _Store(_Section):
    url: str | None = None
    namespace: Name = "default"
    keep_text: bool = True


class _Embedder(_Section):
    name: str = "local"
    base_url: str | None = None
    api_key: str | None = None
    dimension: int | None = Field(default=None, ge=1, le=16_000)
    batch_texts: int = Field(default=_OPTIONS.batch_texts, ge=1, le=2048)
    timeout_seconds: float = Field(default=_OPTIONS.timeout_seconds, gt=0, le=600)
    max_attempts: int = Field(default=_OPTIONS.max_attempts, ge=1, le=20)
    max_text_tokens: int = Field(default=_OPTIONS.max_text_tokens, ge=16, le=1_000_000)
    document_prefix: str = Field(default="", max_length=1000)
    query_prefix: str = Field(default="", max_length=1000)
    revision: str = Field(default="", pattern=r"^[^:@\s\x00]{0,100}$")


class _Heal(_Section):
    enabled: bool = True
    wait_seconds: float = Field(default=DEFAULT_POLICY.wait_seconds, ge=0, le=600)
    cool_down_seconds: float = Field(default=DEFAULT_POLICY.cool_down_seconds, ge=0, le=86_400)


class _File(_Section):
    source: _Source = _Source()
    entity: list[_Entity] = []
    store: _Store = _Store()
    embedder: _Embedder = _Embedder()
    heal: _Heal = _Heal()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything a run is configured with.

    Attributes:
        source_url: None when no source is configured.
        store_url: None when nothing names a store and none can be chosen safely.
        heal: when a reader may set off a repair.
        environment: ``test`` where nothing is to be repaired by itself; what a person or a program
            asks for is done all the same.
        file: the configuration file that was read, if there is one.
    """

    source_url: str | None = field(repr=False)
    store_url: str | None = field(repr=False)
    mapping: Mapping
    namespace: str = "default"
    keep_text: bool = True
    embedder: str = "local"
    embedder_options: EmbedderOptions = _OPTIONS
    heal: HealPolicy = DEFAULT_POLICY
    environment: Literal["test"] | None = None
    file: Path | None = None


def load_settings(
    config: str | Path | None = None,
    *,
    environ: Dict[str, str] | None = None,
    without_file: bool = False,
) -> Settings:
    """Read the settings.

    Args:
        config: the configuration file; None means ``UNDRIFT_CONFIG``, or ``undrift.toml`` in the
            working directory if there is one.
        environ: the environment; None means this process's.
        without_file: read the environment only, whatever file there is.

    Raises:
        ConfigError: a file that is missing or malformed, an unknown setting, an unusable value.
    """
    environment = os.environ if environ is None else environ
    file = None if without_file else _find_file(config, environment)
    written = _read_file(file) if file is not None else {}
    merged, variables = _with_environment(written, environment)
    try:
        parsed = _File.model_validate(merged)
    except ValidationError as exc:
        # The cause would print what was written, which may hold a password.
        raise _invalid(exc, file, variables) from None
    source_url = _resolve(parsed.source.url, "source.url", environment)
    store_url = _resolve(parsed.store.url, "store.url", environment)
    if store_url is None and source_url is not None and source_url.startswith("sqlite"):
        beside = file.parent.absolute() if file is not None else Path.cwd()
        store_url = sqlite_url(beside / EMBEDDED_STORE)
    return Settings(
        source_url=source_url,
        store_url=store_url,
        mapping=_mapping(parsed),
        namespace=parsed.store.namespace,
        keep_text=parsed.store.keep_text,
        embedder=parsed.embedder.name,
        embedder_options=_embedder_options(parsed.embedder, environment, variables),
        heal=HealPolicy(
            is_enabled=parsed.heal.enabled,
            wait_seconds=parsed.heal.wait_seconds,
            cool_down_seconds=parsed.heal.cool_down_seconds,
        ),
        environment="test" if is_test_environment(environ) else None,
        file=file,
    )


def set_by_variables(
    config: str | Path | None = None, *, environ: Dict[str, str] | None = None
) -> Dict[str, str]:
    """Which variable decides a setting, by the setting's dotted name, sorted.

    Raises:
        ConfigError: the file is missing or malformed.
    """
    environment = os.environ if environ is None else environ
    file = _find_file(config, environment)
    written = _read_file(file) if file is not None else {}
    _, variables = _with_environment(written, environment)
    decided = {".".join(path): variable for path, variable in variables.items()}
    for section, settings in written.items():
        for key, value in settings.items() if isinstance(settings, dict) else ():
            reference = value if isinstance(value, str) else ""
            variable = reference.removeprefix("env:")
            if variable != reference and variable in environment:
                decided.setdefault(f"{section}.{key}", variable)
    return dict(sorted(decided.items()))


def is_test_environment(environ: Dict[str, str] | None = None) -> bool:
    """Whether ``UNDRIFT_ENV=test`` says that nothing is to be repaired by itself.

    Args:
        environ: the environment; None means this process's.
    """
    environment = os.environ if environ is None else environ
    return environment.get("UNDRIFT_ENV") == "test"


def sqlite_url(path: Path) -> str:
    """The URL of the SQLite file at *path*, whatever characters it holds."""
    return f"sqlite:///{quote(str(path))}"


def missing_source_url() -> ConfigError:
    """No source is configured, and one is needed."""
    return ConfigError(
        "DATABASE_URL is not set",
        why="it names the relational database that the vectors were built from, and nothing else "
        "does.",
        fix="export DATABASE_URL=postgresql://user:password@host/database, or "
        "DATABASE_URL=sqlite:///app.db",
    )


def missing_store_url(source_url: str | None) -> ConfigError:
    """No store is configured, and none is chosen by itself for a server."""
    if source_url is None:
        return ConfigError(
            "No vector store is named",
            why="store= is missing, and without a SQLite source there is no usual place for it.",
            fix="give store='sqlite:///vectors.db' or store='postgresql://…', or set VECTOR_URL",
        )
    same = source_url.startswith("postgres")
    hint = (
        "VECTOR_URL=$DATABASE_URL puts the vectors into the same PostgreSQL (with pgvector), "
        "VECTOR_URL=sqlite:///vectors.db into a file here"
        if same
        else "export VECTOR_URL=sqlite:///vectors.db, or postgresql://… for pgvector"
    )
    return ConfigError(
        "VECTOR_URL is not set",
        why="the source is a server, and undrift does not guess where its vectors live.",
        fix=hint,
    )


# --- reading ----------------------------------------------------------------------------------


def _find_file(config: str | Path | None, environ: Dict[str, str]) -> Path | None:
    named = config or environ.get("UNDRIFT_CONFIG")
    file = Path(named) if named else Path(FILE_NAME)
    if file.is_file():
        return file
    if named:
        raise ConfigError(
            "The configuration file does not exist",
            why=f"there is no file {file}.",
            fix="correct --config or UNDRIFT_CONFIG, or leave both out",
        )
    return None


def _read_file(file: Path) -> dict[str, object]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        reason = str(exc) if isinstance(exc, tomllib.TOMLDecodeError) else "it is not UTF-8"
        raise ConfigError(
            f"{file} is not valid TOML", why=f"{reason}.", fix="correct the file at that place"
        ) from exc
    except OSError as exc:
        raise ConfigError(
            f"{file} cannot be read", why=f"{exc.strerror}.", fix="check the file's permissions"
        ) from exc


def _with_environment(
    written: dict[str, object], environ: Dict[str, str]
) -> tuple[dict[str, object], dict[tuple[str, ...], str]]:
    """*written* with the environment's settings laid over it, and which variable set which.

    ``UNDRIFT_<SECTION>__<KEY>`` reaches any setting. Variables without the double underscore are
    the command line's options and are not looked at here.
    """
    merged = {
        name: dict(value) if isinstance(value, dict) else value for name, value in written.items()
    }
    variables: dict[tuple[str, ...], str] = {}
    for variable, path in _SHORT_NAMES.items():
        value = environ.get(variable)
        # "env:NAME" in the file is the environment speaking already, and more precisely.
        if value and not _refers_to_environment(merged, path):
            _put(merged, path, value)
            variables[path] = variable
    for variable in sorted(environ):
        section, _, key = variable.removeprefix(_PREFIX).partition("__")
        if variable.startswith(_PREFIX) and key:
            setting = (section.lower(), *key.lower().split("__"))
            _put(merged, setting, environ[variable])
            variables[setting] = variable
    return merged, variables


def _refers_to_environment(settings: Dict[str, object], path: tuple[str, ...]) -> bool:
    section = settings.get(path[0])
    value = section.get(path[1]) if isinstance(section, dict) else None
    return isinstance(value, str) and value.startswith("env:")


def _put(settings: dict[str, object], path: tuple[str, ...], value: str) -> None:
    *sections, key = path
    for name in sections:
        inner = settings.get(name)
        inner = dict(inner) if isinstance(inner, dict) else {}
        settings[name] = inner
        settings = inner
    settings[key] = value


def _resolve(value: str | None, setting: str, environ: Dict[str, str]) -> str | None:
    if value is None or not value.startswith("env:"):
        return value or None
    variable = value.removeprefix("env:")
    found = environ.get(variable)
    if not found and variable not in _SHORT_NAMES:
        raise ConfigError(
            f"{variable} is not set",
            why=f"{setting} in {FILE_NAME} refers to this environment variable.",
            fix=f"export {variable}=…, or change {setting}",
        )
    return found or None


def embedder_options(environ: Dict[str, str] | None = None) -> EmbedderOptions:
    """What the environment says for an embedder that is opened by its name alone.

    Args:
        environ: the environment; None means this process's.
    """
    return with_openai_variables(EmbedderOptions(), os.environ if environ is None else environ)


def _embedder_options(
    section: _Embedder, environ: Dict[str, str], variables: Dict[tuple[str, ...], str]
) -> EmbedderOptions:
    if not section.name.startswith("openai"):
        # A name from the environment must not trip over what the file says for another embedder.
        return EmbedderOptions(dimension=section.dimension)
    written = section.api_key or ""
    key_variable = variables.get(("embedder", "api_key"))
    if written.startswith("env:"):
        key_variable = written.removeprefix("env:")
        written = environ.get(key_variable, "")
    elif written and key_variable is None:
        raise ConfigError(
            "The embedding server's key stands in the configuration file",
            why=f"embedder.api_key in {FILE_NAME} is not a reference to a variable, and files are "
            "copied, committed and shown.",
            fix="write api_key = 'env:OPENAI_API_KEY', or another variable's name, export that one "
            "and remove the key from the file",
        )
    given = section.model_dump(exclude={"name", "base_url", "api_key"})
    options = EmbedderOptions(
        **given,
        base_url=_resolve(section.base_url, "embedder.base_url", environ),
        api_key=written or None,
        key_variable=key_variable,
    )
    return with_openai_variables(options, environ)


def _invalid(
    exc: ValidationError, file: Path | None, variables: Dict[tuple[str, ...], str]
) -> ConfigError:
    first = exc.errors(include_url=False, include_input=False, include_context=False)[0]
    path = list(first["loc"])
    setting = ".".join(str(part) for part in path)
    where = _origin_of(tuple(map(str, path)), file, variables)
    if first["type"] != "extra_forbidden":
        return ConfigError(
            f"The setting {setting} is not usable",
            why=f"{first['msg']} (read from {where}).",
            fix=f"correct it; docs/reference/configuration.md says what {_setting_of(path)} takes",
        )
    known = _known_keys(path[:-1])
    nearest = get_close_matches(str(path[-1]), known, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"there are: {', '.join(known)}."
    return ConfigError(
        f"Unknown setting {setting!r}",
        why=f"{where} holds it and undrift has no such setting; {hint}",
        fix="correct the name, or remove it",
    )


def _setting_of(path: list[int | str]) -> str:
    names = [str(part) for part in path if isinstance(part, str)]
    return f"[[entity]] {names[-1]}" if path[:1] == ["entity"] else ".".join(names)


def _origin_of(
    path: tuple[str, ...], file: Path | None, variables: Dict[tuple[str, ...], str]
) -> str:
    """Where the setting at *path* was written: a variable's name, or the file's."""
    for set_path, variable in variables.items():
        if set_path[: len(path)] == path or path[: len(set_path)] == set_path:
            return variable
    return str(file) if file is not None else "the environment"


def _known_keys(path: list[int | str]) -> list[str]:
    sections: dict[str, type[BaseModel]] = {
        "": _File,
        "source": _Source,
        "source.documents": _Documents,
        "entity": _Entity,
        "store": _Store,
        "embedder": _Embedder,
        "heal": _Heal,
    }
    name = ".".join(part for part in path if isinstance(part, str))
    return sorted(sections.get(name, _File).model_fields)


# --- the mapping ------------------------------------------------------------------------------


def _mapping(parsed: _File) -> Mapping:
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
    documents = parsed.source.documents or _Documents()
    return Mapping(
        documents=DocumentTable(**documents.model_dump()), entities=entities or default_entities()
    )


def _entity_spec(entity: _Entity) -> EntitySpec:
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


def _entity_error(entity: _Entity, why: str) -> ConfigError:
    return ConfigError(
        f"The [[entity]] of kind {entity.kind!r} is not complete",
        why=f"it {why}.",
        fix="correct it in undrift.toml, such as path = 'experiences[*]' or table = 'experiences' "
        "with owner = 'user_id'",
    )
