"""What a store says about policies: what is in force, versions, activations."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, TypeAlias

from adyton.errors import NotFound

PolicyKind: TypeAlias = Literal["attestation", "resource", "requirements"]


@dataclass(frozen=True, slots=True)
class StoredPolicy:
    """A policy in force. ``digest`` is SHA-256 of its text in hex; ``version`` counts from 1 and names one text for ever.

    ``updated``: since when it is in force.
    """

    kind: PolicyKind
    id: str
    text: str = field(repr=False)
    digest: str
    version: int
    updated: datetime


@dataclass(frozen=True, slots=True)
class PolicyVersion:
    """One text that was set, by whom, when, and why; ``pinned`` versions are kept because something names them."""

    kind: PolicyKind
    id: str
    text: str = field(repr=False)
    digest: str
    version: int
    created: datetime
    actor: str = ""
    note: str = ""
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class Activation:
    """One change of what is in force. ``version`` 0: deleted. ``action``: ``activate``, ``rollback`` or ``delete``."""

    number: int
    version: int
    time: datetime
    actor: str
    action: str


def digest(text: str) -> str:
    """A policy's name for machines: SHA-256 of its text in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def nothing_before(kind: str, policy_id: str) -> NotFound:
    """Nothing that a rollback could put into force."""
    return NotFound(
        f"no other version of {kind} policy {policy_id!r} was in force before",
        code="policynothing_before",
        field="policy_id",
        hint="adyton policy versions lists what there is; adyton policy delete goes back to the built-in one",
    )


def no_version(kind: str, policy_id: str, version: int) -> NotFound:
    """A version that was never set, or is forgotten."""
    return NotFound(
        f"there is no version {version} of {kind} policy {policy_id!r}",
        code="policy_version_absent",
        field="version",
        got=version,
        hint="adyton policy versions lists what there is; the oldest are forgotten",
    )
