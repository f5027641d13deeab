"""Where a state in PostgreSQL is, and what its tables are called there."""

from __future__ import annotations

from dataclasses import dataclass, field

from psycopg import sql

from undrift.errors import ConfigError
from undrift.postgres import read_url

DEFAULT_SCHEMA = "undrift"

_NAME_BYTES = 63  # PostgreSQL cuts what is longer

MEMORY_TABLES = ("state_memo", "state_run", "state_result")
"""Those of what is remembered of whole fleets; they came with version 2."""

TABLES = (
    "state_layout",
    "state_standing",
    "state_config",
    "owner_state",
    "entity_state",
    "kind_state",
    "state_delete",
    "state_worker",
    *MEMORY_TABLES,
)
"""Every table of a state; in a schema that is not undrift's, ``undrift_`` comes before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a state is.

    Attributes:
        conninfo: for libpq, with the password.
        role: who connects, as far as the address or the environment tells.
        location: for people, without the password.
    """

    conninfo: str = field(repr=False)
    schema: str
    role: str
    database: str
    location: str

    @property
    def prefix(self) -> str:
        """What the tables' names begin with: in another's schema they say whose they are."""
        return "" if self.schema == DEFAULT_SCHEMA else "undrift_"

    def table(self, name: str) -> sql.Identifier:
        """One of `TABLES`, in a statement."""
        return sql.Identifier(self.schema, self.prefix + name)


def parse_address(url: str, schema: str | None = None) -> Address:
    """Read ``postgresql://…[?schema=undrift&…]``; the other parameters are libpq's.

    Args:
        schema: what the URL may say as well; the URL's counts.

    Raises:
        ConfigError: the URL is malformed. The message shows nothing of it that may be secret.
    """
    parsed = read_url(url, ["schema"])
    if parsed is None:
        raise ConfigError(
            "The state's URL is malformed",
            why="it is not of the form postgresql://user:password@host:port/database?schema=… (it "
            "is not shown, as it may hold a password).",
            fix="correct state.url; in a user name or password write @ as %40, / as %2F, ? as %3F, "
            ": as %3A and % as %25",
        )
    name = parsed.own.get("schema", DEFAULT_SCHEMA if schema is None else schema)
    if not 0 < len(name.encode()) <= _NAME_BYTES or "\x00" in name:
        raise ConfigError(
            "The state's schema cannot be named like that",
            why=f"{name[:_NAME_BYTES]!a} is not a name of 1 to {_NAME_BYTES} bytes.",
            fix=f"write for example ?schema={DEFAULT_SCHEMA}",
        )
    return Address(
        conninfo=parsed.conninfo,
        schema=name,
        role=parsed.role,
        database=parsed.database,
        location=parsed.location(f"schema={name}"),
    )
