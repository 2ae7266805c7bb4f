"""Windows' own events (WBCL): tagged events in PCRs 11 to 14 that hold further ones, aggregated to any depth.

The walk keeps its own stack and a limit of depth: a log that nests without end, as one that overran another verifier's
stack with early-launch anti-malware events (go-attestation, 2026-08), is ``ValueError`` here. Microsoft's headers
(``wbcl.h``) name the types; they are not believed any more than other event data.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

AGGREGATION: Final = 0x40000000
MAX_DEPTH: Final = 8  # real logs nest twice
MAX_EVENTS: Final = 4096
_HEAD = struct.Struct("<II")


class Sipa(NamedTuple):
    """One event: how deep it is nested, its type, its data (of an aggregation, all that it holds)."""

    depth: int
    kind: int
    data: bytes


def parse(data: bytes) -> list[Sipa]:
    """All events in the data of one EV_EVENT_TAG, outer ones before what they hold; ``ValueError`` if it cannot be read."""
    found: list[Sipa] = []
    stack = [(data, 0)]
    while stack:
        body, depth = stack.pop()
        if depth > MAX_DEPTH:
            raise ValueError(f"events nested deeper than {MAX_DEPTH}")
        inner: list[tuple[bytes, int]] = []
        offset = 0
        while offset < len(body):
            if offset + _HEAD.size > len(body):
                raise ValueError("an event is cut off")
            kind, size = _HEAD.unpack_from(body, offset)
            begin = offset + _HEAD.size
            offset = begin + size
            if offset > len(body):
                raise ValueError("an event is longer than what holds it")
            if len(found) == MAX_EVENTS:
                raise ValueError(f"more than {MAX_EVENTS} events")
            found.append(Sipa(depth, kind, body[begin:offset]))
            if kind & AGGREGATION:
                inner.append((body[begin:offset], depth + 1))
        stack += reversed(inner)
    return found
