"""``undrift doctor`` on both backends: what it finds, what it says, and that it changes nothing."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import Any

import pytest

from support.bad_input import assert_clean, drifted, nothing_lost
from support.cli import Ran, Shell, experiences
from support.files import as_nobody
from support.layouts import ENGINEER
from support.sides import Database

SECRET = "Xyzzy-planted-text"

Check = dict[str, Any]


def checks_of(ran: Ran) -> dict[str, Check]:
    """The findings, by name; each name stands once."""
    checks = ran.document["checks"]
    by_name = {check["name"]: check for check in checks}
    assert len(by_name) == len(checks)
    return by_name


def looked(shell: Shell, code: int, *arguments: str, **variables: str) -> dict[str, Check]:
    """What the doctor finds."""
    ran = shell.undrift("doctor", "--output=json", *arguments, **variables)
    assert ran.code == code, ran.out
    assert_clean(ran)
    return checks_of(ran)


FINE_FOR_A_READER = "That is fine for a role that only checks (`undrift doctor --read-only`), but"


def judged_for_a_reader(shell: Shell, **variables: str) -> tuple[Ran, dict[str, Check]]:
    """What the doctor says with ``--read-only`` of a setup that can check and cannot sync."""
    ran = shell.undrift("doctor", "--read-only", "--output=json", **variables)
    assert ran.code == 0, ran.out
    assert ran.document["summary"]["could_check"] is True
    assert ran.document["summary"]["could_sync"] is False
    assert ran.document["summary"]["problems"] == 0
    assert all("fix" not in c for c in ran.document["checks"] if c["status"] == "ok")
    return ran, checks_of(ran)


def not_ok(checks: dict[str, Check]) -> dict[str, str]:
    """The status of everything that is amiss, but for what every test's setup has."""
    usual = {"embedder.meaning", "store.durability"}  # hashing, and a server that flushes nothing
    return {
        name: check["status"]
        for name, check in checks.items()
        if check["status"] != "ok" and name not in usual
    }


# --- a setup that works -------------------------------------------------------------------------


def test_a_setup_that_works_has_no_problem(any_shell: Shell) -> None:
    any_shell.put(1, ENGINEER)
    any_shell.undrift("sync", "--all")
    with nothing_lost(any_shell):
        ran = any_shell.undrift("doctor")
    assert ran.code == 0, ran.out
    assert "  - Check could run: true\n  - Sync could run: true\n  - Problems: 0\n" in ran.out
    headings = [line for line in ran.out.splitlines() if line.endswith(":") and "Fix" not in line]
    assert headings == ["Configuration:", "Source:", "Store:", "State:", "Embedder:", "📊 Summary:"]
    assert "Users sampled: 1; entities in them: experience 2, project 1, skill 2\n" in ran.out
    assert "✅ ok: It holds 5 records of namespace default\n" in ran.out
    assert "(tried, and rolled back)" in ran.out
    assert ran.err == ""


def test_a_store_that_is_not_created_yet_is_no_problem(any_shell: Shell) -> None:
    any_shell.put(1, ENGINEER)
    before = any_shell.source.rows("SELECT * FROM profiles")
    checks = looked(any_shell, 0)
    assert any_shell.source.rows("SELECT * FROM profiles") == before
    assert not_ok(checks) == {}
    assert any("not created yet" in check["summary"] for check in checks.values())
    assert not (any_shell.folder / ".undrift").exists()


def test_a_look_changes_nothing_on_either_side(any_shell: Shell) -> None:
    drifted(any_shell)
    before = any_shell.undrift("check", "--all").out
    with nothing_lost(any_shell):
        for _ in range(2):
            looked(any_shell, 0)
    assert any_shell.undrift("check", "--all").out == before


def test_neither_texts_nor_passwords_are_said(any_shell: Shell) -> None:
    any_shell.put(1, {"experiences": [{"title": SECRET, "headline": f"{SECRET} and more words"}]})
    any_shell.put(2, f'{{"experiences": "{SECRET}"}}')
    password = any_shell.variables["DATABASE_URL"].rpartition("@")[0].rpartition(":")[2] or SECRET
    for arguments in (("doctor", "-v"), ("doctor", "--output=json")):
        ran = any_shell.undrift(*arguments)
        assert ran.code == 0
        assert_clean(ran, SECRET, password)


