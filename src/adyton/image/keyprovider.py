"""The annotation of CoCo's key provider ``attestation-agent``: layer options wrapped under a broker's key.

The entry is JSON (``coco-guest`` 5.2). Version 1: ``kid``, ``wrapped_data``, ``iv``, ``wrap_type``. Version 2 adds
``version``, ``provider``, ``provider_settings``, ``annotations``. Written is one packet with the members of both, so
guests of every CoCo release read it: those of version 1 skip what they do not know. Read are both.

``A256GCM``: 12-byte IV, no associated data, ciphertext and 16-byte tag. ``A256CTR``: 16-byte IV and no tag, so nothing
shows that it was altered; it is read only where the caller accepts that by name, and never written.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from adyton.errors import DecryptionFailed, MalformedImage, UnsupportedImage
from adyton.protocol.resource import ResourcePath
from adyton.rats.ports import KeySource
from adyton.wire import b64, strict_json

NAME = "attestation-agent"
MAX_PACKET = 64 * 1024
VERSION = "0.1.0"
GCM = "A256GCM"
CTR_UNAUTHENTICATED = "A256CTR"
_SPEC = "coco-guest 5.2"


class _Packet(msgspec.Struct):
    kid: str
    wrapped_data: str
    iv: str | None = None
    wrap_type: str | None = None
    version: str | None = None
    provider: str | None = None
    provider_settings: dict[str, object] | None = None
    annotations: dict[str, object] | None = None


@dataclass(frozen=True, slots=True)
class Packet:
    """One recipient entry: which key it needs and what that key opens. ``version`` is ``None`` for version 1."""

    kid: str
    wrapped: bytes = field(repr=False)
    iv: bytes
    wrap_type: str
    version: str | None = None

    @classmethod
    def parse(cls, raw: bytes) -> Packet:
        """Read an entry; ``MalformedImage`` or, for another provider or wrapping, ``UnsupportedImage``."""
        try:
            packet = msgspec.convert(strict_json.parse(raw, max_size=MAX_PACKET, max_depth=8), _Packet)
            wrapped, iv = b64.decode(packet.wrapped_data), b64.decode(packet.iv or "")
        except (ValueError, msgspec.ValidationError) as error:
            raise _malformed(
                "a key provider's annotation cannot be read", "kid, wrapped_data, iv, wrap_type"
            ) from error
        if packet.version not in {None, VERSION}:
            raise _unsupported("a version that is not known", VERSION, packet.version)
        if packet.provider not in {None, "kbs"}:
            raise _unsupported("a key management service that is not a broker", "kbs", packet.provider)
        lengths = {GCM: 12, CTR_UNAUTHENTICATED: 16}
        if packet.wrap_type not in lengths:
            raise _unsupported("a wrapping that is not known", GCM, packet.wrap_type)
        if len(iv) != lengths[packet.wrap_type]:
            raise _malformed("a key provider's iv has the wrong length", f"{lengths[packet.wrap_type]} bytes")
        if not wrapped or len(packet.kid) > 1024:
            raise _malformed("a key provider's annotation is empty or its kid too long", "wrapped_data and a short kid")
        return cls(kid=packet.kid, wrapped=wrapped, iv=iv, wrap_type=packet.wrap_type, version=packet.version)

    def encode(self) -> bytes:
        """The entry's JSON, readable as version 1 and as version 2."""
        return msgspec.json.encode(
            _Packet(
                kid=self.kid,
                wrapped_data=b64.encode(self.wrapped),
                iv=b64.encode(self.iv),
                wrap_type=self.wrap_type,
                version=self.version or VERSION,
                provider="kbs",
                provider_settings={},
                annotations={},
            )
        )


def wrap(options: bytes, kid: ResourcePath, key: bytes) -> bytes:
    """Wrap a layer's private options under the 32-byte ``key`` that the broker holds at ``kid``; the entry's JSON."""
    if len(key) != 32:
        raise ValueError("a key-encryption key has 32 bytes")
    iv = os.urandom(12)
    return Packet(kid=kid.uri, wrapped=AESGCM(key).encrypt(iv, options, None), iv=iv, wrap_type=GCM).encode()


def unwrap(entry: bytes, source: KeySource, unauthenticated_wrap_accepted: bool = False) -> bytes:
    """The private options in an entry. Errors of ``source`` pass through; a wrong key is ``DecryptionFailed``."""
    packet = Packet.parse(entry)
    if packet.wrap_type == CTR_UNAUTHENTICATED and not unauthenticated_wrap_accepted:
        raise _unsupported("A256CTR, which shows no alteration and is not accepted here", GCM, packet.wrap_type)
    key = source.key(packet.kid)
    if len(key) != 32:
        raise DecryptionFailed(
            "the key at this URI is not a key for images: it has not 32 bytes",
            code="kek_length",
            field="kid",
            expected="32 bytes",
            got=packet.kid,
            spec=_SPEC,
        )
    if packet.wrap_type == CTR_UNAUTHENTICATED:
        context = Cipher(AES(key), CTR(packet.iv)).decryptor()
        return context.update(packet.wrapped) + context.finalize()
    try:
        return AESGCM(key).decrypt(packet.iv, packet.wrapped, None)
    except InvalidTag:
        raise DecryptionFailed(
            "the key at this URI does not open the layer, or the annotation was altered",
            code="wrong_key",
            field="kid",
            got=packet.kid,
            spec=_SPEC,
        ) from None


def _malformed(message: str, expected: str) -> MalformedImage:
    return MalformedImage(
        message, code="annotation_malformed", field=f"keys.provider.{NAME}", expected=expected, spec=_SPEC
    )


def _unsupported(what: str, expected: str, got: str | None) -> UnsupportedImage:
    return UnsupportedImage(
        f"a layer's key is wrapped with {what}",
        code="annotation_unsupported",
        field=f"keys.provider.{NAME}",
        expected=expected,
        got=(got or "")[:80],
        spec=_SPEC,
    )
