"""What a report says, as JSON values: under Adyton's names, and under those that CoCo's policies read.

Bytes are lower-case hex, numbers of a fixed width hex numbers. Nothing here says that any of it is true; ``verify`` does, and
in version 1 only together with an expected report data (``fields_bound``).
"""

from __future__ import annotations

from functools import lru_cache

from adyton.rats.types import JsonValue
from adyton.tee.csv.abi import CsvReport, GuestPolicy
from adyton.tee.csv.certificate import HygonCertificate

_FORMATS = {1: "v1 (xor-masked with anonce)", 2: "v2 (extended, not masked)"}
MAC_VALID = "valid (HMAC-SM3 keyed with mnonce)"


def of_report(report: CsvReport, serial: str | None) -> dict[str, JsonValue]:
    """The claims of the report alone. ``chip_serial`` is nobody's signed word, in either form of evidence."""
    claims: dict[str, JsonValue] = {
        "report_format": _FORMATS[report.version],
        "report_version": report.version,
        "user_pubkey_digest": report.user_pubkey_digest.hex(),
        "vm_id": report.vm_id.hex(),
        "vm_version": report.vm_version.hex(),
        "report_data": report.report_data.hex(),
        "mnonce": report.mnonce.hex(),
        "measure": report.measure.hex(),
        "policy": f"{report.policy:#x}",
        "policy_bits": dict(_policy(report.policy)),
        "sig_usage": f"{report.usage:#x}",
        "sig_algo": f"{report.algorithm:#x}",
        "chip_serial": serial,
        # The names that every TEE has.
        "measurement": report.measure.hex(),
        "debug": report.policy.debug_allowed,
        "tcb_status": None,
        "platform_id": None,
        "init_data": None,
    }
    if report.version == 1:
        claims["anonce"] = report.anonce.hex()
    else:
        claims["build"] = report.build
        claims["rtmr_version"] = report.rtmr_version
        for number, register in enumerate(report.registers):
            claims[f"rtmr{number}"] = register.hex()
    return claims


@lru_cache(maxsize=64)
def _policy(policy: GuestPolicy) -> dict[str, JsonValue]:
    return {**policy.fields()}


def tcb(report: CsvReport, pek: HygonCertificate) -> dict[str, JsonValue]:
    """Hygon publishes no levels: the firmware that made the PEK, and the build of version 2."""
    major, minor = pek.firmware or (0, 0)
    return {"firmware_api": f"{major}.{minor}", "build": report.build}


def coco(report: CsvReport, serial: str | None) -> dict[str, JsonValue]:
    """Exactly the claims that CoCo's verifier hands to a policy (``kbs-protocol`` 2.4, ``csv``).

    ``uefi_event_logs`` is added where there is a log that replays.
    """
    claims: dict[str, JsonValue] = {
        "version": str(report.version),
        "policy": dict(_policy(report.policy)),
        "user_pubkey_digest": report.user_pubkey_digest.hex(),
        "vm_id": report.vm_id.hex(),
        "vm_version": report.vm_version.hex(),
        "report_data": report.report_data.hex(),
        "mnonce": report.mnonce.hex(),
        "measure": report.measure.hex(),
        "sig_usage": report.usage.to_bytes(4, "little").hex(),
        "sig_algo": report.algorithm.to_bytes(4, "little").hex(),
        "serial_number": serial,
    }
    if report.version == 1:
        claims["anonce"] = report.anonce.hex()
    else:
        claims["build"] = report.build
        claims["rtmr_version"] = report.rtmr_version
        for number, register in enumerate(report.registers):
            claims[f"rtmr{number}"] = register.hex()
    return claims
