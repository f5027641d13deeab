"""The embedder: whether there is one of that name, whether it loads, and what it is worth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from undrift.config import Settings
from undrift.embedders import close_embedder, open_embedder
from undrift.errors import UndriftError
from undrift.findings import Finding, of_error, ok, problem, warning
from undrift.ports import Embedder

_REMOTE = "openai:"
_TRIED = "undrift"


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundEmbedder:
    """What is known of the embedder; None where it cannot be opened."""

    findings: tuple[Finding, ...]
    model: str | None = None
    dimension: int | None = None


def probe_embedder(settings: Settings, *, online: bool) -> FoundEmbedder:
    """Open the embedder and embed one word.

    Args:
        online: whether a service may be asked, too.
    """
    try:
        embedder = open_embedder(settings.embedder, settings.embedder_options)
        model, dimension = embedder.model, embedder.dimension
    except UndriftError as error:
        return FoundEmbedder(findings=(of_error("embedder.name", error),))
    try:
        findings = list(_findings(settings.embedder, embedder, online=online))
    finally:
        close_embedder(embedder)
    return FoundEmbedder(findings=tuple(findings), model=model, dimension=dimension)


def _findings(name: str, embedder: Embedder, *, online: bool) -> Iterator[Finding]:
    yield ok(
        "embedder.name",
        f"{name} makes vectors of {embedder.dimension} components ({embedder.model})",
    )
    notice = getattr(embedder, "notice", "")
    if notice:
        yield warning(
            "embedder.meaning",
            str(notice).rstrip("."),
            "pip install 'undrift[local]', and UNDRIFT_EMBEDDER=local",
        )
    if name.startswith(_REMOTE) and not online:
        yield ok(
            "embedder.online",
            "The service was not asked, as that costs a request; `undrift doctor --online` embeds "
            "one word there",
        )
        return
    yield _works(embedder)


def _works(embedder: Embedder) -> Finding:
    try:
        vectors = embedder.embed([_TRIED])
    except UndriftError as error:
        # A check compares fingerprints and needs no vector.
        return of_error("embedder.works", error, stops_check=False)
    if vectors.shape != (1, embedder.dimension):
        return problem(
            "embedder.works",
            f"It answers one text with vectors of the shape {vectors.shape}",
            f"set dimension = {vectors.shape[-1]} under [embedder], if that is its dimension",
            stops_check=False,
        )
    return ok("embedder.works", "It embeds (tried with one word)")
