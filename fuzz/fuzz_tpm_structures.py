"""Any bytes are a TPMS_ATTEST, TPMT_SIGNATURE or TPMT_PUBLIC that encodes to itself, or malformed."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports():
    from adyton.errors import MalformedEvidence, UnsupportedEvidence
    from adyton.tee.tpm.abi import Attest, PublicArea, Signature

HEADS = (
    b"",
    bytes.fromhex("ff5443478018"),
    bytes.fromhex("0014000b"),
    bytes.fromhex("0018000c"),
    bytes.fromhex("0001000b00050072"),
    bytes.fromhex("0023000b00050072"),
)


def one(data: bytes) -> None:
    if not data:
        return
    candidate = HEADS[data[0] % len(HEADS)] + data[1:]
    for parse in (Attest.parse, Signature.parse):
        try:
            value = parse(candidate)
        except (MalformedEvidence, UnsupportedEvidence):
            continue
        assert value.encode() == candidate
    try:
        area = PublicArea.parse(candidate)
        assert candidate.endswith(area.raw)
        area.key()
    except MalformedEvidence:
        return


def main() -> None:
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
