"""``undrift init``: what it writes fits the database it looked at."""

from __future__ import annotations

import json
import stat
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
from psycopg import sql

from support.bad_input import assert_clean, assert_refused, nothing_lost
from support.cli import Document, Ran, Shell, experiences
from support.layouts import ENGINEER
from support.postgres import PostgresServer, with_login
from undrift.config import load_settings

SECRET = "Xyzzy-planted-text"
"""Stands in every profile, and must stand nowhere else."""


def entities_in(shell: Shell, name: str = "undrift.toml") -> dict[str, dict[str, Any]]:
    """The file's entities, by path or table."""
    parsed = tomllib.loads((shell.folder / name).read_text(encoding="utf-8"))
    return {entity.get("path") or entity["table"]: entity for entity in parsed["entity"]}


def fill(shell: Shell, *documents: Document | str) -> None:
    """Give each of the first owners one of *documents*."""
    for owner, document in enumerate(documents, start=1):
        shell.put(owner, document)


def assert_ready(shell: Shell) -> None:
    """The file that was written is in use by every command, as it stands."""
    load_settings(shell.folder / "undrift.toml", environ=shell.variables)
    checked = shell.undrift("check", "--all")
    assert checked.code == 1, checked.err
    assert "Users out of sync: 0" not in checked.out
    synced = shell.undrift("sync", "--all")
    assert synced.code == 0, synced.err
    assert shell.undrift("check", "--all").code == 0


# --- documents ----------------------------------------------------------------------------------


def test_the_origins_layout_is_recognised(any_shell: Shell) -> None:
    fill(any_shell, {**ENGINEER, "summary": SECRET}, {"education": [{"school": "MIT"}]})
    ran = any_shell.undrift("init")
    assert ran.code == 0, ran.err
    assert "profiles(user_id, filtered_data) is undrift's usual layout" in ran.out
    assert ran.out.endswith("✅ Wrote undrift.toml\nNext: undrift check --all\n")
    found = entities_in(any_shell)
    assert found["experiences[*]"] == {"kind": "experience", "path": "experiences[*]"}
    assert found["skills[*]"]["kind"] == "skill"
    # Not in the sample, and may come any day.
    assert found["experiences[*].projects[*].updates[*]"]["kind"] == "project_update"
    assert_ready(any_shell)


def test_an_empty_table_gets_the_usual_kinds(any_shell: Shell) -> None:
    assert any_shell.undrift("init").code == 0
    assert len(entities_in(any_shell)) == 6
    fill(any_shell, ENGINEER)
    assert_ready(any_shell)


def test_a_field_that_the_usual_text_does_not_read_is_appended(any_shell: Shell) -> None:
    job = {"id": "a", "title": "Baker", "company": "Kiln", "headline": "Ryebread for the coast"}
    fill(any_shell, {"experiences": [job]})
    any_shell.undrift("init")
    assert "{{ headline }}" in entities_in(any_shell)["experiences[*]"]["text"]
    assert_ready(any_shell)
    hit = any_shell.undrift("search", "ryebread", "--user-id=1", "--output=json").document
    assert "Ryebread for the coast" in hit["hits"][0]["text"]


def test_lists_of_any_name_become_entities(any_shell: Shell) -> None:
    document = {
        "work": [{"name": "Acme", "position": "Engineer", "summary": "Builds ledgers"}],
        "talks": [
            {"ref": "t1", "title": "On rust", "abstract": "word " * 40, "slides": "https://x.yz"},
            {"ref": "t2", "title": "On salt", "abstract": "words " * 40, "slides": "https://x.yz"},
        ],
        "life": {"hobbies": [{"what": "Chess", "since": "2001"}]},
        "token": SECRET,
    }
    fill(any_shell, document, document)
    ran = any_shell.undrift("init")
    found = entities_in(any_shell)
    assert set(found) == {"work[*]", "talks[*]", "life.hobbies[*]"}
    assert found["work[*]"] == {"kind": "experience", "path": "work[*]"}
    assert found["talks[*]"]["kind"] == "talk"
    assert found["talks[*]"]["text"] == "{{ title }}{% if abstract %}. {{ abstract }}{% endif %}"
    assert found["life.hobbies[*]"]["metadata"] == ["what", "since"]
    assert "left out of the text: slides (link)" in ran.out
    assert_ready(any_shell)


