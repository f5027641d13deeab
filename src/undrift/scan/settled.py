"""Who needs nothing: for a sync of everybody, which would look at each for nothing."""

from __future__ import annotations

from collections.abc import Sequence

from undrift.errors import UnknownStateError
from undrift.model import SyncStatus
from undrift.scan.page import PageCheck
from undrift.state import State


class SettledOwners:
    """Tells those of whom nothing is left to do and whose sides agree by their digests.

    Only where a publish is one transaction with the state: anywhere else a record that is older
    than the state says must be written again even where its content agrees, or a late write could
    still replace it.

    Safety:
        May be used from several threads.
    """

    def __init__(self, check: PageCheck, state: State) -> None:
        self._check = check
        self._state = state

    def __call__(self, owners: Sequence[str]) -> dict[str, SyncStatus]:
        """The statuses of those of *owners* who need nothing; none where it cannot be told."""
        try:
            live = self._state.settled_owners(owners)
            agreed = self._check.agreed([owner for owner in owners if owner in live])
        except UnknownStateError:
            return {}  # the look at each says why
        statuses = {owner: found.status() for owner, found in agreed.items()}
        return {
            owner: status
            for owner, status in statuses.items()
            if sum(status.store.values()) == live[owner]
        }
