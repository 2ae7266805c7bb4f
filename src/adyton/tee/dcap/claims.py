"""What a quote, its PCK certificate and its collateral say, as JSON values: the part that SGX and TDX have in common.

Bytes are lower-case hex, dates as Intel writes them. CoCo's names are those of its verifier (``kbs-protocol`` 2.4).
Platform instance id and PPID identify a machine: claims, and nothing for a log.
"""

from __future__ import annotations

from adyton.crypto.x509 import Certificate
from adyton.rats.types import JsonValue
from adyton.tee.dcap.collateral import VerifiedCollateral, written
from adyton.tee.dcap.endorsements import Issuer, Span
from adyton.tee.dcap.levels import TcbVerdict
from adyton.tee.dcap.pck import Pck
from adyton.tee.dcap.quote import Quote

_SGX_TYPES = ("Standard", "Scalable", "Scalable with Integrity")


def of_quote(quote: Quote) -> dict[str, JsonValue]:
    """The claims of header and signature data alone."""
    header = quote.header
    size = quote.size
    return {
        "quote_version": header.version,
        "att_key_type": header.attestation_key_type,
        "tee_type": header.tee_type,
        "qe_vendor_id": header.qe_vendor_id.hex(),
        "qe_user_data": header.user_data.hex(),
        "qe_svn": header.qe_svn,
        "pce_svn": header.pce_svn,
        "qe_isvsvn": quote.qe_report.isvsvn,
        "cert_data_type": quote.certification_type,
        "signed_quote_len": size,
        "trailing_bytes": len(quote.tail),
    }


def of_pck(pck: Pck, kind: str | None) -> dict[str, JsonValue]:
    """The claims of the PCK certificate; ``kind`` is its CA's."""
    certificate = pck.certificate
    instance = pck.platform_instance_id
    return {
        "fmspc": pck.fmspc.hex(),
        "pceid": pck.pceid.hex(),
        "ppid": pck.ppid.hex(),
        "platform_id": pck.ppid.hex(),
        "platform_instance_id": instance.hex() if instance is not None else None,
        "sgx_type": _SGX_TYPES[pck.sgx_type],
        "dynamic_platform": pck.dynamic_platform,
        "cached_keys": pck.cached_keys,
        "smt_enabled": pck.smt_enabled,
        "pck_ca": kind,
        "pck_cpusvn": pck.cpusvn.hex(),
        "pck_cpusvn_components": list(pck.components),
        "pck_pcesvn": pck.pcesvn,
        "pck_not_before": written(certificate.not_before),
        "pck_not_after": written(certificate.not_after),
        "pck_serial": f"{certificate.serial:x}",
    }


def kind_of(certificate: Certificate) -> str | None:
    """The kind of the CA that a PCK certificate names as its issuer, verified or not."""
    for kind in ("platform", "processor"):
        if f"SGX PCK {kind.capitalize()} CA".encode() in certificate.issuer:
            return kind
    return None


def of_tcb(verdict: TcbVerdict, collateral: VerifiedCollateral) -> dict[str, JsonValue]:
    """The converged status with what went into it. Whoever takes the one takes the other."""
    module = verdict.module
    return {
        "tcb_status": verdict.status.value,
        "tcb_date": verdict.platform.date,
        "advisory_ids": list(verdict.advisories),
        "platform_tcb_status": verdict.platform.status.value,
        "platform_tcb_date": verdict.platform.date,
        "qe_tcb_status": verdict.qe.status.value,
        "qe_tcb_date": verdict.qe.date,
        "tdx_module_tcb_status": module.status.value if module is not None else None,
        "tdx_module_tcb_date": module.date if module is not None else None,
        "tcb_evaluation_data_number": collateral.info.evaluation_number,
        "qe_evaluation_data_number": collateral.identity.evaluation_number,
    }


def of_collateral(span: Span, issuer: Issuer) -> dict[str, JsonValue]:
    """When what was relied on was issued, and until when it holds."""
    return {
        "earliest_issue_date": written(span.earliest),
        "latest_issue_date": written(span.latest),
        "earliest_expiration_date": written(span.end),
        "pck_crl_number": issuer.pck_crl_number,
        "root_crl_number": issuer.root_crl_number,
    }


def coco_platform(pck: Pck, issuer: Issuer, span: Span) -> dict[str, JsonValue]:
    """CoCo's claims of certificate and collateral, but for those that depend on the quote's own TCB."""
    claims: dict[str, JsonValue] = {
        "collateral_expiration_status": "0",  # what has expired was refused
        "earliest_issue_date": written(span.earliest),
        "latest_issue_date": written(span.latest),
        "earliest_expiration_date": written(span.end),
        "pck_crl_num": issuer.pck_crl_number,
        "root_ca_crl_num": issuer.root_crl_number,
        "root_key_id": issuer.root_key_id,
        "platform_provider_id": pck.ppid.hex(),
        "sgx_type": _SGX_TYPES[pck.sgx_type],
    }
    if pck.platform_instance_id is not None:
        claims["platform_instance_id"] = pck.platform_instance_id.hex()
    if pck.sgx_type:
        claims["is_dynamic_platform"] = bool(pck.dynamic_platform)
        claims["is_cached_keys"] = bool(pck.cached_keys)
        claims["is_smt_enabled"] = bool(pck.smt_enabled)
    return claims


def coco_tcb(verdict: TcbVerdict, collateral: VerifiedCollateral) -> dict[str, JsonValue]:
    """CoCo's claims of the TCB. ``Revoked`` stands here too: CoCo's verifier refuses such evidence, policies must."""
    return {
        "tcb_status": verdict.status.value,
        "tcb_date": verdict.platform.date,
        "advisory_ids": list(verdict.advisories),
        "tcb_eval_num": collateral.info.evaluation_number,
    }
