"""The handshake, from the verifier's side: challenge, then parse, verify, appraise, and sign what came of it.

Nothing is remembered between the two requests but what the sealed cookie holds (``broker/session.py``), so any worker
serves either. A replayed cookie and body gives at most a token for the TEE key that was in that body.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import cast

import msgspec

from adyton import tee
from adyton.broker import session
from adyton.broker.answer import Answer
from adyton.broker.appraiser import Appraiser
from adyton.broker.audit import Auditor
from adyton.broker.endorsements import Endorsements
from adyton.broker.holders import Holder, Holders
from adyton.broker.keys import BrokerKeys
from adyton.broker.session import Attested, Challenged
from adyton.crypto.aead import random_bytes
from adyton.errors import (
    AdytonError,
    BindingMismatch,
    DocumentInvalid,
    FreshnessFailed,
    MalformedEvidence,
    NotPermitted,
    SessionInvalid,
    UnsupportedEvidence,
)
from adyton.protocol import ear, initdata, rcar
from adyton.protocol.initdata import InitData
from adyton.rats import binding
from adyton.rats.types import Nonce, Revocation, TrustAnchors, VerifiedEvidence
from adyton.stores.sqlite import Store
from adyton.wire import b64, strict_json

# Length of the field that holds the init data's digest, by TEE; a TEE that is not here is not verified here.
INIT_DATA_FIELD = {"snp": 32}
_ENCODER = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Verifying:
    """What verification needs: the roots, the endorsements, the memory of this worker."""

    anchors: TrustAnchors
    endorsements: Endorsements
    remembered: tee.Remembered


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
        self._session_seconds = session_seconds
        self._token_seconds = token_seconds
        self._secure = secure
        self.holders = Holders()

    def begin(self, keys: BrokerKeys, tenant: str, body: bytes, now: float) -> Answer:
        """``POST /auth``: a nonce, and the cookie that remembers it."""
        request = rcar.parse_request(body)
        if request.version != rcar.VERSION:
            raise NotPermitted(
                f"KBS client protocol version mismatch: expect ={rcar.VERSION} while the request is {request.version[:20]}",
                code="version_mismatch",
            )
        if request.tee not in INIT_DATA_FIELD:
            raise UnsupportedEvidence(
                "evidence of this TEE is not verified here",
                code="tee_unsupported" if request.tee in rcar.TEES else "tee_unknown",
                tee=request.tee[:40],
                expected=sorted(INIT_DATA_FIELD),
                got=request.tee[:40],
            )
        try:
            algorithm = rcar.choose_hash(bytes(request.extra_params))
        except (AdytonError, ValueError) as error:
            raise NotPermitted("no hash algorithm in common", code="hash_unsupported") from error
        nonce = Nonce(random_bytes(32))
        expires = int(now) + self._session_seconds
        value = session.seal(keys.cookies, tenant, Challenged(expires, request.tee, b64.encode(nonce.value), algorithm))
        return Answer(
            200, rcar.challenge(nonce, algorithm), cookie=session.set_cookie(value, expires, secure=self._secure)
        )

    async def attest(
        self, keys: BrokerKeys, tenant: str, cookie: bytes | None, body: bytes, now: float, *, peer: str
    ) -> Answer:
        """``POST /attest``: a token for authentic evidence, whatever it is worth; release is decided later."""
        if cookie is None:
            raise SessionInvalid("there is no session cookie", code="session_missing", hint="POST /auth first")
        opened = session.open_(keys.cookies, tenant, cookie, now)
        request = rcar.parse_attestation(body)
        if isinstance(opened, Attested):
            return self._again(keys, tenant, opened, request, now)
        at = datetime.fromtimestamp(now, UTC)
        if request.nonce != opened.nonce:
            raise FreshnessFailed(
                "the nonce is not the one of this session",
                code="nonce_mismatch",
                tee=opened.tee,
                field="runtime-data.nonce",
                spec="kbs-protocol 1.4",
            )
        _no_devices(request.additional)
        document = _init_data(request)
        verified = self._verify(opened, request, document, at)
        result = await self._appraiser.appraise(tenant, [verified], request.runtime_data_claims, document, at)
        ends = int(min(now + self._token_seconds, result.expires.timestamp()))
        payload = ear.claims(result, issued=at, expires=datetime.fromtimestamp(ends, UTC))
        payload["adyton"] = {"tenant": tenant, "generation": result.generation}
        claims = _ENCODER.encode(payload)
        expires = min(opened.expires, ends)
        value, digest, shelve = session.attested(
            keys.cookies, tenant, expires, opened.tee, dict(request.key.members), result.generation, claims
        )
        if shelve:
            self._store.claims.put(tenant, claims, datetime.fromtimestamp(expires, UTC), at)
        body = rcar.token_body(keys.signer.sign(claims))
        holder = Holder.of(request.key, ear.told(result, payload), result.generation)
        await self._auditor.attested(tenant, result, at, request_id=holder.handle, peer=peer, claims=digest.hex())
        self.holders.put(digest, holder)
        return Answer(200, body, cookie=session.set_cookie(value, expires, secure=self._secure))

    def _verify(
        self, opened: Challenged, request: rcar.Attestation, document: InitData | None, now: datetime
    ) -> VerifiedEvidence:
        expected = None
        if document is not None:
            length = INIT_DATA_FIELD[opened.tee]
            try:
                expected = binding.init_data_field(document.raw, length=length, algorithm=document.algorithm)
            except ValueError as error:
                raise DocumentInvalid(
                    "the init data's digest does not fit the TEE's field",
                    code="init_data_algorithm",
                    field="init-data",
                    expected=f"a digest of at most {length} bytes",
                    got=document.algorithm,
                ) from error
        verifying = self._verifying
        return tee.verify(
            opened.tee,
            request.primary,
            endorsements=verifying.endorsements.current,
            now=now,
            anchors=verifying.anchors,
            revocation=Revocation.REQUIRED,
            report_data=request.report_data(opened.algorithm),
            init_data=expected,
            remembered=verifying.remembered,
        )

    def _again(self, keys: BrokerKeys, tenant: str, opened: Attested, request: rcar.Attestation, now: float) -> Answer:
        """A session that is attested already: the same claims signed again, for the same key only (kbs-protocol 1.4)."""
        if dict(request.key.members) != opened.key:
            raise BindingMismatch(
                "this session was attested with another key",
                code="session_key_mismatch",
                field="runtime-data.tee-pubkey",
            )
        claims = session.claims(opened, self.shelved(tenant, opened, now))
        return Answer(200, rcar.token_body(keys.signer.sign(claims)))

    def shelved(self, tenant: str, opened: Attested, now: float) -> bytes | None:
        """The claims that the cookie was too small for, or ``None``."""
        if opened.claims:
            return None
        return self._store.claims.get(tenant, opened.digest, datetime.fromtimestamp(now, UTC))


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


def _no_devices(additional: str) -> None:
    """Devices beside the CPU are read, named and refused: none of their kinds is verified here."""
    if not additional:
        return
    try:
        devices = strict_json.parse(additional, max_size=rcar.MAX_BODY)
    except ValueError as error:
        raise MalformedEvidence(
            f"additional evidence cannot be read: {error}", code="additional_evidence_malformed"
        ) from error
    if not isinstance(devices, dict) or not devices:
        raise MalformedEvidence("additional evidence is not an object of TEEs", code="additional_evidence_malformed")
    names = sorted(cast("dict[str, object]", devices))
    raise UnsupportedEvidence(
        f"evidence of additional devices is not verified here: {', '.join(names)[:100]}",
        code="additional_evidence_unsupported",
        field="additional_evidence",
        got=[name[:40] for name in names[:10]],
        hint="attest without devices, or leave them out of what the policy needs",
    )
