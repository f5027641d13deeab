"""The demo's files: how they are made, and how they are driven apart.

Everything here is plain SQL through `sqlite3`, as an application, a migration or a person at a
prompt would do it. undrift is told nothing; what must be found is written down beside each
statement, so that the story can compare.
"""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from undrift.errors import ConfigError
from undrift.model import EntityId

SOURCE_FILE = Path("app.db")
STORE_FILE = Path(".undrift") / "undrift.db"
MARKER_FILE = Path("undrift-demo.txt")
_MARKER = (
    "Made by `undrift demo`. When it runs in this folder again, it deletes and rewrites\n"
    f"{SOURCE_FILE} and {STORE_FILE} here. Delete this file to keep them.\n"
)
IMPORTED = 4
"""Profiles that are kept back at first, for the import."""


class Profile(NamedTuple):
    """One row of ``profiles``."""

    user_id: int
    document: Mapping[str, object]

    @property
    def entity_count(self) -> int:
        """Things in the document that get a vector, counted without undrift."""
        experiences = _elements(self.document, "experiences")
        projects = [inner for outer in experiences for inner in _elements(outer, "projects")]
        updates = [inner for outer in projects for inner in _elements(outer, "updates")]
        others = ("education", "projects", "skills")
        return len(experiences + projects + updates) + sum(
            len(_elements(self.document, name)) for name in others
        )


class Drift(StrEnum):
    """Kinds of drift, in the words of the check."""

    MISSING = "missing"
    STALE = "stale"
    CHANGED = "changed"
    WRONG_MODEL = "wrong model"
    DUPLICATE = "duplicate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Planted:
    """One thing done behind undrift's back, and what a check must say of it.

    Attributes:
        what: a sentence for people.
        sql: the statement that does it; empty where no single one does.
        needs_embedding: whether the repair has to pay for these texts.
    """

    what: str
    owner_id: str
    drift: Drift
    ids: frozenset[EntityId]
    sql: str = ""
    needs_embedding: bool = False


def _ids(*ids: str) -> frozenset[EntityId]:
    return frozenset(EntityId(entity_id) for entity_id in ids)


# --- what goes wrong --------------------------------------------------------------------------

RETITLED = Planted(
    what="A job title is corrected in a row; the texts of its projects name it too",
    owner_id="132",
    drift=Drift.CHANGED,
    ids=_ids("experience:exp_1", "project:p_1", "project:p_2"),
    sql="""\
UPDATE profiles SET filtered_data = json_set(filtered_data,
  '$.experiences[0].title', 'Head of Bridges')
WHERE user_id = 132""",
    needs_embedding=True,
)
REWRITTEN = Planted(
    what="A project is rewritten and keeps its id",
    owner_id="131",
    drift=Drift.CHANGED,
    ids=_ids("project:p_3"),
    sql="""\
UPDATE profiles SET filtered_data = json_set(filtered_data,
  '$.projects[0].title', 'Star parties on the flat roof',
  '$.projects[0].description',
  'After dark a retired teacher shows the rings of Saturn through a borrowed telescope.')
WHERE user_id = 131""",
    needs_embedding=True,
)
EXPERIENCE_DELETED = Planted(
    what="An experience is deleted from a row",
    owner_id="101",
    drift=Drift.STALE,
    ids=_ids("experience:exp_3"),
    sql="""\
UPDATE profiles SET filtered_data = json_remove(filtered_data,
  '$.experiences[2]')
WHERE user_id = 101""",
)
PROFILE_DELETED = Planted(
    what="A whole profile is deleted",
    owner_id="112",
    drift=Drift.STALE,
    ids=frozenset(),  # whatever the store holds of it by then
    sql="DELETE FROM profiles WHERE user_id = 112",
)
_IN_THE_SOURCE = (RETITLED, REWRITTEN, EXPERIENCE_DELETED, PROFILE_DELETED)

