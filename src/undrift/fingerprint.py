"""Content identities: what makes two records equal, and where a record lives.

Every hash is over a length-prefixed encoding. A joined string would let ("a", "bc") and ("ab", "c")
collide, and with owners chosen by users that is a hole, not a curiosity.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable
from uuid import UUID

import orjson

FORMAT = "1"
"""Part of every fingerprint; a new format makes every record "changed" and re-stamps it."""

_HASH_BYTES = 16
_NAMESPACE_BYTES = UUID("5f3c2a52-6d0e-5b0c-9a4e-2f1d8f0b7c31").bytes
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")

# Eight times faster than the standard library's encoder, and this runs once for every entity.
_JSON_OPTIONS = orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS | orjson.OPT_PASSTHROUGH_DATETIME
_encode_json = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=str
).encode

# The variant takes the two upper bits of a hexadecimal digit.
_VARIANT = {digit: "89ab"[int(digit, 16) % 4] for digit in "0123456789abcdef"}


def text_hash(embedded_text: bytes) -> str:
    """128-bit BLAKE2b of the UTF-8 text that is embedded, in hex."""
    return hashlib.blake2b(embedded_text, digest_size=_HASH_BYTES).hexdigest()


def fingerprint(kind: str, entity_id: str, owner_id: str, text: bytes, metadata_json: str) -> str:
    """128-bit BLAKE2b over everything a record holds, in hex.

    Args:
        text: the whole rendered text as UTF-8.
        metadata_json: as `canonical_json` gives it.
    """
    metadata = metadata_json.encode()
    return fingerprint_of(of_kind(kind), entity_id, of_owner(owner_id), text, metadata)


def fingerprint_of(kind: bytes, entity_id: str, owner: bytes, text: bytes, metadata: bytes) -> str:
    """As `fingerprint`, where kind and owner were encoded once for many entities.

    Args:
        kind: from `of_kind`.
        owner: from `of_owner`.
        metadata: as `canonical_utf8` gives it.
    """
    id_ = entity_id.encode()
    encoded = b"%b%d:%b%b%d:%b%d:%b" % (
        kind,
        len(id_),
        id_,
        owner,
        len(text),
        text,
        len(metadata),
        metadata,
    )
    return hashlib.blake2b(encoded, digest_size=_HASH_BYTES).hexdigest()


def of_kind(kind: str) -> bytes:
    """What the fingerprints of a kind begin with."""
    return _length_prefixed((FORMAT, kind))


def of_owner(owner_id: str) -> bytes:
    """What the fingerprints of an owner have in common."""
    return _length_prefixed((owner_id,))


def vector_id(namespace: str, owner_id: str, kind: str, entity_id: str) -> str:
    """The UUID under which an entity's record lives; see `VectorIds`."""
    return VectorIds(namespace, owner_id).of(kind, entity_id)


class VectorIds:
    """The UUIDs (version 5) under which one owner's records live, in canonical spelling.

    Writing an entity twice writes one record, and no two owners can reach one another's.
    SHA-1 is called directly, and once for what all names of an owner begin with: ``uuid.uuid5``
    costs four times as much, and this runs once for every write.

    Source:
        RFC 9562 section 5.5 (name-based UUID).
    """

    def __init__(self, namespace: str, owner_id: str) -> None:
        beginning = _NAMESPACE_BYTES + _length_prefixed((namespace, owner_id))
        self._begun = hashlib.sha1(beginning, usedforsecurity=False)

    def of(self, kind: str, entity_id: str) -> str:
        """The vector_id of one entity."""
        name = self._begun.copy()
        kind_, id_ = kind.encode("utf-8", "surrogatepass"), entity_id.encode(errors="surrogatepass")
        name.update(b"%d:%b%d:%b" % (len(kind_), kind_, len(id_), id_))
        h = name.hexdigest()
        return f"{h[:8]}-{h[8:12]}-5{h[13:16]}-{_VARIANT[h[16]]}{h[17:20]}-{h[20:32]}"


def mint_id(key: Iterable[str], content: str = "") -> str:
    """An id for an element without one, from its natural key.

    Args:
        key: the key's values in order; surrounding white space does not count.
        content: a digest that tells apart elements of equal key and different content.
    """
    parts = [part.strip() for part in key]
    if content:
        parts.append(content)
    encoded = _length_prefixed(parts)
    return f"nk-{hashlib.blake2b(encoded, digest_size=12).hexdigest()}"


def content_digest(parts: Iterable[str]) -> bytes:
    """A 128-bit digest of raw content, to tell whether it changed between two reads."""
    return hashlib.blake2b(_length_prefixed(parts), digest_size=_HASH_BYTES).digest()


def canonical_json(value: object) -> str:
    """JSON with sorted keys and no spaces, so that equal values have equal encodings.

    What cannot be stored everywhere is replaced: NUL and lone surrogates by U+FFFD, numbers that
    are not finite by null. Values JSON does not know (dates, decimals, UUIDs) become strings.
    """
    return canonical_utf8(value).decode()


def canonical_utf8(value: object) -> bytes:
    """As `canonical_json`, in UTF-8."""
    try:
        encoded = orjson.dumps(value, default=str, option=_JSON_OPTIONS)
        if b"\\u0000" not in encoded:
            return encoded
    except TypeError:
        pass  # a lone surrogate perhaps
    value = _storable(value)
    try:
        return orjson.dumps(value, default=str, option=_JSON_OPTIONS)
    except TypeError:
        return _encode_json(value).encode()  # integers beyond 64 bits, deep nesting


def storable_text(text: str) -> str:
    """*text* with NUL and lone surrogates replaced by U+FFFD, which every store accepts."""
    if "\x00" not in text and _is_utf8(text):
        return text
    return _UNSTORABLE.sub(_REPLACEMENT, text)


def is_storable_id(value: str) -> bool:
    """Whether every store can hold *value* as an id as it is; ids are never altered."""
    return "\x00" not in value and _is_utf8(value)


def _is_utf8(text: str) -> bool:
    if text.isascii():  # known without looking at the text
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _storable(value: object) -> object:
    if isinstance(value, str):
        return storable_text(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        # Two keys may become one; which of them stays must not depend on their order.
        items = sorted(value.items(), key=lambda item: str(item[0]))
        return {storable_text(str(key)): _storable(item) for key, item in items}
    if isinstance(value, list | tuple):
        return [_storable(item) for item in value]
    return value


def _length_prefixed(parts: Iterable[str]) -> bytes:
    encoded = [part.encode("utf-8", "surrogatepass") for part in parts]
    return b"".join([b"%d:%b" % (len(part), part) for part in encoded])
