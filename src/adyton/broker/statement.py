"""What is said of an attestation: the claims that are signed, what releases are decided by, and the row of the record.

Results that are alike (``Appraiser``) differ in nothing but time, nonce, key and report data. So what is said of one is
said of the others with those put in: the same bytes and the same values as if made anew (tests hold that).
"""

from __future__ import annotations

from datetime import UTC, datetime
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
    """``claims`` is the token's payload, ``told`` the same read. ``kept`` and ``own``: how a cookie holds it; no ``own``: whole.

    ``row`` lacks the digest of the claims, who asked and from where.
    """

    claims: bytes
    told: TokenClaims
    row: AuditRow
    kept: bytes
    own: tuple[bytes, ...] = ()


class _Said(msgspec.Struct, frozen=True):
    """What was said of the first that was like it."""

    form: Form
    kept: bytes
    told: TokenClaims
    row: AuditRow
    submodule: dict[str, Any]  # as the payload has it
    adyton: dict[str, Any]  # what is said about the evidence, and by which policy


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
        return _like(like.said, result, request, nonce, issued, expires)
    at, ends = datetime.fromtimestamp(issued, UTC), datetime.fromtimestamp(expires, UTC)
    payload = ear.claims(result, issued=at, expires=ends, verbose=not request.additional)
    payload["adyton"] = {"tenant": tenant, "generation": result.generation}
    payload["jti"] = nonce[:TOKEN_ID]
    claims, told = _ENCODE(payload), ear.told(result, payload)
    row = attested_row(result, platforms.told(verified[0]))
    if like is not None and (form := ear_form.of(payload)) is not None:
        kept = session.compressed(form.text)
        submodule: Any = told.raw["submods"]
        like.said = _Said(form, kept, told, row, submodule[PRIMARY], submodule[PRIMARY][EVIDENCE]["adyton"])
    return Statement(claims, told, row, session.compressed(claims))


def _like(  # noqa: PLR0917 -- as ``of``
    said: _Said, result: AttestationResult, request: Attestation, nonce: str, issued: int, expires: int
) -> Statement:
    token_id = nonce[:TOKEN_ID]
    evidence: dict[str, Any] = {**result.appraisals[0].annotated, "adyton": said.adyton}
    own = ear_form.own_parts(
        issued=issued,
        expires=expires,
        data=evidence["report_data"],
        nonce=request.nonce,
        key=request.key.members,
        token_id=token_id,
    )
    submodules: dict[str, Any] = {PRIMARY: {**said.submodule, EVIDENCE: evidence}}
    payload = {**said.told.raw, "iat": issued, "exp": expires, "submods": submodules, "jti": token_id}
    first = msgspec.structs.replace(said.told.submodules[0], evidence=evidence)
    return Statement(said.form.filled(own), TokenClaims(issued, expires, (first,), payload), said.row, said.kept, own)
