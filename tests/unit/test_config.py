"""Settings: the environment over `undrift.toml` over the defaults, and nothing is guessed."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from pathlib import Path

import pytest

from undrift.config import (
    EMBEDDED_STORE,
    Settings,
    load_settings,
    missing_source_url,
    missing_store_url,
)
from undrift.errors import ConfigError
from undrift.mapping import DocumentTable, default_entities

SECRET = "hunter2-hunter2"
POSTGRES = f"postgresql://app:{SECRET}@db.example/app"


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file is found but those that a test writes."""
    monkeypatch.chdir(tmp_path)


def settings(toml: str = "", **environ: str) -> Settings:
    """The settings of this file and this environment."""
    Path("undrift.toml").write_text(toml, encoding="utf-8")
    return load_settings(environ=environ)


def refusal(toml: str = "", environ: Mapping[str, str] | None = None) -> ConfigError:
    """The error that this file and this environment are refused with."""
    with pytest.raises(ConfigError) as caught:
        settings(toml, **(environ or {}))
    assert caught.value.fix
    return caught.value


# --- defaults ---------------------------------------------------------------------------------


def test_origins_layout_needs_no_configuration() -> None:
    """Without a file and without an environment it is the career assistant's."""
    found = load_settings(environ={})
    assert found.mapping.documents == DocumentTable(
        table="profiles", owner="user_id", document="filtered_data", where=""
    )
    assert found.mapping.entities == default_entities()
    assert (found.source_url, found.store_url, found.file) == (None, None, None)
    assert (found.namespace, found.keep_text, found.embedder) == ("default", True, "local")
    assert found.environment is None


def test_kinds_are_named_once_in_reading_order() -> None:
    """Projects are read from two places and are one kind."""
    kinds = load_settings(environ={}).mapping.kinds
    assert kinds == ("experience", "project", "project_update", "education", "skill")


def test_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else in undrift reads it."""
    monkeypatch.setenv("DATABASE_URL", "sqlite:///app.db")
    assert load_settings().source_url == "sqlite:///app.db"


@pytest.mark.parametrize(
    ("value", "expected"), [("test", "test"), ("production", None), ("", None)]
)
def test_test_environment_is_known(value: str, expected: str | None) -> None:
    """UNDRIFT_ENV=test switches healing off, any other value means nothing."""
    assert settings(UNDRIFT_ENV=value).environment == expected


# --- files ------------------------------------------------------------------------------------


def test_file_of_the_working_directory_is_read(tmp_path: Path) -> None:
    """`undrift.toml` is found by itself."""
    found = settings('[store]\nnamespace = "mine"')
    assert found.namespace == "mine"
    assert found.file is not None
    assert found.file.absolute() == tmp_path / "undrift.toml"


@pytest.mark.parametrize("how", ["argument", "variable", "both"])
def test_file_can_be_named(tmp_path: Path, how: str) -> None:
    """By --config or by UNDRIFT_CONFIG; the argument wins."""
    named = tmp_path / "other.toml"
    named.write_text('[store]\nnamespace = "named"')
    (tmp_path / "wrong.toml").write_text('[store]\nnamespace = "wrong"')
    variable = {"argument": "", "variable": str(named), "both": "wrong.toml"}[how]
    argument = None if how == "variable" else named
    found = load_settings(argument, environ={"UNDRIFT_CONFIG": variable} if variable else {})
    assert found.namespace == "named"


@pytest.mark.parametrize("environ", [{}, {"UNDRIFT_CONFIG": "nowhere.toml"}])
def test_named_file_must_exist(environ: dict[str, str]) -> None:
    """A misspelt path must not mean the defaults."""
    with pytest.raises(ConfigError, match=r"no file nowhere\.toml"):
        load_settings(None if environ else "nowhere.toml", environ=environ)


def test_folder_is_no_configuration_file(tmp_path: Path) -> None:
    """Nor does it end in a traceback."""
    with pytest.raises(ConfigError):
        load_settings(tmp_path, environ={})


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"[source\nurl=1", "line 1"), (b"[a]\n[a]", "line 2"), (b"\xff\xfe", "UTF-8")],
)
def test_malformed_file_says_where(content: bytes, reason: str) -> None:
    """The line is named where there is one."""
    Path("undrift.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"undrift\.toml is not valid TOML") as caught:
        load_settings(environ={})
    assert reason in caught.value.why


# --- precedence -------------------------------------------------------------------------------


def test_environment_beats_the_file() -> None:
    """DATABASE_URL, VECTOR_URL and UNDRIFT_EMBEDDER are the short names of three settings."""
    toml = '[source]\nurl="file"\n[store]\nurl="file"\n[embedder]\nname="file"'
    assert settings(toml).source_url == settings(toml).store_url == "file"
    found = settings(toml, DATABASE_URL="a", VECTOR_URL="b", UNDRIFT_EMBEDDER="c")
    assert (found.source_url, found.store_url, found.embedder) == ("a", "b", "c")


def test_empty_variable_is_none() -> None:
    """`DATABASE_URL= undrift check` does not hide the file."""
    assert settings('[source]\nurl="file"', DATABASE_URL="").source_url == "file"
    assert settings('[source]\nurl=""').source_url is None


def test_every_setting_has_a_variable() -> None:
    """UNDRIFT_<SECTION>__<KEY>, nested sections too."""
    found = settings(
        '[source.documents]\ntable="file"\nowner="kept"\n[store]\nnamespace="file"',
        UNDRIFT_SOURCE__URL="sqlite:///a.db",
        UNDRIFT_SOURCE__DOCUMENTS__TABLE="people",
        UNDRIFT_STORE__NAMESPACE="mine",
        UNDRIFT_STORE__KEEP_TEXT="false",
        UNDRIFT_EMBEDDER__NAME="hashing",
    )
    assert found.source_url == "sqlite:///a.db"
    assert found.mapping.documents == DocumentTable(table="people", owner="kept")
    assert (found.namespace, found.keep_text, found.embedder) == ("mine", False, "hashing")


def test_long_name_beats_the_short_one() -> None:
    """The more precise one was meant."""
    found = settings(
        DATABASE_URL="short",
        UNDRIFT_SOURCE__URL="long",
        UNDRIFT_EMBEDDER="short",
        UNDRIFT_EMBEDDER__NAME="long",
    )
    assert (found.source_url, found.embedder) == ("long", "long")


def test_command_lines_variables_are_not_settings() -> None:
    """UNDRIFT_OUTPUT and the like belong to options."""
    assert settings(UNDRIFT_OUTPUT="json", UNDRIFT_MAX_DELETE="5").namespace == "default"


def test_file_may_refer_to_a_variable() -> None:
    """`env:NAME` keeps the password out of the file."""
    found = settings(
        '[source]\nurl="env:MY_DB"\n[store]\nurl="env:MY_STORE"', MY_DB="a", MY_STORE="b"
    )
    assert (found.source_url, found.store_url) == ("a", "b")


def test_reference_to_another_variable_beats_the_short_name() -> None:
    """The file says which variable holds the source: DATABASE_URL may be another program's."""
    found = settings('[source]\nurl="env:MY_DB"', MY_DB="mine", DATABASE_URL="other")
    assert found.source_url == "mine"


