"""Keys that were made elsewhere: PEM, DER, JWK or raw bytes in, the one form that is kept out.

A key is taken only if it is of a kind that could have been made here, whole and consistent; what is encrypted, of
another size or curve, or public only, is refused. Nothing of the key is in any error.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Final, Literal, TypeAlias

from cryptography import x509
from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_private_key,
    load_pem_private_key,
)

from adyton.crypto.key_kinds import CURVES, MAX_RANDOM, WRITTEN, Kind, PrivateKey, generate, private_der, public_der
from adyton.errors import AdytonError, MalformedRequest
from adyton.wire import b64, strict_json

Format: TypeAlias = Literal["pem", "der", "jwk", "raw"]
MAX_IMPORT = 128 * 1024
MAX_CHAIN = 10
_CRV: Final = {"P-256": Kind.P256, "P-384": Kind.P384, "P-521": Kind.P521}
_OKP: Final[dict[str, Kind]] = {"Ed25519": Kind.ED25519, "X25519": Kind.X25519}
MAX_DER = 4096  # RSA of 4096 bits takes 2375 bytes
MAX_PEM = 6000
_PEM = re.compile(rb"-----BEGIN [A-Z0-9 ]{0,20}PRIVATE KEY-----[^-]*+")


def read(which: Kind, form: Format, data: bytes) -> tuple[bytes, tuple[bytes, ...]]:
    """The key in ``data`` as it is kept, and its certificate chain (DER, its own first) if PEM brought one.

    ``MalformedRequest`` ``key_malformed`` unless it is a whole key of kind ``which`` in that format.
    """
    if which in WRITTEN:
        raise _malformed("a key", which.value, "kind")
    if len(data) > MAX_IMPORT:
        raise _malformed(f"at most {MAX_IMPORT} bytes", len(data))
    if form == "raw":
        return _raw(which, data), ()
    if form == "jwk":
        return _jwk(which, data), ()
    if not which.has_public:
        raise _malformed("raw bytes or a JWK", form, "format")
    if form == "pem":
        found = _PEM.findall(data)
        if len(found) != 1 or len(found[0]) > MAX_PEM:
            raise _malformed(f"one private key of at most {MAX_PEM} characters", len(found))
    elif len(data) > MAX_DER:
        raise _malformed(f"at most {MAX_DER} bytes", len(data))
    read_ = load_pem_private_key if form == "pem" else load_der_private_key
    try:
        key: object = read_(data, None, unsafe_skip_rsa_key_validation=True)
        if isinstance(key, rsa.RSAPrivateKey):
            _check_size(which, key.private_numbers())
            key = read_(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm, InternalError) as error:  # TypeError: it is encrypted
        raise _malformed("an unencrypted private key", f"what is no {form} of one") from error
    secret = _kept(which, key)
    return secret, chain(which, secret, data) if form == "pem" and b"-----BEGIN CERTIFICATE" in data else ()


def chain(which: Kind, secret: bytes, pem: bytes) -> tuple[bytes, ...]:
    """The certificates in ``pem`` as DER; the first must be this key's, each next one the issuer of the one before."""
    if (count := pem.count(b"-----BEGIN CERTIFICATE")) > MAX_CHAIN:
        raise _malformed(f"at most {MAX_CHAIN} certificates", count, "certificate")
    try:
        found = x509.load_pem_x509_certificates(pem)
        spki = found[0].public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        for issued, issuer in pairwise(found):
            issued.verify_directly_issued_by(issuer)
    except Exception as error:
        raise _malformed("a certificate chain, the key's own first", "what is none", "certificate") from error
    if spki != public_der(which, secret):
        raise _malformed("the certificate of this key first", "another key's", "certificate")
    return tuple([one.public_bytes(Encoding.DER) for one in found])


def _raw(which: Kind, data: bytes) -> bytes:
    if which is Kind.RANDOM and 0 < len(data) <= MAX_RANDOM:
        return data
    if which.size and len(data) == which.size:
        return data
    if which is Kind.ED25519 and len(data) == 32:
        return private_der(ed25519.Ed25519PrivateKey.from_private_bytes(data))
    if which is Kind.X25519 and len(data) == 32:
        return private_der(x25519.X25519PrivateKey.from_private_bytes(data))
    expected = which.size or (32 if which in {Kind.ED25519, Kind.X25519} else 0)
    raise _malformed(f"{expected} bytes" if expected else "PEM, DER or a JWK", f"{len(data)} bytes")


