"""Where a page of documentation is run: a folder, an environment, and databases of its own.

``undrift`` and ``db-sync-vector`` run in this process, which is ten times quicker than starting
them; everything else a page shows runs in bash. What a page names is what there is: the server is
called ``db`` and the database ``app``, because libpq is told by PGHOSTADDR and PGPORT where to
find them.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, chdir, closing, contextmanager
from pathlib import Path
from unittest import mock
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql
from psycopg.rows import TupleRow

from support.closing import Closing
from support.postgres import PostgresServer
from undrift.cli import app, db_sync_vector

HOME = "/home/you/app"
"""What a page shows for the folder that it runs in."""

_MAINS = {"undrift": app.main, "db-sync-vector": db_sync_vector.main}
_SECONDS = 60
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
_SHELL_SIGNS = frozenset("|&;<>()")

# What differs from run to run, and what is shown for it.
_VOLATILE = (
    (re.compile(r"^bash: line \d+: +\d+ (Killed) +.*$", re.M), r"\1"),
    (re.compile(r'("duration_seconds": )\d+(\.\d+)?(e-\d+)?'), r"\g<1>0.02"),
    (re.compile(r"\d+(\.\d+)? ms$", re.M), "0.3 ms"),
    *(
        (re.compile(rf"\b{name} \d+(\.\d+)+"), f"{name} {version}")
        for name, version in {
            "Python": "3.13.5",
            "SQLite": "3.50.4",
            "PostgreSQL": "18.4",
            "pgvector": "0.8.5",
            "SQLAlchemy": "2.1.9",
            "psycopg": "3.3.9",
            "onnxruntime": "1.26.0",
            "openai": "3.54.0",
        }.items()
    ),
    (re.compile(r'"127\.0\.0\.1", port \d+'), '"10.0.0.5", port 5432'),
)


class World(Closing):
    """One folder, one environment, one database.

    Args:
        folder: empty; a page calls it `HOME`.
        server: where the database is, for a page on PostgreSQL.
        roles: whom the page creates; dropped before and after.

    Attributes:
        variables: the environment of everything that is run.
        code: the exit code of the last command.
        unseen: what the last command wrote to standard error, where that was left out.
        names: what the page's Python blocks have defined.
    """

    def __init__(
        self, folder: Path, server: PostgresServer | None = None, roles: Sequence[str] = ()
    ) -> None:
        self.folder = folder.resolve()
        self.code = 0
        self.unseen = ""
        self.names: dict[str, object] = {"__name__": "__main__"}
        self._server = server
        self._roles = roles
        self._closing = ExitStack()
        programs = Path(sys.executable).parent
        self.variables = {
            "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "HOME": str(self.folder),
            "LANG": "C.UTF-8",
            "PYTHONIOENCODING": "utf-8",
            "COLUMNS": "80",
            "TZ": "UTC",
        }
        self.superuser = ""
        if server is not None:
            self._create_database(server)

    def _create_database(self, server: PostgresServer) -> None:
        self._drop_roles()
        url = server.create_database()
        parts = urlsplit(url)
        self.superuser = urlunsplit(parts._replace(path="/app"))
        self._closing.callback(self._drop_roles)
        self._closing.callback(server.drop_database, self.superuser)
        self._closing.callback(server.start)
        self._administer(
            sql.SQL("ALTER DATABASE {} RENAME TO app").format(sql.Identifier(parts.path[1:]))
        )
        self.variables |= {"PGHOSTADDR": "127.0.0.1", "PGPORT": str(server.port)}

    def _administer(self, statement: sql.Composed) -> None:
        assert self._server is not None
        with psycopg.connect(self._server.admin_url, autocommit=True) as connection:
            connection.execute(statement)

    def _drop_roles(self) -> None:
        for role in self._roles:
            self._administer(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(role)))

    def close(self) -> None:
        """Drop what belongs to the server."""
        self._closing.close()

    def obey(self, order: str) -> None:
        """``stop`` or ``start`` the server."""
        assert self._server is not None
        getattr(self._server, order)()

    # --- commands -----------------------------------------------------------------------------

    def run(self, line: str, *, answers_only: bool = False) -> str:
        """Run a command line and return what a terminal shows of it.

        Args:
            answers_only: leave out what goes to standard error.
        """
        line = self.as_meant(line)
        self.unseen = ""
        words = self._own_words(line)
        head, bar, rest = line.partition(" | ")
        if words is not None:
            seen = self._in_process(words)
            shown = seen.answer if answers_only else seen.everything
        elif bar and (words := self._own_words(head)) is not None:
            seen = self._in_process(words)
            shown = "" if answers_only else "".join(seen.err.written)
            shown += self._in_bash(rest, answers_only=answers_only, stdin=seen.answer)
        else:
            shown = self._in_bash(line, answers_only=answers_only)
        return self.as_shown(shown)

    def as_meant(self, text: str) -> str:
        """*text* of a page with the folder that it runs in."""
        return text.replace(HOME, str(self.folder))

    def as_shown(self, text: str) -> str:
        """*text* without what differs from run to run."""
        text = text.replace(str(self.folder), HOME)
        for pattern, shown in _VOLATILE:
            text = pattern.sub(shown, text)
        return text

    def _own_words(self, line: str) -> list[str] | None:
        """The words of a line that is nothing but a call of a program of ours, or None.

        Variables for this call alone may come first, as in ``NAME=value undrift check``.
        """
        line = line.replace("\\\n", " ")
        splitter = shlex.shlex(line, posix=True, punctuation_chars=True)
        splitter.whitespace_split = True
        words = list(splitter)
        called = next((word for word in words if not _ASSIGNMENT.match(word)), "")
        if called not in _MAINS or any(set(word) <= _SHELL_SIGNS for word in words):
            return None
        expanded = subprocess.run(
            ["bash", "-c", f"printf '%s\\0' {line}"],
            env=self.variables,
            cwd=self.folder,
            capture_output=True,
            check=True,
            timeout=_SECONDS,
        )
        return expanded.stdout.decode().split("\0")[:-1]

    def _in_process(self, words: Sequence[str]) -> _Seen:
        at = next(at for at, word in enumerate(words) if not _ASSIGNMENT.match(word))
        variables = dict(word.split("=", 1) for word in words[:at])
        with self._inside(variables) as seen:
            self.code = _MAINS[words[at]](words[at + 1 :])
        self.unseen = "".join(seen.err.written)
        return seen

    def _in_bash(self, line: str, *, answers_only: bool, stdin: str = "") -> str:
        # The exit code of the command before, for `echo $?`; the environment afterwards, for
        # `export`.
        environment = self.folder.parent / "environment"
        script = f'(exit {self.code})\n{line}\ncode=$?; env -0 > "{environment}"; exit $code'
        ended = subprocess.run(
            ["bash", "-c", script],
            env=self.variables,
            cwd=self.folder,
            input=stdin.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if answers_only else subprocess.STDOUT,
            check=False,
            timeout=_SECONDS,
        )
        self.code = ended.returncode
        self.unseen += (ended.stderr or b"").decode()
        if environment.exists():
            pairs = environment.read_bytes().decode().split("\0")[:-1]
            found = dict(pair.split("=", 1) for pair in pairs)
            own = {"_", "SHLVL", "PWD", "OLDPWD"}
            self.variables = {name: found[name] for name in found.keys() - own}
        return ended.stdout.decode()

    @contextmanager
    def _inside(self, variables: Mapping[str, str] | None = None) -> Iterator[_Seen]:
        """Be a process in this folder with this environment and *variables*."""
        environment = {**self.variables, **(variables or {})}
        seen = _Seen()
        with (
            chdir(self.folder),
            mock.patch.dict(os.environ, environment, clear=True),
            mock.patch.multiple(
                sys, stdout=seen.out, stderr=seen.err, stdin=io.TextIOWrapper(io.BytesIO())
            ),
        ):
            yield seen

    # --- Python and SQL -----------------------------------------------------------------------

    def run_python(self, code: str, *, name: str) -> str:
        """Run *code* as a program would be and return what it prints.

        Args:
            name: where it stands, for a traceback.
        """
        with self._inside() as seen:
            exec(compile(self.as_meant(code), name, "exec"), self.names)
        return self.as_shown(seen.everything)

    def run_sql(self, statements: str, *, role: str = "") -> str:
        """Run *statements* and return the rows of the last one, as a table.

        Args:
            role: whom they are run as; empty for the superuser, and on SQLite.
        """
        if self._server is None:
            with closing(sqlite3.connect(self.folder / "app.db")) as file, file:
                cursor = None
                for statement in _statements(statements):
                    cursor = file.execute(statement)
                assert cursor is not None
                names = [column[0] for column in cursor.description or ()]
                return _table(names, cursor.fetchall())
        with psycopg.connect(self.superuser, autocommit=True) as connection:
            if role:
                authorise = sql.SQL("SET SESSION AUTHORIZATION {}").format(sql.Identifier(role))
                connection.execute(authorise)
            result = _execute_all(connection, statements)
            names = [column.name for column in result.description or ()]
            return _table(names, result.fetchall() if names else [])


class _Seen:
    """What a process in here writes, as a terminal shows it, and standard output alone."""

    def __init__(self) -> None:
        self.out = _Stream()
        self.err = _Stream(self.out.shown)

    @property
    def answer(self) -> str:
        """What was written to standard output."""
        return "".join(self.out.written)

    @property
    def everything(self) -> str:
        """What was written to either stream, in its order."""
        return "".join(self.out.shown)


class _Stream(io.TextIOWrapper):
    """A text stream that is no terminal, and remembers.

    Args:
        shown: what another stream shares with it.
    """

    def __init__(self, shown: list[str] | None = None) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8")
        self.written: list[str] = []
        self.shown = [] if shown is None else shown

    def write(self, text: str) -> int:
        """Remember *text*, and refuse bytes, by which a writer may try what the stream is for."""
        if not isinstance(text, str):
            raise TypeError("a text stream takes text")
        self.written.append(text)
        self.shown.append(text)
        return len(text)


def _execute_all(connection: psycopg.Connection[TupleRow], text: str) -> psycopg.Cursor[TupleRow]:
    # One at a time: CREATE INDEX CONCURRENTLY refuses company.
    cursor = connection.cursor()
    for statement in _statements(text):
        cursor.execute(statement.encode())
    return cursor


def _statements(text: str) -> Iterator[str]:
    """Split where a line ends with a semicolon, unless that is inside quotes."""
    statement = ""
    for line in text.splitlines(keepends=True):
        statement += line
        code = re.sub(r"--.*", "", statement)
        is_open = code.count("'") % 2 or code.count("$$") % 2
        if code.rstrip().endswith(";") and not is_open:
            yield statement
            statement = ""
    if statement.strip():
        raise AssertionError(f"a statement does not end with a semicolon: {statement.strip()!r}")


def _table(names: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Rows as psql prints them, without their count; empty where there are no columns."""
    if not names:
        return ""
    texts = [["" if value is None else str(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(names, *texts, strict=True)]
    rule = "-+-".join("-" * width for width in widths)
    padded = [
        " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in (names, *texts)
    ]
    return "".join([f" {padded[0]}\n", f"-{rule}-\n", *(f" {row}\n" for row in padded[1:])])
