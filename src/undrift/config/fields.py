"""``[store.fields]`` as the stores take it."""

from __future__ import annotations

from collections.abc import Collection

from undrift.adoption import Field, StoreFields
from undrift.config.sections import ConstantSection, FieldSetting, FieldsSection, StoreSection
from undrift.errors import ConfigError


def store_fields_of(section: StoreSection) -> StoreFields | None:
    """Where the parts of a stamp are found; None where undrift filled the store itself.

    Raises:
        ConfigError: a path that names nothing, or settings that exclude each other.
    """
    written = section.fields
    if written is None:
        return None
    if not section.keep_text:
        raise ConfigError(
            "store.keep_text and [store.fields] exclude each other",
            why="other programs read the texts of that collection, so that they have to be kept.",
            fix="leave keep_text out, or [store.fields]",
        )
    _refuse_overlaps(written)
    return StoreFields(
        owner=_field("owner", written.owner),
        kind=_field("kind", written.kind),
        entity_id=_field("entity_id", written.entity_id),
        part=_optional("part", written.part),
        text=_optional("text", written.text),
        model=_optional("model", written.model),
        id=_optional("id", written.id),
        vector=_optional("vector", written.vector),
        stamp=_optional("stamp", written.stamp),
        fixed=dict(written.fixed),
    )


def require_known_kind(fields: StoreFields | None, kinds: Collection[str]) -> None:
    """Refuse a constant kind that no entity has.

    Raises:
        ConfigError: it is unknown; every record would be nobody's.
    """
    if fields is not None and fields.kind.value is not None and fields.kind.value not in kinds:
        raise ConfigError(
            f"store.fields.kind names no entity: {fields.kind.value}",
            why=f"configured are {', '.join(kinds)}.",
            fix="use one of these, or add an [[entity]] of that kind to undrift.toml",
        )


def _refuse_overlaps(written: FieldsSection) -> None:
    places: dict[str, str] = {}
    for name in ("owner", "kind", "entity_id", "part", "text", "model", "id", "vector"):
        setting = getattr(written, name)
        if setting is None or isinstance(setting, ConstantSection):
            continue
        place = setting if isinstance(setting, str) else ".".join(setting)
        other = places.setdefault(place, name)
        if other != name:
            raise ConfigError(
                f"store.fields.{other} and store.fields.{name} name one field",
                why=f"both say {place}, and what is written for one would overwrite the other.",
                fix="name the field of each, or leave out the one that the collection has not",
            )


_MAY_BE_CONSTANT = ("kind", "model")


def _optional(name: str, setting: FieldSetting | None) -> Field | None:
    return None if setting is None else _field(name, setting)


def _field(name: str, setting: FieldSetting) -> Field:
    if isinstance(setting, ConstantSection):
        if name not in _MAY_BE_CONSTANT:
            raise ConfigError(
                f"store.fields.{name} cannot be a constant",
                why="records differ in it; only kind and model may be the same for all of them.",
                fix=f'name the field that holds it, for example {name} = "metadata.{name}"',
            )
        return Field(value=setting.value)
    parts = tuple(setting.split(".")) if isinstance(setting, str) else tuple(setting)
    if not parts or not all(parts):
        raise ConfigError(
            f"store.fields.{name} names no field",
            why="it has an empty part.",
            fix=f'write a dotted path such as {name} = "metadata.{name}", or a list of its parts '
            "where a name holds a dot",
        )
    return Field(path=parts)
