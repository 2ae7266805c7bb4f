"""Any bytes are a document of a provider's or refused by name; what reads was signed, or says exactly what was."""

from __future__ import annotations

import base64
import json
import sys
from datetime import UTC, datetime

import atheris

with atheris.instrument_imports():
    import cbor2
    from cryptography.hazmat.primitives.asymmetric import ed25519
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    from adyton.errors import AdytonError
    from adyton.provenance import Settings, Standing, Statement, admit, olpc, plain, provider, read

NOW = datetime(2026, 6, 1, tzinfo=UTC)
KEY = ed25519.Ed25519PrivateKey.generate()
PEM = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
RAW = KEY.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()
WHO = provider(
    "p", Settings(keys=[PEM], names=["*"], kinds=["json", "in-toto", "slsa", "corim", "swid"], valid_days=90)
)
LAYOUT_KEY = {"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": RAW}, "keyid": "0a" * 32}
SIGNER = min(WHO.keys[0].names)


def envelope(payload: bytes, kind: str) -> bytes:
    signature = KEY.sign(b"DSSEv1 %d %b %d %b" % (len(kind), kind.encode(), len(payload), payload))
    signed = [{"keyid": "", "sig": base64.b64encode(signature).decode()}]
    members = {"payload": base64.b64encode(payload).decode(), "payloadType": kind, "signatures": signed}
    return json.dumps(members).encode()


def metablock(content: object, keyid: str) -> bytes:
    return json.dumps(
        {"signed": content, "signatures": [{"keyid": keyid, "sig": KEY.sign(olpc.canonical(content)).hex()}]}
    ).encode()


def bundle(layout: bytes, link: bytes) -> bytes:
    files = {"root.layout": layout, "build.0a0a0a0a.link": link}
    encoded = {name: base64.b64encode(data).decode() for name, data in files.items()}
    return json.dumps({"version": "0.9", "files": encoded}).encode()


def corim(content: bytes) -> bytes:
    protected = cbor2.dumps({1: -8, 3: "application/rim+cbor"})
    signature = KEY.sign(cbor2.dumps(["Signature1", protected, b"", content]))
    return b"\xd2" + cbor2.dumps([protected, {}, content, signature])


STEP = {
    "_type": "step", "name": "build", "pubkeys": ["0a" * 32], "threshold": 1, "expected_materials": [],
    "expected_products": [["CREATE", "*"], ["DISALLOW", "*"]],
}  # fmt: skip
LAYOUT = {
    "_type": "layout", "expires": "2030-01-01T00:00:00Z", "inspect": [], "keys": {"0a" * 32: LAYOUT_KEY}, "steps": [STEP],
}  # fmt: skip
LINK = {"_type": "link", "name": "build", "materials": {}, "products": {"out/x": {"sha256": "aa" * 32}}}
COMID = cbor2.dumps({1: {0: "t"}, 4: {0: [[{0: {1: "A"}}, [{1: {2: [[1, bytes(32)]]}}]]]}})
PLAIN = json.dumps({"id": "a", "issue": 1, "values": {"x": ["aa"]}}).encode()
GOOD = (
    envelope(PLAIN, plain.MEDIA_TYPE),
    bundle(metablock(LAYOUT, SIGNER), metablock(LINK, "0a" * 32)),
    corim(cbor2.dumps(cbor2.CBORTag(501, {0: "c", 1: [cbor2.CBORTag(506, COMID)]}))),
)
SAID = tuple(read(good, WHO, now=NOW) for good in GOOD)


def attempt(data: bytes) -> Statement | None:
    try:
        statement = read(data, WHO, now=NOW)
        admit(statement, WHO, standing=Standing(), now=NOW)
    except AdytonError:
        return None
    return statement


def one(data: bytes) -> None:
    if len(data) < 4:
        attempt(data)
        return
    head, rest = data[0], data[3:]
    if head < 3:  # replace a few bytes of a true one: it says the same or nothing
        good = GOOD[head]
        at = int.from_bytes(data[1:3], "big") % len(good)
        found = attempt(good[:at] + rest + good[at + len(rest) :])
        assert found is None or found.values == SAID[head].values
    elif head == 3:  # signed by the provider, and strange all the same
        attempt(corim(b"\xd9\x01\xf5" + rest))
    elif head == 4:
        attempt(corim(cbor2.dumps(cbor2.CBORTag(501, {0: "c", 1: [cbor2.CBORTag(506, rest)]}))))
    elif head == 5:
        attempt(envelope(rest, plain.MEDIA_TYPE))
    elif head == 6:
        attempt(envelope(rest, "application/vnd.in-toto+json"))
    elif head == 7:
        attempt(bundle(envelope(rest, "application/vnd.in-toto+json"), metablock(LINK, "0a" * 32)))
    elif head == 8:
        attempt(bundle(metablock(LAYOUT, SIGNER), envelope(rest, "application/vnd.in-toto+json")))
    else:
        attempt(data[1:])


def main() -> None:
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
