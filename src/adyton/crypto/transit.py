"""What a key does for somebody without leaving: encrypt, wrap, sign, authenticate, and the reverse.

Ciphertexts are text, so that they fit anywhere, and say which version of the key opens them::

    adyton:<purpose>:<version>:<base64url>      purpose enc (encrypt) or wrap (wrap, datakey)

By AES: ``1 (1 byte) ‖ nonce (12, random) ‖ ciphertext ‖ tag (16)`` under AES-GCM, where purpose, version and the
caller's additional data are authenticated; so what was wrapped is not opened by ``decrypt``, nor the reverse. By RSA:
RSA-OAEP with SHA-256, the caller's additional data as its label (of what is wrapped, with purpose and version before it). RSA, P-256 and P-521 also take and give a JWE (RFC
7516, flattened JSON: RSA-OAEP-256 or ECDH-ES+A256KW, A256GCM), which anybody can make who has the public half.

Nonces are random: one version of an AES key makes at most 2^32 ciphertexts (NIST SP 800-38D 8.3). Rotate before that.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import struct
from typing import Final, Literal, TypeAlias, cast

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from adyton.crypto import jwe, jwk
from adyton.crypto.key_kinds import Kind, load, load_public
from adyton.errors import MalformedRequest, TooLarge
from adyton.wire import b64

Purpose: TypeAlias = Literal["enc", "wrap"]
MAX_PLAINTEXT = 256 * 1024
MAX_WRAPPED = 4096
MAX_AAD = 64 * 1024
MAX_CIPHERTEXT = 2 * MAX_PLAINTEXT
DATA_KEY_SIZE = 32
_FORMAT = 1
_CONTEXT = b"adyton transit 1\0"
_TEXT = re.compile(r"adyton:(enc|wrap):([1-9][0-9]{0,8}):([A-Za-z0-9_-]+)\Z")
_HASHES: Final[dict[str, hashes.HashAlgorithm]] = {
    "256": hashes.SHA256(),
    "384": hashes.SHA384(),
    "512": hashes.SHA512(),
}
_ECDSA: Final = {Kind.P256: ("ES256", 32), Kind.P384: ("ES384", 48), Kind.P521: ("ES512", 66)}
_HMAC: Final = {Kind.HMAC_256: ("HS256", "sha256"), Kind.HMAC_512: ("HS512", "sha512")}
_PSS = ("PS256", "PS384", "PS512")


def encrypt(  # noqa: PLR0917 -- one value each
    which: Kind, secret: bytes, version: int, plaintext: bytes, aad: bytes, algorithm: str = ""
) -> str:
    """The ciphertext's text. ``algorithm``: ``JWE`` where the kind has a choice. ``TooLarge``; ``MalformedRequest``."""
    bounded(plaintext, aad, MAX_PLAINTEXT)
    name = encryption(which, algorithm)
    if name == "JWE":
        _no_aad(aad)
        return jwe.encrypt(jwk.from_public(_recipient(which, secret)), plaintext).decode("ascii")
    return _sealed(which, secret, version, plaintext, aad, "enc")


def decrypt(which: Kind, secret: bytes, text: str, aad: bytes) -> bytes:
    """What was encrypted. One ``MalformedRequest`` ``ciphertext_refused`` for whatever is wrong with it."""
    if _is_jwe(text):
        _no_aad(aad)
        if encryption(which, "JWE") != "JWE":
            raise refused()
        try:
            return jwe.decrypt(cast("jwe.PrivateKey", load(secret)), text.encode("ascii"))
        except (MalformedRequest, UnicodeEncodeError) as error:
            raise refused() from error
    return _opened(which, secret, text, aad, "enc")


def wrap(which: Kind, secret: bytes, version: int, key: bytes, aad: bytes) -> str:
    """``key`` (1 to ``MAX_WRAPPED`` bytes) wrapped: what only ``unwrap`` opens."""
    if not key:
        raise MalformedRequest("there is no key to wrap", code="transit_input", field="plaintext")
    bounded(key, aad, MAX_WRAPPED)
    return _sealed(which, secret, version, key, aad, "wrap")


def unwrap(which: Kind, secret: bytes, text: str, aad: bytes) -> bytes:
    """What was wrapped; ``MalformedRequest`` ``ciphertext_refused``."""
    return _opened(which, secret, text, aad, "wrap")


def purpose(text: str) -> Purpose:
    """What a ciphertext was made for; ``MalformedRequest``."""
    return "enc" if _is_jwe(text) else cast("Purpose", parts(text)[0])


def version(text: str) -> int | None:
    """The version of the key that made a ciphertext; ``None`` for a JWE, which does not say."""
    return None if _is_jwe(text) else parts(text)[1]


