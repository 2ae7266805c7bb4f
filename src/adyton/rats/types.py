"""RFC 9334's nouns as frozen types: nonces and digests are types, not ``bytes`` that happen to have a length."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Literal, TypeAlias

import msgspec

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"

_DIGEST = re.compile(r"(sha256|sha384|sha512):([0-9a-f]+)\Z")
_SIZES = {"sha256": 32, "sha384": 48, "sha512": 64}


@dataclass(frozen=True, slots=True)
class Digest:
    """A digest with its algorithm, written ``sha256:<lower-case hex>`` (OCI image-spec, descriptor.md, digests)."""

    algorithm: str
    value: bytes

    def __post_init__(self) -> None:
        if len(self.value) != _SIZES.get(self.algorithm):
            raise ValueError("digest of unknown algorithm or wrong length")

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read ``algorithm:hex``; anything else is ``ValueError``."""
        match = _DIGEST.match(text)
        if match is None or len(match[2]) != 2 * _SIZES[match[1]]:
            raise ValueError("not a digest of the form sha256:<64 lower-case hex digits>")
        return cls(match[1], bytes.fromhex(match[2]))

    @classmethod
    def of(cls, data: bytes | memoryview, algorithm: str = "sha256") -> Digest:
        """The digest of ``data``."""
        return cls(algorithm, hashlib.new(algorithm, data).digest())

    @property
    def hex(self) -> str:
        """The value in lower-case hex, without the algorithm."""
        return self.value.hex()

    def matches(self, data: bytes | memoryview) -> bool:
        """Whether ``data`` has this digest, in full length and constant time."""
        return hmac.compare_digest(hashlib.new(self.algorithm, data).digest(), self.value)

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.value.hex()}"


class Nonce(msgspec.Struct, frozen=True):
    """A verifier's challenge: 32 random bytes, used once."""

    value: bytes

    def __post_init__(self) -> None:
        if len(self.value) != 32:
            raise ValueError("a nonce has 32 bytes")


class ReportData(msgspec.Struct, frozen=True):
    """What an attester puts under the TEE's signature, as the TEE's field holds it: at most 1024 bytes, mostly 64.

    How long the field is, is the TEE's word (``tee.FIELD_SIZES``): a verifier refuses another length as misuse.
    """

    value: bytes

    def __post_init__(self) -> None:
        if len(self.value) > 1024:
            raise ValueError("report data has at most 1024 bytes")


class Revocation(Enum):
    """Whether the endorser's CRLs are required. There is no silent third way."""

    REQUIRED = "required"
    UNCHECKED_AS_ASKED = "unchecked"


class RootKind(Enum):
    """Which root the evidence leads to."""

    VENDOR = "vendor"
    CUSTOM = "custom"


@dataclass(frozen=True, slots=True)
class TrustAnchors:
    """Which root keys are trusted, by SHA-256 of their SPKI. ``vendor``: the ones pinned in each TEE's room.

    ``custom`` adds roots that their owner answers for; evidence under one of them is marked ``RootKind.CUSTOM``.
    """

    vendor: bool = True
    custom: frozenset[bytes] = frozenset()

    def __post_init__(self) -> None:
        if not self.vendor and not self.custom:
            raise ValueError("no trust anchors at all: nothing could ever be verified")
        if any(len(fingerprint) != 32 for fingerprint in self.custom):
            raise ValueError("a fingerprint is the SHA-256 of an SPKI, 32 bytes")

    def among(self, pinned: frozenset[bytes]) -> frozenset[bytes]:
        """The root keys that are trusted, where a TEE's room pins ``pinned``."""
        return self.custom | pinned if self.vendor else self.custom

    def kind(self, root: bytes, pinned: frozenset[bytes]) -> RootKind:
        """Which root a trusted one is: a pinned one is the vendor's only if the vendors' are trusted at all."""
        return RootKind.VENDOR if self.vendor and root in pinned else RootKind.CUSTOM


@dataclass(frozen=True, slots=True)
class Check:
    """One verified step: a stable id and the specification section that asks for it.

    ``group`` is the part of the evidence that it belongs to, for whoever prints a tree. ``expected`` and ``got`` are
    short printable values for a reader; a verifier fills them only where it is asked to leave a trail.
    """

    id: str
    ok: bool
    spec: str
    group: str = ""
    expected: JsonValue = None
    got: JsonValue = None


SHARED_CLAIMS = ("measurement", "debug", "tcb_status", "platform_id", "report_data", "init_data")
"""In the claims of every TEE: hex or ``None``; ``debug`` is a boolean or ``None`` where the TEE does not say;
``tcb_status`` is the vendor's word, ``None`` where the vendor publishes none."""


class VerifiedEvidence(msgspec.Struct, frozen=True):
    """Authentic evidence. Only a verifier makes one; that it exists says that every check in ``checks`` passed.

    ``claims`` are flat-named JSON values under Adyton's names (hex is lower-case): the TEE's own, and those that every
    TEE has (``SHARED_CLAIMS``). ``coco_claims`` are the same facts under
    CoCo's names (``kbs-protocol`` 2.4) as Rego policies read them. ``tcb`` is the platform's trusted computing base.
    ``root_fingerprint`` is the SHA-256 of the root key's SPKI in hex. ``expires`` is the earliest end of validity among
    the endorsements used, which ``expires_first`` names. ``unchecked`` lists what was not checked, never silently.
    ``alike``: two pieces in which it is equal, and not ``None``, have the same claims but for report data and what numbers
    the single piece (SNP's ``report_id``); a verifier sets it where that is cheap to say.
    """

    tee: str
    tee_class: Literal["cpu", "gpu", "switch"]
    claims: Mapping[str, JsonValue]
    coco_claims: Mapping[str, JsonValue]
    tcb: Mapping[str, JsonValue]
    report_data: ReportData
    init_data: bytes
    root: RootKind
    root_fingerprint: str
    checks: tuple[Check, ...]
    expires: datetime
    expires_first: str
    unchecked: tuple[str, ...] = ()
    alike: Hashable = None