_TAMPERED_OWNER = "113"
_IN_THE_STORE = (
    Planted(
        what="Vectors are removed from the store",
        owner_id=_TAMPERED_OWNER,
        drift=Drift.MISSING,
        ids=_ids("project_update:u_1", "project_update:u_2"),
        sql="DELETE FROM vectors WHERE owner_id = '113' AND kind = 'project_update'",
        needs_embedding=True,
    ),
    Planted(
        what="A record's fingerprint is overwritten",
        owner_id=_TAMPERED_OWNER,
        drift=Drift.CHANGED,
        ids=_ids("project:p_2"),
        sql="""\
UPDATE vectors SET fingerprint = '00000000000000000000000000000000'
WHERE owner_id = '113' AND kind = 'project' AND entity_id = 'p_2'""",
    ),
    Planted(
        what="A vector comes from another model of the same dimension",
        owner_id=_TAMPERED_OWNER,
        drift=Drift.WRONG_MODEL,
        ids=_ids("experience:exp_2"),
        sql="""\
UPDATE vectors SET model = 'elsewhere/another-model:384'
WHERE owner_id = '113' AND kind = 'experience' AND entity_id = 'exp_2'""",
        needs_embedding=True,
    ),
)
_GHOST = Planted(
    what="A ghost is inserted: the vector of a project that never was",
    owner_id=_TAMPERED_OWNER,
    drift=Drift.STALE,
    ids=_ids("project:ghost"),
)
_DUPLICATE = Planted(
    what="A vector is there twice, once under an id that undrift never makes",
    owner_id=_TAMPERED_OWNER,
    drift=Drift.DUPLICATE,
    ids=_ids("education:edu_1"),
)


def drift_source(folder: Path) -> list[Planted]:
    """Edit and delete rows of the application's database."""
    with _database(folder / STORE_FILE) as store:
        orphans = _stored_ids(store, PROFILE_DELETED.owner_id)
    with _database(folder / SOURCE_FILE) as source:
        for planted in _IN_THE_SOURCE:
            source.execute(planted.sql)
    return [
        replace(planted, ids=orphans) if planted is PROFILE_DELETED else planted
        for planted in _IN_THE_SOURCE
    ]


def drift_store(folder: Path) -> list[Planted]:
    """Delete, tamper with and insert records of the vector store."""
    with _database(folder / STORE_FILE) as store:
        for planted in _IN_THE_STORE:
            store.execute(planted.sql)
        _insert_copy(store, "project", "p_1", as_entity="ghost")
        _insert_copy(store, "education", "edu_1", as_entity="edu_1")
    return [*_IN_THE_STORE, _GHOST, _DUPLICATE]


def imported(profile: Profile, ids: Iterable[EntityId]) -> Planted:
    """What a check must say of *profile* after its import.

    Args:
        ids: the entities of the profile.
    """
    return Planted(
        what="A profile is imported",
        owner_id=str(profile.user_id),
        drift=Drift.MISSING,
        ids=frozenset(ids),
        needs_embedding=True,
    )


# --- files ------------------------------------------------------------------------------------


def prepare_folder(folder: Path) -> bool:
    """Make *folder* ready for a new run.

    Returns:
        Whether an earlier run's files were removed.

    Raises:
        ConfigError: the folder holds files that are not the demo's, or cannot be used.

    Safety:
        Deletes the demo's own files only, and only beside its marker.
    """
    try:
        is_ours = _is_ours(folder)
        if is_ours:
            _remove_own_files(folder)
        elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise _foreign(folder)
        (folder / STORE_FILE).parent.mkdir(parents=True, exist_ok=True)
        (folder / MARKER_FILE).write_text(_MARKER, encoding="utf-8")
    except OSError as exc:
        raise ConfigError(
            f"The folder {folder} cannot be used",
            why=f"{exc.strerror}.",
            fix="name another folder, as in `undrift demo --folder PATH`",
        ) from exc
    return is_ours


def load_profiles() -> list[Profile]:
    """The sample profiles, in the order of their ids."""
    written = files("undrift.demo").joinpath("profiles.json").read_text(encoding="utf-8")
    return [Profile(row["user_id"], row["filtered_data"]) for row in json.loads(written)]


