"""``uefi_event_logs``: a log as CoCo's Rego policies read it (``kbs-protocol`` 2.4, event entries).

Names, encodings and what stands in ``details`` per type are those of CoCo's own verifier, oddities included: a variable's
GUID is printed in the order of its bytes. Of an entry only ``index`` and ``digests`` are covered by a quote; a policy must
ask for ``digest_matches_event`` before it believes ``event`` or ``details``.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

from adyton.rats.types import JsonValue
from adyton.tee.eventlog import kinds, tagged, variables
from adyton.tee.eventlog.log import EventLog
from adyton.wire import b64

_GOOGLE_IPL = b"\x2e\0"
_Details = dict[str, JsonValue]


def entries(log: EventLog) -> list[JsonValue]:
    """One object for each event, the header not among them."""
    data = log.data
    banks = log.banks
    found: list[JsonValue] = []
    for register, kind, digests, begin, end in log.rows:
        body = data[begin:end]
        matches = True
        listed: list[JsonValue] = []
        for bank, digest in zip(banks, digests, strict=True):
            if digest is not None:
                listed.append({"alg": bank.label, "digest": digest.hex()})
                matches = matches and bank.new(body).digest() == digest
        found.append(
            {
                "index": register,
                "type_name": kinds.name(kind),
                "digests": listed,
                "digest_matches_event": matches,
                "event": b64.encode(body),
                "details": details(kind, body),
            }
        )
    return found


def details(kind: int, body: bytes) -> dict[str, JsonValue]:
    """What the event's data says, for the types that are read; an empty object for others, and for what cannot be read."""
    reader = _READERS.get(kind)
    if reader is None:
        return {}
    try:
        return reader(body)
    except ValueError:
        return {}


def _text(body: bytes) -> _Details:
    return {"string": body.decode("utf-8")}


def _ipl(body: bytes) -> _Details:
    if body.startswith(_GOOGLE_IPL) and len(body) > len(_GOOGLE_IPL):
        return {"string": body[2:].decode("utf-16-le").rstrip("\0")}
    text = body.split(b"\0", 1)[0]
    try:
        return {"string": text.decode("utf-8")}
    except UnicodeDecodeError:
        return {"string": body.hex()}


def _described(body: bytes) -> _Details:
    """A length byte and a description; the length counts a NUL that CoCo drops."""
    size = body[0] if body else 0
    if not size or len(body) < 1 + size:
        raise ValueError("no description")
    return {"string": body[1:size].decode("utf-8")}


def _flags(body: bytes) -> _Details:
    """Without control characters, but a space for each DLE; empty if it is no text."""
    try:
        text = body.decode("utf-8").replace("\x10", " ")
    except UnicodeDecodeError:
        return {"string": ""}
    return {"string": "".join(character for character in text if unicodedata.category(character) != "Cc")}


def _variable(body: bytes) -> _Details:
    guid, name, content = variables.variable(body)
    raw = guid.hex()
    return {
        "unicode_name": name,
        "unicode_name_length": len(name.encode("utf-16-le")) // 2,
        "variable_data": b64.encode(content),
        "variable_data_length": len(content),
        "variable_name": f"{raw[:8]}-{raw[8:12]}-{raw[12:16]}-{raw[16:20]}-{raw[20:]}",
    }


def _image(body: bytes) -> _Details:
    path = variables.image_path(body)
    return {"device_paths": [*path]} if path else {}


def _tag(body: bytes) -> _Details:
    event = tagged.application_event(body)
    text = tagged.parse(body).content.decode("utf-8").replace("\0", "")
    if event is None:
        return {"string": text}
    data: dict[str, JsonValue] = {"domain": event.domain, "operation": event.operation, "content": event.value}
    return {"string": text, "unicode_name": "AAEL", "data": data}


_READERS: dict[int, Callable[[bytes], _Details]] = {
    kinds.POST_CODE: _text,
    kinds.ACTION: _text,
    kinds.COMPACT_HASH: _text,
    kinds.OMIT_BOOT_DEVICE_EVENTS: _text,
    kinds.EFI_ACTION: _text,
    kinds.IPL: _ipl,
    kinds.PLATFORM_CONFIG_FLAGS: _flags,
    kinds.EFI_PLATFORM_FIRMWARE_BLOB2: _described,
    kinds.EFI_HANDOFF_TABLES2: _described,
    kinds.EFI_VARIABLE_DRIVER_CONFIG: _variable,
    kinds.EFI_VARIABLE_BOOT: _variable,
    kinds.EFI_VARIABLE_BOOT2: _variable,
    kinds.EFI_VARIABLE_AUTHORITY: _variable,
    kinds.EFI_BOOT_SERVICES_APPLICATION: _image,
    kinds.EVENT_TAG: _tag,
}
