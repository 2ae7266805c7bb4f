"""What a PCK certificate says of its platform: Intel's extension 1.2.840.113741.1.13.1 (evidence 3.2).

Intel SGX PCK Certificate and CRL Profile Specification, section 1.3.5. The TCB that counts is the one in here, not the
CPUSVN in a report: Intel certified this key for it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric import ec

from adyton.crypto.chain import Role
from adyton.crypto.x509 import Certificate
from adyton.errors import EndorsementError, EndorsementMalformed
from adyton.wire import der

SPEC = "Intel PCK Certificate Profile 1.3.5; evidence 3.2"
EXTENSION = "1.2.840.113741.1.13.1"
PCK_NAME = "SGX PCK Certificate"

_ARC = bytes.fromhex("2a864886f84d010d01")  # 1.2.840.113741.1.13.1 in an OBJECT IDENTIFIER
_ENUMERATED = 0x0A
_BOOLEAN = 0x01
_SGX_TYPES = range(3)


class Pck(NamedTuple):
    """A platform as its PCK certificate describes it.

    ``components``: 16 SVNs; ``fmspc`` 6 bytes, ``pceid`` 2, ``ppid`` and ``cpusvn`` 16. ``sgx_type``: 0 standard,
    1 scalable, 2 scalable with integrity. From the Platform CA only: ``platform_instance_id`` (16) and the three settings.
    """

    certificate: Certificate
    key: ec.EllipticCurvePublicKey
    ppid: bytes
    components: tuple[int, ...]
    pcesvn: int
    cpusvn: bytes
    pceid: bytes
    fmspc: bytes
    sgx_type: int
    platform_instance_id: bytes | None
    dynamic_platform: bool | None
    cached_keys: bool | None
    smt_enabled: bool | None


def read(certificate: Certificate, role: Role) -> Pck:
    """What the certificate says, or ``EndorsementMalformed``: every part once, of its type and length."""
    extension = certificate.unknown_extensions.get(EXTENSION)
    if extension is None:
        raise _malformed(role, "it has none")
    key = certificate.public_key
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        raise role.error(EndorsementMalformed, "key", "not a P-256 key", expected="P-256", got=type(key).__name__)
    try:
        parts = _members(der.only(extension, der.SEQUENCE), _ARC)
        components, pcesvn, cpusvn = _tcb(_typed(parts, 2, der.SEQUENCE))
        settings = _members(_typed(parts, 7, der.SEQUENCE), _ARC + b"\x07") if 7 in parts else {}
        sgx_type = _typed(parts, 5, _ENUMERATED, 1)[0]
        if sgx_type not in _SGX_TYPES:
            raise ValueError(f"unknown SGX type {sgx_type}")
        return Pck(
            certificate=certificate,
            key=key,
            ppid=_typed(parts, 1, der.OCTET_STRING, 16),
            components=components,
            pcesvn=pcesvn,
            cpusvn=cpusvn,
            pceid=_typed(parts, 3, der.OCTET_STRING, 2),
            fmspc=_typed(parts, 4, der.OCTET_STRING, 6),
            sgx_type=sgx_type,
            platform_instance_id=_typed(parts, 6, der.OCTET_STRING, 16) if 6 in parts else None,
            dynamic_platform=_boolean(settings, 1),
            cached_keys=_boolean(settings, 2),
            smt_enabled=_boolean(settings, 3),
        )
    except KeyError as error:
        raise _malformed(role, f"part {error.args[0]} is missing") from error
    except ValueError as error:
        raise _malformed(role, str(error)) from error


_Members = dict[int, tuple[int, bytes]]


def _members(content: bytes, arc: bytes) -> _Members:
    """Tag and content of each SEQUENCE { OBJECT IDENTIFIER arc.n, value }, by n; ``ValueError`` if one comes twice."""
    found: _Members = {}
    bounds = der.bounds
    size = len(arc)
    offset = 0
    while offset < len(content):
        tag, body, offset = bounds(content, offset)
        if tag != der.SEQUENCE:
            raise ValueError("a part is not a pair")
        tag, begin, end = bounds(content, body)
        number = content[begin + size] if end - begin == size + 1 else -1
        if tag != der.OBJECT_IDENTIFIER or not content.startswith(arc, begin) or not 0 < number < 0x80:
            raise ValueError("a part has another identifier")
        tag, begin, end = bounds(content, end)
        if end != offset:
            raise ValueError("a part is not a pair")
        if number in found:
            raise ValueError(f"part {number} comes twice")
        found[number] = tag, content[begin:end]
    return found


def _typed(parts: _Members, number: int, tag: int, size: int | None = None) -> bytes:
    found, content = parts[number]
    if found != tag or (size is not None and len(content) != size):
        raise ValueError(f"part {number} is of another type or length")
    return content


def _boolean(parts: _Members, number: int) -> bool | None:
    if number not in parts:
        return None
    value = _typed(parts, number, _BOOLEAN, 1)
    if value not in {b"\x00", b"\xff"}:
        raise ValueError("a boolean is neither false nor true")
    return value == b"\xff"


def _integer(parts: _Members, number: int, limit: int) -> int:
    content = _typed(parts, number, der.INTEGER)
    value = der.read_integer(bytes((der.INTEGER, len(content))) + content)  # 1 to 127 bytes: longer is out of range
    if value > limit:
        raise ValueError(f"part {number} of the TCB is out of range")
    return value


def _pattern() -> re.Pattern[bytes]:
    """Intel's own order and lengths, byte for byte: what ``_slow_tcb`` reads in a fifteenth of its time."""
    arc = re.escape(_ARC + b"\x02")
    text = b""
    for number in range(1, 17):
        oid = rb"\x06\x0b" + arc + re.escape(bytes((number,)))
        text += rb"(?:\x30\x10" + oid + rb"\x02\x01([\x00-\x7f])|\x30\x11" + oid + rb"\x02\x02\x00([\x80-\xff]))"
    oid = rb"\x06\x0b" + arc + rb"\x11"
    text += (
        rb"(?:\x30\x10" + oid + rb"\x02\x01([\x00-\x7f])"
        rb"|\x30\x11" + oid + rb"\x02\x02(\x00[\x80-\xff]|[\x01-\x7f][\x00-\xff])"
        rb"|\x30\x12" + oid + rb"\x02\x03\x00([\x80-\xff][\x00-\xff]))"
    )
    text += rb"\x30\x1f\x06\x0b" + arc + rb"\x12\x04\x10([\x00-\xff]{16})"
    return re.compile(text, re.DOTALL)


_PATTERN = _pattern()


def _tcb(content: bytes) -> tuple[tuple[int, ...], int, bytes]:
    """The 16 components, the PCE's SVN, and the CPUSVN as it was written."""
    match = _PATTERN.fullmatch(content)
    if match is None:
        return _slow_tcb(content)
    found = [value for value in match.groups() if value is not None]
    return tuple([value[0] for value in found[:16]]), int.from_bytes(found[16], "big"), found[17]


def _slow_tcb(content: bytes) -> tuple[tuple[int, ...], int, bytes]:
    parts = _members(content, _ARC + b"\x02")
    components = tuple([_integer(parts, number, 0xFF) for number in range(1, 17)])
    return components, _integer(parts, 17, 0xFFFF), _typed(parts, 18, der.OCTET_STRING, 16)


def _malformed(role: Role, reason: str) -> EndorsementError:
    return role.error(EndorsementMalformed, "extension", f"Intel's extension: {reason}")
