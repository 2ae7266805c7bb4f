"""Is this evidence of NVIDIA devices authentic? Every check of evidence 11, each with an error code of its own.

A raw report (its certificates are among the endorsements), or CoCo's JSON with one or several devices. With several, each
must verify, all for the same nonce, and no device may stand for two; ``verify_devices`` gives one result a device, which
is what a policy for each of them needs.

Measurements are compared if reference manifests are among the endorsements; else ``unchecked`` has ``measurements``.
"""

from __future__ import annotations

import hmac
from datetime import datetime

from adyton.crypto.x509 import EndorsementSet
from adyton.errors import BindingMismatch
from adyton.rats.types import Check, JsonValue, ReportData, Revocation, RootKind, TrustAnchors, VerifiedEvidence
from adyton.tee.nvidia import abi, json_form, opaque
from adyton.tee.nvidia import claims as claims_of
from adyton.tee.nvidia.abi import NONCE_SIZE, Report
from adyton.tee.nvidia.checks import Verification
from adyton.tee.nvidia.endorsements import SWITCH, TEE
from adyton.tee.nvidia.json_form import Device
from adyton.tee.nvidia.order import steps_of
from adyton.tee.remembered import Remembered
from adyton.tee.steps import done, walk

PROTECTED_PCIE = (8, 4)  # GPUs and switches of the only set that NVIDIA calls so


def verify(
    evidence: bytes,
    *,
    endorsements: EndorsementSet,
    now: datetime,
    anchors: TrustAnchors,
    revocation: Revocation = Revocation.REQUIRED,
    report_data: ReportData | None = None,
    init_data: bytes | None = None,
    remembered: Remembered | None = None,
    trail: list[Check] | None = None,
) -> VerifiedEvidence:
    """As ``adyton.tee.verify``, for NVIDIA devices. ``report_data``: the requester's nonce, all 32 bytes.

    Several devices give one result: ``claims["devices"]`` has each one's claims, and policies that expect one device find
    nothing at the top.
    """
    devices = verify_devices(
        evidence,
        endorsements=endorsements,
        now=now,
        anchors=anchors,
        revocation=revocation,
        report_data=report_data,
        init_data=init_data,
        remembered=remembered,
        trail=trail,
    )
    return devices[0] if len(devices) == 1 else _together(devices)


def verify_devices(
    evidence: bytes,
    *,
    endorsements: EndorsementSet,
    now: datetime,
    anchors: TrustAnchors,
    revocation: Revocation = Revocation.REQUIRED,
    report_data: ReportData | None = None,
    init_data: bytes | None = None,
    remembered: Remembered | None = None,
    trail: list[Check] | None = None,
) -> tuple[VerifiedEvidence, ...]:
    """One result a device, in the order of the evidence; all verified, or an error. ``verify`` says the rest."""
    if init_data:
        raise ValueError("NVIDIA evidence has no init data")
    if report_data is not None and len(report_data.value) != NONCE_SIZE:
        raise ValueError("the nonce of an NVIDIA device has 32 bytes")
    parsed = read(evidence)
    first = parsed[0][1].nonce
    for number, (_, report) in enumerate(parsed):
        if not hmac.compare_digest(report.nonce, first):
            raise _apart("nonces_differ", f"devices[{number}].nonce", first, report.nonce, "made for different nonces")
    verified = []
    chips: set[str] = set()
    for number, (device, report) in enumerate(parsed):
        run = Verification(
            device,
            report,
            endorsements=endorsements,
            now=now,
            anchors=anchors,
            revocation=revocation,
            report_data=report_data,
            remembered=remembered,
        )
        steps = steps_of(number if len(parsed) > 1 else None)
        walk(steps, run, trail)
        result = _verified(run, done(steps, run))
        chip = str(result.claims["platform_id"])
        if chip in chips:
            raise _apart("device_repeated", f"devices[{number}]", "another device", chip, "one device listed twice")
        chips.add(chip)
        verified.append(result)
    return tuple(verified)


def show(evidence: bytes) -> dict[str, JsonValue]:
    """What the reports say. Parsed only."""
    shown: list[JsonValue] = []
    for device, report in read(evidence):
        claims = claims_of.of_report(report, opaque.read(report), claims_of.values_of(report))
        if device.arch is not None:
            claims["arch"] = device.arch
        if device.uuid is not None:
            claims["uuid"] = device.uuid
        shown.append(claims)
    only = shown[0]
    return only if len(shown) == 1 and isinstance(only, dict) else {"devices": shown}


