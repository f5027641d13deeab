"""What every adapter does with the records of another program."""

from __future__ import annotations

from undrift.fingerprint import storable_text, text_hash
from undrift.mapping import MAX_EMBEDDED_CHARACTERS

STAMP_KEY = "undrift"
"""The key under which a stamp lies among another program's fields."""


def hash_of(text: str | None) -> str:
    """The text_hash of a text as a collection holds it; empty where it holds none."""
    if text is None:
        return ""
    embedded = storable_text(text).strip()[:MAX_EMBEDDED_CHARACTERS]
    return text_hash(embedded.encode())
