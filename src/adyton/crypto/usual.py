"""Where the parts of a certificate or CRL lie, and its extensions where they have the form that most DCAP certificates have.

What has the form that Intel gives to its certificates and CRLs (P-256, SHA-256, short names) is taken apart in one go; any
other, element by element, to the same parts. ``cryptography`` stays the judge of what is a certificate: ``extensions`` answers only for one that it has loaded, and only
if every byte of them is as expected; each such form is one that ``cryptography`` reads to the same values. For any other
the answer is ``None``, and whoever asks lets ``cryptography`` read it, which takes several times as long.
"""

from __future__ import annotations

import re

from cryptography import x509

from adyton.crypto import usual_pss
from adyton.crypto.usual_form import (
    BASIC_CONSTRAINTS,
    KEY_USAGE,
    POINTS,
    VERSION_3,
    CertificateParts,
    Extensions,
    usage,
)
from adyton.wire import der

INTEL = "1.2.840.113741.1.13.1"

# SubjectPublicKeyInfo of a P-256 key: id-ecPublicKey, prime256v1, an uncompressed point of 64 bytes more.
P256_SPKI = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")
P256_SPKI_SIZE = 91

_COMMON_NAME = bytes.fromhex("0603550403")  # 2.5.4.3
_USUAL_NAME = _COMMON_NAME + b"\x0c"
_TEXT = frozenset({0x0C, 0x13})  # UTF8String, PrintableString


# Tag and content of the first elements of what is signed; what is signed; the signature; where the last of those elements
# ends, and where what is signed ends.
Parts = tuple[list[tuple[int, bytes]], bytes, bytes, int, int]


# Issuer, algorithm, what is signed, the signature; its number, if it is known to have no other extension of consequence.
CrlParts = tuple[bytes, bytes, bytes, bytes, int | None]

_ECDSA_SHA256 = bytes.fromhex("06082a8648ce3d040302")
_ALGORITHM = b"\x30\x0a" + _ECDSA_SHA256
_BEFORE_NAME = _ALGORITHM + b"\x30"  # that of an issuer follows
_VERSION_2 = b"\x02\x01\x01" + _BEFORE_NAME
_TIMES = b"\x30\x1e\x17\x0d"  # two UTCTimes; the first one's header
_TIMES_SIZE = 32
_VERSION_TAG = 0xA0


def certificate(encoded: bytes) -> CertificateParts:
    """The parts of a certificate; ``ValueError`` as ``parts``, and if it is of version 1, which has no extensions."""
    try:
        usual = _usual_certificate(encoded) or usual_pss.certificate(encoded)
    except IndexError:  # cut off: told below
        usual = None
    if usual is not None:
        return usual
    found, signed, signature, key_end, end = parts(encoded, 7, 2)
    version, serial, algorithm, issuer, _, subject, key = found
    if version[0] != _VERSION_TAG:
        raise ValueError("version 1, which has no extensions")
    return serial[1], issuer[1], subject[1], algorithm[1], key[1], signed, signature, key_end, end


def _usual_certificate(encoded: bytes) -> CertificateParts | None:
    """In one go, or ``None``; ``IndexError`` if it is cut off."""
    end = 8 + int.from_bytes(encoded[6:8], "big")
    if encoded[4:6] != b"\x30\x82" or not encoded[6] or encoded[8:14] != VERSION_3 or not _is_usual(encoded, end):
        return None
    algorithm_at = encoded[14] + 15
    if encoded[14] >= 0x80 or not encoded.startswith(_BEFORE_NAME, algorithm_at):
        return None
    issuer_at = algorithm_at + 14
    length = encoded[issuer_at - 1]
    if length >= 0x80:  # a name that is not short has 128 to 255 bytes
        if length != 0x81 or encoded[issuer_at] < 0x80:
            return None
        length = encoded[issuer_at]
        issuer_at += 1
    times_at = issuer_at + length
    if not encoded.startswith(_TIMES, times_at) or encoded[times_at + _TIMES_SIZE] != der.SEQUENCE:
        return None
    subject_at = times_at + _TIMES_SIZE + 2
    length = encoded[subject_at - 1]
    if length >= 0x80:
        if length != 0x81 or encoded[subject_at] < 0x80:
            return None
        length = encoded[subject_at]
        subject_at += 1
    key_at = subject_at + length
    key_end = key_at + P256_SPKI_SIZE
    if key_end > end or not encoded.startswith(P256_SPKI, key_at):
        return None
    return (
        encoded[15:algorithm_at],
        encoded[issuer_at:times_at],
        encoded[subject_at:key_at],
        _ECDSA_SHA256,
        encoded[key_at + 2 : key_end],
        encoded[4:end],
        encoded[end + 15 :],
        key_end,
        end,
    )