def test_what_an_alias_reads_is_not_called_left_out(any_shell: Shell) -> None:
    """Control: a field as rare that nothing reads is."""
    usual = {"title": "Baker", "company": "Kiln", "description": "Bakes bread"}
    rare = {"position": "Smith", "name": "Forge", "summary": "Forges iron", "mood": "glad"}
    jobs = [{"id": f"e{number}", **usual} for number in range(30)]
    fill(any_shell, {"experiences": [*jobs, {"id": "rare", **rare}]})
    ran = any_shell.undrift("init")
    assert "left out of the text: mood (it is rare)\n" in ran.out
    assert (
        "# Left out of the text: mood (it is rare).\n"
        in (any_shell.folder / "undrift.toml").read_text()
    )
    any_shell.undrift("sync", "--all")
    hits = any_shell.undrift("search", "forges iron", "--user-id=1", "--output=json").document
    assert hits["hits"][0]["text"] == "Smith at Forge. Forges iron"


def test_an_id_that_is_not_unique_is_not_used(any_shell: Shell) -> None:
    """Control: with the usual id the same profile cannot be read."""
    notes = [{"id": "same", "title": "First"}, {"id": "same", "title": "Second"}]
    fill(any_shell, {"notes": notes})
    (any_shell.folder / "undrift.toml").write_text(
        "[[entity]]\nkind = 'note'\npath = 'notes[*]'\ntext = '{{ title }}'\n"
    )
    assert any_shell.undrift("check", "--all").code == 3
    assert any_shell.undrift("init", "--overwrite").code == 0
    assert_ready(any_shell)
    assert "note: 2" not in any_shell.undrift("check", "--all").out
    status = any_shell.undrift("check", "--user-id=1", "--output=json").document["owners"][0]
    assert status["source"] == {"note": 2}


def test_invalid_documents_are_counted_and_do_not_stop_the_look(any_shell: Shell) -> None:
    fill(any_shell, experiences("exp_1"), '["a list"]', '{"experiences": "none"}')
    ran = any_shell.undrift("init")
    assert ran.code == 0
    assert "1 of the sampled documents hold no JSON object" in ran.out
    assert "experiences[*] is something else than a list in 1 of the sampled documents" in ran.out


def test_documents_without_a_list_are_entities_themselves(any_shell: Shell) -> None:
    fill(any_shell, {"headline": "Baker of rye", "about": "word " * 40}, {"headline": "Smith"})
    any_shell.undrift("init")
    entity = entities_in(any_shell)["$"]
    assert entity["kind"] == "profile"
    assert entity["text"].startswith("{{ headline }}")
    assert_ready(any_shell)


def test_hostile_field_names_are_read_through_aliases(any_shell: Shell) -> None:
    names = [
        'a "quoted" one',
        "with.dot",
        "class",
        "loop",
        "'; DROP TABLE x; --",
        "größe",
        "{{ x",
        "௰",
    ]
    element = {name: f"Words of number {number}" for number, name in enumerate(names)}
    fill(any_shell, {"odd \n list": [element], "no.path": [{"title": "x"}]})
    ran = any_shell.undrift("init")
    assert ran.code == 0, ran.err
    assert "a name with a dot or a bracket cannot be part of a path" in ran.out
    assert_ready(any_shell)
    hits = any_shell.undrift("search", "words", "--user-id=1", "--output=json").document["hits"]
    assert all(f"number {number}" in hits[0]["text"] for number in range(8))


# --- other tables -------------------------------------------------------------------------------


class TableCase(NamedTuple):
    """Tables to recognise, and what must be written of them."""

    statements: Sequence[str]
    expected: dict[str, dict[str, object]]


