"""Passwords, keys, profiles and vectors are planted, and everything that is said is searched.

Every command, in every form, where it works and where it fails; what it prints, what any library
logs at any level, what its errors and their causes say. A profile's text may be printed in one
place only: among a search's hits.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from support.cli import Document, Shell
from support.embedding_server import EmbeddingProxy, Fault, Rule
from support.postgres import PostgresServer, with_login
from support.secrets import (
    KEY,
    PASSWORD,
    SECRETS,
    STORE_PASSWORD,
    TEXT,
    Witness,
    parts_of,
    witness,
)
from support.sides import ORIGIN, Database, StoreTables, vector_of
from undrift import Undrift, UndriftError
from undrift.assistant import CareerAssistant
from undrift.embedders.hashing import HashingEmbedder
from undrift.ports import Purpose, Vectors

READER, KEEPER = "secret_reader", "secret_keeper"

COMMANDS = (
    ("undrift", "check", "--all"),
    ("undrift", "check", "--user-id=1", "--diff"),
    ("undrift", "sync", "--all", "--dry-run"),
    ("undrift", "sync", "--user-id=1", "--user-id=2"),
    ("undrift", "sync", "--all", "--force"),
    ("undrift", "search", "words", "--user-id=1"),
    ("undrift", "doctor"),
    ("undrift", "index", "status"),
    ("undrift", "triggers", "install"),
    ("undrift", "triggers", "status"),
    ("undrift", "init", "--sql"),
    ("db-sync-vector", "--check", "--all"),
    ("db-sync-vector", "--sync", "--userId=1"),
)
FORMS: tuple[tuple[str, ...], ...] = (("-v",), ("--output=json",), ("--output=jsonl", "-v"))


def profile(*ids: str) -> Document:
    """A document whose every text is secret."""
    return {
        "experiences": [
            {"id": i, "title": f"{TEXT} {i}", "company": TEXT, "description": f"{TEXT} " * 9}
            for i in ids
        ],
        "skills": [TEXT],
    }


def run_all(shell: Shell, heard: Witness, *, forms: Sequence[tuple[str, ...]] = FORMS) -> None:
    """Run every command in every form, and let *heard* hear what it says."""
    for number, command in enumerate(COMMANDS):
        program, *arguments = command
        form = forms[number % len(forms)] if program == "undrift" else ()
        for chosen in {(), form}:
            ran = shell(program, *arguments, *chosen)
            assert "Traceback" not in ran.out + ran.err
            heard.hear(ran.err)
            if "search" not in arguments:
                heard.hear(ran.out)


@pytest.fixture
def secret_shell(any_shell: Shell, postgres_server: PostgresServer) -> Iterator[Shell]:
    """A shell with secret profiles in sync; on PostgreSQL with a login of its own for each side."""
    for owner in (1, 2, 3):
        any_shell.put(owner, profile(f"exp_{owner}", "exp_same"))
    source = any_shell.source
    if source.is_postgres:
        url = any_shell.variables["DATABASE_URL"]
        for role, password in ((READER, PASSWORD), (KEEPER, STORE_PASSWORD)):
            postgres_server.create_role(role, password)
        source.run(f"GRANT SELECT ON profiles TO {READER}")
        source.run("CREATE SCHEMA undrift")
        source.run(f"GRANT USAGE, CREATE ON SCHEMA undrift TO {KEEPER}")
        any_shell.variables["DATABASE_URL"] = with_login(url, READER, PASSWORD)
        any_shell.variables["VECTOR_URL"] = with_login(url, KEEPER, STORE_PASSWORD)
    any_shell.variables["OPENAI_API_KEY"] = KEY
    assert any_shell.undrift("sync", "--all").code == 0
    yield any_shell
    if source.is_postgres:
        source.run(f"DROP OWNED BY {READER}, {KEEPER} CASCADE")


def store_of(shell: Shell) -> StoreTables:
    """The shell's store, by SQL as nobody in particular."""
    url = f"sqlite:///{shell.folder / '.undrift' / 'undrift.db'}"
    database = shell.source if shell.source.is_postgres else Database(url)
    return StoreTables(database, ORIGIN.kinds)


