"""One JSON document per owner, read from SQLite and from PostgreSQL."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.rendering import mapping_of, note
from support.sources import SourceDatabase, documents, owners_of, read, sqlite_database
from undrift.errors import InvalidDocument
from undrift.render import Renderer


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> SourceDatabase:
    """An empty database of either kind."""
    if request.param == "sqlite":
        return sqlite_database(tmp_path)
    return SourceDatabase(request.getfixturevalue("postgres_url"))


@pytest.fixture
def sqlite(tmp_path: Path) -> SourceDatabase:
    """An empty SQLite file."""
    return sqlite_database(tmp_path)


@pytest.fixture
def postgres(postgres_url: str) -> SourceDatabase:
    """An empty PostgreSQL database."""
    return SourceDatabase(postgres_url)


def profile(*texts: str) -> str:
    """A document with these notes."""
    return json.dumps({"notes": [{"id": text, "text": text} for text in texts]})


# --- columns ----------------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["text", "json", "jsonb", "varchar(200)"])
def test_document_may_be_json_or_text(database: SourceDatabase, column: str) -> None:
    """Whatever the column's type, the document is the same."""
    database.profiles([("ann", profile("A", "é✅")), ("bob", "{}")], document=column)
    with documents(database.url) as source:
        assert read(source, "ann", "bob") == [("ann", ["A", "é✅"]), ("bob", [])]


def test_document_may_be_a_blob_of_utf8(sqlite: SourceDatabase) -> None:
    """SQLite keeps what it was given, whatever the column says."""
    sqlite.profiles([("ann", profile("é").encode())], document="json")
    with documents(sqlite.url) as source:
        assert read(source, "ann") == [("ann", ["é"])]


@pytest.mark.parametrize("column", ["text", "json"])
def test_escapes_that_no_store_takes_are_replaced(database: SourceDatabase, column: str) -> None:
    """`json` delivers NUL and half a surrogate pair; a text holds U+FFFD for each."""
    document = r'{"notes": [{"id": 1, "text": "a\u0000b\ud800c\ud83d\ude00"}]}'
    database.profiles([("ann", document)], document=column)
    mapping = mapping_of(note())
    with documents(database.url) as source:
        (content,) = source.read(["ann"])
        wanted = Renderer(mapping).render(content)
    assert wanted.entities["note", "1"].text == "a\ufffdb\ufffdc\U0001f600"


def test_big_numbers_keep_their_digits(database: SourceDatabase) -> None:
    """An id of 2**70 is not rounded on its way."""
    document = json.dumps({"notes": [{"id": 2**70, "text": 2**70}]})
    database.profiles([("ann", document)], document="jsonb" if database.is_postgres else "json")
    with documents(database.url) as source:
        assert read(source, "ann") == [("ann", [str(2**70)])]


# --- rows -------------------------------------------------------------------------------------


def test_only_the_named_owners_are_read(database: SourceDatabase) -> None:
    """In one call, and those that are not there are not yielded."""
    database.profiles([(owner, profile(owner)) for owner in ("ann", "bob", "cat")])
    with documents(database.url) as source:
        assert read(source, "cat", "nobody", "ann") == [("ann", ["ann"]), ("cat", ["cat"])]
        assert read(source, "nobody") == []
        assert read(source) == []
        assert source.present(["cat", "nobody", "ann"]) == {"ann", "cat"}
        assert source.present([]) == frozenset()


def test_two_rows_of_one_owner_are_one_profile(database: SourceDatabase) -> None:
    """Also where other owners' rows lie between them."""
    rows = [("ann", "A"), ("bob", "B"), ("ann", "C"), ("bob", "D"), ("ann", "E")]
    database.profiles([(owner, profile(text)) for owner, text in rows])
    with documents(database.url) as source:
        assert owners_of(source) == ["ann", "bob"]
        assert read(source, "bob", "ann") == [("ann", ["A", "C", "E"]), ("bob", ["B", "D"])]


