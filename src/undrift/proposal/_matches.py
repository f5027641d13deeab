"""Which sampled records stand for which entities of the source, and what tells them apart."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from undrift.adoption import Field
from undrift.proposal import naming

Record = Mapping[str, str]

_NUMBER = re.compile(r"[0-9]{1,6}")
_PART_NAME = re.compile(
    r"chunk|part|piece|segment|split|page|passage|position|paragraph|sequence|(^|_)(seq|idx|index)$"
    r"|(Seq|Idx|Index)$",
    re.IGNORECASE,
)
_KIND_NAME = re.compile(r"(^|_)(kind|type|entity|category|collection|source|origin)|Type$|Kind$")
_KIND = re.compile(r"[^:\s\x00]{1,100}")
_MAX_KINDS = 20
_MIN_MATCHES_TO_FIX = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceEntity:
    """What the source has of one entity.

    Attributes:
        text: as the proposed mapping renders it.
        fields: the element's own words, by their names.
    """

    owner_id: str
    kind: str
    entity_id: str
    text: str = field(default="", repr=False)
    fields: Mapping[str, str] = field(default_factory=dict, repr=False)


class Sources:
    """A sample of the source.

    Attributes:
        owners: its users.
    """

    def __init__(self, owners: Collection[str], entities: Iterable[SourceEntity]) -> None:
        self.owners = frozenset(owners)
        self._by_id: dict[tuple[str, str], dict[str, SourceEntity]] = defaultdict(dict)
        for entity in entities:
            self._by_id[entity.owner_id, entity.entity_id][entity.kind] = entity

    def entities(self, owner_id: str, entity_id: str) -> Mapping[str, SourceEntity]:
        """The owner's entities of that id, by kind."""
        return self._by_id.get((owner_id, entity_id), {})


class Match(NamedTuple):
    """A record, and the entities that it may stand for, by kind."""

    record: Record
    entities: Mapping[str, SourceEntity]


def paths_of(records: Sequence[Record]) -> list[str]:
    """Every path of the records, in the order they are first seen."""
    return list(dict.fromkeys(path for record in records for path in record))


# --- owner and entity -------------------------------------------------------------------------


class Pair(NamedTuple):
    """A field with owners and one with their entities' ids; empty where there is none.

    Attributes:
        owners: records that name a user of the source.
    """

    owner: str = ""
    entity_id: str = ""
    owners: int = 0
    matches: Sequence[Match] = ()


def best_pair(
    records: Sequence[Record], paths: Sequence[str], sources: Sources, *, record_id: str
) -> Pair:
    """The two fields in which most records name a user and an entity of that very user."""
    counts = {path: sum(r.get(path) in sources.owners for r in records) for path in paths}
    candidates = [path for path, count in counts.items() if count]
    best = Pair()
    best_rank: tuple[int, ...] = ()
    for owner in candidates:
        for entity_id in paths:
            matches = _matches(records, owner, entity_id, sources)
            if not matches:
                continue
            rank = (
                len(matches),
                owner != entity_id,
                entity_id != record_id,
                _is_owner_name(owner),
                not _is_part_name(entity_id),
                naming.is_reference(_last(entity_id)),
                counts[owner],
            )
            if rank > best_rank:
                best, best_rank = Pair(owner, entity_id, counts[owner], matches), rank
    if best.owner or not candidates:
        return best
    owner = max(candidates, key=lambda path: (_is_owner_name(path), counts[path]))
    return Pair(owner, "", counts[owner])


def entity_id_is_chance(pair: Pair) -> bool:
    """Whether small numbers may only happen to be somebody's ids."""
    values = [match.record[path] for match in pair.matches for path in (pair.owner, pair.entity_id)]
    if not all(map(_NUMBER.fullmatch, values)):
        return False
    return not _is_owner_name(pair.owner) or _is_part_name(pair.entity_id)


def _matches(
    records: Sequence[Record], owner: str, entity_id: str, sources: Sources
) -> list[Match]:
    found = []
    for record in records:
        entities = sources.entities(record.get(owner, ""), record.get(entity_id, ""))
        if entities:
            found.append(Match(record, entities))
    return found


def _is_owner_name(path: str) -> bool:
    return naming.owner_in([_last(path)], {}) is not None


def _is_part_name(path: str) -> bool:
    return _PART_NAME.search(_last(path)) is not None


def _last(path: str) -> str:
    return path.rpartition(".")[2]


# --- kind -------------------------------------------------------------------------------------


class KindGuess(NamedTuple):
    """What the records are of.

    Attributes:
        field: None where it cannot be told.
        matches: the records, each with the one entity that it stands for.
        renamed: kinds that the records call otherwise.
    """

    field: Field | None
    reason: str
    matches: Sequence[Match] = ()
    renamed: Mapping[str, str] = {}


