"""The ID block that a guest's owner signs, the keys that sign it, and the digests of those keys in the report.

AMD 56860 "ID block" and "ID authentication information" (evidence 4.3, 13): P-384 points and signatures are
little-endian in fields of 72 bytes; a key's digest is SHA-384 over its structure of 0x404 bytes.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key, load_pem_public_key

from adyton.crypto.ecdsa import verify_p384
from adyton.errors import DocumentInvalid
from adyton.tee.snp.abi import ECDSA_P384_SHA384, GuestPolicy

SPEC = "AMD 56860 ID block; evidence 13"
KEY_SIZE = 0x404
AUTH_SIZE = 4096
SIGNATURE_FIELD = 512
P384_CURVE = 2

_BLOCK = struct.Struct("<48s16s16sIIQ")
_DEFAULT_POLICY = GuestPolicy(0x30000)


@dataclass(frozen=True, slots=True)
class IdBlock:
    """What the owner signs: 96 bytes. ``version`` is 1."""

    launch_digest: bytes
    family_id: bytes = bytes(16)
    image_id: bytes = bytes(16)
    version: int = 1
    guest_svn: int = 0
    policy: GuestPolicy = _DEFAULT_POLICY

    def __post_init__(self) -> None:
        if len(self.launch_digest) != 48 or len(self.family_id) != 16 or len(self.image_id) != 16:
            raise ValueError("launch digest 48, family id 16, image id 16 bytes")

    def encode(self) -> bytes:
        """The 96 bytes."""
        return _BLOCK.pack(
            self.launch_digest, self.family_id, self.image_id, self.version, self.guest_svn, int(self.policy)
        )

    @classmethod
    def parse(cls, data: bytes) -> IdBlock:
        """From exactly 96 bytes, or ``DocumentInvalid``."""
        if len(data) != _BLOCK.size:
            raise _invalid("an ID block has 96 bytes", "id_block_length", len(data))
        launch_digest, family_id, image_id, version, guest_svn, policy = _BLOCK.unpack(data)
        return cls(launch_digest, family_id, image_id, version, guest_svn, GuestPolicy(policy))


@dataclass(frozen=True, slots=True)
class AuthBlock:
    """The page that goes with an ID block: its signature, the ID key, that key's signature by the author key."""

    block_signature: bytes
    id_key: bytes
    key_signature: bytes
    author_key: bytes

    @classmethod
    def parse(cls, data: bytes) -> AuthBlock:
        """From 4096 bytes, or ``DocumentInvalid``; both algorithms must be ECDSA P-384 with SHA-384, reserved zero."""
        if len(data) != AUTH_SIZE:
            raise _invalid("an authentication block has 4096 bytes", "auth_block_length", len(data))
        algorithms = struct.unpack_from("<II", data)
        if algorithms[0] != ECDSA_P384_SHA384 or algorithms[1] not in {0, ECDSA_P384_SHA384}:
            raise _invalid("unknown algorithm in the authentication block", "auth_block_algorithm", list(algorithms))
        if any(data[0x08:0x40]) or any(data[0x644:0x680]) or any(data[0xC84:]):
            raise _invalid("reserved bytes of the authentication block are not zero", "auth_block_reserved", None)
        return cls(data[0x40:0x240], data[0x240:0x644], data[0x680:0x880], data[0x880:0xC84])

    @property
    def has_author(self) -> bool:
        """Whether an author key vouches for the ID key."""
        return any(self.author_key)

    def verify(self, block: IdBlock) -> None:
        """Both signatures, or ``SignatureInvalid``: the ID key's over ``block``, the author's over the ID key."""
        _verify(self.id_key, self.block_signature, block.encode())
        if self.has_author:
            _verify(self.author_key, self.key_signature, self.id_key)


def key_structure(key: ec.EllipticCurvePublicKey) -> bytes:
    """The key as the firmware holds it: curve 2, x and y little-endian in 72 bytes each, zeros; 0x404 bytes."""
    if key.curve.name != "secp384r1":
        raise _invalid("an ID or author key is on P-384", "id_key_curve", key.curve.name)
    point = key.public_numbers()
    body = struct.pack("<I", P384_CURVE) + point.x.to_bytes(72, "little") + point.y.to_bytes(72, "little")
    return body.ljust(KEY_SIZE, b"\0")


def key_digest(structure: bytes) -> bytes:
    """ID_KEY_DIGEST or AUTHOR_KEY_DIGEST of a report, 48 bytes."""
    if len(structure) != KEY_SIZE:
        raise ValueError("a key structure has 0x404 bytes")
    return hashlib.sha384(structure).digest()


def load_key(data: bytes) -> ec.EllipticCurvePublicKey:
    """A public key from PEM or DER, or ``DocumentInvalid``."""
    try:
        key = load_pem_public_key(data) if data.lstrip().startswith(b"-----BEGIN") else load_der_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _invalid("not a public key in PEM or DER", "id_key_malformed", None) from error
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise _invalid("an ID or author key is on P-384", "id_key_curve", type(key).__name__)
    return key


def _verify(structure: bytes, signature: bytes, data: bytes) -> None:
    curve, x, y = struct.unpack_from("<I72s72s", structure)
    if curve != P384_CURVE or any(structure[148:]):
        raise _invalid("a key of the authentication block is not on P-384", "id_key_curve", curve)
    if any(signature[144:]):
        raise _invalid("reserved bytes of a signature are not zero", "auth_block_reserved", None)
    try:
        numbers = ec.EllipticCurvePublicNumbers(
            int.from_bytes(x, "little"), int.from_bytes(y, "little"), ec.SECP384R1()
        )
        key = numbers.public_key()
    except ValueError as error:
        raise _invalid("a key of the authentication block is off its curve", "id_key_point", None) from error
    verify_p384(key, signature[:144], data, size=72, byteorder="little")


def _invalid(message: str, code: str, got: object) -> DocumentInvalid:
    return DocumentInvalid(message, code=code, tee="snp", got=got, spec=SPEC)
