"""Any bytes are collateral, or malformed: bundles, served documents, TCB info, QE identity; and nobody signed them."""

from __future__ import annotations

import contextlib
import json
import sys
from datetime import UTC, datetime

import atheris

with atheris.instrument_imports():
    from adyton import tee
    from adyton.crypto.x509 import EndorsementSet
    from adyton.devtee.dcap import DcapForge
    from adyton.errors import EndorsementError, EndorsementMalformed, EvidenceError
    from adyton.rats.types import TrustAnchors
    from adyton.tee.dcap import documents, qe_identity, tcb_info
    from adyton.tee.dcap.signed_json import Signed

NOW = datetime(2026, 6, 1, tzinfo=UTC)
FORGE = DcapForge.new(NOW)
ANCHORS = TrustAnchors(vendor=False, custom=frozenset({FORGE.fingerprint}))
QUOTE = FORGE.quote().encode()
COLLATERAL = FORGE.collateral("sgx")
SAMPLES = [json.dumps(COLLATERAL.bundle(), indent=1).encode(), *COLLATERAL.blobs()[:2]]
OTHERS = EndorsementSet.parse(COLLATERAL.blobs()[2:])


def one(data: bytes) -> None:
    changed = False
    if len(data) > 3 and data[0] >= 0xC0:  # collateral, with some bytes of it replaced
        sample = bytearray(SAMPLES[data[0] % len(SAMPLES)])
        place = int.from_bytes(data[1:3], "big") % len(sample)
        changed = sample[place : place + len(data) - 3] != data[3:]
        sample[place : place + len(data) - 3] = data[3:]
        data = bytes(sample)
    given = EndorsementSet(documents=[data])
    try:
        found = documents.read(given).signed
    except EndorsementMalformed:
        found = ()
    for document in found:
        with contextlib.suppress(EndorsementMalformed):
            (tcb_info.parse if document.name == "tcbInfo" else qe_identity.parse)(document)
    for name, parse in (("tcbInfo", tcb_info.parse), ("enclaveIdentity", qe_identity.parse)):
        with contextlib.suppress(EndorsementMalformed):
            parse(Signed.of(name, data, bytes(64)))
    try:
        verified = tee.verify("sgx", QUOTE, endorsements=OTHERS.with_all(given), now=NOW, anchors=ANCHORS)
    except (EvidenceError, EndorsementError):
        return
    assert changed or data in SAMPLES, "verified with collateral that nobody signed"
    assert verified.claims["tcb_status"] == "UpToDate"  # what was replaced was no part of what is signed


def main() -> None:
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
