"""What a quote says before anything of it is verified: the claims of ``show``."""

from __future__ import annotations

from adyton.errors import EndorsementError, MalformedEvidence
from adyton.rats.types import JsonValue
from adyton.tee.dcap import certified, claims, pck
from adyton.tee.dcap.documents import Reader
from adyton.tee.dcap.endorsements import roles
from adyton.tee.dcap.quote import Quote


def of_quote(quote: Quote, tee: str) -> dict[str, JsonValue]:
    """Claims of header, signature data and the PCK certificate, if there is one that can be read."""
    found = claims.of_quote(quote)
    text, _ = certified.split(quote)
    if text:
        try:
            certificate = certified.leaf(text, Reader(), tee)
            found |= claims.of_pck(pck.read(certificate, roles(tee).pck), claims.kind_of(certificate))
        except (EndorsementError, MalformedEvidence):
            found["pck_ca"] = None
    return found
