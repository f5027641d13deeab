"""``undrift init`` and a collection that another program filled: seen, guessed, checked, stamped.

The tables are created by the statements of LangChain, LlamaIndex and Mastra.
"""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from support.bad_input import assert_refused
from support.cli import Document, Ran, Shell
from support.foreign import DIMENSION, WRITERS, Foreign, ForeignTable, fill
from undrift.embedders.hashing import HashingEmbedder

MODEL = HashingEmbedder(DIMENSION).model
SECRET = "Xyzzy-planted-text"


def profile(owner: int, count: int = 4) -> Document:
    """A document whose experiences are told from any other user's."""
    return {
        "experiences": [
            {"id": f"exp_{owner}_{n}", "title": f"Engineer {n}", "company": f"Acme {owner}"}
            for n in range(count)
        ]
    }


def records(owners: int = 5, **more: object) -> list[Foreign]:
    """What another program has made of those documents, in undrift's own words."""
    return [
        Foreign(
            f"rec-{owner}-{n}",
            f"Engineer {n} at Acme {owner}",
            {"user_id": owner, "exp": f"exp_{owner}_{n}", "lang": "en", **more},
        )
        for owner in range(1, owners + 1)
        for n in range(4)
    ]


@pytest.fixture
def shell(postgres_shell: Shell) -> Shell:
    """A source with five profiles; vectors belong into the same server."""
    for owner in range(1, 6):
        postgres_shell.put(owner, profile(owner))
    return postgres_shell


@pytest.fixture(params=WRITERS)
def table(request: pytest.FixtureRequest, shell: Shell) -> ForeignTable:
    """A collection of each program's."""
    return fill(shell.variables["DATABASE_URL"], request.param, records())


def initialised(shell: Shell, *arguments: str) -> Ran:
    """``undrift init``, and the export that it asks for."""
    ran = shell.undrift("init", *arguments)
    assert ran.code == 0, ran.err
    for line in ran.out.splitlines():
        if line.startswith("Next: export VECTOR_URL="):
            value = line.partition("=")[2].strip('"')
            for name in ("VECTOR_URL", "DATABASE_URL"):
                value = value.replace(f"${name}", shell.variables.get(name, ""))
            shell.variables["VECTOR_URL"] = value
    return ran


def fields_in(shell: Shell) -> dict[str, Any]:
    """The file's ``[store.fields]``."""
    parsed = tomllib.loads((shell.folder / "undrift.toml").read_text(encoding="utf-8"))
    found: dict[str, Any] = parsed["store"].get("fields", {})
    return found


# --- seen and guessed ---------------------------------------------------------------------------


def test_each_programs_table_is_recognised_by_its_values(shell: Shell, table: ForeignTable) -> None:
    """And the file that is written is in use as it stands."""
    before = table.everything()
    ran = initialised(shell)
    expected: dict[str, object] = {
        "owner": f"{table.metadata}.user_id",
        "kind": {"value": "experience"},
        "entity_id": f"{table.metadata}.exp",
        "text": table.text,
        "model": {"value": MODEL},
    }
    if table.writer == "LlamaIndex":
        expected["id"] = "node_id"
    if table.fixed:
        expected["fixed"] = dict(table.fixed)
    assert fields_in(shell) == expected
    assert f"filled as {table.writer} does; 20 records sampled" in ran.out
    assert f"{table.metadata}.user_id (20 of 20 sampled records name a source user" in ran.out
    assert "20 of 20 texts" in ran.out
    assert ran.out.endswith("Then: undrift check --all\nThen: undrift init --stamp\n")
    checked = shell.undrift("check", "--all")
    assert checked.code == 0, checked.out + checked.err
    assert table.everything() == before


