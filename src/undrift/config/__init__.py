"""Settings: the environment over ``undrift.toml`` over the defaults.

The only package that reads the environment. It turns what people wrote into a `Settings`, or into a
`ConfigError` that names the setting; values are never repeated in a message, since they may hold a
password.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping as Dict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from pydantic import ValidationError

from undrift.adoption import StoreFields
from undrift.config.entities import mapping_of
from undrift.config.fields import require_known_kind, store_fields_of
from undrift.config.layers import FILE_NAME, find_file, read_file, resolve, with_environment
from undrift.config.sections import EmbedderSection, File, invalid_setting
from undrift.embedders.options import EmbedderOptions, with_openai_variables
from undrift.errors import ConfigError
from undrift.heal import DEFAULT_POLICY, HealPolicy
from undrift.mapping import Mapping

__all__ = [
    "EMBEDDED_STORE",
    "FILE_NAME",
    "Settings",
    "embedder_options",
    "is_test_environment",
    "load_settings",
    "mapping_in",
    "missing_source_url",
    "missing_store_url",
    "set_by_variables",
    "sqlite_url",
]

EMBEDDED_STORE = Path(".undrift") / "undrift.db"

_OPTIONS = EmbedderOptions()

_OTHER_STORES = (
    "Qdrant, Chroma, LanceDB, Milvus and Redis have URLs too: qdrant+http://…, chroma+http://…, "
    "lancedb:///…, milvus+http://…, redis://…"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything a run is configured with.

    Attributes:
        source_url: None when no source is configured.
        store_url: None when nothing names a store and none can be chosen safely.
        state_url: None for the usual place, beside the vectors.
        store_fields: where the parts of a stamp are found, in a collection of another program.
        heal: when a reader may set off a repair.
        environment: ``test`` where nothing is to be repaired by itself; what a person or a program
            asks for is done all the same.
        file: the configuration file that was read, if there is one.
    """

    source_url: str | None = field(repr=False)
    store_url: str | None = field(repr=False)
    mapping: Mapping
    state_url: str | None = field(default=None, repr=False)
    namespace: str = "default"
    keep_text: bool = True
    store_fields: StoreFields | None = None
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
    file = None if without_file else find_file(config, environment)
    written = read_file(file) if file is not None else {}
    merged, variables = with_environment(written, environment)
    try:
        parsed = File.model_validate(merged)
    except ValidationError as exc:
        # The cause would print what was written, which may hold a password.
        raise invalid_setting(exc, file, variables) from None
    source_url = resolve(parsed.source.url, "source.url", environment)
    store_url = resolve(parsed.store.url, "store.url", environment)
    store_fields = store_fields_of(parsed.store)
    mapping = mapping_of(parsed)
    require_known_kind(store_fields, mapping.kinds)
    if store_url is None and source_url is not None and source_url.startswith("sqlite"):
        beside = file.parent.absolute() if file is not None else Path.cwd()
        store_url = sqlite_url(beside / EMBEDDED_STORE)
    return Settings(
        source_url=source_url,
        store_url=store_url,
        state_url=resolve(parsed.state.url, "state.url", environment),
        mapping=mapping,
        namespace=parsed.store.namespace,
        keep_text=parsed.store.keep_text,
        store_fields=store_fields,
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


def mapping_in(text: str, *, environ: Dict[str, str] | None = None) -> Mapping:
    """The mapping that a file of *text* comes to.

    Args:
        text: valid TOML.
        environ: the environment; None means this process's.

    Raises:
        ConfigError: an unknown setting, an unusable value.
    """
    merged, variables = with_environment(
        tomllib.loads(text), os.environ if environ is None else environ
    )
    try:
        return mapping_of(File.model_validate(merged))
    except ValidationError as exc:
        raise invalid_setting(exc, None, variables) from None


def set_by_variables(
    config: str | Path | None = None, *, environ: Dict[str, str] | None = None
) -> Dict[str, str]:
    """Which variable decides a setting, by the setting's dotted name, sorted.

    Raises:
        ConfigError: the file is missing or malformed.
    """
    environment = os.environ if environ is None else environ
    file = find_file(config, environment)
    written = read_file(file) if file is not None else {}
    _, variables = with_environment(written, environment)
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
            fix=f"give store='sqlite:///vectors.db' or store='postgresql://…', or set VECTOR_URL; "
            f"{_OTHER_STORES}",
        )
    same = source_url.startswith("postgres")
    hint = (
        "VECTOR_URL=$DATABASE_URL puts the vectors into the same PostgreSQL (with pgvector), "
        "VECTOR_URL=sqlite:///vectors.db into a file here"
        if same
        else "export VECTOR_URL=sqlite:///vectors.db, or postgresql://… for pgvector"
    )
    hint = f"{hint}; {_OTHER_STORES}"
    return ConfigError(
        "VECTOR_URL is not set",
        why="the source is a server, and undrift does not guess where its vectors live.",
        fix=hint,
    )


def embedder_options(environ: Dict[str, str] | None = None) -> EmbedderOptions:
    """What the environment says for an embedder that is opened by its name alone.

    Args:
        environ: the environment; None means this process's.
    """
    return with_openai_variables(EmbedderOptions(), os.environ if environ is None else environ)


def _embedder_options(
    section: EmbedderSection, environ: Dict[str, str], variables: Dict[tuple[str, ...], str]
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
        base_url=resolve(section.base_url, "embedder.base_url", environ),
        api_key=written or None,
        key_variable=key_variable,
    )
    return with_openai_variables(options, environ)
