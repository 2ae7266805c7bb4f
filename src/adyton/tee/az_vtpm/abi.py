"""The HCL report that an Azure guest reads from NV index 0x01400001 of its vTPM (evidence 5), little-endian.

Header, 32 bytes: ``HCLA``, version (1 or 2), size of what is used, request type, status and reserved. Hardware report at 0x20,
1184 bytes: an SNP report, or a TDREPORT in the first 1024 and zeros. Runtime header at 0x4C0, 20 bytes: size (its own and
the claims'), version 1, report type (2 SNP, 4 TDX), hash type (1 SHA-256), length of the claims. Runtime claims: JSON,
hashed as the bytes that they are. After them zeros, up to the NV index's size: kept apart, and never interpreted.
"""

from __future__ import annotations

import hashlib
import struct
from functools import lru_cache
from typing import NamedTuple

import msgspec

from adyton.errors import MalformedEvidence
from adyton.rats.types import JsonValue
from adyton.wire import b64, strict_json

TEE = "az-vtpm"
SPEC = "evidence 5"
HEADER_SIZE = 32
REPORT_SIZE = 1184
TDREPORT_SIZE = 1024
CLAIMS_AT = 0x4D4
MAX_SIZE = 16 * 1024
SNP_TYPE, TDX_TYPE = 2, 4
SHA256_TYPE = 1
_HEADER = struct.Struct("<4sIII16s")
_RUNTIME = struct.Struct("<IIIII")
_VERSIONS = frozenset({1, 2})
_AK, _EK = "HCLAkPub", "HCLEkPub"


class _Key(msgspec.Struct):
    kid: str
    kty: str
    n: str
    e: str


class _Claims(msgspec.Struct):
    keys: list[_Key]
    configuration: dict[str, msgspec.Raw] = msgspec.field(name="vm-configuration", default_factory=dict)
    user_data: str = msgspec.field(name="user-data", default="")


class HclReport(msgspec.Struct, frozen=True):
    """One HCL report. ``hardware_report``: 1184 bytes as they stand; ``claims``: the JSON's bytes; ``tail``: what follows."""

    version: int
    request_type: int
    reserved: bytes
    hardware_report: bytes
    report_type: int
    claims: bytes
    tail: bytes

    @classmethod
    def parse(cls, data: bytes) -> HclReport:
        """From an NV index's content, or ``MalformedEvidence``."""
        if not CLAIMS_AT <= len(data) <= MAX_SIZE:
            raise malformed("an HCL report has 1236 bytes or more", got=len(data))
        magic, version, used, request_type, reserved = _HEADER.unpack_from(data)
        size, runtime_version, report_type, hash_type, length = _RUNTIME.unpack_from(data, HEADER_SIZE + REPORT_SIZE)
        if magic != b"HCLA" or version not in _VERSIONS:
            raise malformed("not an HCL report of version 1 or 2", field="header", got=data[:8])
        if runtime_version != 1 or hash_type != SHA256_TYPE or report_type not in {SNP_TYPE, TDX_TYPE}:
            got = [runtime_version, report_type, hash_type]
            raise malformed(
                "runtime data of an unknown kind", field="runtime_header", expected=[1, "2 or 4", 1], got=got
            )
        end = CLAIMS_AT + length
        if end > len(data) or size != _RUNTIME.size + length or used != end:
            raise malformed("lengths that contradict each other", field="runtime_header", got=[used, size, length])
        hardware = data[HEADER_SIZE : HEADER_SIZE + REPORT_SIZE]
        if report_type == TDX_TYPE and any(hardware[TDREPORT_SIZE:]):
            raise malformed("bytes after the TDREPORT", field="hardware_report")
        return cls(version, request_type, reserved, hardware, report_type, data[CLAIMS_AT:end], data[end:])

    def encode(self) -> bytes:
        """The bytes that ``parse`` takes."""
        length = len(self.claims)
        header = _HEADER.pack(b"HCLA", self.version, CLAIMS_AT + length, self.request_type, self.reserved)
        runtime = _RUNTIME.pack(_RUNTIME.size + length, 1, self.report_type, SHA256_TYPE, length)
        return header + self.hardware_report + runtime + self.claims + self.tail

    @property
    def td_report(self) -> bytes:
        """The TDREPORT, 1024 bytes, of a report of type 4."""
        return self.hardware_report[:TDREPORT_SIZE]

    @property
    def bound(self) -> bytes:
        """What the hardware's report data must be: SHA-256 of the claims, then 32 zero bytes."""
        return hashlib.sha256(self.claims).digest() + bytes(32)


class RuntimeClaims(NamedTuple):
    """What the paravisor says of the VM. ``ak``: the attestation key's modulus and exponent; ``user_data``: 64 bytes."""

    ak: tuple[int, int]
    ek: tuple[int, int] | None
    configuration: dict[str, JsonValue]
    user_data: bytes

    @classmethod
    def parse(cls, data: bytes) -> RuntimeClaims:
        """From the JSON's bytes, or ``MalformedEvidence``. Members that are not known are left alone: they are signed."""
        return _claims_of(data)


@lru_cache(maxsize=64)
def _claims_of(data: bytes) -> RuntimeClaims:
    """A VM says the same until it starts again; what its bytes mean is a function of them."""
    try:
        strict_json.parse(data, max_size=MAX_SIZE)
        claims = msgspec.json.decode(data, type=_Claims)
        configuration = {name: msgspec.json.decode(value) for name, value in claims.configuration.items()}
        user_data = bytes.fromhex(claims.user_data)
        if claims.user_data != user_data.hex().upper() and claims.user_data != user_data.hex():
            raise ValueError("user-data is not plain hex")
        found = {key.kid: (_number(key.n), _number(key.e)) for key in claims.keys if key.kty == "RSA"}
    except strict_json.UNREADABLE as error:
        raise malformed("runtime claims that cannot be read", field="claims") from error
    if len(found) != len(claims.keys) or _AK not in found:
        raise malformed("runtime claims without one RSA attestation key", field="keys", expected=_AK)
    if len(user_data) not in {0, 64}:
        raise malformed("user data has 64 bytes", field="user-data", got=len(user_data))
    return RuntimeClaims(found[_AK], found.get(_EK), configuration, user_data)


def _number(text: str) -> int:
    return int.from_bytes(b64.decode_url(text), "big")


def malformed(
    message: str, *, field: str | None = None, expected: object = None, got: object = None
) -> MalformedEvidence:
    """An error about the format."""
    return MalformedEvidence(message, tee=TEE, field=field, expected=expected, got=got, spec=SPEC)
