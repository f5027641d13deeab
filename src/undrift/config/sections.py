"""What may stand in ``undrift.toml``, section by section, and what is said of anything else."""

from __future__ import annotations

from collections.abc import Mapping as Dict
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from undrift.embedders.options import EmbedderOptions
from undrift.errors import ConfigError
from undrift.heal import DEFAULT_POLICY

Name = Annotated[str, Field(pattern=r"^[^:\s\x00]{1,100}$")]

_OPTIONS = EmbedderOptions()


class Section(BaseModel):
    """What every section has in common: no key that is not named here."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DocumentsSection(Section):
    """``[source.documents]``: the table with a JSON document per owner."""

    table: str = "profiles"
    owner: str = "user_id"
    document: str = "filtered_data"
    where: str = ""


class SourceSection(Section):
    """``[source]``: the relational database."""

    url: str | None = None
    documents: DocumentsSection | None = None


class EntitySection(Section):
    """One ``[[entity]]``; what it leaves out comes from its kind's defaults."""

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


class ConstantSection(Section):
    """``{ value = "…" }``: what is the same for all records."""

    value: str


FieldSetting = Annotated[str, Field(min_length=1)] | list[str] | ConstantSection
"""A dotted path, its parts as a list where a name holds a dot, or a constant."""


class FieldsSection(Section):
    """``[store.fields]``: where the records of another program hold what a stamp says."""

    owner: FieldSetting
    kind: FieldSetting
    entity_id: FieldSetting
    part: FieldSetting | None = None
    text: FieldSetting | None = None
    model: FieldSetting | None = None
    id: FieldSetting | None = None
    vector: FieldSetting | None = None
    stamp: FieldSetting | None = None
    fixed: dict[str, str] = Field(default={})


class StoreSection(Section):
    """``[store]``: the vector database."""

    url: str | None = None
    namespace: Name = "default"
    keep_text: bool = True
    fields: FieldsSection | None = None


class StateSection(Section):
    """``[state]``: undrift's own memory, where it is not beside the vectors."""

    url: str | None = None


class EmbedderSection(Section):
    """``[embedder]``: what turns texts into vectors."""

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


class HealSection(Section):
    """``[heal]``: when a reader may set off a repair."""

    enabled: bool = True
    wait_seconds: float = Field(default=DEFAULT_POLICY.wait_seconds, ge=0, le=600)
    cool_down_seconds: float = Field(default=DEFAULT_POLICY.cool_down_seconds, ge=0, le=86_400)


class File(Section):
    """The whole file."""

    source: SourceSection = SourceSection()
    entity: list[EntitySection] = []
    store: StoreSection = StoreSection()
    state: StateSection = StateSection()
    embedder: EmbedderSection = EmbedderSection()
    heal: HealSection = HealSection()


# --- what does not fit -------------------------------------------------------------------------


def invalid_setting(
    exc: ValidationError, file: Path | None, variables: Dict[tuple[str, ...], str]
) -> ConfigError:
    """What is wrong with the first setting that does not fit, without its value.

    Args:
        variables: which variable set a setting, by its path.
    """
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
        "": File,
        "source": SourceSection,
        "source.documents": DocumentsSection,
        "entity": EntitySection,
        "store": StoreSection,
        "store.fields": FieldsSection,
        "state": StateSection,
        "embedder": EmbedderSection,
        "heal": HealSection,
    }
    name = ".".join(part for part in path if isinstance(part, str))
    return sorted(sections.get(name, File).model_fields)
