"""MRTD and RTMRs: broken metadata is refused, and both orders are what the records say, written out one by one."""

from __future__ import annotations

import hashlib
import json
import struct
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton.errors import DocumentInvalid
from adyton.tee.tdx.measure import (
    INITIAL,
    MAX_FIRMWARE,
    METADATA,
    PAGE,
    Order,
    extend,
    mrtd,
    parse,
    predict,
    replay,
)
from adyton.wire import guid_table

IMAGE_SIZE = 4 * PAGE
Row = tuple[int, int, int, int, int, int]  # as the metadata lists: offset, raw size, address, size, type, attributes
CODE: Row = (PAGE, 3 * PAGE, 0xFFFFD000, 3 * PAGE, 0, 1)
VARIABLES: Row = (0, PAGE, 0xFFFFC000, PAGE, 1, 0)
STACK: Row = (0, 0, 0x810000, 2 * PAGE, 3, 0)
HAND_OFF: Row = (0, 0, 0x809000, PAGE, 2, 0)
LATER: Row = (0, 0, 0, 0x80000, 4, 2)
ROWS = (CODE, VARIABLES, STACK, HAND_OFF, LATER)


def firmware(
    rows: Sequence[Row] = ROWS,
    *,
    magic: bytes = b"TDVF",
    version: int = 1,
    length: int | None = None,
    place: bytes | None = None,
    entries: dict[bytes, bytes] | None = None,
) -> bytes:
    image = bytearray((bytes(range(251)) * 70)[:IMAGE_SIZE])
    metadata = b"".join(struct.pack("<IIQQII", *row) for row in rows)
    length = 16 + len(metadata) if length is None else length
    metadata = struct.pack("<4sIII", magic, length, version, len(rows)) + metadata
    start = IMAGE_SIZE - 0x800
    image[start : start + len(metadata)] = metadata
    at = struct.pack("<I", 0x800) if place is None else place
    table = guid_table.write(entries if entries is not None else {uuid.uuid4().bytes_le: b"x" * 8, METADATA: at})
    image[-32 - len(table) : -32] = table
    return bytes(image)


def changed(row: Row, **values: int) -> Row:
    names = ("offset", "raw", "address", "size", "kind", "attributes")
    offset, raw, address, size, kind, attributes = (values.get(name, old) for name, old in zip(names, row, strict=True))
    return offset, raw, address, size, kind, attributes


