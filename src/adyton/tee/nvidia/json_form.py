"""The JSON in which Confidential Containers sends the evidence of one or several devices (``kbs-protocol`` 2.4, ``nvidia``).

``{"device_evidence_list": [{"arch", "uuid"?, "evidence": hex or base64, "certificate": base64 of the PEM chain}]}``. Every
member is a string, known, and there once; ``MalformedEvidence`` otherwise. ``arch`` and ``uuid`` are the host's words: the
first is compared with the device's certificate, the second cannot be.
"""

from __future__ import annotations

import binascii
from functools import lru_cache
from typing import NamedTuple

import msgspec

from adyton.errors import MalformedEvidence
from adyton.wire import b64, strict_json

MAX_SIZE = 1024 * 1024
MAX_DEVICES = 32
MAX_CERTIFICATES = 64 * 1024  # characters of a device's certificates; five have some 7000. The last ones are kept
MAX_UUID = 128
SPEC = "kbs-protocol 2.4 nvidia"
_ARCHES = {
    "HOPPER": "HOPPER",
    "Hopper": "HOPPER",
    "BLACKWELL": "BLACKWELL",
    "Blackwell": "BLACKWELL",
    "LS10": "LS10",
}
_BEGINS = frozenset(b"{ \t\r\n")  # none of which a report begins with


class _Device(msgspec.Struct, forbid_unknown_fields=True):
    arch: str
    evidence: str
    certificate: str
    uuid: str | msgspec.UnsetType = msgspec.UNSET


class _Evidence(msgspec.Struct, forbid_unknown_fields=True):
    device_evidence_list: list[_Device]


class Device(NamedTuple):
    """One device's evidence: its report in bytes, the PEM text of its certificates, and what the host says about it."""

    report: bytes
    pem: bytes
    arch: str | None = None
    uuid: str | None = None


_EVIDENCE = msgspec.json.Decoder(_Evidence)


def is_json(evidence: bytes) -> bool:
    """Whether evidence is in CoCo's JSON form rather than a raw report."""
    return bool(evidence) and evidence[0] in _BEGINS


def parse(data: bytes) -> tuple[Device, ...]:
    """The devices in the document, at least one; their reports are not read yet."""
    if len(data) > MAX_SIZE:
        raise MalformedEvidence(
            "evidence is too large",
            code="evidence_too_large",
            tee="nvidia",
            expected=MAX_SIZE,
            got=len(data),
            spec=SPEC,
        )
    try:
        listed = _EVIDENCE.decode(data).device_evidence_list
    except strict_json.UNREADABLE as error:
        raise _malformed(str(error)[:200]) from error
    if not 1 <= len(listed) <= MAX_DEVICES:
        raise _malformed(f"not 1 to {MAX_DEVICES} devices")
    # No member twice: names and values are plain strings, so each takes two quotation marks and no value has one in it.
    strings = 1 + sum(6 + 2 * (device.uuid is not msgspec.UNSET) for device in listed)
    if data.count(b'"') != 2 * strings:
        raise _malformed("an object has two members of the same name, or a value has a quotation mark")
    return tuple(_device(device) for device in listed)


def to_json(devices: tuple[Device, ...]) -> bytes:
    """The document; reports in base64. ``ValueError`` for what ``parse`` would refuse."""
    listed = [
        {"arch": device.arch, "evidence": b64.encode(device.report), "certificate": b64.encode(device.pem)}
        | ({"uuid": device.uuid} if device.uuid is not None else {})
        for device in devices
    ]
    encoded = msgspec.json.encode({"device_evidence_list": listed})
    try:
        parse(encoded)
    except MalformedEvidence as error:
        raise ValueError(error.message) from error
    return encoded


def _device(fields: _Device) -> Device:
    arch = _ARCHES.get(fields.arch)
    if arch is None:
        raise _malformed(f"an architecture that is not one of {', '.join(sorted(set(_ARCHES.values())))}")
    uuid = fields.uuid if isinstance(fields.uuid, str) else None
    if uuid is not None and (len(uuid) > MAX_UUID or not uuid.isprintable()):
        raise _malformed("a uuid that is none")
    if len(fields.certificate) > MAX_CERTIFICATES:
        raise _malformed(f"certificates of more than {MAX_CERTIFICATES} characters")
    try:
        # A report begins with 11 e0; base64 that begins with these characters would be another message.
        in_hex = fields.evidence[:4].lower() == "11e0"
        report = binascii.unhexlify(fields.evidence) if in_hex else b64.decode(fields.evidence)
        pem = _pem(fields.certificate)
    except ValueError as error:
        raise _malformed("evidence is hex or base64, certificate is base64") from error
    return Device(report, pem, arch, uuid)


@lru_cache(maxsize=64)
def _pem(text: str) -> bytes:
    """A device sends the same certificates with every report."""
    return b64.decode(text)


def _malformed(reason: str) -> MalformedEvidence:
    return MalformedEvidence(f"not NVIDIA evidence in JSON: {reason}", code="json_malformed", tee="nvidia", spec=SPEC)
