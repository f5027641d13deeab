"""Check: read both sides, look twice before saying drift, write nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from undrift.diff import OwnerDiff, standing
from undrift.fleet import PAGE_OWNERS, PageFailures, fleet_pages
from undrift.look import Look, Sides
from undrift.model import Outcome, SyncStatus
from undrift.ports import OwnerContent


@dataclass(frozen=True, slots=True)
class Checked:
    """A status, with the difference it came from; None where undrift could not look."""

    status: SyncStatus
    diff: OwnerDiff | None = None


def check_owners(
    sides: Sides,
    owners: Sequence[str],
    *,
    given: Mapping[str, OwnerContent] | None = None,
    expects_drift: bool = False,
) -> list[Checked]:
    """Check *owners*, all in one look, and those that differ in a second one.

    Args:
        given: content to use in place of the first read of the source; the second look always
            reads the source.
        expects_drift: most of them differ; the second look reads all of that again, and renders
            what is no more as it was.

    Order:
        That of *owners*.
    """
    before: Mapping[str, Look] | None = {} if expects_drift else None
    first = sides.look(owners, first="store", before=before, given=given)
    diffs: dict[str, OwnerDiff] = {}
    checked: dict[str, Checked] = {}
    for owner, look in first.items():
        if look.error is not None:
            checked[owner] = Checked(SyncStatus.unknown(owner, look.error))
            continue
        diff = sides.diff(look)
        if diff.is_clean:
            status = sides.status(diff, look)
            if given is not None and owner in given:
                status = replace(status, against="profile")
            checked[owner] = Checked(status, diff)
        else:
            diffs[owner] = diff
    if diffs:
        before = first if expects_drift else None
        again = sides.look(list(diffs), first="source", before=before)
        for owner, diff in diffs.items():
            checked[owner] = _confirmed(sides, diff, again[owner])
    return [checked[owner] for owner in owners]


def _confirmed(sides: Sides, first: OwnerDiff, look: Look) -> Checked:
    if look.error is not None:
        return Checked(SyncStatus.unknown(look.owner_id, look.error))
    second = sides.diff(look)
    stands = standing(first, second)
    status = sides.status(stands, look)
    if not second.is_clean and stands.is_clean:
        status = replace(status, outcome=Outcome.IN_MOTION)
    return Checked(status, stands)


def check_all(sides: Sides, *, page_owners: int = PAGE_OWNERS) -> Iterator[Checked]:
    """Check every owner of either side.

    Order:
        The source's owners in its own order, then owners that only the store has.

    Raises:
        UnknownStateError: the owners could not be listed to the end, or page after page failed;
            what was yielded stands, the rest is unknown.
    """
    failures = PageFailures()
    for page in fleet_pages(sides, page_owners=page_owners):
        results = check_owners(sides, page)
        # Who is gone from both sides by now, or has unmanaged records only, is nobody.
        yield from (r for r in results if r.status.outcome is not Outcome.NOT_FOUND)
        failures.saw([result.status.error for result in results])
        if failures.error is not None:
            raise failures.error
