"""MRENCLAVE of streams: what is no canonical stream is refused, and what is measured is the stream's SHA-256."""

from __future__ import annotations

import hashlib
import struct
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton.errors import DocumentInvalid
from adyton.tee.sgx.measure import (
    CHUNK,
    EXECUTE,
    PAGE,
    READ,
    REGULAR,
    THREAD_CONTROL,
    WRITE,
    Enclave,
    add_record,
    create_record,
    extend_record,
    measure,
)

SIZE = 0x10000
CODE = READ | EXECUTE | REGULAR
CREATE = create_record(SIZE, 1)
PAGE_0, PAGE_1 = add_record(0, CODE), add_record(PAGE, READ | WRITE | REGULAR)
CHUNK_0 = extend_record(0, b"\x11" * CHUNK)


def edited(record: bytes, offset: int, value: bytes) -> bytes:
    return record[:offset] + value + record[offset + len(value) :]


REFUSED = {
    "nothing": (b"", "sgxs_cut_off"),
    "no ECREATE": (PAGE_0, "sgxs_order"),
    "two ECREATEs": (CREATE + CREATE, "sgxs_order"),
    "a size that is no power of two": (edited(CREATE, 12, struct.pack("<Q", 0x3000)), "sgxs_size"),
    "one page": (edited(CREATE, 12, struct.pack("<Q", 0x1000)), "sgxs_size"),
    "a size beyond any address": (edited(CREATE, 12, struct.pack("<Q", 1 << 48)), "sgxs_size"),
    "no save area": (edited(CREATE, 8, bytes(4)), "sgxs_record"),
    "reserved bytes of ECREATE": (edited(CREATE, 63, b"\1"), "sgxs_record"),
    "a page off its place": (CREATE + edited(PAGE_0, 8, b"\1"), "sgxs_order"),
    "a page outside": (CREATE + add_record(SIZE, CODE), "sgxs_order"),
    "a page twice": (CREATE + PAGE_0 + PAGE_0, "sgxs_order"),
    "pages in descending order": (CREATE + PAGE_1 + PAGE_0, "sgxs_order"),
    "an unknown page type": (CREATE + edited(PAGE_0, 17, b"\7"), "sgxs_page_flags"),
    "a SECS page": (CREATE + edited(PAGE_0, 17, b"\0"), "sgxs_page_flags"),
    "a pending page": (CREATE + edited(PAGE_0, 16, b"\x0f"), "sgxs_page_flags"),
    "reserved bytes of EADD": (CREATE + edited(PAGE_0, 63, b"\1"), "sgxs_page_flags"),
    "a chunk before any page": (CREATE + CHUNK_0, "sgxs_order"),
    "a chunk of another page": (CREATE + PAGE_1 + CHUNK_0, "sgxs_order"),
    "a chunk twice": (CREATE + PAGE_0 + CHUNK_0 + CHUNK_0, "sgxs_order"),
    "a chunk twice, once unmeasured": (CREATE + PAGE_0 + CHUNK_0 + edited(CHUNK_0, 0, b"UNMEASRD"), "sgxs_order"),
    "a chunk off its place": (CREATE + PAGE_0 + edited(CHUNK_0, 8, b"\1"), "sgxs_order"),
    "reserved bytes of EEXTEND": (CREATE + PAGE_0 + edited(CHUNK_0, 63, b"\1"), "sgxs_record"),
    "a size still open": (edited(CREATE, 0, b"UNSIZED\0"), "sgxs_unsized"),
    "an unknown record": (CREATE + b"EREMOVE\0" + bytes(56), "sgxs_record"),
    "half a record": (CREATE + PAGE_0[:40], "sgxs_cut_off"),
    "half a chunk": (CREATE + PAGE_0 + CHUNK_0[:100], "sgxs_cut_off"),
    "a byte too many": (CREATE + PAGE_0 + CHUNK_0 + b"\0", "sgxs_cut_off"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_stream_is_refused(name: str) -> None:
    stream, code = REFUSED[name]
    with pytest.raises(DocumentInvalid) as caught:
        measure([stream])
    assert caught.value.code == code
    assert caught.value.tee == "sgx"


def build(pages: list[tuple[int, bytes, bool]], size: int = SIZE, frame: int = 1) -> tuple[bytes, bytes]:
    stream = bytearray()
    enclave = Enclave(size=size, ssa_frame_size=frame, write=stream.extend)
    for number, (flags, contents, measured) in enumerate(pages):
        enclave.add_page(number * PAGE, flags, contents, measured=measured)
    return bytes(stream), enclave.mrenclave


def test_a_stream_is_what_is_measured() -> None:
    stream, mrenclave = build(
        [(CODE, b"code", True), (READ | WRITE | REGULAR, b"", False), (THREAD_CONTROL, b"", True)]
    )
    measured = measure([stream])
    assert measured.mrenclave == mrenclave == hashlib.sha256(stream).digest()
    assert (measured.size, measured.ssa_frame_size, measured.pages, measured.chunks) == (SIZE, 1, 3, 32)
    assert len(stream) == 64 + 3 * 64 + 32 * (64 + 256)


def test_the_instructions_own_layout() -> None:
    """Written out by hand from the manual's description of the three instructions."""
    by_hand = b"ECREATE\0" + struct.pack("<IQ", 2, SIZE) + bytes(44)
    by_hand += b"EADD\0\0\0\0" + struct.pack("<QQ", PAGE, 0x205) + bytes(40)
    by_hand += b"EEXTEND\0" + struct.pack("<Q", PAGE + 0x100) + bytes(48) + b"\xaa" * 256
    assert by_hand == create_record(SIZE, 2) + add_record(PAGE, 0x205) + extend_record(PAGE + 0x100, b"\xaa" * 256)
    assert measure([by_hand]).mrenclave == hashlib.sha256(by_hand).digest()


def test_everything_that_is_loaded_changes_the_measurement() -> None:
    base = build([(CODE, b"code", True)])[1]
    others = [
        build([(CODE, b"Code", True)])[1],
        build([(CODE | WRITE, b"code", True)])[1],
        build([(CODE, b"code", False)])[1],
        build([(CODE, b"code", True)], size=2 * SIZE)[1],
        build([(CODE, b"code", True)], frame=2)[1],
        build([(CODE, b"code", True), (CODE, b"", True)])[1],
    ]
    assert len({base, *others}) == 7


def test_unmeasured_records_are_passed_over() -> None:
    unmeasured = edited(extend_record(CHUNK, b"\x22" * CHUNK), 0, b"UNMEASRD")
    rest = extend_record(2 * CHUNK, b"\x33" * CHUNK)
    measured = measure([CREATE + PAGE_0 + CHUNK_0 + unmeasured + rest])
    assert measured.mrenclave == hashlib.sha256(CREATE + PAGE_0 + CHUNK_0 + rest).digest()
    assert (measured.chunks, measured.unmeasured) == (2, 1)


@given(st.lists(st.integers(1, 700), min_size=1, max_size=40))
def test_pieces_of_any_size_give_the_same(sizes: list[int]) -> None:
    unmeasured = edited(extend_record(PAGE + CHUNK, b"\x22" * CHUNK), 0, b"UNMEASRD")
    stream = build([(CODE, b"code", True)])[0] + PAGE_1 + extend_record(PAGE, bytes(CHUNK)) + unmeasured

    def pieces() -> Iterator[bytes]:
        at = number = 0
        while at < len(stream):
            yield stream[at : at + sizes[number % len(sizes)]]
            at += sizes[number % len(sizes)]
            number += 1

    assert measure(pieces()) == measure([stream])


@given(st.binary(max_size=2000))
def test_any_bytes_are_measured_or_refused(data: bytes) -> None:
    for stream in (data, CREATE + data, CREATE + PAGE_0 + data):
        try:
            measured = measure([stream])
        except DocumentInvalid:
            continue
        assert measured.unmeasured or measured.mrenclave == hashlib.sha256(stream).digest()


def test_memory_stays_bounded() -> None:
    contents = b"\x5a" * PAGE

    def pieces(count: int) -> Iterator[bytes]:
        yield create_record(1 << 26, 1)
        for number in range(count):
            offset = number * PAGE
            yield add_record(offset, CODE) + b"".join(
                extend_record(offset + at, contents[at : at + CHUNK]) for at in range(0, PAGE, CHUNK)
            )

    measure(pieces(2))
    tracemalloc.start()
    assert measure(pieces(2000)).pages == 2000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200_000


@pytest.mark.parametrize(
    "misuse",
    [
        lambda: create_record(0x3000, 1),
        lambda: create_record(SIZE, 0),
        lambda: add_record(5, CODE),
        lambda: extend_record(5, bytes(CHUNK)),
        lambda: extend_record(0, bytes(5)),
        lambda: Enclave(size=SIZE, ssa_frame_size=1).add_page(SIZE, CODE),
        lambda: Enclave(size=SIZE, ssa_frame_size=1).add_page(0, CODE, bytes(PAGE + 1)),
    ],
)
def test_misuse_is_a_value_error(misuse: object) -> None:
    assert callable(misuse)
    with pytest.raises(ValueError, match=r"enclave|page|chunk"):
        misuse()
