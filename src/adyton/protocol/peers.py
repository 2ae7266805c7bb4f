"""How one instance of a broker gets the root key from another: each proves to the other what it is.

::

    asker                                               giver
    POST /peer/v0/hello  {environment, tee}       ->
                                                  <-    {nonce, environment}            used once, for 60 seconds
    evidence over (join <environment> <nonce>, key, own nonce)
    POST /peer/v0/join   {nonce, own nonce, key, evidence}  ->
                                                        verify, compare with its own identity
                                                        evidence over (give <environment> <own nonce>, key, transcript)
                                                  <-    {evidence, root key as JWE to key}
    verify, compare with its own identity, decrypt

Both bind as CoCo's protocol does (``rats.binding``: nonce, key, a text); what stands in the place of the nonce begins
with what the evidence is for, so that of an asker is none of a giver. Nor is evidence of a handshake: its nonce is what
a hostile broker says it is, but its text is the attester's own, empty or devices, and here it never is. The giver's covers the digest of everything said, the encrypted root key included: nobody in between can put in another one.

**Same identity**: measurement and init data (HOST_DATA) are one's own, or are listed by the operator; no debug; the
requirements that no policy can waive (VMPL 0, report version, nothing revoked); a TCB that is nowhere below one's own; the
same kind of root. Every mismatch is told.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

import msgspec

from adyton.errors import MalformedRequest
from adyton.rats import binding
from adyton.rats.types import JsonValue, ReportData, VerifiedEvidence
from adyton.wire import b64, strict_json

HELLO, JOIN = "/peer/v0/hello", "/peer/v0/join"
MAX_BODY = 256 * 1024
NONCE_SECONDS = 60.0
_ROLES = ("join", "give")


class Hello(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first message: for which environment, with evidence of which TEE."""

    version: Literal["adyton-peer/1"]
    environment: str
    tee: str


class Welcome(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Its answer: 32 bytes, used once."""

    nonce: bytes
    environment: str


class Join(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the asker proves. ``nonce``: the giver's; ``own``: the one that the giver shall answer to."""

    nonce: bytes
    own: bytes
    environment: str
    tee: str
    key: dict[str, str]
    evidence: msgspec.Raw


class Given(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the giver proves, and the root key, encrypted to the asker's key."""

    tee: str
    evidence: msgspec.Raw
    root_key: msgspec.Raw


_HELLO = msgspec.json.Decoder(Hello)
_WELCOME = msgspec.json.Decoder(Welcome)
_JOIN = msgspec.json.Decoder(Join)
_GIVEN = msgspec.json.Decoder(Given)
write = msgspec.json.Encoder().encode


def parse_hello(body: bytes) -> Hello:
    """``MalformedRequest`` ``body_malformed``, as the three that follow."""
    return _parsed(_HELLO, body)


def parse_welcome(body: bytes) -> Welcome:
    """The giver's nonce."""
    found = _parsed(_WELCOME, body)
    _nonce(found.nonce)
    return found


def parse_join(body: bytes) -> Join:
    """The asker's proof, believed by nobody yet."""
    found = _parsed(_JOIN, body)
    _nonce(found.nonce)
    _nonce(found.own)
    return found


def parse_given(body: bytes) -> Given:
    """The giver's."""
    return _parsed(_GIVEN, body)


_T = TypeVar("_T")


def _parsed(decoder: msgspec.json.Decoder[_T], body: bytes) -> _T:
    try:
        strict_json.parse(body, max_size=MAX_BODY)
        return decoder.decode(body)
    except strict_json.UNREADABLE as error:
        raise MalformedRequest(
            f"the message cannot be read: {str(error)[:200]}", code="body_malformed", spec="docs/broker/root-key.md"
        ) from error


def _nonce(value: bytes) -> None:
    if len(value) != 32:
        raise MalformedRequest("a nonce has 32 bytes", code="body_malformed", field="nonce", got=len(value))


def bound(role: str, environment: str, nonce: bytes, key: Mapping[str, str], text: str) -> bytes:
    """Canonical bytes that evidence of ``role`` binds; ``text``: of ``join`` ``own_text``, of ``give`` the transcript."""
    if role not in _ROLES or len(nonce) != 32 or not text:
        raise ValueError("join or give, 32 bytes, and a text")
    return binding.primary_object(f"adyton peer 1 {role} {environment} {b64.encode(nonce)}", key, text)


def own_text(own: bytes) -> str:
    """The asker's own nonce, as its evidence binds it."""
    return b64.encode(own)


def report_data(canonical: bytes) -> ReportData:
    """What an attester puts under its signature."""
    return binding.report_data(canonical)


def transcript(join: bytes, root_key: bytes) -> str:
    """The digest of everything said: the asker's message as it was sent, and the encrypted root key."""
    said = b"".join(len(part).to_bytes(8) + part for part in (join, root_key))
    return hashlib.sha256(b"adyton peer 1\0" + said).hexdigest()


@dataclass(frozen=True, slots=True)
class Identity:
    """What an instance is: measurement and init data, both hex."""

    measurement: str
    init_data: str

    @classmethod
    def of(cls, verified: VerifiedEvidence) -> Identity:
        """That of verified evidence."""
        measurement = verified.claims.get("measurement")
        return cls(measurement if isinstance(measurement, str) else "", verified.init_data.hex())

    @classmethod
    def parse(cls, text: str) -> Identity:
        """``<measurement>/sha256:<init data>``, both hex; ``ValueError``."""
        measurement, slash, digest = text.strip().lower().partition("/")
        document = digest.removeprefix("sha256:")
        if not slash or len(measurement) < 64 or len(document) < 64:
            raise ValueError("a measurement and the digest of a document")
        return cls(bytes.fromhex(measurement).hex(), bytes.fromhex(document).hex())

    def __str__(self) -> str:
        return f"{self.measurement}/sha256:{self.init_data}"


def tcb_levels(tcb: Mapping[str, JsonValue]) -> dict[str, int]:
    """What of a TCB can be compared: what the platform reports, and what it is committed to; else every number there is."""
    found: dict[str, int] = {}
    for part in ("reported", "committed"):
        levels = tcb.get(part)
        if isinstance(levels, dict):
            found |= {f"{part}.{name}": value for name, value in levels.items() if type(value) is int}
    return found or {name: value for name, value in tcb.items() if type(value) is int}
