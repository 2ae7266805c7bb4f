"""The public key of a TEE, as a JSON Web Key (RFC 7517, kbs-protocol 1.6).

Accepted, and nothing else: EC on P-256 or P-521 with ``ECDH-ES+A256KW``; RSA of 2048 to 8192 bits with
``RSA-OAEP-256``; ML-KEM-768 with ``ML-KEM-768+A192KW``. ``RSA1_5`` only for a caller that names it, as guests of protocol
0.1 know nothing else: a guest that tells by its answers whether such a padding is right decrypts for whoever asks it.
Members that the protocol does not know are dropped before anything is hashed; private members are an error, since a
private key that has been on the wire is nobody's secret.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TypeAlias, cast

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PublicKey

from adyton.crypto import kem
from adyton.errors import MalformedRequest
from adyton.wire import b64

CURVES: dict[str, tuple[ec.EllipticCurve, int]] = {"P-256": (ec.SECP256R1(), 32), "P-521": (ec.SECP521R1(), 66)}
EC_ALGORITHM = "ECDH-ES+A256KW"
RSA_ALGORITHM = "RSA-OAEP-256"
OLD_RSA_ALGORITHM = "RSA1_5"
MODERN = frozenset({EC_ALGORITHM, RSA_ALGORITHM, kem.ALGORITHM})
"""What is accepted where the caller says nothing else."""
RSA_BITS = range(2048, 8193)
_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"})
_MEMBERS = {"AKP": ("alg", "kty", "pub"), "EC": ("alg", "crv", "kty", "x", "y"), "RSA": ("alg", "e", "kty", "n")}
_OLDEST = ("alg", "k-exp", "k-mod")  # of 2023, RSA only
PublicKey: TypeAlias = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | MLKEM768PublicKey


class TeeKey(msgspec.Struct, frozen=True):
    """A checked public key. ``members`` are the known JWK members, all of them strings, in alphabetical order."""

    members: Mapping[str, str]
    public: PublicKey

    @property
    def algorithm(self) -> str:
        """What ``alg`` says: how a content key travels to its holder."""
        return self.members["alg"]

    @property
    def number(self) -> str:
        """The member that tells this key from others of its kind, base64url."""
        members = self.members
        found = members.get("x")
        if found is None:
            found = next(members[name] for name in ("n", "pub", "k-mod") if name in members)
        return found

    @property
    def handle(self) -> str:
        """What the audit log and revocations call its holder's sessions: 16 hex digits of SHA-256 of ``number``."""
        return hashlib.sha256(self.number.encode("ascii")).hexdigest()[:16]


def parse(jwk: object, algorithms: frozenset[str] = MODERN, *, oldest: bool = False) -> TeeKey:
    """Read a decoded JSON object; ``MalformedRequest`` for every key that nothing may be encrypted to.

    ``algorithms``: values of ``alg`` that may come. ``oldest``: also the form of 2023, ``alg``, ``k-mod`` and ``k-exp``.
    """
    if not isinstance(jwk, dict):
        raise _malformed("a JSON object", type(jwk).__name__)
    if not _PRIVATE.isdisjoint(jwk):
        raise _malformed("public members only", sorted(_PRIVATE.intersection(jwk)))
    kind = jwk.get("kty")
    names = _MEMBERS.get(kind) if isinstance(kind, str) else None
    if names is None and kind is None and oldest and "k-mod" in jwk:
        names = _OLDEST
    if names is None:
        raise _malformed("AKP, EC or RSA", kind, "kty")
    members = cast("dict[str, str]", {name: jwk.get(name) for name in names})
    if set(map(type, members.values())) != {str}:
        name = next(name for name in names if type(members[name]) is not str)
        raise _malformed("a string", type(members[name]).__name__, name)
    known = algorithms & _BY_KIND.get(kind, _RSA_ALGORITHMS)
    if members["alg"] not in known:
        raise _malformed(sorted(known), members["alg"], "alg")
    if kind == "EC":
        return TeeKey(members, _ec(members))
    if kind == "AKP":
        return TeeKey(members, _akp(members))
    if names is _OLDEST and members["k-exp"] != "AQAB":
        # Evidence binds both texts one after the other: a digit moved from one to the other would be another key.
        raise _malformed("AQAB", members["k-exp"], "k-exp")
    return TeeKey(members, _rsa(members, *(("k-mod", "k-exp") if names is _OLDEST else ("n", "e"))))


