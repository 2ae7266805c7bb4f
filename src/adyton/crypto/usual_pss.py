"""The same as ``usual`` for the form that AMD gives to its certificates: RSASSA-PSS with SHA-384 by a key of 4096 bits.

ARK, ASK and ASVK have extensions of X.509's own, in one of two orders; a VCEK or VLEK has AMD's, and no others. What has
neither form is ``None`` here, and ``cryptography`` reads it; as in ``usual``, it has loaded the certificate in either case.
"""

from __future__ import annotations

import re

from cryptography import x509

from adyton.crypto.usual_form import (
    BASIC_CONSTRAINTS,
    KEY_USAGE,
    POINTS,
    VERSION_3,
    CertificateParts,
    Extensions,
    usage,
)

# SubjectPublicKeyInfo of an RSA key of 4096 bits: up to its modulus, whose first bit is set; and after it, exponent 65537.
RSA_SPKI = bytes.fromhex("30820222300d06092a864886f70d01010105000382020f003082020a0282020100")
RSA_END = bytes.fromhex("0203010001")
RSA_SPKI_SIZE = len(RSA_SPKI) + 512 + len(RSA_END)

_SEQUENCE = 0x30
_TOP_BIT = 0x80
# AlgorithmIdentifier of RSASSA-PSS with SHA-384, MGF1 with SHA-384 and a salt of 48 bytes: as the certificates of chips
# have it, and those of CAs, where the trailer field is written out.
_HASH = "300d06096086480165030402020500"
_PSS = "06092a864886f70d01010a30{}a00f" + _HASH + "a11c301a06092a864886f70d010108" + _HASH + "a203020130{}"
_ALGORITHMS = tuple(bytes.fromhex(_PSS.format(*form)) for form in (("34", ""), ("39", "a303020101")))
_SIGNATURE = bytes.fromhex("0382020100")  # BIT STRING of 513 bytes, all of whose bits are used
_SIGNATURE_SIZE = 512


def certificate(encoded: bytes) -> CertificateParts | None:
    """The parts of a certificate, as ``usual.certificate``; ``IndexError`` if it is cut off."""
    end = 8 + int.from_bytes(encoded[6:8], "big")
    serial_end = encoded[14] + 15
    algorithm = _ALGORITHMS[0] if encoded.startswith(_ALGORITHMS[0], serial_end + 2) else _ALGORITHMS[1]
    size = len(algorithm)
    whole = bytes((_SEQUENCE, size)) + algorithm
    signature_at = end + size + 7
    issuer_at = serial_end + size + 4
    length = encoded[issuer_at - 1]
    if length >= 0x80:  # a name that is not short has 128 to 255 bytes
        if length != 0x81 or encoded[issuer_at] < 0x80:
            return None
        length = encoded[issuer_at]
        issuer_at += 1
    times_at = issuer_at + length
    subject_at = times_at + encoded[times_at + 1] + 4  # dates from 2050 on are longer
    length = encoded[subject_at - 1]
    if length >= 0x80:
        if length != 0x81 or encoded[subject_at] < 0x80:
            return None
        length = encoded[subject_at]
        subject_at += 1
    key_at = subject_at + length
    key_end = key_at + 2 + encoded[key_at + 1]
    content_at = key_at + 2
    if encoded[key_at + 1] == 0x82 and encoded[key_at + 2]:  # two bytes of length
        content_at = key_at + 4
        key_end = content_at + int.from_bytes(encoded[key_at + 2 : content_at], "big")
    elif encoded[key_at + 1] >= 0x80:
        return None
    if (
        encoded[:2] != b"\x30\x82"
        or not encoded[2]
        or int.from_bytes(encoded[2:4], "big") != len(encoded) - 4
        or encoded[4:6] != b"\x30\x82"
        or not encoded[6]
        or encoded[8:14] != VERSION_3
        or encoded[14] >= 0x80
        or not encoded.startswith(whole, serial_end)
        or not encoded.startswith(whole + _SIGNATURE, end)
        or signature_at + _SIGNATURE_SIZE != len(encoded)
        or encoded[serial_end + size + 2] != _SEQUENCE
        or encoded[times_at] != _SEQUENCE
        or encoded[times_at + 1] >= 0x80
        or encoded[times_at + encoded[times_at + 1] + 2] != _SEQUENCE
        or encoded[key_at] != _SEQUENCE
        or key_end > end
    ):
        return None
    return (
        encoded[15:serial_end],
        encoded[issuer_at:times_at],
        encoded[subject_at:key_at],
        algorithm,
        encoded[content_at:key_end],
        encoded[4:end],
        encoded[signature_at:],
        key_end,
        end,
    )


