"""The JSON form of SEV-SNP evidence that Confidential Containers sends (``kbs-protocol`` 2.4, ``snp``).

The signature is over the report's 1184 bytes, which the JSON does not hold: they are built again from its members.
Reserved bytes are taken as zero, so a report that has others cannot be written as JSON, and one that was comes back
with a wrong signature; it never comes back as another report. Versions 4 and 5 sign two mitigation vectors for which
CoCo's form has no member: Adyton writes and reads ``launch_mit_vector`` and ``current_mit_vector``; without them the
bytes cannot be rebuilt.

Strict: every member is known, of its type, there once, within its length. ``MalformedEvidence`` otherwise. The types of
certificates are the host's words; nothing relies on them (``verify`` looks at what a certificate is).
"""

from __future__ import annotations

import msgspec

from adyton.errors import MalformedEvidence
from adyton.rats.types import JsonValue
from adyton.tee.snp.abi import ECDSA_P384_SHA384, VERSIONS, GuestPolicy, KeyInfo, PlatformInfo, SnpReport, Tcb
from adyton.wire import strict_json

MAX_SIZE = 256 * 1024
MAX_CERTIFICATES = 8
CERTIFICATE_TYPES = ("VCEK", "VLEK", "ASK", "ASVK", "ARK")
SPEC = "kbs-protocol 2.4 snp"


class _Tcb(msgspec.Struct, forbid_unknown_fields=True):
    bootloader: int
    tee: int
    snp: int
    microcode: int
    fmc: int | msgspec.UnsetType | None = msgspec.UNSET


class _Version(msgspec.Struct, forbid_unknown_fields=True):
    major: int
    minor: int
    build: int


class _Signature(msgspec.Struct, forbid_unknown_fields=True):
    r: list[int]
    s: list[int]


class _Report(msgspec.Struct, forbid_unknown_fields=True):
    version: int
    guest_svn: int
    policy: int
    family_id: list[int]
    image_id: list[int]
    vmpl: int
    sig_algo: int
    current_tcb: _Tcb
    plat_info: int
    key_info: int
    report_data: list[int]
    measurement: list[int]
    host_data: list[int]
    id_key_digest: list[int]
    author_key_digest: list[int]
    report_id: list[int]
    report_id_ma: list[int]
    reported_tcb: _Tcb
    chip_id: list[int]
    committed_tcb: _Tcb
    current: _Version
    committed: _Version
    launch_tcb: _Tcb
    signature: _Signature
    cpuid_fam_id: int | msgspec.UnsetType | None = msgspec.UNSET
    cpuid_mod_id: int | msgspec.UnsetType | None = msgspec.UNSET
    cpuid_step: int | msgspec.UnsetType | None = msgspec.UNSET
    launch_mit_vector: int | msgspec.UnsetType | None = msgspec.UNSET
    current_mit_vector: int | msgspec.UnsetType | None = msgspec.UNSET


class _Evidence(msgspec.Struct, forbid_unknown_fields=True):
    attestation_report: msgspec.Raw
    cert_chain: msgspec.Raw = msgspec.Raw(b"")


class _Certificate(msgspec.Struct, forbid_unknown_fields=True):
    cert_type: str
    data: list[int]


_EVIDENCE = msgspec.json.Decoder(_Evidence)
_REPORT = msgspec.json.Decoder(_Report)
_CERTIFICATES = msgspec.json.Decoder(list[_Certificate] | None)
_HEAD = b'{"attestation_report":'
_CHAIN = b',"cert_chain":'
_TWICE = "an object has two members of the same name"
_OPTIONAL = ("cpuid_fam_id", "cpuid_mod_id", "cpuid_step", "launch_mit_vector", "current_mit_vector")
_TCBS = ("current_tcb", "reported_tcb", "committed_tcb", "launch_tcb")
# Members of a report that has no optional one, its parts included: 24 + 4 TCBs of 4 + 2 versions of 3 + r and s.
_MEMBERS = 24 + 4 * 4 + 2 * 3 + 2


class JsonEvidence(msgspec.Struct, frozen=True):
    """A parsed report, its 1184 bytes, and the text of its certificates, which is read only when they are needed."""

    report: SnpReport
    encoded: bytes
    chain_text: bytes

    def certificates(self) -> list[tuple[str, bytes]]:
        """``(type, DER)`` of each certificate; ``MalformedEvidence`` if they cannot be read."""
        return _certificates(self.chain_text)


def parse_json(data: bytes) -> tuple[SnpReport, list[tuple[str, bytes]]]:
    """The report and its certificates as ``(type, DER)``; ``MalformedEvidence`` for anything else."""
    evidence = parse(data)
    return evidence.report, evidence.certificates()


