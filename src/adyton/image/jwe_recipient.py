"""Layer options wrapped as JWE (RFC 7516) for the holder of a private key, as ocicrypt and Debian's skopeo do it.

Written: general JSON serialisation, ``A256GCM``, recipients ``RSA-OAEP`` (RSA of 2048 bits and more) or
``ECDH-ES+A256KW`` (P-256, P-384, P-521). Read: the same, the flattened form that Go writes for one recipient, and
``RSA-OAEP-256``. Anything else in a header (``zip``, ``crit``, another ``enc``) is refused, not skipped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias, cast

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from adyton.errors import DecryptionFailed, MalformedImage, UnsupportedImage
from adyton.wire import b64, strict_json

PrivateKey: TypeAlias = RSAPrivateKey | EllipticCurvePrivateKey
PublicKey: TypeAlias = RSAPublicKey | EllipticCurvePublicKey

MAX_JWE = 128 * 1024
MAX_RECIPIENTS = 64
ENC = "A256GCM"
RSA = "RSA-OAEP"
RSA_256 = "RSA-OAEP-256"
ECDH = "ECDH-ES+A256KW"
_SPEC = "RFC 7516 7.2; coco-guest 5.1"
_CURVES: dict[str, ec.EllipticCurve] = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}
_NAMES = {curve.name: name for name, curve in _CURVES.items()}


def wrap(payload: bytes, recipients: Sequence[PublicKey]) -> bytes:
    """The JWE of ``payload`` for every recipient; at least one."""
    if not recipients:
        raise ValueError("a JWE needs a recipient")
    content_key, iv = os.urandom(32), os.urandom(12)
    entries = [_wrap_key(content_key, recipient) for recipient in recipients]
    protected: dict[str, object] = {"enc": ENC}
    if len(entries) == 1:  # one recipient: its header may stand in the protected one, where it is authenticated
        protected = {**cast("dict[str, object]", entries[0].pop("header")), **protected}
    encoded = b64.encode_url(_json(protected))
    sealed = AESGCM(content_key).encrypt(iv, payload, encoded.encode("ascii"))
    return _json(
        {
            "protected": encoded,
            "recipients": entries,
            "iv": b64.encode_url(iv),
            "ciphertext": b64.encode_url(sealed[:-16]),
            "tag": b64.encode_url(sealed[-16:]),
        }
    )


def unwrap(entry: bytes, keys: Iterable[PrivateKey]) -> bytes:
    """The payload, by whichever key is a recipient's. ``DecryptionFailed`` if none is, or if it was altered."""
    document = _object(entry)
    protected_text = _text(document, "protected")
    protected = _object(_decoded(document, "protected"))
    shared = document.get("unprotected", {})
    recipients = _recipients(document)
    iv, sealed = _decoded(document, "iv"), _decoded(document, "ciphertext") + _decoded(document, "tag")
    if len(iv) != 12 or len(_decoded(document, "tag")) != 16:
        raise _malformed("iv or tag has the wrong length")
    aad = protected_text.encode("ascii")
    if "aad" in document:
        aad += b"." + _text(document, "aad").encode("ascii")
    held = tuple(keys)
    for recipient in recipients:
        header = _merged(protected, shared, recipient.get("header", {}))
        wrapped = _decoded(recipient, "encrypted_key")
        for key in held:
            content_key = _unwrap_key(header, wrapped, key)
            if content_key is None:
                continue
            try:
                return AESGCM(content_key).decrypt(iv, sealed, aad)
            except (InvalidTag, ValueError):
                continue
    raise DecryptionFailed(
        "none of the given private keys opens this layer",
        code="wrong_key",
        field="keys.jwe",
        expected=f"the private key of one of {len(recipients)} recipients",
        got=f"{len(held)} keys",
        spec=_SPEC,
    )


def recipient_kinds(entry: bytes) -> list[str]:
    """The key wrapping algorithm of each recipient, for display."""
    document = _object(entry)
    protected = _object(_decoded(document, "protected"))
    shared = document.get("unprotected", {})
    return [
        str(_merged(protected, shared, recipient.get("header", {})).get("alg"))[:40]
        for recipient in _recipients(document)
    ]


def _wrap_key(content_key: bytes, recipient: PublicKey) -> dict[str, object]:
    if isinstance(recipient, RSAPublicKey):
        wrapped = recipient.encrypt(content_key, _oaep(hashes.SHA1()))  # noqa: S303 -- RSA-OAEP's MGF, not a signature
        return {"header": {"alg": RSA}, "encrypted_key": b64.encode_url(wrapped)}
    ephemeral = ec.generate_private_key(recipient.curve)
    numbers, size = ephemeral.public_key().public_numbers(), (recipient.curve.key_size + 7) // 8
    header = {
        "alg": ECDH,
        "epk": {
            "kty": "EC",
            "crv": _NAMES[recipient.curve.name],
            "x": b64.encode_url(numbers.x.to_bytes(size, "big")),
            "y": b64.encode_url(numbers.y.to_bytes(size, "big")),
        },
    }
    wrapped = aes_key_wrap(_agree(ephemeral, recipient, b"", b""), content_key)
    return {"header": header, "encrypted_key": b64.encode_url(wrapped)}


