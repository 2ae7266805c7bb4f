"""Evidence of a CPU's TEE with its devices, bound together as CoCo's KBS protocol 0.4.0 does (``kbs-protocol`` 1.4, 1.5).

Each device answers for nonce and key; the primary evidence answers for nonce, key **and** the text in which the devices'
evidence was sent. So nobody can take a device's evidence away, put another's in, or bring a device of another machine that
was not asked with this key.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec

from adyton.crypto.x509 import EndorsementSet
from adyton.errors import EvidenceError, MalformedEvidence
from adyton.rats import binding
from adyton.rats.types import Check, Revocation, TrustAnchors, VerifiedEvidence
from adyton.tee import room_of, verify_each
from adyton.tee import verify as verify_one
from adyton.tee.remembered import Remembered
from adyton.wire import strict_json

MAX_SIZE = 8 * 1024 * 1024
MAX_DEVICES = 8  # kinds of devices: several of one kind travel in one entry
SPEC = "kbs-protocol 1.4"


def devices_of(additional: str) -> dict[str, bytes]:
    """The devices' evidence by TEE, out of the text that was sent; none in an empty text or object. ``MalformedEvidence``."""
    if not additional:
        return {}
    try:
        value = strict_json.parse(additional, max_size=MAX_SIZE)
        if not isinstance(value, dict) or len(value) > MAX_DEVICES:
            raise ValueError("not an object of at most eight kinds of devices")
        raw = msgspec.json.decode(additional, type=dict[str, msgspec.Raw])
    except strict_json.UNREADABLE as error:
        raise MalformedEvidence(
            "additional evidence is not an object of TEE names and evidence",
            code="additional_evidence_malformed",
            field="additional_evidence",
            spec=SPEC,
        ) from error
    return {tee: bytes(evidence) for tee, evidence in raw.items()}


def verify(
    tee: str,
    evidence: bytes,
    additional: str,
    *,
    nonce: str,
    tee_public_key: Mapping[str, str],
    algorithm: str | None = None,
    canonical: bytes | None = None,
    endorsements: EndorsementSet,
    now: datetime,
    anchors: TrustAnchors,
    revocation: Revocation = Revocation.REQUIRED,
    init_data: bytes | None = None,
    remembered: Remembered | None = None,
    trail: list[Check] | None = None,
) -> tuple[VerifiedEvidence, ...]:
    """Verify the primary evidence, then every device's: one result each, the primary's first; or the first error leaves.

    ``nonce``: the text of the challenge; ``tee_public_key``: the JWK's known members; ``additional``: the text as sent,
    which is what the primary evidence binds; ``canonical``: what it binds where an older protocol has it otherwise. Errors as ``adyton.tee.verify``; ``EvidenceError`` ``device_class`` if what
    came as a device is a CPU's evidence, or the other way round.
    """
    devices = devices_of(additional)
    for name in devices:
        room_of(name)  # what nobody here can verify is refused before anything is
    if canonical is None:
        canonical = binding.primary_object(nonce, tee_public_key, additional)
    primary = verify_one(
        tee,
        evidence,
        endorsements=endorsements,
        now=now,
        anchors=anchors,
        revocation=revocation,
        report_data=binding.expected(tee, canonical, algorithm),
        init_data=init_data,
        remembered=remembered,
        trail=trail,
    )
    if primary.tee_class != "cpu":
        raise _misplaced(tee, "a CPU's TEE", primary.tee_class)
    if not devices:
        return (primary,)
    found = [primary]
    device_object = binding.device_object(nonce, tee_public_key)
    for name, data in devices.items():
        for device in verify_each(
            name,
            data,
            endorsements=endorsements,
            now=now,
            anchors=anchors,
            revocation=revocation,
            report_data=binding.expected(name, device_object, algorithm),
            remembered=remembered,
            trail=trail,
        ):
            if device.tee_class == "cpu":
                raise _misplaced(name, "a device", device.tee_class)
            found.append(device)
    return tuple(found)


def _misplaced(tee: str, expected: str, got: str) -> EvidenceError:
    return EvidenceError(
        f"evidence of {tee} in the place of {expected}'s",
        code="device_class",
        tee=tee,
        field="additional_evidence",
        expected=expected,
        got=got,
        spec=SPEC,
    )