def test_json_lines_and_one_document_say_the_same(shell: Shell) -> None:
    shell.put(1, ENGINEER)
    document = shell.undrift("doctor", "--output=json").document
    *checks, last = shell.undrift("doctor", "--output=jsonl").lines
    assert document["checks"] == checks
    assert document["summary"] == last["summary"]
    assert list(document) == ["schema_version", "command", "checks", "summary"]
    assert list(last) == ["schema_version", "command", "summary"]
    assert document["summary"] == {
        "could_check": True,
        "could_sync": True,
        "problems": 0,
        "unknown": 0,
        "warnings": 1,
    }
    for check in checks:
        assert set(check) in ({"name", "status", "summary"}, {"name", "status", "summary", "fix"})
        assert check["status"] in {"ok", "warning", "problem", "unknown"}
        assert ("fix" in check) is (check["status"] != "ok")
        groups = {"configuration", "source", "store", "state", "embedder"}
        assert check["name"].partition(".")[0] in groups


def test_emoji_are_dropped_where_nobody_can_show_them(shell: Shell) -> None:
    ran = shell.program("undrift", "doctor", PYTHONIOENCODING="ascii")
    assert ran.code == 0
    assert ran.out.isascii()
    assert "\nok: SQLite" in ran.out


# --- the configuration --------------------------------------------------------------------------


def test_a_missing_source_keeps_nothing_else_from_being_looked_at(shell: Shell) -> None:
    checks = looked(shell, 2, DATABASE_URL="")
    assert not_ok(checks) == {"source.url": "problem"}
    assert "export DATABASE_URL=" in checks["source.url"]["fix"]
    assert "a server needs VECTOR_URL, too" in checks["source.url"]["fix"]
    assert checks["embedder.works"]["status"] == "ok"


def test_a_server_without_a_store_names_the_line(postgres_shell: Shell) -> None:
    del postgres_shell.variables["VECTOR_URL"]
    postgres_shell.put(1, ENGINEER)
    checks = looked(postgres_shell, 2)
    assert not_ok(checks) == {"store.url": "problem"}
    assert "VECTOR_URL=$DATABASE_URL" in checks["store.url"]["fix"]


def test_a_malformed_file_is_a_problem_and_the_only_one(shell: Shell) -> None:
    (shell.folder / "undrift.toml").write_text("[source]\nulr = 'x'\n")
    checks = looked(shell, 2)
    assert not_ok(checks) == {"configuration.settings": "problem"}
    assert "did you mean 'url'?" in checks["configuration.settings"]["summary"]


def test_what_the_environment_decides_is_named(shell: Shell) -> None:
    (shell.folder / "undrift.toml").write_text('[source]\nurl = "env:APP_DB"\n')
    checks = looked(
        shell,
        0,
        APP_DB=shell.variables["DATABASE_URL"],
        UNDRIFT_STORE__NAMESPACE="blue",
        UNDRIFT_ENV="test",
    )
    said = checks["configuration.variables"]["summary"]
    assert "source.url from APP_DB" in said
    assert "store.namespace from UNDRIFT_STORE__NAMESPACE" in said
    assert "DATABASE_URL" not in said  # the file's own reference is the stronger
    assert checks["configuration.environment"]["status"] == "ok"


def test_a_password_in_the_file_is_named_and_not_shown(
    postgres_shell: Shell,
) -> None:
    url = postgres_shell.variables.pop("DATABASE_URL")
    (postgres_shell.folder / "undrift.toml").write_text(f'[source]\nurl = "{url}"\n')
    ran = postgres_shell.undrift("doctor", "--output=json")
    found = checks_of(ran)["configuration.source.url"]
    assert found["status"] == "warning"
    assert 'url = "env:DATABASE_URL"' in found["fix"]
    assert_clean(ran, url.rpartition("@")[0].rpartition(":")[2])


# --- the source ---------------------------------------------------------------------------------


def test_a_missing_table_points_at_init(any_shell: Shell) -> None:
    any_shell.source.run("ALTER TABLE profiles RENAME TO profile")
    checks = looked(any_shell, 2)
    assert not_ok(checks) == {"source.tables": "problem"}
    assert "did you mean 'profile'" in checks["source.tables"]["summary"]
    assert "`undrift init`" in checks["source.tables"]["fix"]


