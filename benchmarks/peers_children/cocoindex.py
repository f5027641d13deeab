"""CocoIndex from PostgreSQL to pgvector; its ledger in a folder, as usual."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import asyncpg
import cocoindex as coco
import numpy as np
from cocoindex.connectors import postgres
from cocoindex.resources.schema import VectorSchema
from numpy.typing import NDArray

from benchmarks.peers_children.hashing import Hashing
from benchmarks.peers_children.job import DIMENSION, Job, Prepared, Report, serve

BATCH = 256
HASHING = Hashing()
POOL = coco.ContextKey[asyncpg.Pool]("pool")


@coco.fn.as_async(batching=True, max_batch_size=BATCH)
def embed(texts: list[str]) -> list[NDArray[np.float32]]:
    """The hashing embedder, for single texts that CocoIndex gathers."""
    return list(HASHING.embed(texts))


@dataclass
class Row:
    """Of the source."""

    key: str
    owner: int
    text: str


@dataclass
class Embedded:
    """Of the target."""

    key: str
    owner: int
    text: str
    embedding: Annotated[NDArray[np.float32], VectorSchema(np.dtype(np.float32), DIMENSION)]


@coco.fn(memo=True)
async def embed_row(row: Row, table: postgres.TableTarget[Embedded]) -> None:
    """Declare one row of the target."""
    vector = await embed(row.text)
    table.declare_row(row=Embedded(row.key, row.owner, row.text, vector))


@coco.fn
async def embed_all() -> None:
    """Declare the target, a row for each of the source."""
    table = await postgres.mount_table_target(
        POOL,
        table_name="embedded",
        table_schema=await postgres.TableSchema.from_class(Embedded, primary_key=["key"]),
    )
    source = postgres.PgTableSource(coco.use_context(POOL), table_name="texts", row_type=Row)
    await coco.mount_each(embed_row, source.fetch_rows().items(lambda row: row.key), table)


def prepare(job: Job) -> Prepared:
    """Connect, and open the ledger."""

    @coco.lifespan
    async def lifespan(builder: coco.EnvironmentBuilder) -> AsyncIterator[None]:
        builder.settings.db_path = Path(job.folder) / "cocoindex"
        async with asyncpg.create_pool(job.url) as pool:
            builder.provide(POOL, pool)
            yield

    app = coco.App(coco.AppConfig(name="texts"), embed_all)
    coco.start_blocking()

    def work() -> Report:
        if job.do == "rebuild":
            app.drop_blocking()
        return _update(app, full=job.do == "repair")

    return Prepared(work, HASHING, coco.stop_blocking)


def _update(app: coco.App, *, full: bool) -> Report:
    async def update() -> Report:
        handle = app.update(full_reprocess=full)
        await handle.result()
        stats = handle.stats()
        assert stats is not None
        total = stats.total
        return {
            "adds": total.num_adds,
            "reprocesses": total.num_reprocesses,
            "deletes": total.num_deletes,
            "unchanged": total.num_unchanged,
            "errors": total.num_errors,
        }

    return asyncio.run(update())


if __name__ == "__main__":
    serve(prepare)
