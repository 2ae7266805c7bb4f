"""Evidence in, a signed attestation result out: the verifier alone, without sessions or secrets (kbs-protocol 2.3).

Verification, appraisal, revocation and the record are the broker's own; only who asks differs. The caller is a relying
party: it made the challenge, and whether the answer is fresh is its business, so a request without runtime data is refused
unless the operator said otherwise.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from adyton import tee
from adyton.broker import secure_execution
from adyton.broker.appraiser import Appraiser
from adyton.broker.audit import Auditor, attested_row
from adyton.broker.handshake import Verifying
from adyton.broker.keys import BrokerKeys
from adyton.broker.record import platforms
from adyton.broker.revoked import refuse_revoked
from adyton.broker.running.replicas import Deadline
from adyton.crypto import jwk
from adyton.crypto.x509 import EndorsementSet
from adyton.errors import (
    AdytonError,
    EndorsementError,
    EvidenceError,
    MalformedRequest,
    NotPermitted,
    UnsupportedEvidence,
)
from adyton.protocol import ear
from adyton.protocol.attestation_service import Evaluation, Piece
from adyton.protocol.ear import Issuer
from adyton.rats.types import Revocation, VerifiedEvidence

_ENCODER = msgspec.json.Encoder()


class Evaluator:
    """For one tenant. ``keys`` gives those of the moment; ``token_seconds`` may be replaced. Times are Unix seconds."""

    def __init__(
        self,
        appraiser: Appraiser,
        auditor: Auditor,
        verifying: Verifying,
        keys: Callable[[], BrokerKeys],
        *,
        tenant: str,
        issuer: str,
        token_seconds: int,
        accept_unbound: bool,
        deadline: Callable[[], Deadline],
    ) -> None:
        self._appraiser = appraiser
        self._auditor = auditor
        self._verifying = verifying
        self._keys = keys
        self._tenant = tenant
        self._issuer = Issuer(issuer)
        self.token_seconds = token_seconds
        self._accept_unbound = accept_unbound
        self._deadline = deadline

    @property
    def jwks(self) -> bytes:
        """The JWK set that verifies what is signed here."""
        return self._keys().jwks

    def challenge(self, name: str, now: float) -> str:
        """What a TEE must be asked beside a nonce: empty for all but IBM Secure Execution."""
        if name not in tee.ROOMS:
            raise UnsupportedEvidence(
                "evidence of this TEE is not verified here",
                code="tee_unknown",
                tee=name[:40],
                expected=sorted(tee.ROOMS),
            )
        if name != secure_execution.TEE:
            return ""
        verifying = self._verifying
        if verifying.secure_execution is None:
            raise UnsupportedEvidence(
                "no host key documents are laid out here",
                code="tee_unsupported",
                tee=name,
                hint="--se-host-key-document",
            )
        at = datetime.fromtimestamp(now, UTC)
        return verifying.secure_execution.challenge(
            self._keys().cookies, self._tenant, verifying.endorsements.current, at
        )

    async def evaluate(self, asked: Evaluation, now: float, *, peer: str) -> str:
        """The token, once its audit row is on the disk; or what is wrong with the evidence, which is written down too."""
        at = datetime.fromtimestamp(now, UTC)
        try:
            return await self._evaluated(asked, now, at, peer)
        except (MalformedRequest, NotPermitted):
            raise
        except AdytonError as error:
            await self._auditor.attest_refused(self._tenant, asked.pieces[0].tee, error, at, peer=peer)
            raise

    async def _evaluated(self, asked: Evaluation, now: float, at: datetime, peer: str) -> str:
        if not self._accept_unbound and any(piece.expected is None for piece in asked.pieces):
            raise NotPermitted(
                "evidence without runtime data proves nothing about now",
                code="runtime_data_missing",
                field="runtime_data",
                spec="kbs-protocol 2.1",
                hint="send runtime data with a nonce, or start the service with --evidence-without-runtime-data-i-accept",
            )
        verified = await self._verified(asked.pieces, at)
        first, deadline = asked.pieces[0], self._deadline()
        tenant, keys = self._tenant, self._keys()
        result = await self._appraiser.appraise(
            tenant, verified, asked.runtime_data, first.init_data, at, asked.policy_id
        )
        handle = _handle(asked)
        if revoked := self._appraiser.revoked(tenant, result, at):
            refuse_revoked(revoked, keys.signer.kid, handle, verified, result)
        ends = int(min(now + self.token_seconds, result.expires.timestamp()))
        payload = ear.claims(
            result, issued=at, expires=datetime.fromtimestamp(ends, UTC), issuer=self._issuer, verbose=True
        )
        payload["adyton"] = {"tenant": tenant, "generation": result.generation}
        claims = _ENCODER.encode(payload)
        token = keys.signer.sign(claims)
        await self._auditor.attested(
            tenant,
            attested_row(result, platforms.told(verified[0])),
            at,
            request_id=handle,
            peer=peer,
            claims=hashlib.sha256(claims).hexdigest(),
        )
        deadline.check()
        return token

    async def _verified(self, pieces: tuple[Piece, ...], at: datetime) -> tuple[VerifiedEvidence, ...]:
        laid_out, fetching = self._verifying.endorsements.current, self._verifying.fetching
        if fetching is None:
            return self._verify(pieces, at, laid_out)
        wanted = [(piece.tee, piece.evidence) for piece in pieces]
        try:
            return self._verify(pieces, at, fetching.known(wanted, laid_out) or laid_out)
        except (EndorsementError, UnsupportedEvidence):
            found = await fetching.gathered(wanted, laid_out, at)
            if found is None:
                raise
        return self._verify(pieces, at, found)

    def _verify(self, pieces: tuple[Piece, ...], at: datetime, given: EndorsementSet) -> tuple[VerifiedEvidence, ...]:
        found: list[VerifiedEvidence] = []
        for index, piece in enumerate(pieces):
            for one in self._one(piece, at, given):
                if (one.tee_class == "cpu") is not (index == 0):
                    raise EvidenceError(
                        "the first piece is a CPU's, the others are devices'",
                        code="device_class",
                        tee=piece.tee,
                        field="verification_requests",
                        expected="cpu" if index == 0 else "a device",
                        got=one.tee_class,
                        spec="kbs-protocol 2.3",
                    )
                found.append(one)
        return tuple(found)

    def _one(self, piece: Piece, at: datetime, given: EndorsementSet) -> tuple[VerifiedEvidence, ...]:
        verifying = self._verifying
        if piece.tee == secure_execution.TEE and verifying.secure_execution is not None:
            _ = piece.init_field  # says that there is no such field
            return (
                verifying.secure_execution.verify(
                    piece.evidence, self._keys().cookies, self._tenant, given, at, piece.expected
                ),
            )
        if piece.init_field is not None:
            return (
                tee.verify(
                    piece.tee,
                    piece.evidence,
                    endorsements=given,
                    now=at,
                    anchors=verifying.anchors,
                    revocation=Revocation.REQUIRED,
                    report_data=piece.expected,
                    init_data=piece.init_field,
                    remembered=verifying.remembered,
                ),
            )
        return tee.verify_each(
            piece.tee,
            piece.evidence,
            endorsements=given,
            now=at,
            anchors=verifying.anchors,
            revocation=Revocation.REQUIRED,
            report_data=piece.expected,
            remembered=verifying.remembered,
        )


def _handle(asked: Evaluation) -> str:
    """The audit's name for the TEE's key, where the runtime data has one that can be read."""
    try:
        return jwk.parse(asked.runtime_data.get("tee-pubkey")).handle
    except MalformedRequest:
        return ""
