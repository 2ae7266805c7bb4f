"""An answer to one request, and the bytes it becomes.

``changes`` names what an administrator changed, for the audit log: (action, name). They are committed together
(``record.recorded``) before the answer leaves. ``reason`` is the code of an error, ``session`` the handle of the attester's key, ``decision`` the name
of the row that records a refusal: for the operator's log line, and not sent.
``headers`` are further ones as they are sent, each with its line end.
"""

from __future__ import annotations

import msgspec

JSON = b"application/json"

_REASONS = {
    200: b"OK",
    201: b"Created",
    202: b"Accepted",
    204: b"No Content",
    400: b"Bad Request",
    401: b"Unauthorized",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    409: b"Conflict",
    413: b"Content Too Large",
    429: b"Too Many Requests",
    500: b"Internal Server Error",
    503: b"Service Unavailable",
}
_HEADS = {status: b"HTTP/1.1 %d %s\r\n" % (status, reason) for status, reason in _REASONS.items()}


class Answer(msgspec.Struct):
    """Status, body and the few headers that the broker sends."""

    status: int
    body: bytes = b""
    content_type: bytes = JSON
    cookie: bytes = b""
    retry_after: int = 0
    changes: tuple[tuple[str, str], ...] = ()
    reason: str = ""
    session: str = ""
    decision: str = ""
    headers: bytes = b""

    def render(self, *, keep_alive: bool = True, head_only: bool = False) -> bytes:
        """The whole message. Nothing of a key broker's is ever cached."""
        parts = [_HEADS[self.status], b"cache-control: no-store\r\n"]
        if self.status != 204:
            parts.append(b"content-type: %b\r\ncontent-length: %d\r\n" % (self.content_type, len(self.body)))
        if self.cookie:
            parts.append(b"set-cookie: %b\r\n" % self.cookie)
        if self.headers:
            parts.append(self.headers)
        if self.retry_after:
            parts.append(b"retry-after: %d\r\n" % self.retry_after)
        if not keep_alive:
            parts.append(b"connection: close\r\n")
        parts.append(b"\r\n")
        if not head_only:
            parts.append(self.body)
        return b"".join(parts)
