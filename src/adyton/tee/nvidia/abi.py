"""The report of an NVIDIA device: an SPDM 1.1 GET_MEASUREMENTS request and its response, bytes ⇄ ``Report``.

DMTF DSP0274 1.1; evidence 11. Little-endian but for the signature. Layout::

    request   0 version 0x11 · 1 code 0xe0 · 2 attributes 0x01 · 3 operation 0xff · 4 nonce 32 · 36 slot
    response  0 version 0x11 · 1 code 0x60 · 2, 3 parameters · 4 number of blocks · 5 length of the record, 3 bytes ·
              8 the record · nonce 32 · 2 bytes length of the opaque data · opaque data · signature 96
    block     index 1 · specification 1 · size 2 · kind 1 · size of the value 2 · value
    opaque    type 2 · size 2 · data, again and again

The signature (r then s, 48 bytes each, big-endian) is over everything before it, request included, and nothing follows it.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from adyton.errors import MalformedEvidence

SPEC = "evidence 11"
REQUEST_SIZE = 37
NONCE_SIZE = 32
SIGNATURE_SIZE = 96
DIGEST_SIZE = 48
MAX_SIZE = 64 * 1024

_REQUEST_HEAD = bytes.fromhex("11e001ff")  # with a signature, all measurements
_RESPONSE_HEAD = b"\x11\x60"
_DMTF = 1
_MAX_SLOT = 7
_BLOCK = struct.Struct("<BBHBH")
_DIGEST_BLOCK = _BLOCK.size + DIGEST_SIZE  # bytes of a block whose value is a digest
_DIGEST_HEAD = ((1, b"\1"), (2, b"\x33"), (3, b"\0"), (5, b"\x30"), (6, b"\0"))  # what is the same in each of them
_OPAQUE = struct.Struct("<HH")
_RESPONSE_AT = REQUEST_SIZE
_RECORD_AT = _RESPONSE_AT + 8


class Report(NamedTuple):
    """A parsed report. ``blocks`` are (index from 1, kind, value), ``opaque`` (type, data), both as they came.

    ``nonce`` is the requester's, 32 bytes: the report data. ``response_nonce`` is the device's. ``parameters`` are two
    bytes of the response: reserved, and the slot of the certificate chain in its lower half.
    """

    nonce: bytes
    slot: int
    parameters: bytes
    blocks: tuple[tuple[int, int, bytes], ...]
    response_nonce: bytes
    opaque: tuple[tuple[int, bytes], ...]
    signature: bytes

    def encode(self) -> bytes:
        """The bytes that ``parse`` reads as this report."""
        record = b"".join(
            _BLOCK.pack(index, _DMTF, 3 + len(value), kind, len(value)) + value for index, kind, value in self.blocks
        )
        opaque = b"".join(_OPAQUE.pack(kind, len(data)) + data for kind, data in self.opaque)
        return b"".join(
            (
                _REQUEST_HEAD,
                self.nonce,
                bytes((self.slot,)),
                _RESPONSE_HEAD,
                self.parameters,
                bytes((len(self.blocks),)),
                len(record).to_bytes(3, "little"),
                record,
                self.response_nonce,
                len(opaque).to_bytes(2, "little"),
                opaque,
                self.signature,
            )
        )


def parse(data: bytes) -> Report:
    """Read a report; ``MalformedEvidence`` for anything else."""
    size = len(data)
    if size > MAX_SIZE:
        raise _malformed("larger than a report can be", "size", MAX_SIZE, size)
    if size < _RECORD_AT + NONCE_SIZE + 2 + SIGNATURE_SIZE:
        raise _malformed("shorter than any report", "size", got=size)
    if data[:4] != _REQUEST_HEAD:
        raise _malformed("not an SPDM 1.1 request for all measurements, signed", "request", _REQUEST_HEAD, data[:4])
    slot = data[REQUEST_SIZE - 1]
    if data[_RESPONSE_AT : _RESPONSE_AT + 2] != _RESPONSE_HEAD:
        raise _malformed(
            "not an SPDM 1.1 response with measurements",
            "response",
            _RESPONSE_HEAD,
            data[_RESPONSE_AT : _RESPONSE_AT + 2],
        )
    parameters = data[_RESPONSE_AT + 2 : _RESPONSE_AT + 4]
    if slot > _MAX_SLOT or parameters[1] & 0x0F != slot:
        raise _malformed("request and response name other certificate slots", "slot", slot, parameters[1] & 0x0F)
    record_end = _RECORD_AT + int.from_bytes(data[_RESPONSE_AT + 5 : _RECORD_AT], "little")
    opaque_at = record_end + NONCE_SIZE + 2
    if opaque_at > size:
        raise _malformed(
            "the measurement record is longer than the report", "measurements", got=record_end - _RECORD_AT
        )
    opaque_end = opaque_at + int.from_bytes(data[opaque_at - 2 : opaque_at], "little")
    if opaque_end + SIGNATURE_SIZE != size:
        raise _malformed("the lengths in it do not add up to its size", "size", opaque_end + SIGNATURE_SIZE, size)
    return Report(
        nonce=data[4 : 4 + NONCE_SIZE],
        slot=slot,
        parameters=parameters,
        blocks=_blocks(data[_RECORD_AT:record_end], data[_RESPONSE_AT + 4]),
        response_nonce=data[record_end : record_end + NONCE_SIZE],
        opaque=_opaque(data, opaque_at, opaque_end),
        signature=data[opaque_end:],
    )


def _blocks(record: bytes, count: int) -> tuple[tuple[int, int, bytes], ...]:
    step = _DIGEST_BLOCK
    if len(record) == count * step and all(record[at::step] == byte * count for at, byte in _DIGEST_HEAD):
        # As every device writes it, digests and nothing else: read by columns, since there are many.
        values = zip(record[::step], record[4::step], range(_BLOCK.size, len(record), step), strict=True)
        return _indexed(tuple([(index, kind, record[at : at + DIGEST_SIZE]) for index, kind, at in values]), count)
    found: list[tuple[int, int, bytes]] = []
    offset = 0
    while offset < len(record):
        if len(found) == count or offset + _BLOCK.size > len(record):
            raise _malformed("the measurement record does not hold the blocks it should", "measurements", count)
        index, specification, size, kind, value_size = _BLOCK.unpack_from(record, offset)
        end = offset + 4 + size
        if specification != _DMTF or size != value_size + 3 or end > len(record):
            raise _malformed("a measurement block that is not DMTF's or contradicts itself", "measurements", got=index)
        found.append((index, kind, record[offset + _BLOCK.size : end]))
        offset = end
    return _indexed(tuple(found), count)


def _indexed(blocks: tuple[tuple[int, int, bytes], ...], count: int) -> tuple[tuple[int, int, bytes], ...]:
    indices = {block[0] for block in blocks}
    if not count or len(indices) != count or len(blocks) != count or not indices.isdisjoint((0, 0xFF)):
        raise _malformed("measurements without an index of their own", "measurements", count, len(indices))
    return blocks


def _opaque(data: bytes, offset: int, end: int) -> tuple[tuple[int, bytes], ...]:
    found = []
    unpack = _OPAQUE.unpack_from
    while offset < end:
        body = offset + 4
        if body > end:
            raise _malformed("the opaque data is cut off", "opaque")
        kind, size = unpack(data, offset)
        offset = body + size
        if offset > end:
            raise _malformed("a field of the opaque data is longer than what holds it", "opaque", got=kind)
        found.append((kind, data[body:offset]))
    if len({kind for kind, _ in found}) != len(found):
        raise _malformed("a field of the opaque data comes twice", "opaque")
    return tuple(found)


def _malformed(reason: str, field: str, expected: object = None, got: object = None) -> MalformedEvidence:
    return MalformedEvidence(
        f"not a report of an NVIDIA device: {reason}",
        code="report_malformed",
        tee="nvidia",
        field=field,
        expected=expected,
        got=got,
        spec=SPEC,
    )
