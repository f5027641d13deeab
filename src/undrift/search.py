"""Search: the store finds, the source decides.

A hit is joined to the source before anybody sees it. What the source no longer has is never
returned, and what it has is returned with the source's text.
"""

from __future__ import annotations

from collections.abc import Sequence

from undrift.embedding import embed_query
from undrift.errors import ConfigError, OwnerNotFound
from undrift.look import NOT_CREATED, Look, Sides
from undrift.model import EntityId, Hit, SearchResult
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
    _require_sensible(sides, query, kinds, limit)
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
    return _joined(look, query, matches, limit)


def _joined(look: Look, query: str, matches: Sequence[Match], limit: int) -> SearchResult:
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
                changed=stamp.fingerprint != entity.fingerprint,
            )
    return SearchResult(
        owner_id=look.owner_id, query=query, hits=tuple(hits.values()), stale_ids=tuple(stale)
    )


def _require_sensible(sides: Sides, query: str, kinds: Sequence[str] | None, limit: int) -> None:
    if not query.strip():
        raise ConfigError(
            "The query is empty",
            why="there is nothing to compare the vectors with.",
            fix="give a few words to look for",
        )
    if not 1 <= limit <= MAX_LIMIT:
        raise ConfigError(
            f"A limit of {limit} is out of range",
            why=f"a search returns between 1 and {MAX_LIMIT} hits.",
            fix="give a limit in that range",
        )
    known = sides.renderer.mapping.kinds
    for kind in kinds or ():
        if kind not in known:
            raise ConfigError(
                f"No kind {kind!r}",
                why=f"configured are {', '.join(known)}.",
                fix="use one of these, or add an [[entity]] of that kind to undrift.toml",
            )
