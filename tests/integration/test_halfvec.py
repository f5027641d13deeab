"""Vectors stored as halves: what the address says, what the table is, and indexes over either."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

import numpy as np
import psycopg
import pytest

from support.sides import CountingEmbedder, World
from undrift.errors import ConfigError
from undrift.model import Outcome
from undrift.ports import Purpose, Vectors
from undrift.search_index import IndexParameters, IndexType
from undrift.stores import open_store
from undrift.stores._pg_vectors import why_not_halved
from undrift.stores.pgvector import PgvectorStore
from undrift.testing.builders import DIMENSION, MODEL, records, vectors

HALVED = "?vectors=halfvec"


@pytest.fixture
def sql(postgres_url: str) -> Iterator[psycopg.Connection]:
    """A connection of somebody else's, without transactions."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        yield connection


def type_of(sql: psycopg.Connection) -> tuple[object, ...] | None:
    return sql.execute(
        "SELECT format_type(atttypid, atttypmod) FROM pg_attribute "
        "WHERE attrelid = 'undrift.vectors'::regclass AND attname = 'embedding'"
    ).fetchone()


def created(url: str, dimension: int = DIMENSION) -> PgvectorStore:
    """A store at *url* that is created."""
    store = PgvectorStore(url)
    store.create(dimension)
    return store


# --- the address and the table ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "expected"),
    [("", "vector(16)"), ("?vectors=vector", "vector(16)"), (HALVED, "halfvec(16)")],
)
def test_a_new_table_is_what_the_address_says(
    postgres_url: str, sql: psycopg.Connection, suffix: str, expected: str
) -> None:
    """Without a word it holds whole vectors; the printed statements say the same."""
    with closing(created(f"{postgres_url}{suffix}")) as store:
        assert type_of(sql) == (expected,)
        assert any(f"embedding {expected}" in statement for statement in store.ddl(DIMENSION))
        assert store.describe().dimension == DIMENSION
        assert store.capabilities.exact_vectors is expected.startswith("vector")


def test_a_table_of_halves_needs_no_word_in_the_address(postgres_url: str) -> None:
    """Everybody who looks finds what it is; also one who looked before it was created."""
    with closing(PgvectorStore(postgres_url)) as before:
        assert not before.describe().exists
        with closing(created(f"{postgres_url}{HALVED}")) as halved:
            halved.publish(records(30), [])
            query = vectors(1, seed=5)[0]
            expected = halved.search("1", query, model=MODEL, kinds=None, limit=10)
            assert before.describe().exists
            assert not before.capabilities.exact_vectors
            assert before.search("1", query, model=MODEL, kinds=None, limit=10) == expected
            before.publish(records(30, version=2), [])
            assert {stamp.version for stamp in halved.stamps(["1"])} == {2}


@pytest.mark.parametrize(("there", "said"), [("?vectors=vector", "halfvec"), (HALVED, "vector")])
def test_an_address_that_contradicts_the_table_is_refused(
    postgres_url: str, there: str, said: str
) -> None:
    """Nothing is converted behind anybody's back; the fix says both ways out."""
    created(f"{postgres_url}{there}").close()
    with closing(PgvectorStore(f"{postgres_url}?vectors={said}")) as store:
        for call in (store.describe, lambda: store.create(DIMENSION)):
            with pytest.raises(ConfigError, match="another type") as caught:
                call()
            assert f"?vectors={said}" in caught.value.why
            assert "leave vectors= out" in caught.value.fix
            assert "?table=" in caught.value.fix


def test_an_unknown_type_is_refused_with_the_known_ones() -> None:
    """Before anything is connected to."""
    with pytest.raises(ConfigError, match="bit") as caught:
        open_store("postgresql://h/d?vectors=bit")
    assert "neither vector nor halfvec" in caught.value.why


def test_a_pgvector_without_halves_is_named(postgres_url: str, sql: psycopg.Connection) -> None:
    """As before 0.7.0; here the type has another name."""
    sql.execute("ALTER TYPE halfvec RENAME TO no_halfvec")
    with (
        closing(PgvectorStore(f"{postgres_url}{HALVED}")) as store,
        pytest.raises(ConfigError, match="has no halfvec") as caught,
    ):
        store.create(DIMENSION)
    assert "ALTER EXTENSION vector UPDATE" in caught.value.fix


