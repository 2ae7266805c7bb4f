"""Any bytes are one of Hygon's certificates or malformed; none is signed by a key that never signed."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports():
    from adyton.devtee import csv as forging
    from adyton.devtee.sm2 import SigningKey
    from adyton.errors import EndorsementMalformed
    from adyton.tee.csv.certificate import AUTHORITY_SIZE, CHIP_SIZE, HygonCertificate

HRK = forging.Holder(forging.HRK, b"HRK", SigningKey.of(3), bytes(16))
HSK = forging.Holder(forging.HSK, b"HSK", SigningKey.of(5), bytes(range(16)))
ISSUERS = (HygonCertificate(forging.authority(HRK, HRK)), HygonCertificate(forging.authority(HSK, HRK)))


def one(data: bytes) -> None:
    if data[:1] in {b"\xfe", b"\xff"}:  # most random bytes have the wrong length, and no point of the curve
        size, at = (AUTHORITY_SIZE, 64) if data[0] == 0xFE else (CHIP_SIZE, 16)
        body = bytearray(data[1:].ljust(size, b"\0")[:size])
        body[0:4] = b"\1\0\0\0"
        body[at : at + 148] = ISSUERS[1].encoded[64 : 64 + 148]
        data = bytes(body)
    try:
        certificate = HygonCertificate(data)
    except EndorsementMalformed:
        return
    assert certificate.encoded == data
    for issuer in ISSUERS:
        assert not certificate.signed_by(issuer)


def main() -> None:
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
