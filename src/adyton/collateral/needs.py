"""Which endorsements a piece of evidence needs: read from its bytes, which are believed nothing, and no clock, file or network.

What the evidence carries itself (a VCEK in CoCo's JSON, the PCK chain in a quote) is not asked for. Evidence of other TEEs
needs nothing that is served over a network.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

from adyton.collateral import nvidia, pck
from adyton.collateral.items import Item
from adyton.collateral.wanted import (
    AmdChain,
    AmdCrl,
    AmdVcek,
    IntelIdentity,
    IntelPck,
    IntelPckCrl,
    IntelRootCrl,
    IntelTcbInfo,
    NvidiaRim,
    Wanted,
)
from adyton.crypto.x509 import Certificate, EndorsementSet
from adyton.errors import MalformedEvidence
from adyton.tee.dcap import quote_json
from adyton.tee.dcap.quote import Quote
from adyton.tee.nvidia import abi as spdm
from adyton.tee.nvidia import json_form as nvidia_json
from adyton.tee.nvidia import opaque, rim
from adyton.tee.nvidia.endorsements import SWITCH, is_leaf, read_leaf
from adyton.tee.nvidia.manifests import rim_id
from adyton.tee.snp import json_form
from adyton.tee.snp.abi import SigningKey, SnpReport
from adyton.tee.snp.claims import product_of
from adyton.tee.snp.json_form import is_json
from adyton.tee.snp.product import Product
from adyton.wire import b64, strict_json

MAX_SIZE = 4 * 1024 * 1024
_HCL_HEADER = 32
_SNP_SIZE = 1184
_CERTIFICATES = (4, 5)  # certification data: the PCK certificate, alone or with its issuers
_ENCRYPTED_PPID = 3  # PPID encrypted with RSA-3072, CPUSVN, PCESVN, PCEID
_PCK_DATA_SIZE = 384 + 16 + 2 + 2


def needs(tee: str, evidence: bytes, *, edition: str = "early") -> tuple[Wanted, ...]:
    """What verification will ask for, in the order in which to get it. ``edition``: of what Intel publishes early and late.

    ``MalformedEvidence`` if the bytes are not that TEE's evidence.
    """
    found = _ROOMS.get(tee)
    return tuple(dict.fromkeys(found(evidence, edition))) if found is not None else ()


def _snp(evidence: bytes, _edition: str) -> list[Wanted]:
    if not is_json(evidence):
        return _report(SnpReport.parse(evidence), has_leaf=False)
    parsed = json_form.parse(evidence)
    carried = {kind for kind, _ in parsed.certificates()}
    return _report(parsed.report, has_leaf=bool(carried & {"VCEK", "VLEK"}))


def _report(report: SnpReport, *, has_leaf: bool) -> list[Wanted]:
    """The chain before the CRL: who signed the CRL is then known."""
    product = product_of(report)
    products = [product] if product is not None else [Product.MILAN, Product.GENOA]  # version 2 does not say
    kind = report.key_info.signing_key
    wanted: list[Wanted] = []
    for each in products:
        wanted += [AmdChain(each, "vlek" if kind is SigningKey.VLEK else "vcek"), AmdCrl(each)]
        if kind is SigningKey.VCEK and not has_leaf and not report.chip_id_masked:
            tcb = report.reported_tcb  # not current_tcb: the key is derived from what the report reports
            fmc = tcb.fmc if each.has_fmc else None
            chip = report.chip_id[: each.hardware_id_size]
            wanted.append(AmdVcek(each, chip, tcb.boot_loader, tcb.tee, tcb.snp, tcb.microcode, fmc))
    return wanted


def _dcap(evidence: bytes, edition: str, tee: str) -> list[Wanted]:
    raw = quote_json.parse(evidence, tee, with_log=tee == "tdx")[0] if quote_json.is_json(evidence) else evidence
    return _quote(Quote.parse(raw), edition)


def _quote(quote: Quote, edition: str) -> list[Wanted]:
    tee = "tdx" if quote.header.tee_type else "sgx"
    identity = IntelIdentity("td_qe" if tee == "tdx" else "qe", edition)
    data = quote.certification_data
    if quote.certification_type in _CERTIFICATES:
        chain = EndorsementSet.parse([data if data[:1] == b"\x30" else data.rstrip(b"\0")]).certificates
        if not chain:
            raise _malformed(tee, "there is no PCK certificate in the quote", quote.certification_type)
        return [*_of_platform(chain[0], tee, edition), identity, IntelRootCrl()]
    if quote.certification_type == _ENCRYPTED_PPID and len(data) == _PCK_DATA_SIZE:
        wanted = IntelPck(quote.header.user_data[:16], data[:384], data[384:400], data[400:402], data[402:404])
        return [wanted, identity, IntelRootCrl()]  # what it says of the platform is known when it is here: ``after``
    raise _malformed(tee, "the quote names its PCK certificate in a way that nobody answers", quote.certification_type)


def _of_platform(certificate: Certificate, tee: str, edition: str) -> list[Wanted]:
    platform = pck.read(certificate)
    return [IntelTcbInfo(tee, platform.fmspc, edition), IntelPckCrl(platform.ca)]


def after(item: Item, tee: str, *, edition: str = "early") -> tuple[Wanted, ...]:
    """What is wanted besides, now that this was had.

    After a PCK certificate, TCB info of its platform and the CRL of its CA; after a manifest, whether its signers still count.
    """
    if isinstance(item.wanted, IntelPck):
        (certificate,) = EndorsementSet.parse([item.body]).certificates
        return tuple(_of_platform(certificate, "tdx" if tee.endswith(("tdx", "tdx-vtpm")) else "sgx", edition))
    if isinstance(item.wanted, NvidiaRim):
        signers = rim.parse(item.body).certificates
        return tuple(nvidia.status_of(one, above) for one, above in pairwise(signers))
    return ()


def _az_snp(evidence: bytes, _edition: str) -> list[Wanted]:
    outer = _object(evidence, "az-snp-vtpm")
    hcl = _member(outer, "hcl_report" if "hcl_report" in outer else "report", "az-snp-vtpm")
    report = SnpReport.parse(hcl[_HCL_HEADER : _HCL_HEADER + _SNP_SIZE])
    return _report(report, has_leaf=bool(outer.get("vcek")))


def _az_tdx(evidence: bytes, edition: str) -> list[Wanted]:
    return _quote(Quote.parse(_member(_object(evidence, "az-tdx-vtpm"), "td_quote", "az-tdx-vtpm")), edition)


def _nvidia(evidence: bytes, _edition: str) -> list[Wanted]:
    wanted: list[Wanted] = []
    devices = nvidia_json.parse(evidence) if nvidia_json.is_json(evidence) else (nvidia_json.Device(evidence, b""),)
    for device in devices:
        said = opaque.read(spdm.parse(device.report))
        chain = EndorsementSet.parse([device.pem]).certificates if device.pem else ()
        leaves = [read_leaf(certificate) for certificate in chain if is_leaf(certificate)][:1]
        try:
            for leaf in leaves:
                sources = (rim.VBIOS,) if leaf.arch == SWITCH else (rim.DRIVER, rim.VBIOS)
                wanted += [NvidiaRim(rim_id(leaf, said, source)) for source in sources]
        except ValueError as error:
            raise _malformed("nvidia", "its versions do not name manifests", str(said.driver_version)[:80]) from error
        # nobody answers about the device's own certificate, only about those above it (evidence 11)
        wanted += [nvidia.status_of(one, above) for one, above in pairwise(chain[1:])]
    return wanted


_ROOMS: dict[str, Callable[[bytes, str], list[Wanted]]] = {
    "snp": _snp,
    "sgx": partial(_dcap, tee="sgx"),
    "tdx": partial(_dcap, tee="tdx"),
    "az-snp-vtpm": _az_snp,
    "az-tdx-vtpm": _az_tdx,
    "nvidia": _nvidia,
}


def _object(evidence: bytes, tee: str) -> dict[str, object]:
    try:
        value = strict_json.parse(evidence, max_size=MAX_SIZE)
    except strict_json.UNREADABLE as error:
        raise _malformed(tee, "not JSON evidence", None) from error
    if not isinstance(value, dict):
        raise _malformed(tee, "not JSON evidence", None)
    return value


def _member(outer: dict[str, object], name: str, tee: str) -> bytes:
    """Bytes as the versions of CoCo's JSON hold them: a list of numbers, base64, base64url with or without padding."""
    value = outer.get(name)
    try:
        if isinstance(value, list):
            return bytes(value)
        if isinstance(value, str):
            return (
                b64.decode(value)
                if not set(value) & {"-", "_"} and not len(value) % 4
                else b64.decode_url(value.rstrip("="))
            )
    except (ValueError, TypeError) as error:
        raise _malformed(tee, f"{name} cannot be read", None) from error
    raise _malformed(tee, f"{name} is missing", None)


def _malformed(tee: str, message: str, got: object) -> MalformedEvidence:
    return MalformedEvidence(
        message, code="endorsements_unknown", tee=tee, got=got, spec="evidence 3.1, kbs-protocol 2.4"
    )
