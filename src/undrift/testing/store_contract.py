"""What every vector store promises; an adapter's tests are this class with its hooks filled in.

    class TestMyStore(StoreContract):
        opener = "my_package:open_my_store"     # module:function, also called in other processes

        @pytest.fixture(scope="class")
        @classmethod
        def new_location(cls) -> Callable[[], str]:
            return lambda: f"my-store://localhost/{uuid4()}"

        def damage(self, location, vector_id, field, value): ...
        def insert_foreign(self, location, vector_id, owner_id): ...
        def lose_vector(self, location, vector_id): ...
        def stored_vector(self, location, vector_id): ...

`ClaimableStoreContract` adds what a store promises that a state orders the writes of, and
`TransactionalStoreContract` what one promises whose database can hold that state; it needs an
attribute ``fence_opener``, which names a function as ``opener`` does.

A part is skipped only where the store's `capabilities` declare that the promise is not made, with
the reason they give. A store passes the failpoints ``store.publish.…`` in their order.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

# Before the parts are imported: pytest explains the failed assertions of modules it knows of.
pytest.register_assert_rewrite(
    "undrift.testing._store_claims",
    "undrift.testing._store_digests",
    "undrift.testing._store_enumeration",
    "undrift.testing._store_fencing",
    "undrift.testing._store_fixtures",
    "undrift.testing._store_processes",
    "undrift.testing._store_publishing",
    "undrift.testing._store_search",
    "undrift.testing._store_tombstones",
)

from undrift.ports import StoreClass, VectorStore  # noqa: E402
from undrift.testing._store_claims import ClaimContract  # noqa: E402
from undrift.testing._store_digests import DigestContract  # noqa: E402
from undrift.testing._store_enumeration import EnumerationContract  # noqa: E402
from undrift.testing._store_fencing import FencingContract  # noqa: E402
from undrift.testing._store_fixtures import Open, StoreFixtures, enumerated, stamps_of  # noqa: E402
from undrift.testing._store_processes import ProcessContract  # noqa: E402
from undrift.testing._store_publishing import PublishingContract  # noqa: E402
from undrift.testing._store_search import SearchContract  # noqa: E402
from undrift.testing._store_tombstones import TombstoneContract  # noqa: E402
from undrift.testing.builders import DIMENSION, records  # noqa: E402

__all__ = [
    "ClaimableStoreContract",
    "SearchContract",
    "StoreContract",
    "StoreFixtures",
    "TransactionalStoreContract",
]


class StoreContract(
    EnumerationContract, DigestContract, PublishingContract, SearchContract, ProcessContract
):
    """The promises of `undrift.ports.VectorStore`, and of `undrift.digests.DigestingStore`."""

    def test_a_store_that_was_not_created_does_not_exist(self, open_store: Open) -> None:
        """Looking creates nothing."""
        store = open_store()
        for _ in range(2):
            info = store.describe()
            assert not info.exists
            assert info.dimension is None
            assert info.location
        assert not open_store().describe().exists

    def test_create_twice_keeps_what_is_there(self, store: VectorStore) -> None:
        """It only adds what is missing."""
        store.publish(records(3), [])
        store.create(DIMENSION)
        assert enumerated(store, "1") == stamps_of(records(3))
        assert all(isinstance(statement, str) for statement in store.ddl(DIMENSION))

    def test_a_store_with_vectors_knows_their_dimension(
        self, store: VectorStore, open_store: Open
    ) -> None:
        """And says what a person does to have another."""
        assert store.describe().dimension in (DIMENSION, None)
        store.publish(records(1), [])
        for described in (store.describe(), open_store().describe()):
            assert described.exists
            assert described.dimension == DIMENSION
            assert described.change_dimension

    def test_every_promise_that_is_not_made_has_a_reason(
        self, store: VectorStore, record_property: Callable[[str, object], None]
    ) -> None:
        """So that a person learns what to expect of this store."""
        capabilities = store.capabilities
        record_property("store_class", capabilities.store_class.value)
        record_property("tested_with", self.tested_with)
        record_property("why_not", json.dumps(dict(capabilities.why_not)))
        made = {
            "store_class": capabilities.store_class is StoreClass.TRANSACTIONAL,
            "atomic_records": capabilities.atomic_records > 0,
            "many_processes": capabilities.many_processes,
            "exact_owner_search": capabilities.exact_owner_search,
            "exact_vectors": capabilities.exact_vectors,
        }
        assert set(capabilities.why_not) == {name for name, is_made in made.items() if not is_made}
        assert all(capabilities.why_not.values())

    def test_closing_twice_is_no_error(self, store: VectorStore) -> None:
        """And nothing that was published is lost."""
        store.publish(records(2), [])
        store.close()
        store.close()
        assert enumerated(store, "1") == stamps_of(records(2))


class ClaimableStoreContract(StoreContract, TombstoneContract, ClaimContract):
    """The promises of `undrift.state.ClaimableStore` too."""


class TransactionalStoreContract(ClaimableStoreContract, FencingContract):
    """The promises of `undrift.state.TransactionalStore` too."""
