"""Where settings come from: the file, and the environment laid over it."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping as Dict
from pathlib import Path

from undrift.errors import ConfigError

FILE_NAME = "undrift.toml"
SHORT_NAMES = {
    "DATABASE_URL": ("source", "url"),
    "VECTOR_URL": ("store", "url"),
    "UNDRIFT_EMBEDDER": ("embedder", "name"),
}
_PREFIX = "UNDRIFT_"


def find_file(config: str | Path | None, environ: Dict[str, str]) -> Path | None:
    """The configuration file; None if none is named and there is no usual one.

    Raises:
        ConfigError: the named file does not exist.
    """
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


def read_file(file: Path) -> dict[str, object]:
    """What *file* says.

    Raises:
        ConfigError: it cannot be read, or is no TOML.
    """
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


def with_environment(
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
    for variable, path in SHORT_NAMES.items():
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


def resolve(value: str | None, setting: str, environ: Dict[str, str]) -> str | None:
    """*value*, or the variable's that it refers to as ``env:NAME``; None if it is empty.

    Args:
        setting: its dotted name, for the error.

    Raises:
        ConfigError: the variable is not set.
    """
    if value is None or not value.startswith("env:"):
        return value or None
    variable = value.removeprefix("env:")
    found = environ.get(variable)
    if not found and variable not in SHORT_NAMES:
        raise ConfigError(
            f"{variable} is not set",
            why=f"{setting} in {FILE_NAME} refers to this environment variable.",
            fix=f"export {variable}=…, or change {setting}",
        )
    return found or None