def parse(data: bytes) -> JsonEvidence:
    """As ``parse_json``, with the certificates left unread."""
    if len(data) > MAX_SIZE:
        raise MalformedEvidence(
            "evidence is too large", code="evidence_too_large", tee="snp", expected=MAX_SIZE, got=len(data), spec=SPEC
        )
    try:
        report_text, chain_text = _split_compact(data) or _split(data)
        fields = _REPORT.decode(report_text)
    except strict_json.UNREADABLE as error:
        raise _malformed(str(error)[:200]) from error
    # No member twice, at the price of counting quotation marks: every member is known and none has a string for its
    # value, so each mark belongs to a name. More of them than decoded members: one came twice, the last was taken.
    members = _MEMBERS + sum(getattr(fields, name) is not msgspec.UNSET for name in _OPTIONAL)
    members += sum(getattr(fields, name).fmc is not msgspec.UNSET for name in _TCBS)
    if report_text.count(b'"') != 2 * members:
        raise _malformed(_TWICE)
    report = _report(fields)
    try:
        encoded = report.encode()  # checks every length and range
    except ValueError as error:
        raise _malformed("a member is out of range or has the wrong length") from error
    return JsonEvidence(report, encoded, chain_text)


def _split_compact(data: bytes) -> tuple[bytes, bytes] | None:
    """The texts of report and certificates where the document is written without white space, as CoCo's guest does.

    Cheap, since nothing is parsed: both texts are decoded as a whole later, or known by their digest.
    """
    end = data.find(_CHAIN)
    chain_text = data[end + len(_CHAIN) : -1]
    if end < 0 or not chain_text or not data.startswith(_HEAD) or not data.endswith(b"}"):
        return None
    return data[len(_HEAD) : end], chain_text


def _split(data: bytes) -> tuple[bytes, bytes]:
    """The same for any document. The marks that are neither text's are those of one or two names."""
    outer = _EVIDENCE.decode(data)
    report_text, chain_text = bytes(outer.attestation_report), bytes(outer.cert_chain)
    marks = data.count(b'"') - report_text.count(b'"') - chain_text.count(b'"')
    if marks != (4 if chain_text else 2):
        raise ValueError(_TWICE)
    return report_text, chain_text


def _report(fields: _Report) -> SnpReport:
    if fields.version not in VERSIONS or fields.sig_algo != ECDSA_P384_SHA384:
        raise _malformed("unknown version or signature algorithm of a report")
    family = _optional(fields.cpuid_fam_id)
    model = _optional(fields.cpuid_mod_id)
    stepping = _optional(fields.cpuid_step)
    if fields.version > 2 and (family is None or model is None or stepping is None):
        raise _malformed("a report of version 3 or later has cpuid_fam_id, cpuid_mod_id and cpuid_step")
    vectors = (_optional(fields.launch_mit_vector), _optional(fields.current_mit_vector))
    if fields.version > 3 and None in vectors:
        raise MalformedEvidence(
            "the signed bytes of this report cannot be rebuilt from its JSON form",
            code="mitigation_vectors_missing",
            tee="snp",
            field="launch_mit_vector, current_mit_vector",
            got=f"version {fields.version} without them",
            spec=SPEC,
            hint="reports of version 4 and 5 sign two mitigation vectors that this JSON does not carry: send "
            "launch_mit_vector and current_mit_vector, or the raw report of 1184 bytes",
        )
    turin = family == 0x1A
    try:
        return SnpReport(
            version=fields.version,
            guest_svn=fields.guest_svn,
            policy=GuestPolicy(fields.policy),
            family_id=bytes(fields.family_id),
            image_id=bytes(fields.image_id),
            vmpl=fields.vmpl,
            signature_algorithm=fields.sig_algo,
            current_tcb=_tcb(fields.current_tcb, turin=turin),
            platform_info=PlatformInfo(fields.plat_info),
            key_info=KeyInfo(fields.key_info),
            report_data=bytes(fields.report_data),
            measurement=bytes(fields.measurement),
            host_data=bytes(fields.host_data),
            id_key_digest=bytes(fields.id_key_digest),
            author_key_digest=bytes(fields.author_key_digest),
            report_id=bytes(fields.report_id),
            report_id_ma=bytes(fields.report_id_ma),
            reported_tcb=_tcb(fields.reported_tcb, turin=turin),
            cpuid_family=family or 0,
            cpuid_model=model or 0,
            cpuid_stepping=stepping or 0,
            chip_id=bytes(fields.chip_id),
            committed_tcb=_tcb(fields.committed_tcb, turin=turin),
            current_build=fields.current.build,
            current_minor=fields.current.minor,
            current_major=fields.current.major,
            committed_build=fields.committed.build,
            committed_minor=fields.committed.minor,
            committed_major=fields.committed.major,
            launch_tcb=_tcb(fields.launch_tcb, turin=turin),
            launch_mit_vector=vectors[0] or 0,
            current_mit_vector=vectors[1] or 0,
            r=bytes(fields.signature.r),
            s=bytes(fields.signature.s),
        )
    except (ValueError, OverflowError) as error:
        raise _malformed("a member is out of range or has the wrong length") from error


