"""Cases of Arm CCA: tokens, and platform claims in their JSON form."""

from __future__ import annotations

import hashlib

from adyton import tee
from adyton.cli.vectors.case import Case, Got
from adyton.rats.types import Revocation, TrustAnchors


def _token(case: Case, got: Got) -> None:
    token = case.files["token"]
    got.claims |= tee.show("cca", token)
    endorsements = case.endorsements("cpak")
    verified = tee.verify(
        "cca",
        token,
        endorsements=endorsements,
        now=case.now,
        anchors=TrustAnchors(
            vendor=False, custom=frozenset(hashlib.sha256(key).digest() for key in endorsements.documents)
        ),
        revocation=Revocation.REQUIRED,  # a bare key has no list that could be missing
    )
    got.claims |= verified.claims


def _platform_claims(case: Case, got: Got) -> None:
    from adyton.tee.cca.platform import parse_json

    claims = parse_json(case.files["claims"])
    got.claims["platform_profile"] = claims.profile


RUNNERS = {
    "cca-token": _token,
    "platform-claims-json": _platform_claims,
}
