"""What a point of another program's says as a record, and how a record becomes such a point."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from enum import Enum, auto

from undrift.adoption import UNSTATED_MODEL
from undrift.fingerprint import canonical_json
from undrift.model import Stamp
from undrift.ports import Match, Record
from undrift.state import Tombstone
from undrift.stores._adopted import STAMP_KEY, hash_of, id_at, put_at, value_at
from undrift.stores._qdrant_adopted_layout import AdoptedLayout
from undrift.stores._qdrant_payload import METADATA_JSON, is_too_deep
from undrift.stores._qdrant_points import FoundPoint, Payload

_STAMP_FIELDS = ("namespace", "fingerprint", "text_hash", "model", "version")


class Standing(Enum):
    """What lies under a point's id."""

    UNSTAMPED = auto()
    STAMPED = auto()
    TOMBSTONE = auto()
    UNMANAGED = auto()


class AdoptedPoints:
    """Reads and makes the points of one collection for one namespace."""

    def __init__(self, layout: AdoptedLayout, namespace: str) -> None:
        self._layout = layout
        self._fields = layout.fields
        self._namespace = namespace

    # --- reading

    def standing(self, payload: Payload) -> Standing:
        """What a point is to the namespace."""
        stamp = self.stamp_in(payload)
        is_ours = stamp.get("namespace") == self._namespace
        if stamp.get("deleted") == 1:
            return Standing.TOMBSTONE if is_ours else Standing.UNMANAGED
        if not is_ours and stamp.get("namespace") is not None:
            return Standing.UNMANAGED
        has_identity = all((*self.identity(payload), self.owner(payload)))
        has_fixed = all(id_at(payload, path) == value for path, value in self._layout.fixed())
        if not has_identity or not has_fixed:
            return Standing.UNMANAGED
        return Standing.STAMPED if is_ours else Standing.UNSTAMPED

    def is_managed(self, payload: Payload) -> bool:
        """Whether a point is a record of the namespace."""
        return self.standing(payload) in (Standing.STAMPED, Standing.UNSTAMPED)

    def stamp_in(self, payload: Payload) -> Mapping[str, object]:
        """The stamp as it is stored; empty where there is none."""
        found = value_at(payload, self._layout.stamp)
        return found if isinstance(found, Mapping) else {}

    def owner(self, payload: Payload) -> str:
        """The owner's id as text."""
        return id_at(payload, self._fields.owner.path)

    def identity(self, payload: Payload) -> tuple[str, str]:
        """Kind and id of the entity."""
        kind = self._fields.kind
        read = id_at(payload, kind.path) if kind.value is None else kind.value
        return read, id_at(payload, self._fields.entity_id.path)

    def stamp_of(self, point: FoundPoint, *, is_lost: bool) -> Stamp:
        """The stamp of a record; one that only its fields make has no fingerprint.

        Args:
            is_lost: its vector is gone.
        """
        payload = point.payload
        stored = self.stamp_in(payload)
        is_managed = self.is_managed(payload)
        fingerprint = _text(stored, "fingerprint") if self.is_stamp_of_its_text(payload) else ""
        text_hash = _text(stored, "text_hash") if fingerprint else hash_of(self.text(payload))
        model = _text(stored, "model") if fingerprint else self.unstamped_model(payload)
        return Stamp(
            vector_id=point.vector_id,
            namespace=self._namespace if is_managed else _text(stored, "namespace"),
            owner_id=self.owner(payload),
            kind=self.identity(payload)[0],
            entity_id=self.identity(payload)[1],
            fingerprint=fingerprint,
            text_hash=text_hash,
            model="" if is_lost else model,
            version=_version(stored),
        )

    def is_stamp_of_its_text(self, payload: Payload) -> bool:
        """Whether the text is still the one that the stamp was put beside.

        Another program may change the text and leave the stamp.
        """
        return _text(self.stamp_in(payload), _SEEN) == self._seen(payload)

    def _seen(self, payload: Payload) -> str:
        return hash_of(self.text(payload))

    def text(self, payload: Payload) -> str | None:
        """The text, where the fields say which one it is, and there is one."""
        if self._fields.text is None:
            return None
        found = value_at(payload, self._fields.text.path)
        return found if isinstance(found, str) else None

    def unstamped_model(self, payload: Payload) -> str:
        """The model as the fields know it."""
        field = self._fields.model
        if field is None:
            return UNSTATED_MODEL
        if field.value is not None:
            return field.value
        return id_at(payload, field.path) or UNSTATED_MODEL

    def tombstone_of(self, point: FoundPoint) -> Tombstone:
        """The tombstone that *point* is."""
        stored = self.stamp_in(point.payload)
        owner_id, kind, entity_id = (_text(stored, name) for name in Tombstone._fields[1:4])
        return Tombstone(point.vector_id, owner_id, kind, entity_id, _version(stored))

    def match_of(self, point: FoundPoint, score: float) -> Match:
        """What a search found; its metadata are the fields beside the stamp."""
        beside = value_at(point.payload, self._layout.above_stamp)
        fields = beside if isinstance(beside, Mapping) else {}
        metadata = {name: value for name, value in fields.items() if name != STAMP_KEY}
        return Match(
            self.stamp_of(point, is_lost=False),
            min(1.0, max(-1.0, score)),
            self.text(point.payload) or "",
            canonical_json(metadata),
        )

    # --- writing

    def payload_of(self, record: Record, before: Payload) -> Payload:
        """The payload of a record that is written anew.

        Args:
            before: of the point whose fields go on, which other programs read.
        """
        stamp = record.stamp
        payload = copy.deepcopy(dict(before))
        for name, value in _metadata(record).items():
            put_at(payload, (*self._layout.above_stamp, name), value)
        for path, fixed in self._layout.fixed():
            if id_at(payload, path) != fixed:
                put_at(payload, path, fixed)
        put_at(payload, self._fields.owner.path, self._layout.owner_value(stamp.owner_id))
        put_at(payload, self._fields.entity_id.path, self._layout.entity_value(stamp.entity_id))
        for field, text in (
            (self._fields.kind, stamp.kind),
            (self._fields.model, stamp.model),
            (self._fields.text, record.text),
        ):
            if field is not None and field.path:
                put_at(payload, field.path, text)
        put_at(payload, self._layout.stamp, _stamp_json(record) | {_SEEN: self._seen(payload)})
        return payload

    def beside_stamp(self, record: Record, before: Payload) -> Payload:
        """What a stamp alone changes: itself, and metadata that are undrift's own.

        Args:
            before: the point's; what another program wrote there stays as it is.
        """
        is_own = bool(_text(self.stamp_in(before), "fingerprint"))
        metadata = _metadata(record) if is_own else {}
        return {**metadata, STAMP_KEY: _stamp_json(record) | {_SEEN: self._seen(before)}}

    def grave_of(self, stone: Tombstone) -> Payload:
        """The payload of a tombstone."""
        payload: dict[str, object] = {}
        fields = dict(zip(Tombstone._fields[1:], stone[1:], strict=True))
        grave = {"namespace": self._namespace, **fields, "deleted": 1}
        put_at(payload, self._layout.stamp, grave)
        return payload


_SEEN = "seen"


def _metadata(record: Record) -> dict[str, object]:
    """What lies beside the stamp; metadata that would make the point unreadable lie within it."""
    if is_too_deep(record.metadata_json):
        return {}
    metadata: dict[str, object] = json.loads(record.metadata_json)
    return metadata


def _stamp_json(record: Record) -> dict[str, object]:
    stored: dict[str, object] = {name: getattr(record.stamp, name) for name in _STAMP_FIELDS}
    if is_too_deep(record.metadata_json):
        stored[METADATA_JSON] = record.metadata_json
    return stored


def _text(stored: Mapping[str, object], name: str) -> str:
    value = stored.get(name)
    return value if isinstance(value, str) else ""


def _version(stored: Mapping[str, object]) -> int:
    value = stored.get("version")
    return value if isinstance(value, int) else 0
