"""Which error becomes which gRPC status and which HTTP status. The one table at the services' edge.

Where Confidential Containers' services fail, theirs answer ``ABORTED`` and 500 with the reasons as text, and their clients
look no further; so these do. What theirs do not have at all (who may change what, sizes, load, the service's own trouble)
has a status of its own. The code of the error stands in square brackets, and in gRPC's trailing metadata.
"""

from __future__ import annotations

from adyton.broker.door.answer import Answer
from adyton.errors import (
    AdytonError,
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
_BY_CODE = {"runtime_data_missing": ("ABORTED", 500), "revoked": ("ABORTED", 500)}
METADATA = "adyton-code"
OURS = (Unavailable, OperatorError)
"""The service's own trouble: for its log, not for who asks."""


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
    if isinstance(error, OURS):
        return f"the service cannot do this now [{error.code}]"
    return f"{error.message} [{error.code}]"


def answer(error: AdytonError) -> Answer:
    """The HTTP answer."""
    status = statuses(error)[1]
    said = (
        f"An internal error occured: \n0: {text(error)}" if status == 500 else text(error)
    )  # theirs, letter by letter
    return Answer(status, said.encode(), _TEXT, retry_after=1 if status in {429, 503} else 0, reason=error.code)


def plain(status: int, said: str, reason: str) -> Answer:
    """An answer that no exception stands behind."""
    return Answer(status, said.encode(), _TEXT, reason=reason)
