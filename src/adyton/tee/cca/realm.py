"""What the realm's half says, and the key in it with which it was signed (evidence 9).

The realm attestation key (RAK) is a bare P-384 point of 97 bytes where attesters are older, a COSE_Key where they are newer. The
first byte tells them apart: 4, or a map.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from adyton.crypto import cose
from adyton.tee.cca import shape
from adyton.tee.cca.shape import Wrong
from adyton.wire import cbor

PROFILE = "tag:arm.com,2023:realm#1.0.0"
PROFILE_2 = "tag:arm.com,2024:realm#2.0.0"
PROFILES = (PROFILE, PROFILE_2)
CHALLENGE_SIZE = 64
PERSONALISATION_SIZE = 64
REGISTERS = 4  # extensible measurements
RAW_POINT = "raw point"
COSE_KEY = "COSE_Key"

_POINT_SIZE = 97
_MEC_POLICY = 44243  # memory encryption contexts
_MEC_POLICIES = ("private", "shared")
_READ = frozenset({10, 44235, 44236, 44237, 44238, 44239, 44240, 265, 256, _MEC_POLICY})

# COSE_Key, RFC 9052 7 and RFC 9053 7.1.1
_KTY, _KID, _ALG, _KEY_OPS, _CRV, _X, _Y = 1, 2, 3, 4, -1, -2, -3
_EC2 = 2
_CURVES: dict[int, ec.EllipticCurve] = {1: ec.SECP256R1(), 2: ec.SECP384R1(), 3: ec.SECP521R1()}
_KEY_MEMBERS = frozenset({_KTY, _KID, _ALG, _KEY_OPS, _CRV, _X, _Y})
_P384 = ec.SECP384R1()


class RealmClaims(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """All mandatory claims. ``public_key``: the RAK as encoded; ``unknown``: numbers of claims that were not read."""

    profile: str | None
    challenge: bytes
    personalisation: bytes
    hash_algorithm: str
    public_key: bytes
    initial_measurement: bytes
    extensible_measurements: tuple[bytes, ...]
    public_key_hash_algorithm: str
    unknown: tuple[int, ...]

    @property
    def key_format(self) -> str:
        """How the RAK is encoded."""
        return RAW_POINT if self.public_key[0] == 4 else COSE_KEY


def realm_claims(claims: Mapping[Any, Any]) -> RealmClaims:
    """From a decoded map, or ``Wrong``. The key is taken apart by ``realm_key``."""
    need = shape.need
    profile = claims.get(265)
    if 265 in claims and profile not in PROFILES:
        raise Wrong("realm_profile", "not a known profile", expected=[*PROFILES], got=str(profile)[:80])
    if profile == PROFILE_2:
        shape.instance_id(need(claims, 256, "realm_instance_id"), "realm_instance_id")
        if need(claims, _MEC_POLICY, "mec_policy") not in _MEC_POLICIES:
            raise Wrong("mec_policy", "no known policy", expected=[*_MEC_POLICIES])
    registers = need(claims, 44239, "rem")
    if type(registers) is not list or len(registers) != REGISTERS:
        raise Wrong("rem", f"an array of {REGISTERS} is due")
    return RealmClaims(
        profile=profile,
        challenge=shape.sized(need(claims, 10, "realm_challenge"), "realm_challenge", CHALLENGE_SIZE),
        personalisation=shape.sized(need(claims, 44235, "rpv"), "rpv", PERSONALISATION_SIZE),
        hash_algorithm=shape.hash_name(need(claims, 44236, "realm_hash_alg"), "realm_hash_alg"),
        public_key=shape.some_bytes(need(claims, 44237, "rak"), "rak"),
        initial_measurement=shape.digest(need(claims, 44238, "rim"), "rim"),
        extensible_measurements=tuple([shape.digest(register, "rem") for register in registers]),
        public_key_hash_algorithm=shape.hash_name(need(claims, 44240, "rak_hash_alg"), "rak_hash_alg"),
        unknown=_unknown(claims),
    )


def realm_key(encoded: bytes) -> ec.EllipticCurvePublicKey:
    """The RAK, or ``Wrong`` if it is no point of its curve."""
    curve, point = _raw(encoded) if encoded[0] == 4 else _cose(encoded)
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(curve, point)
    except ValueError as error:
        raise Wrong("rak", "not a point of its curve") from error


def _raw(encoded: bytes) -> tuple[ec.EllipticCurve, bytes]:
    if len(encoded) != _POINT_SIZE:
        raise Wrong("rak", f"an uncompressed P-384 point has {_POINT_SIZE} bytes", got=len(encoded))
    return _P384, encoded


def _cose(encoded: bytes) -> tuple[ec.EllipticCurve, bytes]:
    try:
        key = cbor.decode(encoded)
    except ValueError as error:
        raise Wrong("rak", f"neither a point nor a COSE_Key: {error}") from error
    if type(key) is not dict or not key.keys() <= _KEY_MEMBERS or key.get(_KTY) != _EC2:
        raise Wrong("rak", "not a COSE_Key of an elliptic curve with two coordinates")
    number = key.get(_CRV)
    curve = _CURVES.get(number) if type(number) is int else None
    if curve is None:
        raise Wrong("rak", "on an unknown curve", expected=[*_CURVES], got=str(number)[:20])
    size = (curve.key_size + 7) // 8
    x, y = key.get(_X), key.get(_Y)
    if type(x) is not bytes or type(y) is not bytes or len(x) != size or len(y) != size:
        raise Wrong("rak", f"a coordinate is no byte string of {size}")
    if _ALG in key and key[_ALG] != cose.OF_CURVE[curve.name]:
        raise Wrong("rak", "for another algorithm than its curve's", expected=cose.OF_CURVE[curve.name])
    return curve, b"\x04" + x + y


def _unknown(claims: Mapping[Any, Any]) -> tuple[int, ...]:
    rest = claims.keys() - _READ
    if not rest:
        return ()
    if any(type(label) is not int for label in rest):
        raise Wrong("realm", "a claim's label is no number")
    return tuple(sorted(rest))
