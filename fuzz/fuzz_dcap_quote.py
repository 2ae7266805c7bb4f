"""Any bytes are a quote that encodes to itself, or malformed; and none of them verifies without its chain."""

from __future__ import annotations

import contextlib
import sys
from datetime import UTC, datetime

import atheris

with atheris.instrument_imports():
    from adyton import tee
    from adyton.crypto.x509 import EndorsementSet
    from adyton.devtee.dcap import DcapForge, sgx_body, td_body
    from adyton.errors import EndorsementError, EvidenceError, MalformedEvidence
    from adyton.rats.types import TrustAnchors
    from adyton.tee.dcap.quote import Quote
    from adyton.tee.tdx.abi import TdReport

NOW = datetime(2026, 6, 1, tzinfo=UTC)
NOTHING = EndorsementSet()
FORGE = DcapForge.new(NOW)
SAMPLES = [
    FORGE.quote(body, version=version).encode()
    for body, version in ((sgx_body(), 3), (sgx_body(), 5), (td_body(), 4), (td_body(td15=True), 5))
]


def one(data: bytes) -> None:
    if len(data) > 3 and data[0] >= 0xF0:  # a quote, with some bytes of it replaced
        sample = bytearray(SAMPLES[data[0] % len(SAMPLES)])
        place = int.from_bytes(data[1:3], "big") % len(sample)
        sample[place : place + len(data) - 3] = data[3:]
        data = bytes(sample)
    try:
        quote = Quote.parse(data)
    except MalformedEvidence:
        pass
    else:
        assert quote.encode() == data
        assert quote.size + len(quote.tail) == len(data)
    with contextlib.suppress(MalformedEvidence):
        assert TdReport.parse(data).encode() == data
    for name in ("sgx", "tdx"):
        with contextlib.suppress(MalformedEvidence):
            tee.show(name, data)
        try:
            tee.verify(name, data, endorsements=NOTHING, now=NOW, anchors=TrustAnchors())
        except (EvidenceError, EndorsementError):
            continue
        raise AssertionError("verified without collateral")


def main() -> None:
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
