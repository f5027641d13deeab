"""The source that all systems of `benchmarks.peers` are given, what is done to it, and the verdict.

One PostgreSQL with pgvector. The source is there twice: as profiles, which undrift renders, and as
the rows of the very same texts, which the others read. Every entity has a key, ``owner/kind:id``.
Nothing here believes what a system says of itself: the verdict is read from its table by SQL.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from benchmarks import bare
from benchmarks.children import cpu_of_tree
from benchmarks.profiles import profile

DAMAGED = 100


class Text(NamedTuple):
    """A row of the source, as the others read it."""

    key: str
    owner: int
    text: str


class Table(NamedTuple):
    """Where a system keeps its records, and how to hurt it.

    Attributes:
        name: the table.
        key: an SQL expression for a record's key.
        ghost: an SQL statement that inserts a record with the key of nothing in the source.
    """

    name: str
    key: str
    text: str
    ghost: str


class Damage(NamedTuple):
    """How a system's table differs from the source.

    Attributes:
        missing: texts of the source without a vector.
        stale: records of which the source has no text, and second records for one text.
        changed: records with another text than the source's.
    """

    missing: int
    stale: int
    changed: int

    @property
    def is_none(self) -> bool:
        """Whether the table is what it should be."""
        return self == Damage(0, 0, 0)


def damage(wanted: Mapping[str, str], found: Iterable[tuple[str, str]]) -> Damage:
    """Compare a table with the source.

    Args:
        wanted: the source's texts by key.
        found: key and text of every record that has a vector.
    """
    seen: set[str] = set()
    stale = changed = 0
    for key, text in found:
        if key not in wanted or key in seen:
            stale += 1
        elif wanted[key] != text:
            changed += 1
        seen.add(key)
    return Damage(len(wanted.keys() - seen), stale, changed)


def is_noticed(told: Mapping[str, int], told_of_nothing: Mapping[str, int]) -> bool:
    """Whether a run told of anything that one with nothing to do does not tell of.

    Args:
        told: what the system said of the run, in numbers.
        told_of_nothing: what it said of a run with nothing to do.
    """
    names = told.keys() | told_of_nothing.keys()
    return any(told.get(name, 0) != told_of_nothing.get(name, 0) for name in names)


class World:
    """The server's databases.

    Args:
        admin_url: of the server, as a superuser.
        postmaster: its process.
    """

    def __init__(self, admin_url: str, postmaster: int, owners: int) -> None:
        self._admin_url = admin_url
        self._postmaster = postmaster
        self.owners = owners

    def url(self, database: str) -> str:
        """The URL of *database*."""
        return f"{self._admin_url.rpartition('/')[0]}/{database}"

    # --- databases

    def create(self) -> None:
        """Create the database ``source``, with profiles and texts."""
        self._admin("CREATE DATABASE source")
        documents = {owner: profile(owner) for owner in range(1, self.owners + 1)}
        with psycopg.connect(self.url("source"), autocommit=True) as connection:
            connection.execute("CREATE EXTENSION vector")
            connection.execute(
                "CREATE TABLE profiles (user_id bigint PRIMARY KEY, filtered_data jsonb NOT NULL)"
            )
            connection.execute(
                "CREATE TABLE texts (key text PRIMARY KEY, owner bigint NOT NULL,"
                " text text NOT NULL)"
            )
            with connection.cursor() as cursor:
                with cursor.copy("COPY profiles FROM STDIN") as copy:
                    for owner, document in documents.items():
                        copy.write_row((owner, json.dumps(document)))
                with cursor.copy("COPY texts FROM STDIN") as copy:
                    for text in rendered(documents):
                        copy.write_row(text)
            connection.execute("VACUUM ANALYZE")

    def copy(self, template: str, database: str) -> None:
        """Make *database* a copy of *template*, whatever it was before."""
        self.drop(database)
        self._admin(f"CREATE DATABASE {database} TEMPLATE {template} STRATEGY file_copy")

    def drop(self, database: str) -> None:
        """Drop *database*, if it is there."""
        self._admin(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")

    def settle(self, database: str) -> None:
        """Leave no upkeep of the tables to the next run."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE")

    def _admin(self, statement: str) -> None:
        with psycopg.connect(self._admin_url, autocommit=True) as connection:
            connection.execute(statement.encode())

    def server_version(self) -> str:
        """Of PostgreSQL."""
        with psycopg.connect(self._admin_url) as connection:
            return str(connection.info.parameter_status("server_version"))

    def server_cpu_seconds(self) -> float:
        """What the server's processes have used, those that have ended included."""
        return cpu_of_tree(self._postmaster)

    # --- what is done to a database

    def change_one(self, database: str) -> None:
        """Edit one entity of one owner in the source."""
        document = profile(self.owners // 2)
        skill: Any = document["skills"][0]  # type: ignore[index]
        skill["name"] = "Juggling"
        self._edit(database, {self.owners // 2: document})

    def drop_from_source(self, database: str) -> None:
        """Take an entity of each of `DAMAGED` owners out of the source."""
        documents = {owner: profile(owner) for owner in range(1, DAMAGED + 1)}
        for document in documents.values():
            document["skills"].pop()  # type: ignore[attr-defined]
        self._edit(database, documents)

    def lose(self, database: str, table: Table) -> None:
        """Delete `DAMAGED` records, one of each of as many owners, behind the system's back."""
        keys = [f"{owner}/experience:exp_0" for owner in range(1, DAMAGED + 1)]
        with psycopg.connect(self.url(database)) as connection:
            deleted = connection.execute(
                f"DELETE FROM {table.name} WHERE {table.key} = ANY(%s)".encode(), [keys]
            )
            assert deleted.rowcount == DAMAGED

    def haunt(self, database: str, table: Table) -> None:
        """Insert a record of nothing."""
        with psycopg.connect(self.url(database)) as connection:
            assert connection.execute(table.ghost.encode()).rowcount == 1

    def _edit(self, database: str, documents: Mapping[int, Mapping[str, object]]) -> None:
        with psycopg.connect(self.url(database)) as connection, connection.cursor() as cursor:
            cursor.executemany(
                "UPDATE profiles SET filtered_data = %s WHERE user_id = %s",
                [(json.dumps(document), owner) for owner, document in documents.items()],
            )
            cursor.execute("CREATE TEMP TABLE edited (LIKE texts) ON COMMIT DROP")
            cursor.executemany("INSERT INTO edited VALUES (%s, %s, %s)", rendered(documents))
            cursor.execute(
                "DELETE FROM texts WHERE owner = ANY(%s) AND key NOT IN (SELECT key FROM edited)",
                [list(documents)],
            )
            cursor.execute(
                "UPDATE texts SET text = edited.text FROM edited"
                " WHERE texts.key = edited.key AND texts.text <> edited.text"
            )

    # --- the verdict

    def damage(self, database: str, table: Table) -> Damage:
        """What is wrong in a system's table, by the source as it is now."""
        with psycopg.connect(self.url(database)) as connection:
            wanted: dict[str, str] = dict(
                connection.execute("SELECT key, text FROM texts").fetchall()
            )
            found = connection.execute(
                sql.SQL("SELECT {}, {} FROM {} WHERE embedding IS NOT NULL").format(
                    *(sql.SQL(part) for part in (table.key, table.text, table.name))
                )
            ).fetchall()
        return damage(wanted, found)


def rendered(documents: Mapping[int, Mapping[str, object]]) -> list[Text]:
    """What undrift renders of *documents*."""
    rows = bare.rendered((owner, json.dumps(document)) for owner, document in documents.items())
    return [
        Text(f"{row.owner_id}/{row.kind}:{row.entity_id}", int(row.owner_id), row.text)
        for row in rows
    ]


def copy_folder(template: Path, folder: Path) -> None:
    """Make *folder* a copy of *template*, whatever it was before."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(template, folder)
