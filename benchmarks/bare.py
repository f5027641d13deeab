"""The least work that any check or load has to do, written without undrift's machinery.

The floor that undrift is measured against, written straightforwardly with the same libraries: the
same rows, the same texts by one Jinja call for each owner, the same hashes, the same statements,
and nothing else. No aliases, no missing ids, no bad input, no second thoughts. That it does the
same work is checked: its fingerprints are those in the store.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, NamedTuple, Protocol

import numpy as np
import psycopg
from jinja2 import Environment
from pgvector.psycopg import register_vector

from undrift import fingerprint as hashes
from undrift.ports import Vectors

_SEPARATOR = "\x1e"
_TEXTS = Environment(autoescape=False).from_string(
    """
{%- for e in experiences -%}
{{ e.title }} at {{ e.company }}{% if e.start %} from {{ e.start }} to {{ e.end or 'present' }}
{%- endif %}{% if e.description %}. {{ e.description }}{% endif %}{{ sep }}
{%- endfor -%}
{%- for e in experiences -%}{%- for p in e.projects or [] -%}
{{ p.title }} ({{ e.title }} at {{ e.company }}){% if p.role %}, {{ p.role }}{% endif %}
{%- if p.description %}. {{ p.description }}{% endif %}
{%- if p.technologies %} Technologies: {{ p.technologies | join(', ') }}.{% endif %}{{ sep }}
{%- endfor -%}{%- endfor -%}
{%- for e in experiences -%}{%- for p in e.projects or [] -%}{%- for u in p.updates or [] -%}
{{ u.title }} ({{ p.title }}){% if u.date %}, {{ u.date }}{% endif %}
{%- if u.description %}. {{ u.description }}{% endif %}{{ sep }}
{%- endfor -%}{%- endfor -%}{%- endfor -%}
{%- for d in education -%}
{{ d.degree }} in {{ d.field }} at {{ d.school }} from {{ d.start }} to {{ d.end or 'present' }}
{{- sep }}
{%- endfor -%}
{%- for s in skills -%}
{{ s.name }}{% if s.level %} ({{ s.level }}){% endif %}{{ sep }}
{%- endfor -%}"""
)
_METADATA = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode


_TYPES = (
    "uuid", "text", "text", "text", "text", "text", "text", "text", "int8", "int2", "text",
    "jsonb", "vector",
)  # fmt: skip


class Row(NamedTuple):
    """What a load writes besides the vector."""

    vector_id: str
    owner_id: str
    kind: str
    entity_id: str
    fingerprint: str
    text_hash: str
    text: str
    metadata: str


class BareSides(Protocol):
    """Raw access to both sides."""

    def documents(self) -> Iterable[tuple[object, str]]:
        """Every owner with its document, as the driver gives them."""

    def stamps(self) -> Iterable[tuple[str, str, str, str, str, int]]:
        """Owner, kind, id, fingerprint, model and version of every record."""

    def load(self, rows: list[Row], vectors: Vectors, *, model: str) -> None:
        """Write *rows* into an empty table of their own, conditionally on the version."""


def rendered(documents: Iterable[tuple[object, str]]) -> Iterator[Row]:
    """Parse, render and hash *documents*: one render call for each."""
    for owner, raw in documents:
        owner_id = str(owner)
        document = json.loads(raw)
        texts = _TEXTS.render(document, sep=_SEPARATOR).split(_SEPARATOR)
        for (kind, entity_id, metadata), text in zip(_entities(document), texts, strict=False):
            encoded = text.encode()
            metadata_json = _METADATA({k: v for k, v in metadata.items() if v is not None})
            yield Row(
                "",
                owner_id,
                kind,
                entity_id,
                _hash("1", kind, entity_id, owner_id, text, metadata_json),
                hashlib.blake2b(encoded, digest_size=16).hexdigest(),
                text,
                metadata_json,
            )


def _hash(*parts: str) -> str:
    encoded = [part.encode() for part in parts]
    joined = b"".join(b"%d:%b" % (len(part), part) for part in encoded)
    return hashlib.blake2b(joined, digest_size=16).hexdigest()


def _entities(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Kind, id and metadata of every entity, in the template's order."""
    experiences = document["experiences"]
    projects = [(e, p) for e in experiences for p in e.get("projects", ())]
    for e in experiences:
        yield "experience", e["id"], {k: e.get(k) for k in ("title", "company", "start", "end")}
    for e, p in projects:
        metadata = {"title": p["title"], "role": p.get("role"), "parent.id": e["id"]}
        yield "project", p["id"], metadata
    for _, p in projects:
        for u in p.get("updates", ()):
            metadata = {"title": u["title"], "date": u.get("date"), "parent.id": p["id"]}
            yield "project_update", u["id"], metadata
    for d in document["education"]:
        names = ("school", "degree", "field", "start", "end")
        yield "education", d["id"], {k: d.get(k) for k in names}
    for s in document["skills"]:
        yield "skill", s["id"], {"name": s["name"], "level": s.get("level")}


def compared(sides: BareSides) -> int:
    """The whole bare check: read, parse, render, fingerprint, stamps, compare. Returns matches."""
    stamps = {(o, k, i): f for o, k, i, f, _, _ in sides.stamps()}
    wanted = rendered(sides.documents())
    return sum(stamps.get((r.owner_id, r.kind, r.entity_id)) == r.fingerprint for r in wanted)


def read_only(sides: BareSides) -> int:
    """Both sides read and nothing done with them."""
    return sum(1 for _ in sides.documents()) + sum(1 for _ in sides.stamps())


