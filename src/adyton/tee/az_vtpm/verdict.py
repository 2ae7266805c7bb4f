"""What both kinds of Azure evidence have in common once the checks are done: trail, claims, expiry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

from adyton.rats.types import Check, JsonValue, ReportData, VerifiedEvidence
from adyton.tee.az_vtpm.vtpm import INIT_DATA_PCR, STEPS, Verification
from adyton.tee.deferred import Deferred
from adyton.tee.steps import done, walk


def run_checks(run: Verification, trail: list[Check] | None) -> None:
    """Every check in order. The hardware's own stand in the trail before the ones that lean on them."""
    ours: list[Check] | None = [] if trail is not None else None
    try:
        walk(STEPS, run, ours)
    finally:
        if trail is not None and ours is not None:
            trail += [replace(check, group=_under_hardware(check.group)) for check in run.inner_trail or ()]
            trail += ours


def verified(
    run: Verification, claims: Callable[[], dict[str, JsonValue]], coco: Callable[[], dict[str, JsonValue]]
) -> VerifiedEvidence:
    """The verdict: the hardware's, with the vTPM's claims over it. Claims are written when somebody reads them."""
    hardware = run.hardware
    unchecked = [name for name in hardware.unchecked if name not in {"report_data", "init_data"}]
    if run.report_data is None:
        unchecked.append("report_data")
    if run.init_data is None:
        unchecked.append("init_data")
    return VerifiedEvidence(
        tee=run.tee,
        tee_class="cpu",
        claims=Deferred(lambda: claims() | run.vtpm_claims()),
        coco_claims=Deferred(lambda: coco() | coco_tpm(run)),
        tcb=hardware.tcb,
        report_data=ReportData(run.attest.extra_data),
        init_data=run.pcrs[INIT_DATA_PCR],
        root=hardware.root,
        root_fingerprint=hardware.root_fingerprint,
        checks=tuple([_inner(check.id, check.spec, check.group) for check in hardware.checks]) + done(STEPS, run),
        expires=hardware.expires,
        expires_first=hardware.expires_first,
        unchecked=tuple(unchecked),
    )


def _under_hardware(group: str) -> str:
    return f"hardware: {group or 'report'}"


@lru_cache(maxsize=256)
def _inner(name: str, spec: str, group: str) -> Check:
    """A check of the hardware's room, as part of this evidence; there are a few dozen of them."""
    return Check(name, ok=True, spec=spec, group=_under_hardware(group))


def coco_tpm(run: Verification) -> dict[str, JsonValue]:
    """The members that CoCo adds for the vTPM: ``tpm.pcr00`` to ``tpm.pcr23``, and PCR 8 as the init data."""
    return {
        "tpm": {f"pcr{number:02}": value.hex() for number, value in run.pcrs.items()},
        "init_data": run.pcrs[INIT_DATA_PCR].hex(),
    }
