"""Any bytes are an OCSP answer or malformed; a changed one is believed only if what was signed is the same."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import atheris

with atheris.instrument_imports():
    from adyton.crypto.algorithms import ECDSA_P384_SHA384
    from adyton.crypto.chain import Role
    from adyton.crypto.ocsp import Answer, check_good
    from adyton.crypto.x509 import Certificate
    from adyton.devtee import nvidia_endorsements as made
    from adyton.errors import EndorsementError, EndorsementMalformed

NOW = datetime(2026, 6, 1, tzinfo=UTC)
_, SUBJECT, ISSUER, _ = made.manifest_chain(NOW)
GOOD = made.answer(SUBJECT, ISSUER, NOW)
SIGNED = Answer(GOOD).signed
CERTIFICATE, AUTHORITY = Certificate(SUBJECT.der), Certificate(ISSUER.der)
ROLE = Role("nvidia", "chip", "RFC 6960")


def one(data: bytes) -> None:
    if len(data) > 3 and data[0] == 0xFF:
        at = int.from_bytes(data[1:3], "big") % len(GOOD)
        data = GOOD[:at] + data[3:] + GOOD[at + len(data) - 3 :]
    try:
        answer = Answer(data)
    except EndorsementMalformed:
        return
    try:
        check_good(CERTIFICATE, AUTHORITY, [answer], NOW, whose=ROLE, algorithms=(ECDSA_P384_SHA384,))
    except EndorsementError:
        return
    assert answer.signed == SIGNED


def main() -> None:
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
