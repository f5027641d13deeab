"""Writing ``undrift.toml``: whole or not at all, and over nobody's file unasked."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from undrift.errors import ConfigError


def write_file(
    target: Path, text: str, *, overwrite: bool, approve: Callable[[Path], None]
) -> None:
    """Write *text* to *target*.

    Args:
        overwrite: replace what is there; else that is an error.
        approve: raises if the file that it is given must not become *target*.

    Raises:
        ConfigError: there is a file already, or none can be written.

    Safety:
        A crash leaves the old file or the new one, and at worst a ``.tmp`` file beside it.
    """
    draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        _write(draft, text)
        approve(draft)
        if overwrite:
            draft.replace(target)
        else:
            _put(draft, target)
    except FileExistsError as error:
        raise exists_already(target) from error
    except OSError as error:
        raise ConfigError(
            f"{target} cannot be written",
            why=f"{error.strerror}.",
            fix="let this user write the folder, or name another file with --config",
        ) from error
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


def exists_already(target: Path) -> ConfigError:
    """There is a file where one was to be written."""
    return ConfigError(
        f"{target} exists already",
        why="undrift init replaces no configuration that somebody may have edited.",
        fix=f"add --overwrite, or write another file: undrift init --config {target.stem}-new.toml",
    )


def _write(path: Path, text: str) -> None:
    with path.open("x", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _put(draft: Path, target: Path) -> None:
    """Give *draft* the name *target*, which must be free: a rename would replace it."""
    try:
        os.link(draft, target)
    except FileExistsError:
        raise
    except OSError:
        # A filesystem without hard links. Nobody else is expected to create it right now.
        if target.exists():
            raise FileExistsError from None
        draft.rename(target)