def _jwk(which: Kind, data: bytes) -> bytes:
    try:
        members = strict_json.parse(data, max_size=MAX_IMPORT)
    except strict_json.UNREADABLE as error:
        raise _malformed("a JWK", "no JSON") from error
    if not isinstance(members, dict):
        raise _malformed("a JWK", type(members).__name__)
    try:
        match members.get("kty"):
            case "oct":
                return _raw(which, _bytes(members, "k"))
            case "RSA":
                numbers = _rsa(members)
                _check_size(which, numbers)
                return _kept(which, numbers.private_key())
            case "EC":
                curve = CURVES[_CRV[str(members.get("crv"))]]
                pair = ec.derive_private_key(_number(members, "d"), curve)
                point = pair.public_key().public_numbers()
                if (point.x, point.y) != (_number(members, "x"), _number(members, "y")):
                    raise ValueError("the halves do not belong together")
                return _kept(which, pair)
            case "OKP":
                secret = _raw(_OKP[str(members.get("crv"))], _bytes(members, "d"))
                if not public_der(which, secret).endswith(_bytes(members, "x")):
                    raise ValueError("the halves do not belong together")
                return secret if _OKP[str(members.get("crv"))] is which else _kept(which, None)
    except AdytonError:
        raise
    except (ValueError, KeyError, TypeError, UnsupportedAlgorithm, OverflowError) as error:
        raise _malformed("a whole private JWK", "one that lacks something, or is not consistent") from error
    raise _malformed("kty oct, RSA, EC or OKP", str(members.get("kty"))[:20], "kty")


def _rsa(members: dict[str, object]) -> rsa.RSAPrivateNumbers:
    public = rsa.RSAPublicNumbers(_number(members, "e"), _number(members, "n"))
    return rsa.RSAPrivateNumbers(
        p=_number(members, "p"),
        q=_number(members, "q"),
        d=_number(members, "d"),
        dmp1=_number(members, "dp"),
        dmq1=_number(members, "dq"),
        iqmp=_number(members, "qi"),
        public_numbers=public,
    )


def _check_size(which: Kind, key: rsa.RSAPrivateNumbers) -> None:
    """Before it is validated: to see whether large numbers are prime takes minutes, and nobody else runs meanwhile."""
    public, bits = key.public_numbers, which.rsa_bits
    small = max(key.d, key.dmp1, key.dmq1, key.iqmp).bit_length() <= bits
    halves = {key.p.bit_length(), key.q.bit_length()} == {bits // 2}
    if not (bits and public.n.bit_length() == bits and public.e == 65537 and halves and small):
        raise _another(which)


def _bytes(members: dict[str, object], name: str) -> bytes:
    value = members[name]
    if not isinstance(value, str):
        raise TypeError(name)
    return b64.decode_url(value)


def _number(members: dict[str, object], name: str) -> int:
    return int.from_bytes(_bytes(members, name))


def _kept(which: Kind, key: object) -> bytes:
    """``key`` as it is kept, if it is one of this kind."""
    fits = False
    if isinstance(key, rsa.RSAPrivateKey):
        fits = key.key_size == which.rsa_bits and key.public_key().public_numbers().e == 65537
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        fits = which in CURVES and key.curve.name == CURVES[which].name
    elif isinstance(key, ed25519.Ed25519PrivateKey):
        fits = which is Kind.ED25519
    elif isinstance(key, x25519.X25519PrivateKey):
        fits = which is Kind.X25519
    if not fits:
        raise _another(which)
    return private_der(_pair(key))


def _another(which: Kind) -> MalformedRequest:
    return _malformed(f"a key of kind {which.value} (RSA: exponent 65537)", "another kind, size or curve", "kind")


def _pair(key: object) -> PrivateKey:
    if not isinstance(key, PrivateKey):
        raise TypeError("no pair")
    return key


def made(which: Kind, size: int, form: Format | None, data: bytes) -> tuple[bytes, tuple[bytes, ...]]:
    """A new key where no format is given, else the one in ``data``."""
    return (generate(which, size), ()) if form is None else read(which, form, data)


def _malformed(expected: object, got: object, field: str = "key") -> MalformedRequest:
    return MalformedRequest(
        "the key cannot be imported",
        code="key_malformed",
        field=field,
        expected=expected,
        got=got,
        hint="PEM or DER (PKCS#8, PKCS#1 or SEC 1, without a passphrase), a private JWK, or raw bytes of a symmetric key",
    )
