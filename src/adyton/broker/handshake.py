"""The handshake, from the verifier's side: challenge, then parse, verify, appraise, and sign what came of it.

Nothing is remembered between the two requests but what the sealed cookie holds (``broker/session.py``), so any worker
serves either. A replayed cookie and body gives at most a token for the TEE key that was in that body.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from adyton import tee
from adyton.broker import secure_execution, session, statement
from adyton.broker.appraiser import Appraiser
from adyton.broker.audit import Auditor
from adyton.broker.door.answer import Answer
from adyton.broker.holders import Holder, Holders
from adyton.broker.keys import BrokerKeys
from adyton.broker.outside.endorsements import Endorsements
from adyton.broker.outside.fetching import Fetching
from adyton.broker.record import platforms
from adyton.broker.revoked import refuse_revoked
from adyton.broker.running.replicas import Deadline
from adyton.broker.secure_execution import SecureExecution
from adyton.broker.session import Attested, Challenged
from adyton.crypto import jwk
from adyton.crypto.aead import random_bytes
from adyton.crypto.jwk import TeeKey
from adyton.crypto.profile import USUAL, Profile
from adyton.crypto.x509 import EndorsementSet
from adyton.errors import (
    AdytonError,
    BindingMismatch,
    DocumentInvalid,
    EndorsementError,
    FreshnessFailed,
    MalformedRequest,
    NotPermitted,
    SessionInvalid,
    UnsupportedEvidence,
)
from adyton.protocol import initdata, rcar
from adyton.protocol.initdata import InitData
from adyton.rats import binding
from adyton.rats.result import AttestationResult
from adyton.rats.types import Nonce, Revocation, TrustAnchors, VerifiedEvidence
from adyton.stores.sqlite import Store
from adyton.tee import composite
from adyton.tee.sample.anybody import ANYBODY
from adyton.wire import b64

# What may stand beside the CPU's evidence, and never in its place; and what is verified only by who asked for it.
_NO_PRIMARY = frozenset({"nvidia", "sampledevice", "se"})
_SAMPLE = "sample"
PRIMARIES = frozenset(rcar.TEES & tee.ROOMS.keys() - _NO_PRIMARY - {_SAMPLE})


@dataclass(frozen=True, slots=True)
class Verifying:
    """What verification needs: the roots, the endorsements, the memory of this worker; what else the operator allows.

    ``profile``: what evidence may be signed with. ``rsa1_5``: whether guests that know no other encryption may come (kbs-protocol 1.15).
    """

    anchors: TrustAnchors
    endorsements: Endorsements
    remembered: tee.Remembered
    fetching: Fetching | None = None
    secure_execution: SecureExecution | None = None
    rsa1_5: bool = False
    profile: Profile = USUAL

    @property
    def primaries(self) -> frozenset[str]:
        """The TEEs whose evidence may come; sample evidence only where anybody is believed."""
        found = PRIMARIES | {secure_execution.TEE} if self.secure_execution is not None else PRIMARIES
        return found | {_SAMPLE} if ANYBODY in self.anchors.custom else found


class Handshake:
    """``begin`` and ``attest`` of one worker. Times are Unix seconds, read once per request."""

    def __init__(
        self,
        store: Store,
        appraiser: Appraiser,
        auditor: Auditor,
        verifying: Verifying,
        *,
        session_seconds: int,
        token_seconds: int,
        secure: bool,
    ) -> None:
        self._store = store
        self._appraiser = appraiser
        self._auditor = auditor
        self._verifying = verifying
        self._primaries = verifying.primaries
        self._session_seconds = session_seconds
        self._token_seconds = token_seconds
        self._secure = secure
        self.holders = Holders()
        self.afterwards: Callable[[str, datetime, int, AttestationResult], None] = lambda *_: None
        self.tcb_dates: dict[str, str] = {}  # by TEE, the oldest lately, RFC 3339

    def apply(self, *, session_seconds: int, token_seconds: int) -> None:
        """Go on with these, for sessions that begin."""
        self._session_seconds, self._token_seconds = session_seconds, token_seconds

    def begin(self, keys: BrokerKeys, tenant: str, body: bytes, now: float) -> Answer:
        """``POST /auth``: a nonce, and the cookie that remembers it."""
        request = rcar.parse_request(body)
        if request.version not in rcar.VERSIONS:
            known = ", ".join(rcar.VERSIONS)
            raise NotPermitted(
                f"KBS client protocol version mismatch: expect one of {known} while the request is {request.version[:20]}",
                code="version_mismatch",
            )
        name = rcar.OLDER_NAMES.get(request.tee, request.tee)
        self._verifying.profile.check_tee(name)
        if name not in self._primaries:
            raise UnsupportedEvidence(
                "evidence of this TEE is not verified here",
                code="tee_unsupported" if request.tee in rcar.TEES else "tee_unknown",
                tee=request.tee[:40],
                expected=sorted(self._primaries),
                got=request.tee[:40],
            )
        if request.version == rcar.OLDEST and not self._verifying.rsa1_5:
            raise NotPermitted(
                f"protocol {rcar.OLDEST} knows no encryption but RSA1_5, and that is off here",
                code="rsa1_5_off",
                hint="bring the guest up to date, or start the broker with --allow-rsa1-5",
            )
        try:
            algorithm = rcar.choose_hash(bytes(request.extra_params), name)
        except (AdytonError, ValueError) as error:
            raise NotPermitted("no hash algorithm in common", code="hash_unsupported") from error
        expires = int(now) + self._session_seconds
        nonce: Nonce | str = Nonce(random_bytes(32))
        if name == secure_execution.TEE:
            nonce = self._request(keys, tenant, request.version, now)
        challenged = Challenged(expires, name, _marked(name, nonce), algorithm, request.version)
        value = session.seal(keys.cookies, tenant, challenged)
        return Answer(
            200, rcar.challenge(nonce, algorithm), cookie=session.set_cookie(value, expires, secure=self._secure)
        )

    def _request(self, keys: BrokerKeys, tenant: str, version: str, now: float) -> str:
        """What stands in the place of the nonce for Secure Execution."""
        verifying = self._verifying
        if verifying.secure_execution is None or version != rcar.VERSION:
            raise UnsupportedEvidence(
                "Secure Execution is served from protocol 0.4.0 on: before that the body does not say which request it answers",
                code="tee_unsupported",
                tee=secure_execution.TEE,
                field="version",
                expected=rcar.VERSION,
                got=version[:20],
            )
        at = datetime.fromtimestamp(now, UTC)
        return verifying.secure_execution.challenge(keys.cookies, tenant, verifying.endorsements.current, at)

    async def attest(
        self, keys: BrokerKeys, tenant: str, cookie: bytes | None, body: bytes, now: float, *, peer: str
    ) -> Answer:
        """``POST /attest``: a token for authentic evidence, whatever it is worth; release is decided later."""
        if cookie is None:
            raise SessionInvalid("there is no session cookie", code="session_missing", hint="POST /auth first")
        opened = session.open_(keys.cookies, tenant, cookie, now)
        if isinstance(opened, Attested):
            return self._again(keys, tenant, opened, body, now)
        request = self._read(body, opened.version, opened.nonce)
        at = datetime.fromtimestamp(now, UTC)
        if not hmac.compare_digest(_marked(opened.tee, request.nonce).encode(), opened.nonce.encode()):
            raise FreshnessFailed(
                "the nonce is not the one of this session",
                code="nonce_mismatch",
                tee=opened.tee,
                field="runtime-data.nonce",
                spec="kbs-protocol 1.4",
            )
        document = _init_data(request)
        verified = await self._verified(keys, tenant, opened, request, document, at)
        deadline = Deadline(self._store)  # verification goes by what lies on this machine
        result = await self._appraiser.appraise(tenant, verified, request.runtime_data_claims, document, at)
        for item in verified:
            if (date := platforms.date(item)) is not None:
                self._note_date(item.tee, date)
        if revoked := self._appraiser.revoked(tenant, result, at):
            refuse_revoked(revoked, keys.signer.kid, request.key.handle, verified, result)
        ends = int(min(now + self._token_seconds, result.expires.timestamp()))
        said = statement.of(tenant, result, verified, request, opened.nonce, int(now), ends)
        expires = min(opened.expires, ends)
        value, digest, shelve = session.attested(
            keys.cookies,
            tenant,
            expires,
            opened.tee,
            request.key.members,
            result.generation,
            said.claims,
            opened.version,
            said.kept,
            said.own,
        )
        if shelve:
            ends_at = datetime.fromtimestamp(expires, UTC)
            if self._store.shared:  # another machine's disk is not waited for here
                await asyncio.to_thread(self._store.claims.put, tenant, said.claims, ends_at, at)
            else:
                self._store.claims.put(tenant, said.claims, ends_at, at)
        body = rcar.token_body(keys.signer.sign(said.claims))
        holder = Holder(request.key, result.generation, request.key.handle, ends, said.told, said.like, said.tell)
        number = await self._auditor.attested(
            tenant, said.row, at, request_id=holder.handle, peer=peer, claims=digest.hex()
        )
        deadline.check()  # the token would speak of policies that are not in force any more
        self.holders.put(digest, holder, len(said.claims))
        self.afterwards(tenant, at, number, result)
        cookie_value = session.set_cookie(value, expires, secure=self._secure)
        return Answer(200, body, cookie=cookie_value, session=holder.handle)

    def _note_date(self, tee: str, date: str) -> None:
        known = self.tcb_dates.get(tee)
        if known is None or date < known:
            self.tcb_dates[tee] = date

    async def _verified(  # noqa: PLR0917 -- whose, what, when
        self,
        keys: BrokerKeys,
        tenant: str,
        opened: Challenged,
        request: rcar.Attestation,
        document: InitData | None,
        now: datetime,
    ) -> tuple[VerifiedEvidence, ...]:
        """Verify with the endorsements at hand; where they do not do, with what can be fetched, if that was asked for."""
        if opened.tee == secure_execution.TEE:
            return (self._answered(keys, tenant, opened, request, document, now),)
        if self._verifying.profile.tees:
            for device in composite.devices_of(request.additional):
                self._verifying.profile.check_tee(device)
        laid_out, fetching = self._verifying.endorsements.current, self._verifying.fetching
        if fetching is None:
            return self._verify(opened, request, document, now, laid_out)
        pieces = [(opened.tee, request.primary), *composite.devices_of(request.additional).items()]
        try:
            return self._verify(opened, request, document, now, fetching.known(pieces, laid_out) or laid_out)
        except (EndorsementError, UnsupportedEvidence):
            found = await fetching.gathered(pieces, laid_out, now)
            if found is None:
                raise
        return self._verify(opened, request, document, now, found)

    def _answered(  # noqa: PLR0917 -- as _verified
        self,
        keys: BrokerKeys,
        tenant: str,
        opened: Challenged,
        request: rcar.Attestation,
        document: InitData | None,
        now: datetime,
    ) -> VerifiedEvidence:
        """Verify the answer to a request for Secure Execution, which no device and no init data can stand beside."""
        verifying = self._verifying
        if verifying.secure_execution is None or request.additional:
            raise UnsupportedEvidence(
                "no device's evidence beside Secure Execution", code="device_class", tee=opened.tee, field="additional"
            )
        if document is not None:
            binding.expected_init_data(opened.tee, document.raw, document.algorithm)  # says that there is no such field
        return verifying.secure_execution.verify(
            request.primary,
            keys.cookies,
            tenant,
            verifying.endorsements.current,
            now,
            binding.expected(opened.tee, request.bound, opened.algorithm),
        )

    def _verify(
        self,
        opened: Challenged,
        request: rcar.Attestation,
        document: InitData | None,
        now: datetime,
        endorsements: EndorsementSet,
    ) -> tuple[VerifiedEvidence, ...]:
        expected = None
        if document is not None:
            expected = binding.expected_init_data(opened.tee, document.raw, document.algorithm)
        verifying = self._verifying
        return composite.verify(
            opened.tee,
            request.primary,
            request.additional,
            nonce=request.nonce,
            canonical=request.bound,
            tee_public_key=request.key.members,
            algorithm=opened.algorithm,
            endorsements=endorsements,
            now=now,
            anchors=verifying.anchors,
            revocation=Revocation.REQUIRED,
            init_data=expected,
            remembered=verifying.remembered,
        )

    def _again(self, keys: BrokerKeys, tenant: str, opened: Attested, body: bytes, now: float) -> Answer:
        """A session that is attested already: the same claims signed again, for the same key only (kbs-protocol 1.4)."""
        deadline = Deadline(self._store)
        if opened.generation != self._store.generation(tenant):
            raise SessionInvalid(
                "policies, reference values or revocations changed since this attestation",
                code="session_outdated",
                hint="attest again",
            )
        request = self._read(body, opened.version, "")
        if dict(request.key.members) != opened.key:
            raise BindingMismatch(
                "this session was attested with another key",
                code="session_key_mismatch",
                field="runtime-data.tee-pubkey",
            )
        claims = session.claims(opened, self.shelved(tenant, opened, now))
        token = rcar.token_body(keys.signer.sign(claims))
        deadline.check()
        return Answer(200, token)

    def _read(self, body: bytes, version: str, nonce: str) -> rcar.Attestation:
        if version == rcar.VERSION:
            return rcar.parse_attestation(body)
        return rcar.parse_older(body, version, nonce, rsa1_5=self._verifying.rsa1_5)

    def tee_key(self, members: object, version: str) -> TeeKey:
        """The key behind a session of this version; ``SessionInvalid`` if such a key is no longer taken."""
        try:
            return rcar.parse_key(members, version, rsa1_5=self._verifying.rsa1_5)
        except MalformedRequest as error:
            raise SessionInvalid(
                "the session's key cannot be encrypted to here", code="session_key_refused", hint="attest again"
            ) from error

    @property
    def serves_oldest(self) -> bool:
        """Whether guests of protocol 0.1.0 may come."""
        return self._verifying.rsa1_5

    @property
    def token_algorithms(self) -> frozenset[str]:
        """What the key in a token of this broker may be for."""
        return jwk.MODERN | {jwk.OLD_RSA_ALGORITHM} if self._verifying.rsa1_5 else jwk.MODERN

    def shelved(self, tenant: str, opened: Attested, now: float) -> bytes | None:
        """The claims that the cookie was too small for, or ``None``."""
        if opened.claims:
            return None
        return self._store.claims.get(tenant, opened.digest, datetime.fromtimestamp(now, UTC))


def _marked(name: str, nonce: Nonce | str) -> str:
    """What a session remembers of its nonce: the text as it is sent, the digest of one that is a whole request."""
    if isinstance(nonce, Nonce):
        return b64.encode(nonce.value)
    return hashlib.sha256(nonce.encode()).hexdigest() if name == secure_execution.TEE else nonce


def _init_data(request: rcar.Attestation) -> InitData | None:
    if request.init_data is None:
        return None
    if request.init_data_format != "toml":
        raise DocumentInvalid(
            "init data must be TOML",
            code="init_data_format",
            field="init-data.format",
            expected="toml",
            got=request.init_data_format[:20],
        )
    return _parsed(request.init_data)


@lru_cache(maxsize=128)
def _parsed(raw: bytes) -> InitData:
    """A fleet sends few documents; what one says is a function of its bytes."""
    return initdata.parse(raw)