NOTES = TableCase(
    [
        "CREATE TABLE users (id bigint PRIMARY KEY, email varchar(99), password_hash varchar(99))",
        (
            "CREATE TABLE notes (note_id bigint PRIMARY KEY, user_id bigint REFERENCES users (id),"
            " title varchar(99), body text, secret_token varchar(99), pinned boolean,"
            " created_at timestamp)"
        ),
        "INSERT INTO users VALUES (7, 'ann@acme.example', 'x'), (8, 'bob@acme.example', 'x')",
        (
            f"INSERT INTO notes VALUES (1, 7, 'Rye', 'How to bake it', '{SECRET}', true,"
            " '2024-01-02'), (2, 8, 'Iron', 'How to forge it', 'x', false, NULL)"
        ),
    ],
    {
        "notes": {
            "kind": "note",
            "owner": "user_id",
            "id": "note_id",
            "text": "{{ [title, body] | select | join(', ') }}",
        }
    },
)
COMPOSITE = TableCase(
    [
        (
            "CREATE TABLE skills (account_id varchar(20), name varchar(99), level varchar(9),"
            " PRIMARY KEY (account_id, name))"
        ),
        (
            "CREATE TABLE posts (account_id varchar(20), blog varchar(9), slug varchar(9),"
            " title text, PRIMARY KEY (blog, slug))"
        ),
        "INSERT INTO skills VALUES ('a''1', 'Go', 'good'), ('a''1', 'SQL', NULL)",
        "INSERT INTO posts VALUES ('a''1', 'one', 'x', 'First post'), ('b', 'two', 'x', 'Second')",
    ],
    {
        "skills": {"kind": "skill", "owner": "account_id", "id": "name"},
        "posts": {"kind": "post", "owner": "account_id", "key": ["blog", "slug"]},
    },
)
HOSTILE = TableCase(
    [
        (
            'CREATE TABLE "odd ""table""; --" (user_id bigint, "the id" bigint PRIMARY KEY,'
            ' "what is said" text, "100% größe" text, "class" text)'
        ),
        "INSERT INTO \"odd \"\"table\"\"; --\" VALUES (1, 5, 'Rye bread', 'so gross', 'bakery')",
    ],
    {'odd "table"; --': {"owner": "user_id", "id": "the_id"}},
)
EMPTY = TableCase(
    [
        "CREATE TABLE articles (id bigint PRIMARY KEY, owner_id bigint, title text, body text)",
        "CREATE TABLE user_sessions (id bigint, user_id bigint, data text)",
    ],
    {"articles": {"text": "{{ title }}{% if body %}. {{ body }}{% endif %}"}},
)
OTHER_DOCUMENTS = TableCase(
    [
        "CREATE TABLE resumes (id bigint PRIMARY KEY, candidate_id bigint, content text)",
        """INSERT INTO resumes VALUES (1, 11, '{"projects"\\: [{"title"\\: "Billing"}]}')""",
    ],
    {"projects[*]": {"kind": "project"}},
)


@pytest.mark.parametrize(
    "case",
    [NOTES, COMPOSITE, HOSTILE, OTHER_DOCUMENTS],
    ids=["notes", "composite keys", "hostile names", "other documents"],
)
def test_other_tables_are_recognised(any_shell: Shell, case: TableCase) -> None:
    any_shell.source.run("DROP TABLE profiles")
    for statement in case.statements:
        any_shell.source.run(statement)
    ran = any_shell.undrift("init")
    assert ran.code == 0, ran.err
    found = entities_in(any_shell)
    assert set(found) == set(case.expected)
    for place, expected in case.expected.items():
        assert expected.items() <= found[place].items()
    assert_ready(any_shell)
    assert SECRET not in ran.out + (any_shell.folder / "undrift.toml").read_text()


def test_empty_tables_are_told_by_their_columns(any_shell: Shell) -> None:
    any_shell.source.run("DROP TABLE profiles")
    for statement in EMPTY.statements:
        any_shell.source.run(statement)
    ran = any_shell.undrift("init")
    assert "user_sessions: it looks like the application's own works" in ran.out
    found = entities_in(any_shell)
    assert list(found) == ["articles"]
    assert EMPTY.expected["articles"].items() <= found["articles"].items()
    assert any_shell.undrift("check", "--all").code == 0


def test_a_column_for_deleted_rows_is_pointed_at(any_shell: Shell) -> None:
    """As a condition that a person has to want, and that works when it is wanted."""
    any_shell.source.run("DROP TABLE profiles")
    any_shell.source.run(
        "CREATE TABLE notes (id bigint PRIMARY KEY, user_id bigint, title text, deleted_at text)"
    )
    for number, deleted in ((1, "NULL"), (2, "'2026-01-01'")):
        any_shell.source.run(f"INSERT INTO notes VALUES ({number}, 7, 'A note', {deleted})")
    assert any_shell.undrift("init").code == 0
    file = any_shell.folder / "undrift.toml"
    hint = '# where = "deleted_at IS NULL"  (all rows are read without it)'
    assert hint in file.read_text()
    file.write_text(file.read_text().replace(hint, 'where = "deleted_at IS NULL"'))
    checked = any_shell.undrift("check", "--all", "--output", "json")
    assert [owner["source"] for owner in checked.document["owners"]] == [{"note": 1}]