def everything_planted(shell: Shell) -> dict[str, set[str]]:
    """The secrets, the stored vectors included."""
    store = store_of(shell)
    vectors = parts_of(vector_of(row) for row in store.records().values())
    if not shell.source.is_postgres:
        store.database.close()
    assert vectors
    return {**SECRETS, "vector": vectors}


def refuse_writes(shell: Shell) -> None:
    """Let the store refuse every new record in a way that quotes it where the driver does."""
    if shell.source.is_postgres:
        shell.source.run("ALTER TABLE undrift.vectors ADD CHECK (length(text) < 0) NOT VALID")
    else:
        store = store_of(shell)
        store.database.run(
            "CREATE TRIGGER refuse BEFORE INSERT ON vectors"
            " BEGIN SELECT RAISE(ABORT, 'refused'); END"
        )
        store.database.close()


# --- commands ---------------------------------------------------------------------------------


def test_no_command_says_a_secret_where_all_is_well(secret_shell: Shell) -> None:
    """In sync, then with every kind of work to do."""
    secrets = everything_planted(secret_shell)
    with witness() as heard:
        run_all(secret_shell, heard)
        secret_shell.put(1, profile("exp_1", "exp_new"))
        secret_shell.put(4, profile("exp_4"))
        secret_shell.drop(3)
        run_all(secret_shell, heard)
    assert heard.leaks(secrets) == {}


def test_text_is_printed_among_the_hits_of_a_search_and_nowhere_else(secret_shell: Shell) -> None:
    """And so it is there: the search for leaks would find it."""
    with witness() as heard:
        for form in ((), *FORMS):
            ran = secret_shell.undrift("search", "words", "--user-id=1", *form)
            assert ran.code == 0
            assert TEXT in ran.out
            heard.hear(ran.err)
    assert heard.leaks() == {}


@pytest.mark.parametrize(
    "failure",
    [
        "broken document",
        "condition that quotes",
        "store that refuses",
        "template",
        "dimension",
        "wrong password",
        "no server",
        "malformed",
    ],
)
def test_no_command_says_a_secret_where_it_fails(secret_shell: Shell, failure: str) -> None:
    """Whoever refuses, and however much the driver under it says."""
    secrets = everything_planted(secret_shell)
    fail(secret_shell, failure)
    with witness() as heard:
        run_all(secret_shell, heard)
        ran = secret_shell.program("undrift", "sync", "--all", "--force", "-v")
        assert ran.code != 0
        heard.hear(ran.out, ran.err)
        if "DATABASE_URL" in secret_shell.variables:
            hear_api(secret_shell, heard)
    assert heard.leaks(secrets) == {}


def fail(shell: Shell, failure: str) -> None:
    """Bring about *failure*."""
    source, toml = shell.source, shell.folder / "undrift.toml"
    match failure:
        case "broken document":
            if source.is_postgres:
                source.run("ALTER TABLE profiles ALTER COLUMN filtered_data TYPE text")
            for owner, raw in ((1, f'{{"title": "{TEXT}'), (2, f'["{TEXT}"]')):
                source.run(
                    "UPDATE profiles SET filtered_data = :raw WHERE user_id = :owner",
                    raw=raw,
                    owner=owner,
                )
        case "condition that quotes":
            cast = "CAST(filtered_data ->> 'skills' AS int) > 0"
            where = cast if source.is_postgres else "json_extract(filtered_data, 'skills') > 0"
            toml.write_text(f'[source.documents]\nwhere = "{where}"\n')
        case "store that refuses":
            refuse_writes(shell)
        case "template":
            toml.write_text(
                "[[entity]]\nkind = 'experience'\npath = 'experiences[*]'\n"
                "text = '{{ title + 1 }}'\n"
            )
        case "dimension":
            shell.variables["UNDRIFT_EMBEDDER"] = "hashing:8"
        case "wrong password":
            login = f"postgresql://postgres:{'%40'.join((PASSWORD[:2], KEY))}"
            address = shell.variables.get("VECTOR_URL", "@127.0.0.1:1/x").rpartition("@")[2]
            shell.variables["DATABASE_URL"] = f"{login}@{address}"
            shell.variables["VECTOR_URL"] = f"{login}@{address}"
        case "no server":
            shell.variables["DATABASE_URL"] = with_login(
                "postgresql://x:y@127.0.0.1:1/app", READER, PASSWORD
            )
            shell.variables["VECTOR_URL"] = with_login(
                "postgresql://x:y@127.0.0.1:1/app", KEEPER, STORE_PASSWORD
            )
        case "malformed":
            shell.variables["DATABASE_URL"] = f"postgresql://app:{PASSWORD}@host/app"
            shell.variables["VECTOR_URL"] = f"postgresql://app:{STORE_PASSWORD}@host/app"


