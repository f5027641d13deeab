"""The career assistant's five tools."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

from undrift.api import Owner, Undrift
from undrift.assistant.answers import Experience, ToolDone, ToolRetry
from undrift.assistant.arguments import (
    Refused,
    fields_given,
    invalid,
    invalid_arguments,
    name_given,
    quoted,
)
from undrift.assistant.binding import Tool, bound
from undrift.assistant.draft import Draft, Fields, is_same
from undrift.assistant.naming import EXPERIENCE, by_id, by_title
from undrift.assistant.places import Places, has_text, spelled_as_in
from undrift.errors import ConfigError, InvalidDocument, UndriftError
from undrift.heal import unforeseen
from undrift.mapping import EntitySpec
from undrift.model import Candidate, EntityId, SearchResult
from undrift.resolve import MAX_CANDIDATES, candidate_of, stale_reference
from undrift.search import require_sensible

PROJECT = "project"


class _Edit(NamedTuple):
    """What became of a draft.

    Attributes:
        fields: the entry that was added or changed, the document's own object.
        is_change: False where everything was as it was to become.
    """

    kind: str
    fields: Fields
    is_change: bool = True


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
        inside: dict[str, list[Candidate]] = {}
        for entity in found:
            if entity.kind == PROJECT:
                parent = entity.metadata.get("parent.id")
                inside.setdefault(str(parent), []).append(candidate_of(entity))
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
                made up if it has none. The same call with the same id again adds nothing.
        """

        def add(draft: Draft) -> _Edit:
            fields = fields_given(experience, EXPERIENCE)
            return _added(
                draft, self._places.experience, fields, self._places.experiences_of(draft)
            )

        return self._edit_and_sync(owner, add, "The experience was saved")

    def update_experience(
        self, owner: Owner, experience_id: str, changes: Mapping[str, object]
    ) -> ToolDone | ToolRetry:
        """Change fields of an experience; those that are not named stay as they are.

        Args:
            experience_id: the id of an experience of this profile.
            changes: the fields to change, such as title, company, start, end or description.
        """

        def update(draft: Draft) -> _Edit:
            new = fields_given(changes, "changes")
            entry = by_id(draft, name_given(experience_id, "experience_id"))
            spec = self._sides.mapping.entities[entry.spec]
            spelled = spelled_as_in(entry, spec, new)
            # As they are called and as they will be stored: an alias may be what holds the id.
            stored = {**new, **spelled}
            fixed = self._places.fixed_fields(entry) & stored.keys()
            moved = {name for name in fixed if stored[name] != entry.fields.get(name)}
            if moved:
                raise invalid(
                    f"{', '.join(sorted(moved))} cannot be changed here. Ids stay as they are, and "
                    "projects are added with add_project_to_experience."
                )
            entry.fields.update(spelled)
            return _Edit(EXPERIENCE, entry.fields)

        return self._edit_and_sync(owner, update, "The experience was saved")

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
                if it has none. The same call with the same id again adds nothing.
            experience_id: the id of an experience, as a search or get_experiences returns it.
            experience_title: the title of the experience, if its id is not known.
        """

        def add(draft: Draft) -> _Edit:
            if (experience_id is None) == (experience_title is None):
                raise invalid("Give either experience_id or experience_title.")
            fields = fields_given(project, PROJECT)
            if experience_id is not None:
                entry = by_id(draft, name_given(experience_id, "experience_id"))
            else:
                entry = by_title(draft, name_given(experience_title, "experience_title"))
            spec = self._places.project
            if not self._places.takes_projects(entry):
                raise invalid(
                    f"{quoted(entry.entity_id)} stands in a part of the profile that has no "
                    "projects. Use another experience."
                )
            into = self._places.projects_of(entry, draft.owner_id)
            return _added(draft, spec, fields, into)

        return self._edit_and_sync(owner, add, "The project was saved")

    def tools_for(self, owner: Owner) -> tuple[Tool, ...]:
        """The five tools bound to *owner*, to hand to an agent framework.

        Each is a plain function with the tool's name, docstring, parameters and annotations, but
        for the owner, which no model gets to choose. They take and return JSON values; arguments
        that make no sense are answered, errors that the model cannot put right are raised.
        """
        return (
            bound(self.search_profile, owner, call=self._searched),
            bound(self.get_experiences, owner),
            bound(self.add_experience, owner),
            bound(self.update_experience, owner),
            bound(self.add_project_to_experience, owner),
        )

    # --- parts ----------------------------------------------------------------------------------

    @property
    def _places(self) -> Places:
        if self._known_places is None:
            self._known_places = Places(self._sides.mapping)
        return self._known_places

    def _searched(
        self, owner: Owner, query: str, *, kinds: Sequence[str] | None = None, limit: int = 5
    ) -> SearchResult | ToolRetry:
        """Search for a model, whose mistakes are answered and not raised."""
        wanted = [kinds] if isinstance(kinds, str) else kinds
        try:
            require_sensible(self._sides.mapping.kinds, query, wanted, limit)
        except ConfigError as exc:
            return invalid_arguments(str(owner), f"{exc.what}: {exc.why}")
        return self.search_profile(owner, query, kinds=wanted, limit=limit)

    def _edit_and_sync(
        self, owner: Owner, edit: Callable[[Draft], _Edit], saved: str
    ) -> ToolDone | ToolRetry:
        """Edit the owner's document, then bring the vectors up to it."""
        owner_id = str(owner)
        documents = self._sides.documents  # tables are refused before anything else
        keys: list[EntityId] = []

        def change(raw: str) -> str:
            draft = Draft(owner_id, raw, self._sides.renderer)
            done = edit(draft)
            changed, key = _finished(draft, done)
            keys.append(key)
            return changed if done.is_change else raw

        try:
            documents.edit(owner_id, change)
        except Refused as refused:
            return self._retry(owner_id, refused)
        return self._done(owner_id, keys[0], saved)

    def _retry(self, owner_id: str, refused: Refused) -> ToolRetry:
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
                if report.is_in_sync or self._is_shown(owner_id, key):
                    message = f"{saved}, and search finds it."
                    return ToolDone(owner_id=owner_id, key=key, vector="written", message=message)
                error = report.error
            except UndriftError as exc:
                error = exc
            except Exception as exc:  # noqa: BLE001  who hears of no success saves it twice
                error = unforeseen("The sync failed unexpectedly", exc)
            why = error.what if error is not None else "its vector could not be verified"
        return ToolDone(
            owner_id=owner_id,
            key=key,
            vector="pending",
            message=f"{saved}, but search does not find it yet ({why}). The next sync adds it.",
            error=error,
        )

    def _is_shown(self, owner_id: str, key: EntityId) -> bool:
        """Whether this vector is as it should be, though something else of the owner is not.

        Deletes may wait for a person, another text may have no vector, and an application that
        writes all the time lets no sync end in rest.
        """
        status = self._sides.check(owner_id)
        lacking = {*status.missing_ids, *status.changed_ids, *status.wrong_model_ids}
        return status.error is None and key not in lacking


