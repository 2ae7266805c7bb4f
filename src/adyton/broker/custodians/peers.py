"""Instances that share the root key by mutual attestation (``protocol.peers``): who asks, who gives, and what both record.

The giver answers on a port of its own, in a thread of the first process, over TLS like the rest. It gives to at most
``PER_MINUTE`` a minute; a nonce is used once. Every decision is in the audit log before its answer leaves.
"""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from adyton import tee
from adyton.broker import audit
from adyton.broker.custodians.attesting import OneAtATime, attester_of
from adyton.broker.custodians.peer_rules import PeerRules
from adyton.broker.door import refusals
from adyton.broker.door.answer import Answer
from adyton.broker.door.connection import HttpRequest
from adyton.broker.outside.endorsements import Endorsements
from adyton.broker.running.replicas import Deadline
from adyton.broker.settings import Settings
from adyton.client.address import BrokerAddress
from adyton.client.transport import Transport
from adyton.crypto import jwe, jwk
from adyton.crypto.aead import random_bytes
from adyton.errors import (
    AdytonError,
    BindingMismatch,
    ConfigError,
    FreshnessFailed,
    MalformedRequest,
    NotPermitted,
    ReleaseRefused,
    TooMany,
    Unavailable,
)
from adyton.protocol import peers
from adyton.protocol.audit_row import AuditRow
from adyton.protocol.kbs_errors import Variant
from adyton.protocol.peers import Identity
from adyton.protocol.revoked import names_of_evidence
from adyton.rats.ports import Attester
from adyton.rats.types import Revocation, TrustAnchors, VerifiedEvidence
from adyton.stores.audit import AuditLog
from adyton.stores.sqlite import Store
from adyton.stores.tenants import DEFAULT

PER_MINUTE = 10
MAX_NONCES = 64
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Instance:
    """This instance: how it proves itself, how it verifies others, whom it takes for one of its own."""

    environment: str
    attester: Attester
    endorsements: Endorsements
    anchors: TrustAnchors
    rules: PeerRules

    @classmethod
    def of(cls, settings: Settings, now: datetime) -> Instance:
        """Verify one's own evidence first, as any peer's: what it says is what peers are compared with."""
        attester = OneAtATime(attester_of(settings.attester), settings.directory)
        endorsements = Endorsements(settings.endorsements)
        roots = frozenset(bytes.fromhex(root) for root in settings.development_roots)  # sample evidence never counts
        anchors = TrustAnchors(custom=roots)
        nonce = random_bytes(32)
        canonical = peers.bound("give", settings.environment, nonce, {}, "own")
        evidence = attester.collect(peers.report_data(canonical))
        own = _verified(evidence.tee, msgspec.json.encode(evidence.primary), canonical, endorsements, anchors, now)
        try:
            listed = frozenset(Identity.parse(text) for text in settings.accepted_peers)
        except ValueError as error:
            raise ConfigError(
                "not the identity of a peer",
                code="setting_invalid",
                field="accept-peer",
                expected="MEASUREMENT/sha256:DOCUMENT, both in hex",
            ) from error
        rules = PeerRules(own, listed, allow_debug=settings.allow_debug_peers)
        rules.check(own)  # who would be refused by its own kind says so at start
        return cls(settings.environment, attester, endorsements, anchors, rules)

    def verified(self, name: str, evidence: bytes, canonical: bytes, now: datetime) -> VerifiedEvidence:
        """A peer's evidence, authentic and fresh; errors as ``adyton.tee.verify``."""
        return _verified(name, evidence, canonical, self.endorsements, self.anchors, now)


def _verified(  # noqa: PLR0917 -- one value each
    name: str, evidence: bytes, canonical: bytes, endorsements: Endorsements, anchors: TrustAnchors, now: datetime
) -> VerifiedEvidence:
    from adyton.rats import binding

    endorsements.refresh()
    return tee.verify(
        name,
        evidence,
        endorsements=endorsements.current,
        now=now,
        anchors=anchors,
        revocation=Revocation.REQUIRED,
        report_data=binding.expected(name, canonical, binding.DEFAULT_HASH),
    )


