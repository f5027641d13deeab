"""The call of the assistant's tool that tests attack, and what must come of it."""

from __future__ import annotations

import json
from typing import Any

from support.layouts import ENGINEER
from support.sides import World
from undrift import Undrift
from undrift.assistant import CareerAssistant, ToolDone, ToolRetry

PROJECT = {"id": "p_new", "title": "Rose window", "description": "Lead and coloured glass."}


def add_project(sides: Undrift, project: dict[str, object] | None = None) -> ToolDone | ToolRetry:
    """Add `PROJECT`, or another, to the engineer's second experience."""
    return CareerAssistant(sides).add_project_to_experience(
        "1", experience_id="exp_2", project=PROJECT if project is None else project
    )


def with_project() -> dict[str, Any]:
    """The engineer's profile as it must be then."""
    found: dict[str, Any] = json.loads(json.dumps(ENGINEER))
    found["experiences"][1]["projects"] = [PROJECT]
    return found


def stored(world: World, owner: int = 1) -> dict[str, Any]:
    """The owner's document as the source holds it."""
    query = "SELECT CAST(filtered_data AS text) AS raw FROM profiles WHERE user_id = :owner"
    found: dict[str, Any] = json.loads(world.source.rows(query, owner=owner)[0]["raw"])
    return found
