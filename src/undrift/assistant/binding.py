"""The tools as plain functions without an owner, for agent frameworks."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from undrift.api import Owner
from undrift.assistant.answers import ToolDone, ToolRetry, search_as_dict
from undrift.assistant.arguments import invalid_arguments
from undrift.fingerprint import storable_text
from undrift.model import SearchResult

Tool = Callable[..., dict[str, object]]


def bound(
    tool: Callable[..., object], owner: Owner, *, call: Callable[..., object] | None = None
) -> Tool:
    """*tool* without its first parameter, answering in JSON values.

    Arguments that it does not have are answered too: a model may make them up.

    Args:
        call: what is called in its place, with the same parameters.
    """
    called = call or tool
    full = inspect.signature(tool, eval_str=True)
    parameters = list(full.parameters.values())[1:]
    signature = full.replace(parameters=parameters, return_annotation=dict[str, object])

    def without_owner(*arguments: object, **named: object) -> dict[str, object]:
        try:
            signature.bind(*arguments, **named)
        except TypeError as exc:
            message = f"The arguments do not fit: {storable_text(str(exc)[:200])}."
            return invalid_arguments(str(owner), message).as_dict()
        return _as_json(called(owner, *arguments, **named))

    without_owner.__name__ = without_owner.__qualname__ = tool.__name__
    without_owner.__doc__ = inspect.getdoc(tool)
    without_owner.__annotations__ = {p.name: p.annotation for p in parameters} | {
        "return": dict[str, object]
    }
    without_owner.__signature__ = signature  # type: ignore[attr-defined]
    return without_owner


def _as_json(answer: object) -> dict[str, object]:
    if isinstance(answer, SearchResult):
        return search_as_dict(answer)
    if isinstance(answer, tuple):
        return {"experiences": [experience.as_dict() for experience in answer]}
    assert isinstance(answer, ToolDone | ToolRetry)
    return answer.as_dict()
