"""Sources: the relational databases undrift reads, and the two layouts it reads from them.

`documents` holds one JSON document per owner, `tables` one row per entity.
"""

from __future__ import annotations

from collections.abc import Sequence

from undrift.mapping import FieldsRead, Mapping
from undrift.ports import Source


def open_source(url: str, mapping: Mapping, fields: Sequence[FieldsRead]) -> Source:
    """The source at *url*, in the layout that *mapping* describes. Connects to nothing yet.

    Args:
        url: ``postgresql://``, ``postgres://`` or ``sqlite:///``.
        fields: for each entity of the mapping the fields its templates read.

    Raises:
        ConfigError: the URL is malformed, or its driver is not installed.
    """
    from undrift.sources.database import Database
    from undrift.sources.documents import DocumentSource
    from undrift.sources.tables import TableSource

    database = Database(url)
    if mapping.documents is not None:
        return DocumentSource(database, mapping)
    return TableSource(database, mapping, fields)
