"""Cases of NVIDIA devices: reports of GPUs and switches, certificate chains, reference manifests, OCSP answers."""

from __future__ import annotations

from datetime import datetime

from adyton import tee
from adyton.cli.vectors.case import Case, Got
from adyton.crypto.x509 import EndorsementSet, spki_fingerprint
from adyton.errors import EndorsementExpired, EndorsementUntrusted
from adyton.rats.types import Revocation, TrustAnchors

_MANIFESTS = ("rim_0", "rim_1", "rim_2")


def _report(case: Case, got: Got) -> None:
    from adyton.tee.nvidia.verify import show

    got.claims |= show(case.files["report"])
    manifests = [role for role in _MANIFESTS if role in case.files]
    roots = [role for role in ("trusted_root", "rim_root") if role in case.files]
    anchors = TrustAnchors(
        vendor=not roots, custom=frozenset(map(spki_fingerprint, case.endorsements(*roots).certificates))
    )
    got.members["unchecked"] = ["revocation"]
    verified = tee.verify(
        "nvidia",
        case.files["report"],
        endorsements=case.endorsements("cert_chain", *manifests),
        now=case.now,
        anchors=anchors,
        revocation=Revocation.UNCHECKED_AS_ASKED,
    )
    got.claims |= verified.claims
    got.members["unchecked"] = [*verified.unchecked]
    if manifests:
        got.members["rim_active_measurements"] = verified.claims["rim_active_measurements"]
        got.members["rim_mismatching_indices"] = []
        got.members["rim_signatures"] = [True] * len(manifests)  # each one was needed, and was verified


def _rim(case: Case, got: Got) -> None:
    from adyton.tee.nvidia import rim
    from adyton.tee.nvidia.endorsements import Answers

    read = rim.parse(case.files["rim"])
    got.claims |= {
        "version": read.version,
        "product": read.product,
        "active": len(read.golden),
        "valid_from": _rfc3339(max(certificate.not_before for certificate in read.certificates)),
        "valid_to": _rfc3339(min(certificate.not_after for certificate in read.certificates)),
        "chain": [certificate.common_name for certificate in read.certificates],
    }
    failing = ["digest"] if not read.signed.digest_matches() else []
    failing += ["sig"] if not read.signed.is_signed_by(read.signer_key) else []
    if failing:
        got.members["failing_checks"] = [*failing]
    got.members["unchecked"] = ["revocation"]
    rim.verify(
        read,
        EndorsementSet(),
        Answers(()),
        now=case.now,
        anchors=case.anchors("rim_root"),
        revocation=Revocation.UNCHECKED_AS_ASKED,
    )


def _chain(case: Case, got: Got) -> None:
    from adyton.tee.nvidia.endorsements import verify_chain

    got.members["unchecked"] = ["revocation"]
    path = verify_chain(
        case.endorsements("cert_chain"),
        now=case.now,
        anchors=case.anchors(),
        revocation=Revocation.UNCHECKED_AS_ASKED,
    )
    got.claims |= {
        "chain": [certificate.common_name for certificate in path.certificates],
        "chain_len": len(path.certificates),
    }


def _ocsp(case: Case, got: Got) -> None:
    """An answer alone: fresh, and signed by the responder inside. Whose responder that is, its case cannot tell."""
    from adyton.crypto.ocsp import Answer
    from adyton.tee.nvidia.endorsements import ALGORITHMS

    answer = Answer(case.files["ocsp"])
    (status,) = answer.statuses
    got.members["certificate_status"] = status.status
    got.members["unchecked"] = ["responder"]
    got.claims |= {
        "this_update": _rfc3339(status.this_update),
        "next_update": _rfc3339(status.next_update),
        "serial": f"{status.serial:x}",
    }
    if not any(answer.is_signed_by(certificate, ALGORITHMS) for certificate in answer.certificates):
        raise EndorsementUntrusted("the responder inside did not sign it", code="ocsp_sig", tee="nvidia", field="ocsp")
    if not status.this_update <= case.now <= status.next_update:
        raise EndorsementExpired("the answer is not fresh", code="ocsp_validity", tee="nvidia", field="ocsp")


def _rfc3339(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


RUNNERS = {
    "gpu-report": _report,
    "nvswitch-report": _report,
    "rim": _rim,
    "certificate-chain": _chain,
    "ocsp-response": _ocsp,
}
