"""What the owner's tools and the broker say to each other under ``/api/v0``: JSON bodies, one struct each.

Beside it the broker serves CoCo's own administrative endpoints (kbs-protocol 1.2), which can neither list nor bind.
Values go to the broker and never come back.
"""

from __future__ import annotations

import msgspec

from adyton.protocol.release import Binding

BASE = "/api/v0"
POLICY_KINDS = ("attestation", "resource", "requirements")
"""``requirements`` are no Rego: id ``snp`` is the JSON document of ``appraisal.requirements``."""


class ResourceBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Register or replace a resource; ``value`` is base64 on the wire."""

    value: bytes
    binding: Binding


class ResourceView(msgspec.Struct, frozen=True):
    """A resource without its value. ``size`` in bytes, ``updated`` RFC 3339."""

    uri: str
    size: int
    version: int
    updated: str
    binding: Binding


class PolicyBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Set a policy: its text, Rego or JSON by its kind."""

    text: str


class PolicyView(msgspec.Struct, frozen=True):
    """A policy; ``text`` is empty in lists. ``digest`` is SHA-256 of the text in hex, ``version`` 0 for a built-in."""

    kind: str
    id: str
    digest: str
    version: int
    updated: str
    text: str = ""


class ReferenceBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Publish a reference value: any JSON but ``null``; ``expires`` RFC 3339 or ``None``."""

    value: object
    expires: str | None = None


class ReferenceView(msgspec.Struct, frozen=True):
    """A reference value; an expired one is listed, with ``expired``, and never used."""

    name: str
    value: object
    version: int
    updated: str
    expires: str | None = None
    expired: bool = False


class About(msgspec.Struct, frozen=True):
    """What this broker is. ``development_roots`` are fingerprints in hex; ``generation`` is the tenant's."""

    version: str
    environment: str
    tenant: str
    generation: int
    development_roots: list[str]
