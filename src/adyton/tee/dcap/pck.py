"""What a PCK certificate says of its platform: Intel's extension 1.2.840.113741.1.13.1 (evidence 3.2).

Intel SGX PCK Certificate and CRL Profile Specification, section 1.3.5. The TCB that counts is the one in here, not the
CPUSVN in a report: Intel certified this key for it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric import ec

from adyton.crypto.chain import Role
from adyton.crypto.ecdsa import is_p256
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
    if not is_p256(key):
        raise role.error(EndorsementMalformed, "key", "not a P-256 key", expected="P-256", got=type(key).__name__)
    try:
        return Pck(certificate, key, *_parts(extension))
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
    """The whole extension as Intel writes it, byte for byte: its order, its lengths.

    But for the lengths of what holds the TCB, which depend on the SVNs; they are captured.
    """
    arc = re.escape(_ARC)

    def pair(number: int, value: bytes, size: int, below: bytes = b"") -> bytes:
        oid = arc + below + bytes((number,))
        head = b"\x30" + bytes((size + len(below) + 12,)) + b"\x06" + bytes((len(below) + 10,))
        return re.escape(head) + oid + value

    tcb = b""
    for number in range(1, 17):
        small = pair(number, rb"\x02\x01(?=[\x00-\x7f])", 3, b"\x02")
        large = pair(number, rb"\x02\x02\x00(?=[\x80-\xff])", 4, b"\x02")
        tcb += b"(?:" + small + b"|" + large + b")(.)"
    pce = [
        pair(17, rb"\x02\x01([\x00-\x7f])", 3, b"\x02"),
        pair(17, rb"\x02\x02(\x00[\x80-\xff]|[\x01-\x7f][\x00-\xff])", 4, b"\x02"),
        pair(17, rb"\x02\x03\x00([\x80-\xff][\x00-\xff])", 5, b"\x02"),
    ]
    tcb += b"(?:" + b"|".join(pce) + b")" + pair(18, rb"\x04\x10(.{16})", 18, b"\x02")
    settings = b"".join(pair(number, rb"\x01\x01([\x00\xff])", 3, b"\x07") for number in (1, 2, 3))
    scalable = pair(6, rb"\x04\x10(.{16})", 18) + pair(7, rb"\x30\x36" + settings, 56)
    return re.compile(
        rb"\x30\x82(..)"
        + pair(1, rb"\x04\x10(.{16})", 18)
        + rb"\x30\x82(..)\x06\x0a" + arc + rb"\x02\x30\x82(..)(?P<tcb>" + tcb + b")"
        + pair(3, rb"\x04\x02(..)", 4)
        + pair(4, rb"\x04\x06(.{6})", 8)
        + pair(5, rb"\x0a\x01([\x00-\x02])", 3)
        + b"(?:" + scalable + b")?",
        re.DOTALL,
    )  # fmt: skip


_PATTERN = _pattern()
_Parts = tuple[
    bytes, tuple[int, ...], int, bytes, bytes, bytes, int, bytes | None, bool | None, bool | None, bool | None
]


def _parts(extension: bytes) -> _Parts:
    """What is in the extension, in the order of ``Pck``'s fields; ``ValueError`` or ``KeyError``."""
    match = _PATTERN.fullmatch(extension)
    if match is not None:
        whole, ppid, outer, inner, tcb, *values = [value for value in match.groups() if value is not None]
        size = len(tcb)
        if (
            int.from_bytes(whole, "big") == len(extension) - 4 > 0xFF
            and int.from_bytes(outer, "big") == size + 16
            and int.from_bytes(inner, "big") == size > 0xFF
        ):
            components = tuple(b"".join(values[:16]))
            pcesvn, cpusvn, pceid, fmspc, (sgx_type,) = values[16:21]
            number = int.from_bytes(pcesvn, "big")
            if len(values) == 21:
                return (ppid, components, number, cpusvn, pceid, fmspc, sgx_type, None, None, None, None)
            instance, *flags = values[21:]
            dynamic, cached, smt = [flag == b"\xff" for flag in flags]
            return (ppid, components, number, cpusvn, pceid, fmspc, sgx_type, instance, dynamic, cached, smt)
    return _slow_parts(extension)


def _slow_parts(extension: bytes) -> _Parts:
    """The same for any order of the parts, element by element."""
    parts = _members(der.only(extension, der.SEQUENCE), _ARC)
    tcb = _members(_typed(parts, 2, der.SEQUENCE), _ARC + b"\x02")
    settings = _members(_typed(parts, 7, der.SEQUENCE), _ARC + b"\x07") if 7 in parts else {}
    sgx_type = _typed(parts, 5, _ENUMERATED, 1)[0]
    if sgx_type not in _SGX_TYPES:
        raise ValueError(f"unknown SGX type {sgx_type}")
    return (
        _typed(parts, 1, der.OCTET_STRING, 16),
        tuple([_integer(tcb, number, 0xFF) for number in range(1, 17)]),
        _integer(tcb, 17, 0xFFFF),
        _typed(tcb, 18, der.OCTET_STRING, 16),
        _typed(parts, 3, der.OCTET_STRING, 2),
        _typed(parts, 4, der.OCTET_STRING, 6),
        sgx_type,
        _typed(parts, 6, der.OCTET_STRING, 16) if 6 in parts else None,
        _boolean(settings, 1),
        _boolean(settings, 2),
        _boolean(settings, 3),
    )


def _malformed(role: Role, reason: str) -> EndorsementError:
    return role.error(EndorsementMalformed, "extension", f"Intel's extension: {reason}")
