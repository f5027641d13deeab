"""Whose LanceDB store it is: a claim for each namespace, in a table beside that of the records."""

from __future__ import annotations

from datetime import timedelta

import pyarrow as pa

from undrift.state import Claim
from undrift.stores import _lance_layout as layout
from undrift.stores._lance_commits import committed
from undrift.stores._lance_database import Database
from undrift.stores._lance_errors import mapped_errors

_SECONDS = timedelta(seconds=60)


class Claims:
    """The claim of one namespace."""

    def __init__(self, database: Database, namespace: str) -> None:
        self._database = database
        self._namespace = namespace

    def read(self) -> Claim | None:
        """The claim; None if nobody has claimed the namespace."""
        table = self._database.find_claims()
        if table is None:
            return None
        where = layout.any_of("namespace", [self._namespace])
        for batch in self._database.rows(table, where, layout.CLAIM_COLUMNS):
            for row in batch.to_pylist():
                return Claim(**row)
        return None

    def put(self, claim: Claim, *, replacing: Claim | None) -> bool:
        """Replace the claim if it is still *replacing*; return whether it was.

        One commit: its condition is checked against the version that it goes on top of.
        """
        if replacing is None:
            table = self._database.create_claims()
            merge = table.merge_insert("namespace").when_not_matched_insert_all()
        else:
            found = self._database.find_claims()
            if found is None:
                return False
            table = found
            merge = table.merge_insert("namespace").when_matched_update_all(where=_is(replacing))
        merge = merge.use_index(False)
        row = {**claim._asdict(), "namespace": self._namespace}
        rows = pa.Table.from_pylist([row], schema=layout.CLAIMS_SCHEMA)
        with mapped_errors(self._database.location):
            result = committed(lambda: merge.execute(rows, timeout=_SECONDS))
        return bool(result.num_updated_rows + result.num_inserted_rows)


def _is(claim: Claim) -> str:
    return (
        f"target.source = {layout.quoted(claim.source)} "
        f"AND target.state_id = {layout.quoted(claim.state_id)} AND target.epoch = {claim.epoch}"
    )