def sign(
    which: Kind, secret: bytes, message: bytes, algorithm: str = "", digest: bytes | None = None
) -> tuple[str, bytes]:
    """Algorithm (its JOSE name) and signature over ``message``, or over a ``digest`` that was made elsewhere.

    ECDSA as JOSE has it, r then s (RFC 7518 3.4). ``MalformedRequest`` for an algorithm that is not this kind's.
    """
    name, scheme = signing(which, algorithm)
    key = load(secret)
    if isinstance(key, ed25519.Ed25519PrivateKey):
        _no_digest(digest)
        return name, key.sign(message)
    hashed = _digest(scheme, message, digest)
    if isinstance(key, rsa.RSAPrivateKey):
        return name, key.sign(hashed, _pss(scheme), utils.Prehashed(scheme))
    size = _ECDSA[which][1]
    signed = cast("ec.EllipticCurvePrivateKey", key).sign(hashed, ec.ECDSA(utils.Prehashed(scheme)))
    r, s = utils.decode_dss_signature(signed)
    return name, r.to_bytes(size) + s.to_bytes(size)


def verify(  # noqa: PLR0917 -- one value each
    which: Kind, public: bytes, message: bytes, signature: bytes, algorithm: str = "", digest: bytes | None = None
) -> tuple[str, bool]:
    """Algorithm, and whether ``signature`` is the pair's over ``message`` (or ``digest``)."""
    name, scheme = signing(which, algorithm)
    key = load_public(public)
    try:
        if isinstance(key, ed25519.Ed25519PublicKey):
            _no_digest(digest)
            key.verify(signature, message)
            return name, True
        hashed = _digest(scheme, message, digest)
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, hashed, _pss(scheme), utils.Prehashed(scheme))
            return name, True
        size = _ECDSA[which][1]
        if len(signature) != 2 * size:
            return name, False
        pair = utils.encode_dss_signature(int.from_bytes(signature[:size]), int.from_bytes(signature[size:]))
        cast("ec.EllipticCurvePublicKey", key).verify(pair, hashed, ec.ECDSA(utils.Prehashed(scheme)))
    except InvalidSignature:
        return name, False
    return name, True


def mac(which: Kind, secret: bytes, message: bytes, algorithm: str = "") -> tuple[str, bytes]:
    """Algorithm (``HS256``, ``HS512``) and the message authentication code in full length."""
    name, scheme = _mac(which, algorithm)
    return name, hmac.new(secret, message, scheme).digest()


def verify_mac(which: Kind, secret: bytes, message: bytes, code: bytes, algorithm: str = "") -> tuple[str, bool]:
    """Algorithm, and whether ``code`` is the message's; compared in constant time and full length."""
    name, expected = mac(which, secret, message, algorithm)
    return name, hmac.compare_digest(expected, code)


def is_mac(which: Kind) -> bool:
    """Whether ``verify`` is over a MAC."""
    return which in _HMAC


def _sealed(  # noqa: PLR0917 -- one value each
    which: Kind, secret: bytes, number: int, plaintext: bytes, aad: bytes, use: Purpose
) -> str:
    if which.rsa_bits:
        try:
            sealed = cast("rsa.RSAPublicKey", load(secret).public_key()).encrypt(plaintext, _oaep(use, number, aad))
        except ValueError as error:
            raise TooLarge(
                "RSA encrypts less than its own size",
                code="transit_too_large",
                field="plaintext",
                expected=f"at most {which.rsa_bits // 8 - 66} bytes",
                got=len(plaintext),
                hint="encrypt with JWE, or a data key",
            ) from error
    else:
        nonce = AESGCM.generate_key(128)[:12]
        sealed = bytes([_FORMAT]) + nonce + _aes(which, secret).encrypt(nonce, plaintext, context(use, number, aad))
    return f"adyton:{use}:{number}:{b64.encode_url(sealed)}"


def _opened(which: Kind, secret: bytes, text: str, aad: bytes, use: Purpose) -> bytes:
    found, number, sealed = parts(text)
    if len(aad) > MAX_AAD or found != use:
        raise refused()
    try:
        if which.rsa_bits:
            return cast("rsa.RSAPrivateKey", load(secret)).decrypt(sealed, _oaep(use, number, aad))
        if len(sealed) < 29 or sealed[0] != _FORMAT:
            raise refused()
        return _aes(which, secret).decrypt(sealed[1:13], sealed[13:], context(use, number, aad))
    except (InvalidTag, ValueError) as error:
        raise refused() from error


def _aes(which: Kind, secret: bytes) -> AESGCM:
    if which not in {Kind.AES_128, Kind.AES_192, Kind.AES_256}:
        raise _algorithm(which, "a cipher", "none")
    return AESGCM(secret)


