"""Which error becomes which gRPC status and which HTTP status. The one table at the services' edge.

Where Confidential Containers' services fail, theirs answer ``ABORTED`` and 500 with the reasons as text, and their clients
look no further; so these do. What theirs do not have at all (who may change what, documents with proofs, sizes, load, the
service's own trouble) has a status of its own. The code of the error stands in square brackets, and in gRPC's trailing
metadata.
"""

from __future__ import annotations

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
    OperatorError,
    TooLarge,
    TooMany,
    Unavailable,
)

_TEXT = b"text/plain; charset=utf-8"
_ROWS: tuple[tuple[type[AdytonError], str, int], ...] = (
    (NotPermitted, "UNAUTHENTICATED", 401),
    (TooLarge, "RESOURCE_EXHAUSTED", 413),
    (TooMany, "RESOURCE_EXHAUSTED", 429),
    (Unavailable, "UNAVAILABLE", 503),
    (OperatorError, "UNAVAILABLE", 503),
    (MalformedRequest, "ABORTED", 400),
    (NotFound, "ABORTED", 404),
)
_REGISTERING: tuple[tuple[type[AdytonError], str], ...] = (
    (DocumentInvalid, "INVALID_ARGUMENT"),
    (MalformedRequest, "INVALID_ARGUMENT"),
    (EvidenceError, "INVALID_ARGUMENT"),
    (EndorsementError, "INVALID_ARGUMENT"),
    (NotFound, "FAILED_PRECONDITION"),
    (Conflict, "FAILED_PRECONDITION"),
)
_BY_CODE = {
    "runtime_data_missing": ("ABORTED", 500),
    "revoked": ("ABORTED", 500),
    "health_service_unknown": ("NOT_FOUND", 404),
    "deadline": ("DEADLINE_EXCEEDED", 503),
    "failed": ("INTERNAL", 500),
}
METADATA = "adyton-code"
PUSHBACK = "grpc-retry-pushback-ms"
OURS = (Unavailable, OperatorError)
"""The service's own trouble: for its log, not for who asks."""


class Refused(Answer):
    """An answer that says why there is none; ``status_name`` and ``said`` are for gRPC."""

    status_name: str = "ABORTED"
    said: str = ""


def statuses(error: AdytonError) -> tuple[str, int]:
    """The name of the gRPC status, and the HTTP status."""
    if error.code in _BY_CODE:
        return _BY_CODE[error.code]
    for kind, name, status in _ROWS:
        if isinstance(error, kind):
            return name, status
    return "ABORTED", 500


def text(error: AdytonError) -> str:
    """What the caller, a relying party, is told: message and code; values, and what ails the service, stay in the record."""
    if isinstance(error, OURS) and error.code not in _BY_CODE:
        return f"the service cannot do this now [{error.code}]"
    return f"{error.message} [{error.code}]"


def answer(error: AdytonError) -> Refused:
    """The answer, over HTTP and gRPC."""
    name, status = statuses(error)
    said = text(error)
    # The first words of a 500 are theirs, letter by letter.
    body = f"An internal error occured: \n0: {said}" if status == 500 else said
    wait = error.retry_after if isinstance(error, TooMany) else 1 if status == 503 else 0
    return Refused(
        status, body.encode(), _TEXT, retry_after=wait, reason=error.code, status_name=name, said=said
    )  # fmt: skip


def registering(error: AdytonError) -> Refused:
    """The answer to who registers reference values, and has shown that they may: what is wrong, and what would cure it."""
    refused = answer(error)
    for kind, name in _REGISTERING:
        if isinstance(error, kind):
            facts = error.as_dict()
            told = (f"{fact} {facts[fact]}" for fact in ("field", "expected", "got", "hint") if facts[fact] is not None)
            refused.status_name, refused.said = name, "; ".join([error.message, *told])[:2000] + f" [{error.code}]"
            break
    return refused


def plain(status: int, said: str, reason: str) -> Answer:
    """An answer that no exception stands behind."""
    return Answer(status, said.encode(), _TEXT, reason=reason)
