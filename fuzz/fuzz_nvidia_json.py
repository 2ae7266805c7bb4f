"""Any bytes are CoCo's JSON of NVIDIA devices, which round-trips, or malformed; and none of them verifies."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import atheris

with atheris.instrument_imports():
    from adyton import tee
    from adyton.crypto.x509 import EndorsementSet
    from adyton.errors import EndorsementError, EvidenceError, MalformedEvidence
    from adyton.rats.types import TrustAnchors
    from adyton.tee.nvidia import json_form

NOW = datetime(2026, 6, 1, tzinfo=UTC)
NOTHING = EndorsementSet()
HEAD = b'{"device_evidence_list":[{"arch":"HOPPER","evidence":"11e001ff","certificate":"'


def one(data: bytes) -> None:
    if data[:1] == b"\xff":
        data = HEAD + data[1:] + b'"}]}'
    try:
        devices = json_form.parse(data)
    except MalformedEvidence:
        pass
    else:
        assert json_form.parse(json_form.to_json(devices)) == devices
    try:
        tee.verify("nvidia", data, endorsements=NOTHING, now=NOW, anchors=TrustAnchors())
    except (EvidenceError, EndorsementError):
        return
    raise AssertionError("verified without a certificate")


def main() -> None:
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
