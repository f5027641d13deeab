"""Lists on PostgreSQL's wire: byte for byte what psycopg sends, in less time."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.adapt import Dumper, PyFormat, Transformer
from psycopg.types.array import ListBinaryDumper

from undrift.postgres import _ListDumper

TEXTS = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))
LISTS = st.one_of(
    st.lists(TEXTS),
    st.lists(st.sampled_from(["job", "skill", "größe"]), min_size=60, max_size=80),
    st.lists(st.booleans()),
    st.lists(st.integers(-100, 100)),
    st.lists(st.integers(-(2**31), 2**31 - 1)),
    st.lists(st.integers(-(2**63), 2**63 - 1)),
    st.lists(st.integers(-(2**80), 2**80)),
    st.lists(st.one_of(st.none(), st.integers(0, 9), st.just(2**40))),
    st.lists(st.one_of(st.none(), TEXTS)),
    st.lists(st.lists(st.integers(0, 9), min_size=2, max_size=2), min_size=1),
    st.lists(st.floats(allow_nan=False)),
)


def sent(kind: type[ListBinaryDumper], items: Sequence[object]) -> tuple[int, bytes]:
    """The type's oid, and the bytes."""
    dumper: Dumper = kind(list, Transformer()).upgrade(list(items), PyFormat.BINARY)
    return dumper.oid, bytes(dumper.dump(list(items)) or b"")


@given(LISTS)
def test_lists_are_sent_as_psycopg_sends_them(items: list[object]) -> None:
    assert sent(_ListDumper, items) == sent(ListBinaryDumper, items)


def test_text_that_is_no_unicode_is_refused() -> None:
    for items in (["a", "\ud800"], ["\ud800"] * 80):
        with pytest.raises(UnicodeEncodeError):
            sent(_ListDumper, items)
