"""Certificate chains as they stand in evidence: a long text that comes every time is read once.

A machine sends the same certificates, some 15 kB of JSON, with each of its reports. ``cut`` takes such a text out of an
``/attest`` body if it is, byte for byte, one JSON value that was read before, and leaves 0 in its place. So the body is
good JSON exactly if what is left is, and no object in it has other members. Whether certificates are good is not asked.
"""

from __future__ import annotations

import msgspec

from adyton.wire import strict_json

MAX_CHAINS = 64
SIZES = range(512, 32 * 1024)  # bytes; below it does not pay
_NAME = b',"cert_chain":'
_AFTER = b'},"additional_evidence":'
_MARK = _NAME + b"0}"
_STRIDE = 251


class KnownChains:
    """At most ``MAX_CHAINS`` texts. One per process; a thread that races with another loses a memory, never a check."""

    def __init__(self) -> None:
        self._known: dict[bytes, bytes] = {}

    def cut(self, body: bytes) -> tuple[bytes, int, int]:
        """``body`` without the chain in it, and where that began and ended; the whole, 0 and 0 where none is known.

        The name cannot stand inside a JSON string, where its quotation marks would be escaped.
        """
        start = body.find(_NAME) + len(_NAME)
        end = body.rfind(_AFTER)
        if start < len(_NAME) or end <= start:
            return body, 0, 0
        chain = self._known.get(body[start:end:_STRIDE])
        if chain is None or len(chain) != end - start or not body.startswith(chain, start):
            return body, 0, 0
        return b"%b0%b" % (body[:start], body[end:]), start, end

    def put_back(self, body: bytes, start: int, end: int, primary: bytes) -> bytes | None:
        """The evidence as it came in ``body``, from ``primary``, as it is without the chain between ``start`` and ``end``.

        It must be of a body in which ``additional_evidence`` follows it, and is the last. ``None`` if the chain was not at
        its end.
        """
        if not primary.endswith(_MARK):
            return None
        return body[start + 2 - len(primary) : end + 1]

    def learn(self, primary: bytes) -> None:
        """Remember the chain that evidence ends with, if that is where it stands and it is one JSON value."""
        start = primary.find(_NAME)
        chain = primary[start + len(_NAME) : -1]
        if start < 0 or len(chain) not in SIZES:
            return
        try:
            msgspec.json.decode(chain, type=msgspec.Raw)
        except strict_json.UNREADABLE:
            return
        if len(self._known) >= MAX_CHAINS:
            self._known.clear()
        self._known[chain[::_STRIDE]] = chain
