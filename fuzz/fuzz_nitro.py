"""Any bytes are a Nitro document, or malformed; none of them verifies. The same for enclave images."""

from __future__ import annotations

import sys
import zlib
from datetime import UTC, datetime

import atheris

with atheris.instrument_imports():
    from adyton import tee
    from adyton.crypto.x509 import EndorsementSet
    from adyton.errors import DocumentInvalid, EndorsementError, EvidenceError, MalformedEvidence
    from adyton.rats.types import TrustAnchors
    from adyton.tee.nitro import abi, eif, measure
    from adyton.wire import cbor

NOW = datetime(2026, 6, 1, tzinfo=UTC)
NOTHING = EndorsementSet()
PAYLOAD = {
    "module_id": "i-1",
    "digest": "SHA384",
    "timestamp": 1,
    "pcrs": {number: bytes(48) for number in range(3)},
    "certificate": b"\x30",
    "cabundle": [b"\x30"],
}


def document(data: bytes) -> bytes:
    """Most bytes are no message: put them into one, as its payload or as one of its members."""
    if data[:1] == b"\x01":
        payload = data[1:]
    else:
        names = sorted(PAYLOAD)
        name = names[data[1] % len(names)] if len(data) > 1 else "pcrs"
        try:
            member = cbor.decode(data[2:])
        except ValueError:
            member = data[2:]
        payload = cbor.encode(PAYLOAD | {name: member})
    return b"\x84\x44\xa1\x01\x38\x22\xa0" + cbor.byte_string(payload) + cbor.byte_string(bytes(96))


def image(data: bytes) -> bytes:
    head = b".eif\0\4" + data[: eif.HEADER_SIZE - 10].ljust(eif.HEADER_SIZE - 10, b"\0")
    rest = data[eif.HEADER_SIZE - 10 :]
    return head + zlib.crc32(head + rest).to_bytes(4, "big") + rest


def one(data: bytes) -> None:
    for candidate in (data, document(data)):
        try:
            assert abi.parse(candidate).encode() == candidate
            tee.show("nitro", candidate)
        except MalformedEvidence:
            pass
        try:
            tee.verify("nitro", candidate, endorsements=NOTHING, now=NOW, anchors=TrustAnchors())
        except (EvidenceError, EndorsementError):
            continue
        raise AssertionError("verified without AWS's root")
    for candidate in (data, image(data)):
        try:
            measure.image_pcrs(candidate)
        except DocumentInvalid:
            continue


def main() -> None:
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
