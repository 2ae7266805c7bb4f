"""The order of a device's checks, and what a reader is told of each."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from adyton.rats.types import Check, JsonValue, Revocation
from adyton.tee.nvidia.checks import Verification
from adyton.tee.nvidia.endorsements import DEVICE, SPEC
from adyton.tee.nvidia.rim import VerifiedRim
from adyton.tee.steps import Step


def _told_signature(run: Verification) -> tuple[JsonValue, JsonValue]:
    return "P-384 over the whole report", f"the key of {run.leaf.certificate.common_name}"


def _told_rim(rims: tuple[VerifiedRim, ...], version: str | None) -> tuple[JsonValue, JsonValue]:
    return version, ", ".join(f"{one.rim.product} {one.rim.version}" for one in rims)


_CERTIFICATES, _REPORT, _REFERENCE = "certificates", "report", "reference values"
STEPS: tuple[Step[Verification], ...] = (
    Step(
        Check("certificate", ok=True, spec=SPEC, group=_CERTIFICATES),
        Verification.certificate,
        tell=lambda run: ("a leaf that names its firmware", run.leaf.certificate.common_name),
    ),
    Step(
        Check("chain", ok=True, spec=SPEC, group=_CERTIFICATES),
        Verification.links,
        tell=lambda _: (len(DEVICE.roles), len(DEVICE.roles)),
    ),
    Step(Check("validity", ok=True, spec="evidence 1.12", group=_CERTIFICATES), Verification.validity),
    Step(Check("root", ok=True, spec="evidence 2", group=_CERTIFICATES), Verification.root),
    Step(
        Check("revocation", ok=True, spec=SPEC, group=_CERTIFICATES),
        Verification.revoked,
        applies=lambda run: run.revocation is Revocation.REQUIRED,
        tell=lambda _: ("good", "good"),
    ),
    Step(
        Check("arch", ok=True, spec=SPEC, group=_REPORT),
        Verification.arch,
        applies=lambda run: run.device.arch is not None,
        tell=lambda run: (run.leaf.arch, run.device.arch),
    ),
    Step(Check("report_sig", ok=True, spec=SPEC, group=_REPORT), Verification.signature, tell=_told_signature),
    Step(
        Check("fwid", ok=True, spec=SPEC, group=_REPORT),
        Verification.fwid,
        applies=Verification.fwid_compared,
        tell=lambda run: (run.opaque.fwid.hex() if run.opaque.fwid else None,) * 2,
    ),
    Step(
        Check("report_data", ok=True, spec="kbs-protocol 1.5", group=_REPORT),
        Verification.bound,
        applies=lambda run: run.report_data is not None,
        tell=lambda run: (run.report_data.value.hex() if run.report_data else None, run.report.nonce.hex()),
    ),
    Step(
        Check("manifests", ok=True, spec=SPEC, group=_REFERENCE),
        Verification.read_manifests,
        applies=lambda _: False,
    ),
    Step(
        Check("driver_rim", ok=True, spec=SPEC, group=_REFERENCE),
        Verification.driver,
        applies=lambda run: bool(run.drivers),
        tell=lambda run: _told_rim(run.drivers, run.opaque.driver_version),
    ),
    Step(
        Check("vbios_rim", ok=True, spec=SPEC, group=_REFERENCE),
        Verification.bios,
        applies=lambda run: bool(run.bioses),
        tell=lambda run: _told_rim(run.bioses, run.opaque.vbios_version),
    ),
    Step(
        Check("measurements", ok=True, spec=SPEC, group=_REFERENCE),
        Verification.measurements,
        applies=lambda run: bool(run.compared),
        tell=lambda run: (
            sum(len(one.rim.rim.golden) for one in run.compared),
            sum(one.matched for one in run.compared),
        ),
    ),
)


@lru_cache(maxsize=64)
def steps_of(number: int | None) -> tuple[Step[Verification], ...]:
    """The steps of one device; with a number, as one of several, named in the groups."""
    if number is None:
        return STEPS
    return tuple(
        replace(step, check=replace(step.check, group=f"device {number}: {step.check.group}")) for step in STEPS
    )
