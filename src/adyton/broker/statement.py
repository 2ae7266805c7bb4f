"""What is said of an attestation: the claims that are signed, what releases are decided by, and the row of the record.

Results that are alike (``Appraiser``) differ in nothing but time, nonce, key and report data. So what is said of one is
said of the others with those put in: the same bytes and the same values as if made anew (tests hold that).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

import msgspec

from adyton.broker import session
from adyton.broker.appraiser import Likeness
from adyton.broker.audit import attested_row
from adyton.broker.record import platforms
from adyton.protocol import ear, ear_form
from adyton.protocol.audit_row import AuditRow
from adyton.protocol.ear import EVIDENCE, TokenClaims
from adyton.protocol.ear_form import PRIMARY, Form
from adyton.protocol.rcar import Attestation
from adyton.rats.result import AttestationResult
from adyton.rats.types import VerifiedEvidence

TOKEN_ID = 22  # characters of the challenge, 132 bits
_ENCODE = msgspec.json.Encoder().encode


class Statement(msgspec.Struct, frozen=True):
    """What is said of one attestation.

    ``claims`` is the token's payload, ``told`` the same read, or ``tell`` reads it. ``kept`` and ``own``: how a cookie holds
    it; no ``own``: whole. ``row`` lacks the digest of the claims, who asked and from where. ``like``: a holder's.
    """

    claims: bytes
    told: TokenClaims | None
    row: AuditRow
    kept: bytes
    own: tuple[bytes, ...] = ()
    tell: Callable[[], TokenClaims] | None = None
    like: object = None


class _Said(msgspec.Struct, frozen=True):
    """What was said of the first that was like it."""

    form: Form
    kept: bytes
    told: TokenClaims
    row: AuditRow


def of(  # noqa: PLR0917 -- whose, of what, for whom, when
    tenant: str,
    result: AttestationResult,
    verified: tuple[VerifiedEvidence, ...],
    request: Attestation,
    nonce: str,
    issued: int,
    expires: int,
) -> Statement:
    """The statement for a TEE that answered ``nonce`` with ``request``. Times are Unix seconds.

    The token's id is the nonce's beginning: a replay of this very request gets the same one.
    """
    like = result.alike if isinstance(result.alike, Likeness) and not request.additional else None
    if like is not None and isinstance(like.said, _Said):
        return _like(like.said, like.mark, verified[0], request, nonce, issued, expires)
    at, ends = datetime.fromtimestamp(issued, UTC), datetime.fromtimestamp(expires, UTC)
    payload = ear.claims(result, issued=at, expires=ends, verbose=not request.additional)
    payload["adyton"] = {"tenant": tenant, "generation": result.generation}
    payload["jti"] = nonce[:TOKEN_ID]
    claims, told = _ENCODE(payload), ear.told(result, payload)
    row = attested_row(result, platforms.told(verified[0]))
    if like is not None and (form := ear_form.of(payload)) is not None:
        kept = session.compressed(form.text)
        like.said = _Said(form, kept, told, row)
    return Statement(claims, told, row, session.compressed(claims), like=like.mark if like is not None else None)


def _like(  # noqa: PLR0917 -- as ``of``
    said: _Said, mark: object, item: VerifiedEvidence, request: Attestation, nonce: str, issued: int, expires: int
) -> Statement:
    data, token_id = item.report_data.value.hex(), nonce[:TOKEN_ID]
    own = ear_form.own_parts(
        issued=issued, expires=expires, data=data, nonce=request.nonce, key=request.key.members, token_id=token_id
    )
    tell = partial(_told, said.told, data, request.nonce, request.key.members, issued, expires, token_id)
    return Statement(said.form.filled(own), None, said.row, said.kept, own, tell, mark)


def _told(  # noqa: PLR0917 -- what is each one's own
    first: TokenClaims, data: str, nonce: str, key: Mapping[str, str], issued: int, expires: int, token_id: str
) -> TokenClaims:
    """The claims of one that is like the first: what ``ear.read`` gives for its payload."""
    payload: Any = first.raw
    submodule = payload["submods"][PRIMARY]
    evidence = submodule[EVIDENCE]
    tee = evidence["adyton"]["tee"]
    evidence = {
        **evidence,
        "report_data": data,
        "runtime_data_claims": {**evidence["runtime_data_claims"], "nonce": nonce, "tee-pubkey": dict(key)},
        tee: {**evidence[tee], "report_data": data},
    }
    payload = {
        **payload,
        "iat": issued,
        "exp": expires,
        "submods": {PRIMARY: {**submodule, EVIDENCE: evidence}},
        "jti": token_id,
    }
    return TokenClaims(issued, expires, (msgspec.structs.replace(first.submodules[0], evidence=evidence),), payload)