# OU Engineering, C US, L Santa Clara, ST CA, O Advanced Micro Devices, as AMD's names begin; then a common name.
_NAME = bytes.fromhex(
    "31143012060355040b0c0b456e67696e656572696e67310b30090603550406130255533114301206035504070c0b53616e746120436c617261"
    "310b300906035504080c024341311f301d060355040a0c16416476616e636564204d6963726f2044657669636573"
)
_COMMON_NAME = b"\x31%c\x30%c\x06\x03\x55\x04\x03\x0c%c"
_COMMON_NAME_AT = len(_NAME) + 11


def common_name(name: bytes) -> bytes | None:
    """The only common name in a distinguished name of AMD's form; ``None`` if it has another."""
    size = len(name) - _COMMON_NAME_AT
    if 0 <= size < 0x60 and name == _NAME + _COMMON_NAME % (size + 9, size + 7, size) + name[_COMMON_NAME_AT:]:
        return name[_COMMON_NAME_AT:]
    return None


def is_rsa_4096(spki: bytes) -> bool:
    """Whether a loaded SubjectPublicKeyInfo of ``RSA_SPKI_SIZE`` bytes is one of RSA with 4096 bits and e 65537, as DER has it."""
    return spki.startswith(RSA_SPKI) and spki.endswith(RSA_END) and spki[len(RSA_SPKI)] >= _TOP_BIT


_USAGES = {
    b"\x01\x04": usage("key_cert_sign"),  # as AMD writes it
    b"\x02\x04": usage("key_cert_sign"),  # as DER wants it
    b"\x01\x06": usage("key_cert_sign", "crl_sign"),
}
# BasicConstraints by its SEQUENCE's content
_CONSTRAINTS = {b"\x01\x01\xff": x509.BasicConstraints(ca=True, path_length=None)} | {
    b"\x01\x01\xff\x02\x01" + bytes((length,)): x509.BasicConstraints(ca=True, path_length=length)
    for length in range(8)
}
_SUBJECT_KEY = rb"\x30\x1d\x06\x03\x55\x1d\x0e\x04\x16\x04\x14.{20}"
_AUTHORITY_KEY = rb"\x30\x1f\x06\x03\x55\x1d\x23\x04\x18\x30\x16\x80\x14.{20}"
_BASIC = (
    rb"\x30(?:\x0f\x06\x03\x55\x1d\x13\x01\x01\xff\x04\x05\x30\x03(?P<any>\x01\x01\xff)"
    rb"|\x12\x06\x03\x55\x1d\x13\x01\x01\xff\x04\x08\x30\x06(?P<some>\x01\x01\xff\x02\x01.))"
)
_USAGE = rb"\x30\x0e\x06\x03\x55\x1d\x0f\x01\x01\xff\x04\x04\x03\x02(?P<usage>..)"
_URI = rb"(?:(?P<points>\x30.\x06\x03\x55\x1d\x1f\x04.\x30.\x30.\xa0.\xa0.\x86.)(?P<uri>[ -~]+))?"
_BELOW = re.compile(_SUBJECT_KEY + _AUTHORITY_KEY + _BASIC + _USAGE + _URI, re.DOTALL).fullmatch
_ROOT = re.compile(_USAGE + _SUBJECT_KEY + _BASIC + _URI, re.DOTALL).fullmatch
_USAGE_SIZE = 0x0E  # of the extension that a root's begin with
_CA_FIRST = frozenset({_USAGE_SIZE, 0x1D})

