"""What the owner's tools and the broker say to each other under ``/api/v0``: JSON bodies, one struct each.

Beside it the broker serves CoCo's own administrative endpoints (kbs-protocol 1.2), which can neither list nor bind.
Values go to the broker and never come back.
"""

from __future__ import annotations

import msgspec

from adyton.protocol.audit_row import AuditEntry, Finding
from adyton.protocol.release import Binding

BASE = "/api/v0"


class ResourceBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Register or replace a resource; ``value`` is base64 on the wire.

    ``backend`` names the back end that shall hold the value; with ``foreign_plain_value`` somebody else has written it
    there already, in plain, and ``value`` is empty.
    """

    value: bytes
    binding: Binding
    backend: str = ""
    foreign_plain_value: bool = False


class ResourceView(msgspec.Struct, frozen=True):
    """A resource without its value. ``size`` in bytes, ``updated`` RFC 3339; ``key`` is the kind of key that it is, if it is one.

    ``backend`` holds the value if it is not the store; ``foreign_plain_value``: as somebody else wrote it there.
    """

    uri: str
    size: int
    version: int
    updated: str
    binding: Binding
    key: str = ""
    backend: str = ""
    foreign_plain_value: bool = False


class ReferenceBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Publish a reference value: any JSON but ``null``; ``expires`` RFC 3339 or ``None``."""

    value: object
    expires: str | None = None


class ReferenceView(msgspec.Struct, frozen=True):
    """A reference value with its provenance; what does not count (``counts``) is listed all the same, and never used.

    ``provider`` is empty, and with it what follows, for a value that the owner set by hand. ``proof`` and ``signers``
    are SHA-256 of what was signed and of the keys' SPKI, in hex; ``reason`` is why it was revoked.
    """

    name: str
    value: object
    version: int
    updated: str
    expires: str | None = None
    expired: bool = False
    not_before: str | None = None
    state: str = "stable"
    counts: bool = True
    provider: str = ""
    kind: str = ""
    proof: str = ""
    signers: list[str] = []
    series: str = ""
    issue: int = 0
    issued: str | None = None
    reason: str = ""


class About(msgspec.Struct, frozen=True):
    """What this broker is. ``development_roots`` are fingerprints in hex; ``generation`` is the tenant's.

    ``cryptography``: the profile, and whether the modules below it run in their FIPS mode.
    """

    version: str
    environment: str
    tenant: str
    generation: int
    development_roots: list[str]
    cryptography: str = ""


class LogHead(msgspec.Struct, frozen=True):
    """The end of an audit log: how many rows, and the root over them in hex."""

    sequence: int
    root: str


class LogReport(msgspec.Struct, frozen=True):
    """What the broker found when it recomputed its log: ``checkpoints`` were met; ``broken`` is the first that differs."""

    sequence: int
    root: str
    checkpoints: int
    broken: dict[str, object] | None = None


class LogKeyView(msgspec.Struct, frozen=True):
    """The key that signs a log's checkpoints (``protocol.checkpoint.LogKey``)."""

    origin: str
    key: str


class LogEdge(msgspec.Struct, frozen=True):
    """The complete subtrees over the first ``size`` rows, the largest first, base64: from there one can go on."""

    size: int
    peaks: tuple[str, ...]


class KeptCheckpoint(msgspec.Struct, frozen=True):
    """A checkpoint as it was signed at ``time`` (RFC 3339)."""

    size: int
    time: str
    note: str


class Decision(AuditEntry, frozen=True):
    """A row with the name under which strangers know the decision."""

    id: str = ""


class Explained(msgspec.Struct, frozen=True):
    """A finding with who says that it must be otherwise, who can cure it and how, and how it stands today.

    ``holds_now`` tells whether the same claim would be accepted by what is set now; ``None`` where that is not known.
    """

    finding: Finding
    provider: str
    actor: str
    cure: str
    holds_now: bool | None = None


class Explanation(msgspec.Struct, frozen=True):
    """A decision and everything that bore on it. ``others`` are rows of the same attester's session, by number."""

    decision: Decision
    findings: tuple[Explained, ...]
    policy_changed: bool | None = None
    references_changed: bool | None = None
    others: tuple[Decision, ...] = ()
