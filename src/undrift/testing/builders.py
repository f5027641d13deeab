"""Entities, stamps, records and vectors for tests: the same arguments always give the same."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from undrift import fingerprint
from undrift.model import Entity, Stamp
from undrift.ports import Deletion, Record, Vectors
from undrift.state import Expected, Tombstone

MODEL = "test/builder@1:16:l2"
"""The model that records carry unless another is named."""

DIMENSION = 16
"""Components of a vector unless others are asked for: few, as stores only carry them."""


def entity(
    entity_id: str = "exp_1",
    *,
    owner_id: str = "1",
    kind: str = "experience",
    text: str | None = None,
    metadata: Mapping[str, object] | None = None,
) -> Entity:
    """An entity whose hashes belong to its content.

    Args:
        text: by default a sentence that names the entity.
        metadata: by default a title.
    """
    text = f"Text of {kind} {entity_id} of user {owner_id}." if text is None else text
    metadata_json = fingerprint.canonical_json(
        {"title": entity_id} if metadata is None else metadata
    )
    encoded = fingerprint.storable_text(text).encode()
    return Entity(
        kind=kind,
        entity_id=entity_id,
        owner_id=owner_id,
        text=text,
        metadata_json=metadata_json,
        text_hash=fingerprint.text_hash(encoded),
        fingerprint=fingerprint.fingerprint(kind, entity_id, owner_id, encoded, metadata_json),
    )


def stamp(of: Entity, *, namespace: str = "default", model: str = MODEL, version: int = 1) -> Stamp:
    """The stamp under which the entity is stored."""
    return Stamp(
        vector_id=fingerprint.vector_id(namespace, of.owner_id, of.kind, of.entity_id),
        namespace=namespace,
        owner_id=of.owner_id,
        kind=of.kind,
        entity_id=of.entity_id,
        fingerprint=of.fingerprint,
        text_hash=of.text_hash,
        model=model,
        version=version,
    )


def record(
    entity_id: str = "exp_1",
    *,
    owner_id: str = "1",
    kind: str = "experience",
    text: str | None = None,
    metadata: Mapping[str, object] | None = None,
    namespace: str = "default",
    model: str = MODEL,
    version: int = 1,
    embedding: Vectors | None = None,
    dimension: int = DIMENSION,
) -> Record:
    """A write of one entity.

    Args:
        embedding: by default one that depends on the text's hash only, as an embedder's would.
    """
    of = entity(entity_id, owner_id=owner_id, kind=kind, text=text, metadata=metadata)
    if embedding is None:
        embedding = vectors(1, seed=int(of.text_hash[:8], 16), dimension=dimension)[0]
    of_stamp = stamp(of, namespace=namespace, model=model, version=version)
    return Record(of_stamp, of.text, of.metadata_json, embedding)


def records(
    count: int,
    *,
    owner_id: str = "1",
    kind: str = "experience",
    namespace: str = "default",
    model: str = MODEL,
    version: int = 1,
    seed: int = 0,
    dimension: int = DIMENSION,
) -> list[Record]:
    """Writes of *count* entities ``r0``, ``r1``, … of one owner.

    Args:
        seed: of their vectors.
    """
    embeddings = vectors(count, seed=seed, dimension=dimension)
    return [
        record(
            f"r{number}",
            owner_id=owner_id,
            kind=kind,
            namespace=namespace,
            model=model,
            version=version,
            embedding=embedding,
        )
        for number, embedding in enumerate(embeddings)
    ]


def restamp(of: Record, *, version: int, metadata: Mapping[str, object]) -> Record:
    """A write that changes only the metadata of *of* and keeps its vector."""
    changed = entity(
        of.stamp.entity_id,
        owner_id=of.stamp.owner_id,
        kind=of.stamp.kind,
        text=of.text,
        metadata=metadata,
    )
    new = stamp(changed, namespace=of.stamp.namespace, model=of.stamp.model, version=version)
    return Record(new, changed.text, changed.metadata_json, None)


def deletion(of: Record | Stamp, *, version: int | None = None) -> Deletion:
    """The delete of what *of* wrote, at its version or another."""
    target = of.stamp if isinstance(of, Record) else of
    return Deletion(
        target.owner_id, target.vector_id, target.version if version is None else version
    )


def tombstone(of: Record | Stamp, *, version: int) -> Tombstone:
    """What a delete at *version* leaves of what *of* wrote."""
    target = of.stamp if isinstance(of, Record) else of
    return Tombstone(target.vector_id, target.owner_id, target.kind, target.entity_id, version)


def expected(of: Record | Stamp, *, version: int | None = None) -> Expected:
    """That the state still has the version of *of*, or another, for its entity."""
    target = of.stamp if isinstance(of, Record) else of
    at = target.version if version is None else version
    return Expected(target.owner_id, target.kind, target.entity_id, at)


def vectors(count: int, *, seed: int = 0, dimension: int = DIMENSION) -> Vectors:
    """Random directions of length one.

    Shape:
        ``(count, dimension)`` float32.
    """
    normal = np.random.default_rng(seed).standard_normal((count, dimension))
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    return normal.astype(np.float32)