_ARC = bytes.fromhex("2b060104019c7801")  # 1.3.6.1.4.1.3704.1
_NAMES = {
    _ARC + bytes(below): ".".join(map(str, (1, 3, 6, 1, 4, 1, 3704, 1, *below)))
    for below in ((1,), (2,), (4,), (5,), *((3, number) for number in range(1, 10)))
}
# How an SVN begins, up to its INTEGER, with its name and its whole size: numbers below 128, and those of one byte above.
_SVNS = {
    bytes((0x30, 14 + size, 0x06, 10)) + _ARC + bytes((3, number, 0x04, size)): (
        f"1.3.6.1.4.1.3704.1.3.{number}",
        16 + size,
    )
    for number in range(1, 10)
    for size in (3, 4)
}
_SVN_HEAD = 16
_NONE: tuple[str, ...] = ()
_IDENTIFIER = 0x06
_OCTETS = 0x04


def extensions(encoded: bytes, at: int, end: int) -> Extensions | None:
    """The extensions from ``at`` to ``end`` of a loaded certificate, or ``None`` if they have another form."""
    length = encoded[at + 1]
    begin = at + (4 if length < 0x80 else 6 if length == 0x81 else 8)
    size = end - begin
    if not 0 < size < 0xFFF0 or encoded[at:begin] != _head(size):
        return None
    first = encoded[begin + 1]
    if first not in _CA_FIRST:
        return _of_chip(encoded, begin, end)
    is_root = first == _USAGE_SIZE
    match = (_ROOT if is_root else _BELOW)(encoded, begin, end)
    if match is None:
        return None
    key_usage = _USAGES.get(match["usage"])
    constraints = _CONSTRAINTS.get(match["some"] or match["any"])
    uri = match["uri"]
    if key_usage is None or constraints is None or (uri is not None and match["points"] != POINTS.get(len(uri))):
        return None
    return {
        "critical_extensions": (KEY_USAGE, BASIC_CONSTRAINTS) if is_root else (BASIC_CONSTRAINTS, KEY_USAGE),
        "basic_constraints": constraints,
        "key_usage": key_usage,
        "unknown_extensions": {},
    }


def _head(size: int) -> bytes:
    """What stands before extensions of this many bytes."""
    if size < 0x7E:
        return bytes((0xA3, size + 2, 0x30, size))
    if 0x80 <= size < 0xFD:
        return bytes((0xA3, 0x81, size + 3, 0x30, 0x81, size))
    return b"\xa3\x82" + (size + 4).to_bytes(2, "big") + b"\x30\x82" + size.to_bytes(2, "big")


def _of_chip(encoded: bytes, at: int, end: int) -> Extensions | None:
    """AMD's own, none of them critical, each once."""
    found: dict[str, bytes] = {}
    count = 0
    try:
        while at < end:
            count += 1
            svn = _SVNS.get(encoded[at : at + _SVN_HEAD])
            if svn is not None:
                name, size = svn
                found[name] = encoded[at + _SVN_HEAD : at + size]
                at += size
                continue
            last = at + 2 + encoded[at + 1]
            value_at = at + 4 + encoded[at + 3]
            other = _NAMES.get(encoded[at + 4 : value_at])
            if (
                other is None
                or encoded[at] != _SEQUENCE
                or encoded[at + 2] != _IDENTIFIER
                or encoded[value_at] != _OCTETS
                or not encoded[value_at + 1] == last - value_at - 2 < 0x80
                or encoded[at + 1] >= 0x80
            ):
                return None
            found[other] = encoded[value_at + 2 : last]
            at = last
    except IndexError:
        return None
    if at != end or len(found) != count:
        return None
    return {"critical_extensions": _NONE, "basic_constraints": None, "key_usage": None, "unknown_extensions": found}
