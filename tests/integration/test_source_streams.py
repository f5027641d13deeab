"""A stream of rows gives its cursor back, however it ends."""

from __future__ import annotations

from contextlib import closing, suppress
from inspect import getgeneratorlocals
from typing import Any

import pytest
import sqlalchemy as sa

from support.layouts import document
from support.sides import World
from undrift.errors import SourceUnavailable
from undrift.sources.database import Database

ROWS = sa.text("SELECT user_id, filtered_data FROM profiles")


@pytest.mark.parametrize("is_broken", [False, True], ids=["alive", "broken"])
def test_a_reader_that_leaves_early_leaves_no_cursor_open(postgres: World, is_broken: bool) -> None:
    """Also where the connection has just broken, and the first attempt to close it fails."""
    postgres.put_all({str(n): document(skills=["x" * 2_000]) for n in range(1, 1_500)})
    with (
        closing(Database(postgres.source_url)) as database,
        suppress(SourceUnavailable),  # the snapshot's end finds the connection broken, too
        database.snapshot() as connection,
    ):
        pid = connection.scalar(sa.text("SELECT pg_backend_pid()"))
        rows: Any = database.stream(connection, ROWS)  # type: ignore[arg-type]
        next(rows)
        cursor = getgeneratorlocals(rows)["cursor"]
        assert not cursor.closed
        if is_broken:
            postgres.source.run("SELECT pg_terminate_backend(:pid)", pid=pid)
        rows.close()
        assert cursor.closed
