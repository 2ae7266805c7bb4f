"""Event logs as dstack writes them: JSON, one object for each event, index 0 to 3 for RTMR0 to RTMR3.

Events of RTMR3 are its own: the digest is SHA-384(type, four bytes little-endian || ":" || name || ":" || payload), so name and
payload are covered. What dstack puts in the payload of the firmware's events is not (its review of January 2026), and is not
read here.
"""

from __future__ import annotations

import binascii
import struct
from hmac import compare_digest
from typing import Final, NamedTuple

import msgspec

from adyton.errors import EvidenceError, MalformedEvidence
from adyton.tee.eventlog.banks import SHA384
from adyton.tee.eventlog.replay import extend
from adyton.wire import strict_json

MAX_SIZE: Final = 4 * 1024 * 1024
RUNTIME_EVENT: Final = 0x08000001
RTMRS: Final = 4
SPEC = "evidence 7.1"


class DstackEvent(NamedTuple):
    """One event. ``rtmr`` 0 to 3; ``payload`` as bytes."""

    rtmr: int
    kind: int
    digest: bytes
    name: str
    payload: bytes


class _Item(msgspec.Struct):
    imr: int
    event_type: int
    digest: str
    event: str
    event_payload: str


_DECODER = msgspec.json.Decoder(list[_Item])


def parse(data: bytes | str) -> list[DstackEvent]:
    """Read a log, or ``MalformedEvidence``."""
    try:
        strict_json.parse(data, max_size=MAX_SIZE)  # for members that come twice
        return [_event(item) for item in _DECODER.decode(data)]
    except strict_json.UNREADABLE as error:
        raise MalformedEvidence(
            f"event log: {error}", code="event_log_malformed", field="event_log", spec=SPEC
        ) from error


def replay(events: list[DstackEvent]) -> tuple[bytes, ...]:
    """RTMR0 to RTMR3 as the log says."""
    values = [bytes(SHA384.size)] * RTMRS
    for event in events:
        values[event.rtmr] = extend(SHA384, values[event.rtmr], event.digest)
    return tuple(values)


def runtime_events(events: list[DstackEvent], *, tee: str) -> list[dict[str, str]]:
    """Name and payload (hex) of RTMR3's events, each of whose digests covers them; else ``EvidenceError``."""
    found: list[dict[str, str]] = []
    for number, event in enumerate(events):
        if event.rtmr != RTMRS - 1:
            continue
        covered = struct.pack("<I", event.kind) + b":" + event.name.encode("utf-8") + b":" + event.payload
        got = SHA384.new(covered).digest()
        if event.kind != RUNTIME_EVENT or not compare_digest(got, event.digest):
            raise EvidenceError(
                f"event log: name and payload of event {number} are not what was measured",
                code="event_data_digest_mismatch",
                tee=tee,
                field=f"rtmr3, event {number}",
                expected=event.digest,
                got=got,
                spec="evidence 7.3",
            )
        found.append({"event": event.name, "payload": event.payload.hex()})
    return found


def _event(item: _Item) -> DstackEvent:
    if not 0 <= item.imr < RTMRS or not 0 <= item.event_type < 1 << 32:
        raise ValueError("an event without register or type")
    try:
        value, body = binascii.unhexlify(item.digest), binascii.unhexlify(item.event_payload)
    except binascii.Error as error:
        raise ValueError("an event's bytes that are not hex") from error
    if len(value) != SHA384.size:
        raise ValueError("an event's digest that is no SHA-384")
    return DstackEvent(item.imr, item.event_type, value, item.event, body)