def test_halves_take_half_the_disk(new_postgres_url: Callable[[], str]) -> None:
    """Whole vectors are the control."""
    sizes = []
    for suffix in ("", HALVED):
        url = new_postgres_url()
        with closing(created(f"{url}{suffix}", 1_024)) as store:
            store.publish(records(500, dimension=1_024), [])
        with psycopg.connect(url) as connection:
            row = connection.execute(
                "SELECT avg(pg_column_size(embedding)) FROM undrift.vectors"
            ).fetchone()
            assert row is not None
            sizes.append(float(row[0]))
    whole, half = sizes
    assert 1.95 < whole / half < 2.05


def test_a_sync_over_halves_repairs_and_finds(postgres: World) -> None:
    """From the profile to the search."""
    postgres.put(1, {"skills": ["SQL", "Go", "Rust"]})
    sides = postgres.open(store_url=f"{postgres.store_url}{HALVED}")
    assert sides.sync("1").is_in_sync
    assert sides.check("1").in_sync
    assert sides.search("1", "Rust", limit=1).hits[0].text == "Rust"
    postgres.put(1, {"skills": ["SQL", "Rust"]})
    assert sides.sync("1").is_in_sync
    assert len(sides.search("1", "Rust", limit=10).hits) == 2


class Stretching(CountingEmbedder):
    """Makes vectors that no half can hold of some texts."""

    def embed(self, texts: Sequence[str], purpose: Purpose = "document") -> Vectors:
        """Embed *texts*; a stretched vector points where it did."""
        lengths = [1e6 if "huge" in text else 1.0 for text in texts]
        return super().embed(texts, purpose) * np.array(lengths, dtype=np.float32)[:, np.newaxis]


def test_one_users_unstorable_vector_stops_nobody_else(postgres: World) -> None:
    """It fails and is named; whole vectors, as the control, hold it."""
    postgres.put_all({"1": {"skills": ["SQL"]}, "2": {"skills": ["huge", "Go"]}})
    halved = postgres.open(
        store_url=f"{postgres.store_url}?table=undrift.halves&vectors=halfvec",
        embedder=Stretching(),
    )
    outcomes = {report.owner_id: report for report in halved.sync_all()}
    assert outcomes["1"].is_in_sync
    assert outcomes["2"].outcome is Outcome.FAILED
    assert "of user '2'" in str(outcomes["2"].error)
    assert "65504" in str(outcomes["2"].error)
    whole = postgres.open(embedder=Stretching())
    assert all(report.is_in_sync for report in whole.sync_all())


# --- what halves can hold -----------------------------------------------------------------------


def test_all_that_is_accepted_is_as_near_as_halves_come() -> None:
    """Random vectors of every length a half can hold, and none of them refused."""
    for exponent in range(-3, 5):
        batch = list(vectors(200, seed=exponent + 3, dimension=384) * np.float32(10.0**exponent))
        assert why_not_halved(batch) is None


def test_the_vector_that_is_refused_is_named_by_its_number() -> None:
    """The first of them."""
    batch = list(vectors(5))
    batch[3] = batch[3] * np.float32(1e6)
    batch[4] = batch[4] * np.float32(1e6)
    found = why_not_halved(batch)
    assert found is not None
    assert found[0] == 3


# --- indexes over halves ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", IndexType)
@pytest.mark.parametrize("dimension", [DIMENSION, 2_001, 4_000])
def test_the_column_itself_is_indexed(
    postgres_url: str, sql: psycopg.Connection, dimension: int, kind: IndexType
) -> None:
    """No cast in between, whatever the number of components."""
    with closing(created(f"{postgres_url}{HALVED}", dimension)) as store:
        store.publish(records(5, dimension=dimension), [])
        status = store.build_index(IndexParameters(type=kind))
        assert status.operator_class == "halfvec_cosine_ops"
    ((definition,),) = sql.execute(
        "SELECT indexdef FROM pg_indexes WHERE indexname = %s", [f"vectors_{kind}"]
    ).fetchall()
    assert "(embedding halfvec_cosine_ops)" in definition


def test_more_components_than_an_index_takes_are_searched_exactly(postgres_url: str) -> None:
    """A halfvec holds more of them than an index does."""
    with closing(created(f"{postgres_url}{HALVED}", 4_001)) as store:
        store.publish(records(3, dimension=4_001), [])
        query = vectors(1, dimension=4_001)[0]
        assert len(store.search("1", query, model=MODEL, kinds=None, limit=5)) == 3
        with pytest.raises(ConfigError, match="4001 components"):
            store.build_index(IndexParameters())
