"""What a run leaves behind at its source: nothing, and no secret in its messages."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from support.layouts import document, experience
from support.sides import World
from undrift import ConfigError, Outcome, Undrift
from undrift.embedders.hashing import HashingEmbedder


@pytest.fixture
def wal_source(tmp_path: Path) -> Path:
    """A source in WAL mode that nobody has open."""
    path = tmp_path / "app.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE profiles (user_id integer, filtered_data text)")
        connection.execute('INSERT INTO profiles VALUES (1, \'{"skills": ["SQL"]}\')')
        connection.commit()
    return path


def test_check_leaves_no_lock_files_beside_a_source_in_wal_mode(wal_source: Path) -> None:
    """They would belong to whoever ran the check, and stop the application from writing."""
    before = wal_source.read_bytes()
    store = f"sqlite:///{wal_source.parent / 'vectors.db'}"
    with Undrift(
        source=f"sqlite:///{wal_source}", store=store, embedder=HashingEmbedder(8)
    ) as sides:
        assert sides.check(1).outcome is Outcome.DRIFT
    assert [path.name for path in wal_source.parent.iterdir()] == ["app.db"]
    assert wal_source.read_bytes() == before


def test_source_connections_refuse_to_write(wal_source: Path) -> None:
    """Whatever a where condition says."""
    from undrift.sources.database import Database

    database = Database(f"sqlite:///{wal_source}")
    with database.snapshot() as connection, pytest.raises(Exception, match="readonly database"):
        connection.exec_driver_sql("DELETE FROM profiles")
    database.close()


@pytest.mark.parametrize("password", ["p@SECRET/word", "a@b@SECRET", "SECRET/word"])
def test_password_with_bare_separators_is_not_shown(password: str) -> None:
    """It is cut in two where it should have been encoded, and each part may be printed."""
    url = f"postgresql://u:{password}@127.0.0.1:1/db"
    with pytest.raises(ConfigError) as caught:
        Undrift(source=url, store=url, embedder=HashingEmbedder(8)).describe()
    assert "SECRET" not in str(caught.value)
    assert "%40" in caught.value.fix


def test_store_that_never_shows_what_was_written_is_a_failure_not_a_motion(sqlite: World) -> None:
    """Each round raises the version, which is our own doing."""
    sqlite.bring_in_sync({"1": document(experience("exp_0"))})
    sqlite.store.database.run(
        "CREATE TRIGGER shout AFTER UPDATE ON vectors"
        " WHEN new.fingerprint <> upper(new.fingerprint)"
        " BEGIN UPDATE vectors SET fingerprint = upper(fingerprint)"
        " WHERE vector_id = new.vector_id; END"
    )
    sqlite.put("1", document(experience("exp_0", "Changed")))
    report = sqlite.sides.sync("1")
    assert report.outcome is Outcome.FAILED
    assert not report.verified