def _optional(value: int | msgspec.UnsetType | None) -> int | None:
    return None if isinstance(value, msgspec.UnsetType) else value


def _tcb(fields: _Tcb, *, turin: bool) -> Tcb:
    fmc = _optional(fields.fmc)
    if turin is not (fmc is not None):
        raise ValueError("fmc")
    return Tcb.of(fmc=fmc, boot_loader=fields.bootloader, tee=fields.tee, snp=fields.snp, microcode=fields.microcode)


def _certificates(text: bytes) -> list[tuple[str, bytes]]:
    if not text:
        return []
    try:
        chain = _CERTIFICATES.decode(text) or []
        certificates = [(entry.cert_type, bytes(entry.data)) for entry in chain]
    except (*strict_json.UNREADABLE, OverflowError) as error:
        raise _malformed("cert_chain cannot be read") from error
    if len(certificates) > MAX_CERTIFICATES:
        raise _malformed(f"more than {MAX_CERTIFICATES} certificates")
    if any(kind not in CERTIFICATE_TYPES for kind, _ in certificates):
        raise _malformed(f"a certificate's type is one of {', '.join(CERTIFICATE_TYPES)}")
    if text.count(b'"') != 6 * len(certificates):  # two names and one plain value each
        raise _malformed(_TWICE)
    return certificates


def to_json(report: SnpReport, certificates: list[tuple[str, bytes]]) -> JsonValue:
    """The JSON form. ``ValueError`` if the report has reserved bytes that it cannot carry, or a type is unknown."""
    if any(kind not in CERTIFICATE_TYPES for kind, _ in certificates):
        raise ValueError("unknown type of certificate")
    cpuid = report.cpuid or (None, None, None)
    body: dict[str, JsonValue] = {
        "version": report.version,
        "guest_svn": report.guest_svn,
        "policy": int(report.policy),
        "family_id": list(report.family_id),
        "image_id": list(report.image_id),
        "vmpl": report.vmpl,
        "sig_algo": report.signature_algorithm,
        "current_tcb": _tcb_json(report.current_tcb),
        "plat_info": int(report.platform_info),
        "key_info": int(report.key_info),
        "report_data": list(report.report_data),
        "measurement": list(report.measurement),
        "host_data": list(report.host_data),
        "id_key_digest": list(report.id_key_digest),
        "author_key_digest": list(report.author_key_digest),
        "report_id": list(report.report_id),
        "report_id_ma": list(report.report_id_ma),
        "reported_tcb": _tcb_json(report.reported_tcb),
        "cpuid_fam_id": cpuid[0],
        "cpuid_mod_id": cpuid[1],
        "cpuid_step": cpuid[2],
        "chip_id": list(report.chip_id),
        "committed_tcb": _tcb_json(report.committed_tcb),
        "current": _version_json(report.current_version),
        "committed": _version_json(report.committed_version),
        "launch_tcb": _tcb_json(report.launch_tcb),
        "signature": {"r": list(report.r), "s": list(report.s)},
    }
    if report.mitigation_vectors is not None:
        body["launch_mit_vector"], body["current_mit_vector"] = report.mitigation_vectors
    chain: list[JsonValue] = [{"cert_type": kind, "data": list(der)} for kind, der in certificates]
    value: JsonValue = {"attestation_report": body, "cert_chain": chain or None}
    rebuilt = parse(msgspec.json.encode(value)).report
    if rebuilt.signed_bytes != report.signed_bytes:
        raise ValueError("the report has reserved bytes that its JSON form cannot carry")
    return value


def _tcb_json(tcb: Tcb) -> JsonValue:
    return {
        "fmc": tcb.fmc,
        "bootloader": tcb.boot_loader,
        "tee": tcb.tee,
        "snp": tcb.snp,
        "microcode": tcb.microcode,
    }


def _version_json(version: tuple[int, int, int]) -> JsonValue:
    return {"major": version[0], "minor": version[1], "build": version[2]}


def _malformed(reason: str) -> MalformedEvidence:
    return MalformedEvidence(f"not SEV-SNP evidence in JSON: {reason}", code="json_malformed", tee="snp", spec=SPEC)
