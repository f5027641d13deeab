"""``undrift doctor`` and ``undrift init`` on PostgreSQL: roles, policies, extensions, standbys."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from support.bad_input import assert_clean, nothing_lost
from support.cli import Ran, Shell, experiences
from support.cut_proxy import CutProxy
from support.layouts import ENGINEER
from support.pooler import needs_pooler, pooled
from support.postgres import PostgresServer, with_login
from undrift.cli import app

PASSWORD = "pl4nted-pw"
Check = dict[str, Any]
AsRole = Callable[..., str]


@pytest.fixture
def as_role(postgres_shell: Shell, postgres_server: PostgresServer) -> AsRole:
    """A function that creates a role with the given rights and returns its URL."""

    def url(name: str, *statements: str, attributes: tuple[str, ...] = ()) -> str:
        postgres_server.create_role(name, PASSWORD, *attributes)
        for statement in statements:
            postgres_shell.source.run(statement)
        return with_login(postgres_shell.variables["DATABASE_URL"], name, PASSWORD)

    return url


@pytest.fixture(autouse=True)
def _roles_end_with_the_test(
    postgres_shell: Shell, postgres_server: PostgresServer
) -> Iterator[None]:
    """A role that still has rights in the test's database could not be dropped by the next."""
    yield
    with psycopg.connect(postgres_shell.variables["ADMIN_URL"], autocommit=True) as admin:
        roles = admin.execute("SELECT rolname FROM pg_roles WHERE rolname LIKE 'doc\\_%'")
        for (role,) in roles.fetchall():
            admin.execute(f'DROP OWNED BY "{role}" CASCADE'.encode())
            admin.execute(f'DROP ROLE "{role}"'.encode())


@pytest.fixture
def postgres_shell(postgres_shell: Shell) -> Shell:
    """The usual one, which remembers how to reach its database as the superuser."""
    postgres_shell.variables["ADMIN_URL"] = postgres_shell.variables["DATABASE_URL"]
    return postgres_shell


def looked(shell: Shell, code: int, **variables: str) -> tuple[Ran, dict[str, Check]]:
    """What the doctor finds, by name."""
    ran = shell.undrift("doctor", "--output=json", **variables)
    assert ran.code == code, ran.out
    assert_clean(ran, PASSWORD)
    return ran, {check["name"]: check for check in ran.document["checks"]}


FINE_FOR_A_READER = "That is fine for a role that only checks (`undrift doctor --read-only`), but"


def reader_of_both(as_role: AsRole, name: str) -> dict[str, str]:
    """A role that may check and search, and nothing else."""
    url = as_role(
        name,
        f"GRANT SELECT ON profiles TO {name}",
        f"GRANT USAGE ON SCHEMA undrift TO {name}",
        f"GRANT SELECT ON undrift.vectors TO {name}",
    )
    return {"DATABASE_URL": url, "VECTOR_URL": url}


def granted(fix: str) -> list[str]:
    """The statements of a fix, to be run as they stand."""
    return [part for part in fix.partition("run: ")[2].partition("; or let")[0].split("; ") if part]


# --- the source's rights ------------------------------------------------------------------------


def test_a_missing_right_to_read_is_mended_by_the_named_statement(
    postgres_shell: Shell, as_role: AsRole
) -> None:
    postgres_shell.put(1, ENGINEER)
    url = as_role("doc_stranger")
    _, checks = looked(postgres_shell, 2, DATABASE_URL=url)
    found = checks["source.rights.profiles"]
    assert (
        "The role doc_stranger may not read filtered_data, user_id of profiles"
        in (found["summary"])
    )
    for statement in granted(found["fix"]):
        postgres_shell.source.run(statement)
    looked(postgres_shell, 0, DATABASE_URL=url)


def test_rights_on_the_read_columns_alone_are_enough(
    postgres_shell: Shell, as_role: AsRole
) -> None:
    postgres_shell.put(1, ENGINEER)
    url = as_role("doc_columns", "GRANT SELECT (user_id) ON profiles TO doc_columns")
    _, checks = looked(postgres_shell, 2, DATABASE_URL=url)
    assert "may not read filtered_data of" in checks["source.rights.profiles"]["summary"]
    postgres_shell.source.run("GRANT SELECT (filtered_data) ON profiles TO doc_columns")
    looked(postgres_shell, 0, DATABASE_URL=url)


