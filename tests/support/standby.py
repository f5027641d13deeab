"""A streaming standby of a test's PostgreSQL server, made as an operator makes one."""

from __future__ import annotations

import psycopg

from support.postgres import START_SECONDS, PostgresServer
from support.watching import until


class StandbyServer(PostgresServer):
    """A server that follows *primary* and that nobody can write.

    Running from construction until `close`, which must come before the primary's. Its databases,
    roles and passwords are the primary's.
    """

    def __init__(self, primary: PostgresServer) -> None:
        self._primary = primary
        super().__init__()

    def catch_up(self) -> None:
        """Wait until everything that the primary has done shows here."""
        with psycopg.connect(self._primary.admin_url, autocommit=True) as connection:
            (end,) = connection.execute("SELECT pg_current_wal_insert_lsn()").fetchone() or ("",)
        with psycopg.connect(self.admin_url, autocommit=True) as connection:

            def is_there() -> bool:
                query = "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn"
                return connection.execute(query, [end]).fetchone() == (True,)

            until(is_there, f"the standby has replayed {end}")

    def hold_back(self) -> None:
        """Show nothing that the primary does from now on, until `go_on`."""
        self._say("SELECT pg_wal_replay_pause()")
        with psycopg.connect(self.admin_url, autocommit=True) as connection:

            def is_paused() -> bool:
                state = connection.execute("SELECT pg_get_wal_replay_pause_state()").fetchone()
                return state == ("paused",)

            until(is_paused, "the standby stands still")

    def go_on(self) -> None:
        """Follow the primary again."""
        self._say("SELECT pg_wal_replay_resume()")

    def _say(self, statement: str) -> None:
        with psycopg.connect(self.admin_url, autocommit=True) as connection:
            connection.execute(statement.encode())

    def _initialise(self) -> None:
        self.password = self._primary.password
        command = [
            str(self._programs / "pg_basebackup"),
            f"--dbname={self._primary.admin_url}",
            f"--pgdata={self.folder / 'data'}",
            "--checkpoint=fast",
            "--write-recovery-conf",
            "--no-sync",
        ]
        with self.log_path.open("ab") as log:
            if self._spawn(command, log).wait(START_SECONDS) != 0:
                raise RuntimeError(f"pg_basebackup failed:\n{self._log_tail()}")

    def _create_vector_template(self) -> None:
        """It is the primary's."""
