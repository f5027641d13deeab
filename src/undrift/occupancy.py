"""What lies under a vector_id that a write was refused for.

A vector_id follows from owner, kind and id, so under it belongs one entity's record only. When
somebody has edited keys by hand, another's may lie there, and it may be that other's only one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from undrift.diff import OwnerDiff
from undrift.embedding import EmbeddingResult
from undrift.errors import UndriftError, WriteFailed
from undrift.events import Listener
from undrift.look import Look, Sides
from undrift.model import Entity, Stamp
from undrift.order import Order, PlanRequest
from undrift.plan import texts_to_embed
from undrift.publish import publication_of, publish


class Occupants:
    """Finds the records that stand in the way of a write, and gives live ones their own place.

    Args:
        embed: as `TextEmbedder.embed`; called from the thread that asks.
        listener: told about the batches of the owners that were in the way.
    """

    def __init__(
        self,
        sides: Sides,
        order: Order,
        embed: Callable[[Mapping[str, str]], EmbeddingResult],
        listener: Listener,
    ) -> None:
        self._sides = sides
        self._order = order
        self._embed = embed
        self._listener = listener

    def versions_under(self, owner_id: str, vector_ids: Sequence[str]) -> dict[str, int]:
        """The versions of what lies under *vector_ids*, once nobody would lose anything by a write.

        Args:
            owner_id: whose entities belong there, for the error.

        Raises:
            WriteFailed: a record outside the namespace lies there, or another owner's only one
                that could not be given a place of its own.
            EmbeddingFailed: no vector could be had for such a record's own place.
            UnknownStateError: it cannot be told what lies there.
        """
        if not vector_ids:
            return {}
        found = list(self._sides.store.stamps_by_vector_id(vector_ids))
        if any(stamp.namespace != self._sides.store.namespace for stamp in found):
            raise _unmanaged(owner_id)
        if found and not self._make_way(found):
            raise _held_by_another(owner_id, found)
        return {stamp.vector_id: stamp.version for stamp in found}

    def _make_way(self, found: Sequence[Stamp]) -> bool:
        """Whether the read-back shows that nobody would lose anything if *found* were replaced."""
        owners = sorted({stamp.owner_id for stamp in found if stamp.owner_id})
        in_the_way = {stamp.vector_id for stamp in found}
        for look in self._order.look(owners, {}).values():
            if look.error is not None or not self._rehome(look, in_the_way):
                return False
        after = self._order.look(owners, {}).values()
        return not any(
            look.error is not None or _live_under(self._sides.diff(look), in_the_way)
            for look in after
        )

    def _rehome(self, look: Look, vector_ids: Collection[str]) -> bool:
        """Write the look's live entities that lie under *vector_ids* under their own ids.

        Returns:
            Whether that could be planned at all.
        """
        diff = self._sides.diff(look)
        entities = _live_under(diff, vector_ids)
        if not entities:
            return True
        moved = replace(
            diff, missing=entities, changed=(), wrong_model=(), stale=(), unknown=(), unstamped=()
        )
        ordered = self._order.plans([PlanRequest(look=look, diff=moved)])[look.owner_id]
        if isinstance(ordered, UndriftError):
            return False
        vectors = self._embed(texts_to_embed([ordered.plan])).vectors
        publication = publication_of(ordered, vectors, with_deletes=False)
        publication.planned_at = look.noted_at
        publish(self._order.send, [publication], self._listener)
        return True


def _live_under(diff: OwnerDiff, vector_ids: Collection[str]) -> tuple[Entity, ...]:
    """The entities that the source wants and whose record lies under one of *vector_ids*."""
    wanted = diff.wanted.entities if diff.wanted is not None else {}
    return tuple(
        wanted[identity]
        for identity, stamp in diff.kept.items()
        if identity in wanted and stamp.vector_id in vector_ids
    )


def _unmanaged(owner_id: str) -> WriteFailed:
    return WriteFailed(
        f"A vector of user {owner_id} cannot be written",
        why="its vector_id is taken by a record outside the namespace, which is never touched.",
        fix="remove that record, or restore its namespace, and sync again",
    )


def _held_by_another(owner_id: str, found: Sequence[Stamp]) -> WriteFailed:
    others = ", ".join(sorted({ascii(stamp.owner_id) for stamp in found})[:5])
    return WriteFailed(
        f"A vector of user {owner_id} cannot be written",
        why=f"its vector_id is taken by the only record of an entity of another user ({others}), "
        "or it cannot be told whether it is.",
        fix="run the sync again; if it persists, sync that user with --force first",
    )
