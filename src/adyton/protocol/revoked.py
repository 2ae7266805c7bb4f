"""What was revoked: platforms, chips, workloads, sessions, tokens and signing keys that get nothing any more.

A broker that was told so refuses at once. For those who verify its tokens without asking it, it publishes a signed list
(``/.well-known/revocations.jwt``, an ES256 token like the others). The list names digests, ``SHA-256(kind ‖ ":" ‖ value)``
in hex: who holds a token can look up what is in it, and nobody else learns which machines an owner distrusts, or why.

========  ===========================================================================================================
kind      value
========  ===========================================================================================================
platform  what the TEE calls the machine: ``platform_id`` or ``platform_instance_id`` of the claims
chip      the chip's own name: ``chip_id`` (AMD's HWID), ``ppid``, a device's serial number, or ``platform_id``
workload  a measurement (hex), ``sha256:<hex>`` of a workload document (HOST_DATA), or ``<measurement>/sha256:<hex>``
session   the handle of a TEE's key, 16 hex digits, as in audit rows (``request_id``)
token     a token's ``jti``, or SHA-256 of its payload in hex, as in audit rows (``claims``)
key       the ``kid`` of one of the broker's signing keys
========  ===========================================================================================================
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

from adyton.errors import MalformedRequest, SessionInvalid
from adyton.protocol import ear
from adyton.protocol.ear import TokenClaims
from adyton.rats.types import JsonValue

KINDS = ("platform", "chip", "workload", "session", "token", "key")
PATH = "/.well-known/revocations.jwt"
PURPOSE = "adyton revocations 1"
MAX_REASON = 300
LIST_SECONDS = 300
_PLATFORM_CLAIMS = ("platform_id", "platform_instance_id")
_CHIP_CLAIMS = ("chip_id", "ppid", "hwid", "serial_number", "platform_id", "platform_provider_id")
_HEX = r"(?:[0-9a-f]{64}|[0-9a-f]{96}|[0-9a-f]{128})"
_FORMS: Mapping[str, tuple[re.Pattern[str], str]] = {
    "platform": (re.compile(r"[!-~]{4,256}\Z"), "the platform_id of a claim, 4 to 256 printable characters"),
    "chip": (re.compile(r"[!-~]{4,256}\Z"), "a chip's id, 4 to 256 printable characters"),
    "workload": (
        re.compile(rf"(?:{_HEX}|(?:{_HEX}/)?sha256:[0-9a-f]{{64}})\Z"),
        "hex of a measurement, sha256:<hex> of a document, or both with a slash between",
    ),
    "session": (re.compile(r"[0-9a-f]{16}\Z"), "16 hex digits, the request_id of audit rows"),
    "token": (re.compile(r"[!-~]{8,128}\Z"), "a token's jti, or 64 hex digits: the claims of audit rows"),
    "key": (re.compile(r"[A-Za-z0-9_-]{43}\Z"), "the kid of a key in the JWK set"),
}
_EXACT = frozenset({"token", "key"})  # base64: case matters


class Entry(msgspec.Struct, frozen=True):
    """Something revoked. ``since`` RFC 3339; ``everywhere``: by the operator, for all tenants."""

    kind: str
    value: str
    reason: str
    since: str
    by: str
    everywhere: bool = False


class RevokeBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Revoke ``values`` of one kind, all or none, for a ``reason`` that the record keeps."""

    kind: str
    values: list[str]
    reason: str


class LiftBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Take a revocation back."""

    kind: str
    value: str
    reason: str


class RevocationList(msgspec.Struct, frozen=True):
    """The payload of the published list: digests by kind, sorted. Not to be used after ``exp`` (Unix seconds)."""

    iss: str
    sub: str
    iat: int
    exp: int
    tenant: str
    generation: int
    revoked: dict[str, list[str]]


def written(kind: str, value: str) -> str:
    """``value`` as it is compared; ``MalformedRequest`` for what names nothing of this kind, or too much."""
    form = _FORMS.get(kind)
    if form is None:
        raise MalformedRequest(
            "no kind of thing to revoke", code="kind_invalid", field="kind", expected=list(KINDS), got=kind[:40]
        )
    text = value.strip() if kind in _EXACT else value.strip().lower()
    if not form[0].match(text) or not text.strip("0"):  # zeros: a masked id, which every masked machine shows
        raise MalformedRequest(
            f"this names no {kind}", code="revocation_value_invalid", field="value", expected=form[1], got=value[:80]
        )
    return text


def name(kind: str, value: str) -> str:
    """Under which digest the published list has it."""
    return hashlib.sha256(f"{kind}:{value}".encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Revoked:
    """What is revoked for one tenant: pairs of kind and value, its own and the broker's. False if there is nothing."""

    entries: frozenset[tuple[str, str]] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.entries)

    def first(self, named: Iterable[tuple[str, str]]) -> tuple[str, str] | None:
        """The first of ``named`` that is revoked."""
        return next((one for one in named if one in self.entries), None)


NOTHING = Revoked()


def names_of_evidence(claims: Mapping[str, JsonValue], measurement: str, host_data: str) -> list[tuple[str, str]]:
    """All that a piece of evidence goes by, by kind. ``claims`` under Adyton's or CoCo's names, the others in hex."""
    found = [
        (kind, value.lower())
        for kind, names in (("platform", _PLATFORM_CLAIMS), ("chip", _CHIP_CLAIMS))
        for claim in names
        if isinstance(value := claims.get(claim), str) and value
    ]
    if measurement:
        found.append(("workload", measurement))
    if host_data:
        found.append(("workload", f"sha256:{host_data}"))
        if measurement:
            found.append(("workload", f"{measurement}/sha256:{host_data}"))
    return found


def names_of_token(claims: TokenClaims, payload: bytes, handle: str, kid: str) -> list[tuple[str, str]]:
    """All that a verified token goes by: its evidence, key, ids and signer. ``payload`` is what was signed."""
    found = [("key", kid), ("session", handle), ("token", hashlib.sha256(payload).hexdigest())]
    jti = claims.raw.get("jti")
    if isinstance(jti, str):
        found.append(("token", jti))
    for one in claims.submodules:
        told = one.evidence.get(_coco_name(one))
        found += names_of_evidence(told if isinstance(told, dict) else {}, one.measurement, one.host_data.hex())
    return found


def _coco_name(one: ear.Submodule) -> str:
    return one.tee if one.tee in one.evidence else next((key for key in one.evidence if key.startswith(one.tee)), "")


def read(claims: Mapping[str, object], tenant: str) -> RevocationList:
    """The list out of a token's verified claims; ``SessionInvalid`` if it is not one of ``tenant``."""
    try:
        found = msgspec.convert(dict(claims), RevocationList)
    except msgspec.ValidationError as error:
        raise SessionInvalid("this is no list of revocations", code="revocations_malformed") from error
    if found.sub != PURPOSE or found.tenant != tenant:
        raise SessionInvalid("this list of revocations is for something else", code="revocations_foreign")
    return found


def stops(published: RevocationList, named: Iterable[tuple[str, str]]) -> tuple[str, str] | None:
    """The first of ``named`` that the published list revokes, by kind and value."""
    known = {kind: frozenset(digests) for kind, digests in published.revoked.items()}
    return next((one for one in named if name(*one) in known.get(one[0], ())), None)
