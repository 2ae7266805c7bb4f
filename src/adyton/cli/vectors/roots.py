"""Cases of trust anchors: every file is one that some TEE's room reads, and what is self-signed carries its own signature."""

from __future__ import annotations

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


def _anchors(case: Case, got: Got) -> None:
    for blob in (*case.lists.get("anchors", ()), *case.files.values()):
        if _is_amd(blob):
            continue
        found = EndorsementSet.parse([blob])
        for certificate in found.certificates:
            _check_own_signature(certificate)
        for document in found.documents:
            _read_hygon(document)
    got.members["outcome"] = "valid"


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
    raise EndorsementMalformed("no TEE's trust anchor", code="anchor_unknown", got=document[:16])


RUNNERS = {"trust-anchors": _anchors}
