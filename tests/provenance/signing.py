"""What signs documents in these tests: keys, envelopes, layouts by in-toto's own library, CoRIMs, SWID tags."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from in_toto.models.layout import Layout, Step
from in_toto.models.link import Link
from in_toto.models.metadata import Envelope, Metablock
from securesystemslib.signer import CryptoSigner

from adyton.provenance import Provider, Settings, provider

NOW = datetime(2026, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)
IN_TOTO = "application/vnd.in-toto+json"
Private = ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

OWNER = ed25519.Ed25519PrivateKey.generate()
STRANGER = ed25519.Ed25519PrivateKey.generate()
P256 = ec.generate_private_key(ec.SECP256R1())
P384 = ec.generate_private_key(ec.SECP384R1())
RSA = rsa.generate_private_key(65537, 2048)
HASH = "aa" * 32
OTHER = "bb" * 32


def pem(key: Private) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def sign(key: Private, data: bytes) -> bytes:
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(data)
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
    digest = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}[key.curve.key_size]
    return key.sign(data, ec.ECDSA(digest))


def entry(*keys: Private, name: str = "builder", **members: Any) -> Provider:
    settings: dict[str, Any] = {
        "keys": [pem(key) for key in keys or (OWNER,)],
        "names": ["*"],
        "kinds": ["json", "in-toto", "slsa", "corim", "swid"],
        "valid_days": 90,
    } | members
    return provider(name, Settings(**settings))


def envelope(payload: object, kind: str, *keys: Private, keyid: str = "") -> bytes:
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    pae = b"DSSEv1 %d %b %d %b" % (len(kind), kind.encode(), len(body), body)
    signatures = [{"keyid": keyid, "sig": base64.b64encode(sign(key, pae)).decode()} for key in keys]
    encoded = base64.b64encode(body).decode()
    return json.dumps({"payload": encoded, "payloadType": kind, "signatures": signatures}).encode()


def plain(values: dict[str, Any] | None = None, **members: Any) -> dict[str, Any]:
    return {"id": "doc", "issue": 1, "values": values or {"launch": [HASH]}} | members


def provenance(version: int = 1, **changed: Any) -> dict[str, Any]:
    """A statement with SLSA provenance; ``changed``: builder, build_type, materials, finished, subject."""
    given = {
        "builder": "https://builder.example/v1",
        "build_type": "https://builder.example/make",
        "materials": [{"uri": "git+https://code.example/guest@1", "digest": {"gitCommit": "00" * 20}}],
        "finished": "2026-05-30T12:00:00.5Z",
        "subject": [{"name": "guest", "digest": {"sha256": HASH, "sha1": "00" * 20}}],
    } | changed
    if version == 1:
        predicate: dict[str, Any] = {
            "buildDefinition": {"buildType": given["build_type"], "resolvedDependencies": given["materials"]},
            "runDetails": {"builder": {"id": given["builder"]}, "metadata": {"finishedOn": given["finished"]}},
        }
    else:
        predicate = {
            "builder": {"id": given["builder"]},
            "buildType": given["build_type"],
            "materials": given["materials"],
            "metadata": {"buildFinishedOn": given["finished"]},
        }
    return {
        "_type": "https://in-toto.io/Statement/v1" if version == 1 else "https://in-toto.io/Statement/v0.1",
        "subject": given["subject"],
        "predicateType": f"https://slsa.dev/provenance/v{1 if version == 1 else '0.2'}",
        "predicate": predicate,
    }


SLSA: dict[str, Any] = {
    "builders": ["https://builder.example/v1"],
    "build_types": ["https://builder.example/make"],
    "materials": ["git+https://code.example/*"],
}


def in_toto_key(key: Private) -> dict[str, Any]:
    signer = CryptoSigner(key)
    return {**signer.public_key.to_dict(), "keyid": signer.public_key.keyid}


class Chain:
    """A supply chain by in-toto's own library: two steps, written to a folder as its tools would."""

    def __init__(self, folder: Path, owner: Private = OWNER, *, dsse: bool = False) -> None:
        self.folder, self.owner, self.dsse = folder, owner, dsse
        self.code, self.build = P256, RSA
        keys = [in_toto_key(self.code), in_toto_key(self.build)]
        self.layout = Layout(
            expires="2099-12-01T00:00:00Z",
            keys={key["keyid"]: key for key in keys},
            steps=[
                Step(
                    name="write",
                    pubkeys=[keys[0]["keyid"]],
                    expected_products=[["CREATE", "src/*"], ["DISALLOW", "*"]],
                ),
                Step(
                    name="build",
                    pubkeys=[keys[1]["keyid"]],
                    expected_materials=[
                        ["MATCH", "*", "IN", "src", "WITH", "PRODUCTS", "IN", "src", "FROM", "write"],
                        ["DISALLOW", "*"],
                    ],
                    expected_products=[
                        ["REQUIRE", "out/guest.erofs"],
                        ["CREATE", "out/*"],
                        ["ALLOW", "src/*"],
                        ["DISALLOW", "*"],
                    ],
                ),
            ],
        )
        self.links: list[tuple[Link, Private]] = [
            (Link(name="write", products={"src/main.c": {"sha256": OTHER}}), self.code),
            (
                Link(
                    name="build",
                    materials={"src/main.c": {"sha256": OTHER}},
                    products={"out/guest.erofs": {"sha256": HASH}},
                ),
                self.build,
            ),
        ]

    def wrapped(self, content: Layout | Link, key: Private) -> Metablock | Envelope:
        block = Envelope.from_signable(content) if self.dsse else Metablock(signed=content)
        block.create_signature(CryptoSigner(key))
        return block

    def write(self) -> Path:
        self.wrapped(self.layout, self.owner).dump(str(self.folder / "root.layout"))
        for link, key in self.links:
            keyid = in_toto_key(key)["keyid"]
            self.wrapped(link, key).dump(str(self.folder / f"{link.name}.{keyid[:8]}.link"))
        return self.folder

    def document(self) -> bytes:
        return bundle(self.write())


