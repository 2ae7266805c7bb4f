"""The key that signs a platform's token (CPAK): a bare public key from whoever made the silicon (evidence 9).

There is no certificate and no vendor root: a key is given among the endorsements, and must be trusted by name, that is by the
SHA-256 of its SubjectPublicKeyInfo in ``TrustAnchors.custom``. Which of the given keys it is, the signature says; keys on
another curve than the token's algorithm are never tried.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from adyton.crypto import cose
from adyton.crypto.x509 import EndorsementSet
from adyton.errors import EndorsementMissing, SignatureInvalid
from adyton.rats.types import TrustAnchors
from adyton.tee.cca.platform import PlatformClaims
from adyton.tee.cca.shape import SPEC, TEE

MAX_TRIED = 64  # signatures that are tried for one token
_MAX_SPKI = 256  # bytes; a P-521 key's has 158
_SEQUENCE = 0x30


class PlatformKey(NamedTuple):
    """One given key; ``fingerprint`` is the SHA-256 of its SPKI, ``point_digest`` that of its uncompressed point."""

    key: ec.EllipticCurvePublicKey
    algorithm: int
    fingerprint: bytes
    point_digest: bytes


def keys_in(given: EndorsementSet) -> tuple[PlatformKey, ...]:
    """The elliptic-curve keys among the documents; other documents are other rooms'."""
    found = []
    for document in given.documents:
        if document[:1] != bytes((_SEQUENCE,)) or len(document) > _MAX_SPKI:
            continue
        try:
            key = load_der_public_key(document)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            continue
        algorithm = cose.algorithm_of(key) if isinstance(key, ec.EllipticCurvePublicKey) else None
        if algorithm is None or not isinstance(key, ec.EllipticCurvePublicKey):
            continue
        point = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        digests = hashlib.sha256(document).digest(), hashlib.sha256(point).digest()
        found.append(PlatformKey(key, algorithm, *digests))
    return tuple(found)


def signer_of(
    message: cose.Sign1, claims: PlatformClaims, given: tuple[PlatformKey, ...], anchors: TrustAnchors
) -> PlatformKey:
    """The given key that signed the platform's token, or ``SignatureInvalid``.

    The one whose digest the instance id is comes first, then the trusted ones. ``EndorsementMissing`` if there is none.
    """
    fitting = [key for key in given if key.algorithm == message.algorithm]
    if not fitting:
        raise EndorsementMissing(
            "the public key that endorses the platform (CPAK) is missing",
            code="cpak_missing",
            tee=TEE,
            field="cpak",
            expected=f"a key for {cose.NAMES[message.algorithm]}, of instance {claims.instance_id.hex()}",
            spec=SPEC,
            hint="give the maker's public key of this platform, PEM, among the endorsements, and trust it by name",
        )
    wanted = claims.instance_id[1:]
    fitting.sort(key=lambda key: (key.point_digest != wanted, key.fingerprint not in anchors.custom, key.fingerprint))
    for key in fitting[:MAX_TRIED]:
        try:
            cose.verify(message, key.key, key.algorithm)
        except SignatureInvalid:
            continue
        return key
    raise SignatureInvalid(
        "the platform's token was signed by none of the given keys",
        code="platform_sig",
        tee=TEE,
        field="signature",
        spec=SPEC,
        hint="the token was changed, or it is another platform's",
    )
