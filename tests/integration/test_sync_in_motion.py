"""Sync and check while somebody else writes: to the source, to the store, or the same owners."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from json import dumps

import pytest

from support.layouts import Document, document, experience
from support.processes import Writer
from support.rendering import note_rendered
from support.sides import World
from support.wrappers import SteppedSource, SteppedStore
from undrift import ConfigError, Outcome, ProfileOutdated, SyncStatus, Undrift
from undrift.failpoints import FAILPOINTS

pytestmark = pytest.mark.usefixtures("without_leases")

HOLDING = ("begun", "held", "written", "deleted")
"""Where in a publish a transaction is open, so that whoever comes next has to wait."""

ENDING = {"sync.verified", "sync.acknowledged"}
"""Where nothing is left to be done."""

BEFORE = document(experience("exp_1", "First text"), experience("exp_2"), skills=["SQL"])


def edited(number: int) -> Document:
    """The document after edit *number*."""
    return document(experience("exp_1", f"Edit {number}"), experience("exp_2"), skills=["SQL"])


def moving(world: World, edit: Callable[[int], None]) -> Undrift:
    """An `Undrift` whose source is edited just before each read, with the read's number."""
    reads: Counter[str] = Counter()

    def before(step: str) -> None:
        reads[step] += 1
        if step == "source.read":
            edit(reads[step])

    return world.open(source=lambda source: SteppedSource(source, before))


# --- the source moves -------------------------------------------------------------------------


def test_source_that_moves_once_is_repaired_again_and_verified(world: World) -> None:
    """The edit lands between the look and the verification; the sync goes round once more."""
    world.bring_in_sync({"1": BEFORE})
    world.put("1", edited(1))

    report = moving(world, lambda n: world.put("1", edited(2)) if n == 2 else None).sync("1")

    assert (report.outcome, report.verified) == (Outcome.IN_SYNC, True)
    assert report.written == report.embedded == 2
    world.assert_store_holds({"1": edited(2)})


def test_source_that_never_rests_is_in_motion_and_never_empty(world: World) -> None:
    """Another edit before each read: no success is claimed, and what is live stays searchable."""
    world.bring_in_sync({"1": BEFORE})
    seen: list[set[str]] = []

    def edit(number: int) -> None:
        world.put("1", edited(number))
        seen.append(world.keys("1"))

    report = moving(world, edit).sync("1")

    assert (report.outcome, report.verified) == (Outcome.IN_MOTION, False)
    # The look; and in each of four rounds a verification, and a look at what it found to be new.
    assert len(seen) == 1 + 2 * 4
    assert all(keys == world.layout.entities(BEFORE).keys() for keys in seen)
    assert world.sides.sync("1").is_in_sync
    world.assert_store_holds({"1": edited(len(seen))})


def test_entity_removed_while_it_is_embedded_does_not_stay(world: World) -> None:
    """What was written for an entity that is gone by then is deleted in the next round."""
    world.bring_in_sync({"1": BEFORE})
    world.put("1", document(experience("exp_1", "First text"), experience("exp_3")))
    last = document(experience("exp_1", "First text"))

    report = moving(world, lambda n: world.put("1", last) if n == 2 else None).sync("1")

    assert (report.outcome, report.verified) == (Outcome.IN_SYNC, True)
    world.assert_store_holds({"1": last})


def test_check_calls_a_moving_source_in_motion_and_not_drift(world: World) -> None:
    """Each look differs from the store, and the looks differ from one another."""
    world.bring_in_sync({"1": BEFORE})

    status = moving(world, lambda n: world.put("1", edited(n))).check("1")

    assert (status.outcome, status.in_sync) == (Outcome.IN_MOTION, None)
    assert status.changed_ids == ()


def test_check_of_a_source_that_came_back_is_in_sync(world: World) -> None:
    """A difference that the second look does not confirm was never drift."""
    world.bring_in_sync({"1": BEFORE})

    sides = moving(world, lambda n: world.put("1", edited(1) if n == 1 else BEFORE))

    assert sides.check("1").is_in_sync


def test_check_of_everybody_renders_anew_what_moved_between_its_looks(world: World) -> None:
    """By digests, in one look, in the other: what is rendered is what was read that time."""
    world.bring_in_sync({"1": BEFORE})

    # In one statement: the owners are listed meanwhile.
    raw = "CAST(:raw AS jsonb)" if world.source.is_postgres else ":raw"
    update = f"UPDATE profiles SET filtered_data = {raw}"

    def look(document: Callable[[int], Document]) -> SyncStatus:
        def edit(number: int) -> None:
            assert world.source.run(update, raw=dumps(document(number))) == 1

        (status,) = moving(world, edit).check_all()
        return status

    assert look(edited).outcome is Outcome.IN_MOTION
    assert look(lambda n: edited(1) if n < 3 else BEFORE).is_in_sync


