"""A row of the record of decisions: its members, its bytes, and its hash in the tree of its tenant's log.

A row's bytes are one line of JSON, and they are what is hashed: ``leaf`` is RFC 9162's leaf hash of them. Version 2 (what
is written now) is canonical JSON (RFC 8785) and holds in ``previous`` the leaf hash of the row before; version 1, which
has no ``version``, has members in another order, and ``previous`` is the plain SHA-256 of the bytes of the row before.
The tree proves; ``previous`` tells where a row was changed, to whoever has nothing but the rows.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Literal

import msgspec

from adyton.crypto.merkle import leaf_hash
from adyton.errors import LogBroken
from adyton.rats.types import JsonValue
from adyton.wire import strict_json

VERSION = 2
START = "0" * 64
"""``previous`` of the first row."""
MAX_ROW = 1024 * 1024
MAX_ITEMS = 16
MAX_TEXT = 400
_SAFE = 2**53 - 1


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that was not as it must be, so that its owner can be told what, why and how to cure it.

    ``element`` is AR4SI's, ``claim`` the evidence's; ``reference`` names the reference value that was compared, and is
    empty where a rule of ours or of a policy asks. ``got`` and ``expected`` are bounded (``shown``), never secret.
    """

    code: str
    claim: str = ""
    element: str = ""
    reference: str = ""
    expected: object = None
    got: object = None
    text: str = ""
    hint: str = ""


class PolicyUsed(msgspec.Struct, frozen=True, omit_defaults=True):
    """A policy that had its say: ``version`` 0 is a built-in one, ``digest`` the SHA-256 of its text in hex.

    Kind ``binding`` is a resource's own text, which has no id.
    """

    kind: str
    id: str = ""
    version: int = 0
    digest: str = ""


class DryRunSaid(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a version on trial would have said instead, to a decision that was made without it.

    ``sequence`` is that decision's row; ``said`` and ``would`` are statuses or verdicts, ``code`` why it could say none.
    """

    policy: PolicyUsed
    sequence: int
    said: str
    would: str = ""
    code: str = ""


class AuditRow(msgspec.Struct, frozen=True, omit_defaults=True):
    """One decision. ``action`` is what was asked (``attest``, ``release``, ``resource.set``…), ``reasons`` are ``code: text``.

    ``measurement`` and ``host_data`` are lower-case hex, ``root`` is ``vendor`` or ``custom`` with the fingerprint of its
    key. ``claims`` is the SHA-256 of the claims that were signed, ``vector`` AR4SI's eight values, ``version`` that of
    the resource. ``findings`` are what was wrong, part by part. ``platform`` and ``tcb`` are those of verified evidence.
    ``policies`` are those that decided, ``dry_run`` one that did not. Never a secret, never a token.
    """

    action: str
    decision: Literal["allowed", "refused"]
    resource: str = ""
    tee: str = ""
    measurement: str = ""
    host_data: str = ""
    root: str = ""
    root_fingerprint: str = ""
    status: str = ""
    reasons: tuple[str, ...] = ()
    policy_digest: str = ""
    reference_generation: int | None = None
    request_id: str = ""
    peer: str = ""
    actor: str = ""
    claims: str = ""
    vector: tuple[int, ...] = ()
    version: int | None = None
    findings: tuple[Finding, ...] = ()
    platform: str = ""
    tcb: dict[str, object] = {}
    policies: tuple[PolicyUsed, ...] = ()
    dry_run: DryRunSaid | None = None


class AuditEntry(msgspec.Struct, frozen=True):
    """A row as it stands in the log. ``sequence`` counts from 1 in each tenant; digests are lower-case hex."""

    tenant: str
    sequence: int
    time: datetime
    previous: str
    row: AuditRow
    version: int = 1


encode = msgspec.json.Encoder(order="sorted").encode
"""The bytes of an entry of version 2. Canonical, since what ``shown`` gives and ``AuditRow`` holds has no fractions."""
_DECODER = msgspec.json.Decoder(AuditEntry)


def decode(body: bytes) -> AuditEntry:
    """The entry in these bytes; ``LogBroken`` ``row_malformed``."""
    try:
        if len(body) > MAX_ROW:
            raise ValueError
        return _DECODER.decode(body)
    except strict_json.UNREADABLE as error:
        raise LogBroken("a row cannot be read", code="row_malformed", field="row") from error


leaf = leaf_hash


def link(entry: AuditEntry, body: bytes, hashed: bytes) -> str:
    """What ``entry`` must hold in ``previous`` if the row before has these bytes and this leaf hash."""
    return hashlib.sha256(body).hexdigest() if entry.version == 1 else hashed.hex()


def shown(value: JsonValue) -> JsonValue:
    """``value`` as a row may hold it: bounded, and without what canonical JSON has no one form for."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if -_SAFE <= value <= _SAFE else str(value)
    if isinstance(value, str):
        text = value if len(value) <= MAX_TEXT else value[: MAX_TEXT - 1] + "…"
        return text.encode("utf-8", "replace").decode()
    if isinstance(value, list):
        cut = [shown(str(item) if isinstance(item, list) else item) for item in value[:MAX_ITEMS]]
        return cut if len(value) <= MAX_ITEMS else [*cut, f"… {len(value) - MAX_ITEMS} more"]
    return shown(str(value))
