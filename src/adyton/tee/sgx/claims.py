"""What an enclave's report says, as JSON values: under Adyton's names, and under those that CoCo's policies read.

Bytes are lower-case hex; 16-bit numbers are numbers here, and hex of their little-endian bytes in CoCo's claims.
"""

from __future__ import annotations

from functools import lru_cache

from adyton.rats.types import JsonValue
from adyton.tee.dcap.quote import Quote
from adyton.tee.sgx.abi import ATTRIBUTE_BITS, SgxBody


def of_body(body: SgxBody) -> dict[str, JsonValue]:
    """The claims of the report alone."""
    report_data, configid = body.report_data.hex(), body.configid.hex()
    mrenclave = body.mrenclave.hex()
    return {
        "body": "sgx",
        "cpusvn": body.cpusvn.hex(),
        "miscselect": body.miscselect,
        "isvextprodid": body.isvextprodid.hex(),
        "attributes": body.attributes.hex(),
        "attribute_bits": dict(_bits(body.flags)),
        "debug": body.debug,
        "mrenclave": mrenclave,
        "mrsigner": body.mrsigner.hex(),
        "configid": configid,
        "isvprodid": body.isvprodid,
        "isvsvn": body.isvsvn,
        "configsvn": body.configsvn,
        "isvfamilyid": body.isvfamilyid.hex(),
        "report_data": report_data,
        "measurement": mrenclave,
        "init_data": configid,
    }


@lru_cache(maxsize=64)
def _bits(flags: int) -> dict[str, JsonValue]:
    return {name: bool(flags >> bit & 1) for name, bit in ATTRIBUTE_BITS}


def coco(quote: Quote, body: SgxBody) -> dict[str, JsonValue]:
    """CoCo's claims of the quote (``kbs-protocol`` 2.4, ``sgx``), as far as they come from it."""
    header = quote.header
    report_data, configid = body.report_data.hex(), body.configid.hex()
    return {
        "header": {
            "version": _u16(header.version),
            "att_key_type": _u16(header.attestation_key_type),
            "att_key_data_0": header.tee_type.to_bytes(4, "little").hex(),
            "qe_svn": _u16(header.qe_svn),
            "pce_svn": _u16(header.pce_svn),
            "vendor_id": header.qe_vendor_id.hex(),
            "user_data": header.user_data.hex(),
        },
        "body": {
            "cpu_svn": body.cpusvn.hex(),
            "misc_select": body.miscselect.to_bytes(4, "little").hex(),
            "reserved1": body.reserved_20.hex(),
            "isv_ext_prod_id": body.isvextprodid.hex(),
            "attributes.flags": body.attributes[:8].hex(),
            "attributes.xfrm": body.attributes[8:].hex(),
            "mr_enclave": body.mrenclave.hex(),
            "reserved2": body.reserved_96.hex(),
            "mr_signer": body.mrsigner.hex(),
            "reserved3": body.reserved_160.hex(),
            "config_id": configid,
            "isv_prod_id": _u16(body.isvprodid),
            "isv_svn": _u16(body.isvsvn),
            "config_svn": _u16(body.configsvn),
            "reserved4": body.reserved_262.hex(),
            "isv_family_id": body.isvfamilyid.hex(),
            "report_data": report_data,
        },
        "report_data": report_data,
        "init_data": configid,
    }


def _u16(value: int) -> str:
    return value.to_bytes(2, "little").hex()