def test_owner_named_twice_is_read_once(database: SourceDatabase) -> None:
    """The arguments are a set."""
    database.profiles([("ann", profile("A"))])
    with documents(database.url) as source:
        assert read(source, "ann", "ann") == [("ann", ["A"])]


def test_rows_without_an_owner_belong_to_nobody(database: SourceDatabase) -> None:
    """NULL is no owner, neither listed nor read."""
    database.profiles([(None, profile("A")), ("ann", profile("B")), ("", profile("C"))])
    with documents(database.url) as source:
        assert owners_of(source) == ["", "ann"]
        assert read(source, "", "ann", "None", "NULL") == [("", ["C"]), ("ann", ["B"])]


def test_empty_table_has_no_owners(database: SourceDatabase) -> None:
    """And that is a complete answer."""
    database.profiles([])
    with documents(database.url) as source:
        assert owners_of(source) == []
        assert read(source, "ann") == []


def test_thousands_of_owners_are_read_in_one_call(database: SourceDatabase) -> None:
    """Their number is not limited by the database's parameters."""
    names = [f"u{number:05}" for number in range(40_000)]
    rows = [(name, "{}") for name in names[::100]]
    database.profiles(rows)
    with documents(database.url) as source:
        assert [owner for owner, _ in read(source, *names)] == names[::100]
        assert source.present(names) == set(names[::100])


def test_digest_follows_the_content(database: SourceDatabase) -> None:
    """Equal rows, equal digest; another document or another row, another digest."""
    database.profiles([("ann", profile("A")), ("bob", profile("A")), ("cat", profile("B"))])
    with documents(database.url) as source:
        first = {content.owner_id: content.digest for content in source.read(["ann", "bob", "cat"])}
        assert first["ann"] == first["bob"] != first["cat"]
        database.insert("INSERT INTO profiles VALUES (?, ?)", [("ann", profile("A"))])
        (again,) = source.read(["ann"])
        assert again.digest != first["ann"]


# --- what is read -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "owners"),
    [
        ("deleted_at is null", ["ann"]),
        ("tag like '%keep%'", ["ann"]),
        ("tag <> ':drop'", ["ann"]),
        ("tag <> '%(drop)s'", ["ann", "bob"]),
        ("tag <> 'it''s :not'", ["ann", "bob"]),
        ("cast(tag as varchar) like 'keep%'", ["ann"]),
        ("1 = 0", []),
    ],
)
def test_where_leaves_rows_out(database: SourceDatabase, where: str, owners: list[str]) -> None:
    """The condition is SQL as one writes it, colons and percent signs included."""
    database.execute(
        "CREATE TABLE profiles (user_id text, filtered_data text, deleted_at text, tag text)"
    )
    database.insert(
        "INSERT INTO profiles VALUES (?, ?, ?, ?)",
        [
            ("ann", profile("A"), None, "keep"),
            ("bob", profile("B"), "2020-01-01", ":drop"),
            ("ann", profile("C"), "2020-01-01", ":drop"),
        ],
    )
    with documents(database.url, where=where) as source:
        assert owners_of(source) == owners
        assert source.present(["ann", "bob"]) == set(owners)
        assert [owner for owner, _ in read(source, "ann", "bob")] == owners


def test_where_may_cast(postgres: SourceDatabase) -> None:
    """PostgreSQL's double colon is no parameter."""
    postgres.profiles([("ann", profile("A")), ("bob", "{}")], document="jsonb")
    with documents(postgres.url, where="filtered_data::text <> '{}'") as source:
        assert owners_of(source) == ["ann"]


def test_where_is_one_condition(database: SourceDatabase) -> None:
    """An OR in it does not let other owners in."""
    database.profiles([("ann", profile("A")), ("bob", profile("B"))])
    with documents(database.url, where="1 = 0 or 1 = 1") as source:
        assert read(source, "ann") == [("ann", ["A"])]