def test_variable_may_refer_to_a_variable() -> None:
    """A long name takes a reference as the file does."""
    assert settings(UNDRIFT_SOURCE__URL="env:MY_DB", MY_DB="mine").source_url == "mine"


@pytest.mark.parametrize("environ", [{}, {"MY_DB": ""}])
def test_reference_to_nothing_is_refused(environ: dict[str, str]) -> None:
    """The variable and the setting are named."""
    error = refusal('[source]\nurl="env:MY_DB"', environ)
    assert error.what == "MY_DB is not set"
    assert "source.url" in error.why


def test_reference_to_an_unset_short_name_is_no_source() -> None:
    """What `undrift init` writes is valid before DATABASE_URL is set."""
    found = settings('[source]\nurl="env:DATABASE_URL"\n[store]\nurl="env:VECTOR_URL"')
    assert (found.source_url, found.store_url) == (None, None)


# --- the embedded store -----------------------------------------------------------------------


def test_store_of_a_file_lies_beside_the_configuration(tmp_path: Path) -> None:
    """A SQLite source needs no VECTOR_URL, wherever undrift is started."""
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "undrift.toml").write_text('[source]\nurl="sqlite:///app.db"')
    found = load_settings("app/undrift.toml", environ={})
    assert found.store_url == f"sqlite:///{folder / EMBEDDED_STORE}"
    assert not (folder / ".undrift").exists()


def test_store_of_a_file_without_a_configuration_lies_in_the_working_directory(
    tmp_path: Path,
) -> None:
    """There is no other place to put it."""
    found = load_settings(environ={"DATABASE_URL": "sqlite:////srv/app.db"})
    assert found.store_url == f"sqlite:///{tmp_path / EMBEDDED_STORE}"


def test_named_store_beats_the_embedded_one() -> None:
    """VECTOR_URL is always obeyed."""
    found = settings(DATABASE_URL="sqlite:///app.db", VECTOR_URL="sqlite:///v.db")
    assert found.store_url == "sqlite:///v.db"


def test_server_has_no_store_by_itself() -> None:
    """Undrift never guesses that the source may be written to."""
    assert settings(DATABASE_URL=POSTGRES).store_url is None