def test_a_check_of_an_adopted_table_is_exact(shell: Shell, table: ForeignTable) -> None:
    """Missing, stale and changed, each of which was planted."""
    initialised(shell)
    documents = {owner: dict(profile(owner)) for owner in (1, 2, 3)}
    documents[1]["experiences"] = profile(1)["experiences"][:3]
    documents[2]["experiences"] = [*profile(2)["experiences"], {"id": "new", "title": "Founder"}]
    changed = [dict(job) for job in profile(3)["experiences"]]
    changed[0]["title"] = "Director"
    documents[3]["experiences"] = changed
    for owner, document in documents.items():
        shell.put(owner, document)
    checked = shell.undrift("check", "--all", "--output=json")
    assert checked.code == 1
    owners = {owner["owner_id"]: owner for owner in checked.document["owners"]}
    assert set(owners) == {"1", "2", "3"}
    assert owners["1"]["stale_ids"] == ["experience:exp_1_3"]
    assert owners["2"]["missing_ids"] == ["experience:new"]
    assert owners["3"]["changed_ids"] == ["experience:exp_3_0"]
    assert owners["3"]["unstamped"] == 3


def test_without_a_model_the_content_is_unknown(shell: Shell, table: ForeignTable) -> None:
    """A person who takes the line out has not given their word."""
    initialised(shell)
    file = shell.folder / "undrift.toml"
    text = file.read_text()
    line = f'model = {{ value = "{MODEL}" }}\n'
    assert line in text
    assert "this is your word" in text
    file.write_text(text.replace(line, ""))
    checked = shell.undrift("check", "--user-id=1")
    assert checked.code == 3
    assert "  - Content unknown: 4\n  - In sync: unknown\n" in checked.out


def test_passwords_and_texts_stay_out_of_the_file(shell: Shell) -> None:
    shell.put(1, {"experiences": [{"id": "exp_1_0", "title": SECRET * 100}]})
    url = shell.variables["DATABASE_URL"]
    fill(
        url, "LangChain", [*records(), Foreign("x", SECRET * 100, {"user_id": 1, "exp": "exp_1_0"})]
    )
    ran = initialised(shell, "-v")
    text = (shell.folder / "undrift.toml").read_text()
    password = url.split("@")[0].rpartition(":")[2]
    assert SECRET not in text
    for output in (text, ran.out, ran.err):
        assert password not in output
        assert SECRET * 12 not in output


def test_json_names_the_collection_and_what_the_guess_rests_on(
    shell: Shell, table: ForeignTable
) -> None:
    found = shell.undrift("init", "--output=json").document["collection"]
    assert found["writer"] == table.writer
    assert found["records"] == 20
    assert found["is_ready"] is True
    assert found["fields"]["owner"] == f"{table.metadata}.user_id"
    assert found["fields"]["kind"] == {"value": "experience"}
    assert found["reasons"]["entity_id"].startswith("20 of 20 sampled records")
    assert found["examples"][0] == {
        "owner_id": "1",
        "id": "experience:exp_1_0",
        "record_id": "rec-1-0",
        "text": "Engineer 0 at Acme 1",
    }
    assert found["export"].startswith('export VECTOR_URL="$VECTOR_URL?table=public.')


def test_a_table_that_the_address_names_needs_no_export(shell: Shell, table: ForeignTable) -> None:
    shell.variables["VECTOR_URL"] += f"?table=public.{table.name}"
    ran = shell.undrift("init")
    assert ran.out.endswith("Next: undrift check --all\nThen: undrift init --stamp\n")
    assert shell.undrift("check", "--all").code == 0


def test_the_sources_own_server_is_looked_at_where_no_store_is_named(
    shell: Shell, table: ForeignTable
) -> None:
    del shell.variables["VECTOR_URL"]
    ran = initialised(shell)
    assert 'Next: export VECTOR_URL="$DATABASE_URL?table=public.' in ran.out
    assert "VECTOR_URL is not set" not in ran.out
    assert shell.undrift("check", "--all").code == 0


def test_other_programs_tables_are_no_source(shell: Shell, table: ForeignTable) -> None:
    ran = shell.undrift("init", "--no-adopt")
    assert ran.code == 0
    assert table.name not in ran.out
    assert "langchain_pg_collection" not in ran.out