def crl(encoded: bytes) -> CrlParts:
    """The parts of a CRL; ``ValueError`` as ``parts``, and if it is of version 1, which has no extensions."""
    try:
        at = 7 if encoded[4:6] == b"\x30\x81" else 8  # a short one's length takes one byte
        end = at + int.from_bytes(encoded[6:at], "big")
        name_at = at + len(_VERSION_2) + 1
        if (
            encoded.startswith(_VERSION_2, at)
            and _is_usual(encoded, end)
            and (encoded[6] >= 0x80 if at == 7 else encoded[4:6] == b"\x30\x82" and encoded[6])
            and encoded[name_at - 1] < 0x80
            and name_at + encoded[name_at - 1] <= end
        ):
            name_end = name_at + encoded[name_at - 1]
            number = _crl_number(encoded, name_end, end)
            return encoded[name_at:name_end], _ECDSA_SHA256, encoded[4:end], encoded[end + 15 :], number
    except IndexError:
        pass
    (version, algorithm, name), signed, signature, _, _ = parts(encoded, 3, 1)
    if version[0] != der.INTEGER:
        raise ValueError("version 1, which has no extensions")
    return name[1], algorithm[1], signed, signature, None


# The end of what Intel's CRLs say: a cRLNumber of one byte, and authorityKeyIdentifier.
_CRL_EXTENSIONS = re.compile(
    rb"\xa0\x2f\x30\x2d\x30\x0a\x06\x03\x55\x1d\x14\x04\x03\x02\x01([\x00-\x7f])"
    rb"\x30\x1f\x06\x03\x55\x1d\x23\x04\x18\x30\x16\x80\x14.{20}",
    re.DOTALL,
).fullmatch


def _crl_number(encoded: bytes, at: int, end: int) -> int | None:
    """The number of a CRL that has these extensions and no others, from where its issuer's name ends."""
    for _ in range(2):
        if encoded[at : at + 2] != b"\x17\x0d":  # begin and end
            return None
        at += 15
    if encoded[at] == der.SEQUENCE:  # what is revoked
        try:
            _, _, at = der.bounds(encoded, at)
        except ValueError:
            return None  # the library's question
    match = _CRL_EXTENSIONS(encoded, at, end)
    return match[1][0] if match is not None else None


def _is_usual(encoded: bytes, end: int) -> bool:
    """One sequence of three: what is signed, up to ``end``; ECDSA with SHA-256; a signature of whole bytes, less than 128."""
    return (
        encoded[:2] == b"\x30\x82"
        and encoded[2] != 0
        and int.from_bytes(encoded[2:4], "big") == len(encoded) - 4
        and encoded.startswith(_ALGORITHM, end)
        and encoded[end + 12] == der.BIT_STRING
        and encoded[end + 13] == len(encoded) - end - 14 < 0x80
        and encoded[end + 14] == 0
    )


def parts(encoded: bytes, count: int, algorithm: int) -> Parts:
    """The parts of a certificate or CRL.

    ``ValueError`` if it has fewer elements, is not one sequence of three, or names one algorithm inside (element number
    ``algorithm``) and another outside.
    """
    bounds = der.bounds
    tag, signed_at, end = bounds(encoded)
    if tag != der.SEQUENCE or end != len(encoded):
        raise ValueError("not one sequence")
    tag, offset, signed_end = bounds(encoded, signed_at)
    if tag != der.SEQUENCE:
        raise ValueError("what is signed is not a sequence")
    found = []
    try:
        for _ in range(count):
            tag, length = encoded[offset], encoded[offset + 1]
            if length < 0x80 and tag & 0x1F != 0x1F:
                body = offset + 2
                offset = body + length
            else:
                tag, body, offset = bounds(encoded, offset)
            if offset > signed_end:
                raise ValueError("an element is longer than what holds it")
            found.append((tag, encoded[body:offset]))
        named = found[algorithm][1]
        at = signed_end + 2
        if len(named) < 0x80 and encoded.startswith(named, at) and encoded[at - 1] == len(named):
            at += len(named)
        else:
            _, body, at = bounds(encoded, signed_end)
            if encoded[body:at] != named:
                raise ValueError("what is signed names another algorithm than the signature")
        tag, length, body = encoded[at], encoded[at + 1], at + 2
        last = body + length
        if length >= 0x80:
            _, body, last = bounds(encoded, at)
        if tag != der.BIT_STRING or last != end or encoded[body] != 0:
            raise ValueError("the signature is not whole bytes at the end")
    except IndexError:
        raise ValueError("an element is cut off") from None
    return found, encoded[signed_at:signed_end], encoded[body + 1 : last], offset, signed_end


