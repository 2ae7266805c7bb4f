"""Valid quotes and collateral with some bytes changed are refused by an error of ours, or say the very same."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import atheris

with atheris.instrument_imports():
    from adyton import tee
    from adyton.crypto.x509 import EndorsementSet
    from adyton.devtee.dcap import DcapForge, sgx_body, td_body
    from adyton.errors import EndorsementError, EvidenceError
    from adyton.rats.types import TrustAnchors

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
FORGE = DcapForge.new(NOW)
ANCHORS = TrustAnchors(vendor=False, custom=frozenset({FORGE.fingerprint}))
RIGHT = {
    "sgx": (FORGE.quote(sgx_body()).encode(), FORGE.collateral("sgx").blobs()),
    "tdx": (FORGE.quote(td_body(td15=True)).encode(), FORGE.collateral("tdx").blobs()),
}
MEMORY = tee.Remembered(16)


def claims(kind: str, quote: bytes, blobs: list[bytes], memory: tee.Remembered | None) -> dict[str, object]:
    verified = tee.verify(
        kind, quote, endorsements=EndorsementSet.parse(blobs), now=NOW, anchors=ANCHORS, remembered=memory
    )
    return {name: value for name, value in verified.claims.items() if name != "trailing_bytes"}  # which nobody signs


SAID = {kind: claims(kind, quote, list(blobs), None) for kind, (quote, blobs) in RIGHT.items()}


def one(data: bytes) -> None:
    provider = atheris.FuzzedDataProvider(data)
    kind = provider.PickValueInList(["sgx", "tdx"])
    quote, blobs = RIGHT[kind]
    parts = [quote, *blobs]
    for _ in range(provider.ConsumeIntInRange(1, 4)):
        number = provider.ConsumeIntInRange(0, len(parts) - 1)
        part = bytearray(parts[number])
        at = provider.ConsumeIntInRange(0, max(0, len(part) - 1))
        what = provider.ConsumeIntInRange(0, 3)
        if what == 0 and part:
            part[at] ^= 1 << provider.ConsumeIntInRange(0, 7)
        elif what == 1:
            part[at:at] = provider.ConsumeBytes(4)
        elif what == 2:
            del part[at : at + provider.ConsumeIntInRange(1, 64)]
        else:
            part[at : at + 4] = provider.ConsumeBytes(4)
        parts[number] = bytes(part)
    for memory in (None, MEMORY):
        try:
            said = claims(kind, parts[0], parts[1:], memory)
        except (EvidenceError, EndorsementError):
            continue
        assert said == SAID[kind]


def main() -> None:
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
