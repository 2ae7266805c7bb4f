"""What a report says, as JSON values: under Adyton's names, and under those that CoCo's policies read.

Bytes are lower-case hex, 64-bit fields hex numbers, versions ``major.minor.build``. TCB versions stand both as the
report's 8 bytes and taken apart. Nothing here says that any of it is true; ``verify`` does.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from adyton.rats.types import JsonValue
from adyton.tee.snp.abi import GuestPolicy, PlatformInfo, SnpReport, Tcb
from adyton.tee.snp.product import Product, by_cpuid

if TYPE_CHECKING:  # whoever only shows a report needs no certificates
    from adyton.tee.snp.endorsements import Leaf


def of_report(report: SnpReport) -> dict[str, JsonValue]:
    """The claims of the report alone."""
    policy = report.policy
    key_info = report.key_info
    signing_key = key_info.signing_key
    claims: dict[str, JsonValue] = {
        "report_version": report.version,
        "guest_svn": report.guest_svn,
        "vmpl": report.vmpl,
        "policy": hex(policy),
        "policy_bits": dict(_policy_bits(policy)),
        "platform_info": hex(report.platform_info),
        "platform_bits": dict(_platform_bits(report.platform_info)),
        "signing_key": signing_key.name if signing_key is not None else None,
        "mask_chip_key": key_info.mask_chip_key,
        "author_key_en": key_info.author_key_enabled,
        "measurement": report.measurement.hex(),
        "debug": policy.debug_allowed,
        "tcb_status": None,  # AMD publishes no status: the owner's minimum decides
        "platform_id": None if report.chip_id_masked else report.chip_id.hex(),
        "report_data": report.report_data.hex(),
        "init_data": report.host_data.hex(),
        "host_data": report.host_data.hex(),
        "id_key_digest": report.id_key_digest.hex(),
        "author_key_digest": report.author_key_digest.hex(),
        "report_id": report.report_id.hex(),
        "report_id_ma": report.report_id_ma.hex(),
        "family_id": report.family_id.hex(),
        "image_id": report.image_id.hex(),
        "chip_id": report.chip_id.hex(),
        "chip_id_masked": report.chip_id_masked,
        "reported_tcb": report.reported_tcb.raw.hex(),
        "reported_tcb_decoded": _short(report.reported_tcb),
        "current_tcb": report.current_tcb.raw.hex(),
        "committed_tcb": report.committed_tcb.raw.hex(),
        "launch_tcb": report.launch_tcb.raw.hex(),
        "current_version": _dotted(report.current_version),
        "committed_version": _dotted(report.committed_version),
    }
    if report.cpuid is not None:
        claims["cpuid_fms"] = list(report.cpuid)
    if report.mitigation_vectors is not None:
        claims["launch_mit_vector"], claims["current_mit_vector"] = report.mitigation_vectors
    return claims


def with_leaf(report: SnpReport, leaf: Leaf) -> dict[str, JsonValue]:
    """The claims of a verified report and of the certificate of its key."""
    claims = of_report(report)
    claims["product"] = leaf.product_name
    if leaf.hardware_id is not None:
        claims["hwid_len"] = len(leaf.hardware_id)
    else:
        claims["csp_id"] = leaf.csp_id
    return claims


@lru_cache(maxsize=64)
def _policy_bits(policy: GuestPolicy) -> dict[str, JsonValue]:
    return {"abi_minor": policy.abi_minor, "abi_major": policy.abi_major, **policy.bits()}


@lru_cache(maxsize=64)
def _platform_bits(platform_info: PlatformInfo) -> dict[str, JsonValue]:
    return {**platform_info.bits()}


def product_of(report: SnpReport) -> Product | None:
    """The generation that the report's CPUID names; ``None`` in version 2, and for chips without a known root."""
    return by_cpuid(report.cpuid_family, report.cpuid_model) if report.version > 2 else None


def tcb(report: SnpReport) -> dict[str, JsonValue]:
    """The four TCB versions by component."""
    return {
        "reported": _long(report.reported_tcb),
        "committed": _long(report.committed_tcb),
        "current": _long(report.current_tcb),
        "launch": _long(report.launch_tcb),
    }


def coco(report: SnpReport) -> dict[str, JsonValue]:
    """Exactly the claims that CoCo's verifier hands to a policy (``kbs-protocol`` 2.4, ``snp``)."""
    return {
        "measurement": report.measurement.hex(),
        "report_data": report.report_data.hex(),
        "init_data": report.host_data.hex(),
        "chip_id": report.chip_id.hex(),
        **_coco_platform(report.policy, report.platform_info, report.reported_tcb),
    }


@lru_cache(maxsize=256)  # the same for every guest of a kind on every machine of a kind
def _coco_platform(policy: GuestPolicy, platform_info: PlatformInfo, reported: Tcb) -> dict[str, JsonValue]:
    _, boot_loader, tee, snp, microcode = reported.components
    return {
        "reported_tcb_bootloader": boot_loader,
        "reported_tcb_tee": tee,
        "reported_tcb_snp": snp,
        "reported_tcb_microcode": microcode,
        "policy_abi_major": policy.abi_major,
        "policy_abi_minor": policy.abi_minor,
        "policy_smt_allowed": bool(policy >> 16 & 1),
        "policy_migrate_ma": bool(policy >> 18 & 1),
        "policy_debug_allowed": bool(policy >> 19 & 1),
        "policy_single_socket": bool(policy >> 20 & 1),
        "platform_smt_enabled": bool(platform_info & 1),
        "platform_tsme_enabled": bool(platform_info >> 1 & 1),
    }


def _short(tcb: Tcb) -> dict[str, JsonValue]:
    fmc, boot_loader, tee, snp, microcode = tcb.components
    decoded: dict[str, JsonValue] = {"bl": boot_loader, "tee": tee, "snp": snp, "ucode": microcode}
    return decoded if tcb.fmc is None else {"fmc": fmc, **decoded}


def _long(tcb: Tcb) -> dict[str, JsonValue]:
    fmc, boot_loader, tee, snp, microcode = tcb.components
    decoded: dict[str, JsonValue] = {"boot_loader": boot_loader, "tee": tee, "snp": snp, "microcode": microcode}
    return decoded if tcb.fmc is None else {"fmc": fmc, **decoded}


def _dotted(version: tuple[int, int, int]) -> str:
    return f"{version[0]}.{version[1]}.{version[2]}"