# --- unknown settings -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("toml", "unknown", "nearest"),
    [
        ("[sorce]", "sorce", "source"),
        ("[[entities]]", "entities", "entity"),
        ('[source]\nurll="x"', "source.urll", "url"),
        ('[source.document]\ntable="x"', "source.document", "documents"),
        ('[source.documents]\ntabel="x"', "source.documents.tabel", "table"),
        ('[[entity]]\nkind="skill"\ntxt="x"', "entity.0.txt", "text"),
        ('[store]\nname_space="x"', "store.name_space", "namespace"),
        ('[embedder]\nnam="x"', "embedder.nam", "name"),
    ],
)
def test_unknown_setting_is_refused_with_the_nearest_name(
    toml: str, unknown: str, nearest: str
) -> None:
    """At every level: a misspelt setting must not be a setting that is silently not made."""
    error = refusal(toml)
    assert repr(unknown) in error.what
    assert f"did you mean {nearest!r}" in error.why
    assert "undrift.toml" in error.why


def test_unknown_setting_that_resembles_none_lists_them_all() -> None:
    """So that one need not look them up."""
    assert "embedder, entity, heal, source, state, store" in refusal("[zzzzzzzz]").why


def test_unknown_variable_is_refused() -> None:
    """The environment is read as strictly as the file."""
    error = refusal(environ={"UNDRIFT_STORE__NAMESPAC": "x"})
    assert "store.namespac" in error.what
    assert "namespace" in error.why


@pytest.mark.parametrize(
    "variable", ["UNDRIFT_STORE__NAMESPAC", "UNDRIFT_STORE__KEEP_TEXT", "UNDRIFT_STOR__URL"]
)
def test_error_in_a_variable_is_not_blamed_on_the_file(variable: str) -> None:
    """Else one looks for it in the wrong place."""
    error = refusal('[store]\nnamespace="mine"', {variable: "perhaps"})
    assert variable in str(error)
    assert "undrift.toml holds" not in str(error)


# --- unusable values --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("toml", "setting"),
    [
        ('source = "x"', "source"),
        ("[source]\nurl = 5", "source.url"),
        ("[source]\ndocuments = 5", "source.documents"),
        ('entity = "x"', "entity"),
        ('[entity]\nkind = "x"', "entity"),
        ('[[entity]]\npath = "x"', "entity.0.kind"),
        ('[[entity]]\nkind = "a:b"', "entity.0.kind"),
        ('[[entity]]\nkind = ""', "entity.0.kind"),
        ('[[entity]]\nkind = "skill"\nkey = "name"', "entity.0.key"),
        ('[[entity]]\nkind = "skill"\nmetadata = [1]', "entity.0.metadata.0"),
        ('[[entity]]\nkind = "skill"\n[entity.aliases]\nname = "x"', "entity.0.aliases.name"),
        ('[store]\nnamespace = "a b"', "store.namespace"),
        ('[store]\nnamespace = "a:b"', "store.namespace"),
        ('[store]\nkeep_text = "perhaps"', "store.keep_text"),
    ],
)
def test_unusable_value_names_its_setting(toml: str, setting: str) -> None:
    """Nothing is converted that may have been meant otherwise."""
    assert refusal(toml).what == f"The setting {setting} is not usable"


# --- secrets ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("toml", "environ"),
    [
        (f'[source]\nurl = ["{POSTGRES}"]', {}),
        (f'[store]\nkeep_text = "{POSTGRES}"', {}),
        (f'[store]\nurll = "{POSTGRES}"', {}),
        (f'[store]\nurl = "{POSTGRES}', {}),
        (f'[[entity]]\nkind = "{POSTGRES}"\npath = "x"', {}),
        ("", {"UNDRIFT_STORE__URLL": POSTGRES}),
        ("", {"UNDRIFT_STORE__URL__MORE": POSTGRES}),
        ("[embedder]\nnam = 1", {"DATABASE_URL": POSTGRES, "VECTOR_URL": POSTGRES}),
    ],
)
def test_password_is_never_shown(toml: str, environ: dict[str, str]) -> None:
    """Neither in the message nor in the traceback that a program logs."""
    error = refusal(toml, environ)
    assert SECRET not in str(error)
    assert SECRET not in "".join(traceback.format_exception(error))


def test_settings_print_without_the_password() -> None:
    """A program may log its settings."""
    found = settings(DATABASE_URL=POSTGRES, VECTOR_URL=POSTGRES)
    assert SECRET not in repr(found)


def test_missing_urls_say_what_to_set() -> None:
    """The exact line, and where the vectors can live beside the source."""
    assert "export DATABASE_URL=" in missing_source_url().fix
    assert "VECTOR_URL=$DATABASE_URL" in missing_store_url(POSTGRES).fix
    assert "VECTOR_URL=$DATABASE_URL" in missing_store_url("postgres://h/d").fix
    assert "set VECTOR_URL" in missing_store_url(None).fix
    assert SECRET not in str(missing_store_url(POSTGRES))
