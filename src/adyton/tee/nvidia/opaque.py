"""What the opaque data of a report says, by the names that NVIDIA's and CoCo's tools give the fields (evidence 11).

Texts are ASCII, filled with zero bytes. A GPU writes its VBIOS version as 8 bytes, a switch as text. Types that are
unknown here are kept as hex, signed and not interpreted.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from adyton.errors import MalformedEvidence
from adyton.rats.types import JsonValue
from adyton.tee.nvidia.abi import DIGEST_SIZE, SPEC, Report

DRIVER_VERSION = 3
VBIOS_VERSION = 6
NVDEC0_STATUS = 11
MEASUREMENT_COUNT = 12
CHIP_SKU = 15
PROJECT = 17
PROJECT_SKU = 18
FWID = 20
SWITCH_PDI = 22
DATA_VERSION = 34
CHIP_INFO = 35
FEATURE_FLAG = 36

ENABLED = "enabled"
DISABLED = "disabled"
_STATUS = {b"\xaa": ENABLED, b"\x55": DISABLED}
_FEATURES = {0: "SPT", 1: "MPT", 2: "PPCIE"}
_MAX_COUNTS = 254 * 4
_TEXTS = frozenset({DRIVER_VERSION, CHIP_SKU, 16, PROJECT, PROJECT_SKU, CHIP_INFO})
_NAMES = {
    1: "cert_issuer_name",
    2: "cert_authority_key_identifier",
    DRIVER_VERSION: "driver_version",
    4: "gpu_info",
    5: "id_sku",
    VBIOS_VERSION: "vbios_version",
    7: "manufacturer_id",
    8: "tamper_detection",
    9: "smc",
    10: "vpr",
    NVDEC0_STATUS: "nvdec0_status",
    MEASUREMENT_COUNT: "measurement_count",
    13: "cpr_info",
    14: "board_id",
    CHIP_SKU: "chip_sku",
    16: "chip_sku_mod",
    PROJECT: "project",
    PROJECT_SKU: "project_sku",
    19: "project_sku_mod",
    FWID: "fwid",
    21: "protected_pcie_status",
    SWITCH_PDI: "switch_pdi",
    23: "floorswept_ports",
    24: "position_id",
    25: "lock_switch_status",
    32: "gpu_link_conn",
    33: "sys_enable_status",
    DATA_VERSION: "opaque_data_version",
    CHIP_INFO: "chip_info",
    FEATURE_FLAG: "feature_flag",
}


class Opaque(NamedTuple):
    """The fields that verification looks at; ``None`` where the report has none. ``config``: all, under CoCo's names.

    ``vbios_version`` is in upper case, as in NVIDIA's manifests; in ``config`` in lower case, as in CoCo's claims.
    """

    driver_version: str | None
    vbios_version: str | None
    project: str | None
    project_sku: str | None
    chip_sku: str | None
    nvdec0_status: str | None
    fwid: bytes | None
    feature: str | None
    types: tuple[int, ...]
    config: dict[str, JsonValue]


def read(report: Report) -> Opaque:
    """What the fields say, or ``MalformedEvidence``. Devices say the same again and again: remembered by content."""
    return _read(report.opaque)


@lru_cache(maxsize=128)
def _read(opaque: tuple[tuple[int, bytes], ...]) -> Opaque:
    config = {_NAMES.get(kind, f"opaque_{kind}"): _value(kind, data) for kind, data in opaque}
    raw = dict(opaque)
    vbios = _text(config, "vbios_version")
    return Opaque(
        driver_version=_text(config, "driver_version"),
        vbios_version=vbios.upper() if vbios is not None else None,
        project=_text(config, "project"),
        project_sku=_text(config, "project_sku"),
        chip_sku=_text(config, "chip_sku"),
        nvdec0_status=_text(config, "nvdec0_status"),
        fwid=raw.get(FWID),
        feature=_text(config, "feature_flag"),
        types=tuple(sorted(raw)),
        config=config,
    )


def copied(config: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """A copy for a caller's claims, who may do with it what they like."""
    copy = dict(config)
    for name, value in config.items():
        kind = type(value)
        if kind is dict or kind is list:
            copy[name] = value.copy()  # type: ignore[union-attr]  # it is one of the two
    return copy


def _text(config: dict[str, JsonValue], name: str) -> str | None:
    value = config.get(name)
    return value if isinstance(value, str) and value else None


def _value(kind: int, data: bytes) -> JsonValue:
    if kind in _TEXTS:
        return _ascii(kind, data)
    if kind == VBIOS_VERSION:
        if len(data) != 8:
            return _ascii(kind, data).lower()
        return ".".join(f"{byte:02x}" for byte in (data[3], data[2], data[1], data[0], data[4]))
    if kind == NVDEC0_STATUS:
        if data not in _STATUS:
            raise _malformed(kind, data)
        return _STATUS[data]
    if kind == MEASUREMENT_COUNT:
        if len(data) % 4 or len(data) > _MAX_COUNTS:
            raise _malformed(kind, data)
        return {
            str(number): int.from_bytes(data[at : at + 4], "little")
            for number, at in enumerate(range(0, len(data), 4), start=1)
        }
    if kind == SWITCH_PDI:
        if len(data) % 8:
            raise _malformed(kind, data)
        return [data[at : at + 8].hex() for at in range(0, len(data), 8)]
    if kind in {DATA_VERSION, FEATURE_FLAG}:
        if not 1 <= len(data) <= 8:
            raise _malformed(kind, data)
        number = int.from_bytes(data, "little")
        return number if kind == DATA_VERSION else _FEATURES.get(number, "unknown")
    if kind == FWID and len(data) != DIGEST_SIZE:
        raise _malformed(kind, data)
    return data.hex()


def _ascii(kind: int, data: bytes) -> str:
    text = data.rstrip(b"\0")
    if not all(0x20 < byte < 0x7F for byte in text):
        raise _malformed(kind, data)
    return text.decode("ascii")


def _malformed(kind: int, data: bytes) -> MalformedEvidence:
    return MalformedEvidence(
        "a field of the opaque data that is not of its type",
        code="opaque_malformed",
        tee="nvidia",
        field=_NAMES[kind],
        got=data[:64],
        spec=SPEC,
    )
