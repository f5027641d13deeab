"""Looks at a store through its port alone: what it says of itself, and whether it answers.

What a sync may write there nobody can try without writing, since such a store rolls nothing back;
the first sync finds out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from undrift.adoption import StoreFields
from undrift.errors import UndriftError
from undrift.findings import Finding, of_error, ok
from undrift.ports import Capabilities, StoreClass
from undrift.stores import database_of, open_store
from undrift.stores.probe import StoreProbe

_CLASSES = {
    StoreClass.TRANSACTIONAL: "vectors and state change in one transaction",
    StoreClass.CONDITIONAL: "late writes are refused by their versions",
    StoreClass.NEITHER: "late writes are kept out by leases and deadlines",
}
_OTHERS = {
    "many_processes": "It cannot be used by several processes at once",
    "exact_owner_search": "A search may miss some of the nearest",
    "exact_vectors": "Vectors are not stored bit for bit",
}


def probe_described(url: str, fields: StoreFields | None = None) -> StoreProbe:
    """Look at the store of *url*; writes nothing.

    Args:
        fields: where the parts of a stamp are found, in a collection that another program filled.
    """
    name = database_of(url)
    with closing(open_store(url, fields=fields)) as store:
        try:
            found = store.describe()
        except UndriftError as error:
            return StoreProbe(findings=(of_error("store.server", error),))
        created = "is there" if found.exists else "is not created yet; the first sync does that"
        return StoreProbe(
            findings=(
                ok("store.server", f"{name}: {found.location} {created}"),
                *_promises(store.capabilities),
            ),
            exists=found.exists,
            dimension=found.dimension,
            change_dimension=found.change_dimension,
        )


def _promises(capabilities: Capabilities) -> Iterator[Finding]:
    """What the store promises, and why it promises no more."""
    store_class, why_not = capabilities.store_class, capabilities.why_not
    reason = f" ({why_not['store_class']})" if "store_class" in why_not else ""
    yield ok("store.class", f"Its class is {store_class}: {_CLASSES[store_class]}{reason}")
    for promise, summary in _OTHERS.items():
        if promise in why_not:
            yield ok(f"store.{promise}", f"{summary}: {why_not[promise]}")
