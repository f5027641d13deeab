"""Search: the store finds, the source decides.

A hit is joined to the source before anybody sees it. What the source no longer has is never
returned, and what it has is returned with the source's text.
"""

from __future__ import annotations

from collections.abc import Sequence, Set

from undrift.embedding import embed_query
from undrift.errors import ConfigError, OwnerNotFound
from undrift.look import Look, Sides
from undrift.model import NOT_CREATED, Entity, EntityId, Hit, SearchResult, Stamp
from undrift.ports import Embedder, Match

MAX_LIMIT = 1_000
_SPARE_HITS = 10


def search_owner(
    sides: Sides,
    embedder: Embedder,
    owner_id: str,
    query: str,
    *,
    kinds: Sequence[str] | None = None,
    limit: int = 10,
) -> SearchResult:
    """The *limit* entities of *owner_id* that are nearest to *query*.

    Args:
        kinds: restrict to these kinds; None means all.

    Raises:
        ConfigError: an empty query, an unknown kind, or a limit out of range.
        OwnerNotFound: neither side has the owner.
        UnknownStateError: a side could not be read; hits are never returned unjoined.
    """
    require_sensible(sides.renderer.mapping.kinds, query, kinds, limit)
    look = sides.look([owner_id], first="source")[owner_id]
    if look.error is not None:
        raise look.error
    if sides.diff(look).is_unknown_to_both:
        raise OwnerNotFound(owner_id)
    if not sides.store_exists:
        return SearchResult(owner_id=owner_id, query=query, hits=(), notes=(NOT_CREATED,))
    vector = embed_query(embedder, query)
    # Hits that the source does not confirm leave a gap; asking for more fills it. Asking for as
    # many more as there are unconfirmed records makes the result exact.
    spare = _SPARE_HITS + len(sides.diff(look).deletes)
    matches = sides.store.search(
        owner_id,
        vector,
        model=sides.model,
        kinds=kinds or sides.renderer.mapping.kinds,  # others are not managed
        limit=limit + spare,
    )
    is_adopted = sides.store.capabilities.adoption is not None
    return _joined(look, query, matches, limit, is_adopted=is_adopted)


def _joined(
    look: Look, query: str, matches: Sequence[Match], limit: int, *, is_adopted: bool
) -> SearchResult:
    wanted = look.wanted.entities if look.wanted is not None else {}
    hits: dict[EntityId, Hit] = {}
    stale: dict[EntityId, None] = {}
    for match in matches:
        stamp = match.stamp
        entity = wanted.get((stamp.kind, stamp.entity_id))
        if entity is None:
            stale[stamp.key] = None
        elif stamp.key not in hits and len(hits) < limit:
            hits[stamp.key] = Hit(
                owner_id=look.owner_id,
                key=stamp.key,
                score=match.score,
                text=entity.text,
                metadata=entity.metadata,
                changed=_is_outdated(stamp, entity, is_adopted=is_adopted),
            )
    return SearchResult(
        owner_id=look.owner_id, query=query, hits=tuple(hits.values()), stale_ids=tuple(stale)
    )


def _is_outdated(stamp: Stamp, entity: Entity, *, is_adopted: bool) -> bool:
    """Whether the record was seen to be of another content than the source has.

    Of a record that another program wrote only the text tells, if that is stored.
    """
    if is_adopted and not stamp.fingerprint:
        return stamp.text_hash not in ("", entity.text_hash)
    return stamp.fingerprint != entity.fingerprint


def require_sensible(known: Sequence[str], query: object, kinds: object, limit: object) -> None:
    """Refuse a search that makes no sense, whatever a program or a model asks for.

    Args:
        known: the configured kinds.

    Raises:
        ConfigError: an empty query, an unknown kind, a limit out of range, or something else
            altogether in the place of one of them.
    """
    if not isinstance(query, str) or not query.strip():
        raise ConfigError(
            "The query is empty" if isinstance(query, str) else "The query is no text",
            why="there is nothing to compare the vectors with.",
            fix="give a few words to look for",
        )
    if not isinstance(limit, int) or isinstance(limit, bool):
        raise ConfigError(
            "The limit is no whole number",
            why=f"a search returns between 1 and {MAX_LIMIT} hits.",
            fix="give a limit in that range",
        )
    if not 1 <= limit <= MAX_LIMIT:
        raise ConfigError(
            f"A limit of {limit} is out of range" if abs(limit) < 2**63 else "The limit is absurd",
            why=f"a search returns between 1 and {MAX_LIMIT} hits.",
            fix="give a limit in that range",
        )
    require_known_kinds(known, kinds)


def require_known_kinds(known: Sequence[str], kinds: object) -> None:
    """Refuse kinds that are not configured; None is all of them.

    Raises:
        ConfigError: one of *kinds* is unknown, or they are no list.
    """
    if kinds is None:
        return
    if isinstance(kinds, str | bytes) or not isinstance(kinds, Sequence | Set):
        raise ConfigError(
            "The kinds are no list",
            why=f"they are a {type(kinds).__name__}.",
            fix=f"give a list of kinds, such as [{known[0]!r}]" if known else "leave them out",
        )
    for kind in kinds:
        if kind not in known:
            name = repr(kind[:100]) if isinstance(kind, str) else f"of type {type(kind).__name__}"
            raise ConfigError(
                f"No kind {name}",
                why=f"configured are {', '.join(known)}.",
                fix="use one of these, or add an [[entity]] of that kind to undrift.toml",
            )
