"""Whatever is asked of a state, in any order, it remembers what a dictionary would."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from undrift.state import (
    Acknowledgement,
    Buried,
    EntityRow,
    Failure,
    FencedState,
    Identity,
    Observation,
    OwnerNote,
    Parking,
    VersionRaise,
)
from undrift.states import open_state
from undrift.testing._state_fixtures import KIND, MODEL

OWNERS = ["a", "B", "é"]
HOLDERS = ["w1", "w2"]
LONG = 1e6
"""Seconds; nothing runs out while an example runs."""

owners = st.sampled_from(OWNERS)
groups = st.lists(owners, unique=True)
holders = st.sampled_from(HOLDERS)
entities = st.tuples(st.sampled_from([KIND, "skill"]), st.sampled_from(["1", "2"]))


@dataclass
class Owner:
    """What a dictionary remembers of one owner."""

    generation: int = 0
    synced: int = 0
    observation: int = 0
    floor: int = 0
    round: int = 0
    is_known: bool = False
    is_verified: bool = False
    is_waiting: bool = False
    holder: str = ""
    rows: dict[Identity, EntityRow] = field(default_factory=dict)

    def note(self, owner_id: str) -> OwnerNote:
        """What a state should answer."""
        return OwnerNote(
            owner_id=owner_id,
            generation=self.generation,
            synced_generation=self.synced,
            observation=self.observation,
            floor=self.floor,
            entities=dict(self.rows),
        )

    def put(self, row: EntityRow) -> None:
        """Remember what was observed; what was published stays so."""
        before = self.rows.get(row.identity)
        published = before.published_version if before is not None else 0
        self.rows[row.identity] = row._replace(published_version=published)

    def release(self, holder: str) -> None:
        """Give up *holder*'s lease."""
        if self.holder == holder:
            self.holder = ""