def test_a_schema_that_the_role_may_not_use(postgres_shell: Shell, as_role: AsRole) -> None:
    postgres_shell.source.run('CREATE SCHEMA "The App"')
    postgres_shell.source.run('ALTER TABLE profiles SET SCHEMA "The App"')
    table = {"UNDRIFT_SOURCE__DOCUMENTS__TABLE": "The App.profiles"}
    url = as_role("doc_outsider")
    _, checks = looked(postgres_shell, 2, DATABASE_URL=url, **table)
    for statement in granted(checks["source.rights.The App.profiles"]["fix"]):
        postgres_shell.source.run(statement)
    looked(postgres_shell, 0, DATABASE_URL=url, **table)


def test_hidden_rows_are_a_problem_and_policies_that_hide_none_are_not(
    postgres_shell: Shell, as_role: AsRole
) -> None:
    postgres_shell.put(1, ENGINEER)
    url = as_role(
        "doc_tenant",
        "GRANT SELECT ON profiles TO doc_tenant",
        "ALTER TABLE profiles ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY only_seven ON profiles USING (user_id = 7)",
    )
    _, checks = looked(postgres_shell, 2, DATABASE_URL=url)
    found = checks["source.rows_hidden.profiles"]
    assert "(policies: only_seven)" in found["summary"]
    for statement in granted(found["fix"]):
        postgres_shell.source.run(statement)
    _, mended = looked(postgres_shell, 0, DATABASE_URL=url)
    assert "policies (only_seven) hide nothing" in mended["source.table.profiles"]["summary"]
    # init, which could sample nothing behind the policy, says so and writes the usual kinds.
    postgres_shell.source.run("ALTER ROLE doc_tenant NOBYPASSRLS")
    ran = postgres_shell.undrift("init", DATABASE_URL=url)
    assert ran.code == 0, ran.err
    assert "row level security hides rows of it from this role" in ran.out
    assert "run `undrift doctor`" in ran.out


def test_init_leaves_out_what_the_role_may_not_read(postgres_shell: Shell, as_role: AsRole) -> None:
    postgres_shell.source.run("DROP TABLE profiles")
    for name in ("notes", "salaries"):
        postgres_shell.source.run(
            f"CREATE TABLE {name} (id bigint PRIMARY KEY, user_id bigint, title text)"
        )
        postgres_shell.source.run(f"INSERT INTO {name} VALUES (1, 1, 'Rye bread')")
    url = as_role("doc_reader", "GRANT SELECT ON notes TO doc_reader")
    ran = postgres_shell.undrift("init", DATABASE_URL=url)
    assert ran.code == 0, ran.err
    assert "left out: salaries: this role may not read it" in ran.out
    assert "salaries" not in (postgres_shell.folder / "undrift.toml").read_text().split("[[")[1]
    assert postgres_shell.undrift("check", "--all", DATABASE_URL=url).code == 1


# --- the store's rights -------------------------------------------------------------------------


def test_a_role_that_may_only_read_both_sides(postgres_shell: Shell, as_role: AsRole) -> None:
    """Check works with it and sync does not, as the doctor says; what it names mends that."""
    postgres_shell.put(1, ENGINEER)
    postgres_shell.undrift("sync", "--all")
    url = as_role(
        "doc_onlooker",
        "GRANT SELECT ON profiles TO doc_onlooker",
        "GRANT USAGE ON SCHEMA undrift TO doc_onlooker",
        "GRANT SELECT ON undrift.vectors TO doc_onlooker",
    )
    both = {"DATABASE_URL": url, "VECTOR_URL": url}
    with nothing_lost(postgres_shell):
        ran, checks = looked(postgres_shell, 2, **both)
    found = checks["store.rights"]
    assert found["summary"].startswith(FINE_FOR_A_READER)
    assert "may not write" in found["summary"]
    assert found["fix"].startswith("to sync, let the owner run: GRANT ")
    assert ran.document["summary"]["could_check"] is True
    assert ran.document["summary"]["could_sync"] is False
    assert postgres_shell.undrift("check", "--all", **both).code == 0
    postgres_shell.put(1, experiences("exp_9"))
    assert postgres_shell.undrift("sync", "--all", **both).code == 2
    for statement in granted(found["fix"]):
        postgres_shell.source.run(statement)
    _, checks = looked(postgres_shell, 2, **both)
    assert postgres_shell.undrift("sync", "--all", **both).code == 2
    for statement in granted(checks["state.rights"]["fix"]):
        postgres_shell.source.run(statement)
    looked(postgres_shell, 0, **both)
    assert postgres_shell.undrift("sync", "--all", **both).code == 0


