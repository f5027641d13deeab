"""The configuration: what is installed, which file is read, and which variable sets what."""

from __future__ import annotations

import platform
import sqlite3
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from urllib.parse import urlsplit

from undrift.config import Settings, set_by_variables
from undrift.findings import Finding, ok, warning

_PACKAGES = ("undrift", "SQLAlchemy", "psycopg", "onnxruntime", "openai")


def versions() -> Finding:
    """What this runs on; a package that is needed and missing is found where it is needed."""
    found = [f"Python {platform.python_version()}", f"SQLite {sqlite3.sqlite_version}"]
    for package in _PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"no {package}")
    return ok("configuration.versions", ", ".join(found))


def probe_settings(
    settings: Settings, config: str | Path | None, environ: Mapping[str, str]
) -> Iterator[Finding]:
    """What is configured, and from where."""
    if settings.file is None:
        yield ok(
            "configuration.file",
            "There is no undrift.toml, so the usual layout is read: profiles(user_id, "
            "filtered_data). `undrift init` writes one that fits your database",
        )
    else:
        kinds = ", ".join(settings.mapping.kinds)
        yield ok("configuration.file", f"{settings.file} describes {kinds}")
    decided = set_by_variables(config, environ=environ)
    if decided:
        listed = ", ".join(f"{setting} from {variable}" for setting, variable in decided.items())
        yield ok("configuration.variables", f"The environment sets {listed}")
    for setting, url in (("source.url", settings.source_url), ("store.url", settings.store_url)):
        if setting not in decided and settings.file is not None and _has_password(url):
            variable = "DATABASE_URL" if setting == "source.url" else "VECTOR_URL"
            yield warning(
                f"configuration.{setting}",
                f"{settings.file} holds a password in {setting}",
                f'write url = "env:{variable}" there, and export {variable}=…',
            )
    if settings.environment == "test":
        yield ok("configuration.environment", "UNDRIFT_ENV=test: no search heals by itself")


def _has_password(url: str | None) -> bool:
    try:
        return bool(url and urlsplit(url).password)
    except ValueError:
        return False