_RSA_ALGORITHMS = frozenset({RSA_ALGORITHM, OLD_RSA_ALGORITHM})
_BY_KIND: dict[object, frozenset[str]] = {"EC": frozenset({EC_ALGORITHM}), "AKP": frozenset({kem.ALGORITHM})}


def _akp(members: Mapping[str, str]) -> MLKEM768PublicKey:
    raw = _number(members, "pub", kem.PUBLIC_SIZE)
    try:
        return kem.load(raw)
    except ValueError as error:
        raise _malformed("an ML-KEM-768 key", str(error), "pub") from error


def _ec(members: Mapping[str, str]) -> ec.EllipticCurvePublicKey:
    if members["crv"] not in CURVES:
        raise _malformed(sorted(CURVES), members["crv"], "crv")
    curve, size = CURVES[members["crv"]]
    point = b"\x04" + _number(members, "x", size) + _number(members, "y", size)
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(curve, point)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _malformed("a point on the curve", "one off it", "x") from error


def _rsa(members: Mapping[str, str], n: str, e: str) -> rsa.RSAPublicKey:
    if len(members[n]) > 1400 or len(members[e]) > 8:
        raise _malformed(f"{RSA_BITS[0]} to {RSA_BITS[-1]} bits and an exponent below 2^32", "more", n)
    modulus = int.from_bytes(_number(members, n))
    if modulus.bit_length() not in RSA_BITS:
        raise _malformed(f"{RSA_BITS[0]} to {RSA_BITS[-1]} bits", modulus.bit_length(), n)
    exponent = int.from_bytes(_number(members, e))
    if exponent < 65537 or exponent % 2 == 0 or modulus % 2 == 0:
        raise _malformed("an odd exponent of at least 65537 and an odd modulus", "other", e)
    try:
        return rsa.RSAPublicNumbers(exponent, modulus).public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _malformed("an RSA key", "one that cannot be used", n) from error


def _number(members: Mapping[str, str], name: str, size: int | None = None) -> bytes:
    try:
        value = b64.decode_url(members[name])
    except ValueError as error:
        raise _malformed("base64url without padding", members[name], name) from error
    if size is not None and len(value) != size:
        raise _malformed(f"{size} bytes", len(value), name)
    if size is None and (not value or value[0] == 0):
        raise _malformed("a positive number without leading zeros", "other", name)
    return value


def from_public(key: PublicKey) -> TeeKey:
    """The same as a JWK, for whoever made the key; ``ValueError`` for a kind that ``parse`` would refuse."""
    if isinstance(key, MLKEM768PublicKey):
        members = {"alg": kem.ALGORITHM, "kty": "AKP", "pub": b64.encode_url(key.public_bytes_raw())}
    elif isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        members = {"alg": RSA_ALGORITHM, "e": _uint(numbers.e), "kty": "RSA", "n": _uint(numbers.n)}
    else:
        members = {"alg": EC_ALGORITHM, **ec_members(key)}
    try:
        return parse(members)
    except MalformedRequest as error:
        raise ValueError(f"no TEE key: {error}") from error


def ec_members(key: ec.EllipticCurvePublicKey) -> dict[str, str]:
    """``crv``, ``kty``, ``x``, ``y`` of a key on a known curve, in that order."""
    names = {curve.name: (name, size) for name, (curve, size) in CURVES.items()}
    if key.curve.name not in names:
        raise ValueError("unknown curve")
    name, size = names[key.curve.name]
    numbers = key.public_numbers()
    x, y = (b64.encode_url(number.to_bytes(size)) for number in (numbers.x, numbers.y))
    return {"crv": name, "kty": "EC", "x": x, "y": y}


def _uint(number: int) -> str:
    return b64.encode_url(number.to_bytes((number.bit_length() + 7) // 8))


def _malformed(expected: object, got: object, member: str | None = None) -> MalformedRequest:
    return MalformedRequest(
        "the TEE's public key cannot be used",
        code="tee_key_malformed",
        field="tee-pubkey" + (f".{member}" if member else ""),
        expected=expected,
        got=got if isinstance(got, int | list) else str(got)[:40],
        spec="kbs-protocol 1.6",
        hint="EC P-256 or P-521 with ECDH-ES+A256KW, or RSA of at least 2048 bits with RSA-OAEP-256",
    )