def test_there_is_no_script_for_somebody_elses_table(shell: Shell, table: ForeignTable) -> None:
    """But there is nothing to create, and `--apply` says so."""
    initialised(shell)
    assert_refused(
        shell.undrift("init", "--sql"), 2, "There is no script for an adopted collection"
    )
    before = table.everything()
    applied = shell.undrift("init", "--apply")
    assert applied.code == 0, applied.err
    assert "The vector store is there already" in applied.out
    assert table.everything() == before


# --- several, and none --------------------------------------------------------------------------


def test_of_several_collections_a_person_chooses(shell: Shell) -> None:
    """By LangChain's own name, or the table's; and nothing is written before."""
    url = shell.variables["DATABASE_URL"]
    fill(url, "LangChain", records(), name="jobs")
    fill(url, "LangChain", [r._replace(id=f"b-{r.id}") for r in records(2)], name="talks")
    fill(url, "Mastra", records(), name="careers")
    ran = shell.undrift("init")
    assert_refused(
        ran, 2, "Several collections could be adopted", why="public.careers, jobs, talks"
    )
    assert not (shell.folder / "undrift.toml").exists()
    talks = initialised(shell, "--collection", "talks")
    assert "8 records sampled" in talks.out
    assert "Also seen, and not adopted: jobs (--collection jobs adopts it)" in talks.out
    checked = shell.undrift("check", "--all", "--output=json")
    assert {owner["owner_id"] for owner in checked.document["owners"]} == {"3", "4", "5"}
    shell.variables["VECTOR_URL"] = url
    again = shell.undrift("init", "--overwrite", "--collection=careers")
    assert "filled as Mastra does" in again.out
    assert shell.undrift("init", "--overwrite", "--no-adopt").code == 0
    assert fields_in(shell) == {}


@pytest.mark.parametrize("name", ["talks", "public.nothing"])
def test_a_collection_that_is_not_there_is_an_error(shell: Shell, name: str) -> None:
    fill(shell.variables["DATABASE_URL"], "LangChain", records())
    ran = shell.undrift("init", f"--collection={name}")
    assert_refused(ran, 2, "There is no such collection", why="the vector store holds jobs.")
    assert not (shell.folder / "undrift.toml").exists()


def test_collection_and_no_adopt_exclude_each_other(shell: Shell) -> None:
    ran = shell.undrift("init", "--collection=jobs", "--no-adopt")
    assert_refused(ran, 2, "--collection and --no-adopt exclude each other")


def test_a_collection_of_something_else_is_left_alone(shell: Shell) -> None:
    """It is named; and undrift gets a store of its own, as without it."""
    manuals = [Foreign(f"m{n}", f"How to mend pump {n}", {"page": n}) for n in range(1, 6)]
    fill(shell.variables["DATABASE_URL"], "LangChain", manuals, name="manuals")
    ran = shell.undrift("init")
    assert ran.code == 0, ran.err
    assert "Also seen, and not adopted: manuals (" in ran.out
    assert fields_in(shell) == {}
    assert shell.undrift("sync", "--all").code == 0


def test_undrifts_own_store_is_not_given_up_for_another_programs(shell: Shell) -> None:
    """Control: with the name it is."""
    shell.undrift("sync", "--all")
    fill(shell.variables["DATABASE_URL"], "LangChain", records())
    ran = shell.undrift("init")
    assert "Also seen, and not adopted: jobs (--collection jobs adopts it)" in ran.out
    assert fields_in(shell) == {}
    initialised(shell, "--overwrite", "--collection=jobs")
    assert fields_in(shell)["owner"] == "cmetadata.user_id"


