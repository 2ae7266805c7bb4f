"""What an owner does about each thing that is not as it must be, and who says that it must: advice, never a decision.

By the codes of ``appraisal.explain``, ``appraisal.requirements`` and the broker's reasons. What is not here has the hint
of its error instead, where it gave one. Values from evidence are quoted for a shell: a stranger wrote them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from adyton.appraisal.explain import MEASUREMENT_REFERENCE
from adyton.rats.types import JsonValue


@dataclass(frozen=True, slots=True)
class Context:
    """What a cure may need to name. ``host_data`` in hex; empty where the decision had none."""

    tee: str = ""
    measurement: str = ""
    host_data: str = ""
    resource: str = ""


@dataclass(frozen=True, slots=True)
class Advice:
    """``provider``: who says how it must be. ``actor``: who can cure it. ``cure``: how; empty where nobody knows."""

    provider: str
    actor: str
    cure: str


MAX_QUOTED = 8
_BINDING = "the resource's binding"
_POLICY = "the attestation policy"
_BROKER = "this broker"
_ENDORSER = "the platform's maker"
_SAME_AGAIN = "attest again: a new handshake is decided by what holds then"

# Code: provider, actor, cure; {resource} and {workload} are filled in.
_BY_CODE: Mapping[str, tuple[str, str, str]] = {
    "token_expired": (_BROKER, "attester", _SAME_AGAIN),
    "changed_meanwhile": (_BROKER, "attester", _SAME_AGAIN),
    "not_bound": (
        _BINDING,
        "owner",
        (
            "there is no such resource, or it is bound to nobody: adyton resource show {resource}; then "
            "adyton resource bind {resource} --workload {workload}"
        ),
    ),
    "workload_not_bound": (
        _BINDING,
        "owner",
        (
            "if this workload is to have it: adyton resource bind {resource} --workload {workload} (it replaces the "
            "binding: name all that are to have it)"
        ),
    ),
    "image_not_bound": (
        _BINDING,
        "owner",
        "if this image is to have it: adyton resource bind {resource} --image DIGEST (it replaces the binding)",
    ),
    "signer_absent": (
        _BINDING,
        "owner",
        "let the signer sign the workload document: adyton workload sign FILE --key KEY; or bind to a workload or an image",
    ),
    "signer_not_bound": (
        _BINDING,
        "owner",
        "if this signer's workloads are to have it: adyton resource bind {resource} --signer KEY (it replaces the binding)",
    ),
    "binding_policy": (
        "the resource's own policy",
        "owner",
        "adyton resource show {resource} has its text; what it reads is in the token's claims",
    ),
    "resource_policy": (
        "the tenant's resource policy",
        "owner",
        "adyton policy show resource has its text; it must allow this path for these claims",
    ),
    "nothing_affirmed": (
        _POLICY,
        "owner",
        (
            "the policy says nothing good about this evidence: publish the reference values that it compares with "
            "(adyton reference list), or give it rules for this TEE"
        ),
    ),
    "root_not_trusted": (
        _BROKER,
        "operator",
        (
            "evidence under this root counts only if the broker was started with --trust-dev-root and an environment for "
            "development; hardware of the vendor needs neither"
        ),
    ),
    "reference_deprecated": (
        "the reference value's provider",
        "owner",
        "it counts as yet: move to what replaces it, and publish that (adyton reference publish), before it is revoked",
    ),
    "tee_unknown": (
        _POLICY,
        "owner",
        "there is no table of reference values for this TEE: what is wrong is in the policy's own rules",
    ),
}
_MUST: Mapping[str, str] = {
    "debug": "start the guest without debugging: its memory can be read by the host as it is",
    "nodbg": "start the guest without debugging: its memory can be read by the host as it is",
    "dbgstat": "turn the device's debugging off, and give the broker the manufacturer's reference manifests",
    "secboot": "start the device with Secure Boot, and give the broker the manufacturer's reference manifests",
    "measres": "give the broker the manufacturer's reference manifests for this firmware; or update the device's",
    "tcb_status": "the platform is not up to date: update its firmware and microcode, then restart the guest",
    "collateral_expiration_status": "give the broker fresh collateral (--endorsements, or adyton collateral fetch)",
    "x-nvidia-cert-ocsp-status": "give the broker fresh OCSP answers about the device's authorities",
    "policy_debug_allowed": "start the guest without debugging: its memory can be read by the host as it is",
    "policy_migrate_ma": "start the guest without a migration agent in its policy",
}


def advise(  # noqa: PLR0917 -- one finding, part by part
    code: str, claim: str, reference: str, expected: JsonValue, got: JsonValue, context: Context, hint: str = ""
) -> Advice:
    """What to do about one finding."""
    workload = f"sha256:{context.host_data}" if context.host_data else "DIGEST"
    if code == "measurement_unknown":
        return _what_runs(context)
    if code == "tcb_revoked":
        return Advice(
            _ENDORSER,
            "attester",
            "the platform's maker has revoked this state: update its firmware; no policy lifts it",
        )
    if code in {"reference_missing", "reference_differs"}:
        return _unlisted(reference, expected, got)
    if code in {"vmpl_not_accepted", "report_version_not_accepted"}:
        option = "--vmpl" if claim == "vmpl" else "--report-version"
        return Advice(
            "the tenant's requirements of SEV-SNP evidence",
            "owner",
            f"if such reports are to count: adyton policy snp {option} {_quoted(got)} (name all that are accepted)",
        )
    if code.endswith("_wrong"):
        last = claim.rpartition(".")[2]
        return Advice(_POLICY, "attester", _MUST.get(last, f"start the guest so that {claim} is as expected"))
    if code.endswith("_not_accepted"):
        return Advice(
            _POLICY, "owner", "cure what it rests on, named here too; its rules: adyton policy show attestation"
        )
    if code in _BY_CODE:
        provider, actor, cure = _BY_CODE[code]
        return Advice(provider, actor, cure.format(resource=context.resource or "URI", workload=workload))
    return Advice("", "", hint)


def _what_runs(context: Context) -> Advice:
    name = MEASUREMENT_REFERENCE.get(context.tee)
    if name is not None and context.measurement:
        return _unlisted(name, None, context.measurement)
    return Advice(
        "the reference values that say what may run",
        "owner",
        "publish all of them for this TEE (docs/policies.md has the table); what is missing is named here too",
    )


def _unlisted(reference: str, expected: JsonValue, got: JsonValue) -> Advice:
    provider = f"reference value {reference}"
    if got is None or got == "":
        return Advice(provider, "attester", "the evidence does not have this claim at all: it cannot be compared")
    accepted = expected if isinstance(expected, list) else []
    if len(accepted) > MAX_QUOTED:  # the row that this is said about does not hold them all either
        return Advice(
            provider, "owner", f"if you know {_quoted(got)} to be good, add it: adyton reference show {reference}"
        )
    scalar = expected is not None and not isinstance(expected, list)
    value = _quoted(json.dumps(got if scalar else [*accepted, got]))
    return Advice(
        provider,
        "owner",
        f"if you know this value to be good: adyton reference set {reference} {value} --json-value",
    )


def _quoted(value: JsonValue) -> str:
    """One word for a shell, whatever it is."""
    text = value if isinstance(value, str) else json.dumps(value)
    shown = "".join([character if character.isprintable() else "?" for character in text])
    return "'" + shown.replace("'", "'\\''") + "'"
