"""The writer that undrift replaces: clear, then import, and an error counts as nothing found.

The controls of the fault tests. It goes through the same adapters and passes the same failpoints,
so that only what it does, and in which order, can make the difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from undrift import EntityId
from undrift.errors import UndriftError
from undrift.failpoints import reach
from undrift.fingerprint import vector_id
from undrift.model import Entity, Stamp
from undrift.ports import Deletion, Embedder, Record, Source, VectorStore
from undrift.render import Renderer

_LATER = 1_000  # a version above every stored one, as a writer without versions behaves


class NaiveStatus(NamedTuple):
    """What a naive check believes."""

    missing: frozenset[str]
    stale: frozenset[str]

    @property
    def in_sync(self) -> bool:
        """Whether it believes both sides to be equal."""
        return not (self.missing or self.stale)


class NaiveWriter:
    """Checks by ids and syncs by clearing, and takes an outage for an empty side."""

    def __init__(
        self, source: Source, store: VectorStore, renderer: Renderer, embedder: Embedder
    ) -> None:
        self._source = source
        self._store = store
        self._renderer = renderer
        self._embedder = embedder

    def check(self, owner_id: str) -> NaiveStatus:
        """Compare the ids of both sides."""
        wanted = {entity.key for entity in self._wanted(owner_id)}
        found = {EntityId.of(stamp.kind, stamp.entity_id) for stamp in self._stamps(owner_id)}
        return NaiveStatus(frozenset(wanted - found), frozenset(found - wanted))

    def sync(self, owner_id: str) -> NaiveStatus:
        """Clear the owner, import it anew, and compare once more."""
        wanted = self._wanted(owner_id)
        stamps = self._stamps(owner_id)
        reach("sync.looked")
        reach("sync.planned")
        self._store.publish([], [Deletion(s.owner_id, s.vector_id, s.version) for s in stamps])
        vectors = self._embedder.embed([entity.text for entity in wanted])
        reach("sync.embedded")
        self._store.publish(
            [
                Record(self._stamp(entity), entity.text, entity.metadata_json, vector)
                for entity, vector in zip(wanted, vectors, strict=True)
            ],
            [],
        )
        reach("sync.published")
        status = self.check(owner_id)
        reach("sync.verified")
        return status

    def _wanted(self, owner_id: str) -> list[Entity]:
        try:
            contents = list(self._source.read([owner_id]))
        except UndriftError:
            return []
        entities: Mapping[tuple[str, str], Entity] = {}
        for content in contents:
            entities = self._renderer.render(content).entities
        return list(entities.values())

    def _stamps(self, owner_id: str) -> list[Stamp]:
        try:
            return list(self._store.stamps([owner_id]))
        except UndriftError:
            return []

    def _stamp(self, entity: Entity) -> Stamp:
        namespace = self._store.namespace
        return Stamp(
            vector_id(namespace, entity.owner_id, entity.kind, entity.entity_id),
            namespace,
            entity.owner_id,
            entity.kind,
            entity.entity_id,
            entity.fingerprint,
            entity.text_hash,
            self._embedder.model,
            _LATER,
        )