def hear_api(shell: Shell, heard: Witness) -> None:
    """Do by the API what the commands do, and let *heard* hear each error with its causes."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in shell.variables.items():
            patch.setenv(name, value)
        try:
            with Undrift.from_env() as sides:
                heard.hear(repr(sides), repr(sides.describe()))
                errors = [status.error for status in sides.check_all()]
                errors += [report.error for report in sides.sync_all(force=True)]
        except UndriftError as exc:
            errors = [exc]
    for error in filter(None, errors):
        heard.hear_error(error)
        logging.getLogger("host").error("it failed", exc_info=error)


# --- the assistant's tools --------------------------------------------------------------------


def test_no_tool_says_a_secret_beyond_what_it_was_asked_for(any_shell: Shell) -> None:
    """Where the source refuses the edit in words that quote the profile, and where it takes it."""
    any_shell.put(1, profile("exp_1"))
    refusing = "CHECK (length(CAST(filtered_data AS text)) < 500)"
    if any_shell.source.is_postgres:
        any_shell.source.run(f"ALTER TABLE profiles ADD {refusing} NOT VALID")
    else:
        any_shell.source.run(
            "CREATE TRIGGER refuse BEFORE UPDATE ON profiles WHEN length(new.filtered_data) >= 500"
            " BEGIN SELECT RAISE(ABORT, 'refused'); END"
        )
    raised = 0
    with pytest.MonkeyPatch.context() as patch, witness() as heard:
        for name, value in any_shell.variables.items():
            patch.setenv(name, value)
        with Undrift.from_env() as sides:
            assistant = CareerAssistant(sides)
            for description in (f"{TEXT} " * 99, "short"):
                new = {"title": TEXT, "description": description}
                try:
                    answer = assistant.add_project_to_experience(
                        1, experience_id="exp_1", project=new
                    )
                    heard.hear(str(answer.error))
                except UndriftError as exc:
                    raised += 1
                    heard.hear_error(exc)
    assert heard.leaks() == {}
    assert raised == 1


# --- embedders --------------------------------------------------------------------------------


def always(fault: Fault | None) -> Rule:
    """A rule that makes *fault* of every request."""
    return lambda texts: fault


def test_no_key_and_no_text_is_said_by_a_providers_client(
    secret_shell: Shell, embedding_proxy: EmbeddingProxy, without_waits: None
) -> None:
    """Where it answers, and where it refuses, at the lowest level of every library's logs."""
    url = secret_shell.variables.get("VECTOR_URL")
    secret_shell.variables |= {
        "UNDRIFT_EMBEDDER": "openai:e5-small",
        "OPENAI_BASE_URL": embedding_proxy.url,
        "UNDRIFT_EMBEDDER__DIMENSION": "384",
        "VECTOR_URL": f"{url}?table=undrift.other" if url else "sqlite:///other.db",
    }
    refused = Fault(401, error={"message": f"wrong key {KEY}: {TEXT}"})
    commands = (("sync", "--all", "--force", "-v"), ("search", "w", "--user-id=1", "-v"))
    codes = []
    with witness() as heard:
        for fault in (None, refused, Fault(500)):
            embedding_proxy.when(always(fault))
            for command in commands:
                ran = secret_shell.undrift(*command)
                codes.append(ran.code)
                heard.hear(ran.err, ran.out if "sync" in command else "")
    assert codes[:4] == [0, 0, 2, 2]
    assert 0 not in codes[4:]
    assert any(said.startswith("openai._base_client DEBUG") for said in heard.said)
    assert heard.leaks() == {}


