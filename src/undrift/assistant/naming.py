"""Which experience of a profile a language model means by an id or a title."""

from __future__ import annotations

import unicodedata

from undrift.assistant.arguments import Refused, invalid, quoted
from undrift.assistant.draft import Draft, Entry
from undrift.model import Candidate, EntityId

EXPERIENCE = "experience"

_AROUND = " \t\r\n\"'`“”‘’"
"""What models put around an id."""


def by_id(draft: Draft, asked: str) -> Entry:
    """The experience with the id *asked*, spelled with or without its kind.

    The id as it is spelled comes first. What stands around it, and how its letters are composed,
    is passed over only where one experience alone can be meant.

    Raises:
        Refused: there is none, or there are several.
    """
    entries = {entry.entity_id: entry for entry in draft.entries(EXPERIENCE)}
    for spelled in (asked, _without_kind(asked)):
        if spelled in entries:
            return _with_fields(entries[spelled], asked)
    bare = _bare(asked)
    meant = {bare, _bare(_without_kind(bare))}
    found = [entry for entity_id, entry in entries.items() if _bare(entity_id) in meant]
    return _only(found, asked, "id")


def by_title(draft: Draft, asked: str) -> Entry:
    """The only experience with the title *asked*, or with it as “title at company”.

    A title that is only similar is never taken: the project would land in the wrong place.

    Raises:
        Refused: there is none, or there are several.
    """
    meant = _plain_words(asked)
    found = [entry for entry in draft.entries(EXPERIENCE) if meant in _names_of(entry)]
    return _only(found, asked, "title")


def _only(found: list[Entry], asked: str, named_by: str) -> Entry:
    if len(found) == 1:
        return _with_fields(found[0], asked)
    if not found:
        raise Refused("stale_reference", f"{quoted(asked)} does not exist.", asked=asked)
    raise Refused(
        "ambiguous_reference",
        f"There are {len(found)} experiences with the {named_by} {quoted(asked)}. Use the id of "
        "the one that is meant.",
        asked=asked,
        candidates=[_candidate(entry) for entry in found],
    )


def _with_fields(entry: Entry, asked: str) -> Entry:
    if not entry.is_object:
        raise invalid(
            f"{quoted(asked)} is a plain text in the profile and has no fields to change.",
            asked=asked,
        )
    return entry


def _without_kind(asked: str) -> str:
    return asked.removeprefix(f"{EXPERIENCE}:")


def _bare(spelled: str) -> str:
    return unicodedata.normalize("NFC", spelled.strip(_AROUND))


def _names_of(entry: Entry) -> set[str]:
    title, company = (str(entry.view.get(name) or "") for name in ("title", "company"))
    names = {title, f"{title} at {company}"} if title else set()
    return set(map(_plain_words, names))


def _plain_words(text: str) -> str:
    return unicodedata.normalize("NFC", " ".join(text.split()).casefold())


def _candidate(entry: Entry) -> Candidate:
    parts = [str(entry.view.get(name) or "") for name in ("title", "company", "start")]
    return Candidate(
        key=EntityId.of(EXPERIENCE, entry.entity_id), text=", ".join(filter(None, parts))[:200]
    )