class Giver:
    """Answers peers. An ``Application`` of ``connection.Worker``, on one thread."""

    def __init__(
        self, instance: Instance, store: Store, root_key: bytes, clock: Callable[[], float] = time.time
    ) -> None:
        self._instance = instance
        self._store = store
        self._root_key = root_key
        self._clock = clock
        self._nonces: dict[bytes, float] = {}
        self._asked: list[float] = []

    def __call__(self, request: HttpRequest) -> Answer:
        """The answer; never raises."""
        try:
            if request.method != "POST":
                return refusals.NO_METHOD
            if request.target == peers.HELLO.encode():
                return self._hello(request.body)
            if request.target == peers.JOIN.encode():
                return self._join(request.body, request.peer)
            return refusals.NO_PATH
        except AdytonError as error:
            status = {MalformedRequest: 400, TooMany: 429, Unavailable: 503}.get(type(error), 403)
            shown = error.code  # to a stranger the code and nothing else; the log has the rest
            return refusals.plain(status, Variant.POLICY_DENY, shown, shown, retry_after=60 if status == 429 else 0)
        except Exception:  # noqa: BLE001 -- a stranger gets an answer, and no traceback
            _LOG.exception("a peer's request failed")
            return refusals.plain(500, Variant.PLUGIN_INTERNAL_ERROR, "failed", "failed")

    def _hello(self, body: bytes) -> Answer:
        hello = peers.parse_hello(body)
        self._same_environment(hello.environment)
        now = self._clock()
        self._nonces = {nonce: until for nonce, until in self._nonces.items() if until > now}
        if len(self._nonces) >= MAX_NONCES:
            raise TooMany("too many ask at once", code="peers_too_many", retry_after=60)
        nonce = random_bytes(32)
        self._nonces[nonce] = now + peers.NONCE_SECONDS
        return Answer(200, peers.write(peers.Welcome(nonce, self._instance.environment)))

    def _join(self, body: bytes, peer: str) -> Answer:
        now = self._clock()
        self._asked = [at for at in self._asked if at > now - 60]
        if len(self._asked) >= PER_MINUTE:
            raise TooMany("too many ask for the root key", code="peers_too_many", retry_after=60)
        self._asked.append(now)
        at = datetime.fromtimestamp(now, UTC)
        verified: VerifiedEvidence | None = None
        try:
            join = peers.parse_join(body)
            until = self._nonces.pop(join.nonce, 0.0)
            if until <= now:
                raise FreshnessFailed(
                    "the nonce is not one of ours, too old, or was used before", code="peer_nonce", field="nonce"
                )
            self._same_environment(join.environment)
            key = jwk.parse(dict(join.key))
            own = peers.own_text(join.own)
            canonical = peers.bound("join", join.environment, join.nonce, key.members, own)
            verified = self._instance.verified(join.tee, bytes(join.evidence), canonical, at)
            self._not_revoked(verified)
            self._instance.rules.check(verified)
            wrapped = jwe.encrypt(key, self._root_key)
            answer = self._instance.attester.collect(
                peers.report_data(
                    peers.bound("give", join.environment, join.own, key.members, peers.transcript(body, wrapped))
                )
            )
            deadline = Deadline(self._store)
            self._not_revoked(verified)  # once more: one's own evidence takes its time
        except AdytonError as error:
            note(self._store.audit, "root-key.share", at, verified, error=error, peer=peer)
            raise
        note(self._store.audit, "root-key.share", at, verified, peer=peer)
        deadline.check()
        evidence = msgspec.Raw(msgspec.json.encode(answer.primary))
        return Answer(200, peers.write(peers.Given(answer.tee, evidence, msgspec.Raw(wrapped))))

    def _same_environment(self, named: str) -> None:
        if not hmac.compare_digest(named.encode(), self._instance.environment.encode()):
            raise NotPermitted("the peer runs in another environment", code="peer_environment", field="environment")

    def _not_revoked(self, verified: VerifiedEvidence) -> None:
        identity = Identity.of(verified)
        names = names_of_evidence(verified.claims, identity.measurement, identity.init_data)
        if (found := self._store.revoked.current(DEFAULT).first(names)) is not None:
            raise ReleaseRefused(
                "the peer was revoked", code="peer_revoked", reasons=(f"peer_revoked: {found[0]} {found[1]}",)
            )