def guess_kind(matches: Sequence[Match], paths: Sequence[str]) -> KindGuess:
    """A field with kinds, one kind for all, or a field whose words stand for kinds."""
    count = len(matches)
    agreeing = {
        path: [m for m in matches if m.record.get(path) in m.entities]
        for path in sorted(paths, key=lambda path: not _is_kind_name(path))
    }
    path = max(agreeing, key=lambda path: len(agreeing[path]), default="")
    if path and 10 * len(agreeing[path]) >= 9 * count:
        told = [_only(m, m.record[path]) for m in agreeing[path]]
        reason = f"{len(told)} of {count} such records name its kind in {path}"
        return KindGuess(Field(path=tuple(path.split("."))), reason, told)
    common = _common_kinds(matches)
    if len(common) > 1:
        common = _kinds_of_texts(matches, common)
    if len(common) == 1:
        (kind,) = common
        reason = f"all {count} such records are of kind {kind}" if count > 1 else f"it is a {kind}"
        return KindGuess(Field(value=kind), reason, [_only(m, kind) for m in matches])
    for path in sorted(paths, key=lambda path: not _is_kind_name(path)):
        words = _words_for_kinds(matches, path)
        if words is not None:
            told = [_only(match, words[match.record[path]]) for match in matches]
            renamed = {kind: word for word, kind in words.items() if word != kind}
            reason = f"each word in {path} stands for one kind: {', '.join(sorted(words))}"
            return KindGuess(Field(path=tuple(path.split("."))), reason, told, renamed)
    kinds = sorted({kind for match in matches for kind in match.entities})
    return KindGuess(None, f"the ids may be of kind {' or '.join(kinds)}, and no field tells which")


def _common_kinds(matches: Sequence[Match]) -> set[str]:
    kinds = [set(match.entities) for match in matches]
    return set.intersection(*kinds) if kinds else set()


def _kinds_of_texts(matches: Sequence[Match], kinds: Collection[str]) -> set[str]:
    """Those of *kinds* whose texts are stored in the records."""
    return {
        kind
        for kind in kinds
        if any(
            match.entities[kind].text and match.entities[kind].text in match.record.values()
            for match in matches
        )
    } or set(kinds)


def _words_for_kinds(matches: Sequence[Match], path: str) -> dict[str, str] | None:
    """By word of *path*, the one kind that it stands for; None where it is not like that."""
    possible: dict[str, set[str]] = {}
    for match in matches:
        word = match.record.get(path)
        if word is None or not _KIND.fullmatch(word):
            return None
        possible.setdefault(word, set(match.entities)).intersection_update(match.entities)
        if len(possible) > _MAX_KINDS:
            return None
    words = {word: kind for word, kinds in possible.items() if (kind := _kind_for(word, kinds))}
    is_plain = len(words) == len(possible) == len(set(words.values()))
    return words if is_plain else None


def _kind_for(word: str, kinds: Collection[str]) -> str:
    """The one of *kinds* that *word* stands for; empty where it cannot be told."""
    if len(kinds) == 1:
        return next(iter(kinds))
    named = naming.kind_of(word)
    return named if named in kinds else ""


def _only(match: Match, kind: str) -> Match:
    return Match(match.record, {kind: match.entities[kind]})


def _is_kind_name(path: str) -> bool:
    return _KIND_NAME.search(_last(path)) is not None


# --- which records are meant, and which are parts ---------------------------------------------


class Fixed(NamedTuple):
    """A value that all records of the source's entities have, and *others* have not."""

    path: str
    value: str
    others: int


def guess_fixed(
    matches: Sequence[Match],
    records: Sequence[Record],
    paths: Sequence[str],
    *,
    owner: str,
    entity_id: str,
) -> Fixed | None:
    """What keeps another program's other records out, where one constant is their kind.

    Without it these would be stale: managed, of no entity of the source, and to be deleted.
    """
    if len(matches) < _MIN_MATCHES_TO_FIX:
        return None
    matched = {id(match.record) for match in matches}
    others = [r for r in records if owner in r and entity_id in r and id(r) not in matched]
    for path in filter(_is_kind_name, paths):
        values = {match.record.get(path) for match in matches}
        value = next(iter(values))
        if len(values) == 1 and value is not None:
            kept_out = sum(record.get(path) != value for record in others)
            if kept_out:
                return Fixed(path, value, kept_out)
    return None


class PartGuess(NamedTuple):
    """What tells several records of one entity apart; an empty path for nothing."""

    path: str
    reason: str = ""
    notes: tuple[str, ...] = ()


def guess_part(
    matches: Sequence[Match], paths: Sequence[str], *, record_id: str
) -> PartGuess | None:
    """The field that numbers the records of one entity; None where each has but one."""
    groups: dict[tuple[str, str, str], list[Record]] = defaultdict(list)
    for match in matches:
        for entity in match.entities.values():
            groups[entity.owner_id, entity.kind, entity.entity_id].append(match.record)
    crowds = [group for group in groups.values() if len(group) > 1]
    numbering = [path for path in paths if _numbers(path, crowds or list(groups.values()))]
    named = [path for path in numbering if _is_part_name(path)]
    if not crowds:
        return PartGuess(named[0], "it is called like the number of a part") if named else None
    told = f"{len(crowds)} sampled entities have several records"
    if numbering:
        path = (named or numbering)[0]
        return PartGuess(path, f"{told}, which {path} numbers")
    if all(_differ(group) for group in crowds) and record_id:
        note = f"{told} of different content, and nothing numbers them; they are taken for parts"
        return PartGuess(record_id, f"{told}, told apart by their ids only", (note,))
    return PartGuess("", notes=(f"{told} of equal content, which are duplicates",))


def _numbers(path: str, groups: Sequence[Sequence[Record]]) -> bool:
    """Whether small numbers in *path* tell the records of each group apart."""
    for group in groups:
        values = [record.get(path, "") for record in group]
        if not all(map(_NUMBER.fullmatch, values)) or len(set(values)) < len(values):
            return False
    return bool(groups)


def _differ(group: Sequence[Record]) -> bool:
    """Whether the longest values of the records, which are their texts, are all different."""
    return len({max(record.values(), key=len) for record in group}) == len(group)