REFUSED = {
    "nothing": (b"", "firmware_size"),
    "no table": (bytes(IMAGE_SIZE), "firmware_table_missing"),
    "a few bytes": (b"abc", "firmware_table_missing"),
    "no TDX metadata": (firmware(entries={}), "firmware_metadata_missing"),
    "a short entry": (firmware(place=b"\0\0"), "firmware_metadata"),
    "metadata before the image": (firmware(place=b"\xff\xff\xff\x7f"), "firmware_metadata"),
    "metadata at the end": (firmware(place=b"\4\0\0\0"), "firmware_metadata"),
    "another magic": (firmware(magic=b"ASEV"), "firmware_metadata"),
    "another version": (firmware(version=2), "firmware_metadata"),
    "too short": (firmware(length=16), "firmware_metadata"),
    "too long": (firmware(length=1 << 20), "firmware_metadata"),
    "no sections": (firmware(()), "firmware_metadata"),
    "half a page": (firmware([changed(CODE, address=0xFFFFD800)]), "firmware_section"),
    "half a page long": (firmware([changed(STACK, size=0x800)]), "firmware_section"),
    "empty": (firmware([changed(STACK, size=0)]), "firmware_section"),
    "beyond memory": (firmware([changed(STACK, address=(1 << 64) - 2 * PAGE)]), "firmware_section"),
    "contents outside": (firmware([changed(CODE, offset=IMAGE_SIZE)]), "firmware_section"),
    "contents too long": (firmware([changed(CODE, size=PAGE)]), "firmware_section"),
    "unknown attribute": (firmware([changed(CODE, attributes=4)]), "firmware_section"),
    "measured and later": (firmware([changed(CODE, attributes=3)]), "firmware_section"),
    "later with contents": (firmware([changed(CODE, attributes=2)]), "firmware_section"),
    "too much memory": (firmware([changed(STACK, address=0, size=1 << 29)]), "firmware_section"),
    "overlapping": (firmware([*ROWS, changed(STACK, address=0x811000)]), "firmware_section"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_measured_is_refused(name: str) -> None:
    image, code = REFUSED[name]
    with pytest.raises(DocumentInvalid) as caught:
        mrtd(image, Order.PAGE)
    assert caught.value.code == code
    assert caught.value.tee == "tdx"


def test_a_broken_table_is_refused() -> None:
    image = bytearray(firmware())
    image[-50] ^= 0x04  # the length of the whole table
    with pytest.raises(DocumentInvalid) as caught:
        parse(bytes(image))
    assert caught.value.code == "firmware_table"


def test_an_enormous_image_is_refused_before_it_is_read() -> None:
    with pytest.raises(DocumentInvalid) as caught:
        parse(bytes(MAX_FIRMWARE + 1))
    assert caught.value.code == "firmware_size"


def by_hand(image: bytes, *, page_by_page: bool) -> bytes:
    """The module's records, one at a time, from the rows above."""
    digest = hashlib.sha384()

    def add(address: int) -> None:
        digest.update(b"MEM.PAGE.ADD" + bytes(4) + address.to_bytes(8, "little") + bytes(104))

    def measure(address: int, contents: bytes) -> None:
        for at in range(0, PAGE, 256):
            digest.update(b"MR.EXTEND" + bytes(7) + (address + at).to_bytes(8, "little") + bytes(104))
            digest.update(contents[at : at + 256])

    for offset, raw, address, size, _, attributes in ROWS:
        contents = image[offset : offset + raw] + bytes(size - raw)
        pages = range(0, size, PAGE)
        if attributes == 2:
            continue
        for at in pages:
            add(address + at)
            if attributes and page_by_page:
                measure(address + at, contents[at:])
        for at in pages if attributes and not page_by_page else ():
            measure(address + at, contents[at:])
    return digest.digest()


def test_both_orders_are_what_the_records_say() -> None:
    image = firmware()
    assert mrtd(image, Order.PAGE) == by_hand(image, page_by_page=True)
    assert mrtd(image, Order.SECTION) == by_hand(image, page_by_page=False)
    assert mrtd(image, Order.PAGE) != mrtd(image, Order.SECTION)
    assert [section.measured for section in parse(image)] == [True, False, False, False, False]


def test_what_is_measured_and_what_is_not() -> None:
    image = firmware()
    base = [mrtd(image, order) for order in Order]
    code, variables = bytearray(image), bytearray(image)
    code[2 * PAGE] ^= 1
    variables[100] ^= 1
    assert [mrtd(bytes(variables), order) for order in Order] == base  # variables are measured by the firmware itself
    assert all(mrtd(bytes(code), order) not in base for order in Order)
    assert mrtd(firmware([CODE, VARIABLES, HAND_OFF, STACK]), Order.PAGE) != base[0]
    assert mrtd(firmware([CODE, VARIABLES, STACK, HAND_OFF]), Order.PAGE) != base[0]  # the metadata lies in the code


@given(st.binary(max_size=200), st.integers(0, 0x800))
def test_any_metadata_is_measured_or_refused(data: bytes, offset: int) -> None:
    image = bytearray(firmware())
    at = IMAGE_SIZE - 0x800 + offset
    image[at : at + len(data)] = data
    try:
        assert len(mrtd(bytes(image[:IMAGE_SIZE]), Order.SECTION)) == 48
    except DocumentInvalid as error:
        assert error.code.startswith("firmware_")


def test_extending_a_register() -> None:
    one, two = hashlib.sha384(b"one").digest(), hashlib.sha384(b"two").digest()
    first = hashlib.sha384(bytes(48) + one).digest()
    second = hashlib.sha384(first + two).digest()
    assert extend(extend(INITIAL, one), two) == second == predict([b"one", b"two"])
    assert predict([b"two"], start=first) == second
    assert replay([(2, one), (0, two), (2, two)]) == (extend(INITIAL, two), INITIAL, second, INITIAL)
    assert predict([b"two", b"one"]) != second


@pytest.mark.parametrize("event", [(4, bytes(48)), (-1, bytes(48)), (0, bytes(32)), (0, b"")])
def test_events_of_no_register_are_refused(event: tuple[int, bytes]) -> None:
    with pytest.raises(DocumentInvalid) as caught:
        replay([(0, bytes(48)), event])
    assert caught.value.code == "rtmr_event"
    with pytest.raises(ValueError, match="48 bytes"):
        extend(INITIAL, b"")


@pytest.mark.vectors
def test_the_registers_of_a_real_domain(vectors: Path, manifest: dict[str, Any]) -> None:
    log = json.loads((vectors / "tdx" / "dstack" / "quote-report.json").read_text())["event_log"]
    events = json.loads(log) if isinstance(log, str) else log
    case = next(case for case in manifest["cases"] if case["id"] == "tdx-v4-90c06f-dstack-signature")
    registers = replay((event["imr"], bytes.fromhex(event["digest"])) for event in events)
    assert [register.hex() for register in registers] == [case["claims"][f"rtmr{number}"] for number in range(4)]