def test_a_column_that_is_gone_is_a_problem(any_shell: Shell) -> None:
    any_shell.source.run("ALTER TABLE profiles RENAME COLUMN filtered_data TO data")
    assert not_ok(looked(any_shell, 2)) == {"source.tables": "problem"}


def test_a_where_condition_that_fails_is_a_problem(any_shell: Shell) -> None:
    checks = looked(any_shell, 2, UNDRIFT_SOURCE__DOCUMENTS__WHERE="no_such_column IS NULL")
    assert not_ok(checks) == {"source.table.profiles": "problem"}


def test_users_that_cannot_be_read_are_counted(any_shell: Shell) -> None:
    any_shell.put(1, ENGINEER)
    any_shell.put(2, '["a list"]')
    same = [{"id": "x", "title": "One"}, {"id": "x", "title": "Two"}]
    any_shell.put(3, {"experiences": same})
    any_shell.source.run("INSERT INTO profiles (user_id, filtered_data) VALUES (4, NULL)")
    checks = looked(any_shell, 0)
    found = checks["source.invalid"]
    assert found["status"] == "warning"
    assert found["summary"].startswith("3 of 4 sampled users cannot be read")
    assert found["fix"] == "undrift check --user-id 2 says why"
    # It does, and so does the exit code of check.
    assert any_shell.undrift("check", "--user-id", "2").code == 3


def test_of_users_that_cannot_be_read_nothing_else_is_said(any_shell: Shell) -> None:
    """Control: one that can be read and holds nothing is spoken of."""
    any_shell.put(1, '["a list"]')
    assert not_ok(looked(any_shell, 0)) == {"source.invalid": "warning"}
    any_shell.put(2, {"hobbies": ["Chess"]})
    found = looked(any_shell, 0)["source.sample"]
    assert found["summary"] == "1 users were sampled, and no [[entity]] finds anything"


