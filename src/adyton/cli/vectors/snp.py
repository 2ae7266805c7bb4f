"""Cases of SEV-SNP: reports, certificates, CRLs."""

from __future__ import annotations

from datetime import datetime

from adyton import tee
from adyton.cli.vectors.case import Case, Got
from adyton.crypto.x509 import Certificate, EndorsementSet
from adyton.rats.types import JsonValue, TrustAnchors


def _report(case: Case, got: Got) -> None:
    from adyton.tee.snp.endorsements import read_leaf

    endorsements = case.endorsements("endorsement_key", "chain", "crl")
    report = case.files["report"]
    got.claims |= tee.show("snp", report)
    leaf = read_leaf(EndorsementSet.parse([case.files["endorsement_key"]]).certificates[0])
    got.claims["product"] = leaf.product_name
    got.claims["hwid_len"] = len(leaf.hardware_id) if leaf.hardware_id is not None else None
    revocation = case.revocation(got)
    verified = tee.verify(
        "snp", report, endorsements=endorsements, now=case.now, anchors=TrustAnchors(), revocation=revocation
    )
    got.claims |= verified.claims


def _certificate(case: Case, got: Got) -> None:
    from adyton.tee.snp.endorsements import vendor_extensions
    from adyton.tee.snp.verify import verify_endorsement

    certificate: Certificate = case.endorsements("endorsement_key").certificates[0]
    got.claims |= {name: _extension(name, value) for name, value in vendor_extensions(certificate).items()}
    verify_endorsement(
        certificate,
        case.endorsements("endorsement_key", "chain", "crl"),
        now=case.now,
        anchors=TrustAnchors(),
        revocation=case.revocation(got),
    )


def _extension(name: str, value: bytes) -> JsonValue:
    from adyton.wire import der

    if name == "4":  # the hardware id is bare bytes, not DER
        return value.hex()
    return der.read_ia5(value) if name in {"2", "5"} else der.read_integer(value)


def _crl(case: Case, got: Got) -> None:
    from adyton.tee.snp.endorsements import check_crl

    (crl,) = case.endorsements("crl").crls
    got.claims["this_update"] = _rfc3339(crl.this_update)
    got.claims["next_update"] = _rfc3339(crl.next_update)
    got.claims["entries"] = len(crl)
    check_crl(crl, case.endorsements("chain"), anchors=TrustAnchors(), now=case.now)


def _rfc3339(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


RUNNERS = {
    "report-with-vcek": _report,
    "endorsement-certificate": _certificate,
    "crl": _crl,
}
