"""Cases of trust anchors: every file is one that some TEE's room reads, and what is self-signed carries its own signature."""

from __future__ import annotations

import re

from adyton.cli.vectors.case import Case, Got
from adyton.crypto.algorithms import (
    ECDSA_SHA256,
    ECDSA_SHA384,
    ECDSA_SHA512,
    RSA_PSS_SHA384,
    RSA_SHA256,
    RSA_SHA384,
    RSA_SHA512,
    SignatureAlgorithm,
)
from adyton.crypto.x509 import Certificate, EndorsementSet
from adyton.errors import EndorsementMalformed, EndorsementUntrusted

_ALGORITHMS: tuple[SignatureAlgorithm, ...] = (
    *(ECDSA_SHA256, ECDSA_SHA384, ECDSA_SHA512),
    *(RSA_PSS_SHA384, RSA_SHA256, RSA_SHA384, RSA_SHA512),
)


_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


def _anchors(case: Case, got: Got) -> None:
    unread = 0
    for blob in (*case.lists.get("anchors", ()), *case.files.values()):
        if _is_amd(blob):
            continue
        blocks = _PEM.findall(blob) or [blob]
        found = [endorsements for block in blocks if (endorsements := _read(block)) is not None]
        unread += len(blocks) - len(found)
        if not found:
            raise EndorsementMalformed("a file without a certificate that can be read", code="anchor_unread")
        for endorsements in found:
            for certificate in endorsements.certificates:
                _check_own_signature(certificate)
            for document in endorsements.documents:
                _read_hygon(document)
    if unread:
        got.members["unread_certificates"] = unread


def _read(block: bytes) -> EndorsementSet | None:
    """``None``: some TPM vendors' certificates break DER (sets out of order); the library refuses them, and so do we."""
    try:
        return EndorsementSet.parse([block])
    except EndorsementMalformed:
        return None


def _is_amd(blob: bytes) -> bool:
    from adyton.tee.snp.sev_certificate import ARK, SevCertificate

    try:
        certificate = SevCertificate.parse(blob)
    except EndorsementMalformed:
        return False
    if certificate.usage == ARK:
        certificate.check_issued_by(certificate)
    return True


def _check_own_signature(certificate: Certificate) -> None:
    """A root's; what another one issued says nothing here. Old roots that SHA-1 signed are read, and no more."""
    if certificate.issuer != certificate.subject:
        return
    for algorithm in _ALGORITHMS:
        if certificate.algorithm in algorithm.identifiers:
            if algorithm.verifies(certificate.public_key, certificate.signature, certificate.signed):
                return
            raise EndorsementUntrusted("a root's own signature does not verify", code="root_sig", field="signature")


def _read_hygon(document: bytes) -> None:
    from adyton.tee.csv.certificate import Usage, read, split

    for part in split(document):
        certificate = read(part)
        if certificate.usage == Usage.HRK and not certificate.signed_by(certificate):
            raise EndorsementUntrusted("a root's own signature does not verify", code="root_sig", field="signature")


RUNNERS = {"trust-anchors": _anchors}
