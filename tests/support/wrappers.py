"""A source and a store that tell a test of every step before they make it.

A step is a call, or the next page or row of a stream. The test may count, raise, or change the
world in between. Pages are as small as the test likes, so that a few owners fill many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, TypeVar

from undrift.model import Stamp
from undrift.ports import (
    Capabilities,
    Deletion,
    Match,
    OwnerContent,
    Record,
    Source,
    SourceInfo,
    StoreInfo,
    Vectors,
    VectorStore,
)
from undrift.state import Claim, ClaimableStore, Expected, Fence, Tombstone, TransactionalStore

T = TypeVar("T")
Before = Callable[[str], None]


def nothing(step: str) -> None:
    """Let every step pass."""


class SteppedSource:
    """A `Source` whose steps are told to *before*."""

    def __init__(self, inner: Source, before: Before = nothing, *, page_owners: int = 500) -> None:
        self._inner = inner
        self._before = before
        self._page_owners = page_owners

    def describe(self) -> SourceInfo:
        """See `Source.describe`."""
        self._before("source.describe")
        return self._inner.describe()

    def owner_pages(self, page_owners: int, after: str | None = None) -> Iterator[Sequence[str]]:
        """See `Source.owner_pages`."""
        pages = self._inner.owner_pages(min(page_owners, self._page_owners), after)
        return _stepped(pages, self._before, "source.owner_pages")

    def present(self, owners: Sequence[str]) -> frozenset[str]:
        """See `Source.present`."""
        self._before("source.present")
        return self._inner.present(owners)

    def read(self, owners: Sequence[str]) -> Iterator[OwnerContent]:
        """See `Source.read`."""
        return _stepped(self._inner.read(owners), self._before, "source.read")

    def close(self) -> None:
        """See `Source.close`."""
        self._inner.close()


class SteppedClaimableStore:
    """A `VectorStore` whose steps are told to *before*, and whose publishes are written down.

    Attributes:
        published: of every publish that returned, how many writes and deletes it was given.
    """

    def __init__(
        self, inner: VectorStore, before: Before = nothing, *, page_owners: int = 500
    ) -> None:
        self._inner = inner
        self._before = before
        self._page_owners = page_owners
        self.published: list[tuple[int, int]] = []

    @property
    def namespace(self) -> str:
        """See `VectorStore.namespace`."""
        return self._inner.namespace

    @property
    def capabilities(self) -> Capabilities:
        """See `VectorStore.capabilities`."""
        return self._inner.capabilities

    def describe(self) -> StoreInfo:
        """See `VectorStore.describe`."""
        self._before("store.describe")
        return self._inner.describe()

    def ddl(self, dimension: int) -> Sequence[str]:
        """See `VectorStore.ddl`."""
        return self._inner.ddl(dimension)

    def create(self, dimension: int) -> None:
        """See `VectorStore.create`."""
        self._before("store.create")
        self._inner.create(dimension)

    def stamps(self, owners: Sequence[str]) -> Iterator[Stamp]:
        """See `VectorStore.stamps`."""
        return _stepped(self._inner.stamps(owners), self._before, "store.stamps")

    def stamps_by_vector_id(self, vector_ids: Sequence[str]) -> Iterator[Stamp]:
        """See `VectorStore.stamps_by_vector_id`."""
        found = self._inner.stamps_by_vector_id(vector_ids)
        return _stepped(found, self._before, "store.stamps_by_vector_id")

    def unmanaged(self, owners: Sequence[str]) -> Mapping[str, int]:
        """See `VectorStore.unmanaged`."""
        self._before("store.unmanaged")
        return self._inner.unmanaged(owners)

    def owners(self, after: str | None, limit: int) -> Sequence[str]:
        """See `VectorStore.owners`."""
        self._before("store.owners")
        return self._inner.owners(after, min(limit, self._page_owners))

    def publish(self, writes: Sequence[Record], deletes: Sequence[Deletion]) -> None:
        """See `VectorStore.publish`."""
        self._before("store.publish")
        self._inner.publish(writes, deletes)
        self.published.append((len(writes), len(deletes)))
        self._before("store.publish returned")

    def claim(self) -> Claim | None:
        """See `ClaimableStore.claim`."""
        return self._claimable.claim()

    def put_claim(self, claim: Claim, *, replacing: Claim | None) -> bool:
        """See `ClaimableStore.put_claim`."""
        return self._claimable.put_claim(claim, replacing=replacing)

    def tombstones(self, owners: Sequence[str]) -> Iterator[Tombstone]:
        """See `ClaimableStore.tombstones`."""
        return self._claimable.tombstones(owners)

    def bury(self, tombstones: Sequence[Tombstone]) -> None:
        """See `ClaimableStore.bury`."""
        self._claimable.bury(tombstones)

    def collect(self, tombstones: Sequence[Tombstone]) -> None:
        """See `ClaimableStore.collect`."""
        self._claimable.collect(tombstones)

    @property
    def _claimable(self) -> ClaimableStore:
        assert isinstance(self._inner, ClaimableStore)
        return self._inner

    def search(
        self,
        owner_id: str,
        vector: Vectors,
        *,
        model: str,
        kinds: Sequence[str] | None,
        limit: int,
    ) -> Sequence[Match]:
        """See `VectorStore.search`."""
        self._before("store.search")
        return self._inner.search(owner_id, vector, model=model, kinds=kinds, limit=limit)

    def close(self) -> None:
        """See `VectorStore.close`."""
        self._inner.close()


class SteppedStore(SteppedClaimableStore):
    """The same for a store whose database can hold the state too."""

    def publish_fenced(
        self,
        writes: Sequence[Record],
        deletes: Sequence[Deletion],
        expected: Sequence[Expected],
        fence: Fence,
    ) -> frozenset[str]:
        """See `TransactionalStore.publish_fenced`."""
        self._before("store.publish")
        left_out = self._fencing.publish_fenced(writes, deletes, expected, fence)
        self.published.append((len(writes), len(deletes)))
        self._before("store.publish returned")
        return left_out

    def state_address(self) -> tuple[str, str]:
        """See `TransactionalStore.state_address`."""
        return self._fencing.state_address()

    @property
    def _fencing(self) -> TransactionalStore:
        assert isinstance(self._inner, TransactionalStore)
        return self._inner


def _stepped(items: Iterator[T], before: Before, name: str) -> Iterator[T]:
    """*items*, with a step before each of them and one before the end."""
    stream: Any = items  # every adapter's is a generator, which has to be closed
    step = name
    with closing(stream):
        while True:
            before(step)
            try:
                item = next(stream)
            except StopIteration:
                return
            yield item
            step = f"{name} next"