def read(evidence: bytes) -> list[tuple[Device, Report]]:
    """The devices with their reports; ``MalformedEvidence``."""
    devices = json_form.parse(evidence) if json_form.is_json(evidence) else (Device(evidence, b""),)
    return [(device, abi.parse(device.report)) for device in devices]


def _verified(run: Verification, checks: tuple[Check, ...]) -> VerifiedEvidence:
    known = run.remember()
    report, said, leaf = run.report, run.opaque, known.leaf
    fwid_match = run.fwid_compared()
    values = claims_of.values_of(report)
    claims = claims_of.of_report(report, said, values)
    claims |= opaque.copied(known.claims)
    claims |= claims_of.of_comparison(run.compared, fwid_match=fwid_match)
    claims["report_data"] = claims["nonce"]
    unchecked: tuple[str, ...] = ()
    if run.revocation is Revocation.UNCHECKED_AS_ASKED:
        unchecked += ("revocation",)
    if not fwid_match:
        unchecked += ("fwid",)
    if run.report_data is None:
        unchecked += ("report_data",)
    if not run.compared:
        unchecked += ("measurements",)
    if run.device.uuid is not None:
        unchecked += ("uuid",)  # the host's word
    return VerifiedEvidence(
        tee=TEE,
        tee_class="switch" if leaf.arch == SWITCH else "gpu",
        claims=claims,
        coco_claims=claims_of.coco(
            leaf,
            known.path,
            report,
            said,
            run.compared,
            values=values,
            uuid=run.device.uuid,
            answered=known.answered,
            nonce_match=run.report_data is not None,
            fwid_match=fwid_match,
        ),
        tcb={
            "driver_version": said.driver_version,
            "vbios_version": said.vbios_version,
            "fwid": said.fwid.hex() if said.fwid is not None else None,
        },
        report_data=ReportData(report.nonce),
        init_data=b"",
        root=known.root,
        root_fingerprint=known.path.root.spki_fingerprint.hex(),
        checks=checks,
        expires=known.expires,
        expires_first=known.expires_first,
        unchecked=unchecked,
    )


def is_protected_pcie(devices: tuple[VerifiedEvidence, ...]) -> bool:
    """Whether these are the eight GPUs and four switches that CoCo gives a class of its own (``ppcie``)."""
    classes = [device.tee_class for device in devices]
    return (classes.count("gpu"), classes.count("switch")) == PROTECTED_PCIE and len(classes) == sum(PROTECTED_PCIE)


def _together(devices: tuple[VerifiedEvidence, ...]) -> VerifiedEvidence:
    """Several devices as one result: what holds for all of them."""
    first = devices[0]
    expires = min(devices, key=lambda device: device.expires)
    root = next((device for device in devices if device.root is RootKind.CUSTOM), first)
    matched = all(device.claims["measurements_match"] is True for device in devices)
    return VerifiedEvidence(
        tee=TEE,
        tee_class="switch" if all(device.tee_class == "switch" for device in devices) else "gpu",
        claims={
            "measurement": None,
            "debug": False if matched else None,
            "tcb_status": None,
            "platform_id": None,
            "report_data": first.report_data.value.hex(),
            "init_data": None,
            "measurements_match": True if matched else None,
            "protected_pcie": is_protected_pcie(devices),
            "devices": [dict(device.claims) for device in devices],
        },
        coco_claims={"devices": [dict(device.coco_claims) for device in devices]},
        tcb={"devices": [dict(device.tcb) for device in devices]},
        report_data=first.report_data,
        init_data=b"",
        root=root.root,
        root_fingerprint=root.root_fingerprint,
        checks=tuple(check for device in devices for check in device.checks),
        expires=expires.expires,
        expires_first=expires.expires_first,
        unchecked=tuple(dict.fromkeys(name for device in devices for name in device.unchecked)),
    )


def _apart(code: str, field: str, expected: object, got: object, reason: str) -> BindingMismatch:
    return BindingMismatch(
        f"the devices do not belong together: {reason}",
        code=code,
        tee=TEE,
        field=field,
        expected=expected,
        got=got,
        spec="evidence 11",
        hint="all devices of one evidence answer one challenge, each once",
    )
