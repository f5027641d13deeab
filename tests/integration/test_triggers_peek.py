"""Whom marks name, for whoever looks at them and takes none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.capture import EVERYBODY, Capture, of_documents
from support.postgres import PostgresServer, with_login
from support.sources import SourceDatabase, sqlite_database
from undrift.errors import ConfigError


@pytest.fixture(params=["sqlite", "postgres"])
def profiles(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Capture]:
    """Triggers on the origin's table, which holds ann and bob, on either database."""
    if request.param == "sqlite":
        database, json_type = sqlite_database(tmp_path), "text"
    else:
        database, json_type = SourceDatabase(request.getfixturevalue("postgres_url")), "jsonb"
    database.execute(
        f"CREATE TABLE profiles (user_id text, filtered_data {json_type}, seen int, "
        "id int PRIMARY KEY)",
        "INSERT INTO profiles VALUES ('ann', '{}', 0, 1), ('bob', '{}', 0, 2)",
    )
    with of_documents(database) as capture:
        assert capture.install().is_fine
        yield capture


def test_looking_at_marks_names_their_owners_and_takes_nothing(profiles: Capture) -> None:
    """Each once, by code point, however often one was marked; they can be taken afterwards."""
    assert profiles.feed.peek(10) == ([], False, None)
    for number in range(3):
        profiles.database.execute(f"UPDATE profiles SET filtered_data = '[{number}]'")
    profiles.database.execute("INSERT INTO profiles VALUES ('Zoe', '{}', 0, 4)")
    before = profiles.feed.pending().marks
    for _ in range(2):
        assert profiles.feed.peek(10) == (["Zoe", "ann", "bob"], False, None)
    assert profiles.feed.pending().marks == before
    assert profiles.marked() == ["Zoe", "ann", "bob"]
    assert profiles.feed.peek(10) == ([], False, None)


def test_more_marked_owners_than_asked_for_come_page_by_page(profiles: Capture) -> None:
    """Whatever the order of their marks; nobody twice and nobody left out."""
    for number in range(19, 9, -1):
        profiles.database.execute(f"INSERT INTO profiles VALUES ('u{number}', '{{}}', 0, {number})")
    found: list[str] = []
    after: str | None = None
    while True:
        page, is_everybody, after = profiles.feed.peek(3, after)
        assert not is_everybody
        found += page
        if after is None:
            break
        assert len(page) == 3
    assert found == [f"u{number}" for number in range(10, 20)]
    assert profiles.feed.peek(10).next_after is None


def test_mark_for_everybody_is_seen_beside_the_owners(profiles: Capture) -> None:
    """On every page, for it is of no owner."""
    profiles.database.execute("UPDATE profiles SET filtered_data = '[1]'")
    everybody = "INSERT INTO undrift_change (owner_id) VALUES (NULL)"
    if not profiles.database.path:
        everybody = "TRUNCATE profiles"
    profiles.database.execute(everybody)
    assert profiles.feed.peek(1) == (["ann"], True, "ann")
    assert profiles.feed.peek(1, "ann") == (["bob"], True, None)
    assert profiles.feed.peek(1, "bob") == ([], True, None)
    assert profiles.marked() == [EVERYBODY, "ann", "bob"]


def test_looking_at_marks_waits_for_nobody(profiles: Capture) -> None:
    """Neither for a worker who is about to take them, nor does that one wait."""
    profiles.database.execute("UPDATE profiles SET filtered_data = '[1]' WHERE id = 1")
    seen: list[object] = []
    profiles.feed.drain(10, lambda _: seen.append(profiles.feed.peek(10)), lambda: None)
    assert seen == [(["ann"], False, None)]
    assert profiles.feed.peek(10) == ([], False, None)


def test_marks_cannot_be_looked_at_where_no_triggers_are_installed(profiles: Capture) -> None:
    """No marks would read as nobody changed."""
    profiles.triggers.remove()
    with pytest.raises(ConfigError, match="Change capture is not installed") as error:
        profiles.feed.peek(10)
    assert "undrift triggers install" in error.value.fix


def test_marks_cannot_be_looked_at_without_the_right_to(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    """The refusal says which right is missing."""
    database = SourceDatabase(postgres_url)
    postgres_server.create_role("no_marks", "secret")
    database.execute(
        "CREATE TABLE profiles (user_id text PRIMARY KEY, filtered_data jsonb)",
        "GRANT SELECT ON profiles TO no_marks",
    )
    with of_documents(database) as capture:
        capture.install()
    url = with_login(postgres_url, "no_marks", "secret")
    with (
        of_documents(database, url=url) as capture,
        pytest.raises(ConfigError, match="rights for change capture") as error,
    ):
        capture.feed.peek(10)
    assert "GRANT SELECT ON" in error.value.fix
    database.execute(
        "GRANT USAGE ON SCHEMA undrift TO no_marks",
        "GRANT SELECT ON undrift.change TO no_marks",
        "INSERT INTO profiles VALUES ('ann', '{}')",
    )
    with of_documents(database, url=url) as capture:
        assert capture.feed.peek(10) == (["ann"], False, None)


@pytest.mark.parametrize("owner", ["x'00ff'", "char(0)"])
def test_mark_of_an_owner_that_no_store_can_hold_is_passed_over(tmp_path: Path, owner: str) -> None:
    """It keeps nobody else from being seen."""
    database = sqlite_database(tmp_path)
    database.execute("CREATE TABLE profiles (user_id, filtered_data text, id int PRIMARY KEY)")
    with of_documents(database) as capture:
        capture.install()
        database.execute(
            f"INSERT INTO profiles VALUES ({owner}, '{{}}', 1), ('ann', '{{}}', 2), (7, '{{}}', 3)"
        )
        assert capture.feed.peek(1) == (["7"], False, "7")
        assert capture.feed.peek(1, "7") == (["ann"], False, None)
