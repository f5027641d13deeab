"""The career assistant's five tools."""

from __future__ import annotations

import inspect
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from undrift.api import Owner, Undrift
from undrift.assistant.answers import Experience, ToolDone, ToolRetry, search_as_dict
from undrift.assistant.draft import Draft, Entry, Fields, unwritable
from undrift.assistant.places import Places
from undrift.errors import InvalidDocument, SafetyStop, UndriftError
from undrift.model import Candidate, EntityId, SearchResult, SyncReport
from undrift.resolve import MAX_CANDIDATES, candidate_of, stale_reference

EXPERIENCE = "experience"
PROJECT = "project"

Tool = Callable[..., dict[str, object]]


class _Refused(Exception):
    """Ends an edit before anything is written.

    Attributes:
        code: why; see `ToolRetry`.
        asked: the reference that was meant, if one was.
        message: what to tell the model.
        candidates: what it may have meant.
    """

    def __init__(
        self,
        code: Literal["stale_reference", "ambiguous_reference", "invalid_arguments"],
        message: str,
        *,
        asked: str = "",
        candidates: Sequence[Candidate] = (),
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.asked = asked
        self.candidates = tuple(candidates)


class CareerAssistant:
    """Tools over one user's career profile, for a language model or a program.

    Args:
        sides: both sides; closed by whoever opened it. Its source must hold documents for the
            tools that write.

    Safety:
        May be used from several threads. A profile is written under its row's lock, so concurrent
        calls follow each other and none is lost.
    """

    def __init__(self, sides: Undrift) -> None:
        self._sides = sides
        self._known_places: Places | None = None

    def search_profile(
        self, owner: Owner, query: str, *, kinds: Sequence[str] | None = None, limit: int = 5
    ) -> SearchResult:
        """Find what in the profile is about the query, best first.

        Args:
            query: what to look for, in words.
            kinds: restrict to these kinds, such as experience, project, education or skill.
            limit: how many results.
        """
        return self._sides.search(owner, query, kinds=kinds, limit=limit)

    def get_experiences(self, owner: Owner) -> tuple[Experience, ...]:
        """List the profile's experiences with their ids and projects."""
        found = self._sides.entities(owner, kinds=[EXPERIENCE, PROJECT])
        inside: dict[object, list[Candidate]] = {}
        for entity in found:
            if entity.kind == PROJECT:
                parent = entity.metadata.get("parent.id")
                inside.setdefault(parent, []).append(candidate_of(entity))
        return tuple(
            Experience(
                key=entity.key,
                text=entity.text,
                metadata=entity.metadata,
                projects=tuple(inside.get(entity.entity_id, ())),
            )
            for entity in found
            if entity.kind == EXPERIENCE
        )

    def add_experience(
        self, owner: Owner, experience: Mapping[str, object]
    ) -> ToolDone | ToolRetry:
        """Add an experience to the profile.

        Args:
            experience: its fields, such as title, company, start, end and description; an id is
                made up if it has none.
        """

        def add(draft: Draft) -> tuple[str, Fields]:
            fields = self._new(draft, EXPERIENCE, experience)
            self._places.experiences_of(draft.document).append(fields)
            return EXPERIENCE, fields

        return self._written(owner, add, "The experience was saved")

    def update_experience(
        self, owner: Owner, experience_id: str, changes: Mapping[str, object]
    ) -> ToolDone | ToolRetry:
        """Change fields of an experience; those that are not named stay as they are.

        Args:
            experience_id: the id of an experience of this profile.
            changes: the fields to change, such as title, company, start, end or description.
        """

        def update(draft: Draft) -> tuple[str, Fields]:
            new = _usable(changes, "changes")
            entry = _by_id(draft, experience_id)
            fixed = {self._places.id_fields[EXPERIENCE], *self._places.below_experience}
            moved = {name for name in fixed & new.keys() if new[name] != entry.fields.get(name)}
            if moved:
                raise _Refused(
                    "invalid_arguments",
                    f"{', '.join(sorted(moved))} cannot be changed here. Ids stay as they are, and "
                    "projects are added with add_project_to_experience.",
                )
            entry.fields.update(new)
            return EXPERIENCE, entry.fields

        return self._written(owner, update, "The experience was saved")

    def add_project_to_experience(
        self,
        owner: Owner,
        *,
        project: Mapping[str, object],
        experience_id: str | None = None,
        experience_title: str | None = None,
    ) -> ToolDone | ToolRetry:
        """Add a project to an experience of the profile, named by its id or by its title.

        Args:
            project: its fields, such as title, description, role and technologies; an id is made up
                if it has none.
            experience_id: the id of an experience, as a search or get_experiences returns it.
            experience_title: the title of the experience, if its id is not known.
        """

        def add(draft: Draft) -> tuple[str, Fields]:
            if (experience_id is None) == (experience_title is None):
                raise _Refused(
                    "invalid_arguments", "Give either experience_id or experience_title."
                )
            fields = self._new(draft, PROJECT, project)
            if experience_id is not None:
                entry = _by_id(draft, experience_id)
            else:
                entry = _by_title(draft, experience_title or "")
            self._places.projects_of(entry.fields, draft.owner_id).append(fields)
            return PROJECT, fields

        return self._written(owner, add, "The project was saved")

    def tools_for(self, owner: Owner) -> tuple[Tool, ...]:
        """The five tools bound to *owner*, to hand to an agent framework.

        Each is a plain function with the tool's name, docstring, parameters and annotations, but
        for the owner, which no model gets to choose. They take and return JSON values; errors that
        the model cannot put right are raised.
        """
        return tuple(
            _bound(tool, owner)
            for tool in (
                self.search_profile,
                self.get_experiences,
                self.add_experience,
                self.update_experience,
                self.add_project_to_experience,
            )
        )

    # --- parts ----------------------------------------------------------------------------------

    @property
    def _places(self) -> Places:
        if self._known_places is None:
            self._known_places = Places(self._sides.mapping)
        return self._known_places

    def _new(self, draft: Draft, kind: str, given: Mapping[str, object]) -> Fields:
        """The fields of an entity that is to be added, with an id of its own."""
        fields = _usable(given, kind)
        id_field = self._places.id_fields[kind]
        if not any(value for name, value in fields.items() if name != id_field):
            raise _no_text(kind)
        taken = {entry.entity_id for entry in draft.entries(kind)}
        if fields.get(id_field) in (None, ""):
            fields = {**fields, id_field: _new_id(kind, taken)}
        elif str(fields[id_field]) in taken:
            raise _Refused(
                "invalid_arguments",
                f"There is a {kind} with the id {fields[id_field]!r} already. Leave the id out, "
                "and one is made up.",
            )
        return fields

    def _written(
        self, owner: Owner, edit: Callable[[Draft], tuple[str, Fields]], saved: str
    ) -> ToolDone | ToolRetry:
        """Edit the owner's document, then bring the vectors up to it."""
        owner_id = str(owner)
        documents = self._sides.documents  # tables are refused before anything else
        keys: list[EntityId] = []

        def change(raw: str) -> str:
            draft = Draft(owner_id, raw, self._sides.renderer)
            changed, key = _finished(draft, *edit(draft))
            keys.append(key)
            return changed

        try:
            documents.edit(owner_id, change)
        except _Refused as refused:
            return self._retry(owner_id, refused)
        return self._done(owner_id, keys[0], saved)

    def _retry(self, owner_id: str, refused: _Refused) -> ToolRetry:
        if refused.code == "stale_reference":
            # Asked again, and outside the lock: healing must not hold up the application.
            there_are = self._sides.entities(owner_id, kinds=[EXPERIENCE])
            return stale_reference(owner_id, refused.asked, there_are, self._sides.heal(owner_id))
        return ToolRetry(
            owner_id=owner_id,
            code=refused.code,
            missing_id=refused.asked,
            message=refused.message,
            candidates=refused.candidates[:MAX_CANDIDATES],
        )

    def _done(self, owner_id: str, key: EntityId, saved: str) -> ToolDone:
        """The source is written; whatever happens now, the answer says so."""
        error: UndriftError | None = None
        why = "nothing is synced by itself in a test environment"
        if not self._sides.is_testing:
            try:
                report = self._sides.sync(owner_id, is_guarded=True)
            except UndriftError as exc:
                error = exc
            else:
                if _shows_everything(report):
                    message = f"{saved}, and search finds it."
                    return ToolDone(owner_id=owner_id, key=key, vector="written", message=message)
                error = report.error
            why = error.what if error is not None else "its vector could not be verified"
        return ToolDone(
            owner_id=owner_id,
            key=key,
            vector="pending",
            message=f"{saved}, but search does not find it yet ({why}). The next sync adds it.",
            error=error,
        )


def _shows_everything(report: SyncReport) -> bool:
    """Whether every write is proved; deletes that the guard keeps aside are another matter."""
    return report.is_in_sync or isinstance(report.error, SafetyStop)


def _finished(draft: Draft, kind: str, fields: Fields) -> tuple[str, EntityId]:
    """The changed document and the entity's key, if both can be told.

    Raises:
        _Refused: undrift could not read the result, or the entity has nothing to search for.
    """
    try:
        raw, entity_id, wanted = draft.finished(kind, fields)
    except InvalidDocument as exc:
        raise _Refused("invalid_arguments", f"The {kind} cannot be saved: {exc.why}") from exc
    if (kind, entity_id) not in wanted.entities:
        raise _no_text(kind)
    return raw, EntityId.of(kind, entity_id)


def _no_text(kind: str) -> _Refused:
    return _Refused("invalid_arguments", f"The {kind} has no text. Give it a title, at least.")


def _usable(given: object, what: str) -> Fields:
    fields = dict(given) if isinstance(given, Mapping) else {}
    reason = "it is empty, or no object" if not fields else unwritable(fields)
    if reason is not None:
        raise _Refused("invalid_arguments", f"The {what} cannot be saved: {reason}.")
    return fields


def _new_id(kind: str, taken: set[str]) -> str:
    prefix = "exp" if kind == EXPERIENCE else "p"
    while (made := f"{prefix}_{secrets.token_hex(6)}") in taken:
        pass
    return made


def _by_id(draft: Draft, asked: str) -> Entry:
    """The experience with the id *asked*, spelled with or without its kind."""
    entries = {entry.entity_id: entry for entry in draft.entries(EXPERIENCE)}
    entry = entries.get(asked) or entries.get(asked.removeprefix(f"{EXPERIENCE}:"))
    if entry is None:
        raise _Refused("stale_reference", f"{asked!r} does not exist.", asked=asked)
    return _with_fields(entry, asked)


def _by_title(draft: Draft, asked: str) -> Entry:
    """The only experience with the title *asked*, or with it as “title at company”.

    A title that is only similar is never taken: the project would land in the wrong place.
    """
    meant = " ".join(asked.split()).casefold()
    found = [entry for entry in draft.entries(EXPERIENCE) if meant in _names_of(entry)]
    if len(found) == 1:
        return _with_fields(found[0], asked)
    if not found:
        raise _Refused("stale_reference", f"{asked!r} does not exist.", asked=asked)
    raise _Refused(
        "ambiguous_reference",
        f"There are {len(found)} experiences with the title {asked!r}. Use the id of the one that "
        "is meant.",
        asked=asked,
        candidates=[_candidate(entry) for entry in found],
    )


def _with_fields(entry: Entry, asked: str) -> Entry:
    if not entry.is_object:
        raise _Refused(
            "invalid_arguments",
            f"{asked!r} is a plain text in the profile and has no fields to change.",
            asked=asked,
        )
    return entry


def _names_of(entry: Entry) -> set[str]:
    title, company = (str(entry.view.get(name) or "") for name in ("title", "company"))
    names = {title, f"{title} at {company}"} if title else set()
    return {" ".join(name.split()).casefold() for name in names}


def _candidate(entry: Entry) -> Candidate:
    view = entry.view
    parts = [str(view.get(name) or "") for name in ("title", "company", "start")]
    return Candidate(
        key=EntityId.of(EXPERIENCE, entry.entity_id), text=", ".join(filter(None, parts))
    )


def _bound(tool: Callable[..., object], owner: Owner) -> Tool:
    """*tool* without its first parameter, answering in JSON values."""
    signature = inspect.signature(tool, eval_str=True)
    parameters = list(signature.parameters.values())[1:]

    def bound(*arguments: object, **named: object) -> dict[str, object]:
        return _as_json(tool(owner, *arguments, **named))

    bound.__name__ = bound.__qualname__ = tool.__name__
    bound.__doc__ = inspect.getdoc(tool)
    bound.__annotations__ = {p.name: p.annotation for p in parameters} | {
        "return": dict[str, object]
    }
    bound.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=parameters, return_annotation=dict[str, object]
    )
    return bound


def _as_json(answer: object) -> dict[str, object]:
    if isinstance(answer, SearchResult):
        return search_as_dict(answer)
    if isinstance(answer, tuple):
        return {"experiences": [experience.as_dict() for experience in answer]}
    assert isinstance(answer, ToolDone | ToolRetry)
    return answer.as_dict()
