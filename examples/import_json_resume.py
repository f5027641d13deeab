"""Fill a `profiles` table from a folder of JSON Resume files.

    python examples/import_json_resume.py FOLDER [--database-url URL] [--one-owner ID]

Every `*.json` in FOLDER that is a JSON Resume 1.x file becomes one row of
`profiles(user_id, filtered_data)`, which undrift reads with no configuration at all. User ids
count the imported files from 1, in file-name order. Whatever is no JSON Resume is skipped and
named on stderr.

The rows are upserted in one transaction: running it twice leaves the same rows, and a crash
leaves the old ones. No row is deleted: after files were removed from FOLDER, the rows with the
highest user ids are left over from the earlier run.

JSON Resume gives its entries no ids, and none are minted here: undrift derives them from natural
keys such as (company, title, start).

Exit codes: 0 something was imported; 1 nothing was; 2 usage, or the database refused.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from sqlalchemy import (
    BigInteger,
    Column,
    Dialect,
    Engine,
    Integer,
    MetaData,
    Table,
    Text,
    create_engine,
    make_url,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.types import TypeDecorator, TypeEngine

Object: TypeAlias = Mapping[str, object]
Entry: TypeAlias = dict[str, str | list[str]]
Profile: TypeAlias = dict[str, list[Entry]]

RESUME_SECTIONS = ("basics", "work", "volunteer", "education", "projects", "skills")
MAX_USER_ID = 2**63 - 1  # BIGINT

# PostgreSQL's JSONB refuses NUL and lone surrogates, and JSON's \u escapes can spell both.
UNSTORABLE = re.compile("[\0\ud800-\udfff]")


class JsonDocument(TypeDecorator[Profile]):
    """A JSON document: JSONB on PostgreSQL, TEXT elsewhere.

    SQLAlchemy's own JSON type would declare the SQLite column as `JSON`, whose affinity is
    numeric; a document belongs in a TEXT column.
    """

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        is_postgresql = dialect.name == "postgresql"
        return dialect.type_descriptor(postgresql.JSONB() if is_postgresql else Text())

    def process_bind_param(self, value: Profile | None, dialect: Dialect) -> Profile | str | None:
        if dialect.name == "postgresql":
            return value  # JSONB serialises by itself
        return json.dumps(value, ensure_ascii=False)


profiles = Table(
    "profiles",
    MetaData(),
    Column(
        "user_id",
        BigInteger().with_variant(Integer(), "sqlite"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("filtered_data", JsonDocument(), nullable=False),
)


class NotAJsonResumeError(Exception):
    """The file is not a JSON Resume; the message says why, in one line."""


class UsageError(Exception):
    """The command cannot start; the message says what to change."""


# -- reading -------------------------------------------------------------------------------------


def read_resume(path: Path) -> Object:
    """Return the JSON Resume in *path*.

    Raises:
        NotAJsonResumeError: it cannot be read, is not JSON, or is in another format.
    """
    try:
        document: object = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as exc:
        raise NotAJsonResumeError(f"cannot be read ({exc.strerror or exc})") from exc
    except UnicodeDecodeError as exc:
        raise NotAJsonResumeError("not UTF-8 text") from exc
    except (ValueError, RecursionError) as exc:
        raise NotAJsonResumeError(f"not JSON ({exc})") from exc
    if not isinstance(document, dict):
        raise NotAJsonResumeError("not a JSON object")
    if is_fresh(document):
        raise NotAJsonResumeError("a FRESH resume, not a JSON Resume")
    if not any(section in document for section in RESUME_SECTIONS):
        raise NotAJsonResumeError(f"has none of the sections {', '.join(RESUME_SECTIONS)}")
    return document


def is_fresh(document: Object) -> bool:
    """Whether *document* is in the other resume format, whose sections have the same names."""
    meta = document.get("meta")
    declared = meta.get("format") if isinstance(meta, dict) else None
    # Not every FRESH file declares its format; `employment` is what JSON Resume never has.
    return "employment" in document or str(declared).upper().startswith("FRESH")


def text_of(value: object) -> str:
    """Return *value* as clean text; null, a list and anything else without one text is ''."""
    if isinstance(value, dict):
        value = value.get("name")
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    return UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", str(value)).strip()


def list_of(value: object) -> list[object]:
    """Return *value* as a list: null is empty, anything but a list stands for its only element."""
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]


def texts_of(value: object) -> list[str]:
    """Return the texts in *value* that are not blank."""
    return [text for element in list_of(value) if (text := text_of(element))]


def first_text(entry: Object, *names: str) -> str:
    """Return the first field of *entry* among *names* that is not blank, or ''."""
    return next((text for name in names if (text := text_of(entry.get(name)))), "")


# -- mapping -------------------------------------------------------------------------------------


def profile_of(resume: Object) -> Profile:
    """Return the profile document that *resume* describes."""
    work = [*list_of(resume.get("work")), *list_of(resume.get("volunteer"))]
    return {
        "experiences": entries(work, experience_of, bare="position"),
        "projects": entries(resume.get("projects"), project_of, bare="name"),
        "education": entries(resume.get("education"), education_of, bare="institution"),
        "skills": entries(resume.get("skills"), skill_of, bare="name"),
    }


def entries(section: object, entry_of: Callable[[Object], Entry], *, bare: str) -> list[Entry]:
    """Return *section* mapped by *entry_of*, without the blank entries that templates leave.

    An element that is no object, as skills often are, is taken for its field *bare*.
    """
    elements = (e if isinstance(e, dict) else {bare: e} for e in list_of(section))
    return [entry for element in elements if (entry := entry_of(element))]


def experience_of(entry: Object) -> Entry:
    """Return the experience for one element of `work` or `volunteer`."""
    return without_blanks(
        title=first_text(entry, "position"),
        company=first_text(entry, "name", "company", "organization"),  # `company` until 2019
        start=first_text(entry, "startDate"),
        end=first_text(entry, "endDate"),
        # `description` of a work entry is about the employer, so it is left out.
        description=described(entry, "summary"),
    )


def project_of(entry: Object) -> Entry:
    """Return the project for one element of `projects`."""
    return without_blanks(
        title=first_text(entry, "name"),
        description=described(entry, "description", "summary"),
        technologies=texts_of(entry.get("keywords")),
        role=", ".join(texts_of(entry.get("roles"))),
        start=first_text(entry, "startDate"),
        end=first_text(entry, "endDate"),
    )


def education_of(entry: Object) -> Entry:
    """Return the education for one element of `education`."""
    return without_blanks(
        school=first_text(entry, "institution"),
        degree=first_text(entry, "studyType"),
        field=first_text(entry, "area"),
        start=first_text(entry, "startDate"),
        end=first_text(entry, "endDate"),
        description=described(entry, "summary"),
        courses=texts_of(entry.get("courses")),
    )


def skill_of(entry: Object) -> Entry:
    """Return the skill for one element of `skills`."""
    return without_blanks(
        name=first_text(entry, "name"),
        level=first_text(entry, "level"),
        keywords=texts_of(entry.get("keywords")),
    )


def described(entry: Object, *names: str) -> str:
    """Return the fields *names* of *entry* and then its highlights, one a line, none twice."""
    lines = [line for name in (*names, "highlights") for line in texts_of(entry.get(name))]
    return "\n".join(dict.fromkeys(lines))


def without_blanks(**fields: str | list[str]) -> Entry:
    """Return *fields* without the empty ones: a missing `end` is how "to the present" is said."""
    return {name: value for name, value in fields.items() if value}


# -- importing -----------------------------------------------------------------------------------


def read_folder(folder: Path) -> tuple[list[Profile], int]:
    """Return the profiles in *folder*, in file-name order, and the number of files skipped.

    Each skipped file is named on stderr with the reason.
    """
    found: list[Profile] = []
    skipped = 0
    for path in sorted(folder.glob("*.json"), key=lambda path: path.name):
        try:
            found.append(profile_of(read_resume(path)))
        except NotAJsonResumeError as exc:
            skipped += 1
            print(f"skipped {path.name}: {exc}", file=sys.stderr)
    return found, skipped


def rows_of(found: Sequence[Profile], one_owner: int | None) -> dict[int, Profile]:
    """Return user id → profile: numbered from 1, or everything under *one_owner*."""
    if one_owner is None:
        return dict(enumerate(found, start=1))
    sections = found[0]
    return {one_owner: {name: [e for profile in found for e in profile[name]] for name in sections}}


def upsert(engine: Engine, rows: Mapping[int, Profile]) -> None:
    """Write *rows* (user id → profile) in one transaction, creating the table if need be.

    Safety: idempotent; a crash leaves the table as it was.
    """
    insert_into = postgresql.insert if engine.dialect.name == "postgresql" else sqlite.insert
    insert = insert_into(profiles)
    statement = insert.on_conflict_do_update(
        index_elements=[profiles.c.user_id],
        set_={"filtered_data": insert.excluded.filtered_data},
    )
    with engine.begin() as connection:
        profiles.create(connection, checkfirst=True)
        connection.execute(
            statement,
            [{"user_id": owner, "filtered_data": profile} for owner, profile in rows.items()],
        )


def open_database(database_url: str | None) -> Engine:
    """Return an engine for *database_url*; nothing is connected yet.

    Raises:
        UsageError: there is no URL, or it is not one of PostgreSQL or SQLite.
    """
    if not database_url:
        raise UsageError("no database: set DATABASE_URL or pass --database-url")
    try:
        url = make_url(database_url)
        if url.drivername in {"postgres", "postgresql"}:
            url = url.set(drivername="postgresql+psycopg")
        if url.get_backend_name() not in {"postgresql", "sqlite"}:
            raise UsageError(f"{url.drivername} is neither PostgreSQL nor SQLite")
        return create_engine(url, hide_parameters=True)  # errors must not quote resumes
    except (ArgumentError, ValueError) as exc:  # a bad port is a plain ValueError
        # The URL is not repeated: it may hold a password.
        raise UsageError("the URL is malformed; write postgresql://… or sqlite:///…") from exc
    except ModuleNotFoundError as exc:
        raise UsageError(f"the database driver {exc.name} is not installed") from exc


# -- command line --------------------------------------------------------------------------------


def user_id(argument: str) -> int:
    """Return *argument* as a user id."""
    number = int(argument)
    if not 1 <= number <= MAX_USER_ID:
        raise ValueError(argument)
    return number


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the parsed command line; a bad one exits with 2."""
    parser = argparse.ArgumentParser(
        description="Fill a profiles table from a folder of JSON Resume files."
    )
    parser.add_argument("folder", type=Path, help="folder with *.json files")
    parser.add_argument(
        "--database-url",
        metavar="URL",
        default=os.environ.get("DATABASE_URL"),
        help="postgresql://… or sqlite:///… (default: $DATABASE_URL)",
    )
    parser.add_argument(
        "--one-owner",
        metavar="ID",
        type=user_id,
        help="put the entries of all files under this one user id",
    )
    return parser.parse_args(arguments)


def run(folder: Path, database_url: str | None, one_owner: int | None) -> int:
    """Import *folder* and return the exit code."""
    if not folder.is_dir():
        raise UsageError(f"no such folder: {folder}")
    engine = open_database(database_url)
    found, skipped = read_folder(folder)
    if found:
        try:
            upsert(engine, rows_of(found, one_owner))
        finally:
            engine.dispose()
    print(f"imported {len(found)}, skipped {skipped}")
    return 0 if found else 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = parse(arguments)
    try:
        return run(options.folder, options.database_url, options.one_owner)
    except UsageError as exc:
        print(f"error: {exc}", file=sys.stderr)
    except SQLAlchemyError as exc:
        reason = exc.orig if isinstance(exc, DBAPIError) else exc
        print(f"error: the database refused: {reason}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