def _unwrap_key(header: Mapping[str, object], wrapped: bytes, key: PrivateKey) -> bytes | None:
    """The content key, or ``None`` where ``key`` is not this recipient's."""
    algorithm = str(header.get("alg"))
    if algorithm in {RSA, RSA_256} and isinstance(key, RSAPrivateKey):
        digest = hashes.SHA1() if algorithm == RSA else hashes.SHA256()  # noqa: S303 -- as above
        try:
            content_key = key.decrypt(wrapped, _oaep(digest))
        except ValueError:
            return None
        return content_key if len(content_key) == 32 else None
    if algorithm == ECDH and isinstance(key, EllipticCurvePrivateKey):
        peer = _ephemeral(header.get("epk"))
        if peer.curve.name != key.curve.name:
            return None
        party_u, party_v = (_header_bytes(header, name) for name in ("apu", "apv"))
        try:
            content_key = aes_key_unwrap(_agree(key, peer, party_u, party_v), wrapped)
        except (InvalidUnwrap, ValueError):
            return None
        return content_key if len(content_key) == 32 else None
    return None


def _agree(private: EllipticCurvePrivateKey, peer: EllipticCurvePublicKey, party_u: bytes, party_v: bytes) -> bytes:
    """RFC 7518 4.6.2: Concat KDF over the shared secret, for a 256-bit key-wrapping key."""
    parts = (ECDH.encode("ascii"), party_u, party_v)
    info = b"".join(len(part).to_bytes(4, "big") + part for part in parts) + (256).to_bytes(4, "big")
    return ConcatKDFHash(hashes.SHA256(), 32, info).derive(private.exchange(ec.ECDH(), peer))


def _ephemeral(jwk: object) -> EllipticCurvePublicKey:
    if not isinstance(jwk, dict) or jwk.get("kty") != "EC" or str(jwk.get("crv")) not in _CURVES:
        raise _malformed("the ephemeral key is not an EC key on a known curve")
    curve = _CURVES[str(jwk["crv"])]
    coordinates = [_decoded(jwk, name) for name in ("x", "y")]
    if any(len(value) != (curve.key_size + 7) // 8 for value in coordinates):
        raise _malformed("a coordinate of the ephemeral key has the wrong length")
    x, y = (int.from_bytes(value, "big") for value in coordinates)
    try:
        return ec.EllipticCurvePublicNumbers(x, y, curve).public_key()
    except ValueError as error:
        raise _malformed("the ephemeral key is not a point of its curve") from error


def _recipients(document: Mapping[str, object]) -> list[dict[str, object]]:
    listed = document.get("recipients")
    if listed is None or (listed == [] and "encrypted_key" in document):  # flattened, as Go writes it for one
        return [{name: document[name] for name in ("header", "encrypted_key") if name in document}]
    if not isinstance(listed, list) or not 0 < len(listed) <= MAX_RECIPIENTS:
        raise _malformed(f"it needs 1 to {MAX_RECIPIENTS} recipients")
    if not all(isinstance(entry, dict) for entry in listed):
        raise _malformed("a recipient is not an object")
    # go-jose repeats the first recipient's key above the list; anything else there would be a second opinion.
    if document.get("encrypted_key", listed[0].get("encrypted_key")) != listed[0].get("encrypted_key"):
        raise _malformed("it has recipients in two places")
    return cast("list[dict[str, object]]", listed)


def _merged(protected: Mapping[str, object], shared: object, own: object) -> dict[str, object]:
    merged: dict[str, object] = dict(protected)
    for part in (shared, own):
        if not isinstance(part, dict) or merged.keys() & part.keys():
            raise _malformed("headers are not objects, or one name stands in two of them")
        merged.update(part)
    unknown = merged.keys() & {"crit", "zip", "b64"}
    if unknown or merged.get("enc") != ENC or "enc" not in protected:
        raise UnsupportedImage(
            "a layer's key is wrapped in a JWE of an unknown kind",
            code="annotation_unsupported",
            field="keys.jwe",
            expected=f"enc {ENC}, no crit, no zip",
            got=[*sorted(unknown), str(merged.get("enc"))[:40]],
            spec=_SPEC,
        )
    return merged


def _oaep(digest: hashes.HashAlgorithm) -> padding.OAEP:
    return padding.OAEP(mgf=padding.MGF1(digest), algorithm=digest, label=None)


def _header_bytes(header: Mapping[str, object], name: str) -> bytes:
    return _decoded(header, name) if name in header else b""


def _text(document: Mapping[str, object], name: str) -> str:
    value = document.get(name)
    if not isinstance(value, str) or not value.isascii():
        raise _malformed(f"{name} is missing or not text")
    return value


def _decoded(document: Mapping[str, object], name: str) -> bytes:
    try:
        return b64.decode_url(_text(document, name))
    except ValueError as error:
        raise _malformed(f"{name} is not base64url") from error


def _object(raw: bytes) -> dict[str, object]:
    try:
        value = strict_json.parse(raw, max_size=MAX_JWE, max_depth=8)
    except ValueError as error:
        raise _malformed("it is not JSON") from error
    if not isinstance(value, dict):
        raise _malformed("it is not an object")
    return value


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def _malformed(why: str) -> MalformedImage:
    return MalformedImage(
        f"a layer's JWE cannot be read: {why}", code="annotation_malformed", field="keys.jwe", spec=_SPEC
    )