def ask(settings: Settings, clock: Callable[[], float] = time.time) -> tuple[bytes, VerifiedEvidence]:
    """The root key from the peer of the settings, and the evidence of who gave it.

    ``ReleaseRefused`` ``peer_refused`` if either side does not take the other for one of its own; ``EvidenceError``,
    ``EndorsementError`` if the giver's evidence is not authentic; ``Unavailable`` if nobody answers.
    """
    instance = Instance.of(settings, datetime.fromtimestamp(clock(), UTC))
    private = ec.generate_private_key(ec.SECP256R1())
    members = dict(jwk.from_public(private.public_key()).members)
    own = random_bytes(32)
    with Transport(BrokerAddress(settings.peer, pin=settings.peer_pin or None)) as transport:
        hello = peers.write(peers.Hello("adyton-peer/1", settings.environment, instance.attester.tee))
        welcome = peers.parse_welcome(_asked(transport, peers.HELLO, hello))
        if welcome.environment != settings.environment:
            raise ReleaseRefused("the peer runs in another environment", code="peer_environment")
        canonical = peers.bound("join", settings.environment, welcome.nonce, members, peers.own_text(own))
        evidence = instance.attester.collect(peers.report_data(canonical))
        join = peers.write(
            peers.Join(
                welcome.nonce,
                own,
                settings.environment,
                evidence.tee,
                members,
                msgspec.Raw(msgspec.json.encode(evidence.primary)),
            )
        )
        given = peers.parse_given(_asked(transport, peers.JOIN, join))
    said = peers.transcript(join, bytes(given.root_key))
    canonical = peers.bound("give", settings.environment, own, members, said)
    giver = instance.verified(given.tee, bytes(given.evidence), canonical, datetime.fromtimestamp(clock(), UTC))
    instance.rules.check(giver)
    root_key = jwe.decrypt(private, bytes(given.root_key))
    if len(root_key) != 32:
        raise BindingMismatch(
            "what the peer gave is no root key", code="root_key_invalid", expected=32, got=len(root_key)
        )
    return root_key, giver


def _asked(transport: Transport, path: str, body: bytes) -> bytes:
    reply = transport.request("POST", path, body)
    if reply.status == 200:
        return reply.body
    if reply.status in {429, 503}:
        raise Unavailable(f"the peer is too busy: {reply.detail[:100]}", code="peer_busy", got=reply.status)
    raise ReleaseRefused(
        f"the peer gave no root key: {reply.detail[:100]}",
        code="peer_refused",
        reasons=(reply.detail[:100],),
        hint="its audit log says what it found: adyton audit list, on the peer",
    )


def note(
    log: AuditLog,
    action: str,
    now: datetime,
    verified: VerifiedEvidence | None,
    *,
    error: AdytonError | None = None,
    peer: str = "",
) -> None:
    """A row of the default tenant's log: to whom the root key went, or from whom it came, or why not."""
    identity = Identity.of(verified) if verified is not None else Identity("", "")
    told = error.reasons if isinstance(error, ReleaseRefused) else (f"{error.code}: {error.message}",) if error else ()
    row = AuditRow(
        action=action,
        decision="refused" if error is not None else "allowed",
        tee=verified.tee if verified is not None else "",
        measurement=identity.measurement,
        host_data=identity.init_data,
        root=verified.root.value if verified is not None else "",
        root_fingerprint=verified.root_fingerprint if verified is not None else "",
        reasons=audit.reasons(told),
        actor="peer",
        peer=peer,
    )
    log.append(DEFAULT, row, now)
