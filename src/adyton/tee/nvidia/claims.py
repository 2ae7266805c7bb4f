"""What a device's evidence says, as JSON values: under Adyton's names, under CoCo's, and under those of NVIDIA's service.

CoCo's local verifier hands out ``arch``, ``uuid``, ``measurements`` and ``config`` (``kbs-protocol`` 2.4). Its default policies
for GPUs and switches test the names of NVIDIA's remote service instead (``x-nvidia-…``, ``measres``). Those are added here
where what they say was verified; a member about something that was not looked at is left out, never null: in Rego, null
counts as true.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from adyton.crypto.path import Path
from adyton.rats.types import JsonValue
from adyton.tee.nvidia import opaque
from adyton.tee.nvidia.abi import DIGEST_SIZE, Report
from adyton.tee.nvidia.endorsements import SWITCH, Leaf
from adyton.tee.nvidia.golden import Compared
from adyton.tee.nvidia.opaque import Opaque
from adyton.tee.nvidia.rim import DRIVER

_DIGESTS = {DIGEST_SIZE}
_NUMBERS = tuple(map(str, range(256)))
_OFFSETS = range(0, 256 * 2 * DIGEST_SIZE, 2 * DIGEST_SIZE)
NVIDIA = "5703"  # its private enterprise number
_COCO_ARCHES = {"HOPPER": "Hopper", "BLACKWELL": "Blackwell", SWITCH: "LS10"}


def of_report(report: Report, said: Opaque, values: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """The claims of the report alone. ``values``: its measurements in hex by index from 1, as text."""
    claims: dict[str, JsonValue] = {
        "nonce": report.nonce.hex(),
        "response_nonce": report.response_nonce.hex(),
        "slot": report.slot,
        "measurements": len(report.blocks),
        "measurement_values": {**values},
        "driver_version": said.driver_version,
        "vbios_version": said.vbios_version,
        "project": said.project,
        "project_sku": said.project_sku,
        "chip_sku": said.chip_sku,
        "nvdec0_status": said.nvdec0_status,
        "feature": said.feature,
        "opaque_field_ids": [*said.types],
    }
    if said.fwid is not None:
        claims["fwid_in_report"] = said.fwid.hex()
    return claims


def values_of(report: Report) -> dict[str, JsonValue]:
    """Measurements in hex by index from 1."""
    blocks = report.blocks
    values = [block[2] for block in blocks]
    if set(map(len, values)) != _DIGESTS:
        return {_NUMBERS[index]: value.hex() for index, _, value in blocks}
    digits = b"".join(values).hex()  # all at once, and then cut: there are many
    size = 2 * DIGEST_SIZE
    return {_NUMBERS[block[0]]: digits[at : at + size] for block, at in zip(blocks, _OFFSETS, strict=False)}


def of_chain(leaf: Leaf, path: Path) -> dict[str, JsonValue]:
    """The claims of the device's chain: ``platform_id`` is the serial number of the chip's own certificate in hex."""
    chip = path.certificates[1]
    claims: dict[str, JsonValue] = {
        "arch": leaf.arch,
        "chip": leaf.chip,
        "device_type": "switch" if leaf.arch == SWITCH else "gpu",
        "chain": [certificate.common_name for certificate in path.certificates],
        "chain_len": len(path.certificates),
        "leaf_not_before": rfc3339(leaf.certificate.not_before),
        "leaf_not_after": rfc3339(leaf.certificate.not_after),
        "leaf_serial": f"{leaf.certificate.serial:x}",
        "platform_id": f"{chip.serial:x}",
        "hardware_model": chip.common_name,
        "measurement": None,
        "tcb_status": None,
        "init_data": None,
    }
    if leaf.exact:
        claims["fwid_in_certificate"] = leaf.fwids[0].hex()
    return claims


def of_comparison(compared: Sequence[Compared], *, fwid_match: bool) -> dict[str, JsonValue]:
    """What came of comparing: ``None`` is "not compared". Debugging is off where every golden measurement matches."""
    return {
        "fwid_match": True if fwid_match else None,
        "measurements_match": True if compared else None,
        "rim_versions": {one.rim.rim.source: one.rim.rim.version for one in compared},
        "rim_active_measurements": sum(len(one.rim.rim.golden) for one in compared),
        "rim_excused_indices": [index for one in compared for index in one.excused],
        "debug": False if compared else None,
    }


def coco(
    leaf: Leaf,
    path: Path,
    report: Report,
    said: Opaque,
    compared: Sequence[Compared],
    *,
    values: dict[str, JsonValue],
    uuid: str | None,
    answered: bool,
    nonce_match: bool,
    fwid_match: bool,
) -> dict[str, JsonValue]:
    """The claims as policies written for CoCo read them. ``answered``: OCSP answers cover every authority."""
    switch = leaf.arch == SWITCH
    kind = "switch" if switch else "gpu"
    about = f"x-nvidia-{kind}-attestation-report"
    claims: dict[str, JsonValue] = {
        "arch": _COCO_ARCHES[leaf.arch],
        "measurements": values,
        "config": opaque.copied(said.config),
        "hwmodel": path.certificates[1].common_name,
        "ueid": str(leaf.certificate.serial),
        "oemid": NVIDIA,
        "eat_nonce": report.nonce.hex(),
        "x-nvidia-device-type": "nvswitch" if switch else "gpu",
        f"x-nvidia-{kind}-arch-check": True,
        f"{about}-cert-chain": _chain(min(item.not_after for item in path.certificates), answered=answered),
        f"{about}-parsed": True,
        f"{about}-signature-verified": True,
    }
    if uuid is not None:
        claims["uuid"] = uuid
    if nonce_match:
        claims[f"{about}-nonce-match"] = True
    if fwid_match:
        claims[f"{about}-cert-chain-fwid-match"] = True
    if switch:
        claims["x-nvidia-switch-bios-version"] = said.vbios_version or ""
    else:
        claims["x-nvidia-gpu-driver-version"] = said.driver_version or ""
        claims["x-nvidia-gpu-vbios-version"] = said.vbios_version or ""
    for one in compared:
        source = "bios" if switch else "driver" if one.rim.rim.source == DRIVER else "vbios"
        manifest = f"x-nvidia-{kind}-{source}-rim"
        claims[f"{manifest}-cert-chain"] = _chain(one.rim.not_after, answered=answered)
        for fact in ("fetched", "schema-validated", "signature-verified", "version-match", "measurements-available"):
            claims[f"{manifest}-{fact}"] = True
    if compared:
        claims |= {"measres": "success", "secboot": True, "dbgstat": "disabled"}
        if not switch:
            claims["x-nvidia-gpu-vbios-index-no-conflict"] = True
    return claims


def _chain(not_after: datetime, *, answered: bool) -> dict[str, JsonValue]:
    status: dict[str, JsonValue] = {
        "x-nvidia-cert-status": "valid",
        "x-nvidia-cert-expiration-date": rfc3339(not_after),
    }
    if answered:
        status["x-nvidia-cert-ocsp-status"] = "good"
    return status


def rfc3339(moment: datetime) -> str:
    """A time in UTC as text."""
    return moment.isoformat().replace("+00:00", "Z")
