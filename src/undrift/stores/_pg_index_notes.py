"""What one should know of an index, or of there being none, a sentence each. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from undrift.search_index import IndexState, IndexStatus, IndexType
from undrift.stores._pg_index import lists_for
from undrift.stores._pg_sql import APPROXIMATE_FROM_RECORDS

_WRITES_SLOWLY = (
    "with an index a sync takes 20 to 50 times as long to write a vector: build it after the "
    "first sync of everybody"
)
_LEARNS_ONCE = (
    "its lists stay as they were when it was built, and a sync takes up to 5 times as long to "
    "write a vector: build it after the first sync of everybody"
)

# pgvector's advice is a rule of thumb: lists that are so many times too few or too many do.
_FITTING = 4


def notes(status: IndexStatus, ours: Collection[str]) -> Iterator[str]:
    """What to say to *status*.

    Args:
        ours: the names of the indexes that undrift builds, without their schema.
    """
    if status.state is IndexState.INVALID:
        yield (
            "a build has not finished: no search uses the index; `undrift index build` replaces "
            "it, `undrift index drop` removes it"
        )
    if status.name is not None and status.name.rpartition(".")[2] not in ours:
        yield "this index is not one that undrift built, and is left alone"
    if status.state is IndexState.NONE and not status.is_worth_it:
        yield "no index is needed: an exact search is quick"
    if status.state is IndexState.NONE and status.is_worth_it:
        yield (
            "an exact search of the largest user takes long enough to be noticed: "
            "`undrift index build`, then ?search=approximate in VECTOR_URL"
        )
    if status.type is IndexType.IVFFLAT:
        yield from _of_lists(status)
    elif status.state is not IndexState.NONE or status.is_worth_it:
        yield _WRITES_SLOWLY
    if status.state is IndexState.VALID and not status.is_searched:
        yield (
            "undrift searches exactly and does not ask the index; ?search=approximate in "
            f"VECTOR_URL lets it, for users with {APPROXIMATE_FROM_RECORDS} records or more"
        )


def _of_lists(status: IndexStatus) -> Iterator[str]:
    """Whether an ivfflat index was built on anything like what there is now."""
    lists, learnt_from = status.lists or 1, status.built_on_records
    fitting = lists_for(status.records)
    is_fitting = fitting <= _FITTING * lists and lists <= _FITTING * fitting
    # A single list holds everything, and has nothing to learn.
    has_grown = (
        lists > 1 and learnt_from is not None and status.records > _FITTING * max(learnt_from, 1)
    )
    if is_fitting and not has_grown:
        yield _LEARNS_ONCE
        return
    origin = "" if learnt_from is None else f" and was built on {learnt_from} records"
    yield (
        f"it has lists = {lists}{origin}; the {status.records} records that there are now ask for "
        f"{fitting}, and a search finds less or takes longer than it could: `undrift index drop`, "
        "then `undrift index build --type ivfflat`"
    )