def context(use: Purpose, number: int, aad: bytes) -> bytes:
    """What is authenticated with a ciphertext of this purpose and version."""
    return _CONTEXT + use.encode().ljust(4, b"\0") + struct.pack(">I", number) + aad


def parts(text: str) -> tuple[str, int, bytes]:
    """Purpose, version and bytes of a ciphertext's text; ``MalformedRequest`` ``ciphertext_refused``."""
    match = _TEXT.match(text) if len(text) <= MAX_CIPHERTEXT else None
    if match is None:
        raise refused()
    try:
        return match[1], int(match[2]), b64.decode_url(match[3])
    except ValueError as error:
        raise refused() from error


def _is_jwe(text: str) -> bool:
    return text.startswith("{")


def _recipient(which: Kind, secret: bytes) -> ec.EllipticCurvePublicKey | rsa.RSAPublicKey:
    key = load(secret).public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        raise _algorithm(which, "JWE", "none")
    return key


def encryption(which: Kind, algorithm: str) -> str:
    """The algorithm that a kind encrypts with; ``MalformedRequest`` ``key_algorithm_wrong``."""
    known: tuple[str, ...] = ()
    if which in {Kind.AES_128, Kind.AES_192, Kind.AES_256}:
        known = (f"A{which.size * 8}GCM",)
    elif which.rsa_bits:
        known = ("RSA-OAEP-256", "JWE")
    elif which in {Kind.P256, Kind.P521}:
        known = ("JWE",)
    if not known or algorithm not in {"", *known}:
        raise _algorithm(which, list(known), algorithm)
    return algorithm or known[0]


def signing(which: Kind, algorithm: str) -> tuple[str, hashes.HashAlgorithm]:
    """Name and hash of the algorithm that a kind signs with; ``MalformedRequest`` ``key_algorithm_wrong``."""
    known: tuple[str, ...] = ()
    if which in _ECDSA:
        known = (_ECDSA[which][0],)
    elif which.rsa_bits:
        known = _PSS
    elif which is Kind.ED25519:
        known = ("EdDSA",)
    if not known or algorithm not in {"", *known}:
        raise _algorithm(which, list(known), algorithm)
    name = algorithm or known[0]
    return name, _HASHES.get(name[2:], _HASHES["512"])


def _mac(which: Kind, algorithm: str) -> tuple[str, str]:
    known = _HMAC.get(which)
    if known is None or algorithm not in {"", known[0]}:
        raise _algorithm(which, known[0] if known else [], algorithm)
    return known


def _digest(scheme: hashes.HashAlgorithm, message: bytes, digest: bytes | None) -> bytes:
    if digest is None:
        return hashlib.new(scheme.name, message).digest()
    if message or len(digest) != scheme.digest_size:
        raise MalformedRequest(
            "a digest stands instead of the message, in full length",
            code="transit_input",
            field="digest",
            expected=f"{scheme.digest_size} bytes",
            got=len(digest),
        )
    return digest


def _no_digest(digest: bytes | None) -> None:
    if digest is not None:
        raise MalformedRequest("EdDSA signs messages, not digests", code="transit_input", field="digest")


def _no_aad(aad: bytes) -> None:
    if aad:
        raise MalformedRequest("a JWE carries no additional data here", code="transit_input", field="aad")


def _pss(scheme: hashes.HashAlgorithm) -> padding.PSS:
    return padding.PSS(padding.MGF1(scheme), scheme.digest_size)


def _oaep(use: Purpose, number: int, aad: bytes) -> padding.OAEP:
    """The label is the caller's data, as others who have the public half expect; of what is wrapped, the purpose too."""
    if aad.startswith(_CONTEXT):
        raise refused()
    aad = aad if use == "enc" else context(use, number, aad)
    return padding.OAEP(mgf=padding.MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=aad or None)


def bounded(plaintext: bytes, aad: bytes, limit: int) -> None:
    """``TooLarge`` ``transit_too_large`` for more than one operation takes."""
    for field, value, most in (("plaintext", plaintext, limit), ("aad", aad, MAX_AAD)):
        if len(value) > most:
            raise TooLarge(
                "too much for one operation",
                code="transit_too_large",
                field=field,
                expected=f"at most {most} bytes",
                got=len(value),
                hint="encrypt what is large with a data key (datakey), and that key here",
            )


def _algorithm(which: Kind, expected: object, got: str) -> MalformedRequest:
    return MalformedRequest(
        f"a key of kind {which.value} does not do that",
        code="key_algorithm_wrong",
        field="algorithm",
        expected=expected,
        got=got[:40],
    )


def refused() -> MalformedRequest:
    """The one error for whatever is wrong with a ciphertext."""
    return MalformedRequest(
        "the ciphertext does not open with this key, version and additional data", code="ciphertext_refused"
    )