def test_a_reader_is_not_called_a_failure_where_it_is_to_read_only(
    postgres_shell: Shell, as_role: AsRole
) -> None:
    """By the option or its variable. Control: one that may not even read is one all the same."""
    postgres_shell.put(1, ENGINEER)
    postgres_shell.undrift("sync", "--all")
    both = reader_of_both(as_role, "doc_reading")
    looked(postgres_shell, 2, **both)
    ran, checks = looked(postgres_shell, 0, UNDRIFT_READ_ONLY="1", **both)
    found = checks["store.rights"]
    assert found["status"] == "ok"
    assert found["summary"].startswith("Not needed to check: The vector store's role may not write")
    assert "GRANT" not in ran.out
    assert ran.document["summary"]["could_check"] is True
    assert ran.document["summary"]["could_sync"] is False
    text = postgres_shell.undrift("doctor", "--read-only", **both)
    assert text.code == 0
    assert "❌" not in text.out
    postgres_shell.source.run("REVOKE SELECT ON undrift.vectors FROM doc_reading")
    _, checks = looked(postgres_shell, 2, UNDRIFT_READ_ONLY="1", **both)
    assert checks["store.rights"]["fix"].endswith(
        'GRANT SELECT ON "undrift"."vectors" TO "doc_reading"'
    )


def test_a_reader_before_the_first_sync_can_check(postgres_shell: Shell, as_role: AsRole) -> None:
    postgres_shell.put(1, ENGINEER)
    url = as_role("doc_early", "GRANT SELECT ON profiles TO doc_early")
    both = {"DATABASE_URL": url, "VECTOR_URL": url}
    _, checks = looked(postgres_shell, 0, UNDRIFT_READ_ONLY="1", **both)
    assert checks["store.table"]["summary"] == "undrift.vectors is not created yet"
    assert "store.records" not in checks
    assert postgres_shell.undrift("check", "--all", **both).code == 1


def test_of_what_was_not_read_no_number_is_said(postgres_shell: Shell, as_role: AsRole) -> None:
    """Control: the same role, once it may read, is told it."""
    postgres_shell.put(1, ENGINEER)
    postgres_shell.undrift("sync", "--all")
    url = as_role("doc_blinded", "GRANT SELECT ON profiles TO doc_blinded")
    ran, checks = looked(postgres_shell, 2, VECTOR_URL=url)
    assert "store.records" not in checks
    assert "records" not in ran.out
    for statement in granted(checks["store.rights"]["fix"]):
        postgres_shell.source.run(statement)
    _, checks = looked(postgres_shell, 2, VECTOR_URL=url)
    assert checks["store.records"]["summary"] == "It holds 5 records of namespace default"


