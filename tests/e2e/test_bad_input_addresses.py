"""Bad input: addresses that are missing, malformed, of nobody, or of a server that refuses."""

from __future__ import annotations

from itertools import product
from urllib.parse import quote, quote_plus, urlsplit

import pytest

from support.bad_input import (
    CALLS,
    CHECKS,
    SEARCH,
    SYNCS,
    assert_refused,
    assert_three_parts,
    assert_told,
    drifted,
    nothing_lost,
)
from support.cli import Shell
from support.postgres import PostgresServer, with_login

PASSWORD = "wr0ng p@ss/w:rd%41?#&"
SHOWN = ("wr0ng", "p@ss", "w:rd", quote(PASSWORD, safe=""), quote_plus(PASSWORD), "41?#&")
"""The password as it is, as an address holds it, and the parts a careless parser cuts it into."""

MALFORMED = (
    "wr0ng-p@ss",
    "postgresql//app:wr0ng@host/app",
    "postgresql:/app:wr0ng@host/app",
    "postgresql://app:wr0ng@host:port/app",
    "postgresql://app:wr0ng/p@ss@host/app",
    "postgresql://app:wr0ng@p@ss@host/app",
    "postgresql://[wr0ng/app",
)
NOBODY_LISTENS = "postgresql://app:wr0ng@127.0.0.1:1/app"


# --- none, malformed --------------------------------------------------------------------------


def test_no_database_url_names_the_variable(any_shell: Shell) -> None:
    """Unset and empty are the same; an example is given."""
    drifted(any_shell)
    with nothing_lost(any_shell):
        for url in ({"DATABASE_URL": ""}, {}):
            for call in CALLS:
                ran = any_shell(call.program, *call.arguments, **url)
                _, why, fix = assert_told(ran, call, 2, "DATABASE_URL is not set")
                assert "relational database" in why
                assert "export DATABASE_URL=postgresql://" in fix
            any_shell.variables.pop("DATABASE_URL", None)


@pytest.mark.parametrize("variable", ["DATABASE_URL", "VECTOR_URL"])
def test_malformed_url_is_refused_and_not_repeated(shell: Shell, variable: str) -> None:
    """It may hold a password, and nobody can say where in it."""
    drifted(shell)
    with nothing_lost(shell):
        for url, call in product(MALFORMED, (CHECKS[0], SYNCS[-1], SEARCH)):
            ran = shell(call.program, *call.arguments, **{variable: url})
            assert ran.code == 2, (url, str(call))
            assert_three_parts(ran, *SHOWN)
            assert variable in " ".join(ran.error), (url, ran.error)


def test_database_that_is_not_read_is_refused(shell: Shell) -> None:
    """The kinds that are read are named."""
    for call in CALLS:
        ran = shell(call.program, *call.arguments, DATABASE_URL="mysql://app:wr0ng@host/app")
        _, _, fix = assert_told(ran, call, 2, "undrift does not read mysql databases", "wr0ng")
        assert "postgresql:// or sqlite:///" in fix


def test_server_source_without_vector_url_gives_the_line(postgres_shell: Shell) -> None:
    """Nothing is guessed, whatever extension happens to be there."""
    drifted(postgres_shell)
    with nothing_lost(postgres_shell):
        for call in CALLS:
            ran = postgres_shell(call.program, *call.arguments, VECTOR_URL="")
            _, _, fix = assert_told(ran, call, 2, "VECTOR_URL is not set")
            assert "VECTOR_URL=$DATABASE_URL" in fix
    assert not (postgres_shell.folder / ".undrift").exists()


