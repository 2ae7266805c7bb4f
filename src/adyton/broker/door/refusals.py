"""Which error becomes which status, for whom (contracts, 4). The one table at the broker's edge.

Strangers learn little: of evidence the code of the check that failed, of a release that it was refused. The reasons
are in the audit log, for the owner.
"""

from __future__ import annotations

from enum import Enum

from adyton.broker.door.answer import Answer
from adyton.errors import (
    AdytonError,
    Conflict,
    DocumentInvalid,
    EndorsementError,
    EvidenceError,
    MalformedRequest,
    NotFound,
    NotPermitted,
    PolicyInvalid,
    ReleaseRefused,
    SessionInvalid,
    TooLarge,
    TooMany,
)
from adyton.protocol import kbs_errors
from adyton.protocol.kbs_errors import ErrorFacts, Variant


class Stage(Enum):
    """What was asked for. An error of our own API says everything, as CoCo's tools would not expect it to."""

    HANDSHAKE = "handshake"
    RESOURCE = "resource"
    KEY = "key"
    ADMIN = "admin"
    OWN_API = "own API"


_Row = tuple[type[AdytonError], int, Variant]
_TABLE: dict[Stage, tuple[_Row, ...]] = {
    Stage.HANDSHAKE: (
        (MalformedRequest, 400, Variant.SERDE_ERROR),
        (SessionInvalid, 401, Variant.ATTESTATION_ERROR),
        (EvidenceError, 401, Variant.ATTESTATION_ERROR),
        (EndorsementError, 401, Variant.ATTESTATION_ERROR),
        (DocumentInvalid, 401, Variant.ATTESTATION_ERROR),
        (PolicyInvalid, 401, Variant.ATTESTATION_ERROR),
        (ReleaseRefused, 401, Variant.ATTESTATION_ERROR),
        (NotPermitted, 401, Variant.ATTESTATION_ERROR),
    ),
    Stage.RESOURCE: (
        (SessionInvalid, 401, Variant.TOKEN_NOT_FOUND),
        (ReleaseRefused, 403, Variant.POLICY_DENY),
        (NotPermitted, 403, Variant.POLICY_DENY),
        (PolicyInvalid, 403, Variant.POLICY_DENY),
        (NotFound, 404, Variant.PLUGIN_INTERNAL_ERROR),
        (MalformedRequest, 404, Variant.INVALID_REQUEST_PATH),
    ),
    Stage.ADMIN: (
        (NotPermitted, 401, Variant.ADMIN_AUTH_ACCESS),
        (PolicyInvalid, 400, Variant.PARSE_POLICY_ERROR),
        (MalformedRequest, 400, Variant.SERDE_ERROR),
        (DocumentInvalid, 400, Variant.SERDE_ERROR),
        (NotFound, 404, Variant.PLUGIN_INTERNAL_ERROR),
        (Conflict, 409, Variant.PLUGIN_INTERNAL_ERROR),
    ),
}
_TABLE[Stage.KEY] = (*_TABLE[Stage.RESOURCE][:-1], (MalformedRequest, 400, Variant.SERDE_ERROR))
_TABLE[Stage.OWN_API] = _TABLE[Stage.ADMIN]
_ANYWHERE: tuple[_Row, ...] = (
    (TooLarge, 413, Variant.HTTP_FAILED),
    (TooMany, 429, Variant.HTTP_FAILED),
)
# Who is somebody here, and may not: another token would not help to be known.
_BY_CODE = {"role_not_permitted": 403, "tenant_not_permitted": 403, "token_for_another": 403, "voter_unregistered": 403}


def answer(error: AdytonError, stage: Stage, decision: str = "") -> Answer:
    """The answer that ``error`` becomes; what no row knows is the broker's own trouble, 503.

    ``decision`` is the name of the row that records it: a stranger's way to say to the owner what to look up.
    """
    for kind, status, variant in (*_TABLE[stage], *_ANYWHERE):
        if isinstance(error, kind):
            retry = error.retry_after if isinstance(error, TooMany) else 0
            told = stage is Stage.OWN_API and (error.code in _BY_CODE or not isinstance(error, NotPermitted))
            facts = _facts(error) if told else None
            return Answer(
                _BY_CODE.get(error.code, status),
                kbs_errors.encode(variant, _named(_detail(error, stage), decision), facts),
                retry_after=retry,
                reason=error.code,
                decision=decision,
            )
    return Answer(
        503,
        kbs_errors.encode(
            Variant.PLUGIN_INTERNAL_ERROR,
            _named(f"the broker cannot do this now ({error.code})", decision),
        ),
        retry_after=1,
        reason=error.code,
        decision=decision,
    )


def _named(detail: str, decision: str) -> str:
    return f"{detail} (decision {decision})" if decision else detail


def _detail(error: AdytonError, stage: Stage) -> str:
    if stage in {Stage.ADMIN, Stage.OWN_API}:
        facts = error.as_dict()
        told = (f"{name} {facts[name]}" for name in ("field", "expected", "got", "hint") if facts[name] is not None)
        return "; ".join([error.message, *told]) + f" [{error.code}]"
    if isinstance(error, ReleaseRefused | NotPermitted | PolicyInvalid) and stage in {Stage.RESOURCE, Stage.KEY}:
        return "access is denied by the resource's binding or policy"
    if isinstance(error, EvidenceError | EndorsementError):
        return f"the evidence was refused [{error.code}]"
    return f"{error.message} [{error.code}]"


def _facts(error: AdytonError) -> ErrorFacts:
    facts = error.as_dict()
    return ErrorFacts(
        code=error.code,
        message=error.message,
        field=error.field,
        expected=facts["expected"],
        got=facts["got"],
        spec=error.spec,
        hint=error.hint,
    )


def plain(status: int, variant: Variant, detail: str, reason: str, *, retry_after: int = 0) -> Answer:
    """An error answer that no exception stands behind."""
    return Answer(status, kbs_errors.encode(variant, detail), retry_after=retry_after, reason=reason)


# What a connection answers by itself, before there is a request.
UNREADABLE = {
    "unreadable": plain(400, Variant.HTTP_FAILED, "this is not HTTP/1.1", "unreadable"),
    "head": plain(413, Variant.HTTP_FAILED, "the request's head is too large", "head_too_large"),
    "body": plain(413, Variant.HTTP_FAILED, "the request's body is too large", "body_too_large"),
    "failed": plain(500, Variant.PLUGIN_INTERNAL_ERROR, "the broker failed; its log has the cause", "failed"),
}
OVERLOADED = plain(429, Variant.HTTP_FAILED, "too many requests; try again", "overloaded", retry_after=1)
NO_METHOD = plain(405, Variant.INVALID_REQUEST_PATH, "this method is not served", "no_method")
NO_PATH = plain(404, Variant.INVALID_REQUEST_PATH, "there is nothing at this path", "no_path")
NO_PLUGIN = plain(404, Variant.PLUGIN_NOT_FOUND, "there is no such plug-in here", "no_plugin")
