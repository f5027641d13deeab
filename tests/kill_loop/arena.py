"""Where a kill loop takes place: a source, a store and a state, and plain SQL to look at them.

Nothing that is compared here was asked of undrift: documents and records are read by SQL, and what
a document must render to is the layout's word (`support.layouts`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import sqlalchemy as sa

from support.behind import Behind
from support.closing import Closing
from support.layouts import Document, DocumentsLayout
from support.sides import (
    DIMENSION,
    NAMESPACE,
    ORIGIN,
    Database,
    StoreTables,
    metadata_of,
    vector_of,
)
from undrift import EntityId, Undrift
from undrift.embedders.hashing import HashingEmbedder
from undrift.heal import NO_HEALING

OWNERS = tuple(str(number) for number in range(1, 11))
STEADY_OWNERS = OWNERS[:6]
"""Owners that never go, and whose entity `KEPT` never does."""

KEPT = "kept"
_COUNT = re.compile(r"count (\d+)")
_LAYOUT = DocumentsLayout()


class Place(NamedTuple):
    """Addresses.

    Attributes:
        state: None means beside the vectors, which is class T; any other place is class C.
        behind: opens raw access to a store that is no SQL database.
    """

    name: str
    source: str
    store: str
    state: str | None
    behind: Callable[[], Behind] | None = None

    @property
    def state_url(self) -> str:
        """Where the state lies in the end."""
        return self.state or self.store


class Other(NamedTuple):
    """An empty place of a store that is no SQL database."""

    name: str
    url: str
    behind: Callable[[], Behind]


def places(
    folder: Path, databases: tuple[str, str, str], others: Sequence[Other] = ()
) -> list[Place]:
    """Both classes on both databases, and class C on the others.

    Args:
        folder: an empty one, for files.
        databases: three empty ones with pgvector.
    """
    files = [f"sqlite:///{folder}/{name}.db" for name in ("app_t", "t", "app_c", "c", "state_c")]
    together, source, store = databases
    return [
        Place("sqlite T", files[0], files[1], None),
        Place("pgvector T", together, together, None),
        Place("sqlite C", files[2], files[3], files[4]),
        Place("pgvector C", source, store, source),
        *(
            Place(
                f"{other.name} C",
                f"sqlite:///{folder}/app_{other.name}.db",
                other.url,
                f"sqlite:///{folder}/state_{other.name}.db",
                other.behind,
            )
            for other in others
        ),
    ]


@dataclass(frozen=True, slots=True)
class Difference:
    """What a store lacks, holds too much of, or holds otherwise than the source has it."""

    missing: frozenset[tuple[str, EntityId]]
    stale: frozenset[tuple[str, EntityId]]
    changed: frozenset[tuple[str, EntityId]]

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.missing or self.stale or self.changed)


class Arena(Closing):
    """One place, set up and in sync at the beginning."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.source = Database(place.source)
        self._store: Behind | None = None
        self.state = Database(place.state_url)
        self.owner_state = (
            "undrift.owner_state" if self.state.is_postgres else "undrift_owner_state"
        )
        for statement in _LAYOUT.ddl(is_postgres=self.source.is_postgres):
            self.source.run(statement)
        write_documents(self.source, {owner: first_document() for owner in OWNERS})
        with self.undrift() as sides:
            sides.triggers.install()
            assert all(report.is_in_sync for report in sides.sync_all())
        self.rest()

    def close(self) -> None:
        """Close every connection."""
        self.rest()

    def rest(self) -> None:
        """Close every connection for now: no fork may inherit one."""
        for database in (self.source, self.state):
            database.close()
        if self._store is not None:
            self._store.close()
            self._store = None

    @property
    def store(self) -> Behind:
        """The store, past undrift; opened when it is asked for first."""
        if self._store is None:
            behind = self.place.behind
            self._store = (
                StoreTables(Database(self.place.store), ORIGIN.kinds)
                if behind is None
                else behind()
            )
        return self._store

    @contextmanager
    def undrift(self) -> Iterator[Undrift]:
        """What stands between source and store."""
        with Undrift(
            source=self.place.source,
            store=self.place.store,
            state=self.place.state,
            embedder=HashingEmbedder(DIMENSION),
            namespace=NAMESPACE,
            heal=NO_HEALING,
        ) as sides:
            yield sides

    def documents(self) -> dict[str, Document]:
        """Every owner's document, by SQL."""
        rows = self.source.rows("SELECT user_id, filtered_data FROM profiles")
        return {str(row["user_id"]): _decoded(row["filtered_data"]) for row in rows}

    def difference(self) -> Difference:
        """Compare every record with what its owner's document must render to, vectors included."""
        wanted = {
            (owner, key): (entity.text, dict(entity.metadata))
            for owner, document in self.documents().items()
            for key, entity in _LAYOUT.entities(document).items()
        }
        records = [row for row in self.store.managed().values() if row["embedding"] is not None]
        found = {
            (row["owner_id"], EntityId.of(row["kind"], row["entity_id"])): row for row in records
        }
        assert len(found) == len(records), "an entity has more than one record"
        both = sorted(wanted.keys() & found.keys())
        vectors = HashingEmbedder(DIMENSION).embed([wanted[key][0] for key in both])
        changed = {
            key
            for key, vector in zip(both, vectors, strict=True)
            if (found[key]["text"], metadata_of(found[key])) != wanted[key]
            or not np.array_equal(vector_of(found[key]), vector)
        }
        return Difference(
            missing=frozenset(wanted.keys() - found.keys()),
            stale=frozenset(found.keys() - wanted.keys()),
            changed=frozenset(changed),
        )

    def kept_counts(self) -> dict[str, int]:
        """The count that each steady owner's `KEPT` shows in the store, if it is there."""
        if not isinstance(self.store, StoreTables):
            return {
                row["owner_id"]: count_in(row["text"])
                for row in self.store.managed().values()
                if row["entity_id"] == KEPT and row["owner_id"] in STEADY_OWNERS
                if row["embedding"] is not None
            }
        vectors = self.store.vectors
        owners = ", ".join(f"'{owner}'" for owner in STEADY_OWNERS)
        if self.store.database.is_postgres:
            query = f"SELECT owner_id, text FROM {vectors} WHERE embedding IS NOT NULL"
        else:
            query = (
                f"SELECT owner_id, text FROM {vectors} JOIN embeddings USING (vector_id) WHERE 1"
            )
        rows = self.store.database.rows(
            f"{query} AND deleted = 0 AND entity_id = '{KEPT}' AND owner_id IN ({owners})"
        )
        return {row["owner_id"]: count_in(row["text"]) for row in rows}

    def leased_by(self, process_id: int) -> dict[str, object]:
        """Owners that a process holds a lease on, with when they were verified last."""
        rows = self.state.rows(
            f"SELECT owner_id, verified_at FROM {self.owner_state} WHERE lease_holder LIKE :holder",
            holder=f"%:{process_id}:%",
        )
        return {row["owner_id"]: row["verified_at"] for row in rows}

    def verified_at(self) -> dict[str, object]:
        """When each owner was verified last, by the state's clock."""
        rows = self.state.rows(f"SELECT owner_id, verified_at FROM {self.owner_state}")
        return {row["owner_id"]: row["verified_at"] for row in rows}

    def dirty(self) -> int:
        """Owners that are to be synced, as ``undrift status`` has them."""
        with self.undrift() as sides:
            summary = sides.status().summary
        assert summary is not None
        return summary.dirty

    def marks(self) -> int:
        """Marks that nobody has taken."""
        table = "undrift.change" if self.source.is_postgres else "undrift_change"
        return int(self.source.rows(f"SELECT count(*) AS marks FROM {table}")[0]["marks"])


