"""The JSON form of CSV evidence that Confidential Containers sends (``kbs-protocol`` 2.4, ``csv``).

The report's page and the marks of its version are there as they are. The certificates are taken apart into members and
are put together again here; bytes are lists of numbers. The guest's library unmasks the signer block of the page in place
and clears its reserved bytes, so that its MAC can no longer be checked: ``verify`` takes the PEK from ``cert_chain`` and does
not look at the block.

Strict: every member is known, of its type, there once, within its length. ``MalformedEvidence`` otherwise.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Annotated

import msgspec

from adyton.errors import MalformedEvidence
from adyton.rats.types import JsonValue
from adyton.tee.csv.abi import PAGE, TEE, CsvReport
from adyton.tee.csv.certificate import AUTHORITY_LAYOUT, CHIP_LAYOUT
from adyton.wire import b64, strict_json

MAX_SIZE = 2 * 1024 * 1024
_MAX_KEPT = 64 * 1024  # bytes of certificates in JSON; a chip's have some 20 thousand
SPEC = "kbs-protocol 2.4 csv"
# How many names a complete certificate's object has, its parts' included.
_CHIP_NAMES, _AUTHORITY_NAMES = 31, 19
_TWICE = "an object has two members of the same name"


def _bytes(size: int) -> msgspec.Meta:
    return msgspec.Meta(min_length=size, max_length=size)


_B16 = Annotated[list[int], _bytes(16)]
_B24 = Annotated[list[int], _bytes(24)]
_B64 = Annotated[list[int], _bytes(64)]
_B72 = Annotated[list[int], _bytes(72)]
_B108 = Annotated[list[int], _bytes(108)]
_B112 = Annotated[list[int], _bytes(112)]
_B254 = Annotated[list[int], _bytes(254)]
_B368 = Annotated[list[int], _bytes(368)]
_B608 = Annotated[list[int], _bytes(608)]
_Page = Annotated[list[int], _bytes(PAGE)]


class _Strict(msgspec.Struct, forbid_unknown_fields=True):
    """No member that is not known."""


class _Report(_Strict):
    magic: _B16
    flags: int
    data: _Page


class _Point(_Strict):
    g: int
    x: _B72
    y: _B72


class _Signature(_Strict):
    r: _B72
    s: _B72


class _PublicKey(_Strict):
    usage: int
    algo: int
    key: _Point


class _Firmware(_Strict):
    major: int
    minor: int


class _ChipData(_Strict):
    firmware: _Firmware
    reserved1: int
    pubkey: _PublicKey
    uid_size: int
    user_id: _B254
    sid: _B16
    reserved2: _B608


class _ChipBody(_Strict):
    ver: int
    data: _ChipData


class _Slot(_Strict):
    usage: int
    algo: int
    signature: _Signature
    reserved: _B368 = msgspec.field(name="_reserved")


class _Chip(_Strict):
    body: _ChipBody
    sigs: Annotated[list[_Slot], _bytes(2)]


class _AuthorityData(_Strict):
    kid: _B16
    sid: _B16
    usage: int
    reserved: _B24


class _Preamble(_Strict):
    ver: int
    data: _AuthorityData


class _AuthorityBody(_Strict):
    preamble: _Preamble
    pubkey: _Point
    uid_size: int
    user_id: _B254
    reserved: _B108


class _Authority(_Strict):
    body: _AuthorityBody
    signature: _Signature
    reserved: _B112 = msgspec.field(name="_reserved")


class _HskCek(_Strict):
    hsk: _Authority
    cek: _Chip


class _CertChain(_Strict):
    pek: _Chip
    hsk_cek: _HskCek | msgspec.UnsetType | None = msgspec.UNSET


class _Evidence(_Strict):
    attestation_report: _Report
    cert_chain: msgspec.Raw
    serial_number: _B64
    cc_eventlog: str | msgspec.UnsetType | None = msgspec.UNSET


_EVIDENCE = msgspec.json.Decoder(_Evidence)
_CERT_CHAIN = msgspec.json.Decoder(_CertChain)


class JsonEvidence(msgspec.Struct, frozen=True):
    """A report and what came with it. ``hsk_cek``: 832 + 2084 bytes, or none; ``serial``: 64 bytes."""

    report: CsvReport
    pek: bytes
    hsk_cek: bytes
    serial: bytes
    event_log: bytes | None


def parse(data: bytes) -> JsonEvidence:
    """Read it, or ``MalformedEvidence``."""
    if len(data) > MAX_SIZE:
        raise MalformedEvidence(
            "evidence is too large", code="evidence_too_large", tee=TEE, expected=MAX_SIZE, got=len(data), spec=SPEC
        )
    try:
        fields = _EVIDENCE.decode(data)
        chain = bytes(fields.cert_chain)
        # What is remembered outlives the call, whoever sent it: texts that are padded beyond any chip's are read anew.
        read = _certificates if len(chain) <= _MAX_KEPT else _certificates.__wrapped__
        pek, hsk_cek = read(chain)
        report, log = fields.attestation_report, fields.cc_eventlog
        names = 6 + (log is not msgspec.UNSET) + isinstance(log, str)  # the log's own marks count as a name's
        if data.count(b'"') - chain.count(b'"') != 2 * names:
            raise ValueError(_TWICE)
        page, magic = bytes(report.data), bytes(report.magic)
        serial = bytes(fields.serial_number)
        event_log = b64.decode(log) if isinstance(log, str) else None
    except (*strict_json.UNREADABLE, OverflowError, struct.error) as error:
        raise MalformedEvidence(
            f"not CSV evidence in JSON: {str(error)[:200]}", code="json_malformed", tee=TEE, spec=SPEC
        ) from error
    return JsonEvidence(CsvReport.of_page(page, magic=magic, flags=report.flags), pek, hsk_cek, serial, event_log)


@lru_cache(maxsize=256)  # a chip sends the same ones every time, and they are most of the text
def _certificates(text: bytes) -> tuple[bytes, bytes]:
    """PEK, and HSK with CEK if they are there. No member twice, at the price of counting quotation marks."""
    chain = _CERT_CHAIN.decode(text)
    names, both, hsk_cek = 1 + _CHIP_NAMES, chain.hsk_cek, b""
    if both is not msgspec.UNSET:
        names += 1
    if isinstance(both, _HskCek):
        names += 2 + _CHIP_NAMES + _AUTHORITY_NAMES
        hsk_cek = _authority(both.hsk) + _chip(both.cek)
    if text.count(b'"') != 2 * names:
        raise ValueError(_TWICE)
    return _chip(chain.pek), hsk_cek


def _chip(certificate: _Chip) -> bytes:
    body, data = certificate.body, certificate.body.data
    first, second = certificate.sigs
    key = data.pubkey
    return CHIP_LAYOUT.pack(
        body.ver, data.firmware.major, data.firmware.minor, data.reserved1, key.usage, key.algo, key.key.g,
        bytes(key.key.x), bytes(key.key.y), data.uid_size, bytes(data.user_id), bytes(data.sid), bytes(data.reserved2),
        first.usage, first.algo, bytes(first.signature.r), bytes(first.signature.s), bytes(first.reserved),
        second.usage, second.algo, bytes(second.signature.r), bytes(second.signature.s), bytes(second.reserved),
    )  # fmt: skip


def _authority(certificate: _Authority) -> bytes:
    body, data = certificate.body, certificate.body.preamble.data
    return AUTHORITY_LAYOUT.pack(
        body.preamble.ver, bytes(data.kid), bytes(data.sid), data.usage, bytes(data.reserved), body.pubkey.g,
        bytes(body.pubkey.x), bytes(body.pubkey.y), body.uid_size, bytes(body.user_id), bytes(body.reserved),
        bytes(certificate.signature.r), bytes(certificate.signature.s), bytes(certificate.reserved),
    )  # fmt: skip


def to_json(
    report: CsvReport, pek: bytes, *, serial: bytes, hsk_cek: bytes = b"", event_log: bytes | None = None
) -> dict[str, JsonValue]:
    """The JSON form; ``ValueError`` if the report has no page's length when its signer block is there."""
    page = report.encode()[len(report.wrapper) :].ljust(PAGE, b"\0")
    wrapper = report.wrapper or (bytes(20) if report.version == 1 else b"ATTESTATION_EXT\0" + (1).to_bytes(4, "little"))
    chain: dict[str, JsonValue] = {"pek": _chip_json(pek)}
    if hsk_cek:
        chain["hsk_cek"] = {"hsk": _authority_json(hsk_cek[:832]), "cek": _chip_json(hsk_cek[832:])}
    return {
        "attestation_report": {
            "magic": [*wrapper[:16]],
            "flags": int.from_bytes(wrapper[16:], "little"),
            "data": [*page],
        },
        "cert_chain": chain,
        "serial_number": [*serial],
        "cc_eventlog": b64.encode(event_log) if event_log is not None else None,
    }