def test_view_serves_as_a_table(database: SourceDatabase) -> None:
    """What is read is what the view shows."""
    database.profiles([("ann", profile("A")), ("bob", profile("B"))])
    database.execute(
        "CREATE VIEW shown AS SELECT user_id AS uid, filtered_data AS doc FROM profiles "
        "WHERE user_id <> 'bob'"
    )
    with documents(database.url, table="shown", owner="uid", document="doc") as source:
        assert owners_of(source) == ["ann"]
        assert read(source, "ann", "bob") == [("ann", ["A"])]


def test_column_of_a_type_nobody_knows_disturbs_nobody(postgres: SourceDatabase) -> None:
    """A vector, a tree or a log position beside the document; such an owner is its text."""
    postgres.execute(
        "CREATE TABLE profiles (user_id pg_lsn, filtered_data text, embedding vector(3))",
        f"INSERT INTO profiles VALUES ('0/1', '{profile('A')}', '[1,2,3]'), ('0/2', '{{}}', NULL)",
    )
    with documents(postgres.url) as source:
        assert owners_of(source) == ["0/1", "0/2"]
        assert read(source, "0/1", "0/3", "x") == [("0/1", ["A"])]


def test_materialized_view_serves_as_a_table(postgres: SourceDatabase) -> None:
    """PostgreSQL lists those by themselves."""
    postgres.profiles([("ann", profile("A"))])
    postgres.execute("CREATE MATERIALIZED VIEW shown AS SELECT * FROM profiles")
    with documents(postgres.url, table="shown") as source:
        assert read(source, "ann") == [("ann", ["A"])]


def test_partitions_are_read_through_their_parent(postgres: SourceDatabase) -> None:
    """A partitioned table is a table."""
    postgres.execute(
        "CREATE TABLE profiles (user_id int, filtered_data jsonb) PARTITION BY HASH (user_id)",
        "CREATE TABLE part_0 PARTITION OF profiles FOR VALUES WITH (MODULUS 2, REMAINDER 0)",
        "CREATE TABLE part_1 PARTITION OF profiles FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
        "INSERT INTO profiles SELECT n, '{}' FROM generate_series(1, 20) AS n",
    )
    with documents(postgres.url) as source:
        assert owners_of(source, 3) == [str(n) for n in range(1, 21)]
        assert len(read(source, *owners_of(source))) == 20


def test_table_may_be_anywhere_on_the_search_path(postgres: SourceDatabase) -> None:
    """As the application finds it."""
    postgres.execute("CREATE SCHEMA app")
    postgres.execute("CREATE TABLE app.profiles (user_id text, filtered_data text)")
    postgres.insert("INSERT INTO app.profiles VALUES (?, ?)", [("ann", profile("A"))])
    url = f"{postgres.url}?options=-csearch_path%3Dpublic,app"
    with documents(url) as source:
        assert read(source, "ann") == [("ann", ["A"])]


def test_table_may_be_in_a_schema(postgres: SourceDatabase) -> None:
    """`schema.table` is that table, whatever the search path holds."""
    postgres.profiles([("ann", profile("wrong"))])
    postgres.execute(
        "CREATE SCHEMA app", "CREATE TABLE app.profiles AS SELECT * FROM public.profiles"
    )
    postgres.insert("UPDATE app.profiles SET filtered_data = ?", [(profile("right"),)])
    with documents(postgres.url, table="app.profiles") as source:
        assert read(source, "ann") == [("ann", ["right"])]
        assert source.describe().layout == "app.profiles(user_id, filtered_data)"


def test_names_may_need_quoting(database: SourceDatabase) -> None:
    """Capitals, spaces, reserved words and percent signs."""
    database.execute(
        'CREATE TABLE "Select %" ("User Id" text, "from:x" text)',
        f"""INSERT INTO "Select %" VALUES ('ann', '{profile("A")}')""",
    )
    layout = {"table": "Select %", "owner": "User Id", "document": "from:x"}
    with documents(database.url, **layout) as source:
        assert owners_of(source) == ["ann"]
        assert read(source, "ann") == [("ann", ["A"])]


