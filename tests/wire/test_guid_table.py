"""The firmware's table of GUIDs, read backwards: what breaks its form is refused, what was written is read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton.wire import guid_table

ENTRIES = st.dictionaries(
    st.binary(min_size=16, max_size=16).filter(lambda g: g != guid_table.FOOTER), st.binary(max_size=40)
)


@given(ENTRIES, st.binary(max_size=50))
def test_what_is_written_is_read(entries: dict[bytes, bytes], before: bytes) -> None:
    assert guid_table.read(before + guid_table.write(entries) + bytes(32)) == entries


@given(st.binary(max_size=120))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    assert guid_table.read(data) is None
    footed = data + guid_table.FOOTER + bytes(32)
    try:
        guid_table.read(footed)
    except ValueError as error:
        assert "table" in str(error)


def test_entries_that_overlap_or_repeat_are_refused() -> None:
    one = b"x" * 4 + guid_table.ENTRY.pack(22, b"g" * 16)
    footer = guid_table.ENTRY.pack(2 * len(one) + 18, guid_table.FOOTER) + bytes(32)
    with pytest.raises(ValueError, match="twice"):
        guid_table.read(one + one + footer)
    for length in (0, 17, 23, 0xFFFF):
        with pytest.raises(ValueError, match="table"):
            guid_table.read(
                one[:4]
                + guid_table.ENTRY.pack(length, b"g" * 16)
                + guid_table.ENTRY.pack(40, guid_table.FOOTER)
                + bytes(32)
            )
    with pytest.raises(ValueError, match="longer"):
        guid_table.read(guid_table.ENTRY.pack(19, guid_table.FOOTER) + bytes(32))
    with pytest.raises(ValueError, match="cut off"):
        guid_table.read(b"x" + guid_table.ENTRY.pack(19, guid_table.FOOTER) + bytes(32))
