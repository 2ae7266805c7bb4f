"""How a broker proves to an owner what it is, before the owner gives it a secret.

::

    owner                                                broker
    POST /.well-known/broker-attestation {version, nonce}  ->
                                                           evidence over (nonces, TLS key, token keys, log key)
                                                  <-       {facts, nonces, JWK set, evidence}

The evidence binds as CoCo's protocol does (``rats.binding``: nonce, key, a text). What stands in the place of the nonce
begins with what the evidence is for, so evidence of a handshake or of a peer is none here; it is the digest of all nonces
that one piece of evidence answers, since a TEE makes few a second. What stands in the place of the key are the facts:

* ``tls``: ``sha256:<hex>`` of the SPKI of the certificate that the broker serves; empty where it serves plain HTTP. Who
  asks compares it with the connection: a broker in between has another key.
* ``jwks``: ``sha256:<hex>`` of the JWK set that its tokens are verified with, as it is sent.
* ``log``: the public key of the tenant ``default``'s audit log, as ``adyton audit key`` shows it.
* ``environment``.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from typing import Final, Literal, TypeVar

import msgspec

from adyton.config import Environment
from adyton.errors import FreshnessFailed, MalformedRequest
from adyton.protocol.checkpoint import LogKey
from adyton.rats import binding
from adyton.wire import strict_json

PATH = "/.well-known/broker-attestation"
VERSION: Final = "adyton-broker-attestation/1"
MAX_CHALLENGE = 1024
MAX_PROOF = 512 * 1024
MAX_NONCES = 64
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
_ENVIRONMENTS = frozenset(one.value for one in Environment)
_SPEC = "docs/broker/attest.md"


class Challenge(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an owner asks. ``nonce``: 32 bytes, used once."""

    version: Literal["adyton-broker-attestation/1"]
    nonce: bytes


class Facts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the broker says about itself, under its evidence."""

    tls: str
    jwks: str
    log: str
    environment: str

    @property
    def log_key(self) -> LogKey:
        """The audit log's key."""
        return LogKey.parse(self.log)


class Proof(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The answer: facts, the nonces that the evidence answers, the JWK set's very bytes, and the evidence."""

    version: Literal["adyton-broker-attestation/1"]
    facts: Facts
    nonces: list[bytes]
    jwks: bytes
    tee: str
    evidence: msgspec.Raw

    @property
    def canonical(self) -> bytes:
        """What the evidence must bind."""
        return bound(self.facts, self.nonces)


_CHALLENGE = msgspec.json.Decoder(Challenge)
_PROOF = msgspec.json.Decoder(Proof)
write = msgspec.json.Encoder().encode
_T = TypeVar("_T")


def parse_challenge(body: bytes) -> Challenge:
    """``MalformedRequest`` ``body_malformed``."""
    found = _parsed(_CHALLENGE, body, MAX_CHALLENGE)
    _sized([found.nonce])
    return found


def parse_proof(body: bytes) -> Proof:
    """An answer, believed by nobody yet; ``MalformedRequest`` ``body_malformed``, also where it contradicts itself."""
    found = _parsed(_PROOF, body, MAX_PROOF)
    if not 0 < len(found.nonces) <= MAX_NONCES:
        raise _malformed("nonces", f"1 to {MAX_NONCES}", len(found.nonces))
    _sized(found.nonces)
    facts = found.facts
    if facts.environment not in _ENVIRONMENTS:  # it is shown to people, before anything is known of who wrote it
        raise _malformed("facts.environment", sorted(_ENVIRONMENTS), facts.environment[:40])
    if facts.tls and not _DIGEST.match(facts.tls):
        raise _malformed("facts.tls", "sha256:<64 hex digits>", facts.tls[:80])
    if not hmac.compare_digest(facts.jwks.encode(), digest(found.jwks).encode()):
        raise _malformed("facts.jwks", digest(found.jwks), facts.jwks[:80])
    return found


def digest(content: bytes) -> str:
    """``sha256:<hex>``."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


def bound(facts: Facts, nonces: Sequence[bytes]) -> bytes:
    """Canonical bytes that the evidence binds. ``ValueError`` for nonces that are none."""
    if not 0 < len(nonces) <= MAX_NONCES or any(len(nonce) != 32 for nonce in nonces):
        raise ValueError("1 to 64 nonces of 32 bytes")
    said = {"environment": facts.environment, "jwks": facts.jwks, "log": facts.log, "tls": facts.tls}
    together = hashlib.sha256(b"".join(nonces)).hexdigest()
    return binding.primary_object(f"adyton broker 1 {len(nonces)} {together}", said)


def check_nonce(proof: Proof, nonce: bytes) -> None:
    """``FreshnessFailed`` ``broker_nonce`` unless one of the nonces that were answered is ``nonce``."""
    found = False
    for one in proof.nonces:
        found |= hmac.compare_digest(one, nonce)
    if not found:
        raise FreshnessFailed(
            "the broker answered another challenge: an answer that was recorded, or somebody else's",
            code="broker_nonce",
            tee=proof.tee[:40],
            field="nonces",
            spec=_SPEC,
        )


def _parsed(decoder: msgspec.json.Decoder[_T], body: bytes, limit: int) -> _T:
    try:
        strict_json.parse(body, max_size=limit)
        return decoder.decode(body)
    except strict_json.UNREADABLE as error:
        raise MalformedRequest(
            f"the message cannot be read: {str(error)[:200]}", code="body_malformed", spec=_SPEC
        ) from error


def _sized(nonces: Sequence[bytes]) -> None:
    for nonce in nonces:
        if len(nonce) != 32:
            raise _malformed("nonce", "32 bytes", len(nonce))


def _malformed(field: str, expected: object, got: object) -> MalformedRequest:
    return MalformedRequest(
        "the message contradicts itself or its form", code="body_malformed", field=field, expected=expected, got=got,
        spec=_SPEC,
    )  # fmt: skip