def first_document() -> Document:
    """What an owner begins with."""
    return {
        "experiences": [
            {"id": KEPT, "title": "Keeper", "company": "Acme", "description": "count 0"},
        ],
        "skills": ["SQL"],
    }


def count_in(text: str) -> int:
    """The count in a description of `KEPT`, or in its record's text."""
    found = _COUNT.search(text)
    assert found is not None, text
    return int(found.group(1))


def write_documents(source: Database, documents: Mapping[str, Document | None]) -> None:
    """Make *documents* their owners' content in one transaction; None removes an owner."""
    value = "CAST(:document AS jsonb)" if source.is_postgres else ":document"
    statement = (
        f"INSERT INTO profiles (user_id, filtered_data) VALUES (:owner, {value}) "
        "ON CONFLICT (user_id) DO UPDATE SET filtered_data = excluded.filtered_data"
    )
    with source.connection() as connection, connection.begin():
        for owner, document in sorted(documents.items()):
            values: dict[str, object] = {"owner": int(owner)}
            if document is None:
                connection.execute(sa.text("DELETE FROM profiles WHERE user_id = :owner"), values)
            else:
                values["document"] = json.dumps(document)
                connection.execute(sa.text(statement), values)


def _decoded(stored: object) -> Document:
    found: Document = json.loads(stored) if isinstance(stored, str) else stored  # type: ignore[assignment]
    return found