def test_a_json_column_beside_texts_does_not_make_documents_of_them(any_shell: Shell) -> None:
    json_type = "jsonb" if any_shell.source.is_postgres else "json"
    any_shell.source.run("DROP TABLE profiles")
    any_shell.source.run(
        f"CREATE TABLE notes (id bigint PRIMARY KEY, user_id bigint, title text, meta {json_type})"
    )
    meta = json.dumps({"files": [{"name": "x"}]})
    for number in (1, 2):
        any_shell.source.run(
            f"INSERT INTO notes VALUES ({number}, 1, 'Rye', CAST(:meta AS {json_type}))", meta=meta
        )
    any_shell.undrift("init")
    assert list(entities_in(any_shell)) == ["notes"]
    assert_ready(any_shell)


def test_tables_of_another_schema_are_named_with_it(postgres_shell: Shell) -> None:
    postgres_shell.source.run("DROP TABLE profiles")
    postgres_shell.source.run('CREATE SCHEMA "my.app"')
    postgres_shell.source.run(
        'CREATE TABLE "my.app".notes (id bigint PRIMARY KEY, user_id bigint, title text)'
    )
    postgres_shell.source.run("INSERT INTO \"my.app\".notes VALUES (1, 1, 'Rye')")
    postgres_shell.undrift("init")
    assert list(entities_in(postgres_shell)) == ["my.app.notes"]
    assert_ready(postgres_shell)


