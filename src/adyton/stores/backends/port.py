"""The two ports of a back end: one that gives values back, and one whose keys never leave it.

Both block, with a deadline of their own, and may be called from any thread. Names come in checked (``tenants.check``,
``ResourcePath``, ``label``); a back end maps them one to one, so no two names ever meet in one place. Nothing foreign
escapes, and no value, key, PIN or token is in any error. Errors common to both:

* ``Unavailable``: it did not answer, or refused for a reason that may pass (down, sealed, slow, lost session), or what it
  holds is not what was put there (``code`` says which);
* ``ConfigError``: it will never answer so: wrong address, credential, right, certificate, option, or no such key.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum
from typing import Protocol

from adyton.errors import ConfigError
from adyton.protocol.resource import ResourcePath

MAX_VALUE = 64 * 1024
"""Bytes that every ``SecretHolder`` takes (AWS Secrets Manager holds no more)."""
MAX_PLAINTEXT = 4096
"""Bytes that every ``KeyHolder`` encrypts with a symmetric key (AWS KMS takes no more)."""
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}\Z")


class SecretHolder(Protocol):
    """Values by tenant and path.

    Laws. What ``put`` acknowledged with pointer ``p``, ``get(…, p)`` gives back byte for byte until that pointer is
    deleted, whatever is put later: so a pointer stored elsewhere stays good while a newer value is on its way. A pointer
    is at most 200 printable ASCII characters and no secret. One tenant's names never reach another's values.
    """

    def put(self, tenant: str, path: ResourcePath, value: bytes) -> str:
        """Keep ``value`` (at most ``MAX_VALUE`` bytes) beside what there is; returns its pointer."""
        ...

    def get(self, tenant: str, path: ResourcePath, pointer: str = "") -> bytes | None:
        """The value behind ``pointer``; without one, the newest. ``None`` if there is none."""
        ...

    def delete(self, tenant: str, path: ResourcePath, pointer: str = "") -> None:
        """Destroy that value, or with no pointer everything at ``path``; nothing to destroy is no error."""
        ...

    def pointers(self, tenant: str, path: ResourcePath) -> Sequence[str]:
        """The pointers of all that ``put`` left at ``path`` and nobody deleted, in any order."""
        ...

    def list(self, tenant: str) -> list[ResourcePath]:
        """Where the tenant has values, in order."""
        ...

    def check(self) -> str:
        """Ask it something harmless; what it says it is (product, version), or the error that a use would meet."""
        ...

    def close(self) -> None:
        """Let go of connections and sessions; it is not used again."""
        ...


class KeyKind(Enum):
    """What ``generate`` can be asked for; a device knows some of them (``kinds``)."""

    AES_256 = "aes-256"
    RSA_2048 = "rsa-2048"
    RSA_3072 = "rsa-3072"
    RSA_4096 = "rsa-4096"
    P256 = "p-256"
    P384 = "p-384"
    P521 = "p-521"
    ED25519 = "ed25519"

    @property
    def symmetric(self) -> bool:
        """Whether it has no public half."""
        return self is KeyKind.AES_256

    @property
    def rsa_bits(self) -> int:
        """Bits of the modulus; 0 if it is not RSA."""
        return int(self.value[4:]) if self.value.startswith("rsa-") else 0


class Signing(Enum):
    """Signature algorithms by their JOSE names (RFC 7518 3.1, RFC 8037): the message is hashed, then signed."""

    ES256 = "ES256"
    ES384 = "ES384"
    ES512 = "ES512"
    RS256 = "RS256"
    RS384 = "RS384"
    RS512 = "RS512"
    PS256 = "PS256"
    PS384 = "PS384"
    PS512 = "PS512"
    EDDSA = "EdDSA"


class KeyHolder(Protocol):
    """Keys by handle, used where they are.

    A handle is what the device calls the key (label, ARN, transit name, unique identifier): at most 200 printable ASCII
    characters, no secret, good for as long as the key lives, across restarts and processes. A key that an operator made
    in the device is used by its handle like any other. Laws: ``decrypt(h, encrypt(h, x, a), a) == x``; with another
    handle, ``a`` or one flipped bit ``decrypt`` raises ``Unavailable`` ``ciphertext_refused``. A handle without a key is
    ``ConfigError`` ``held_key_absent``; a kind, algorithm or ``aad`` that the device does not know is ``ConfigError``
    ``not_by_this_device``, and never silently left out.
    """

    @property
    def kinds(self) -> frozenset[KeyKind]:
        """What ``generate`` takes."""
        ...

    def generate(self, kind: KeyKind, label: str) -> str:
        """A new key, whatever else has that ``label`` (1 to 100 of ``A-Za-z0-9_.-``); its handle."""
        ...

    def import_key(self, kind: KeyKind, label: str, material: bytes) -> str:
        """Bring a key in: 32 raw bytes of AES, or PKCS#8 DER. Its handle; the device may not allow it."""
        ...

    def public(self, handle: str) -> bytes:
        """The public half: DER of SubjectPublicKeyInfo; ``ConfigError`` ``not_by_this_device`` of a symmetric key."""
        ...

    def encrypt(self, handle: str, plaintext: bytes, aad: bytes = b"") -> bytes:
        """AEAD by a symmetric key (at most ``MAX_PLAINTEXT`` bytes), RSA-OAEP with SHA-256 by an RSA key."""
        ...

    def decrypt(self, handle: str, ciphertext: bytes, aad: bytes = b"") -> bytes:
        """What ``encrypt`` was given, under the same ``aad``."""
        ...

    def sign(self, handle: str, algorithm: Signing, message: bytes) -> bytes:
        """A signature as JOSE has it (ECDSA: r and s, big-endian, full length; RFC 7518 3.4)."""
        ...

    def labelled(self, label: str) -> Sequence[str]:
        """What ``destroy`` takes of every key that ``generate`` or ``import_key`` made with this label, half made ones too.

        ``Unavailable`` ``backend_search_unfinished``: it looked at some of its keys, and goes on when asked again.
        """
        ...

    def destroy(self, handle: str) -> None:
        """Destroy the key (a cloud may keep it back for days, unusable); none there is no error."""
        ...

    def check(self) -> str:
        """As a ``SecretHolder``'s."""
        ...

    def close(self) -> None:
        """As a ``SecretHolder``'s."""
        ...


def label(text: str) -> str:
    """``text`` itself if it can be a key's label; else ``ConfigError``."""
    if not _LABEL.match(text):
        raise ConfigError(
            "a key's label has 1 to 100 letters, digits, '_', '-' and '.', and begins with a letter or digit",
            code="key_label_invalid",
            field="label",
            got=text[:80],
        )
    return text
