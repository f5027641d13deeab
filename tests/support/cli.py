"""The commands as a person runs them: in this process where that is quicker, or as programs."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from support.sides import Database
from undrift.cli import app, db_sync_vector

Document = Mapping[str, Any]

_MAINS: Mapping[str, Callable[[Sequence[str]], int]] = {
    "undrift": app.main,
    "db-sync-vector": db_sync_vector.main,
}
_SECONDS = 60


@dataclass(frozen=True)
class Ran:
    """A command that ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """The answer of ``--output json``."""
        parsed: dict[str, Any] = json.loads(self.out)
        return parsed

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The answer of ``--output jsonl``."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def errors(self) -> list[tuple[str, str, str]]:
        """The three parts of every error on stderr."""
        lines = self.err.splitlines()
        return [
            (what.partition("Error: ")[2], why.removeprefix("   Why: "), fix[len("   Fix: ") :])
            for what, why, fix in zip(lines, lines[1:], lines[2:], strict=False)
            if "Error: " in what and why.startswith("   Why: ") and fix.startswith("   Fix: ")
        ]

    @property
    def error(self) -> tuple[str, str, str]:
        """The three parts of the only error."""
        (error,) = self.errors
        return error


class Program(subprocess.Popen[str]):
    """A program that does not outlive the test that started it: a hang must not become CI's."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.kill()
        super().__exit__(kind, value, traceback)


class Shell:
    """A folder, an environment and two databases, to run commands in.

    Attributes:
        variables: the environment that undrift's own variables come from.
    """

    def __init__(
        self,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        *,
        source_url: str,
        store_url: str | None = None,
    ) -> None:
        self.folder = folder
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        monkeypatch.chdir(folder)
        self.source = Database(source_url)
        self.variables = {"DATABASE_URL": source_url, "UNDRIFT_EMBEDDER": "hashing:16"}
        if store_url is not None:
            self.variables["VECTOR_URL"] = store_url

    # --- running ------------------------------------------------------------------------------

    def __call__(self, command: str, *arguments: str, stdin: str = "", **variables: str) -> Ran:
        """Run a command in this process."""
        self._capsys.readouterr()
        with self._monkeypatch.context() as context:
            for name, value in {**self.variables, **variables}.items():
                context.setenv(name, value)
            context.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
            code = _MAINS[command](arguments)
        captured = self._capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    def undrift(self, *arguments: str, stdin: str = "", **variables: str) -> Ran:
        """Run ``undrift`` in this process."""
        return self("undrift", *arguments, stdin=stdin, **variables)

    def start(
        self,
        command: str,
        *arguments: str,
        stdout: int = subprocess.PIPE,
        variables: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[str]:
        """Start the installed program."""
        return Program(
            [Path(sys.executable).with_name(command), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            cwd=self.folder,
            env={**os.environ, **self.variables, **(variables or {})},
            encoding="utf-8",
        )

    def program(self, command: str, *arguments: str, **variables: str) -> Ran:
        """Run the installed program to its end."""
        with self.start(command, *arguments, variables=variables) as process:
            out, err = process.communicate(timeout=_SECONDS)
        return Ran(process.returncode, out, err)

    # --- the source ---------------------------------------------------------------------------

    def create_profiles(self) -> None:
        """Create the origin's table."""
        json_type = "jsonb" if self.source.is_postgres else "text"
        self.source.run(
            f"CREATE TABLE profiles (user_id bigint PRIMARY KEY, filtered_data {json_type})"
        )

    def put(self, owner: int, document: Document | str) -> None:
        """Insert or replace an owner's document; a string is stored as it is."""
        raw = document if isinstance(document, str) else json.dumps(document)
        value = "CAST(:raw AS jsonb)" if self.source.is_postgres else ":raw"
        self.source.run("DELETE FROM profiles WHERE user_id = :owner", owner=owner)
        self.source.run(
            f"INSERT INTO profiles (user_id, filtered_data) VALUES (:owner, {value})",
            owner=owner,
            raw=raw,
        )

    def drop(self, owner: int) -> None:
        """Delete an owner's row."""
        self.source.run("DELETE FROM profiles WHERE user_id = :owner", owner=owner)


@contextmanager
def profile_shell(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    source_url: str,
    store_url: str | None = None,
) -> Iterator[Shell]:
    """A shell over a source with the origin's table, empty."""
    shell = Shell(folder, monkeypatch, capsys, source_url=source_url, store_url=store_url)
    with closing(shell.source):
        shell.create_profiles()
        yield shell


def experiences(*ids: str) -> Document:
    """A document with an experience for each of *ids*."""
    return {"experiences": [{"id": i, "title": f"Title of {i}", "company": "Acme"} for i in ids]}


def origin_drift(shell: Shell, owner: int = 123) -> None:
    """The origin's example: a profile of 4 experiences over 6 vectors, 3 of them stale."""
    shell.put(owner, experiences("exp_1", "exp_2", "exp_3", "old_1", "old_2", "old_3"))
    assert shell.undrift("sync", "--user-id", str(owner)).code == 0
    shell.put(owner, experiences("exp_1", "exp_2", "exp_3", "exp_9"))
