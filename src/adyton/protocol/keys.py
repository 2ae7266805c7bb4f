"""What is said about keys over the wire: by their owner under ``/api/v0/keys``, by workloads under ``/kbs/v0/key``.

Bytes are base64 in JSON. A key's value goes in or is made inside; under ``/api/v0`` it never comes out.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from adyton.protocol.key_record import CertificateRequest
from adyton.protocol.release import Binding

Operation = Literal["encrypt", "decrypt", "rewrap", "sign", "verify", "mac", "wrap", "unwrap", "datakey"]
OPERATIONS: tuple[Operation, ...] = (
    "encrypt",
    "decrypt",
    "rewrap",
    "sign",
    "verify",
    "mac",
    "wrap",
    "unwrap",
    "datakey",
)
PLUGIN = "key"
"""First part of the path under ``/kbs/v0``, and ``data.plugin`` for resource policies."""


class ValueBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A value from outside. ``format``: ``pem``, ``der``, ``jwk``, ``raw`` of keys; ``json``, ``toml`` of configuration."""

    format: Literal["pem", "der", "jwk", "raw", "json", "toml"]
    data: bytes


class NewKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Make a key (no ``value``) or bring one in. ``size`` in bytes, of kind ``random`` only.

    ``operations`` ``None``: all that the kind knows. ``never_export`` is for ever.
    """

    kind: str
    binding: Binding = Binding()
    size: int = 0
    value: ValueBody | None = None
    never_export: bool = False
    operations: list[str] | None = None
    owner_operations: list[str] = []
    certificate: CertificateRequest | None = None
    secret: bool = True
    backend: str = ""


class RotateBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A new version: made anew without ``value``. ``certificate`` as in ``NewKey``."""

    value: ValueBody | None = None
    certificate: CertificateRequest | None = None


class KeyVersionView(msgspec.Struct, frozen=True):
    """One version. Times RFC 3339. ``fingerprint`` is SHA-256 of the public half in hex; ``expires`` a certificate's.

    ``uses``: how many encryptions the broker's workers have taken for it, at most 2^32; of AES keys.
    """

    number: int
    state: str
    created: str
    changed: str
    imported: bool = False
    fingerprint: str = ""
    expires: str | None = None
    uses: int | None = None


class KeyView(msgspec.Struct, frozen=True):
    """A key without its value.

    ``erasing``: where what was destroyed still lies: ``the store``, or the back end's name. Destroying it again, or the
    broker by itself, goes on with that.
    """

    uri: str
    kind: str
    updated: str
    never_export: bool
    operations: list[str]
    owner_operations: list[str]
    binding: Binding
    versions: list[KeyVersionView]
    size: int = 0
    secret: bool = True
    backend: str = ""
    erasing: list[str] = []


class PublicView(msgspec.Struct, frozen=True, omit_defaults=True):
    """The public half of a version; ``chain`` is PEM, the key's own certificate first, the authority's last."""

    uri: str
    kind: str
    version: int
    pem: str
    jwk: dict[str, str]
    fingerprint: str
    chain: str = ""


class ConfigurationView(msgspec.Struct, frozen=True):
    """A configuration value as its owner may read it back: only if it is not secret."""

    uri: str
    version: int
    value: object


class TransitBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What an operation is given; which members it takes is in ``TAKES``.

    ``version``: which version (of ``verify``, and of ``decrypt`` of a JWE); else the newest, or what the ciphertext says.
    ``plaintext`` of ``wrap`` is the key to be wrapped. ``bare`` of ``datakey``: without the plaintext of the new key.
    """

    plaintext: bytes | None = None
    ciphertext: str | None = None
    message: bytes | None = None
    digest: bytes | None = None
    signature: bytes | None = None
    aad: bytes = b""
    algorithm: str = ""
    version: int | None = None
    bare: bool = False


TAKES: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "encrypt": (frozenset({"plaintext"}), frozenset({"aad", "algorithm"})),
    "decrypt": (frozenset({"ciphertext"}), frozenset({"aad", "version"})),
    "rewrap": (frozenset({"ciphertext"}), frozenset({"aad", "version"})),
    "sign": (frozenset(), frozenset({"message", "digest", "algorithm"})),
    "verify": (frozenset({"signature"}), frozenset({"message", "digest", "algorithm", "version"})),
    "mac": (frozenset({"message"}), frozenset({"algorithm"})),
    "wrap": (frozenset({"plaintext"}), frozenset({"aad"})),
    "unwrap": (frozenset({"ciphertext"}), frozenset({"aad"})),
    "datakey": (frozenset(), frozenset({"aad", "bare"})),
}
"""By operation: the members that it needs, and those that it may have besides."""


class TransitAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an operation gave. ``version`` is the one that did it; ``valid`` is ``verify``'s answer."""

    version: int
    ciphertext: str | None = None
    plaintext: bytes | None = None
    signature: bytes | None = None
    algorithm: str = ""
    valid: bool | None = None
