"""Whether the lean reading of a certificate answers what ``cryptography`` answers, or nothing, or refuses what it refuses."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from adyton.crypto import usual
from adyton.crypto.usual_form import BASIC_CONSTRAINTS, KEY_USAGE
from adyton.crypto.x509 import Certificate
from adyton.errors import EndorsementMalformed
from adyton.wire import der

ABSENT = (False, None)
FOREIGN = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


def agree(encoded: bytes) -> bool:
    """Whether the lean reading answered; what it answers, and the key, must be what ``cryptography`` says."""
    certificate = Certificate(encoded)
    _, signed_at, _ = der.bounds(encoded)
    lean = usual.extensions(encoded, certificate._extensions_at, der.bounds(encoded, signed_at)[2])
    parsed = x509.load_der_x509_certificate(encoded)
    try:
        written = parsed.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except FOREIGN:  # whatever it is, ours must refuse too
        with pytest.raises(EndorsementMalformed):
            _ = certificate.spki
    else:
        assert certificate.spki == written
    with contextlib.suppress(*FOREIGN):  # other parts of the name may be broken
        names = [item.value for item in parsed.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        assert name_of(certificate) in {*names, ""}
    if lean is None:
        return False
    found = {item.oid.dotted_string: (item.critical, item.value) for item in parsed.extensions}  # which must not raise
    assert (
        lean["critical_extensions"]
        == certificate.critical_extensions
        == tuple(oid for oid, (critical, _) in found.items() if critical)
    )
    assert lean["basic_constraints"] == certificate.basic_constraints == found.get(BASIC_CONSTRAINTS, ABSENT)[1]
    assert lean["key_usage"] == certificate.key_usage == found.get(KEY_USAGE, ABSENT)[1]
    private: dict[str, bytes] = {
        oid: value.value for oid, (_, value) in found.items() if isinstance(value, x509.UnrecognizedExtension)
    }
    assert lean["unknown_extensions"] == private == certificate.unknown_extensions
    return True


def name_of(certificate: Certificate) -> str:
    try:
        return certificate.common_name
    except EndorsementMalformed:
        return ""


def same(changed: bytes) -> None:
    try:
        parsed: Any = x509.load_der_x509_certificate(changed)
        if parsed.serial_number < 0:
            return
    except FOREIGN:  # what it refuses, ours refuses
        with pytest.raises(EndorsementMalformed):
            Certificate(changed)
        return
    try:
        certificate = Certificate(changed)
    except EndorsementMalformed:
        return
    try:
        _ = list(parsed.extensions)
    except FOREIGN:  # neither reading may make anything of it
        with pytest.raises(EndorsementMalformed):
            _ = certificate.critical_extensions
        return
    agree(changed)