def bundle(folder: Path, **more: bytes) -> bytes:
    files = {path.name: path.read_bytes() for path in folder.glob("*")} | more
    encoded = {name: base64.b64encode(data).decode() for name, data in files.items()}
    return json.dumps({"version": "0.9", "line_normalization": True, "files": encoded}).encode()


def comid(*measurements: Any, tag_id: str = "guest", version: int = 0, environment: Any = None) -> Any:
    where = environment or {0: {1: "ACME", 2: "RoadRunner"}}
    content = {1: {0: tag_id, 1: version}, 4: {0: [[where, list(measurements)]]}}
    return cbor2.CBORTag(506, cbor2.dumps(content))


def measured(digest: str = HASH) -> dict[int, Any]:
    return {1: {2: [[1, bytes.fromhex(digest)]]}}


def corim(*tags: Any, validity: Any = None) -> bytes:
    content = {0: "corim", 1: list(tags) or [comid(measured())]} | ({} if validity is None else {4: validity})
    return cbor2.dumps(cbor2.CBORTag(501, content))


def cose(payload: bytes, key: Private, *, tag: bytes = b"\xd2", header: dict[int, Any] | None = None) -> bytes:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        algorithm, size = {256: (-7, 32), 384: (-35, 48), 521: (-36, 66)}[key.curve.key_size]
    else:
        algorithm, size = -8, 0
    protected = cbor2.dumps({1: algorithm, 3: "application/rim+cbor"} | (header or {}))
    signature = sign(key, cbor2.dumps(["Signature1", protected, b"", payload]))
    if size:
        r, s = decode_dss_signature(signature)
        signature = r.to_bytes(size, "big") + s.to_bytes(size, "big")
    return tag + cbor2.dumps([protected, {}, payload, signature])