def test_check_of_everybody_renders_once_what_stays_between_its_looks(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And once before, for the digest that did not agree; each look reads both sides."""
    world.bring_in_sync({"1": BEFORE, "2": BEFORE})
    world.put("1", edited(1))
    reads: list[int] = []
    sides = moving(world, reads.append)
    rendered = note_rendered(monkeypatch)
    outcomes = {status.owner_id: status.outcome for status in sides.check_all()}
    assert outcomes == {"1": Outcome.DRIFT, "2": Outcome.IN_SYNC}
    assert (len(reads), rendered) == (3, ["1", "2", "1"])


def test_control_one_look_calls_the_moving_source_drift(world: World) -> None:
    """Where both looks show the same edit, it is drift."""
    world.bring_in_sync({"1": BEFORE})

    status = moving(world, lambda n: world.put("1", edited(1))).check("1")

    assert status.outcome is Outcome.DRIFT
    assert status.changed_ids == ("experience:exp_1",)


# --- the store moves --------------------------------------------------------------------------


def before_first_publish(world: World, act: Callable[[], object]) -> Undrift:
    """An `Undrift` before whose first publish somebody else acts on the store."""
    done: list[str] = []

    def before(step: str) -> None:
        if step == "store.publish" and not done:
            done.append(step)
            act()

    return world.open(store=lambda store: SteppedStore(store, before))


def test_write_refused_by_an_equal_newer_record_is_adopted(world: World) -> None:
    """Another sync was faster and wrote the same: that is a success, and no second version."""
    world.bring_in_sync({"1": BEFORE})
    world.put("1", edited(1))

    report = before_first_publish(world, lambda: world.sides.sync("1")).sync("1")

    assert (report.outcome, report.verified) == (Outcome.IN_SYNC, True)
    vector_id = world.vector_id("1", "experience:exp_1")
    assert world.store.records()[vector_id]["version"] == 2
    world.assert_store_holds({"1": edited(1)})


def test_write_refused_by_a_newer_record_of_other_content_is_repeated_above_it(
    world: World,
) -> None:
    """The newer record is not what the source says, so it is replaced by one newer still."""
    world.bring_in_sync({"1": BEFORE})
    vector_id = world.vector_id("1", "experience:exp_1")
    world.put("1", edited(1))

    def tamper() -> None:
        world.store.set(vector_id, version=50, fingerprint="f" * 32)

    report = before_first_publish(world, tamper).sync("1")

    assert (report.outcome, report.verified) == (Outcome.IN_SYNC, True)
    assert world.store.records()[vector_id]["version"] == 51
    world.assert_store_holds({"1": edited(1)})


def test_delete_of_a_record_that_was_rewritten_meanwhile_is_not_made(world: World) -> None:
    """The entity came back and another sync published it anew before our delete arrived."""
    world.bring_in_sync({"1": BEFORE})
    gone = document(experience("exp_1", "First text"), skills=["SQL"])
    back = document(experience("exp_1", "First text"), experience("exp_2", "Back"), skills=["SQL"])
    world.put("1", gone)
    vector_id = world.vector_id("1", "experience:exp_2")

    def come_back() -> None:
        world.put("1", back)
        assert world.sides.sync("1").is_in_sync

    report = before_first_publish(world, come_back).sync("1")

    assert (report.outcome, report.deleted) == (Outcome.IN_SYNC, 0)
    assert world.store.records()[vector_id]["version"] == 3  # 2 was the delete
    world.assert_store_holds({"1": back})


def test_delete_of_a_record_that_changed_hands_meanwhile_is_not_made(world: World) -> None:
    """A record stolen from owner 2 is to be deleted as owner 1's; it goes back just before."""
    world.bring_in_sync({"1": BEFORE, "2": document(experience("exp_9"))})
    stolen = world.vector_id("2", "experience:exp_9")
    before = world.store.records()
    world.store.set(stolen, owner_id="1")

    sides = before_first_publish(world, lambda: world.store.set(stolen, owner_id="2"))
    report = sides.sync("1")

    assert report.is_in_sync
    assert world.store.records() == before


@pytest.fixture(scope="module")
def writers() -> Iterator[tuple[Writer, Writer]]:
    """Two other processes."""
    with Writer() as one, Writer() as other:
        yield one, other


@pytest.mark.parametrize("pause_at", sorted(FAILPOINTS - ENDING))
def test_two_processes_at_the_same_owners_end_in_sync(
    world: World, writers: tuple[Writer, Writer], pause_at: str
) -> None:
    """One waits in the middle of its work while the other does all of it; then it goes on."""
    world.bring_in_sync({"1": BEFORE})
    documents = {"1": edited(1), "2": BEFORE, "3": BEFORE}
    world.put_all(documents)
    world.store.delete(world.vector_id("1", "experience:exp_2"))
    one, other = writers

    one.start(world, sorted(documents), pause_at=pause_at, without_leases=True)
    assert one.wait_until_paused() == pause_at
    other.start(world, sorted(documents), without_leases=True)
    holds_the_lock = pause_at in {f"store.publish.{s}" for s in HOLDING}
    if holds_the_lock:  # the other has to wait, so let the first go on
        ends = [one.go_on(), other.wait_for_end()]
    else:
        ends = [other.wait_for_end(), one.go_on()]

    assert [end.outcomes for end in ends] == [dict.fromkeys(documents, "in_sync")] * 2
    world.assert_store_holds(documents)
    assert {row["version"] for row in world.store.records().values()} <= {1, 2, 3}


def test_two_processes_at_full_speed_end_in_sync(
    world: World, writers: tuple[Writer, Writer]
) -> None:
    """Nobody waits for anybody; no record is doubled, and everything is as the source says."""
    documents = {str(n): BEFORE for n in range(1, 61)}
    world.bring_in_sync({"1": BEFORE})
    world.put_all(documents)

    for writer in writers:
        writer.start(world, sorted(documents), force=True)
    ends = [writer.wait_for_end() for writer in writers]

    assert [end.outcomes for end in ends] == [dict.fromkeys(documents, "in_sync")] * 2
    world.assert_store_holds(documents)


# --- a profile at hand ------------------------------------------------------------------------


def test_sync_with_the_profile_of_the_source_does_what_a_sync_does(world: World) -> None:
    """The same content, in another order of its keys."""
    world.bring_in_sync({"1": BEFORE})
    world.put("1", edited(1))
    profile = dict(reversed(edited(1).items()))

    report = world.sides.sync("1", profile)

    assert (report.outcome, report.against) == (Outcome.IN_SYNC, "source")
    world.assert_store_holds({"1": edited(1)})


@pytest.mark.parametrize("profile", [edited(1), {}, document(experience("exp_1", "First text"))])
def test_sync_with_an_outdated_profile_writes_nothing(world: World, profile: Document) -> None:
    """The source is the truth; a profile that differs is refused before anything is written."""
    world.bring_in_sync({"1": BEFORE})
    world.put("1", edited(2))
    before = world.store.records()

    with pytest.raises(ProfileOutdated):
        world.sides.sync("1", profile)

    assert world.store.records() == before
    assert world.embedder.texts == []


def test_sync_with_a_profile_of_an_owner_the_source_lacks_writes_nothing(world: World) -> None:
    """A profile does not make an owner."""
    world.bring_in_sync({"1": BEFORE})
    before = world.store.records()

    with pytest.raises(ConfigError):
        world.sides.sync("2", BEFORE)

    assert world.store.records() == before


def test_check_with_an_outdated_profile_is_not_drift(world: World) -> None:
    """The profile saves the first read; a difference is looked for in the source."""
    world.bring_in_sync({"1": BEFORE})

    assert world.sides.check("1", edited(1)).is_in_sync


def test_check_with_a_profile_sees_the_drift_of_the_store(world: World) -> None:
    """What both looks show is drift."""
    world.bring_in_sync({"1": BEFORE})
    world.store.delete(world.vector_id("1", "experience:exp_1"))

    assert world.sides.check("1", BEFORE).missing_ids == ("experience:exp_1",)


def test_without_a_source_the_profile_is_the_truth_and_the_report_says_so(world: World) -> None:
    """Verified against the given profile; without one there is nothing to do."""
    with Undrift(store=world.store_url, embedder=world.embedder) as sides:
        first = sides.sync("1", BEFORE)
        second = sides.sync("1", edited(1))

        assert (first.outcome, first.against, first.written) == (Outcome.IN_SYNC, "profile", 3)
        assert (second.outcome, second.against, second.written) == (Outcome.IN_SYNC, "profile", 1)
        assert sides.check("1", edited(1)).is_in_sync
        assert sides.check("1", BEFORE).outcome is Outcome.DRIFT
        with pytest.raises(ConfigError):
            sides.sync("1")
    world.assert_store_holds({"1": edited(1)})