class QuotingEmbedder(HashingEmbedder):
    """Somebody's embedder, whose errors quote what it was asked."""

    def embed(self, texts: Sequence[str], purpose: Purpose = "document") -> Vectors:
        """Fail, and say why."""
        raise ValueError(f"cannot embed {texts!r} with {KEY}")


def test_what_somebodys_embedder_says_is_not_repeated(secret_shell: Shell) -> None:
    """Its error is the cause, for who wants it; no word of it is in undrift's own, or in a log."""
    with pytest.MonkeyPatch.context() as patch, witness() as heard:
        for name, value in secret_shell.variables.items():
            patch.setenv(name, value)
        with Undrift(
            source=secret_shell.variables["DATABASE_URL"],
            store=secret_shell.variables.get("VECTOR_URL", "sqlite:///vectors.db"),
            embedder=QuotingEmbedder(16),
        ) as sides:
            errors = [report.error for report in sides.sync_all(force=True)]
    assert all(errors)
    for error in errors:
        heard.hear(str(error), repr(error))
        assert isinstance(error, UndriftError)
        assert isinstance(error.__cause__, ValueError)
    assert heard.leaks() == {}


# --- controls ---------------------------------------------------------------------------------


class TellingEmbedder(HashingEmbedder):
    """An embedder that logs what passes through it, as is quickly written."""

    def embed(self, texts: Sequence[str], purpose: Purpose = "document") -> Vectors:
        """Embed *texts*, and tell."""
        vectors = super().embed(texts, purpose)
        logging.getLogger("naive").debug("embedded %s as %s with %s", texts, vectors, KEY)
        return vectors


def test_control_embedder_that_logs_is_caught(shell: Shell) -> None:
    """Its texts, its key, and its vectors."""
    shell.put(1, profile("exp_1"))
    with (
        witness() as heard,
        Undrift(
            source=shell.variables["DATABASE_URL"],
            store="sqlite:///vectors.db",
            embedder=TellingEmbedder(16),
        ) as sides,
    ):
        assert sides.sync(1).is_in_sync
    made = HashingEmbedder(16).embed([TEXT])
    secrets = {**SECRETS, "vector": {f"{x:.5f}" for x in np.abs(made[0]).tolist() if 0 < x < 1}}
    assert heard.leaks(secrets).keys() >= {"profile text", "api key"}


@pytest.mark.parametrize("form", ["plain", "quoted"])
def test_control_program_that_prints_its_address_is_caught(form: str) -> None:
    """However the password is spelled; and a traceback whose cause quotes a row."""
    url = with_login("postgresql://x:y@host:5432/app", READER, PASSWORD)
    with witness() as heard:
        logging.getLogger("naive").info("using %s", url if form == "quoted" else PASSWORD)
    assert heard.leaks().keys() == {"source password"}
    with witness() as heard:
        try:
            try:
                raise ValueError(f"Failing row contains ({TEXT})")
            except ValueError as exc:
                raise UndriftError("It failed", why="w.", fix="f") from exc
        except UndriftError as exc:
            heard.hear(str(exc))
            assert heard.leaks() == {}
            heard.hear_error(exc)
    assert heard.leaks().keys() == {"profile text"}


def test_control_vector_in_print_is_recognised() -> None:
    """By its components and by its bytes."""
    vector = HashingEmbedder(16).embed([f"{TEXT} exp_1 and more words than one"])[0]
    forms = {"vector": parts_of([vector])}
    for said in (str(vector.tolist()), repr(vector.tobytes()), vector.tobytes().hex()):
        heard = Witness()
        heard.hear(said)
        assert heard.leaks(forms)
