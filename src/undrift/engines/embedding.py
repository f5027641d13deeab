"""Embedding as actors of a Ray cluster: each loads the model once, and may hold a GPU.

The tasks that sync pages reach them through a `RemoteEmbedder`. An actor that is lost is started
again, elsewhere if need be, and asked again whatever it had not answered.
"""

from __future__ import annotations

import os
import pickle
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

from undrift.embedding import errors_translated
from undrift.engines.cluster import Cluster
from undrift.engines.orders import require_release
from undrift.engines.tasks import not_installed
from undrift.errors import ConfigError, UndriftError, UnknownStateError
from undrift.ports import Embedder, Purpose, Vectors
from undrift.recipe import EmbedderOpening, release

if TYPE_CHECKING:
    from ray import ObjectRef

T = TypeVar("T")

MAX_EMBEDDERS = 1_000

RENEW_SECONDS = 5.0
"""How often whoever waits for vectors says that the work goes on."""

EmbedValues = tuple[str, bytes, str]
"""The release of undrift, which stays the first; what opens the embedder, pickled; its model."""


class Embedded(NamedTuple):
    """What an actor answers.

    Attributes:
        truncated: the places of those texts of which the model reads only the beginning.
    """

    vectors: Vectors
    truncated: frozenset[int]


class ActorMethod(Protocol[T]):
    """A method of an actor, as everybody else sees it."""

    def remote(self, *arguments: object) -> ObjectRef[T | UndriftError]:
        """Call it there."""


class Actor(Protocol):
    """An actor that embeds."""

    @property
    def embed(self) -> ActorMethod[Embedded]:
        """See `embed_here`."""

    @property
    def count_truncated(self) -> ActorMethod[int]:
        """See `Embedder.count_truncated`."""


# --- where the run was started --------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedderPool:
    """How many actors embed, and what each of them holds.

    Attributes:
        embedders: so many actors.
        gpus: GPUs that each of them holds, or a part of one; 0 for none.
        max_retries: times that texts are asked for again when the actor that had them was lost; 0
            starts no actor again.
    """

    embedders: int = 1
    gpus: float = 0.0
    max_retries: int = 5

    def start(self, cluster: Cluster, opening: EmbedderOpening) -> list[Actor]:
        """Start them.

        Raises:
            ConfigError: there are not so many GPUs, or the embedder cannot be sent.
        """
        self._require_possible(cluster)
        options: dict[str, float] = {"num_gpus": self.gpus, "num_cpus": 0} if self.gpus else {}
        actor = cluster.ray.remote(
            max_restarts=-1 if self.max_retries else 0,
            max_task_retries=self.max_retries,
            scheduling_strategy="SPREAD",
            **options,
        )(_actor())
        values = (release(), _pickled(opening, cluster), opening.model)
        return [actor.remote(values) for _ in range(self.embedders)]

    def _require_possible(self, cluster: Cluster) -> None:
        is_shareable = 0 <= self.gpus <= 1 or float(self.gpus).is_integer()
        if not 1 <= self.embedders <= MAX_EMBEDDERS or not is_shareable or self.gpus < 0:
            raise ConfigError(
                f"--embedders {self.embedders} with {self.gpus:g} GPUs each is not possible",
                why=f"a sync has 1 to {MAX_EMBEDDERS} embedders, each with no GPU, a part of one, "
                "or so many whole ones.",
                fix="correct --embedders and --gpus-per-embedder, or leave them out",
            )
        if not self.gpus:
            return
        gpus = cluster.gpus()
        room = room_for(self.gpus, gpus)
        if room < self.embedders:
            raise ConfigError(
                "The cluster has not so many GPUs",
                why=f"its {sum(gpus)} have room for {room} embedders with {self.gpus:g} each, and "
                f"--embedders is {self.embedders}.",
                fix="give a smaller --embedders or --gpus-per-embedder, or add machines with GPUs "
                "first",
            )


