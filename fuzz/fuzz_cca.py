"""Any bytes are a CCA token, or malformed; none of them verifies. The same for platform claims in JSON, and sample evidence."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import atheris

with atheris.instrument_imports():
    from adyton import tee
    from adyton.crypto.x509 import EndorsementSet
    from adyton.errors import EndorsementError, EvidenceError, MalformedEvidence
    from adyton.rats.types import TrustAnchors
    from adyton.tee.cca import abi, platform
    from adyton.tee.cca.realm import realm_key
    from adyton.tee.cca.shape import Wrong
    from adyton.wire import cbor

NOW = datetime(2026, 6, 1, tzinfo=UTC)
NOTHING = EndorsementSet()
PLATFORM: dict[int | str, Any] = {
    265: platform.LEGACY_PROFILE,
    10: bytes(32),
    2396: bytes(32),
    256: b"\1" + bytes(32),
    2401: b"c",
    2395: 0x3000,
    2399: [{2: bytes(32), 5: bytes(32)}],
    2402: "sha-256",
}
REALM: dict[int | str, Any] = {
    10: bytes(64),
    44235: bytes(64),
    44236: "sha-256",
    44237: b"\4" + bytes(96),
    44238: bytes(32),
    44239: [bytes(32)] * 4,
    44240: "sha-256",
}


def half(claims: bytes) -> bytes:
    return b"\xd2\x84\x44\xa1\x01\x38\x22\xa0" + cbor.byte_string(claims) + cbor.byte_string(bytes(96))


def token(data: bytes) -> bytes:
    """Most bytes are no token: put them into one, as one of its claims."""
    which, body = (data[0], data[1:]) if data else (0, b"")
    try:
        value = cbor.decode(body)
    except ValueError:
        value = body
    labels: list[int | str] = [*PLATFORM]
    own: list[int | str] = [*REALM]
    first = PLATFORM | {labels[which % len(labels)]: value} if which & 1 else PLATFORM
    second = REALM if which & 1 else REALM | {own[which % len(own)]: value}
    return cbor.encode({44234: half(cbor.encode(first)), 44241: half(cbor.encode(second))}, tag=399)


def one(data: bytes) -> None:
    for candidate in (data, b"\xd9\x01\x8f" + data, token(data)):
        try:
            assert abi.read(candidate).encode() == candidate or abi.is_json(candidate)
            tee.show("cca", candidate)
        except MalformedEvidence:
            pass
        try:
            tee.verify("cca", candidate, endorsements=NOTHING, now=NOW, anchors=TrustAnchors())
        except (EvidenceError, EndorsementError):
            continue
        raise AssertionError("verified without a key")
    claims = dict.fromkeys(data[:1].decode("latin-1"), 1)
    for text in (data, json.dumps({"cca-platform-profile": platform.PROFILE} | claims).encode()):
        with suppress(MalformedEvidence):
            platform.parse_json(text)
        for name in ("sample", "sampledevice"):
            try:
                tee.verify(name, text, endorsements=NOTHING, now=NOW, anchors=TrustAnchors())
            except (EvidenceError, EndorsementError):
                continue
            raise AssertionError("sample evidence was believed")
    if data:
        with suppress(Wrong):
            realm_key(data)


def main() -> None:
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
