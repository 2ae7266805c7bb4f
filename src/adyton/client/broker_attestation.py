"""Asking a broker what it is, and believing nothing of the answer that its evidence does not prove.

The TLS key of the connection must be the one in the evidence: whoever stands in between has another. The connection's
certificate itself proves nothing here, so none is asked of it.
"""

from __future__ import annotations

import hmac
import ssl
from dataclasses import dataclass, replace
from datetime import datetime
from urllib.parse import urlsplit

from adyton import tee
from adyton.appraisal import requirements
from adyton.client.address import BrokerAddress
from adyton.client.transport import Transport, spki_pin
from adyton.crypto.x509 import EndorsementSet
from adyton.errors import BindingMismatch, NotFound, ReleaseRefused, TooMany, Unavailable
from adyton.protocol import broker_attestation as wire
from adyton.protocol.broker_attestation import Challenge, Proof
from adyton.protocol.peers import Identity
from adyton.rats import binding
from adyton.rats.types import Check, Revocation, TrustAnchors, VerifiedEvidence

SPEC = "docs/broker/attest.md"
ANSWER, IDENTITY = "the answer", "the broker's identity"
_SECONDS = 45.0
_HARMLESS = frozenset({"init_data", "report_data"})


@dataclass(frozen=True, slots=True)
class Answered:
    """A proof that nobody has looked at, and the pin of the connection that it came over; empty for plain HTTP."""

    proof: Proof
    pin: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a broker may be, in hex: ``workloads`` are digests of documents, ``fields`` what a TEE made of one.

    With neither, nothing but the measured software may have been named to it.
    """

    measurements: frozenset[str]
    workloads: frozenset[str] = frozenset()
    fields: frozenset[str] = frozenset()


def ask(address: BrokerAddress, nonce: bytes) -> Answered:
    """The broker's proof over ``nonce`` (32 bytes).

    ``NotFound`` ``broker_not_attested`` if it has no attester; ``TooMany``; ``Unavailable``; ``MalformedRequest``.
    """
    pin = address.pin
    if pin is None and urlsplit(address.url).scheme == "https":
        pin = _seen(address)
    with Transport(replace(address, pin=pin), timeout=_SECONDS) as transport:
        reply = transport.request("POST", wire.PATH, wire.write(Challenge(wire.VERSION, nonce)))
    if reply.status == 404:
        raise NotFound(
            "this broker has no attester: nothing proves what it is",
            code="broker_not_attested",
            field="url",
            got=address.url,
            hint="have it started with --attester in a TEE; or take its pin from its owner: adyton broker pin URL PIN",
        )
    if reply.status == 429:
        raise TooMany("the broker is asked too often", code="attest_too_many", retry_after=reply.retry_after)
    if reply.status != 200:
        raise Unavailable(
            f"the broker made no evidence: {reply.detail[:200]}", code="broker_attestation_failed", got=reply.status
        )
    return Answered(wire.parse_proof(reply.body), pin or "")


def _seen(address: BrokerAddress) -> str:
    """The pin of whoever answers there, whatever its certificate says: the evidence has to vouch for it."""
    parts = urlsplit(address.url)
    try:
        pem = ssl.get_server_certificate((parts.hostname or "", parts.port or 443), timeout=_SECONDS)
        return spki_pin(ssl.PEM_cert_to_DER_cert(pem))
    except (OSError, ValueError) as error:
        raise Unavailable(
            "the broker cannot be reached over TLS", code="broker_unreachable", field="url", got=address.url
        ) from error


def verify(  # noqa: PLR0917 -- one value each
    answered: Answered,
    nonce: bytes,
    endorsements: EndorsementSet,
    anchors: TrustAnchors,
    now: datetime,
    trail: list[Check],
) -> VerifiedEvidence:
    """What the broker proves: authentic evidence over this nonce and this connection. ``trail`` receives every check.

    ``FreshnessFailed`` ``broker_nonce``; ``BindingMismatch`` ``broker_relayed``; else as ``adyton.tee.verify``.
    """
    proof, facts = answered.proof, answered.proof.facts
    with _noted(trail, ANSWER, "nonce"):
        wire.check_nonce(proof, nonce)
    same = hmac.compare_digest(facts.tls.encode(), answered.pin.encode())
    trail.append(Check("tls_key", same, SPEC, ANSWER, answered.pin or "no TLS", facts.tls or "no TLS"))
    if not same:
        raise BindingMismatch(
            "the broker that proves itself is not the one at the other end of this connection",
            code="broker_relayed",
            tee=proof.tee[:40],
            field="tls",
            expected=answered.pin or "no TLS",
            got=facts.tls or "no TLS",
            spec=SPEC,
            hint="somebody stands in between, or TLS ends in front of the broker: let it end in the broker",
        )
    return tee.verify(
        proof.tee,
        bytes(proof.evidence),
        endorsements=endorsements,
        now=now,
        anchors=anchors,
        revocation=Revocation.REQUIRED,
        report_data=binding.expected(proof.tee, proof.canonical, binding.default_hash(proof.tee)),
        trail=trail,
    )


class _noted:  # noqa: N801 -- used as a function
    """Notes whether what it stands around succeeded."""

    def __init__(self, trail: list[Check], group: str, name: str) -> None:
        self._trail, self._group, self._name = trail, group, name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._trail.append(Check(self._name, kind is None, SPEC, self._group))


def check(verified: VerifiedEvidence, wanted: Wanted, trail: list[Check]) -> None:
    """``ReleaseRefused`` ``broker_identity_refused`` with every mismatch, unless the broker is what it may be."""
    identity = Identity.of(verified)
    reasons = []

    def note(name: str, good: bool, expected: str, got: str) -> None:
        trail.append(Check(name, good, SPEC, IDENTITY, expected, got))
        if not good:
            reasons.append(f"{name}: expected {expected}, evidence has {got}")

    measured = identity.measurement
    known = bool(measured) and _among(measured, wanted.measurements)
    note("measurement", known, _either(wanted.measurements), measured or "none")
    named = bytes.fromhex(identity.init_data).rstrip(b"\0")
    made = {binding.expected_init_digest(verified.tee, bytes.fromhex(one)).hex() for one in wanted.workloads}
    if fields := frozenset(made | wanted.fields):
        note("workload", _among(identity.init_data, fields), _either(fields), identity.init_data)
    else:
        note("workload", not named, "none was named to it", identity.init_data if named else "none")
    debug = verified.claims.get("debug")
    note("no_debug", debug is False, "debug is off", "debug is off" if debug is False else f"debug is {debug}")
    for one in requirements.unmet(verified.tee, verified.claims):
        note(one.code, False, str(one.expected), str(one.got))
    left_out = [name for name in verified.unchecked if name not in _HARMLESS]
    if left_out:
        note("all_checked", False, "nothing is left unchecked", ", ".join(left_out))
    if reasons:
        raise ReleaseRefused(
            "this broker is not what it was expected to be",
            code="broker_identity_refused",
            reasons=tuple(reasons),
            hint="adyton measure guest|workload gives what its source must give; send it nothing until both agree",
        )


def _among(value: str, allowed: frozenset[str]) -> bool:
    found = False
    for one in allowed:
        found |= hmac.compare_digest(one.encode(), value.encode())
    return found


def _either(allowed: frozenset[str]) -> str:
    return " or ".join(sorted(allowed)) or "nothing was named"
