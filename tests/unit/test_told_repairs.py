"""What processes tell each other of repairs: all that a run needs, and nothing of the content."""

from __future__ import annotations

import pickle

import numpy as np

from undrift.errors import UnknownStateError
from undrift.look import Look
from undrift.model import Entity, EntityId, Outcome, Read, Stamp, SyncStatus, Wanted
from undrift.ports import Record
from undrift.publish import Publication
from undrift.repair import Repair

ERROR = UnknownStateError("what", why="why.", fix="fix")


def status(**given: object) -> SyncStatus:
    return SyncStatus(owner_id="7", outcome=Outcome.DRIFT, **given)  # type: ignore[arg-type]


def test_a_status_arrives_as_it_was_sent() -> None:
    sent = status(
        source={"job": 2},
        store={"skill": 1},
        missing_ids=(EntityId.of("job", "a:b"), EntityId.of("job", "c")),
        stale_ids=(EntityId.of("skill", ""),),
        unmanaged=3,
        read=Read.DIGESTS,
        notes=("note",),
    )
    received = pickle.loads(pickle.dumps(sent))
    assert received == sent
    assert [type(id_) for id_ in received.missing_ids] == [EntityId, EntityId]
    assert (received.missing_ids[0].kind, received.missing_ids[0].id) == ("job", "a:b")


def test_a_repair_arrives_without_content() -> None:
    entity = Entity("job", "1", "7", "a secret text", "{}", "h" * 32, "f" * 32)
    stamp = Stamp("v", "n", "7", "job", "1", "f" * 32, "h" * 32, "m", 1)
    look = Look(owner_id="7", wanted=Wanted("7", {("job", "1"): entity}, {"job": 1}))
    sent = Repair("7", status(error=ERROR), look)
    sent.publication = Publication("7", [Record(stamp, entity.text, "{}", np.ones(3, np.float32))])
    sent.held_deletes, sent.written, sent.embedded, sent.truncated = ("job",), 1, 2, 3
    sent.parked = {("job", "1"): "a secret text is too long"}
    sent.end(Outcome.FAILED, ERROR)
    pickled = pickle.dumps(sent)
    assert b"secret" not in pickled
    received = pickle.loads(pickled)
    assert str(received.report(against="source")) == str(sent.report(against="source"))
    assert received.held_deletes == ("job",)
    assert received.is_done
    assert received.look.wanted is not None
    assert received.look.error is None
    assert received.publication is None


def test_a_repair_of_an_owner_who_is_gone_or_unreadable_says_so() -> None:
    gone = Repair("7", status(), Look(owner_id="7"))
    unread = Repair("7", status(), Look(owner_id="7", error=ERROR))
    received = pickle.loads(pickle.dumps([gone, unread]))
    assert [repair.look.wanted for repair in received] == [None, None]
    assert received[0].look.error is None
    assert str(received[1].look.error) == str(ERROR)
