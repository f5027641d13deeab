"""Resolve: does the source still have what a search once returned?

The source is asked anew each time. What it does not have sets off a heal, and the caller is told
what there is instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from undrift.errors import ConfigError, OwnerNotFound
from undrift.fingerprint import storable_text
from undrift.look import Sides
from undrift.model import Candidate, Entity, EntityId, Found, Heal, Healing, Retry, Wanted

MAX_CANDIDATES = 20
_TEXT_CHARACTERS = 200
_ASKED_CHARACTERS = 1_100  # no kind and id together are longer; the rest needs no repeating


def read_wanted(sides: Sides, owner_id: str) -> Wanted | None:
    """What the source wants for *owner_id*; None if a complete read does not show the owner.

    Args:
        sides: with ``store_exists=False``, so that no store is asked.

    Raises:
        UnknownStateError: the source could not be read.
    """
    look = sides.look([owner_id], first="source")[owner_id]
    if look.error is not None:
        raise look.error
    return look.wanted


def resolve_entity(
    sides: Sides, owner_id: str, asked: str, heal: Callable[[str], Heal]
) -> Found | Retry:
    """The entity that *asked* names, or a `Retry` after healing.

    Args:
        asked: ``kind:id``.
        heal: sets off the owner's heal.

    Raises:
        ConfigError: *asked* names no configured kind.
        OwnerNotFound: neither side has the owner.
        UnknownStateError: the source could not be read.
    """
    key = _key_of(sides, asked)
    wanted = read_wanted(sides, owner_id)
    entities = wanted.entities if wanted is not None else {}
    entity = entities.get((key.kind, key.id))
    if entity is not None:
        return Found(entity=entity)
    of_kind = [entity for entity in entities.values() if entity.kind == key.kind]
    return stale_reference(owner_id, asked, of_kind, heal(owner_id), is_known=wanted is not None)


def stale_reference(
    owner_id: str, asked: str, there_are: Sequence[Entity], heal: Heal, *, is_known: bool = True
) -> Retry:
    """The answer to a reference that the source does not know.

    Args:
        there_are: entities of the kind that was asked for, in the source's order.
        is_known: whether the source has the owner.

    Raises:
        OwnerNotFound: the heal found that neither side has the owner.
    """
    if isinstance(heal.error, OwnerNotFound):
        raise heal.error
    candidates = tuple(map(candidate_of, there_are[:MAX_CANDIDATES]))
    asked = storable_text(asked[:_ASKED_CHARACTERS])
    missing = (
        f"{_shortened(asked)!r} does not exist"
        if is_known
        else "This user is gone from the database"
    )
    return Retry(
        owner_id=owner_id,
        code="stale_reference",
        missing_id=asked,
        healing=heal.healing,
        candidates=candidates,
        message=" ".join([f"{missing}.", _became_of(heal), _what_now(len(there_are))]),
        error=heal.error,
    )


def _shortened(text: str) -> str:
    return text if len(text) <= _TEXT_CHARACTERS else f"{text[:_TEXT_CHARACTERS]}…"


def candidate_of(entity: Entity) -> Candidate:
    """*entity* as it is offered in place of another."""
    return Candidate(key=entity.key, text=entity.text[:_TEXT_CHARACTERS])


def _became_of(heal: Heal) -> str:
    match heal.healing:
        case Healing.HEALED:
            return "The search data was out of date and has been synced, please retry."
        case Healing.NOT_NEEDED:
            return "The search data is up to date."
        case Healing.PENDING:
            return "The search data is being synced in the background, please retry."
        case Healing.COOLING_DOWN:
            ago = f"{heal.seconds_ago or 0:.0f} s ago"
            if heal.error is not None:
                return f"A sync of the search data failed {ago} ({heal.error.what})."
            if heal.report is not None and heal.report.skipped:
                return f"The search data was checked {ago} and was up to date."
            return f"The search data was synced {ago}, please retry."
        case Healing.SWITCHED_OFF:
            return "The search data may be out of date; nothing is synced by itself here."
        case Healing.FAILED:
            what = heal.error.what if heal.error is not None else "it could not be verified"
            return f"The search data could not be synced ({what}); nothing was lost."


def _what_now(count: int) -> str:
    if not count:
        return "There is nothing of this kind to use instead."
    shown = min(count, MAX_CANDIDATES)
    some = f"the first {shown} of {count}" if count > shown else f"{count}"
    return f"Use the id of one of the candidates ({some})."


def _key_of(sides: Sides, asked: object) -> EntityId:
    key = EntityId(asked if isinstance(asked, str) else "")
    kinds = sides.renderer.mapping.kinds
    if key.kind not in kinds or not key.id:
        raise ConfigError(
            "That is no entity's name",
            why=f"an entity is named kind:id, and the kinds here are {', '.join(kinds)}.",
            fix=f"write it like {kinds[0] if kinds else 'experience'}:exp_9",
        )
    return key
