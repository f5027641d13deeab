"""Keep a vector database true to the relational database it was built from.

    import undrift

    with undrift.Undrift.from_env() as sides:
        if not sides.check(123).is_in_sync:
            sides.sync(123)

Names are imported when they are first used: a program that only catches `UndriftError` loads no
database driver.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING

logging.getLogger(__name__).addHandler(logging.NullHandler())

if TYPE_CHECKING:
    from undrift.adoption import Field, StoreFields
    from undrift.aio import AsyncUndrift
    from undrift.api import Undrift
    from undrift.changes import ChangeStatus
    from undrift.connections import Setup
    from undrift.embedders.adapted import adapt_embedder
    from undrift.errors import (
        ConfigError,
        DimensionMismatch,
        EmbeddingBudgetSpent,
        EmbeddingFailed,
        IncompleteRead,
        InvalidDocument,
        OwnerNotFound,
        ProfileOutdated,
        SafetyStop,
        SourceUnavailable,
        StateMismatch,
        StateUnavailable,
        StoreUnavailable,
        Superseded,
        TransientError,
        UndriftError,
        UnknownStateError,
        UnsupportedError,
        WriteFailed,
    )
    from undrift.headcount import Headcount
    from undrift.heal import HealPolicy, set_testing
    from undrift.model import (
        Candidate,
        Cost,
        Entity,
        EntityId,
        Found,
        Heal,
        Healing,
        Hit,
        Outcome,
        Read,
        Retry,
        SearchResult,
        Stamp,
        SyncReport,
        SyncStatus,
    )
    from undrift.ports import StoreClass
    from undrift.scan.options import CheckOptions
    from undrift.search_index import (
        IndexParameters,
        IndexProgress,
        IndexState,
        IndexStatus,
        IndexType,
    )
    from undrift.service import StateInfo, SyncState
    from undrift.stamping import Stamped
    from undrift.state import (
        Claim,
        DeleteUsage,
        ParkedRecord,
        SeenWorker,
        Standing,
        StateSummary,
        WorkerReport,
    )
    from undrift.watch import WatchOptions

__all__ = [
    "AsyncUndrift",
    "Candidate",
    "ChangeStatus",
    "CheckOptions",
    "Claim",
    "ConfigError",
    "Cost",
    "DeleteUsage",
    "DimensionMismatch",
    "EmbeddingBudgetSpent",
    "EmbeddingFailed",
    "Entity",
    "EntityId",
    "Field",
    "Found",
    "Headcount",
    "Heal",
    "HealPolicy",
    "Healing",
    "Hit",
    "IncompleteRead",
    "IndexParameters",
    "IndexProgress",
    "IndexState",
    "IndexStatus",
    "IndexType",
    "InvalidDocument",
    "Outcome",
    "OwnerNotFound",
    "ParkedRecord",
    "ProfileOutdated",
    "Read",
    "Retry",
    "SafetyStop",
    "SearchResult",
    "SeenWorker",
    "Setup",
    "SourceUnavailable",
    "Stamp",
    "Stamped",
    "Standing",
    "StateInfo",
    "StateMismatch",
    "StateSummary",
    "StateUnavailable",
    "StoreClass",
    "StoreFields",
    "StoreUnavailable",
    "Superseded",
    "SyncReport",
    "SyncState",
    "SyncStatus",
    "TransientError",
    "Undrift",
    "UndriftError",
    "UnknownStateError",
    "UnsupportedError",
    "WatchOptions",
    "WorkerReport",
    "WriteFailed",
    "__version__",
    "adapt_embedder",
    "set_testing",
]

__version__ = "0.1.0"

_HOMES = {
    "AsyncUndrift": "undrift.aio",
    "Field": "undrift.adoption",
    "StoreFields": "undrift.adoption",
    "Setup": "undrift.connections",
    "Undrift": "undrift.api",
    "ChangeStatus": "undrift.changes",
    "adapt_embedder": "undrift.embedders.adapted",
    "Headcount": "undrift.headcount",
    "HealPolicy": "undrift.heal",
    "set_testing": "undrift.heal",
    "Candidate": "undrift.model",
    "Cost": "undrift.model",
    "Entity": "undrift.model",
    "EntityId": "undrift.model",
    "Found": "undrift.model",
    "Heal": "undrift.model",
    "Healing": "undrift.model",
    "Hit": "undrift.model",
    "Outcome": "undrift.model",
    "Read": "undrift.model",
    "Retry": "undrift.model",
    "SearchResult": "undrift.model",
    "Stamp": "undrift.model",
    "SyncReport": "undrift.model",
    "SyncStatus": "undrift.model",
    "StoreClass": "undrift.ports",
    "CheckOptions": "undrift.scan.options",
    "IndexParameters": "undrift.search_index",
    "IndexProgress": "undrift.search_index",
    "IndexState": "undrift.search_index",
    "IndexStatus": "undrift.search_index",
    "IndexType": "undrift.search_index",
    "Stamped": "undrift.stamping",
    "StateInfo": "undrift.service",
    "SyncState": "undrift.service",
    "Claim": "undrift.state",
    "DeleteUsage": "undrift.state",
    "ParkedRecord": "undrift.state",
    "SeenWorker": "undrift.state",
    "Standing": "undrift.state",
    "StateSummary": "undrift.state",
    "WorkerReport": "undrift.state",
    "WatchOptions": "undrift.watch",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "undrift.errors")), name)


def __dir__() -> list[str]:
    return list(__all__)
