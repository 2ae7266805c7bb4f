"""Evidence of what was revoked is refused before a token is signed for it, whoever asks for one."""

from __future__ import annotations

from collections.abc import Sequence

from adyton.errors import NotPermitted, SessionInvalid
from adyton.protocol.revoked import Revoked, names_of_evidence
from adyton.rats.result import AttestationResult
from adyton.rats.types import VerifiedEvidence


def refuse_revoked(
    revoked: Revoked,
    kid: str,
    handle: str,
    verified: Sequence[VerifiedEvidence],
    result: AttestationResult,
) -> None:
    """``NotPermitted`` for what goes by a name that was revoked; ``SessionInvalid`` if the signer ``kid`` was."""
    if ("key", kid) in revoked.entries:
        raise SessionInvalid("the key that signs tokens here was revoked", code="signing_key_revoked")
    named = [("session", handle)]
    for item, appraisal in zip(verified, result.appraisals, strict=True):
        named += names_of_evidence(item.claims, appraisal.measurement, appraisal.host_data)
    found = revoked.first(named)
    if found is not None:
        raise NotPermitted(
            f"this {found[0]} was revoked",
            code="revoked",
            tee=result.primary.tee,
            field=found[0],
            got=found[1],
            hint="its owner or the broker's operator said so: adyton broker revoke list has the reason, lift takes it back",
        )
