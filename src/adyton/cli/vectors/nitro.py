"""Cases of AWS Nitro: attestation documents."""

from __future__ import annotations

from adyton import tee
from adyton.cli.vectors.case import Case, Got


def _document(case: Case, got: Got) -> None:
    document = case.files["document"]
    got.claims |= tee.show("nitro", document)
    verified = tee.verify(
        "nitro",
        document,
        endorsements=case.endorsements("crl"),
        now=case.now,
        anchors=case.anchors(),
        revocation=case.revocation(got),
        report_data=None,
    )
    got.claims |= verified.claims


RUNNERS = {
    "attestation-document": _document,
}
