"""A process that calls the assistant's tool for a test, and dies at the step that the test names.

Its one argument is JSON: ``source``, ``store``, ``die_at`` and the arguments of
``add_project_to_experience``. It prints the answer's class and message, if it lives so long.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable

from support.sides import NAMESPACE, CountingEmbedder
from undrift import Undrift
from undrift.assistant import CareerAssistant
from undrift.failpoints import FAILPOINTS
from undrift.ports import DocumentEditor
from undrift.testing.faults import call_at

EDIT_STEPS = ("edit.changed", "edit.committed")
"""The document has been changed and nothing is committed; it is committed and nobody knows."""


class _Dying:
    """An editor that dies at a step of the edit."""

    def __init__(self, inner: DocumentEditor, die_at: str) -> None:
        self._inner = inner
        self._die_at = die_at

    def edit(self, owner_id: str, change: Callable[[str], str]) -> None:
        """See `DocumentEditor.edit`."""

        def changed(raw: str) -> str:
            result = change(raw)
            if self._die_at == "edit.changed":
                die()
            return result

        self._inner.edit(owner_id, changed)
        if self._die_at == "edit.committed":
            die()

    def close(self) -> None:
        """See `DocumentEditor.close`."""
        self._inner.close()


def die() -> None:
    """Leave no chance to tidy up."""
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Make the call."""
    job = json.loads(sys.argv[1])
    with Undrift(
        source=job["source"], store=job["store"], embedder=CountingEmbedder(), namespace=NAMESPACE
    ) as sides:
        sides._connections._editor = _Dying(sides.documents, job["die_at"])
        if job["die_at"] in FAILPOINTS:
            call_at(job["die_at"], die, 1)
        tools = CareerAssistant(sides)
        answer = tools.add_project_to_experience(job["owner"], **job["arguments"])
        print(json.dumps([type(answer).__name__, answer.message]))


if __name__ == "__main__":
    main()
