"""What the assistant's tools answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from undrift.errors import UndriftError
from undrift.model import Candidate, EntityId, Retry, SearchResult

ToolRetry = Retry
"""The call cannot be served as it is: see `undrift.Retry`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolDone:
    """The source was written.

    Attributes:
        key: the entity that was added or changed, ``kind:id``.
        vector: ``written`` when search finds it as it is now; ``pending`` when the vector could not
            be written or proved, which the next check shows and the next sync mends.
        message: what to tell the model or the person.
        error: why the vector is pending; None in a test environment.
    """

    owner_id: str
    key: EntityId
    vector: Literal["written", "pending"]
    message: str
    error: UndriftError | None = None

    @property
    def id(self) -> str:
        """The entity's id without its kind."""
        return self.key.id

    def as_dict(self) -> dict[str, object]:
        """The answer as JSON takes it, for a model."""
        return {"id": self.id, "vector": self.vector, "message": self.message}


@dataclass(frozen=True, slots=True, kw_only=True)
class Experience:
    """One experience of a profile, as the source holds it.

    Attributes:
        key: its printed identity; ``id`` is what the other tools take.
        text: what is searched.
        projects: those whose metadata name it as ``parent.id``, as they do by default.
    """

    key: EntityId
    text: str
    metadata: Mapping[str, object]
    projects: tuple[Candidate, ...] = ()

    @property
    def id(self) -> str:
        """The id without the kind."""
        return self.key.id

    def as_dict(self) -> dict[str, object]:
        """The experience as JSON takes it, for a model."""
        projects = [{"id": project.id, "text": project.text} for project in self.projects]
        return {**self.metadata, "id": self.id, "text": self.text, "projects": projects}


def search_as_dict(result: SearchResult) -> dict[str, object]:
    """A search's result as JSON takes it, for a model."""
    return {
        "results": [
            {
                "kind": hit.key.kind,
                "id": hit.key.id,
                "text": hit.text,
                "score": round(hit.score, 4),
                **({"parent_id": str(parent)} if (parent := hit.metadata.get("parent.id")) else {}),
            }
            for hit in result.hits
        ]
    }
