"""The reference names what there is: every setting, variable, option, key, exit code and error."""

from __future__ import annotations

import json
import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any, get_args

import pytest
import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

import undrift
from support.cli import Document, Shell, experiences
from support.doc_pages import ROOT, read_page
from support.doc_tables import code, tables_of
from support.foreign import Foreign, fill
from support.watching import state_table, until, watching
from undrift import config, errors
from undrift.cli import app, exit_codes
from undrift.model import Outcome

SOURCES = ROOT / "src" / "undrift"

# --- configuration ------------------------------------------------------------------------------

TYPES: dict[object, str] = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    list[str]: "list of strings",
    dict[str, list[str]]: "table of lists",
    dict[str, str]: "table of strings",
}


def sections(model: type[BaseModel], name: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """Every section of the configuration file, as the page calls it."""
    if name:
        yield name, model
    for key, field in model.model_fields.items():
        path = f"{name.strip('[]')}.{key}".lstrip(".")
        for part in (field.annotation, *get_args(field.annotation)):
            is_section = isinstance(part, type) and issubclass(part, BaseModel)
            if is_section and part is not config.sections.ConstantSection:
                is_list = "list" in str(field.annotation)
                yield from sections(part, f"[[{path}]]" if is_list else f"[{path}]")


def settings_of(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The section's own settings, without the sections inside it."""
    return {
        key: field
        for key, field in model.model_fields.items()
        if key not in {name.strip("[]").split(".")[-1] for name, _ in sections(model)}
    }


def type_of(field: FieldInfo) -> str:
    """A setting's type as the page calls it."""
    parts = get_args(field.annotation)
    if config.sections.ConstantSection in parts:
        return "path"
    kind: Any = parts[0] if type(None) in parts else field.annotation
    return TYPES[kind]


def default_of(field: FieldInfo) -> str:
    """A setting's default as one writes it in TOML; empty if there is none."""
    if field.is_required() or field.default is None:
        return ""
    return json.dumps(field.default)


def test_every_section_of_the_configuration_is_described() -> None:
    """None is missing, none is invented."""
    described = [heading for heading in tables_of("reference/configuration.md") if "[" in heading]
    assert sorted(described) == sorted(name for name, _ in sections(config.sections.File))


@pytest.mark.parametrize(
    ("name", "model"),
    [*sections(config.sections.File)],
    ids=[name for name, _ in sections(config.sections.File)],
)
def test_every_setting_has_its_type_and_default(name: str, model: type[BaseModel]) -> None:
    """As the code that reads the file has them."""
    rows = tables_of("reference/configuration.md")[name]
    described = {code(row["key"]): (row["type"], code(row["default"])) for row in rows}
    assert described == {
        key: (type_of(field), default_of(field)) for key, field in settings_of(model).items()
    }


def commands() -> Iterator[tuple[str, Any]]:
    """Every command of ``undrift`` by its whole name, those inside others too."""
    waiting: list[tuple[str, Any]] = [("undrift", typer.main.get_command(app.app))]
    for name, command in waiting:
        yield name, command
        for each, inner in getattr(command, "commands", {}).items():
            waiting.append((f"{name} {each}", inner))


def options_by_variable() -> dict[str, str]:
    """Each variable and its option, from the help of every command."""
    found: dict[str, str] = {}
    for _, command in commands():
        for parameter in command.params:
            named = re.search(r"\[env var: (UNDRIFT_\w+)", getattr(parameter, "help", "") or "")
            variable = parameter.envvar or (named and named[1])
            if variable and variable not in config.layers.SHORT_NAMES:
                found[variable] = parameter.opts[0]
    return found


def test_every_option_has_its_variable_described() -> None:
    """The page's second table of variables."""
    rows = tables_of("reference/configuration.md")["Environment variables"]
    described = {code(row["variable"]): code(row["option"]) for row in rows if "option" in row}
    there_are = options_by_variable()
    there_are.pop("UNDRIFT_CONFIG")  # in the first table
    assert described == there_are


def test_every_variable_that_the_code_reads_is_described() -> None:
    """Whatever looks like one in the source is on the page."""
    text = "".join(path.read_text() for path in SOURCES.rglob("*.py"))
    names = set(re.findall(r"\bUNDRIFT_[A-Z]+(?:_[A-Z]+)*\b(?!_)", text))
    names |= {*config.layers.SHORT_NAMES, *re.findall(r"\"(OPENAI_[A-Z_]+|NO_COLOR)\"", text)}
    rows = tables_of("reference/configuration.md")["Environment variables"]
    assert names == {code(row["variable"]) for row in rows} - {"UNDRIFT_<SECTION>__<KEY>"}


def test_every_configuration_error_is_listed() -> None:
    """By the words that its message has of its own."""
    page = (ROOT / "docs/reference/configuration.md").read_text()
    text = "".join(path.read_text() for path in (SOURCES / "config").glob("*.py"))
    messages = re.findall(r"ConfigError\(\s*f?\"([^\"]+)\"", text)
    assert len(messages) > 10
    for message in messages:
        fixed = max(re.split(r"\{[^}]*\}", message), key=len).strip(" '")
        listed = fixed in page or fixed == "No vector store is named"
        assert listed, message


# --- commands -----------------------------------------------------------------------------------


def test_every_command_shows_its_help() -> None:
    """The page itself is run, so what it shows is what the command prints."""
    page = read_page(ROOT / "docs/reference/cli.md")
    shown = {line for block in page.blocks for line in block.text.splitlines() if line[:2] == "$ "}
    expected = {f"$ {name} --help" for name, _ in commands()}
    assert expected | {"$ db-sync-vector --help"} == shown


def test_a_variable_is_called_like_its_option() -> None:
    """So that the table of variables surprises nobody."""
    for variable, option in options_by_variable().items():
        assert variable == "UNDRIFT_" + option.strip("-").upper().replace("-", "_")


def test_every_exit_code_is_listed() -> None:
    """And none that no command gives."""
    rows = tables_of("reference/exit-codes.md")["Exit codes"]
    names = [name for name in vars(exit_codes) if name.isupper() and not name.startswith("_")]
    assert [int(row["code"]) for row in rows] == sorted(getattr(exit_codes, n) for n in names)
    order = ", ".join(map(str, exit_codes._STRONGEST_FIRST))
    text = " ".join((ROOT / "docs/reference/exit-codes.md").read_text().split())
    assert f"wins: {order}." in text


# --- Python -------------------------------------------------------------------------------------


def test_every_public_name_is_described() -> None:
    """Errors by their module, everything else by name."""
    page = (ROOT / "docs/reference/python.md").read_text()
    described = set(re.findall(r"auto(?:class|function):: undrift\.(\w+)$", page, re.M))
    named = {name for name in undrift.__all__ if not hasattr(errors, name)} - {"__version__"}
    assert described == named
    assert "automodule:: undrift.errors" in page


# --- JSON ---------------------------------------------------------------------------------------

OBJECTS = {
    "The document": "document",
    "An owner": "owner",
    "The summary": "summary",
    "A cost": "cost",
    "An error object": "error",
    "The search document": "search",
    "A hit": "hit",
    "The doctor's document": "doctor",
    "A finding": "finding",
    "The doctor's summary": "doctor summary",
    "The document of init": "init",
    "A proposal": "proposal",
    "A collection": "collection",
    "An example": "example",
    "The document of triggers": "triggers",
    "The document of status": "status",
    "A parked record": "parked record",
    "A worker": "worker",
    "The deletes": "deletes",
    "The changes": "changes",
    "The document of state": "state",
    "A standing": "standing",
    "A claim": "claim",
    "The document of index": "index document",
    "An index": "index",
}
STATE_OBJECTS = {
    "status",
    "parked record",
    "worker",
    "deletes",
    "changes",
    "state",
    "standing",
    "claim",
}
"""Those of the commands about the state, which have a test of their own."""

SIMPLE = {"string": str, "boolean": bool, "integer": int, "object": dict}


class Schema:
    """The tables of the page, and which of their keys were seen."""

    def __init__(self) -> None:
        tables = tables_of("reference/json.md")
        self.keys = {
            name: {code(row["key"]): (row["type"], row["when"]) for row in tables[heading]}
            for heading, name in OBJECTS.items()
        }
        self.seen: Counter[tuple[str, str]] = Counter()

    def check(self, name: str, value: object) -> None:
        """*value* has the keys and types of the object called *name*."""
        assert isinstance(value, dict)
        known = self.keys[name]
        assert set(value) <= set(known), (name, set(value) - set(known))
        for key, (kind, _) in known.items():
            if key in value:
                self.seen[name, key] += 1
                self._check_value(kind, value[key], f"{name}.{key}")

    def _check_value(self, kind: str, value: object, place: str) -> None:
        kind, or_null, _ = kind.partition(" or null")
        if or_null and value is None:
            return
        if kind in SIMPLE:
            assert type(value) is SIMPLE[kind], place
        elif kind == "number":
            assert isinstance(value, int | float), place
        elif kind == "counts":
            assert isinstance(value, dict), place
            assert all(type(count) is int for count in value.values()), place
        elif kind.startswith("list of "):
            assert isinstance(value, list), place
            for each in value:
                self._check_value(kind.removeprefix("list of ").removesuffix("s"), each, place)
        else:
            self.check(kind, value)

    def always(self, name: str) -> set[str]:
        """The keys that are always there."""
        return {key for key, (_, when) in self.keys[name].items() if not when}


def answers(shell: Shell) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Answers of every command in every form, with all that can be in them."""
    long = {"experiences": [{"id": "exp_1", "title": "word " * 5000}], "skills": [""]}
    documents: list[Document | str] = [experiences("exp_1", "exp_2"), long, experiences("exp_1")]
    variables = {"UNDRIFT_EMBEDDER": "local"}
    for owner, document in enumerate(documents, 1):
        shell.put(owner, document)
    check_all = ("check", "--all")
    sync_all = ("sync", "--all")
    for command in (check_all, (*sync_all, "--dry-run"), sync_all):
        yield "document", shell.undrift(*command, "--output=json", **variables).document
    shell.put(1, experiences("exp_2", "exp_9"))
    shell.put(2, "[]")
    shell.drop(3)
    for command in (check_all, (*sync_all, "--dry-run"), (*sync_all, "--max-delete=0"), check_all):
        lines = shell.undrift(*command, "--output=jsonl", **variables).lines
        yield from (("owner", line) for line in lines[:-1])
        yield "document", lines[-1]
    named = ("--user-id=1", "--user-id=99", "--output=json")
    yield "document", shell.undrift("check", *named, **variables).document
    yield "document", shell.undrift("sync", *named, **variables).document
    yield "document", shell.undrift("chek", "--output=json").document
    shell.put(1, experiences("exp_9"))
    search = ("search", "words", "--user-id=1")
    yield "search", shell.undrift(*search, "--output=json", **variables).document
    *hits, last = shell.undrift(*search, "--output=jsonl", **variables).lines
    yield from (("hit", hit) for hit in hits)
    yield "search", last
    yield "search", shell.undrift("search", "", "--user-id=1", "--output=json").document


def answers_of_setup(shell: Shell) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Answers of the commands about the setup, on PostgreSQL."""
    as_json = "--output=json"
    yield "doctor", shell.undrift("doctor", as_json).document
    yield "doctor", shell.undrift("doctor", as_json, "--nonsense").document
    *findings, last = shell.undrift("doctor", "--output=jsonl", VECTOR_URL="").lines
    yield from (("finding", finding) for finding in findings)
    yield "doctor", last
    shell.put(1, experiences("exp_1"))
    shell.undrift("sync", "--all")
    for command in (
        ["status"], ["build", "--sql"], ["build", "--yes"], ["drop", "--sql"], ["drop", "--yes"],
        ["build", "--type=ivfflat", "--yes"], ["status", "--config=no"],
    ):  # fmt: skip
        yield "index document", shell.undrift("index", *command, as_json).document
    yield "triggers", shell.undrift("triggers", "install", "--sql", as_json).document
    yield "triggers", shell.undrift("triggers", "install", as_json).document
    shell.source.run("UPDATE undrift.change SET at = at - interval '2 days'")
    yield "triggers", shell.undrift("triggers", "status", as_json).document
    yield "triggers", shell.undrift("triggers", "remove", as_json).document
    yield "triggers", shell.undrift("triggers", "status", "--config=no", as_json).document
    yield "init", shell.undrift("init", as_json).document
    yield "init", shell.undrift("init", as_json).document
    yield "init", shell.undrift("init", as_json, "--sql").document
    shell.source.run("ALTER TABLE profiles RENAME TO elsewhere")
    shell.source.run("ALTER TABLE elsewhere DROP COLUMN filtered_data")
    shell.source.run("ALTER TABLE elsewhere ADD COLUMN title text")
    shell.source.run("ALTER TABLE elsewhere ADD COLUMN id bigint UNIQUE")
    shell.source.run("UPDATE elsewhere SET title = 'A long title of many words', id = user_id")
    yield "init", shell.undrift("init", as_json, "--config=tables.toml").document


def answers_of_adoption(shell: Shell) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Answers about a collection that another program filled, beside a table with texts."""
    url = shell.variables["DATABASE_URL"]
    shell.source.run("CREATE TABLE adopted (id text PRIMARY KEY, user_id bigint, title text)")
    records = [Foreign(f"r{n}", "Many words", {"user_id": 1, "note": f"n{n}"}) for n in (1, 2)]
    shell.source.run("INSERT INTO adopted VALUES ('n1', 1, 'Many words'), ('n2', 1, 'Many words')")
    shell.source.run("DROP TABLE elsewhere")
    shell.source.run("DROP TABLE undrift.vectors")
    table = fill(url, "LangChain", records)
    adopted = ("--config=adopted.toml", "--output=json")
    yield "init", shell.undrift("init", *adopted).document
    at = {"VECTOR_URL": f"{url}?table=public.{table.name}"}
    table.run("UPDATE langchain_pg_embedding SET document = NULL WHERE id = 'r2'")
    yield "document", shell.undrift("check", "--user-id=1", *adopted, **at).document
    yield "document", shell.undrift("init", "--stamp", *adopted, **at).document


def answers_of_state(shell: Shell) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Answers about what is remembered: before, with somebody at work, and of a stranger."""
    as_json = "--output=json"
    yield "status", shell.undrift("status", as_json).document
    yield "state", shell.undrift("state", "show", as_json).document
    shell.put(1, experiences("exp_1", "exp_2"))
    shell.undrift("sync", "--all")
    yield "status", shell.undrift("status", as_json).document
    yield "status", shell.undrift("status", as_json, "--config=no").document
    with watching(shell):
        until(lambda: bool(shell.undrift("status", as_json).document["workers"]), "a worker")
        yield "status", shell.undrift("status", as_json).document
    database, entities = state_table(shell, "entity_state")
    with closing(database):
        now = "now()" if shell.source.is_postgres else "0"
        parked = f"SET parked_reason = 'it is odd', parked_attempts = 1, parked_until = {now}"
        assert database.run(f"UPDATE {entities} {parked}") == 2
    yield "status", shell.undrift("status", as_json).document
    yield "state", shell.undrift("state", "show", as_json).document
    elsewhere = {"UNDRIFT_STATE__URL": f"sqlite:///{shell.folder}/other.db"}
    yield "state", shell.undrift("state", "show", as_json, **elsewhere).document
    yield "state", shell.undrift("state", "adopt", as_json, **elsewhere).document
    yield "state", shell.undrift("state", "show", as_json, "--config=no").document


def test_state_json_has_the_documented_keys_and_types_and_no_others(shell: Shell) -> None:
    """As below, for the commands about the state."""
    schema = Schema()
    for name, answer in answers_of_state(shell):
        schema.check(name, answer)
        assert not schema.always(name) - set(answer), name
    documented = {(name, key) for name in STATE_OBJECTS for key in schema.keys[name]}
    assert documented <= set(schema.seen)


def test_json_has_the_documented_keys_and_types_and_no_others(
    shell: Shell,
) -> None:
    """In every command's answers; and no key is documented that never comes."""
    schema = Schema()
    found = (*answers(shell), *answers_of_setup(shell), *answers_of_adoption(shell))
    for name, answer in found:
        schema.check(name, answer)
        is_line = name == "document" and "owners" not in answer
        is_refused = answer.get("command") == "chek"
        if not is_refused:
            missing = schema.always(name) - set(answer) - ({"owners"} if is_line else set())
            assert not missing, (name, missing)
    documented = {
        (name, key)
        for name, keys in schema.keys.items()
        for key in keys
        if name not in STATE_OBJECTS
    }
    # These need an index that a search uses, and one that is being built.
    assert documented - set(schema.seen) <= {("search", "notes"), ("index document", "progress")}


def test_outcomes_are_all_in_the_table_and_in_the_glossary() -> None:
    """Word for word."""
    (row,) = (r for r in tables_of("reference/json.md")["An owner"] if r["key"] == "`outcome`")
    assert {*re.findall(r"`(\w+)`", row["meaning"])} == {*Outcome}
    glossary = (ROOT / "docs/glossary.md").read_text()
    for outcome in Outcome:
        assert f"\n{outcome.value.replace('_', ' ')}\n  " in glossary


# --- promises ---------------------------------------------------------------------------------


def test_every_promise_that_the_code_names_is_in_the_table_and_the_other_way_round() -> None:
    """A number that stands for nothing helps nobody."""
    tables = tables_of("explanation/how-it-works.md")
    described = {row["number"] for row in tables["The promises by number"]}
    files = [*SOURCES.rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
    named = {name for path in files for name in re.findall(r"\bI[1-9]\d?\b", path.read_text())}
    assert named == described


# --- examples of configurations -----------------------------------------------------------------


def test_every_setting_of_an_example_is_one_of_the_tables() -> None:
    """A page cannot show what the reference does not know."""
    known = {
        name.strip("[]"): set(settings_of(model)) for name, model in sections(config.sections.File)
    }
    for path in (ROOT / "docs").rglob("*.md"):
        for block in read_page(path).blocks:
            if block.language == "toml" and not block.is_wrong:
                parsed = tomllib.loads(block.text)
                for section, values in parsed.items():
                    for each in values if isinstance(values, list) else [values]:
                        assert set(each) - {"documents", "fields"} <= known[section], path
