"""The JSON in which Confidential Containers sends quotes (``kbs-protocol`` 2.4, ``sgx`` and ``tdx``).

``{"quote": base64}``, for TDX with ``"cc_eventlog": base64`` or null. Strict: every member is known, of its type, there
once. Raw quotes begin with a version, never with a brace or white space.
"""

from __future__ import annotations

from typing import Any

from adyton.errors import MalformedEvidence
from adyton.wire import b64, strict_json

MAX_SIZE = 4 * 1024 * 1024
_BEGINS = frozenset(b"{ \t\r\n")


def is_json(evidence: bytes) -> bool:
    """Whether evidence is in CoCo's form rather than a raw quote."""
    return bool(evidence) and evidence[0] in _BEGINS


def parse(evidence: bytes, tee: str, *, with_log: bool) -> tuple[bytes, bytes | None]:
    """The quote, and the event log if there is one; ``MalformedEvidence`` if it is anything else."""
    try:
        found = strict_json.parse(evidence, max_size=MAX_SIZE, max_depth=4)
    except strict_json.UNREADABLE as error:
        raise _malformed(tee, "evidence", f"not JSON that can be read: {error}") from error
    if not isinstance(found, dict) or "quote" not in found:
        raise _malformed(tee, "quote", "an object with a quote is wanted")
    known = {"quote", "cc_eventlog"} if with_log else {"quote"}
    if unknown := found.keys() - known:
        raise _malformed(tee, min(unknown)[:40], "a member that is unknown here")
    quote = _bytes(found["quote"], tee, "quote")
    log = found.get("cc_eventlog")
    return quote, _bytes(log, tee, "cc_eventlog") if log is not None else None


def _bytes(value: Any, tee: str, field: str) -> bytes:
    try:
        if isinstance(value, str):
            return b64.decode(value)
    except ValueError:
        pass
    raise _malformed(tee, field, "not standard base64")


def _malformed(tee: str, field: str, reason: str) -> MalformedEvidence:
    return MalformedEvidence(
        f"{field}: {reason}", code="evidence_json", tee=tee, field=field, spec=f"kbs-protocol 2.4 {tee}"
    )
