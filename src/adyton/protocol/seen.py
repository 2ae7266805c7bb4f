"""What the record of decisions tells about machines and receivers (``GET /api/v0/platforms``, ``/api/v0/receivers``)."""

from __future__ import annotations

import msgspec


class PlatformView(msgspec.Struct, frozen=True):
    """A machine that attested. Times are RFC 3339; ``tcb_since``: when it was first seen with this ``tcb``.

    ``platform`` is the id in its evidence; ``root`` is ``vendor`` or ``custom``; ``status`` that of its last attestation.
    """

    platform: str
    tee: str
    root: str
    tcb: dict[str, object]
    first_seen: str
    tcb_since: str
    last_seen: str
    status: str
    attestations: int


class ReceiverView(msgspec.Struct, frozen=True):
    """Who asked for a resource: what runs (``measurement``) and what it is (``host_data``), in hex.

    ``last`` (RFC 3339) and ``last_id`` are the latest decision's; ``reasons`` are its.
    """

    resource: str
    tee: str
    measurement: str
    host_data: str
    root: str
    released: int
    refused: int
    last: str
    last_id: str
    last_decision: str
    reasons: tuple[str, ...]


class Platforms(msgspec.Struct, frozen=True):
    """All of them that attested since row ``after`` of the record, the latest first."""

    after: int
    platforms: list[PlatformView]


class Receivers(msgspec.Struct, frozen=True):
    """All that asked since row ``after`` of the record, the latest first."""

    after: int
    receivers: list[ReceiverView]