def test_what_is_missing_is_said_and_left_to_be_completed(shell: Shell) -> None:
    """As comments, so that the file is valid; completed, it is in use."""
    plain = [r._replace(metadata={"user_id": r.metadata["user_id"]}) for r in records()]
    table = fill(shell.variables["DATABASE_URL"], "LangChain", plain)
    shell.variables["VECTOR_URL"] += f"?table=public.{table.name}"
    ran = shell.undrift("init")
    assert ran.code == 0, ran.err
    assert "entity_id is not known: no field holds ids of these users' entities" in ran.out
    assert "Complete [store.fields] in the file first" in ran.out
    assert fields_in(shell) == {}
    text = (shell.folder / "undrift.toml").read_text()
    assert '# owner = "cmetadata.user_id"\n' in text
    assert '# entity_id = ""\n' in text


def test_a_collection_that_is_called_like_a_table_of_the_source_is_not_taken_for_it(
    shell: Shell,
) -> None:
    """Control: the source's own rows with vectors are."""
    fill(shell.variables["DATABASE_URL"], "LangChain", records(), name="profiles")
    assert "profiles was filled as LangChain does" in shell.undrift("init").out
    shell.source.run("DROP TABLE langchain_pg_embedding, langchain_pg_collection")
    shell.source.run(f"ALTER TABLE profiles ADD COLUMN embedding vector({DIMENSION})")
    ran = shell.undrift("init", "--overwrite")
    assert "adopted" not in ran.out
    assert "was filled" not in ran.out


def test_an_id_that_only_the_records_id_holds_cannot_be_adopted(shell: Shell) -> None:
    """A record that undrift writes would have no place for it."""
    named = [
        Foreign(str(r.metadata["exp"]), r.text, {"user_id": r.metadata["user_id"]})
        for r in records()
    ]
    table = fill(shell.variables["DATABASE_URL"], "Mastra", named)
    shell.variables["VECTOR_URL"] += f"?table=public.{table.name}"
    ran = shell.undrift("init")
    assert "the entity's id stands only in vector_id, the record's own id" in ran.out
    assert fields_in(shell) == {}


def test_a_table_without_json_says_how_to_give_it_some(shell: Shell) -> None:
    shell.source.run(
        "CREATE TABLE vecs (id text PRIMARY KEY, user_id bigint, exp text, body text, "
        f"embedding vector({DIMENSION}))"
    )
    shell.source.run("INSERT INTO vecs VALUES ('a', 1, 'exp_1_0', 'Engineer 0 at Acme 1', NULL)")
    shell.variables["VECTOR_URL"] += "?table=vecs"
    ran = shell.undrift("init")
    assert ran.code == 0, ran.err
    statement = 'ALTER TABLE "public"."vecs" ADD COLUMN undrift jsonb'
    assert statement in ran.out
    shell.source.run(statement)
    shell.undrift("init", "--overwrite")
    assert fields_in(shell)["entity_id"] == "exp"
    checked = shell.undrift("check", "--user-id=1", "--output=json").document["owners"][0]
    assert "experience:exp_1_0" in checked["missing_ids"]  # it has no vector


@pytest.mark.parametrize(
    ("name", "is_possible"),
    [('odd "name" & $HOME `x` 100%', True), ("dot.ted", False), ("x" * 60, False)],
)
def test_hostile_names_are_addressed_or_refused_with_the_reason(
    shell: Shell, name: str, is_possible: bool
) -> None:
    """Half vectors, too."""
    quoted = '"' + name.replace('"', '""') + '"'
    shell.source.run(
        f"CREATE TABLE {quoted} (key uuid PRIMARY KEY, \"the ''user''\" bigint, exp text, "
        f"body text, extra json, embedding halfvec({DIMENSION}))"
    )
    values = f"gen_random_uuid(), :user, :exp, :text, NULL, '{[1.0] * DIMENSION}'"
    for record in records(2):
        shell.source.run(
            f"INSERT INTO {quoted} VALUES ({values})",
            user=record.metadata["user_id"],
            exp=record.metadata["exp"],
            text=record.text,
        )
    ran = initialised(shell)
    if not is_possible:
        assert f"Also seen, and not adopted: public.{name} (?table=" in ran.out
        assert fields_in(shell) == {}
        return
    assert fields_in(shell)["owner"] == "the ''user''"
    for user in (1, 2):
        checked = shell.undrift("check", f"--user-id={user}", "--output=json")
        assert checked.code == 0, checked.err
        assert checked.document["owners"][0]["unstamped"] == 4