def _added(draft: Draft, spec: EntitySpec, fields: Fields, into: list[object]) -> _Edit:
    """Put a new entry *into* its list, with an id of its own, unless it is there already."""
    kind = spec.kind
    if not has_text(spec, fields):
        raise _no_text(kind)
    taken = {entry.entity_id for entry in draft.entries(kind)}
    given = fields.get(spec.id)
    if given in (None, ""):
        fields = {**fields, spec.id: _new_id(kind, taken)}
    elif str(given) in taken:
        for own in into:
            if isinstance(own, dict) and is_same(own, fields):
                return _Edit(kind, own, is_change=False)
        raise invalid(
            f"There is another {kind} with the id {quoted(str(given))} already. Leave the id out, "
            "and one is made up."
        )
    into.append(fields)
    return _Edit(kind, fields)


def _finished(draft: Draft, done: _Edit) -> tuple[str, EntityId]:
    """The changed document and the entity's key, if both can be told.

    Raises:
        Refused: undrift could not read the result, or the entity has nothing to search for.
        InvalidDocument: the document was broken before the change.
    """
    try:
        raw, entity_id, wanted = draft.finished(done.kind, done.fields)
    except InvalidDocument as exc:
        draft.require_sound()
        raise invalid(f"The {done.kind} cannot be saved: {exc.why}") from exc
    if (done.kind, entity_id) not in wanted.entities:
        raise _no_text(done.kind)
    return raw, EntityId.of(done.kind, entity_id)


def _no_text(kind: str) -> Refused:
    return invalid(f"The {kind} has no text. Give it a title, at least.")


def _new_id(kind: str, taken: Collection[str]) -> str:
    prefix = "exp" if kind == EXPERIENCE else "p"
    while (made := f"{prefix}_{secrets.token_hex(6)}") in taken:
        pass
    return made