def create_source(folder: Path, profiles: Sequence[Profile]) -> None:
    """Create the application's database with *profiles* in it."""
    with _database(folder / SOURCE_FILE) as source:
        source.execute("CREATE TABLE profiles (user_id integer PRIMARY KEY, filtered_data text)")
    insert_profiles(folder, profiles)


def insert_profiles(folder: Path, profiles: Sequence[Profile]) -> None:
    """Add *profiles* to the application's database."""
    rows = [(row.user_id, json.dumps(row.document, ensure_ascii=False)) for row in profiles]
    with _database(folder / SOURCE_FILE) as source:
        source.executemany("INSERT INTO profiles VALUES (?, ?)", rows)


def count_texts(folder: Path, planted: Iterable[Planted] | None = None) -> int:
    """How many different texts the store holds.

    Args:
        planted: count only the texts that the repair of these has to embed.
    """
    with _database(folder / STORE_FILE) as store:
        rows = store.execute("SELECT owner_id, kind, entity_id, text_hash FROM vectors").fetchall()
    if planted is None:
        return len({text_hash for *_, text_hash in rows})
    wanted = {(p.owner_id, entity_id) for p in planted if p.needs_embedding for entity_id in p.ids}
    return len({h for owner, kind, name, h in rows if (owner, EntityId.of(kind, name)) in wanted})


@contextmanager
def _database(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection whose changes are committed at the end, all or none."""
    with closing(sqlite3.connect(path)) as connection, connection:
        yield connection


def _is_ours(folder: Path) -> bool:
    marker = folder / MARKER_FILE
    # A linked folder could lead the removal to somebody else's vectors.
    is_linked = (folder / STORE_FILE).parent.is_symlink()
    return not is_linked and marker.is_file() and marker.read_bytes() == _MARKER.encode()


def _remove_own_files(folder: Path) -> None:
    for database in (folder / SOURCE_FILE, folder / STORE_FILE):
        for suffix in ("", "-wal", "-shm", "-journal"):
            database.with_name(database.name + suffix).unlink(missing_ok=True)


def _foreign(folder: Path) -> ConfigError:
    return ConfigError(
        f"{folder} is not the demo's folder",
        why=f"it exists, and there is no {MARKER_FILE} of the demo in it; the demo never deletes "
        "or overwrites what it did not make.",
        fix="name a new or empty folder, as in `undrift demo --folder PATH`",
    )


def _elements(holder: object, name: str) -> list[object]:
    found = holder.get(name) if isinstance(holder, Mapping) else None
    return found if isinstance(found, list) else []


def _stored_ids(store: sqlite3.Connection, owner_id: str) -> frozenset[EntityId]:
    rows = store.execute("SELECT kind, entity_id FROM vectors WHERE owner_id = ?", (owner_id,))
    return frozenset(EntityId.of(kind, entity_id) for kind, entity_id in rows)


def _insert_copy(store: sqlite3.Connection, kind: str, entity_id: str, *, as_entity: str) -> None:
    """Put a second record beside one of the tampered owner's, under a key undrift never makes."""
    where = (_TAMPERED_OWNER, kind, entity_id)
    (original,) = store.execute(
        "SELECT vector_id FROM vectors WHERE owner_id = ? AND kind = ? AND entity_id = ?", where
    ).fetchone()
    foreign = str(uuid.uuid5(uuid.NAMESPACE_URL, f"demo/{kind}/{as_entity}"))
    # Through a temporary table: whatever other columns there are, they are copied.
    for table in ("vectors", "embeddings"):
        store.execute(
            f"CREATE TEMP TABLE copied AS SELECT * FROM {table} WHERE vector_id = ?",  # noqa: S608
            (original,),
        )
        store.execute("UPDATE copied SET vector_id = ?", (foreign,))
        if table == "vectors":
            store.execute("UPDATE copied SET entity_id = ?", (as_entity,))
        store.execute(f"INSERT INTO {table} SELECT * FROM copied")  # noqa: S608
        store.execute("DROP TABLE copied")