def common_names(name: bytes) -> list[bytes]:
    """The common names in a loaded distinguished name (the content of its SEQUENCE); ``ValueError`` if it cannot be read."""
    if name.startswith(_USUAL_NAME, 4) and name[0] == der.SET and name[2] == der.SEQUENCE and len(name) > 11:
        end = name[10] + 11
        if name[1] == end - 2 < 0x80 and name[3] == end - 4 and end <= len(name) and name.find(_COMMON_NAME, end) < 0:
            return [name[11:end]]  # as Intel's names begin; no other part is a common name
    only = usual_pss.common_name(name)
    if only is not None:
        return [only]
    found = []
    bounds = der.bounds
    offset, whole = 0, len(name)
    while offset < whole:
        body = offset + 2
        if body <= whole and name[offset] == der.SET and name[body - 1] < 0x80 and body + name[body - 1] <= whole:
            offset = body + name[body - 1]
        else:
            _, body, offset = bounds(name, offset)
        if name.find(_COMMON_NAME, body, offset) < 0:  # most parts of a name are others
            continue
        size = offset - body - 9
        pair = name[body : body + 9]
        if (
            0 <= size < 0x75
            and pair[2:7] == _COMMON_NAME
            and pair[:2] == bytes((der.SEQUENCE, size + 7))
            and pair[8] == size
        ):
            if pair[7] in _TEXT:  # the part's only pair, and its value is all the rest
                found.append(name[body + 9 : offset])
            continue
        while body < offset:
            _, kind_at, body = bounds(name, body)
            _, _, value_at = bounds(name, kind_at)
            tag, value, last = bounds(name, value_at)
            if last != body:
                raise ValueError("a part of the name is not a pair")
            if name[kind_at:value_at] == _COMMON_NAME and tag in _TEXT:
                found.append(name[value:last])
    return found


# KeyUsage by its BIT STRING: unused bits, bits
_USAGES = {
    b"\x07\x80": usage("digital_signature"),
    b"\x06\xc0": usage("digital_signature", "content_commitment"),
    b"\x01\x06": usage("key_cert_sign", "crl_sign"),
}
# BasicConstraints by its SEQUENCE's content
_CONSTRAINTS = {b"": x509.BasicConstraints(ca=False, path_length=None)} | {
    b"\x01\x01\xff\x02\x01" + bytes((length,)): x509.BasicConstraints(ca=True, path_length=length)
    for length in range(8)
}
_CRITICAL = (KEY_USAGE, BASIC_CONSTRAINTS)


# In this order: authorityKeyIdentifier, cRLDistributionPoints with one URI, subjectKeyIdentifier, keyUsage and
# basicConstraints, both critical, and Intel's.
_FORM = re.compile(
    rb"\xa3(?:\x81.|\x82..)\x30(?:\x81(.)|\x82(..))"
    rb"\x30\x1f\x06\x03\x55\x1d\x23\x04\x18\x30\x16\x80\x14.{20}"
    rb"(\x30.\x06\x03\x55\x1d\x1f\x04.\x30.\x30.\xa0.\xa0.\x86.)([ -~]+)"
    rb"\x30\x1d\x06\x03\x55\x1d\x0e\x04\x16\x04\x14.{20}"
    rb"\x30\x0e\x06\x03\x55\x1d\x0f\x01\x01\xff\x04\x04\x03\x02(..)"
    rb"\x30(?:\x0c\x06\x03\x55\x1d\x13\x01\x01\xff\x04\x02\x30\x00"
    rb"|\x12\x06\x03\x55\x1d\x13\x01\x01\xff\x04\x08\x30\x06(\x01\x01\xff\x02\x01.))"
    rb"(?:\x30\x82(..)\x06\x09\x2a\x86\x48\x86\xf8\x4d\x01\x0d\x01\x04\x82(..)(.*))?",
    re.DOTALL,
)


def extensions(encoded: bytes, at: int, end: int) -> Extensions | None:
    """The extensions from ``at`` to ``end`` of a loaded certificate, or ``None`` if they have another form."""
    match = _FORM.fullmatch(encoded, at, end)
    if match is None:
        return usual_pss.extensions(encoded, at, end)
    short, long, points, uri, bits, authority, outer, inner, private = match.groups()
    bits_meant = _USAGES.get(bits)
    constraints = _CONSTRAINTS.get(authority or b"")
    inside = end - at - (6 if long is None else 8)
    if (
        bits_meant is None
        or constraints is None
        or points != POINTS.get(len(uri))
        or int.from_bytes(long or short, "big") != inside
    ):
        return None
    unknown = {}
    if private is not None:
        size = len(private)
        if size < 0x100 or int.from_bytes(inner, "big") != size or int.from_bytes(outer, "big") != size + 15:
            return None
        unknown[INTEL] = private
    return {
        "critical_extensions": _CRITICAL,
        "basic_constraints": constraints,
        "key_usage": bits_meant,
        "unknown_extensions": unknown,
    }