def test_the_usual_table_is_found_among_very_many(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only some are sampled; the likeliest are."""
    monkeypatch.setattr("undrift.proposal.MAX_SAMPLED_TABLES", 2)
    fill(shell, ENGINEER)
    for name in "abcd":
        shell.source.run(f"CREATE TABLE {name} (id bigint PRIMARY KEY, words text)")
    ran = shell.undrift("init")
    assert "3 tables beyond 2" in ran.out
    assert "experiences[*]" in entities_in(shell)


def test_nothing_suitable_is_an_error_with_the_lines_to_write(any_shell: Shell) -> None:
    any_shell.source.run("DROP TABLE profiles")
    any_shell.source.run("CREATE TABLE prices (item text, cents bigint)")
    ran = any_shell.undrift("init")
    assert_refused(ran, 2, "No table was recognised", why="prices(item, cents)")
    assert '[[entity]]\nkind = "note"\ntable = "notes"' in ran.err
    assert not (any_shell.folder / "undrift.toml").exists()


# --- the file -----------------------------------------------------------------------------------


def test_neither_values_nor_passwords_are_written_or_said(postgres_shell: Shell) -> None:
    password = "pl4nted%40pw"
    url = postgres_shell.variables["DATABASE_URL"]
    fill(postgres_shell, {**ENGINEER, "about": SECRET, "experiences": [{"title": SECRET}]})
    with nothing_lost(postgres_shell):
        ran = postgres_shell.undrift("init", "-v")
    text = (postgres_shell.folder / "undrift.toml").read_text()
    assert 'url = "env:DATABASE_URL"' in text
    assert 'url = "env:VECTOR_URL"' in text
    secret = url.split("@")[0].rpartition(":")[2]
    assert_clean(ran, SECRET, secret)
    assert SECRET not in text
    assert secret not in text
    refused = postgres_shell.undrift(
        "init", "--overwrite", DATABASE_URL=url.replace(secret, password)
    )
    assert refused.code == 2
    assert_clean(refused, password, "pl4nted@pw")


@pytest.mark.parametrize("arguments", [(), ("--config", "other.toml")])
def test_a_file_that_is_there_is_never_replaced_unasked(
    shell: Shell, arguments: Sequence[str]
) -> None:
    target = shell.folder / (arguments[1] if arguments else "undrift.toml")
    target.write_text("# mine\n")
    ran = shell.undrift("init", *arguments)
    assert_refused(ran, 2, f"{target.name} exists already", fix="--overwrite")
    assert target.read_text() == "# mine\n"
    assert shell.undrift("init", "--overwrite", *arguments).code == 0
    assert target.read_text() != "# mine\n"
    assert sorted(path.name for path in shell.folder.iterdir()) == ["app.db", target.name]


def test_a_broken_file_can_be_overwritten(shell: Shell) -> None:
    (shell.folder / "undrift.toml").write_text("[[[")
    assert shell.undrift("init", "--overwrite").code == 0
    assert shell.undrift("check", "--all").code == 0


def test_the_file_has_the_usual_rights(shell: Shell) -> None:
    """Not those of a temporary file: the service that reads it may be somebody else."""
    shell.undrift("init")
    (shell.folder / "reference").write_text("")
    modes = {
        stat.S_IMODE((shell.folder / name).stat().st_mode) for name in ("undrift.toml", "reference")
    }
    assert len(modes) == 1


@pytest.mark.parametrize("name", ["gone/undrift.toml", "."])
def test_a_place_that_cannot_be_written_is_an_error(shell: Shell, name: str) -> None:
    ran = shell.undrift("init", "--config", name)
    assert ran.code == 2
    assert all(ran.error)
    assert [path.name for path in shell.folder.iterdir()] == ["app.db"]


def test_the_next_command_names_the_file(shell: Shell) -> None:
    ran = shell.undrift("init", "--config", "my file.toml")
    assert ran.out.endswith("Next: undrift check --all --config 'my file.toml'\n")


def test_a_missing_store_is_said_before_it_is_missed(postgres_shell: Shell) -> None:
    del postgres_shell.variables["VECTOR_URL"]
    ran = postgres_shell.undrift("init")
    assert ran.code == 0
    assert "VECTOR_URL is not set: VECTOR_URL=$DATABASE_URL" in ran.out


def test_json_answer(shell: Shell) -> None:
    fill(shell, experiences("exp_1"))
    document = shell.undrift("init", "--output=json").document
    assert list(document) == [
        "schema_version",
        "command",
        "file",
        "written",
        "store_created",
        "layout",
        "documents",
        "chosen",
        "entities",
        "notes",
        "next",
    ]
    assert document["entities"][0] == {
        "kind": "experience",
        "path": "experiences[*]",
        "seen": "1 in 1 of the sampled documents",
        "left_out": [],
    }


def test_json_answer_of_a_refusal(shell: Shell) -> None:
    ran = shell.undrift("init", "--output=json", DATABASE_URL="")
    assert ran.code == 2
    assert ran.document["command"] == "init"
    assert ran.document["error"]["what"] == "DATABASE_URL is not set"


# --- the store ----------------------------------------------------------------------------------


def store_exists(shell: Shell) -> bool:
    if shell.source.is_postgres:
        query = "SELECT to_regclass('undrift.vectors') IS NOT NULL AS found"
        return bool(shell.source.rows(query)[0]["found"])
    return (shell.folder / ".undrift" / "undrift.db").exists()


def test_only_apply_creates_the_store(any_shell: Shell) -> None:
    fill(any_shell, ENGINEER)
    for arguments in ((), ("--sql",)):
        assert any_shell.undrift("init", *arguments).code == 0
        assert not store_exists(any_shell)
    ran = any_shell.undrift("init", "--apply")
    assert ran.code == 0, ran.err
    assert store_exists(any_shell)
    assert "undrift.toml is there already, and was left as it is" in ran.out
    assert "✅ Created the vector store\n" in ran.out
    assert "CREATE TABLE IF NOT EXISTS" in ran.err  # announced
    again = any_shell.undrift("init", "--apply")
    assert "✅ The vector store is there already\n" in again.out
    assert_ready(any_shell)


def test_apply_refuses_a_store_of_another_dimension(any_shell: Shell) -> None:
    fill(any_shell, experiences("exp_1"))
    any_shell.undrift("sync", "--all")
    ran = any_shell.undrift("init", "--apply", UNDRIFT_EMBEDDER="hashing:8")
    assert ran.code == 2
    assert ran.error[0] == "The store's vectors have another dimension"


def test_apply_without_a_store_writes_nothing(postgres_shell: Shell) -> None:
    del postgres_shell.variables["VECTOR_URL"]
    ran = postgres_shell.undrift("init", "--apply")
    assert_refused(ran, 2, "VECTOR_URL is not set")
    assert not (postgres_shell.folder / "undrift.toml").exists()


def sql_of(ran: Ran) -> str:
    """The script that *ran* printed."""
    assert ran.code == 0, ran.err
    return ran.out


def test_sql_is_a_script_that_creates_the_store(
    postgres_shell: Shell, new_postgres_url: Callable[[], str]
) -> None:
    """Run by somebody else, it makes what sync finds to be its own."""
    script = sql_of(postgres_shell.undrift("init", "--sql"))
    assert "CREATE EXTENSION IF NOT EXISTS vector;" in script
    assert not (postgres_shell.folder / "undrift.toml").exists()
    postgres_shell.source.run(script.replace(":", "\\:"))
    fill(postgres_shell, experiences("exp_1"))
    assert "Created the vector store" not in postgres_shell.undrift("sync", "--all").err
    assert postgres_shell.undrift("check", "--all").code == 0


def test_sql_names_the_roles_of_the_urls(
    postgres_shell: Shell, postgres_server: PostgresServer
) -> None:
    """Run by a DBA as it stands, it is enough for exactly those roles, hostile names included."""
    fill(postgres_shell, experiences("exp_1"))
    admin = postgres_shell.variables["DATABASE_URL"]
    reader, writer = 'init " reader', "init'; -- DROP"
    urls = {}
    for variable, role in (("DATABASE_URL", reader), ("VECTOR_URL", writer)):
        postgres_server.create_role(role, "pw")
        urls[variable] = with_login(admin, role, "pw")
    try:
        assert postgres_shell.undrift("check", "--all", **urls).code == 2
        script = sql_of(postgres_shell.undrift("init", "--sql", **urls))
        assert "undrift_reader" not in script
        assert "The source was not looked at" not in script
        postgres_shell.source.run(script.replace(":", "\\:"))
        assert postgres_shell.undrift("sync", "--all", **urls).code == 0
        assert postgres_shell.undrift("check", "--all", **urls).code == 0
        swapped = {"DATABASE_URL": urls["VECTOR_URL"]}
        assert postgres_shell.undrift("check", "--all", **swapped).code == 2
    finally:
        with psycopg.connect(admin, autocommit=True) as connection:
            for role in (reader, writer):
                name = sql.Identifier(role)
                connection.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(name))
                connection.execute(sql.SQL("DROP ROLE {}").format(name))


def test_sql_for_two_databases_grants_only_in_the_stores(postgres_shell: Shell) -> None:
    """What belongs into the other database is a comment."""
    elsewhere = "postgresql://app:pw@127.0.0.1:1/vectors"
    script = sql_of(postgres_shell.undrift("init", "--sql", VECTOR_URL=elsewhere))
    assert 'GRANT INSERT, UPDATE, DELETE ON "undrift"."vectors" TO "app";' in script.splitlines()
    assert '-- GRANT SELECT ON "profiles" TO "postgres";' in script.splitlines()
    beside = sql_of(postgres_shell.undrift("init", "--sql", VECTOR_URL="sqlite:///vectors.db"))
    assert '-- GRANT SELECT ON "profiles" TO "postgres";' in beside.splitlines()


def test_sql_for_a_source_that_nobody_named_leaves_its_role_open(shell: Shell) -> None:
    url = "postgresql://app@127.0.0.1:1/app"
    script = sql_of(shell.undrift("init", "--sql", DATABASE_URL="", VECTOR_URL=url))
    assert 'GRANT SELECT ON "undrift"."vectors" TO "app";' in script.splitlines()
    last = script.splitlines()[-1]
    assert last.startswith("-- GRANT SELECT ON every table")
    assert last.endswith("TO undrift_reader, undrift_writer;")


def test_sql_needs_no_database(shell: Shell) -> None:
    """It is often printed where the database cannot be reached from."""
    nowhere = "postgresql://app:pl4nted@127.0.0.1:1/app"
    ran = shell.undrift("init", "--sql", DATABASE_URL=nowhere, VECTOR_URL="")
    script = sql_of(ran)
    assert "CREATE TABLE IF NOT EXISTS" in script
    assert "The source was not looked at" in ran.err
    assert_clean(ran, "pl4nted")


def test_sql_goes_alone(shell: Shell) -> None:
    assert_refused(shell.undrift("init", "--sql", "--apply"), 2, "--sql goes alone")


def test_an_unreachable_source_is_unknown(shell: Shell) -> None:
    ran = shell.undrift("init", DATABASE_URL="postgresql://app:pl4nted@127.0.0.1:1/app")
    assert_refused(ran, 3, "The source cannot be read")
    assert_clean(ran, "pl4nted")
    assert not (shell.folder / "undrift.toml").exists()


def test_nothing_is_changed_by_a_look(any_shell: Shell) -> None:
    fill(any_shell, ENGINEER)
    any_shell.undrift("sync", "--all")
    with nothing_lost(any_shell):
        assert any_shell.undrift("init").code == 0
        assert any_shell.undrift("init", "--sql").code == 0
    beside = {path.name for path in Path(any_shell.folder).iterdir()}
    assert beside <= {"app.db", ".undrift", "undrift.toml"}
