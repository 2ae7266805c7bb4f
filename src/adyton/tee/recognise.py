"""Which TEE's evidence is this? A guess from the form alone, so that a caller need not say; verification proves it.

Every form has marks of its own: a quote its version and TEE type, an SNP report its length, CoCo's JSON its members. What
fits none, or more than one, is nobody's: ``UnsupportedEvidence`` says so and names the way out.
"""

from __future__ import annotations

from adyton.errors import UnsupportedEvidence
from adyton.wire import b64, strict_json

_SNP_SIZE = 1184
_SPDM_SIZE = 37  # of the request that evidence of NVIDIA begins with
_MAX_SIZE = 4 * 1024 * 1024
_CSV_MAGIC = b"ATTESTATION_EXT\0"
# Bytes of a CSV report, with or without its signer block, in a page or with marks before it -> where its signature begins.
_CSV_SIGNATURES = {336: (192,), 2548: (192,), 1168: (1024,), 3380: (1024,), 4096: (192, 1024), 4116: (212, 1044)}
_SE_EXCHANGE = b"pvattest"
_TEE_TYPES = {0: "sgx", 0x81: "tdx"}
# A member that only this TEE's JSON has, most telling first.
_MEMBERS = (
    ("serial_number", "csv"),  # which may have an event log as well
    ("cc_eventlog", "tdx"),
    ("ak_public", "tpm"),
    ("token", "cca"),
    ("device_evidence_list", "nvidia"),
    ("encr_measurement_key", "se"),
    ("svn", "sample"),
)


def recognise(evidence: bytes) -> str:
    """The TEE's wire name. ``UnsupportedEvidence`` if the form is no TEE's that is known here."""
    may_be_json = evidence[:1] in {b"{", b" ", b"\n", b"\t", b"\r"} and b"\0" not in evidence
    found = _json(evidence) if may_be_json else _binary(evidence)
    if found is None:
        raise UnsupportedEvidence(
            "no TEE's evidence is recognised in this",
            code="tee_unknown",
            field="tee",
            got=evidence[:16],
            hint="say which TEE it comes from",
        )
    return found


def _binary(evidence: bytes) -> str | None:
    if evidence.startswith(_CSV_MAGIC) or _is_csv(evidence):
        return "csv"
    version = int.from_bytes(evidence[:2], "little")
    if len(evidence) >= 48 + 384 and evidence[2:4] == b"\2\0":
        if version == 3:
            return "sgx"
        if version in {4, 5}:
            return _TEE_TYPES.get(int.from_bytes(evidence[4:8], "little"))
    if len(evidence) == _SNP_SIZE:
        return "snp"
    if evidence[:2] == b"\x11\xe0" and evidence[_SPDM_SIZE : _SPDM_SIZE + 2] == b"\x11\x60":
        return "nvidia"
    if evidence[:1] == b"\x84" or evidence[:2] == b"\xd2\x84":
        return "nitro"
    if evidence[:3] in {b"\xd9\x01\x8f", b"\xd9\x03\x8b"}:
        return "cca"
    return "se" if evidence.startswith(_SE_EXCHANGE) else None


def _is_csv(evidence: bytes) -> bool:
    """A report of version 1 is masked and may begin with anything; but r and s have 40 bytes of zeros each."""
    return any(
        not any(evidence[at + 32 : at + 72]) and not any(evidence[at + 104 : at + 144]) and any(evidence[at : at + 32])
        for at in _CSV_SIGNATURES.get(len(evidence), ())
    )


def _json(evidence: bytes) -> str | None:
    try:
        value = strict_json.parse(evidence, max_size=_MAX_SIZE)
    except strict_json.UNREADABLE:
        return None
    if not isinstance(value, dict):
        return None
    if "hcl_report" in value or {"report", "quote", "vcek"} <= value.keys():
        return "az-tdx-vtpm" if "td_quote" in value else "az-snp-vtpm"
    for member, tee in _MEMBERS:
        if member in value:
            return tee
    report = value.get("attestation_report")
    if isinstance(report, dict):
        return "csv" if "data" in report else "snp"
    quote = value.get("quote")
    return _quote(quote) if isinstance(quote, str) else None


def _quote(text: str) -> str | None:
    try:
        return _binary(b64.decode(text))
    except ValueError:
        return None
