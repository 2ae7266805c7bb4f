"""One case of a manifest: its entry, and the contents of its files by role."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from adyton.crypto.x509 import EndorsementSet, spki_fingerprint
from adyton.rats.types import JsonValue, Revocation, TrustAnchors


@dataclass(frozen=True, slots=True)
class Case:
    """One case of the manifest. ``files``: contents by role; ``lists``: by role where the manifest lists several."""

    entry: Mapping[str, Any]
    files: Mapping[str, bytes]
    lists: Mapping[str, tuple[bytes, ...]] = field(default_factory=dict)

    @property
    def now(self) -> datetime:
        """The reference time. A case in which nothing depends on a clock has none: any time will do."""
        text = self.entry["reference_time"]
        return datetime.fromisoformat(text) if text is not None else datetime(2026, 1, 1, tzinfo=UTC)

    @property
    def timeless(self) -> bool:
        """Whether nothing in the case depends on a clock."""
        return self.entry["reference_time"] is None

    @property
    def claims(self) -> Mapping[str, Any]:
        """The case's claims; for measurements they are the inputs."""
        claims: Mapping[str, Any] = self.entry.get("claims") or {}
        return claims

    def endorsements(self, *roles: str) -> EndorsementSet:
        """The endorsements in these files."""
        found = [self.files[role] for role in roles if role in self.files]
        found += [blob for role in roles for blob in self.lists.get(role, ())]
        return EndorsementSet.parse(found)

    def anchors(self, role: str = "trusted_root") -> TrustAnchors:
        """Only the roots in this file are trusted: the case brings its own."""
        return TrustAnchors(vendor=False, custom=frozenset(map(spki_fingerprint, self.endorsements(role).certificates)))

    def revocation(self, got: Got, *roles: str) -> Revocation:
        """Without a CRL in the case, revocation is not checked, and the case says so."""
        if any(role in self.files or role in self.lists for role in (roles or ("crl",))):
            return Revocation.REQUIRED
        got.members["unchecked"] = ["revocation"]
        return Revocation.UNCHECKED_AS_ASKED


@dataclass(slots=True)
class Got:
    """What came out: the outcome and members of ``expected``, and the claims."""

    members: dict[str, JsonValue]
    claims: dict[str, JsonValue]