def room_for(each: float, gpus: Iterable[int]) -> int:
    """How many embedders fit, where one takes *each* GPUs of one machine, or that part of one.

    Args:
        gpus: of every machine.
    """
    if each < 1:
        return sum(gpus) * int(1 / each)
    return sum(found // int(each) for found in gpus)


def _pickled(opening: EmbedderOpening, cluster: Cluster) -> bytes:
    try:
        pickled: bytes = cluster.ray.cloudpickle.dumps(opening.open)
    except (TypeError, AttributeError, pickle.PicklingError) as exc:
        raise ConfigError(
            "The embedder cannot be sent to other machines",
            why=f"it is an object that cannot be pickled ({type(exc).__name__}).",
            fix="give the embedder by its name, or as an object that opens its model when it is "
            "first asked",
        ) from exc
    return pickled


def _actor() -> type:
    """The actor's class."""
    # A class within a function travels whole, as the task of a page does.

    class EmbedderActor:
        def __init__(self, values: EmbedValues) -> None:
            self._values = values

        def embed(self, texts: Sequence[str], purpose: Purpose) -> Embedded | UndriftError:
            from undrift.engines.embedding import embed_here

            return embed_here(self._values, texts, purpose)

        def count_truncated(self, texts: Sequence[str]) -> int | UndriftError:
            from undrift.engines.embedding import count_truncated_here

            return count_truncated_here(self._values, texts)

    return EmbedderActor


# --- in an actor ----------------------------------------------------------------------------------

_opened: dict[bytes, Embedder] = {}


def embed_here(
    values: EmbedValues, texts: Sequence[str], purpose: Purpose
) -> Embedded | UndriftError:
    """Embed *texts* in this process, whose embedder is opened by the first call.

    Returns:
        An error as a value, because what is raised in an actor arrives as something else.
    """
    try:
        embedder = _embedder(values)
        # What a model raises may quote the texts, and Ray shows on its pages what an actor raises.
        with errors_translated(embedder, len(texts)):
            return Embedded(embedder.embed(texts, purpose), _truncated(embedder, texts))
    except UndriftError as exc:
        return exc


def count_truncated_here(values: EmbedValues, texts: Sequence[str]) -> int | UndriftError:
    """See `Embedder.count_truncated`."""
    try:
        embedder = _embedder(values)
        with errors_translated(embedder, len(texts)):
            return embedder.count_truncated(texts)
    except UndriftError as exc:
        return exc


def _embedder(values: EmbedValues) -> Embedder:
    require_release(values[0])
    _, opening, model = values
    if opening not in _opened:
        _opened[opening] = _open(opening, model)
    return _opened[opening]


def _open(opening: bytes, model: str) -> Embedder:
    open_embedder: Callable[[], Embedder] = pickle.loads(opening)  # noqa: S301 - our own
    embedder = open_embedder()
    if embedder.model != model:
        raise ConfigError(
            "The machines have different embedders",
            why=f"{socket.gethostname()} embeds with {embedder.model}, and the run with {model}.",
            fix="install the same models on every machine",
        )
    return embedder


def _truncated(embedder: Embedder, texts: Sequence[str]) -> frozenset[int]:
    # Nearly always none, and one question settles that.
    if not embedder.count_truncated(texts):
        return frozenset()
    count = embedder.count_truncated
    return frozenset(place for place, text in enumerate(texts) if count([text]))


# --- in a task ------------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class RemoteEmbedder:
    """An embedder whose work is done by actors.

    Attributes:
        while_waiting: called now and then while vectors are waited for.

    Safety:
        For one thread.
    """

    actors: Sequence[Actor]
    model: str
    dimension: int
    while_waiting: Callable[[], None] = lambda: None
    _truncated: frozenset[str] = frozenset()
    _asked: frozenset[str] = frozenset()
    _next: int = field(default_factory=os.getpid)  # not everybody begins with the same one

    def embed(self, texts: Sequence[str], purpose: Purpose = "document") -> Vectors:
        """Have *texts* embedded, each time by the next of the actors.

        Raises:
            EmbeddingFailed: the embedder failed, as it would have failed here.
            ConfigError: it is not installed there, or is another one.
            UnknownStateError: every process that had these texts was lost.
        """
        embedded = self._answer(self._actor().embed.remote(list(texts), purpose))
        self._asked = frozenset(texts)
        self._truncated = frozenset(texts[place] for place in embedded.truncated)
        return embedded.vectors

    def count_truncated(self, texts: Sequence[str]) -> int:
        """How many of *texts* are longer than what is read of them; errors as `embed` has them."""
        if self._asked.issuperset(texts):  # it came with the vectors
            return sum(text in self._truncated for text in texts)
        return self._answer(self._actor().count_truncated.remote(list(texts)))

    def _actor(self) -> Actor:
        self._next += 1
        return self.actors[self._next % len(self.actors)]

    def _answer(self, reference: ObjectRef[T | UndriftError]) -> T:
        ray = import_module("ray")
        try:
            while not ray.wait([reference], timeout=RENEW_SECONDS)[0]:
                self.while_waiting()
            found: T | UndriftError = ray.get(reference)
        except ray.exceptions.RayTaskError as exc:
            if isinstance(exc.cause, ModuleNotFoundError):
                raise not_installed(exc.cause) from exc
            raise
        except ray.exceptions.RayError as exc:
            raise _lost(exc) from exc
        if isinstance(found, UndriftError):
            raise found
        return found


def _lost(failure: BaseException) -> UnknownStateError:
    return UnknownStateError(
        "The cluster could not embed some texts",
        why=f"every process that had them was lost ({type(failure).__name__}).",
        fix="look at `ray status` and at the machines' memory, then run the same command again",
    )
