"""Attestation requests (ARCB, version 1): made for known host keys, opened by nobody else but firmware (evidence 12).

A request tells firmware a measurement key (64 bytes) and a nonce (16) that only its author knows. Big-endian: header 48, flags 8,
algorithm 4, reserved 4, author's public key 160 (P-521, coordinates of 80), a key slot of 80 bytes for each machine, the
encrypted secrets 80, tag 16. The protection key encrypts the secrets (AES-256-GCM over everything before them) and
is wrapped for each host key: AES-256-GCM under SHA-256(ECDH secret || 00000001), nonce of zeros.

**Nothing here is random**: whoever makes a request brings fresh ``RequestSecrets``, and keeps them to itself.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from adyton.errors import SignatureInvalid
from adyton.tee.se.header import SLOT_SIZE, SPEC, TEE, HeaderTags, KeySlot, malformed, read_slots

VERSION = 0x100
HMAC_SHA512 = 1
MAX_SIZE = 0x100000
MAX_HOST_KEYS = 255
COORDINATE = 80  # bytes, though P-521 needs 66
KEY_SIZE, NONCE_SIZE = 64, 16
_SECRETS_SIZE = KEY_SIZE + NONCE_SIZE
_HEADER = struct.Struct(">8sII12s4s7sB4sI")
_AUTHENTICATED = struct.Struct(">QI4s160s")
_FIXED = _HEADER.size + _AUTHENTICATED.size
_ZERO_NONCE = bytes(12)


def _flag(bit: int) -> int:
    return 1 << 63 - bit  # bit 0 is the highest


NONCE = _flag(1)
IMAGE_KEY_HASH = _flag(2)
ATTESTATION_KEY_HASH = _flag(3)
SECRET_STORE_HASH = _flag(4)
FIRMWARE_STATE = _flag(5)
FLAGS = NONCE | IMAGE_KEY_HASH | ATTESTATION_KEY_HASH
# What firmware adds to the measurement for each flag, in this order.
_ADDITIONAL = (
    (IMAGE_KEY_HASH, "image_phkh", 32),
    (ATTESTATION_KEY_HASH, "attestation_phkh", 32),
    (SECRET_STORE_HASH, "secret_store_hash", 64),
    (FIRMWARE_STATE, "firmware_state", 320),
)
_KNOWN_FLAGS = NONCE | IMAGE_KEY_HASH | ATTESTATION_KEY_HASH | SECRET_STORE_HASH | FIRMWARE_STATE


@dataclass(frozen=True, slots=True)
class RequestSecrets:
    """What the author of a request knows: all of it random, and used for one request."""

    measurement_key: bytes = field(repr=False)
    nonce: bytes = field(repr=False)
    protection_key: bytes = field(repr=False)
    iv: bytes = field(repr=False)
    ephemeral: ec.EllipticCurvePrivateKey = field(repr=False)

    def __post_init__(self) -> None:
        sizes = tuple(map(len, (self.measurement_key, self.nonce, self.protection_key, self.iv)))
        if sizes != (KEY_SIZE, NONCE_SIZE, 32, 12) or self.ephemeral.curve.name != "secp521r1":
            raise ValueError("secrets have 64, 16, 32 and 12 bytes, and a P-521 key")


class AttestationRequest(NamedTuple):
    """A parsed request. What is encrypted stays so."""

    flags: int
    iv: bytes
    public_key: bytes
    slots: tuple[KeySlot, ...]
    encrypted: bytes
    tag: bytes

    @classmethod
    def parse(cls, data: bytes) -> AttestationRequest:
        """From exactly one request, or ``MalformedEvidence``. Reserved fields are zero."""
        if not _FIXED <= len(data) <= MAX_SIZE:
            raise malformed("a request", "has an impossible length", "length", f"{_FIXED} to {MAX_SIZE}", len(data))
        magic, version, size, iv, *reserved, slots, reserved3, encrypted = _HEADER.unpack_from(data)
        flags, algorithm, reserved4, public_key = _AUTHENTICATED.unpack_from(data, _HEADER.size)
        if any(magic) or any(map(any, (*reserved, reserved3, reserved4))):
            raise malformed("a request", "has reserved bytes that are not zero", "reserved", 0, None)
        if version != VERSION or algorithm != HMAC_SHA512:
            raise malformed(
                "a request",
                "has an unknown version or algorithm",
                "version",
                [VERSION, HMAC_SHA512],
                [version, algorithm],
            )
        begin = _FIXED + SLOT_SIZE * slots
        if not slots or size != len(data) or encrypted != _SECRETS_SIZE or begin + encrypted + 16 != size:
            raise malformed("a request", "has lengths that do not fit", "size", len(data), size)
        if not flags & NONCE or flags & ~_KNOWN_FLAGS:
            raise malformed("a request", "has unknown flags, or no nonce", "flags", f"{FLAGS:#x}", f"{flags:#x}")
        key_slots = read_slots(data[_FIXED:begin])
        return cls(flags, iv, public_key, key_slots, data[begin : begin + encrypted], data[begin + encrypted :])

    def encode(self) -> bytes:
        """The bytes that it was parsed from."""
        return self.authenticated + self.encrypted + self.tag

    @property
    def authenticated(self) -> bytes:
        """Everything before what is encrypted."""
        size = _FIXED + SLOT_SIZE * len(self.slots) + len(self.encrypted) + len(self.tag)
        return _head(self.flags, self.iv, self.public_key, self.slots, size)

    @property
    def key_hashes(self) -> frozenset[bytes]:
        """The host keys that it was made for."""
        return frozenset([slot.key_hash for slot in self.slots])

    def open(self, protection_key: bytes) -> tuple[bytes, bytes]:
        """Measurement key and nonce, for whoever knows the protection key; ``SignatureInvalid`` if it was changed."""
        try:
            plain = AESGCM(protection_key).decrypt(self.iv, self.encrypted + self.tag, self.authenticated)
        except InvalidTag:
            raise SignatureInvalid(
                "the request was changed, or encrypted with another key", code="request_seal", tee=TEE, spec=SPEC
            ) from None
        return plain[:KEY_SIZE], plain[KEY_SIZE:]


def build(host_keys: Sequence[ec.EllipticCurvePublicKey], secrets: RequestSecrets, *, flags: int = FLAGS) -> bytes:
    """A request for machines with these host keys (1 to 255), which must have been verified.

    ``flags`` without ``NONCE`` or with unknown bits, or another number of keys, is ``ValueError``.
    """
    if not 1 <= len(host_keys) <= MAX_HOST_KEYS:
        raise ValueError("a request is for 1 to 255 host keys")
    if not flags & NONCE or flags & ~_KNOWN_FLAGS:
        raise ValueError("a request has a nonce, and no unknown flag")
    slots = tuple([KeySlot(key_hash(key), _wrap(secrets, key)) for key in host_keys])
    size = _FIXED + SLOT_SIZE * len(slots) + _SECRETS_SIZE + 16
    public_key = coordinates(secrets.ephemeral.public_key())
    head = _head(flags, secrets.iv, public_key, slots, size)
    return head + AESGCM(secrets.protection_key).encrypt(secrets.iv, secrets.measurement_key + secrets.nonce, head)


def coordinates(key: ec.EllipticCurvePublicKey) -> bytes:
    """Both coordinates, 80 bytes each; ``ValueError`` if the key is not on P-521."""
    if key.curve.name != "secp521r1":
        raise ValueError("not a P-521 key")
    numbers = key.public_numbers()
    return numbers.x.to_bytes(COORDINATE, "big") + numbers.y.to_bytes(COORDINATE, "big")


def key_hash(key: ec.EllipticCurvePublicKey) -> bytes:
    """PHKH, 32 bytes: by this hash firmware names host keys."""
    return hashlib.sha256(coordinates(key)).digest()


def wrapping_key(private: ec.EllipticCurvePrivateKey, public: ec.EllipticCurvePublicKey) -> bytes:
    """The AES-256 key that both ends of a key slot come to."""
    return hashlib.sha256(private.exchange(ec.ECDH(), public) + b"\0\0\0\1").digest()


def additional_size(flags: int) -> int:
    """Bytes of additional data that firmware answers with."""
    return sum(size for flag, _, size in _ADDITIONAL if flags & flag)


def read_additional(data: bytes, flags: int) -> dict[str, bytes]:
    """Additional data by name, as ``flags`` asked for them; ``MalformedEvidence`` if there is more or less."""
    if len(data) != additional_size(flags):
        raise malformed(
            "additional data", "are not what was asked for", "additional_data", additional_size(flags), len(data)
        )
    found, at = {}, 0
    for flag, name, size in _ADDITIONAL:
        if flags & flag:
            found[name] = data[at : at + size]
            at += size
    return found


def measurement(
    measurement_key: bytes, tags: HeaderTags, *, cuid: bytes, user_data: bytes, nonce: bytes, additional_data: bytes
) -> bytes:
    """What firmware answers: HMAC-SHA-512, 64 bytes, over the image's tags and everything else that it vouches for."""
    lengths = struct.pack(">HHI", len(user_data), 0, len(additional_data))
    items = b"".join((*tags, cuid, lengths, user_data, nonce, additional_data))
    return hmac.digest(measurement_key, items, "sha512")


def _wrap(secrets: RequestSecrets, key: ec.EllipticCurvePublicKey) -> bytes:
    wrapping = wrapping_key(secrets.ephemeral, key)
    return AESGCM(wrapping).encrypt(_ZERO_NONCE, secrets.protection_key, None)


def _head(flags: int, iv: bytes, public_key: bytes, slots: Sequence[KeySlot], size: int) -> bytes:
    head = _HEADER.pack(bytes(8), VERSION, size, iv, bytes(4), bytes(7), len(slots), bytes(4), _SECRETS_SIZE)
    authenticated = _AUTHENTICATED.pack(flags, HMAC_SHA512, bytes(4), public_key)
    return head + authenticated + b"".join([slot.key_hash + slot.wrapped for slot in slots])