class StateMachine(RuleBasedStateMachine):
    """One state and its model; a fresh scope for every example."""

    @staticmethod
    def open_scope(scope: str) -> FencedState:
        raise NotImplementedError

    def __init__(self) -> None:
        super().__init__()
        self.state = self.open_scope(str(uuid4()))
        self.state.create()
        self.model = {owner: Owner() for owner in OWNERS}
        self.round = 0
        self.version = 0

    def teardown(self) -> None:
        self.state.close()

    def next_row(self, identity: Identity, *, is_deleted: bool) -> EntityRow:
        self.version += 1
        content = "" if is_deleted else f"version {self.version}"
        return EntityRow(*identity, self.version, content, "" if is_deleted else MODEL, is_deleted)

    # --- what can be asked of it

    @rule(
        owner=owners,
        seen=st.lists(st.tuples(entities, st.booleans()), max_size=3),
        behind=st.integers(0, 1),
    )
    def observe(self, owner: str, seen: list[tuple[Identity, bool]], behind: int) -> None:
        known = self.model[owner]
        rows = {i: self.next_row(i, is_deleted=is_deleted) for i, is_deleted in seen}
        noted = max(0, known.observation - behind)
        observation = Observation(owner_id=owner, noted=noted, rows=list(rows.values()))
        is_accepted = noted == known.observation
        assert self.state.observe([observation]) == ({owner} if is_accepted else frozenset())
        if is_accepted:
            known.observation += 1
            known.is_known = True
            for row in rows.values():
                known.put(row)

    @rule(owner=owners, wanted=st.lists(entities, unique=True), is_stale=st.booleans())
    def raise_versions(self, owner: str, wanted: list[Identity], is_stale: bool) -> None:
        known = self.model[owner]
        observed = [known.rows[identity] for identity in wanted if identity in known.rows]
        raised = [self.next_row(identity, is_deleted=False) for identity in wanted]
        if is_stale and observed:
            observed[0] = observed[0]._replace(version=observed[0].version + 1)
        wish = VersionRaise(owner_id=owner, observed=observed, raised=raised)
        is_possible = not (is_stale and observed)
        assert self.state.raise_versions([wish]) == ({owner} if is_possible else frozenset())
        if is_possible and raised:
            known.observation += 1
            known.is_known = True
            for row in raised:
                known.put(row)

    @rule(group=groups)
    def mark(self, group: list[str]) -> None:
        self.state.mark(group)
        for owner in group:
            self.model[owner].generation += 1
            self.model[owner].is_known = True

    @rule()
    def mark_everyone(self) -> None:
        self.state.mark_everyone()
        self.round += 1

    @rule(group=groups, holder=holders, over=st.lists(holders, max_size=1))
    def lease(self, group: list[str], holder: str, over: list[str]) -> None:
        others = {
            owner: self.model[owner].holder
            for owner in group
            if self.model[owner].holder not in ("", holder, *over)
        }
        assert self.state.lease(group, holder, LONG, over=over) == others
        for owner in set(group) - others.keys():
            self.model[owner].holder = holder

    @rule(group=groups, holder=holders)
    def release(self, group: list[str], holder: str) -> None:
        self.state.release(group, holder)
        for owner in group:
            self.model[owner].release(holder)

    @rule(owner=owners, holder=holders, late=st.integers(0, 2), is_done=st.booleans())
    def acknowledge(self, owner: str, holder: str, late: int, is_done: bool) -> None:
        known = self.model[owner]
        generation = max(0, known.generation - late)
        published = [(*row.identity, row.version) for row in known.rows.values()][:2]
        done = Acknowledgement(
            owner_id=owner,
            generation=generation if is_done else None,
            round=self.round,
            published=[*published, ("skill", "nothing", 1)],
        )
        self.state.acknowledge([done], holder)
        for kind, entity_id, version in published:
            row = known.rows[kind, entity_id]
            known.rows[kind, entity_id] = row._replace(
                published_version=version, parked_reason="", is_parked=False
            )
        known.release(holder)
        if is_done:
            known.is_known = known.is_verified = True
            known.is_waiting = False
            known.synced = max(known.synced, generation)
            known.round = self.round

    @rule(owner=owners, holder=holders, is_waiting=st.booleans())
    def fail(self, owner: str, holder: str, is_waiting: bool) -> None:
        self.state.fail([Failure(owner, "no", LONG if is_waiting else 0.0)], holder)
        known = self.model[owner]
        known.is_known, known.is_waiting = True, is_waiting
        known.release(holder)

    @rule(owner=owners, identity=entities, is_current=st.booleans())
    def park(self, owner: str, identity: Identity, is_current: bool) -> None:
        row = self.model[owner].rows.get(identity)
        version = (row.version if row else 1) + (not is_current)
        self.state.park([Parking(owner, *identity, version, "no", LONG / 1e3)])
        if row is not None and is_current:
            self.model[owner].rows[identity] = row._replace(parked_reason="no", is_parked=True)

    @rule(owner=owners, identity=entities)
    def forget(self, owner: str, identity: Identity) -> None:
        row = self.model[owner].rows.get(identity)
        self.state.forget([Buried(owner, *identity, row.version if row else 1)])
        if row is not None and row.is_deleted:
            self.model[owner].floor = max(self.model[owner].floor, row.version)
            del self.model[owner].rows[identity]

    @precondition(lambda self: not any(row.is_parked for o in OWNERS for row in self.rows(o)))
    @rule(holder=holders)
    def claim(self, holder: str) -> None:
        expected = {
            owner
            for owner, known in self.model.items()
            if self.is_dirty(known) and not known.holder and not known.is_waiting
        }
        found = self.state.claim_dirty(holder, 10, LONG)
        assert {each.owner_id for each in found} == expected
        assert len(found) == len(expected)
        for owner in expected:
            self.model[owner].holder = holder

    # --- what must be so at any time

    def rows(self, owner: str) -> list[EntityRow]:
        return list(self.model[owner].rows.values())

    def is_dirty(self, known: Owner) -> bool:
        return known.is_known and (known.generation > known.synced or known.round < self.round)

    @invariant()
    def notes_agree(self) -> None:
        found = self.state.note(OWNERS)
        assert found.standing.round == self.round
        assert found.owners == {owner: known.note(owner) for owner, known in self.model.items()}

    @invariant()
    def numbers_agree(self) -> None:
        summary = self.state.summary()
        known = [owner for owner in self.model.values() if owner.is_known]
        live = [row for owner in known for row in owner.rows.values() if not row.is_deleted]
        assert summary.owners == len(known)
        assert summary.dirty == sum(map(self.is_dirty, known))
        assert summary.entities == len(live)
        assert summary.published == sum(row.published_version == row.version for row in live)
        assert summary.parked == sum(row.is_parked for owner in OWNERS for row in self.rows(owner))
        assert summary.never_verified == sum(not owner.is_verified for owner in known)
        managed = {row.kind for owner in OWNERS for row in self.rows(owner)}
        assert summary.usage.managed == {
            kind: sum(row.kind == kind for owner in OWNERS for row in self.rows(owner))
            for kind in managed
        }


def run(url: str, examples: int) -> None:
    """Try so many sequences on the states of one place."""

    class Here(StateMachine):
        @staticmethod
        def open_scope(scope: str) -> FencedState:
            return open_state(url, scope=scope)

    run_state_machine_as_test(
        Here,
        settings=settings(
            max_examples=examples,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_a_state_in_sqlite_is_as_its_model(tmp_path_factory: pytest.TempPathFactory) -> None:
    run(f"sqlite:///{tmp_path_factory.mktemp('model') / 'state.db'}", 40)


def test_a_state_in_postgres_is_as_its_model(postgres_url: str) -> None:
    run(postgres_url, 25)