class BareSqlite:
    """Both sides in SQLite files, through the standard library."""

    def __init__(self, source: str, store: str, scratch: str) -> None:
        self._source, self._store, self._scratch = source, store, scratch

    def documents(self) -> Iterable[tuple[object, str]]:
        """One SELECT over the profiles."""
        with sqlite3.connect(self._source) as connection:
            yield from connection.execute("SELECT user_id, filtered_data FROM profiles")
        connection.close()

    def stamps(self) -> Iterable[tuple[str, str, str, str, str, int]]:
        """One SELECT over the vectors."""
        with sqlite3.connect(self._store) as connection:
            yield from connection.execute(
                "SELECT owner_id, kind, entity_id, fingerprint, model, version FROM vectors"
            )
        connection.close()

    def load(self, rows: list[Row], vectors: Vectors, *, model: str) -> None:
        """Two executemany in one transaction, with the columns and the index of the store."""
        with self.loading() as connection:
            self.load_batch(connection, rows, vectors, model=model)

    @contextmanager
    def loading(self) -> Iterator[sqlite3.Connection]:
        """A connection to load by, into a new file with the columns and the index of the store."""
        with closing(sqlite3.connect(self._store)) as store:
            layout = [
                statement
                for (statement,) in store.execute(
                    "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY type DESC"
                )
            ]
        with closing(sqlite3.connect(self._scratch)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            for statement in layout:
                connection.execute(statement)
            yield connection

    @staticmethod
    def load_batch(
        connection: sqlite3.Connection, rows: Sequence[Row], vectors: Vectors, *, model: str
    ) -> None:
        """One transaction of `load`."""
        with connection:
            connection.executemany(
                "INSERT INTO vectors (vector_id, namespace, owner_id, kind, entity_id, fingerprint,"
                " text_hash, model, version, deleted, text, metadata)"
                " VALUES (?, 'default', ?, ?, ?, ?, ?, ?, 1, 0, ?, ?)"
                " ON CONFLICT (vector_id) DO UPDATE SET version = excluded.version"
                " WHERE excluded.version > vectors.version",
                [(*row[:6], model, row.text, row.metadata) for row in rows],
            )
            connection.executemany(
                "INSERT OR REPLACE INTO embeddings VALUES (?, ?)",
                [
                    (row.vector_id, vector.tobytes())
                    for row, vector in zip(rows, vectors, strict=True)
                ],
            )


class BarePostgres:
    """Both sides in one PostgreSQL, through psycopg."""

    def __init__(self, url: str) -> None:
        self._url = url

    def documents(self) -> Iterable[tuple[object, str]]:
        """A server-side cursor over the profiles."""
        with psycopg.connect(self._url) as connection, connection.cursor("documents") as cursor:
            cursor.itersize = 5_000
            yield from cursor.execute("SELECT user_id, filtered_data::text FROM profiles")

    def stamps(self) -> Iterable[tuple[str, str, str, str, str, int]]:
        """A server-side cursor over the vectors."""
        with psycopg.connect(self._url) as connection, connection.cursor("stamps") as cursor:
            cursor.itersize = 5_000
            yield from cursor.execute(
                "SELECT owner_id, kind, entity_id, fingerprint, model, version FROM undrift.vectors"
            )

    def load(self, rows: list[Row], vectors: Vectors, *, model: str) -> None:
        """COPY into a temporary table, then a conditional insert, 5,000 records a transaction."""
        with self.loading() as connection:
            for start in range(0, len(rows), 5_000):
                stop = start + 5_000
                self.load_batch(connection, rows[start:stop], vectors[start:stop], model=model)

    @contextmanager
    def loading(self) -> Iterator[psycopg.Connection]:
        """A connection to load by, into a new table with the columns and indexes of the store."""
        with psycopg.connect(self._url, autocommit=True) as connection:
            register_vector(connection)
            connection.execute("DROP TABLE IF EXISTS public.bare_vectors")
            connection.execute(
                "CREATE TABLE public.bare_vectors (LIKE undrift.vectors INCLUDING ALL)"
            )
            yield connection

    @staticmethod
    def load_batch(
        connection: psycopg.Connection, rows: Sequence[Row], vectors: Vectors, *, model: str
    ) -> None:
        """One transaction of `load`."""
        columns = (
            "vector_id, namespace, owner_id, kind, entity_id, fingerprint, text_hash, model,"
            " version, deleted, text, metadata, embedding"
        )
        with connection.transaction(), connection.cursor() as cursor:
            cursor.execute("CREATE TEMP TABLE staged (LIKE undrift.vectors) ON COMMIT DROP")
            with cursor.copy(f"COPY staged ({columns}) FROM STDIN (FORMAT BINARY)") as copy:
                copy.set_types(_TYPES)
                for row, vector in zip(rows, vectors, strict=True):
                    copy.write_row(_copied(row, vector, model))
            cursor.execute(
                f"INSERT INTO public.bare_vectors ({columns})"
                f" SELECT DISTINCT ON (vector_id) {columns} FROM staged"
                " ORDER BY vector_id, version DESC"
                " ON CONFLICT (vector_id) DO UPDATE SET version = excluded.version"
                " WHERE bare_vectors.version < excluded.version"
            )


def _copied(row: Row, vector: Vectors, model: str) -> tuple[object, ...]:
    from uuid import UUID

    from psycopg.types.json import Jsonb

    return (
        UUID(row.vector_id), "default", row.owner_id, row.kind, row.entity_id, row.fingerprint,
        row.text_hash, model, 1, 0, row.text, Jsonb(row.metadata), np.asarray(vector),
    )  # fmt: skip


def with_vector_ids(rows: Iterable[Row]) -> list[Row]:
    """*rows* with the ids they are stored under."""
    return [
        row._replace(vector_id=hashes.vector_id("default", row.owner_id, row.kind, row.entity_id))
        for row in rows
    ]
