"""Cases of Azure's vTPM: whole evidence, and an HCL report with a loose quote."""

from __future__ import annotations

import json

from adyton import tee
from adyton.cli.vectors.case import Case, Got
from adyton.rats.types import TrustAnchors
from adyton.wire import b64


def _evidence(case: Case, got: Got) -> None:
    _run(case, got, case.files["evidence"])


def _report_with_quote(case: Case, got: Got) -> None:
    """The files are put together as an attester would have sent them."""
    from adyton.crypto.x509 import EndorsementSet

    if "tpm_quote" in case.files:
        quote = json.loads(case.files["tpm_quote"])
    else:
        signature, message = case.files["tpm_signature"].hex(), case.files["tpm_message"].hex()
        quote = {"signature": signature, "message": message, "pcrs": ["00" * 32] * 24}
    key = case.files.get("endorsement_key", b"")
    vcek = EndorsementSet.parse([key]).certificates[0].der if key else b""
    whole = {
        "version": 1,
        "tpm_quote": quote,
        "hcl_report": b64.encode_url(case.files["hcl_report"]),
        "vcek": b64.encode_url(vcek),
    }
    _run(case, got, json.dumps(whole).encode())


def _run(case: Case, got: Got, evidence: bytes) -> None:
    from adyton.tee.az_vtpm import json_form, snp, tdx

    if json_form.parse(evidence).td_quote is not None:
        found = tdx.verify_signatures_without_tcb_as_asked(
            evidence,
            endorsements=case.endorsements("trusted_root"),
            now=case.now,
            anchors=case.anchors(),
            revocation=case.revocation(got),
        )
        got.claims |= found.claims
        got.members["unchecked"] = [*found.unchecked]
    elif "chain" not in case.files:
        got.members["unchecked"] = ["endorsement"]
        got.claims |= snp.claims_without_endorsement(evidence)
    else:
        verified = tee.verify(
            "az-snp-vtpm",
            evidence,
            endorsements=case.endorsements("chain", "crl"),
            now=case.now,
            anchors=TrustAnchors(),
            revocation=case.revocation(got),
        )
        got.claims |= verified.claims


RUNNERS = {"vtpm-evidence": _evidence, "hcl-report-with-tpm-quote": _report_with_quote}
