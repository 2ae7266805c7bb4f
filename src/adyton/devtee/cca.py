"""CCA tokens under a platform key of our own making; every claim may be set, every signature broken.

A ``Forge`` holds a platform's key (CPAK) and a realm's (RAK). ``token`` binds the two as firmware does, unless told otherwise.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import cbor2
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from adyton.devtee.cose_signing import Envelope, sign1

LEGACY_PLATFORM = "http://arm.com/CCA-SSD/1.0.0"
PLATFORM_PROFILE = "tag:arm.com,2023:cca_platform#1.0.0"
PLATFORM_PROFILE_2 = "tag:arm.com,2024:cca_platform#2.0.0"
REALM_PROFILE = "tag:arm.com,2023:realm#1.0.0"
REALM_PROFILE_2 = "tag:arm.com,2024:realm#2.0.0"
PLATFORM, REALM = 44234, 44241
RAK_LABEL, RAK_HASH_LABEL = 44237, 44240
_CURVE_NUMBERS = {"secp256r1": 1, "secp384r1": 2, "secp521r1": 3}
_HASHES = {"sha-256": "sha256", "sha-384": "sha384", "sha-512": "sha512"}

Key = ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True)
class Forge:
    """The two keys that a token is signed with."""

    cpak: Key
    rak: Key

    @classmethod
    def new(cls, platform: ec.EllipticCurve | None = None, realm: ec.EllipticCurve | None = None) -> Forge:
        """Fresh keys, on P-384 unless another curve is asked for."""
        return cls(
            ec.generate_private_key(platform or ec.SECP384R1()), ec.generate_private_key(realm or ec.SECP384R1())
        )

    @property
    def cpak_pem(self) -> bytes:
        """The endorsement of the platform: its public key."""
        return self.cpak.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    @property
    def cpak_fingerprint(self) -> bytes:
        """What trusts this platform: SHA-256 of the SPKI."""
        spki = self.cpak.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return hashlib.sha256(spki).digest()

    def instance_id(self) -> bytes:
        """A UEID that names the platform by its key."""
        return b"\1" + hashlib.sha256(raw_point(self.cpak)).digest()

    def realm(self, changes: dict[int, Any] | None = None, *, version: int = 1) -> dict[int, Any]:
        """Claims of a realm. ``version`` 0: without profile and with a bare point; 2: the second profile.

        ``changes`` replace claims by number; ``...`` leaves one out.
        """
        claims: dict[int, Any] = {
            10: bytes(range(64)),
            44235: bytes(64),
            44236: "sha-256",
            RAK_LABEL: cose_key(self.rak) if version else raw_point(self.rak),
            44238: hashlib.sha256(b"realm").digest(),
            44239: [bytes(32) for _ in range(4)],
            RAK_HASH_LABEL: "sha-256",
        }
        if version:
            claims[265] = REALM_PROFILE if version == 1 else REALM_PROFILE_2
        if version == 2:
            claims |= {256: b"\1" + bytes(32), 44243: "private"}
        return _changed(claims, changes)

    def platform(
        self, changes: dict[int, Any] | None = None, *, realm: dict[int, Any], profile: str = PLATFORM_PROFILE
    ) -> dict[int, Any]:
        """Claims of the platform, whose challenge is the digest of ``realm``'s key."""
        encoded, name = realm.get(RAK_LABEL), realm.get(RAK_HASH_LABEL)
        bound = isinstance(encoded, bytes) and isinstance(name, str) and name in _HASHES
        claims: dict[int, Any] = {
            265: profile,
            10: hashlib.new(_HASHES[str(name)], bytes(encoded or b"")).digest() if bound else bytes(32),
            2396: hashlib.sha256(b"implementation").digest(),
            256: self.instance_id(),
            2401: b"\xcf\xcf",
            2395: 0x3003,
            2399: [
                {
                    1: "BL",
                    2: hashlib.sha256(b"firmware").digest(),
                    4: "1.2",
                    5: hashlib.sha256(b"signer").digest(),
                    6: "sha-256",
                },
                {2: hashlib.sha256(b"monitor").digest(), 5: hashlib.sha256(b"signer").digest()},
            ],
            2400: "https://verifier.example.invalid",
            2402: "sha-256",
        }
        if profile == PLATFORM_PROFILE_2:
            claims[2394] = 1
        return _changed(claims, changes)

    def token(
        self,
        *,
        realm: dict[int, Any] | None = None,
        platform: dict[int, Any] | None = None,
        version: int = 1,
        profile: str = PLATFORM_PROFILE,
        realm_envelope: Envelope | None = None,
        platform_envelope: Envelope | None = None,
        wrapped: bool = False,
    ) -> bytes:
        """A signed token; ``realm`` and ``platform`` are changes of claims. ``wrapped``: as newer attesters write it."""
        of_realm = self.realm(realm, version=version)
        of_platform = self.platform(platform, realm=of_realm, profile=profile)
        return collection(
            sign1(self.cpak, cbor2.dumps(of_platform), platform_envelope or Envelope(tag=18)),
            sign1(self.rak, cbor2.dumps(of_realm), realm_envelope or Envelope(tag=18)),
            wrapped=wrapped,
        )


def collection(platform: object, realm: object, *, wrapped: bool = False, tag: int | None = None) -> bytes:
    """Two halves put together."""
    if wrapped:
        return cbor2.dumps(cbor2.CBORTag(tag or 907, {PLATFORM: [263, platform], REALM: [263, realm]}))
    return cbor2.dumps(cbor2.CBORTag(tag or 399, {PLATFORM: platform, REALM: realm}))


def halves(token: bytes) -> tuple[bytes, bytes]:
    """The platform's and the realm's half of a token that is not wrapped."""
    found = cbor2.loads(token).value
    return bytes(found[PLATFORM]), bytes(found[REALM])


def raw_point(key: Key) -> bytes:
    """The public key, uncompressed."""
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def cose_key(key: Key, **changes: Any) -> bytes:
    """The public key as a COSE_Key; ``changes``: ``kty``, ``crv``, ``x``, ``y``, ``alg`` or ``extra`` (a map)."""
    point = raw_point(key)
    size = len(point) // 2
    members: dict[Any, Any] = {
        1: changes.get("kty", 2),
        -1: changes.get("crv", _CURVE_NUMBERS[key.curve.name]),
        -2: changes.get("x", point[1 : 1 + size]),
        -3: changes.get("y", point[1 + size :]),
    }
    if "alg" in changes:
        members[3] = changes["alg"]
    return cbor2.dumps(members | changes.get("extra", {}))


def _changed(claims: dict[int, Any], changes: dict[int, Any] | None) -> dict[int, Any]:
    return {label: value for label, value in (claims | (changes or {})).items() if value is not ...}
