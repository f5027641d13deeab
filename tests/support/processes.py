"""Other processes at work on a world: one that can be killed at a failpoint, one that searches.

Everything goes over pipes: a test never waits for luck, and never for longer than for an answer.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from support.closing import Closing
from support.sides import World

TESTS = Path(__file__).resolve().parents[1]


class _Child(Closing):
    """A Python process that reads and writes lines of JSON."""

    def __init__(self, module: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            cwd=TESTS,
            # numpy's own threads would make forking unsafe, and there is nothing large to multiply.
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def close(self) -> None:
        """Let it come to its end, and wait for that."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.read()  # what it still had to say must not keep it
        self._process.stdout.close()
        self._process.wait(30)

    def _send(self, message: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()

    def _receive(self) -> Any:  # noqa: ANN401  it is JSON
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the child process has ended"
        return json.loads(line)


class Ended(NamedTuple):
    """How a job ended.

    Attributes:
        signal: what killed it, or None.
        outcomes: owner → outcome; empty where it was killed.
    """

    signal: int | None
    outcomes: Mapping[str, str]


class Writer(_Child):
    """A process that syncs, pauses at a failpoint, and goes on or is killed just there."""

    def __init__(self) -> None:
        super().__init__("support.kill_child")

    def start(
        self,
        world: World,
        owners: Sequence[str],
        *,
        force: bool = False,
        pause_at: str | None = None,
        occurrence: int = 1,
        clear_then_import: bool = False,
        without_leases: bool = False,
    ) -> None:
        """Begin to sync *owners* of *world*.

        Args:
            pause_at: the failpoint to pause at, when it is reached for the *occurrence*-th time.
            clear_then_import: do it as the naive writer does.
            without_leases: take every other worker for dead.
        """
        self._send(
            {
                "source": world.source_url,
                "store": world.store_url,
                "state": world.state_url,
                "owners": list(owners),
                "force": force,
                "pause_at": pause_at,
                "occurrence": occurrence,
                "clear_then_import": clear_then_import,
                "without_leases": without_leases,
            }
        )

    def wait_until_paused(self) -> str:
        """Wait until the job is at its failpoint, and return that one's name."""
        return str(self._receive()["paused_at"])

    def go_on(self) -> Ended:
        """Let the paused job run to its end."""
        self._send("go on")
        return self.wait_for_end()

    def kill(self) -> Ended:
        """Let the paused job die by SIGKILL, at its failpoint."""
        self._send("kill")
        return self.wait_for_end()

    def wait_for_end(self) -> Ended:
        """Wait for the job's end."""
        message = self._receive()
        return Ended(message["signal"], message["outcomes"])


class Observation(NamedTuple):
    """What one search, and one enumeration behind it, showed of the owner."""

    hits: frozenset[str]
    stamps: frozenset[str]


class Searcher(_Child):
    """A process that searches and enumerates one owner's records without a pause."""

    def __init__(self) -> None:
        super().__init__("support.search_child")
        self._sent = 0
        self.observations: list[Observation] = []

    def watch(self, world: World, owner: str) -> None:
        """Turn to another owner; what was observed before is forgotten."""
        self.ask(
            {
                "source": world.source_url,
                "store": world.store_url,
                "state": world.state_url,
                "owner": owner,
            }
        )
        self.observations.clear()
        self.look()

    def look(self) -> Observation:
        """Wait for an observation that began after this call; keep all those before it too."""
        self.ask({})
        return self.observations[-1]

    def stop(self) -> None:
        """Stop watching, and close what was opened for it."""
        self.ask({"owner": None})

    def ask(self, request: Mapping[str, object]) -> None:
        self._sent += 1
        self._send({"number": self._sent, **request})
        for message in self._messages():
            if message["hits"] is not None:
                hits, stamps = frozenset(message["hits"]), frozenset(message["stamps"])
                self.observations.append(Observation(hits, stamps))
            if message["number"] == self._sent:
                return

    def _messages(self) -> Iterator[Any]:
        while True:
            yield self._receive()