def test_description_says_where_and_what(database: SourceDatabase) -> None:
    """For people, without the password; a primary is no standby."""
    database.profiles([])
    with documents(database.url) as source:
        info = source.describe()
    assert info.layout == "profiles(user_id, filtered_data)"
    assert info.is_standby is False
    assert info.location.startswith("postgresql://" if database.is_postgres else "sqlite:///")
    assert info.location.endswith(database.url.rpartition("/")[2])


# --- documents that cannot be read ------------------------------------------------------------

UNREADABLE = [
    (None, "NULL"),
    ("null", "NULL"),
    ("[]", "list"),
    ('"{}"', "string"),
    ("5", "number"),
    ("1.5", "number"),
    ("true", "boolean"),
]
MALFORMED = ["", "{", "{'a': 1}", '{"a": NaN}', '{"a": 1} x', "[" * 100_000, "\ufeff{}"]


@pytest.mark.parametrize(("document", "found"), UNREADABLE)
def test_document_that_is_no_object_concerns_only_its_owner(
    database: SourceDatabase, document: str | None, found: str
) -> None:
    """It is unknown, not an empty profile: that would delete the owner's vectors."""
    column = "jsonb" if database.is_postgres else "json"
    database.profiles([("ann", profile("A")), ("bob", document)], document=column)
    with documents(database.url) as source:
        good, bad = sorted(source.read(["ann", "bob"]), key=lambda content: content.owner_id)
        assert len(good.elements()[0]) == 1
        with pytest.raises(InvalidDocument) as caught:
            bad.elements()
    assert caught.value.owner_id == "bob"
    assert found in caught.value.why


@pytest.mark.parametrize("document", MALFORMED, ids=range(len(MALFORMED)))
def test_document_that_is_no_json_concerns_only_its_owner(
    database: SourceDatabase, document: str
) -> None:
    """Its text is never repeated in the message."""
    database.profiles([("ann", profile("A")), ("bob", document)])
    with documents(database.url) as source:
        contents = {content.owner_id: content for content in source.read(["ann", "bob"])}
        assert len(contents["ann"].elements()[0]) == 1
        assert contents["bob"].digest != contents["ann"].digest
        with pytest.raises(InvalidDocument, match="not valid JSON") as caught:
            contents["bob"].elements()
    assert caught.value.owner_id == "bob"
    assert len(str(caught.value)) < 500


def test_one_bad_row_of_two_makes_the_owner_unknown(database: SourceDatabase) -> None:
    """Half a profile would delete the other half's vectors."""
    database.profiles([("ann", profile("A")), ("ann", None)])
    with documents(database.url) as source:
        (content,) = source.read(["ann"])
        with pytest.raises(InvalidDocument):
            content.elements()


@pytest.mark.parametrize(
    "document",
    ["CAST(X'7b226e6f746573223a5b7b2269ff' AS text)", "X'ff7b7d'", "X'80'"],
    ids=["text", "blob", "byte"],
)
def test_bytes_that_are_not_utf8_concern_only_their_owner(
    sqlite: SourceDatabase, document: str
) -> None:
    """SQLite checks nothing; the page goes on."""
    sqlite.profiles([("ann", profile("A")), ("cat", profile("C"))])
    sqlite.execute(f"INSERT INTO profiles VALUES ('bob', {document})")
    with documents(sqlite.url) as source:
        contents = {content.owner_id: content for content in source.read(["ann", "bob", "cat"])}
        assert sorted(contents) == ["ann", "bob", "cat"]
        assert len(contents["cat"].elements()[0]) == 1
        with pytest.raises(InvalidDocument):
            contents["bob"].elements()


def test_element_of_another_shape_concerns_only_its_owner(database: SourceDatabase) -> None:
    """A list that is an object."""
    database.profiles([("ann", '{"notes": {}}'), ("bob", profile("B"))])
    with documents(database.url) as source:
        ann, bob = sorted(source.read(["ann", "bob"]), key=lambda content: content.owner_id)
        with pytest.raises(InvalidDocument, match="'notes'"):
            ann.elements()
        assert len(bob.elements()[0]) == 1