def _chip_json(encoded: bytes) -> JsonValue:
    (
        version, major, minor, reserved1, usage, algorithm, curve, x, y, length, user_id, sid, reserved2,
        usage1, algorithm1, r1, s1, rest1, usage2, algorithm2, r2, s2, rest2,
    ) = CHIP_LAYOUT.unpack(encoded)  # fmt: skip
    return {
        "body": {
            "ver": version,
            "data": {
                "firmware": {"major": major, "minor": minor},
                "reserved1": reserved1,
                "pubkey": {"usage": usage, "algo": algorithm, "key": {"g": curve, "x": [*x], "y": [*y]}},
                "uid_size": length,
                "user_id": [*user_id],
                "sid": [*sid],
                "reserved2": [*reserved2],
            },
        },
        "sigs": [
            {"usage": usage1, "algo": algorithm1, "signature": {"r": [*r1], "s": [*s1]}, "_reserved": [*rest1]},
            {"usage": usage2, "algo": algorithm2, "signature": {"r": [*r2], "s": [*s2]}, "_reserved": [*rest2]},
        ],
    }


def _authority_json(encoded: bytes) -> JsonValue:
    version, kid, sid, usage, reserved1, curve, x, y, length, user_id, reserved2, r, s, rest = AUTHORITY_LAYOUT.unpack(
        encoded
    )
    return {
        "body": {
            "preamble": {
                "ver": version,
                "data": {"kid": [*kid], "sid": [*sid], "usage": usage, "reserved": [*reserved1]},
            },
            "pubkey": {"g": curve, "x": [*x], "y": [*y]},
            "uid_size": length,
            "user_id": [*user_id],
            "reserved": [*reserved2],
        },
        "signature": {"r": [*r], "s": [*s]},
        "_reserved": [*rest],
    }
