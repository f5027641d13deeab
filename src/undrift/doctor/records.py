"""The vector store: whether it can be read and written, and whether what it holds fits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from undrift.config import Settings, missing_store_url
from undrift.doctor.embedding import FoundEmbedder
from undrift.errors import UndriftError
from undrift.findings import Finding, of_error, ok, problem, warning
from undrift.stores.probe import COUNTED_RECORDS, RecordCount, StoreProbe, probe_store


def probe_records(settings: Settings, embedder: FoundEmbedder) -> Iterator[Finding]:
    """Look at the store of *settings*, and compare it with what the embedder makes."""
    if settings.store_url is None:
        if settings.source_url is not None:
            yield of_error("store.url", missing_store_url(settings.source_url))
        return
    try:
        probe = probe_store(
            settings.store_url, dimension=embedder.dimension, fields=settings.store_fields
        )
    except UndriftError as error:
        yield of_error("store.url", error)
        return
    yield from probe.findings
    if probe.exists:
        yield from _dimension(probe, embedder)
        if probe.counts is not None:
            yield from _records(settings, probe.counts, embedder)


def _dimension(probe: StoreProbe, embedder: FoundEmbedder) -> Iterator[Finding]:
    if probe.dimension is None or embedder.dimension is None:
        return
    if probe.dimension == embedder.dimension:
        yield ok("store.dimension", f"Its vectors have {probe.dimension} components, as they must")
    else:
        yield problem(
            "store.dimension",
            f"Its vectors have {probe.dimension} components, the embedder makes "
            f"{embedder.dimension}",
            probe.change_dimension,
        )


def _records(
    settings: Settings, counts: Sequence[RecordCount], embedder: FoundEmbedder
) -> Iterator[Finding]:
    kinds = set(settings.mapping.kinds)
    managed: Counter[str] = Counter()
    unmanaged: Counter[str] = Counter()
    for namespace, model, kind, records in counts:
        if namespace != settings.namespace:
            unmanaged[f"namespace {namespace}" if namespace else "no namespace"] += records
        elif kind not in kinds:
            unmanaged[f"kind {kind or 'none'}, which is not configured"] += records
        else:
            managed[model] += records
    total = managed.total()
    counted = "at least " if total + unmanaged.total() >= COUNTED_RECORDS else ""
    yield ok(
        "store.records", f"It holds {counted}{total} records of namespace {settings.namespace}"
    )
    if unmanaged:
        yield ok(
            "store.unmanaged",
            f"Further records are not undrift's to touch: {_listed(unmanaged.items())}",
        )
    others = {model: count for model, count in managed.items() if model != embedder.model}
    if others and embedder.model is not None:
        named = ((model or "no vector", count) for model, count in others.items())
        yield warning(
            "store.models",
            f"Records of other models than {embedder.model} are found by no search: "
            f"{_listed(named)}",
            "undrift sync --all",
        )


def _listed(counts: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{count} of {name}" for name, count in sorted(counts))