def test_an_unreachable_store_does_not_stop_the_look_at_the_source(shell: Shell) -> None:
    """Control: who names a collection is told."""
    nowhere = {"VECTOR_URL": "postgresql://app:pl4nted@127.0.0.1:1/app"}
    ran = shell.undrift("init", **nowhere)
    assert ran.code == 0
    assert "The vector store was not looked at: The vector store did not answer" in ran.err
    assert "pl4nted" not in ran.out + ran.err
    named = shell.undrift("init", "--overwrite", "--collection=jobs", **nowhere)
    assert_refused(named, 3, "The vector store did not answer")


# --- other words --------------------------------------------------------------------------------


def test_the_template_is_worded_as_the_stored_texts_are(shell: Shell) -> None:
    """So that adopting costs no embedding."""
    worded = [
        r._replace(text=f"Acme {r.metadata['user_id']}\n\nEngineer {r.id[-1]}") for r in records()
    ]
    fill(shell.variables["DATABASE_URL"], "LangChain", worded)
    ran = initialised(shell)
    assert "20 of 20 texts in document equal what the source renders" in ran.out
    assert "the text of kind experience is worded as the stored texts are" in ran.out
    text = (shell.folder / "undrift.toml").read_text()
    assert 'text = "{{ company }}\\n\\n{{ title }}"' in text
    assert shell.undrift("check", "--all").code == 0


def test_words_that_no_template_makes_are_told_by_the_names_of_fields(shell: Shell) -> None:
    """Never by the texts themselves."""
    odd = [r._replace(text=f"{r.id[::-1]} wrote Engineer {r.id[-1]} twice") for r in records()]
    odd = [r._replace(text=f"{n * '.'} {r.text}") for n, r in enumerate(odd)]
    fill(shell.variables["DATABASE_URL"], "LangChain", odd)
    ran = initialised(shell)
    assert "none of the sampled texts equals what the template of [[entity]] renders" in ran.out
    assert "experience:exp_1_0 differs: only the template renders company" in ran.out
    assert "Content changed: 4" in shell.undrift("check", "--user-id=1").out


def test_kinds_are_called_as_the_collection_calls_them(shell: Shell) -> None:
    """Two of them, told by their ids."""
    for owner in range(1, 6):
        skills = [{"id": f"skill_{owner}", "name": "Go"}]
        shell.put(owner, {**profile(owner), "skills": skills})
    both = records(doc="job")
    both += [
        Foreign(f"s{owner}", "Go", {"user_id": owner, "exp": f"skill_{owner}", "doc": "ability"})
        for owner in range(1, 6)
    ]
    fill(shell.variables["DATABASE_URL"], "LangChain", both)
    ran = initialised(shell)
    assert fields_in(shell)["kind"] == "cmetadata.doc"
    assert "kind experience is called job, as the records call it" in ran.out
    checked = shell.undrift("check", "--all", "--output=json")
    assert checked.code == 0, checked.out
    status = shell.undrift("check", "--user-id=1", "--output=json").document["owners"][0]
    assert status["store"] == {"job": 4, "ability": 1}


def test_records_of_other_things_are_kept_out(shell: Shell) -> None:
    """They would be stale otherwise, and a sync would delete them."""
    letters = [
        Foreign(f"l{n}", f"Letter {n}", {"user_id": 1, "exp": f"letter_{n}", "type": "letter"})
        for n in range(3)
    ]
    table = fill(
        shell.variables["DATABASE_URL"], "LangChain", [*records(type="career entry"), *letters]
    )
    initialised(shell)
    assert fields_in(shell)["fixed"] == {**table.fixed, "cmetadata.type": "career entry"}
    status = shell.undrift("check", "--user-id=1", "--output=json").document["owners"][0]
    assert (status["outcome"], status["stale_ids"], status["unmanaged"]) == ("in_sync", [], 3)
    assert shell.undrift("sync", "--all").code == 0
    assert table.metadata_of("l0") == letters[0].metadata


