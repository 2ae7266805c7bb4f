"""Who certified the quoting enclave, by the quote's certification data (evidence 3.1): the PCK certificate, or how to find it.

Type 5 is the chain, leaf first; 4 the leaf alone. Types 1 to 3 name the platform by its PPID, in the clear or encrypted to
Intel: then the certificate must be among the endorsements, and it is the one whose key signed the QE's report. Type 7, a
platform manifest, is for registration and certifies nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from adyton.crypto.chain import by_preference
from adyton.crypto.ecdsa import is_p256, verify_p256
from adyton.crypto.x509 import Certificate
from adyton.errors import EndorsementError, MalformedEvidence, SignatureInvalid, UnsupportedEvidence
from adyton.tee.dcap.documents import Collateral, Reader, decoded
from adyton.tee.dcap.endorsements import SERVICE
from adyton.tee.dcap.pck import PCK_NAME
from adyton.tee.dcap.quote import PCK_CHAIN, Quote

PCK_LEAF = 4
BY_PPID = (1, 2, 3)
EMBEDDED = (PCK_LEAF, PCK_CHAIN)
MAX_CANDIDATES = 32
SPEC = "evidence 3.1"

_BEGIN = b"-----BEGIN CERTIFICATE-----\n"
_END = b"-----END CERTIFICATE-----"


def split(quote: Quote) -> tuple[bytes, bytes]:
    """The PEM text of the leaf and that of its issuers; nothing where the quote holds no certificate."""
    if quote.certification_type == PCK_LEAF:
        return quote.certification_data, b""
    if quote.certification_type != PCK_CHAIN:
        return b"", b""
    data = quote.certification_data
    at = data.find(_END) + len(_END)
    return data[:at], data[at:]


def leaf(text: bytes, reader: Reader, tee: str) -> Certificate:
    """The PCK certificate in the quote, from ``split``; ``MalformedEvidence`` if it cannot be read."""
    try:
        if text[:1] == b"\x30":  # type 4 in DER
            return Certificate(text)
        end = len(text) - len(_END)
        if text.startswith(_BEGIN) and text.endswith(_END) and text.find(b"-", len(_BEGIN)) == end:  # one, and no more
            return Certificate(decoded(text[len(_BEGIN) : end]))
        found = reader.certificates(text)
    except EndorsementError as error:
        raise _malformed(tee, error.message) from error
    if len(found) != 1:
        raise _malformed(tee, "more than one certificate where there is one")
    return found[0]


def issuers(text: bytes, reader: Reader, tee: str) -> list[Certificate]:
    """The certificates above it in the quote, from ``split``; ``MalformedEvidence`` if they cannot be read."""
    if not text.strip(b"\0\r\n\t "):
        return []
    try:
        return reader.certificates(text)
    except EndorsementError as error:
        raise _malformed(tee, error.message) from error


def candidates(given: Collateral, now: datetime) -> list[Certificate]:
    """The PCK certificates among the endorsements, those that are valid now first; where they stood decides nothing."""
    found = [item for item in given.pool.certificates if PCK_NAME in item.common_name]
    return sorted(found, key=lambda item: by_preference(item, now))


def looked_up(quote: Quote, qe_report: bytes, listed: Sequence[Certificate], tee: str) -> Certificate:
    """The first of ``candidates`` whose key signed the QE's report; ``UnsupportedEvidence`` if none did."""
    kind = quote.certification_type
    if kind not in BY_PPID:
        raise UnsupportedEvidence(
            "the quote does not say which PCK certificate certifies it",
            code="certification_data_type",
            tee=tee,
            field="certification_data",
            expected=[*BY_PPID, *EMBEDDED],
            got=kind,
            spec=SPEC,
        )
    for candidate in listed[:MAX_CANDIDATES]:
        key = candidate.public_key
        if is_p256(key):
            try:
                verify_p256(key, quote.qe_report_signature, qe_report)
            except SignatureInvalid:
                continue
            return candidate
    raise UnsupportedEvidence(
        "the quote names its platform by PPID, and no PCK certificate of that platform is among the endorsements",
        code="pck_lookup_needed",
        tee=tee,
        field="certification_data",
        expected="the platform's PCK certificate among the endorsements",
        got=f"certification data type {kind}, {len(listed)} PCK certificates of other platforms",
        spec=SPEC,
        hint=_url(quote),
    )


def _url(quote: Quote) -> str:
    data = quote.certification_data
    if quote.certification_type == 3 and len(data) == 404:
        ppid, cpusvn, pcesvn, pceid = data[:384], data[384:400], data[400:402], data[402:404]
        return (
            f"{SERVICE}/sgx/certification/v4/pckcert?encrypted_ppid={ppid.hex()}"
            f"&cpusvn={cpusvn.hex()}&pcesvn={pcesvn.hex()}&pceid={pceid.hex()} has it"
        )
    return "ask the platform's owner for its PCK certificate"


def _malformed(tee: str, reason: str) -> MalformedEvidence:
    return MalformedEvidence(
        f"the PCK chain in the quote cannot be read: {reason}",
        code="certification_data",
        tee=tee,
        field="certification_data",
        spec=SPEC,
    )