def test_a_count_that_takes_too_long_is_not_a_number(
    postgres_shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("undrift.sources.probe.COUNT_SECONDS", 0.001)
    postgres_shell.put(1, ENGINEER)
    # True of every row, and slow for each: the count ends by its time-out, the first row comes.
    postgres_shell.source.run(
        "INSERT INTO profiles SELECT id, '{}' FROM generate_series(2, 300) AS id"
    )
    slow = "(SELECT count(*) FROM generate_series(1, 20000 + profiles.user_id)) > 0"
    _, checks = looked(postgres_shell, 0, UNDRIFT_SOURCE__DOCUMENTS__WHERE=slow)
    assert "can be read; its rows were not counted" in checks["source.table.profiles"]["summary"]


def test_a_role_that_may_not_create_the_store(postgres_shell: Shell, as_role: AsRole) -> None:
    postgres_shell.put(1, ENGINEER)
    url = as_role("doc_newcomer", "GRANT SELECT ON profiles TO doc_newcomer")
    both = {"DATABASE_URL": url, "VECTOR_URL": url}
    ran, checks = looked(postgres_shell, 2, **both)
    found = checks["store.rights"]
    assert found["summary"].startswith(FINE_FOR_A_READER)
    assert "may not create" in found["summary"]
    assert "undrift init --sql" in found["fix"]
    assert ran.document["summary"]["could_check"] is True
    assert postgres_shell.undrift("check", "--all", **both).code == 1
    for statement in granted(found["fix"]):
        postgres_shell.source.run(statement)
    looked(postgres_shell, 0, **both)
    assert not postgres_shell.source.rows("SELECT 1 FROM pg_namespace WHERE nspname = 'undrift'"), (
        "the rehearsal left something"
    )
    assert postgres_shell.undrift("sync", "--all", **both).code == 0


def test_a_role_that_may_not_see_the_store_cannot_check(
    postgres_shell: Shell, as_role: AsRole
) -> None:
    postgres_shell.put(1, ENGINEER)
    postgres_shell.undrift("sync", "--all")
    url = as_role("doc_blind", "GRANT SELECT ON profiles TO doc_blind")
    ran, checks = looked(postgres_shell, 2, VECTOR_URL=url)
    assert checks["store.rights"]["status"] == "problem"
    assert ran.document["summary"]["could_check"] is False
    assert postgres_shell.undrift("check", "--all", VECTOR_URL=url).code == 2


def test_a_table_that_is_not_undrifts_is_a_problem(postgres_shell: Shell) -> None:
    url = f"{postgres_shell.variables['VECTOR_URL']}?table=public.profiles"
    _, checks = looked(postgres_shell, 2, VECTOR_URL=url)
    assert checks["store.table"]["status"] == "problem"


# --- the extension ------------------------------------------------------------------------------


def test_an_extension_that_is_not_installed(
    postgres_shell: Shell, postgres_server: PostgresServer, as_role: AsRole
) -> None:
    """A superuser's first sync installs it; another role is told who has to."""
    postgres_shell.put(1, ENGINEER)
    with postgres_server.database(with_vector=False) as url:
        _, checks = looked(postgres_shell, 0, VECTOR_URL=url)
        assert "is available" in checks["store.pgvector"]["summary"]
        as_role("doc_plain")
        with psycopg.connect(url, autocommit=True) as admin:
            admin.execute(
                "REVOKE CREATE ON DATABASE CURRENT_CATALOG FROM PUBLIC".replace(
                    "CURRENT_CATALOG", url.rpartition("/")[2]
                ).encode()
            )
            plain = {"VECTOR_URL": with_login(url, "doc_plain", PASSWORD)}
            _, checks = looked(postgres_shell, 2, **plain)
            installed = admin.execute("SELECT 1 FROM pg_extension WHERE extname = 'vector'")
            assert installed.fetchone() is None, "the rehearsal left something"
            # One trip to the DBA: the doctor and the sync name the same, and all of it.
            statements = granted(checks["store.rights"]["fix"])
            assert [statement[:20] for statement in statements] == [
                "CREATE EXTENSION vec",
                "GRANT CREATE ON DATA",
            ]
            refused = postgres_shell.undrift("sync", "--all", **plain)
            assert refused.code == 2
            assert granted(refused.error[2]) == statements
            for statement in statements:
                admin.execute(statement.encode())
            looked(postgres_shell, 0, **plain)
            assert postgres_shell.undrift("sync", "--all", **plain).code == 0


def test_a_server_without_pgvector_names_all_that_is_missing(postgres_shell: Shell) -> None:
    """The package, the extension and the right: by the doctor and by the sync."""
    postgres_shell.put(1, ENGINEER)
    with PostgresServer() as server:
        control = next(server.folder.rglob("extension/vector.control"), None)
        if control is None:
            pytest.skip("the server runs where it is installed, for everybody")
        control.unlink()
        server.create_role("doc_bare", PASSWORD)
        with server.database(with_vector=False) as url:
            bare = {"VECTOR_URL": with_login(url, "doc_bare", PASSWORD)}
            _, checks = looked(postgres_shell, 2, **bare)
            refused = postgres_shell.undrift("sync", "--all", **bare)
            looked(postgres_shell, 0, UNDRIFT_READ_ONLY="1", **bare)
            assert postgres_shell.undrift("check", "--all", **bare).code == 1
    assert checks["store.pgvector"]["summary"].startswith(FINE_FOR_A_READER)
    assert refused.code == 2
    for fix in (checks["store.pgvector"]["fix"], refused.error[2]):
        assert "install the server's p" in fix
        assert 'CREATE EXTENSION vector; GRANT CREATE ON DATABASE "' in fix
        assert 'TO "doc_bare"' in fix


# --- indexes and durability ---------------------------------------------------------------------


def test_an_index_whose_build_broke_off_is_named(postgres_shell: Shell) -> None:
    postgres_shell.put(1, ENGINEER)
    postgres_shell.undrift("sync", "--all")
    _, checks = looked(postgres_shell, 0)
    assert "no approximate index" in checks["store.index"]["summary"]
    postgres_shell.source.run(
        "CREATE INDEX broken ON undrift.vectors USING hnsw (embedding vector_cosine_ops)"
    )
    _, checks = looked(postgres_shell, 0)
    assert "an approximate index: broken" in checks["store.index"]["summary"]
    postgres_shell.source.run(
        "UPDATE pg_index SET indisvalid = false"
        " WHERE indexrelid = CAST('undrift.broken' AS regclass)"
    )
    _, checks = looked(postgres_shell, 0)
    found = checks["store.index"]
    assert (found["status"], found["fix"]) == (
        "warning",
        'DROP INDEX CONCURRENTLY "undrift"."broken"',
    )


def test_what_a_crash_would_take_is_a_warning(postgres_shell: Shell, as_role: AsRole) -> None:
    postgres_shell.put(1, ENGINEER)
    postgres_shell.undrift("sync", "--all")
    _, checks = looked(postgres_shell, 0)
    assert "synchronous_commit and fsync are off" in checks["store.durability"]["summary"]
    assert checks["store.durability"]["fix"].startswith("let a superuser run: ALTER SYSTEM SET ")
    assert "store.durability.table" not in checks
    postgres_shell.source.run("ALTER TABLE undrift.vectors SET UNLOGGED")
    _, checks = looked(postgres_shell, 0)
    assert checks["store.durability.table"]["status"] == "warning"


# --- the server ---------------------------------------------------------------------------------


def test_time_outs_that_end_a_read_are_named(postgres_shell: Shell, as_role: AsRole) -> None:
    postgres_shell.put(1, ENGINEER)
    url = as_role(
        "doc_hasty",
        "GRANT SELECT ON profiles TO doc_hasty",
        "ALTER ROLE doc_hasty SET statement_timeout = '1500ms'",
        "ALTER ROLE doc_hasty SET idle_in_transaction_session_timeout = '2min'",
    )
    _, checks = looked(postgres_shell, 0, DATABASE_URL=url)
    found = checks["source.statement_timeout"]
    assert found["summary"].startswith("statement_timeout is 1.5 s for this role")
    assert "source.idle_in_transaction_session_timeout" not in checks
    postgres_shell.source.run(found["fix"])
    _, checks = looked(postgres_shell, 0, DATABASE_URL=url)
    assert "source.statement_timeout" not in checks


def test_a_table_that_somebody_alters_is_unknown_and_not_waited_for(
    postgres_shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "undrift.sources.inspection._WAIT_BRIEFLY",
        sa.text("SELECT set_config('lock_timeout', '50ms', true)"),
    )
    postgres_shell.put(1, ENGINEER)
    with psycopg.connect(postgres_shell.variables["ADMIN_URL"]) as blocking:
        blocking.execute("LOCK TABLE profiles IN ACCESS EXCLUSIVE MODE")
        _, checks = looked(postgres_shell, 3)
    assert checks["source.table.profiles"]["status"] == "unknown"


@needs_pooler
def test_a_pooler_is_seen_by_its_greeting(postgres_shell: Shell) -> None:
    """A hint, and never a problem; control: without one, nothing is seen."""
    postgres_shell.put(1, ENGINEER)
    _, checks = looked(postgres_shell, 0)
    assert checks["source.pooler"]["summary"] == "No pooler or proxy is seen in between"
    url = postgres_shell.variables["DATABASE_URL"]
    with pooled(url) as by_way_of_it:
        _, checks = looked(postgres_shell, 0, DATABASE_URL=by_way_of_it)
    assert "not the one that greeted us" in checks["source.pooler"]["summary"]
    assert checks["source.pooler"]["status"] == "ok"
    with CutProxy(url) as proxy:
        _, checks = looked(postgres_shell, 0, DATABASE_URL=proxy.url)
    assert "was asked for" in checks["source.pooler"]["summary"]


def test_a_port_of_the_environment_is_no_pooler(
    postgres_shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The URL names neither host nor port; libpq does."""
    postgres_shell.put(1, ENGINEER)
    url = sa.make_url(postgres_shell.variables["DATABASE_URL"])
    monkeypatch.setenv("PGHOST", url.host or "")
    monkeypatch.setenv("PGPORT", str(url.port))
    short = f"postgresql://{url.username}:{url.password}@/{url.database}"
    _, checks = looked(postgres_shell, 0, DATABASE_URL=short, VECTOR_URL=short)
    assert checks["source.pooler"]["summary"] == "No pooler or proxy is seen in between"


def test_an_unreachable_side_is_unknown_and_the_other_is_looked_at(postgres_shell: Shell) -> None:
    postgres_shell.put(1, ENGINEER)
    gone = f"postgresql://app:{PASSWORD}@127.0.0.1:1/app"
    _, checks = looked(postgres_shell, 3, DATABASE_URL=gone)
    assert checks["source.server"]["status"] == "unknown"
    assert checks["store.rights"]["status"] == "ok"
    _, checks = looked(postgres_shell, 3, VECTOR_URL=gone)
    assert checks["store.server"]["status"] == "unknown"
    assert "source.sample" in checks


def test_a_wrong_password_is_a_problem_and_is_not_shown(
    postgres_shell: Shell, as_role: AsRole
) -> None:
    as_role("doc_known")
    url = with_login(postgres_shell.variables["DATABASE_URL"], "doc_known", "wr0ng-pw")
    ran, checks = looked(postgres_shell, 2, DATABASE_URL=url, VECTOR_URL=url)
    assert checks["source.server"]["status"] == "problem"
    assert checks["store.server"]["status"] == "problem"
    assert_clean(ran, "wr0ng-pw")


def test_a_standby_serves_check_and_not_sync(postgres_shell: Shell) -> None:
    """A server that recovers and is never told that it is done, which is what a standby is."""
    with PostgresServer() as server, server.database() as url:
        sides = {"DATABASE_URL": url, "VECTOR_URL": url}
        with psycopg.connect(url) as writing:
            writing.execute(
                "CREATE TABLE profiles (user_id bigint PRIMARY KEY, filtered_data text)"
            )
            writing.execute('INSERT INTO profiles VALUES (1, \'{"skills": ["Go"]}\')')
        assert postgres_shell.undrift("sync", "--all", **sides).code == 0
        server.stop()
        signal_file = server.folder / "data" / "standby.signal"
        signal_file.touch()
        server.start()
        ran, checks = looked(postgres_shell, 2, **sides)
        judged, _ = looked(postgres_shell, 0, UNDRIFT_READ_ONLY="1", **sides)
        assert postgres_shell.undrift("check", "--all", **sides).code == 0
        assert postgres_shell.undrift("sync", "--all", **sides).code == 2
        server.stop()
        signal_file.unlink()
        server.start()
    assert "It is a standby" in checks["source.role"]["summary"]
    assert "It is a standby" in checks["store.rights"]["summary"]
    assert ran.document["summary"]["could_check"] is True
    assert judged.document["summary"]["could_check"] is True


# --- what is left behind ------------------------------------------------------------------------


def test_no_connection_is_left_open(postgres_shell: Shell, postgres_server: PostgresServer) -> None:
    postgres_shell.put(1, ENGINEER)
    postgres_shell.source.close()
    with psycopg.connect(postgres_server.admin_url, autocommit=True) as watching:
        for arguments in (["doctor"], ["init"], ["init", "--apply"], ["doctor"]):
            with pytest.MonkeyPatch.context() as context:
                for name, value in postgres_shell.variables.items():
                    context.setenv(name, value)
                assert app.main(arguments) == 0
            # A session that was closed needs a moment to go; one left open never does.
            watching.execute(
                "DO $$ BEGIN FOR i IN 1..500 LOOP"
                " PERFORM pg_stat_clear_snapshot();"
                " EXIT WHEN NOT EXISTS (SELECT FROM pg_stat_activity"
                " WHERE application_name = 'undrift'); PERFORM pg_sleep(0.01); END LOOP; END $$"
            )
            left = watching.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'undrift'"
            ).fetchone()
            assert left == (0,), arguments