def test_several_vectors_of_one_entity_are_parts(shell: Shell) -> None:
    """What parts were made from cannot be told; and none of them passes for a duplicate."""
    long = "word " * 60
    for owner in range(1, 6):
        jobs = [{**job, "description": long} for job in profile(owner)["experiences"]]
        shell.put(owner, {"experiences": jobs})
    parts = [
        Foreign(
            f"{r.id}-{n}", f"{r.text}. {long}"[n * 150 : n * 150 + 150], {**r.metadata, "chunk": n}
        )
        for r in records()
        for n in range(2)
    ]
    fill(shell.variables["DATABASE_URL"], "LangChain", parts)
    ran = initialised(shell)
    assert fields_in(shell)["part"] == "cmetadata.chunk"
    assert "20 sampled entities have several records, which cmetadata.chunk numbers" in ran.out
    status = shell.undrift("check", "--user-id=1", "--output=json")
    assert status.code == 3
    (owner,) = status.document["owners"]
    assert len(owner["unknown_ids"]) == 4
    assert owner["duplicate_ids"] == owner["stale_ids"] == []


# --- stamping -----------------------------------------------------------------------------------


def test_stamping_stamps_what_is_as_the_source_has_it_and_nothing_else(
    shell: Shell, table: ForeignTable
) -> None:
    initialised(shell)
    changed = [dict(job) for job in profile(3)["experiences"]]
    changed[0]["title"] = "Director"
    shell.put(3, {"experiences": changed})
    before = {r.id: table.metadata_of(r.id) for r in records()}
    ran = shell.undrift("init", "--stamp")
    assert ran.code == 1, ran.err
    assert "19 records of 5 users will be stamped; no text and no vector changes." in ran.err
    assert "🔍 Vector sync check for user 3:" in ran.out
    assert "user 1:" not in ran.out
    assert ran.out.endswith(
        "📊 Summary:\n  - Users checked: 5\n  - Users in sync: 4\n  - Users out of sync: 1\n"
        "  - Records stamped: 19\n  - Left: content changed: 1\n"
    )
    for record_id, metadata in before.items():
        after = dict(table.metadata_of(record_id))
        assert bool(after.pop("undrift", None)) is (record_id != "rec-3-0")
        assert after.items() >= metadata.items()
    again = shell.undrift("init", "--stamp", "--output=json").document
    assert again["command"] == "init"
    assert again["summary"]["stamped"] == 0
    assert again["summary"]["left"] == {"changed": 1}
    synced = shell.undrift("sync", "--all", "--output=json").document
    assert synced["summary"]["embedded"] == 1
    assert shell.undrift("check", "--all").code == 0
    assert table.metadata_of("rec-3-0")["lang"] == "en"


def test_stamping_needs_an_adopted_collection(shell: Shell) -> None:
    ran = shell.undrift("init", "--stamp")
    assert_refused(ran, 2, "There is no adopted collection")
    shell.undrift("init")
    assert_refused(shell.undrift("init", "--stamp"), 2, "There is no adopted collection")


@pytest.mark.parametrize(
    "other", ["--sql", "--apply", "--overwrite", "--collection=x", "--no-adopt"]
)
def test_stamping_goes_alone(shell: Shell, other: str) -> None:
    assert_refused(shell.undrift("init", "--stamp", other), 2, "--stamp goes alone")


def test_stamping_as_lines_of_json(shell: Shell) -> None:
    fill(shell.variables["DATABASE_URL"], "Mastra", records())
    initialised(shell)
    *owners, last = shell.undrift("init", "--stamp", "--output=jsonl").lines
    assert {owner["owner_id"]: owner["stamped"] for owner in owners} == {
        str(owner): 4 for owner in range(1, 6)
    }
    assert last["summary"]["stamped"] == 20
