"""Threshold shares as files: sealed to their owner's public key, and opened by that owner, who hands the text on.

Both are one JSON object. What a sealed share says outside its envelope is for people; what counts is inside.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Literal

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from adyton.crypto import jwe, jwk
from adyton.crypto.jwe import PrivateKey
from adyton.crypto.jwk import TeeKey
from adyton.crypto.shamir import Share, ShareSet
from adyton.errors import ConfigError, DecryptionFailed, DocumentInvalid, MalformedRequest
from adyton.wire import strict_json

MAX_SIZE = 64 * 1024


class SetDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A ``ShareSet``; bytes are base64."""

    id: bytes
    threshold: int
    secret: bytes
    shares: list[bytes]

    @classmethod
    def of(cls, one: ShareSet) -> SetDocument:
        """The document of a set."""
        return cls(one.id, one.threshold, one.secret, list(one.shares))

    def read(self) -> ShareSet:
        """The set; ``ValueError`` if it is none."""
        return ShareSet(self.id, self.threshold, self.secret, tuple(self.shares))


class ShareDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A share in the clear: as secret as the root key, once ``threshold`` of them are together."""

    format: Literal["adyton-share/1"]
    store: str
    slot: str
    set: SetDocument
    index: int
    value: bytes


class SealedShare(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A share that only its owner opens. ``owner``: SHA-256 of the SPKI of the key that it is sealed to, in hex."""

    format: Literal["adyton-sealed-share/1"]
    store: str
    slot: str
    index: int
    threshold: int
    count: int
    owner: str
    jwe: msgspec.Raw


_SHARE = msgspec.json.Decoder(ShareDocument)
_SEALED = msgspec.json.Decoder(SealedShare)


def seal(share: Share, store: str, slot: str, owner: TeeKey) -> bytes:
    """The file that is handed to an owner."""
    inside = msgspec.json.encode(
        ShareDocument("adyton-share/1", store, slot, SetDocument.of(share.set), share.index, share.value)
    )
    sealed = SealedShare(
        "adyton-sealed-share/1",
        store,
        slot,
        share.index,
        share.set.threshold,
        share.set.count,
        fingerprint(owner.public),
        msgspec.Raw(jwe.encrypt(owner, inside)),
    )
    return msgspec.json.encode(sealed) + b"\n"


def open_(sealed: bytes, key: PrivateKey) -> bytes:
    """The share's text; ``DecryptionFailed`` ``share_not_yours`` if it is sealed to another key."""
    document = _sealed(sealed)
    owner = fingerprint(key.public_key())
    if not hmac.compare_digest(owner, document.owner):
        raise DecryptionFailed(
            "this share is sealed to another key",
            code="share_not_yours",
            field="key",
            expected=document.owner,
            got=owner,
        )
    try:
        inside = jwe.decrypt(key, bytes(document.jwe))
        share = _SHARE.decode(inside)
    except (MalformedRequest, *strict_json.UNREADABLE) as error:
        raise DecryptionFailed("this share does not open", code="share_broken", field="jwe") from error
    outside = (document.store, document.slot, document.index, document.threshold, document.count)
    if outside != (share.store, share.slot, share.index, share.set.threshold, len(share.set.shares)):
        raise DecryptionFailed("this share says one thing outside and another inside", code="share_broken")
    return inside + b"\n"


def parse(text: bytes) -> tuple[Share, str, str]:
    """A share in the clear, with the store's id and the slot's name; ``DocumentInvalid`` ``share_malformed``."""
    try:
        strict_json.parse(text, max_size=MAX_SIZE)
        document = _SHARE.decode(text)
        found = Share(document.set.read(), document.index, document.value)
        if not 0 < found.index <= found.set.count:
            raise ValueError
    except strict_json.UNREADABLE as error:
        hint = None
        if b"adyton-sealed-share/1" in text[:MAX_SIZE]:
            hint = "it is still sealed: its owner opens it with adyton broker root-key decrypt-share"
        raise DocumentInvalid("this is no share", code="share_malformed", field="share", hint=hint) from error
    return found, document.store, document.slot


def described(sealed: bytes) -> dict[str, object]:
    """What a sealed share says about itself, for people."""
    document = _sealed(sealed)
    return {
        "store": document.store,
        "slot": document.slot,
        "index": document.index,
        "threshold": document.threshold,
        "count": document.count,
        "owner": document.owner,
    }


def _sealed(sealed: bytes) -> SealedShare:
    try:
        strict_json.parse(sealed, max_size=MAX_SIZE)
        return _SEALED.decode(sealed)
    except strict_json.UNREADABLE as error:
        raise DocumentInvalid("this is no sealed share", code="share_malformed", field="share") from error


def fingerprint(key: jwk.PublicKey) -> str:
    """SHA-256 of a key's SubjectPublicKeyInfo, in hex."""
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def owner_key(pem: bytes, name: str) -> TeeKey:
    """An owner's public key out of PEM: EC P-256 or P-521, or RSA of 2048 to 8192 bits; ``ConfigError``."""
    try:
        key = load_pem_public_key(pem)
        if isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
            return jwk.from_public(key)
    except (ValueError, UnsupportedAlgorithm):
        pass
    raise ConfigError(
        "not an owner's public key",
        code="owner_key_unusable",
        field=name,
        expected="PEM of a public key: EC P-256 or P-521, or RSA of 2048 to 8192 bits",
        hint="openssl pkey -in private.pem -pubout -out public.pem",
    )


def private_key(pem: bytes, name: str, password: bytes | None = None) -> PrivateKey:
    """An owner's private key out of PEM; ``ConfigError``."""
    try:
        key = load_pem_private_key(pem, password)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(
            "the private key cannot be read",
            code="owner_key_unusable",
            field=name,
            expected="PEM of a private key",
            hint="is it protected by a passphrase? give --passphrase-file",
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise ConfigError("the private key is neither EC nor RSA", code="owner_key_unusable", field=name)
    return key