def test_rows_are_counted_where_the_server_has_no_estimate(
    any_shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows that a check reads: those of the where condition."""
    for owner in range(1, 6):
        any_shell.put(owner, ENGINEER)
    said = looked(any_shell, 0)["source.table.profiles"]["summary"]
    assert said.endswith("can be read; rows: 5")
    where = {"UNDRIFT_SOURCE__DOCUMENTS__WHERE": "user_id > 2"}
    said = looked(any_shell, 0, **where)["source.table.profiles"]["summary"]
    assert said.endswith("can be read; rows: 3")
    monkeypatch.setattr("undrift.sources.probe.COUNTED_ROWS", 3)
    said = looked(any_shell, 0)["source.table.profiles"]["summary"]
    assert said.endswith("can be read; rows: more than 3")


def test_a_field_that_is_read_as_an_alias_is_not_called_unread(any_shell: Shell) -> None:
    """Neither one of its own text's, nor one of what encloses it. Control: one of nobody's."""
    job = {"position": "Baker", "role": "Chief", "talks": [{"about": "Rye bread"}]}
    any_shell.put(1, {"work": [job]})
    (any_shell.folder / "undrift.toml").write_text(
        "[[entity]]\nkind = 'job'\npath = 'work[*]'\ntext = '{{ role }}'\n"
        "aliases = { title = ['position'] }\n"
        "[[entity]]\nkind = 'talk'\npath = 'work[*].talks[*]'\n"
        "text = '{{ topic }} {{ parent.title }}'\naliases = { topic = ['about'] }\n"
    )
    assert not_ok(looked(any_shell, 0)) == {}
    file = any_shell.folder / "undrift.toml"
    file.write_text(file.read_text().replace("{{ parent.title }}", ""))
    assert "work[*].position" in looked(any_shell, 0)["source.unread"]["summary"]


def test_texts_that_nothing_reads_are_named(any_shell: Shell) -> None:
    any_shell.put(
        1,
        {
            "about": "Words that nobody will ever find, and they are many. " * 3,
            "email": "ann@acme.example",
            "experiences": [
                {
                    "id": "a",
                    "title": "Baker",
                    "headline": "Bakes rye bread",
                    "location": {"city": "Bern"},
                    "employer_id": "some-reference",
                    "password_hint": "never to be read",
                    "projects": [{"title": "Kiln", "technologies": ["clay", "fire"]}],
                }
            ],
            "volunteer": [{"organization": "Red Cross", "summary": "Drives"}],
        },
    )
    checks = looked(any_shell, 0)
    assert not_ok(checks) == {"source.unread": "warning"}
    said = checks["source.unread"]["summary"]
    named = said.removeprefix("What is written in ").partition(" is read by")[0].split(", ")
    assert set(named) == {"about", "experiences[*].headline", "volunteer[*]"}
    # What init proposes reads it.
    any_shell.undrift("init")
    assert "headline" not in looked(any_shell, 0).get("source.unread", {}).get("summary", "")


def test_columns_that_nothing_reads_are_named(any_shell: Shell) -> None:
    any_shell.source.run(
        "CREATE TABLE notes (id bigint PRIMARY KEY, user_id bigint, title text, body text,"
        " pinned boolean, color text)"
    )
    any_shell.source.run("INSERT INTO notes VALUES (1, 1, 'Rye', 'How to bake', true, 'red')")
    (any_shell.folder / "undrift.toml").write_text(
        "[[entity]]\nkind = 'note'\ntable = 'notes'\nowner = 'user_id'\ntext = '{{ title }}'\n"
    )
    checks = looked(any_shell, 0)
    assert not_ok(checks) == {"source.unread": "warning"}
    assert "notes.body is read by nothing" in checks["source.unread"]["summary"]


def test_entities_without_text_are_counted(any_shell: Shell) -> None:
    any_shell.put(1, {"skills": ["Go", {"id": "x", "level": "good"}, {"id": "y", "name": ""}]})
    (any_shell.folder / "undrift.toml").write_text(
        "[[entity]]\nkind = 'skill'\npath = 'skills[*]'\ntext = '{{ name }}'\n"
    )
    found = looked(any_shell, 0)["source.without_text"]
    assert found["summary"].startswith("2 of 3 sampled entities have no text")


def test_an_empty_source_is_a_warning(any_shell: Shell) -> None:
    found = looked(any_shell, 0)["source.sample"]
    assert found["status"] == "warning"
    assert "lists no owner" in found["summary"]


def test_a_mapping_that_finds_nothing_is_a_warning(any_shell: Shell) -> None:
    any_shell.put(1, {"work": [{"position": "Baker"}]})
    found = looked(any_shell, 0)["source.sample"]
    assert found["status"] == "warning"
    assert "no [[entity]] finds anything" in found["summary"]


def test_rows_without_an_owner_are_named(any_shell: Shell) -> None:
    any_shell.source.run("DROP TABLE profiles")
    json_type = "jsonb" if any_shell.source.is_postgres else "text"
    any_shell.source.run(f"CREATE TABLE profiles (user_id bigint, filtered_data {json_type})")
    any_shell.put(1, ENGINEER)
    assert "source.owners.profiles" not in looked(any_shell, 0)
    any_shell.source.run("INSERT INTO profiles (filtered_data) VALUES ('{}')")
    assert looked(any_shell, 0)["source.owners.profiles"]["status"] == "warning"


# --- the store ----------------------------------------------------------------------------------


def test_another_dimension_is_a_problem(any_shell: Shell) -> None:
    any_shell.put(1, ENGINEER)
    any_shell.undrift("sync", "--all")
    checks = looked(any_shell, 2, UNDRIFT_EMBEDDER="hashing:8")
    assert not_ok(checks) == {"store.dimension": "problem", "store.models": "warning"}
    assert "16 components, the embedder makes 8" in checks["store.dimension"]["summary"]
    assert "VECTOR_URL" in checks["store.dimension"]["fix"]


def test_other_models_and_records_of_others_are_counted(any_shell: Shell) -> None:
    any_shell.put(1, ENGINEER)
    any_shell.undrift("sync", "--all")
    table = "undrift.vectors" if any_shell.source.is_postgres else "vectors"
    url = any_shell.variables.get("VECTOR_URL", f"sqlite:///{any_shell.folder}/.undrift/undrift.db")
    change = {
        "model = 'other/model'": "kind = 'project'",
        "namespace = 'blue'": "kind = 'skill'",
        "kind = 'hobby'": "entity_id = 'exp_2'",
    }
    with closing(Database(url)) as store:
        for setting, which in change.items():
            assert store.run(f"UPDATE {table} SET {setting} WHERE {which}") > 0
    checks = looked(any_shell, 0)
    assert not_ok(checks) == {"store.models": "warning"}
    assert checks["store.models"]["summary"].endswith("1 of other/model")
    assert checks["store.records"]["summary"] == "It holds 2 records of namespace default"
    assert (
        "1 of kind hobby, which is not configured, 2 of namespace blue"
        in (checks["store.unmanaged"]["summary"])
    )


def test_a_store_file_that_may_only_be_read(shell: Shell) -> None:
    """Check works, and the doctor says that it does, and that sync does not."""
    shell.put(1, ENGINEER)
    shell.undrift("sync", "--all")
    url = "sqlite:///.undrift/undrift.db?mode=ro"
    ran = shell.undrift("doctor", "--output=json", VECTOR_URL=url)
    assert ran.code == 2
    assert ran.document["summary"]["could_check"] is True
    assert ran.document["summary"]["could_sync"] is False
    found = checks_of(ran)["store.rights"]
    assert found["summary"].startswith(FINE_FOR_A_READER)
    assert "a readonly database" in found["summary"]
    assert "leave out ?mode=ro" in found["fix"]
    _, judged = judged_for_a_reader(shell, VECTOR_URL=url)
    assert judged["store.rights"]["summary"].startswith("Not needed to check: ")
    assert shell.undrift("check", "--all", VECTOR_URL=url).code == 0
    shell.put(1, experiences("exp_9"))
    assert shell.undrift("sync", "--all", VECTOR_URL=url).code != 0


def test_a_folder_that_cannot_be_written(shell: Shell) -> None:
    shell.put(1, ENGINEER)
    shell.folder.chmod(0o755)
    (shell.folder / "app.db").chmod(0o644)
    with as_nobody(shell.folder):
        checks = looked(shell, 2)
        _, judged = judged_for_a_reader(shell)
    if os.geteuid() == 0:
        assert not_ok(checks) == {"store.file": "problem"}
        assert checks["store.file"]["summary"].startswith(FINE_FOR_A_READER)
        assert "mkdir -p" in checks["store.file"]["fix"]
        assert "not created yet" in judged["store.file"]["summary"]


def test_a_store_that_a_writer_holds_is_unknown(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell.put(1, ENGINEER)
    shell.undrift("sync", "--all")
    monkeypatch.setattr("undrift.stores._sqlite_probe.BUSY_SECONDS", 0.05)
    with closing(sqlite3.connect(shell.folder / ".undrift" / "undrift.db")) as writer:
        writer.execute("BEGIN IMMEDIATE")
        checks = looked(shell, 3)
        judged_for_a_reader(shell)
        assert shell.undrift("check", "--all").code == 0
        writer.rollback()
    assert not_ok(checks) == {"store.rights": "unknown"}
    assert not_ok(looked(shell, 0)) == {}


def test_a_store_without_wal_is_a_warning(shell: Shell) -> None:
    shell.put(1, ENGINEER)
    shell.undrift("sync", "--all")
    with closing(sqlite3.connect(shell.folder / ".undrift" / "undrift.db")) as file:
        file.execute("PRAGMA journal_mode = DELETE")
    assert not_ok(looked(shell, 0)) == {"store.journal": "warning"}


def test_a_file_that_is_no_database_is_a_problem(shell: Shell) -> None:
    (shell.folder / "vectors.db").write_text("words " * 1000)
    for arguments in ((), ("--read-only",)):
        checks = looked(shell, 2, *arguments, VECTOR_URL="sqlite:///vectors.db")
        assert checks["store.file"]["status"] == "problem"


def test_of_a_store_that_cannot_be_read_no_number_is_said(shell: Shell) -> None:
    """Control: of the same file, mended, it is."""
    shell.put(1, ENGINEER)
    shell.undrift("sync", "--all")
    path = shell.folder / ".undrift" / "undrift.db"
    whole = path.read_bytes()
    with closing(sqlite3.connect(path)) as file:
        (page_bytes,) = file.execute("PRAGMA page_size").fetchone()
        roots = file.execute("SELECT rootpage FROM sqlite_master WHERE tbl_name = 'vectors'")
        pages = [page for (page,) in roots]
    torn = bytearray(whole)
    for page in pages:
        torn[(page - 1) * page_bytes : page * page_bytes] = bytes(page_bytes)
    path.write_bytes(torn)
    checks = looked(shell, 3)
    assert not_ok(checks) == {"store.file": "unknown"}
    assert checks["store.dimension"]["status"] == "ok"  # that was read
    assert "store.records" not in checks
    path.write_bytes(whole)
    assert looked(shell, 0)["store.records"]["summary"].startswith("It holds 5 records")


def test_a_store_in_the_applications_file_is_rehearsed_without_a_trace(shell: Shell) -> None:
    shell.put(1, ENGINEER)
    before = (shell.folder / "app.db").read_bytes()
    checks = looked(shell, 0, VECTOR_URL=shell.variables["DATABASE_URL"])
    assert "in which the first sync creates the store's tables" in checks["store.file"]["summary"]
    assert "rolled back" in checks["store.rights"]["summary"]
    assert (shell.folder / "app.db").read_bytes() == before
    assert [path.name for path in shell.folder.iterdir()] == ["app.db"]


# --- the embedder -------------------------------------------------------------------------------


def test_an_unknown_embedder_is_a_problem(shell: Shell) -> None:
    checks = looked(shell, 2, UNDRIFT_EMBEDDER="hasing")
    assert checks["embedder.name"]["status"] == "problem"
    assert "UNDRIFT_EMBEDDER=hashing" in checks["embedder.name"]["fix"]


def test_an_embedder_that_does_not_load_stops_only_sync(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where undrift[local] is not installed: a check needs no vector."""
    shell.put(1, ENGINEER)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    ran = shell.undrift("doctor", "--output=json", UNDRIFT_EMBEDDER="local")
    found = checks_of(ran)["embedder.works"]
    assert (ran.code, found["status"]) == (2, "problem")
    assert "undrift[local]" in found["fix"]
    assert ran.document["summary"]["could_check"] is True
    assert shell.undrift("check", "--all", UNDRIFT_EMBEDDER="local").code == 1
    # Who only checks and searches can check, and is warned that no search runs.
    _, judged = judged_for_a_reader(shell, UNDRIFT_EMBEDDER="local")
    assert judged["embedder.works"]["status"] == "warning"
    assert judged["embedder.works"]["summary"].startswith("A check needs no embedder, a search")
    assert "undrift[local]" in judged["embedder.works"]["fix"]


def test_a_service_is_asked_only_where_that_is_wanted(shell: Shell) -> None:
    variables = {
        "UNDRIFT_EMBEDDER": "openai:text-embedding-3-small",
        "UNDRIFT_EMBEDDER__BASE_URL": "http://127.0.0.1:1/v1",
        "UNDRIFT_EMBEDDER__MAX_ATTEMPTS": "1",
        "OPENAI_API_KEY": "pl4nted-key",
    }
    quiet = looked(shell, 0, **variables)
    assert "--online" in quiet["embedder.online"]["summary"]
    assert "embedder.works" not in quiet  # nobody has seen it work
    ran = shell.undrift("doctor", "--online", "--output=json", **variables)
    assert ran.code == 3
    assert checks_of(ran)["embedder.works"]["status"] == "unknown"
    assert_clean(ran, "pl4nted-key")


def test_a_missing_driver_is_named_with_its_extra(shell: Shell) -> None:
    """In a process of its own, in which psycopg cannot be imported."""
    code = (
        "import sys\n"
        "class Blocked:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] == 'psycopg':\n"
        "            raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Blocked())\n"
        "import importlib.util\n"
        "found = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda n, *a: None if n == 'psycopg' else found(n, *a)\n"
        "from undrift.cli.app import main\n"
        "sys.exit(main(['doctor']))\n"
    )
    variables = {"DATABASE_URL": "postgresql://app@127.0.0.1:1/app"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=shell.folder,
        env={
            **os.environ,
            **shell.variables,
            **variables,
            "VECTOR_URL": "postgresql://app@127.0.0.1:1/app",
        },
    )
    assert done.returncode == 2, done.stderr
    assert done.stdout.count("Fix: pip install 'undrift[postgres]'") == 2
    assert "It embeds" in done.stdout


def test_a_template_that_is_not_valid_is_a_problem_of_the_configuration(shell: Shell) -> None:
    (shell.folder / "undrift.toml").write_text(
        "[[entity]]\nkind = 'note'\npath = 'notes[*]'\ntext = '{{ title'\n"
    )
    checks = looked(shell, 2)
    assert not_ok(checks) == {"configuration.mapping": "problem"}
