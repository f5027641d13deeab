"""Where a pgvector store is, and what its tables and indexes are called there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import quote

from psycopg import sql

from undrift.errors import ConfigError
from undrift.postgres import read_url
from undrift.search_index import IndexType

DEFAULT_SCHEMA = "undrift"
DEFAULT_TABLE = "vectors"
CLAIMS_TABLE = "store_claim"

VectorType = Literal["vector", "halfvec"]
"""How the column stores a component: 4 bytes, or 2 of which 11 bits are the number."""

WHOLE: VectorType = "vector"
HALF: VectorType = "halfvec"

# PostgreSQL cuts names at 63 bytes, and the index's is nine longer than the table's.
_NAME_BYTES = 54


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The table that holds the vectors."""

    schema: str = DEFAULT_SCHEMA
    name: str = DEFAULT_TABLE

    @property
    def names(self) -> tuple[str, str]:
        """Schema and table, unquoted."""
        return self.schema, self.name

    @property
    def identifier(self) -> sql.Identifier:
        """Its name in a statement."""
        return sql.Identifier(*self.names)

    @property
    def claims_name(self) -> str:
        """The name of the table of claims beside it; in another's schema it says whose it is."""
        return CLAIMS_TABLE if self.schema == DEFAULT_SCHEMA else f"undrift_{CLAIMS_TABLE}"

    @property
    def claims(self) -> sql.Identifier:
        """The table of claims in a statement."""
        return sql.Identifier(self.schema, self.claims_name)

    @property
    def index_name(self) -> str:
        """The name of the index on owners."""
        return f"{self.name}_by_owner"

    def search_index_name(self, kind: IndexType) -> str:
        """The name of the optional index on vectors."""
        return f"{self.name}_{kind}"

    @property
    def search_index_names(self) -> list[str]:
        """The names of the optional indexes on vectors, of which there is mostly one at a time."""
        return [self.search_index_name(kind) for kind in IndexType]

    @property
    def lost_index_name(self) -> str:
        """The name of the index on records that have lost their vectors."""
        return f"{self.name}_lost"

    @property
    def buried_index_name(self) -> str:
        """The name of the index on tombstones."""
        return f"{self.name}_buried"

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptedTable(Table):
    """A table of another program's; what undrift keeps besides lies in its own schema."""

    @property
    def claims(self) -> sql.Identifier:
        """The table of claims in a statement."""
        return sql.Identifier(DEFAULT_SCHEMA, CLAIMS_TABLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a pgvector store is.

    Attributes:
        conninfo: for libpq, with the password.
        role: who connects, as far as the address or the environment tells.
        database: the database's name.
        location: for people, without the password.
        is_approximate: searches of large owners may ask the index on vectors.
        vectors: how they are to be stored; None leaves it to the table that is there, and a new
            one stores them whole.
    """

    conninfo: str = field(repr=False)
    table: Table
    role: str
    database: str
    location: str
    is_approximate: bool = False
    vectors: VectorType | None = None

    @property
    def state_url(self) -> str:
        """Where a state beside the vectors lives, with the password."""
        separator = "&" if "?" in self.conninfo else "?"
        return f"{self.conninfo}{separator}schema={quote(self.table.schema, safe='')}"


def parse_address(url: str, *, schema: str = DEFAULT_SCHEMA) -> Address:
    """Read ``postgresql://…[?table=schema.table&search=…&vectors=…&…]``; the rest is libpq's.

    ``postgres://`` and SQLAlchemy's ``postgresql+driver://`` mean the same.

    Args:
        schema: of a table that is named without one.

    Raises:
        ConfigError: the URL is malformed. The message shows nothing of it that may be secret.
    """
    parsed = read_url(url, ["table", "search", "vectors"])
    if parsed is None:
        raise _malformed()
    own = parsed.own
    table = _table(own["table"], schema) if "table" in own else Table(schema=schema)
    is_approximate = "search" in own and _is_approximate(own["search"])
    vectors = _vector_type(own["vectors"]) if "vectors" in own else None
    return Address(
        conninfo=parsed.conninfo,
        table=table,
        role=parsed.role,
        database=parsed.database,
        location=parsed.location(f"table={table}")
        + ("&search=approximate" if is_approximate else "")
        + ("&vectors=halfvec" if vectors == HALF else ""),
        is_approximate=is_approximate,
        vectors=vectors,
    )


def _table(name: str, default_schema: str) -> Table:
    schema, dot, table = name.rpartition(".")
    names = (schema if dot else default_schema, table)
    if not all(names) or "." in schema or max(len(part.encode()) for part in names) > _NAME_BYTES:
        raise ConfigError(
            "The vector store's table cannot be named like that",
            why=f"?table={name} is not of the form schema.table with names of at most "
            f"{_NAME_BYTES} bytes.",
            fix=f"write for example ?table={DEFAULT_SCHEMA}.{DEFAULT_TABLE}",
        )
    found = Table(schema=names[0], name=names[1])
    if found.name == found.claims_name:
        raise ConfigError(
            "The vector store's table cannot be named like that",
            why=f"undrift keeps the claims of its stores in {found}.",
            fix=f"write for example ?table={DEFAULT_SCHEMA}.{DEFAULT_TABLE}",
        )
    return found


def _is_approximate(search: str) -> bool:
    if search not in ("exact", "approximate"):
        raise ConfigError(
            "The vector store cannot be searched like that",
            why=f"?search={search} is neither exact nor approximate.",
            fix="write ?search=approximate in VECTOR_URL, or leave it out to search exactly",
        )
    return search == "approximate"


def _vector_type(vectors: str) -> VectorType:
    for known in (WHOLE, HALF):
        if vectors == known:
            return known
    raise ConfigError(
        "The vector store cannot keep vectors like that",
        why=f"?vectors={vectors} is neither vector nor halfvec.",
        fix="write ?vectors=halfvec in VECTOR_URL, which takes half the disk, or leave it out",
    )


def _malformed() -> ConfigError:
    return ConfigError(
        "The vector store's URL is malformed",
        why="it is not of the form postgresql://user:password@host:port/database?table=… (it is "
        "not shown, as it may hold a password).",
        fix="correct VECTOR_URL; in a user name or password write @ as %40, / as %2F, ? as %3F, "
        ": as %3A and % as %25",
    )
