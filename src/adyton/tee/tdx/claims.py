"""What a trust domain's report says, as JSON values: under Adyton's names, and under those that CoCo's policies read.

Bytes are lower-case hex, as they lie in the report.
"""

from __future__ import annotations

from functools import lru_cache

from adyton.rats.types import JsonValue
from adyton.tee.dcap.quote import Quote
from adyton.tee.eventlog import coco as coco_log
from adyton.tee.eventlog.log import EventLog
from adyton.tee.tdx.abi import ATTRIBUTE_BITS, TUD_BITS, TdBody


def of_body(body: TdBody) -> dict[str, JsonValue]:
    """The claims of the report alone. ``tud``: whether one of the bits is set that make a TD untrusted."""
    attributes = body.attributes
    report_data, mrconfigid, mrtd = body.report_data.hex(), body.mrconfigid.hex(), body.mrtd.hex()
    claims: dict[str, JsonValue] = {
        "body": body.name,
        "tee_tcb_svn": body.tee_tcb_svn.hex(),
        "mrseam": body.mrseam.hex(),
        "mrsignerseam": body.mrsignerseam.hex(),
        "seam_attributes": body.seam_attributes.hex(),
        "td_attributes": body.td_attributes.hex(),
        "td_attribute_bits": dict(_bits(attributes)),
        "debug": body.debug,
        "tud": bool(attributes & TUD_BITS),
        "sept_ve_disable": bool(attributes >> 28 & 1),
        "migratable": bool(attributes >> 29 & 1),
        "xfam": body.xfam.hex(),
        "mrtd": mrtd,
        "mrconfigid": mrconfigid,
        "mrowner": body.mrowner.hex(),
        "mrownerconfig": body.mrownerconfig.hex(),
        "rtmr0": body.rtmr0.hex(),
        "rtmr1": body.rtmr1.hex(),
        "rtmr2": body.rtmr2.hex(),
        "rtmr3": body.rtmr3.hex(),
        "report_data": report_data,
        "measurement": mrtd,
        "init_data": mrconfigid,
    }
    if body.tee_tcb_svn_2 is not None and body.mrservicetd is not None:
        claims["tee_tcb_svn_2"] = body.tee_tcb_svn_2.hex()
        claims["mrservicetd"] = body.mrservicetd.hex()
    extension = body.extension
    if extension is not None:
        claims |= {
            "vm_id": extension.vm_id,
            "td_id": extension.td_id.hex(),
            "device_info": extension.device_info.hex(),
            "init_servtd_hash": extension.init_servtd_hash.hex(),
            "init_servtd_attributes": extension.init_servtd_attributes.hex(),
            "init_cpusvn": extension.init_cpusvn.hex(),
            "init_tee_tcb_svn": extension.init_tee_tcb_svn.hex(),
            "init_fmspc": extension.init_fmspc.hex(),
            "servtd_hash": extension.servtd_hash.hex(),
            "servtd_attributes": extension.servtd_attributes.hex(),
        }
    return claims


@lru_cache(maxsize=64)
def _bits(attributes: int) -> dict[str, JsonValue]:
    return {name: bool(attributes >> bit & 1) for name, bit in ATTRIBUTE_BITS}


def coco(quote: Quote, body: TdBody, log: EventLog | None) -> dict[str, JsonValue]:
    """CoCo's claims of quote and event log (``kbs-protocol`` 2.4, ``tdx``), as far as they come from them."""
    header = quote.header
    attributes = body.attributes
    report_data, mrconfigid = body.report_data.hex(), body.mrconfigid.hex()
    fields: dict[str, JsonValue] = {
        "tcb_svn": body.tee_tcb_svn.hex(),
        "mr_seam": body.mrseam.hex(),
        "mrsigner_seam": body.mrsignerseam.hex(),
        "seam_attributes": body.seam_attributes.hex(),
        "td_attributes": body.td_attributes.hex(),
        "xfam": body.xfam.hex(),
        "mr_td": body.mrtd.hex(),
        "mr_config_id": mrconfigid,
        "mr_owner": body.mrowner.hex(),
        "mr_owner_config": body.mrownerconfig.hex(),
        "rtmr_0": body.rtmr0.hex(),
        "rtmr_1": body.rtmr1.hex(),
        "rtmr_2": body.rtmr2.hex(),
        "rtmr_3": body.rtmr3.hex(),
        "report_data": report_data,
    }
    if body.tee_tcb_svn_2 is not None and body.mrservicetd is not None:
        fields["tee_tcb_svn2"] = body.tee_tcb_svn_2.hex()
        fields["mr_servicetd"] = body.mrservicetd.hex()
    quoted: dict[str, JsonValue] = {
        "header": {
            "version": header.version.to_bytes(2, "little").hex(),
            "att_key_type": header.attestation_key_type.to_bytes(2, "little").hex(),
            "tee_type": header.tee_type.to_bytes(4, "little").hex(),
            "reserved": (header.qe_svn | header.pce_svn << 16).to_bytes(4, "little").hex(),
            "vendor_id": header.qe_vendor_id.hex(),
            "user_data": header.user_data.hex(),
        },
        "body": fields,
    }
    if header.version > 4:
        quoted["type"] = quote.body_type.to_bytes(2, "little").hex()
        quoted["size"] = quote.body_size.to_bytes(4, "little").hex()
    claims: dict[str, JsonValue] = {
        "quote": quoted,
        "td_attributes": {
            "debug": bool(attributes & 1),
            "key_locker": bool(attributes >> 31 & 1),
            "perfmon": bool(attributes >> 63 & 1),
            "protection_keys": bool(attributes >> 30 & 1),
            "septve_disable": bool(attributes >> 28 & 1),
        },
        "report_data": report_data,
        "init_data": mrconfigid,
    }
    if log is not None:
        claims["uefi_event_logs"] = coco_log.entries(log)
    return claims
