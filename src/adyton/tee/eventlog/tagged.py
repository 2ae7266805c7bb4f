"""EV_EVENT_TAG: an identifier, a length, bytes (TCG_PCClientTaggedEvent); and CoCo's application events in them (AAEL).

The text of an AAEL event is ``domain SP operation SP content``; domain and operation have no spaces, the content no line break.
The digest is over the whole tagged event, identifier and length included (``coco-guest`` 1.6).
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from adyton.rats.types import JsonValue
from adyton.tee.eventlog.banks import SHA384, Bank
from adyton.tee.eventlog.kinds import EVENT_TAG
from adyton.wire import strict_json

AAEL_ID: Final = 0x4141454C
COCO_DOMAIN: Final = "github.com/confidential-containers"
LINUX_INITRD: Final = 0x8F3B22EC  # kernel's EFI stub: the digest is of the initrd
LOAD_OPTIONS: Final = 0x8F3B22ED  # the digest is of the command line, UTF-16
_HEAD = struct.Struct("<II")
_MAX_JSON = 64 * 1024


class Tagged(NamedTuple):
    """A tagged event."""

    identifier: int
    content: bytes


class ApplicationEvent(NamedTuple):
    """One AAEL event. ``content`` is text; ``value`` what it is as JSON, or the text itself where it is none."""

    domain: str
    operation: str
    content: str

    @property
    def value(self) -> JsonValue:
        """The content as JSON if it is that, else as text."""
        if self.content[:1] not in {"{", "["}:
            return self.content
        try:
            return strict_json.parse(self.content, max_size=_MAX_JSON)  # type: ignore[return-value]  # JSON by its nature
        except ValueError:
            return self.content


def parse(data: bytes) -> Tagged:
    """Read a tagged event that fills ``data`` exactly, or ``ValueError``."""
    if len(data) < _HEAD.size:
        raise ValueError("shorter than a tagged event's header")
    identifier, size = _HEAD.unpack_from(data)
    if _HEAD.size + size != len(data):
        raise ValueError("a tagged event of another length")
    return Tagged(identifier, data[_HEAD.size :])


def application_event(data: bytes) -> ApplicationEvent | None:
    """The AAEL event in a tagged event's data; ``None`` if it is another kind or its text is not of the form."""
    try:
        tagged = parse(data)
        text = tagged.content.decode("utf-8")
    except ValueError:
        return None
    parts = text.split(" ", 2)
    if tagged.identifier != AAEL_ID or len(parts) != 3 or not parts[0] or not parts[1] or "\n" in text:
        return None
    return ApplicationEvent(*parts)


def encode(event: ApplicationEvent) -> bytes:
    """The data of the event as it is logged and hashed; ``ValueError`` if its parts would be read as others."""
    if not event.domain or not event.operation or " " in event.domain + event.operation:
        raise ValueError("domain and operation are words without spaces")
    text = " ".join(event)
    if "\n" in text:
        raise ValueError("an event is one line")
    body = text.encode("utf-8")
    return _HEAD.pack(AAEL_ID, len(body)) + body


def record(event: ApplicationEvent, register: int, bank: Bank = SHA384) -> bytes:
    """The event as one record of a crypto-agile log with a single digest."""
    data = encode(event)
    digest = bank.new(data).digest()
    return struct.pack("<IIIH", register, EVENT_TAG, 1, bank.identifier) + digest + struct.pack("<I", len(data)) + data