# --- nobody there -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "what"),
    [
        ("DATABASE_URL", "The source cannot be read"),
        ("VECTOR_URL", "The vector store did not answer"),
    ],
)
def test_unreachable_server_is_unknown_not_drift(shell: Shell, variable: str, what: str) -> None:
    """Exit 3; who was named is unknown, and nobody else is spoken of."""
    drifted(shell)
    with nothing_lost(shell):
        store = {"VECTOR_URL": f"sqlite:///{shell.folder / '.undrift' / 'undrift.db'}"}
        for call in CALLS:
            variables = store | {variable: NOBODY_LISTENS}
            ran = shell(call.program, *call.arguments, **variables)
            _, why, fix = assert_told(ran, call, 3, what, "wr0ng")
            assert "127.0.0.1" in why
            assert "check that the server runs" in fix
            if call.names and call is not SEARCH:
                assert "Users unknown: 1\n" in ran.out


# --- who refuses ------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", ["DATABASE_URL", "VECTOR_URL"])
def test_wrong_password_is_configuration_and_is_not_shown(
    postgres_shell: Shell, postgres_server: PostgresServer, variable: str
) -> None:
    """Exit 2: trying again does not help. Neither the wrong nor the right one is shown."""
    drifted(postgres_shell)
    right = str(urlsplit(postgres_shell.variables["DATABASE_URL"]).password)
    postgres_server.create_role("cli_reader", "another")
    url = with_login(postgres_shell.variables["DATABASE_URL"], "cli_reader", PASSWORD)
    assert quote(PASSWORD, safe="") in url
    side = "source" if variable == "DATABASE_URL" else "vector store"
    with nothing_lost(postgres_shell):
        for call in CALLS:
            ran = postgres_shell(call.program, *call.arguments, **{variable: url})
            what = f"The {side} refused the login"
            _, why, fix = assert_told(ran, call, 2, what, *SHOWN, right)
            assert "cli_reader" in why
            assert "password" in fix
            assert variable in fix


@pytest.mark.parametrize(
    ("variable", "side"), [("DATABASE_URL", "source"), ("VECTOR_URL", "vector store")]
)
def test_database_that_does_not_exist_is_called_so(
    postgres_shell: Shell, variable: str, side: str
) -> None:
    """The login was right: the title does not lead astray, and nothing is created."""
    drifted(postgres_shell)
    url = postgres_shell.variables["DATABASE_URL"].rpartition("/")[0] + "/no%20where"
    with nothing_lost(postgres_shell):
        for call in CALLS:
            ran = postgres_shell(call.program, *call.arguments, **{variable: url})
            what = f"The {side}'s database does not exist"
            _, why, fix = assert_told(ran, call, 2, what)
            assert '"no where"' in why
            assert f"correct the database name in {variable}" in fix


def test_source_file_that_does_not_exist_is_not_created(shell: Shell) -> None:
    """An empty database would look like one without users."""
    drifted(shell)
    with nothing_lost(shell):
        for call in CALLS:
            ran = shell(call.program, *call.arguments, DATABASE_URL="sqlite:///ap.db")
            assert_told(ran, call, 2, "The source database does not exist")
    assert not (shell.folder / "ap.db").exists()


def test_missing_table_names_the_nearest_that_exists(any_shell: Shell) -> None:
    """A database without `profiles`: somebody else's, or the wrong setting."""
    drifted(any_shell)
    with nothing_lost(any_shell):
        any_shell.source.run("ALTER TABLE profiles RENAME TO profile")
        for call in CALLS:
            ran = any_shell(call.program, *call.arguments)
            _, why, fix = assert_told(ran, call, 2, "No table 'profiles'")
            assert "did you mean 'profile'?" in why
            assert "undrift.toml" in fix
        any_shell.source.run("ALTER TABLE profile RENAME TO profiles")


def test_program_shows_no_traceback_and_no_password(postgres_shell: Shell) -> None:
    """As the installed program, too, in a process of its own."""
    url = with_login(postgres_shell.variables["DATABASE_URL"], "postgres", PASSWORD)
    ran = postgres_shell.program("undrift", "check", "--all", DATABASE_URL=url)
    assert_refused(ran, 2, "The source refused the login")
    assert_three_parts(ran, *SHOWN)
