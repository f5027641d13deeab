"""``undrift triggers``: what it prints, its exit codes, and what it leaves in the source."""

from __future__ import annotations

import pytest

from support.cli import Shell, experiences
from support.postgres import PostgresServer, with_login


def test_status_install_status_remove(any_shell: Shell) -> None:
    """Exit 1 while changes leave no mark, 0 when all do; the marks are counted."""
    before = any_shell.undrift("triggers", "status")
    assert before.code == 1
    assert before.out.startswith("🔍 Change capture of ")
    assert "  - State: not installed\n" in before.out
    installed = any_shell.undrift("triggers", "install")
    assert (installed.code, installed.errors) == (0, [])
    assert "  - State: installed\n  - Tables: profiles\n  - Marks: 1, the oldest " in installed.out
    any_shell.put(1, experiences("exp_1"))
    any_shell.put(2, experiences("exp_1"))
    after = any_shell.undrift("triggers", "status")
    assert after.code == 0
    assert "  - Marks: 3, the oldest " in after.out
    assert "  - Cannot see: " in after.out
    removed = any_shell.undrift("triggers", "remove")
    assert removed.code == 0
    assert "is removed" in removed.out
    assert any_shell.undrift("triggers", "status").code == 1


def test_what_is_missing_is_named_and_the_next_installation_mends_it(
    postgres_shell: Shell,
) -> None:
    """Exit 1, so that cron and CI notice it."""
    postgres_shell.undrift("triggers", "install")
    postgres_shell.source.run("ALTER TABLE profiles DISABLE TRIGGER USER")
    status = postgres_shell.undrift("triggers", "status")
    assert status.code == 1
    assert "  - State: incomplete\n" in status.out
    problem = "public.profiles: triggers for insert, update, delete, truncate are disabled"
    assert f"  - Problem: {problem}\n" in status.out
    assert "`undrift triggers install` puts in what is missing" in status.out
    document = postgres_shell.undrift("triggers", "status", "--output=json").document
    assert (document["state"], document["problems"]) == ("incomplete", [problem])
    assert postgres_shell.undrift("triggers", "install").code == 0


def test_statements_are_printed_and_none_is_run(any_shell: Shell) -> None:
    """For a DBA; what is printed for the removal fits what is there."""
    printed = any_shell.undrift("triggers", "install", "--sql")
    assert printed.code == 0
    assert "CREATE TABLE" in printed.out
    assert printed.out.count("TRIGGER ") >= 4
    assert printed.out.endswith(";\n")
    assert any_shell.undrift("triggers", "status").code == 1
    assert any_shell.undrift("triggers", "remove", "--sql").out == ""
    any_shell.undrift("triggers", "install")
    document = any_shell.undrift("triggers", "remove", "--sql", "--output=json").document
    assert document["sql"][-1].startswith("DROP TABLE")


def test_notifying_triggers_say_so(postgres_shell: Shell, shell: Shell) -> None:
    """On PostgreSQL; a file cannot."""
    ran = postgres_shell.undrift("triggers", "install", "--notify")
    assert ran.code == 0
    assert "  - Wakes workers: yes\n" in ran.out
    what, _, fix = shell.undrift("triggers", "install", "--notify").error
    assert what == "SQLite cannot notify"
    assert "leave --notify out" in fix


def test_view_is_refused_with_what_to_do_instead(any_shell: Shell) -> None:
    """Exit 2, and nothing is written."""
    any_shell.source.run("ALTER TABLE profiles RENAME TO hidden")
    any_shell.source.run("CREATE VIEW profiles AS SELECT * FROM hidden")
    ran = any_shell.undrift("triggers", "install")
    what, why, fix = ran.error
    assert ran.code == 2
    assert what == "No mapped table can have triggers"
    assert "profiles is a view" in why
    assert "undrift sync --all" in fix
    status = any_shell.undrift("triggers", "status", "--output=json")
    assert status.code == 1
    assert "profiles is a view" in status.document["not_captured"][0]


def test_busy_table_is_an_error_after_the_time_that_was_given(postgres_shell: Shell) -> None:
    """Exit 3: try again in a quiet hour."""
    with postgres_shell.source.connection() as application:
        application.exec_driver_sql("LOCK TABLE profiles IN ROW EXCLUSIVE MODE")
        ran = postgres_shell.undrift("triggers", "install", "--lock-timeout", "0.05")
    assert ran.code == 3
    assert "profiles was not free within 0.05 s" in ran.error[1]


def test_role_without_the_trigger_right_is_told_what_to_grant(
    postgres_shell: Shell, postgres_server: PostgresServer
) -> None:
    """Exit 2; what is printed by --sql is what somebody else may run."""
    postgres_server.create_role("trigger_poor", "secret")
    postgres_shell.source.run("GRANT SELECT ON profiles TO trigger_poor")
    url = with_login(postgres_shell.variables["DATABASE_URL"], "trigger_poor", "secret")
    ran = postgres_shell.undrift("triggers", "install", DATABASE_URL=url)
    assert ran.code == 2
    assert "GRANT TRIGGER" in ran.error[2]
    printed = postgres_shell.undrift(
        "triggers", "install", "--sql", "--output=json", DATABASE_URL=url
    )
    for statement in printed.document["sql"]:
        postgres_shell.source.run(statement.replace(":", "\\:"))
    assert postgres_shell.undrift("triggers", "status", DATABASE_URL=url).code == 0
    ran = postgres_shell.undrift("triggers", "remove", DATABASE_URL=url)
    assert ran.code == 2
    assert "run it as the role that installed them" in ran.error[2]


def test_verbose_tells_every_statement(any_shell: Shell) -> None:
    """On stderr; the answer stays the answer."""
    ran = any_shell.undrift("triggers", "install", "-v")
    assert ran.err.count("ran: ") >= 5
    assert "ran: " not in ran.out


@pytest.mark.parametrize("arguments", [["install", "--lock-timeout=0"], ["mend"], []])
def test_wrong_use_is_an_error(shell: Shell, arguments: list[str]) -> None:
    """Exit 2, three parts."""
    ran = shell.undrift("triggers", *arguments)
    assert ran.code == 2
    assert ran.errors
