"""Reference value providers, publications and revocations, as the owner's tools and the broker say them (``/api/v0``).

``PUT|GET|DELETE /providers/<name>``, ``GET /providers``; ``POST /publications``; ``POST /revocations``.
"""

from __future__ import annotations

import msgspec

from adyton.protocol.admin import ReferenceView

KINDS = ("json", "in-toto", "slsa", "corim", "swid")
STATES = ("candidate", "stable", "deprecated")
UNSIGNED = "unsigned-documents-i-accept"
NO_INSPECTIONS = "inspections-not-run-i-accept"
WORDS = (UNSIGNED, NO_INSPECTIONS)


class ProviderSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A provider as the owner writes it.

    ``keys``: PEM public keys, ``threshold`` of which must have signed. ``names``: globs over the reference values' names
    that are the provider's. ``kinds``: of ``KINDS``. ``builders``, ``build_types``, ``materials``: what SLSA provenance
    may name; exact ids, and globs over URIs. ``valid_days``: how long a document without an end of its own counts, and
    the longest that any does. ``accept``: of ``WORDS``, each takes a check away.
    """

    keys: list[str] = []
    names: list[str] = []
    kinds: list[str] = []
    threshold: int = 1
    builders: list[str] = []
    build_types: list[str] = []
    materials: list[str] = []
    valid_days: int | None = None
    accept: list[str] = []


class ProviderView(msgspec.Struct, frozen=True):
    """A provider; ``key_ids`` are SHA-256 of the keys' SPKI in hex. ``revoked``: values that a change took away."""

    name: str
    settings: ProviderSettings
    key_ids: list[str]
    version: int
    updated: str
    revoked: list[str] = []


class PublishBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Publish what a provider's document states; ``document`` is base64 on the wire, ``state`` one of ``STATES``."""

    provider: str
    document: bytes
    state: str = "stable"


class PublicationView(msgspec.Struct, frozen=True):
    """What was published, and what was not looked at; ``proof`` is SHA-256 of what was signed, in hex."""

    provider: str
    kind: str
    proof: str
    values: list[ReferenceView]
    warnings: list[str] = []


class RevocationBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Revoke by names, by proof (hex), or everything of a provider: exactly one of them. ``reason`` is kept and shown."""

    names: list[str] = []
    proof: str = ""
    provider: str = ""
    reason: str = ""
