"""Records that another program wrote into Chroma: what their fields mean, and a stamp among them.

A stamp is a few fields beside the other program's, each with the prefix ``undrift_``. A program
that writes its record anew does not take them away, since Chroma merges metadata: so a stamp counts
only as long as the text is the one that it was put to, of which it has a digest.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from undrift.adoption import UNSTATED_MODEL, Field, StoreFields
from undrift.fingerprint import canonical_json
from undrift.model import Stamp
from undrift.ports import Match, Record
from undrift.stores._adopted import STAMP_KEY, as_number, hash_of, id_at, misfit, typed
from undrift.stores._chroma_api import PAGE_RECORDS, Collection, Put, Row, Where, pages_of
from undrift.stores._chroma_codec import Standing
from undrift.stores._chroma_records import any_of, sendable, text_in, version_in
from undrift.stores._records import stamp_of

DOCUMENT = "document"
"""The path of a record's document; every other path is a field of its metadata."""

SAMPLE_RECORDS = 100

_STAMP_PARTS = ("namespace", "fingerprint", "text_hash", "model", "version", "seen")

# Chroma refuses the first two, and the server fails for good when it meets the third.
_RESERVED = ("#", "$", "chroma:")

Fields = Mapping[str, object]


def key_of(field: Field | None) -> str:
    """The name of *field* in a record's metadata; empty where it is none."""
    return "" if field is None else ".".join(field.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptedRecords:
    """The `Codec` of records that another program wrote.

    Attributes:
        fields: where they hold what.
        owner_is_number, entity_is_number: so that what is written is a number too.
    """

    namespace: str
    fields: StoreFields
    owner_is_number: bool
    entity_is_number: bool

    @property
    def needs_documents(self) -> bool:
        """By its text it shows whether a stamp still counts."""
        return key_of(self.fields.text) in ("", DOCUMENT)

    # --- filters

    def of_owners(self, owners: Sequence[str]) -> Where:
        """Lets records of *owners* pass, whether their ids are texts or numbers."""
        key = key_of(self.fields.owner)
        texts = any_of(key, owners)
        numbers = [number for number in map(as_number, owners) if number is not None]
        return {"$or": [texts, any_of(key, numbers)]} if numbers else texts

    def of_managed(self) -> None:
        """No filter tells."""
        return

    def of_unmanaged(self) -> None:
        """No filter tells."""
        return

    def of_searched(self, model: str, kinds: Sequence[str] | None) -> None:
        """No filter tells."""
        return

    # --- reading

    def owner_of(self, row: Row) -> str:
        """Whose record it is."""
        return id_at(row.metadata, [key_of(self.fields.owner)])

    def is_managed(self, row: Row) -> bool:
        """Whether it names an owner, a kind and an entity, and no other namespace stamped it."""
        stamp = self._stamp_in(row)
        return (
            all(self._entity(row))
            and self._has_what_is_fixed(row)
            and (stamp is None or stamp["namespace"] == self.namespace)
        )

    def stamp_of(self, row: Row) -> Stamp:
        """Its stamp; where it has none, what its fields say, without a fingerprint."""
        owner_id, kind, entity_id = self._entity(row)
        stamp = self._stamp_in(row)
        if stamp is not None:
            said, *contents = (text_in(stamp, name) for name in _STAMP_PARTS[:4])
            parts = (row.id, said, owner_id, kind, entity_id, *contents, version_in(stamp))
            return stamp_of(parts)
        namespace = self.namespace if self.is_managed(row) else ""
        text_hash = hash_of(self._text(row)) if self.fields.text is not None else ""
        return Stamp(
            row.id, namespace, owner_id, kind, entity_id, "", text_hash, self._model(row), 0
        )

    def match_of(self, row: Row, score: float) -> Match:
        """What a search found; its metadata are the other program's."""
        metadata_json = canonical_json(dict(self._foreign(row.metadata)))
        return Match(self.stamp_of(row), score, self._text(row) or "", metadata_json)

    def standing_of(self, row: Row) -> Standing:
        """What it means to a write under its id; what is not managed is of no namespace."""
        namespace = self.namespace if self.is_managed(row) else ""
        return Standing(namespace, self.stamp_of(row).version, self._entity(row))

    def is_meant(self, record: Record, row: Row) -> bool:
        """Whether it is of the entity, the text and the model of *record*."""
        stamp = self.stamp_of(row)
        return stamp[2:5] == record.stamp[2:5] and stamp[6:8] == record.stamp[6:8]

    # --- writing

    def puts_of(
        self, records: Sequence[Record], there: Mapping[str, Row], collection: Collection
    ) -> list[Put]:
        """*records* with the other fields of those that stood for their entities."""
        new = [record for record in records if record.stamp.vector_id not in there]
        others = self._of_the_same_entities(new, collection)
        puts = []
        for record in records:
            stamp = record.stamp
            before = (
                there.get(stamp.vector_id) or others.get(stamp[2:5]) or Row(stamp.vector_id, {})
            )
            puts.append(self._put(record, before))
        return puts

    def restamps_of(self, records: Sequence[Record], there: Mapping[str, Row]) -> list[Put]:
        """A stamp, and metadata that are undrift's own; what another program wrote stays."""
        puts = []
        for record in records:
            before = there[record.stamp.vector_id]
            metadata = {} if self._stamp_in(before) is None else _flat(record)
            stamp = self._stamp(record, self._seen(before))
            puts.append(Put(record.stamp.vector_id, {**metadata, **stamp}, None, None))
        return puts

    def _put(self, record: Record, before: Row) -> Put:
        stamp, fields = record.stamp, self.fields
        text_key, document = key_of(fields.text), before.document or None
        metadata = dict(self._foreign(before.metadata)) | _flat(record)
        for path, value in fields.fixed.items():
            if str(metadata.get(path)) != value:
                metadata[path] = value
        metadata[key_of(fields.owner)] = typed(stamp.owner_id, is_number=self.owner_is_number)
        metadata[key_of(fields.entity_id)] = typed(stamp.entity_id, is_number=self.entity_is_number)
        for field, value in ((fields.kind, stamp.kind), (fields.model, stamp.model)):
            if key_of(field):
                metadata[key_of(field)] = value
        if text_key == DOCUMENT:
            document = record.text
        elif text_key:
            metadata[text_key] = record.text
        seen = hash_of(record.text if text_key else document)
        metadata |= self._stamp(record, seen)
        return Put(stamp.vector_id, metadata, document, sendable(record.embedding))

    def _of_the_same_entities(
        self, records: Sequence[Record], collection: Collection
    ) -> dict[tuple[str, str, str], Row]:
        """What stands for the entities of *records* under other ids."""
        wanted = {record.stamp[2:5] for record in records}
        found: dict[tuple[str, str, str], Row] = {}
        owners = sorted({owner_id for owner_id, _, _ in wanted})
        pages = pages_of(collection, self.of_owners(owners), with_documents=True) if owners else ()
        for page in pages:
            for row in page:
                entity = self._entity(row)
                if entity in wanted and self.is_managed(row):
                    found.setdefault(entity, row)
        return found

    # --- parts

    def _entity(self, row: Row) -> tuple[str, str, str]:
        """Owner, kind and id; empty where they are lacking."""
        kind, entity_id = self.fields.kind, key_of(self.fields.entity_id)
        of_kind = id_at(row.metadata, [key_of(kind)]) if kind.value is None else kind.value
        return self.owner_of(row), of_kind, id_at(row.metadata, [entity_id])

    def _has_what_is_fixed(self, row: Row) -> bool:
        fixed = self.fields.fixed
        return all(str(row.metadata.get(path)) == value for path, value in fixed.items())

    def _model(self, row: Row) -> str:
        field = self.fields.model
        if field is None:
            return UNSTATED_MODEL
        named = text_in(row.metadata, key_of(field)) if field.value is None else field.value
        return named or UNSTATED_MODEL

    def _text(self, row: Row) -> str | None:
        """The text that the fields name, or the document."""
        key = key_of(self.fields.text)
        text = row.document if key in ("", DOCUMENT) else text_in(row.metadata, key)
        return text or None

    def _seen(self, row: Row) -> str:
        """The digest of its text, by which a stamp shows that it is of this one."""
        return hash_of(self._text(row))

    @property
    def _prefix(self) -> str:
        return f"{key_of(self.fields.stamp) or STAMP_KEY}_"

    def _stamp_in(self, row: Row) -> Fields | None:
        """Its stamp by parts; None where it has none, or one of another text."""
        stamp = {name: row.metadata.get(self._prefix + name) for name in _STAMP_PARTS}
        is_stamp = isinstance(stamp["namespace"], str) and isinstance(stamp["fingerprint"], str)
        return stamp if is_stamp and stamp["seen"] == self._seen(row) else None

    def _stamp(self, record: Record, seen: str) -> dict[str, object]:
        stamp = record.stamp._asdict() | {"seen": seen}
        return {self._prefix + name: stamp[name] for name in _STAMP_PARTS}

    def _foreign(self, metadata: Fields) -> Iterator[tuple[str, object]]:
        """The fields that are none of a stamp's."""
        own = {self._prefix + name for name in _STAMP_PARTS}
        return ((name, value) for name, value in metadata.items() if name not in own)


def adopted_records(
    collection: Collection, fields: StoreFields, *, namespace: str
) -> AdoptedRecords:
    """How the records of *collection* lie, as *fields* say and some of them show."""
    sample = _sample(collection, fields)
    return AdoptedRecords(
        namespace=namespace,
        fields=fields,
        owner_is_number=_is_number(fields.owner, sample),
        entity_is_number=_is_number(fields.entity_id, sample),
    )


def require_fields(collection: Collection, fields: StoreFields, *, location: str) -> None:
    """See that the records of *collection* are as *fields* say; an empty one says nothing.

    Raises:
        ConfigError: they are not.
    """
    if fields.id is not None:
        raise misfit(location, "a record has one id, Chroma's own", "leave id out of")
    if fields.vector is not None:
        raise misfit(location, "a record has one vector", "leave vector out of")
    for name in ("owner", "kind", "entity_id", "model"):
        if key_of(getattr(fields, name)) == DOCUMENT:
            raise misfit(location, f"{name} cannot be the document", f"correct {name} in")
    sample = _sample(collection, fields)
    for name, field in (("owner", fields.owner), ("entity_id", fields.entity_id)):
        if not sample or any(id_at(metadata, [key_of(field)]) for metadata in sample):
            continue
        there = sorted({key for metadata in sample for key in metadata} | {DOCUMENT})
        raise misfit(
            location,
            f"none of {len(sample)} records has {field} as a text or a whole number; there are "
            f"{', '.join(there)}",
            f"correct {name} in",
        )


def _sample(collection: Collection, fields: StoreFields) -> list[Fields]:
    """The metadata of the first records; of many, where those name no owner."""
    for limit in (SAMPLE_RECORDS, PAGE_RECORDS):
        sample = [row.metadata for row in collection.rows(limit=limit)]
        if any(id_at(metadata, [key_of(fields.owner)]) for metadata in sample):
            break
    return sample


def _is_number(field: Field, sample: Sequence[Fields]) -> bool:
    """Whether the first record that has the field has a number there."""
    values = (metadata.get(key_of(field)) for metadata in sample)
    first = next((value for value in values if value is not None), None)
    return isinstance(first, int) and not isinstance(first, bool)


def _flat(record: Record) -> dict[str, object]:
    """The entity's metadata as Chroma can hold them: what is no plain value becomes JSON."""
    metadata: dict[str, object] = json.loads(record.metadata_json)
    return {
        name: value if isinstance(value, str | int | float | None) else canonical_json(value)
        for name, value in metadata.items()
        if name and not name.startswith(_RESERVED)
    }
