"""What names tell: of kinds, owners, titles, and what does not belong into a text."""

from __future__ import annotations

import keyword
import re
import unicodedata
from collections.abc import Iterable, Mapping

from undrift.errors import ConfigError
from undrift.templates import variables

TITLES = (
    "title",
    "name",
    "label",
    "headline",
    "heading",
    "subject",
    "position",
    "role",
    "degree",
    "school",
    "company",
    "organization",
    "question",
    "value",
)
"""Names of what an entity is called, the likeliest first."""

LONG_NAMES = frozenset(
    {"about", "answer", "bio", "body", "comment", "content", "description", "note", "notes"}
    | {"summary", "text"}
)
"""Names of what is long, for columns that hold nothing yet."""

_KINDS = {
    "experience": "experience",
    "job": "experience",
    "work": "experience",
    "work_experience": "experience",
    "work_history": "experience",
    "employment": "experience",
    "project": "project",
    "education": "education",
    "skill": "skill",
}
_OWNERS = (
    "userid",
    "user",
    "ownerid",
    "owner",
    "accountid",
    "account",
    "customerid",
    "memberid",
    "personid",
    "profileid",
    "candidateid",
    "employeeid",
    "authorid",
    "tenantid",
    "tenant",
    "uid",
    "username",
)
_OWNING_TABLES = frozenset(
    {"account", "author", "candidate", "customer", "employee", "member", "person", "people"}
    | {"profile", "tenant", "user"}
)
_SECRET = re.compile(
    r"passw|secret|token|api_?key|credential|hash|salt|ssn|iban|card_?n|private", re.IGNORECASE
)
_REFERENCE = re.compile(r"(^|_)(id|uuid|guid|ref|key|slug)$|[a-z](Id|Uuid|ID|UUID|Ref|Key)$")
_LABELS = frozenset(
    {"color", "currency", "format", "icon", "lang", "language_code", "locale", "mime_type"}
    | {"source", "state", "status", "timezone", "type", "version", "visibility"}
)
_MACHINERY = re.compile(
    r"session|token|password|oauth|migration|alembic|audit|(^|_)logs?$|(^|_)events?$|api_?key"
    r"|notification|django|(^|_)auth_|queue|(^|_)jobs?_(queue|run)|schema_version",
    re.IGNORECASE,
)


def kind_of(name: str) -> str:
    """The kind that a list or a table called *name* holds."""
    kind = _singular(_snake(name))
    return _KINDS.get(kind, kind) or "entity"


def owner_in(columns: Iterable[str], references: Mapping[str, str]) -> str | None:
    """Which of *columns* says whose a row is; None if none does.

    Args:
        references: the table that a column's foreign key points at.
    """
    by_name = {_snake(name).replace("_", ""): name for name in columns}
    for owner in _OWNERS:
        if owner in by_name:
            return by_name[owner]
    for column, table in references.items():
        if _singular(_snake(table)) in _OWNING_TABLES:
            return column
    return None


def is_secret(name: str) -> bool:
    """Whether a field of this name must not leave the source."""
    return _SECRET.search(name) is not None


def is_reference(name: str) -> bool:
    """Whether a field of this name points at something, and says nothing."""
    return _REFERENCE.search(name) is not None


def is_label(name: str) -> bool:
    """Whether a field of this name sorts things, and does not describe them."""
    return _snake(name) in _LABELS


def is_machinery(table: str) -> bool:
    """Whether a table of this name belongs to the application's works, not to its users."""
    return _MACHINERY.search(table) is not None


def title_rank(name: str) -> int:
    """How far from being a title a field of this name is."""
    plain = _snake(name)
    return TITLES.index(plain) if plain in TITLES else len(TITLES)


class TemplateNames:
    """Names that templates can read, for fields that may be called anything.

    Args:
        fields: every field there is; a new name is none of them.

    Attributes:
        aliases: the fields behind those names that had to be made up.
    """

    def __init__(self, fields: Iterable[str]) -> None:
        self._taken = set(fields)
        self.aliases: dict[str, tuple[str, ...]] = {}

    def name(self, field: str) -> str:
        """The name under which a template reads *field*."""
        if is_readable(field):
            return field
        for name, fields in self.aliases.items():
            if field in fields:
                return name
        name = _snake(unicodedata.normalize("NFKC", field)) or "field"
        name = name if name[0].isalpha() else f"field_{name}"
        if not _is_plain(f"{name}_"):
            # Digits such as the Tamil ten are part of words, and of no identifier: nothing that
            # is appended makes one of it.
            name = "field"
        while name in self._taken or not is_readable(name):
            name += "_"
        self._taken.add(name)
        self.aliases[name] = (field,)
        return name


def is_readable(name: str) -> bool:
    """Whether a template can name the field *name* as it is."""
    if not _is_plain(name) or keyword.iskeyword(name) or name == "parent":
        return False
    try:
        return variables(f"{{{{ {name} }}}}", where="a field") == (name,)
    except ConfigError:
        return False


def _is_plain(name: str) -> bool:
    return name.isidentifier() and unicodedata.normalize("NFKC", name) == name


def _snake(name: str) -> str:
    words = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name)
    return re.sub(r"\W+", "_", words).strip("_").lower()


def _singular(name: str) -> str:
    if name.endswith("ies") and len(name) > 4:
        return f"{name[:-3]}y"
    if name.endswith(("sses", "xes", "ches", "shes")):
        return name[:-2]
    if name.endswith("s") and not name.endswith(("ss", "us", "is", "news", "series")):
        return name[:-1]
    return name
