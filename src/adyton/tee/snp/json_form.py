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

import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Annotated

import msgspec

from adyton.errors import MalformedEvidence
from adyton.rats.types import JsonValue
from adyton.tee.snp.abi import ECDSA_P384_SHA384, LAYOUT, TURIN_FAMILY, VERSIONS, SnpReport, Tcb
from adyton.wire import strict_json

MAX_SIZE = 256 * 1024
MAX_CERTIFICATES = 8
MAX_REMEMBERED = 8 * 1024  # a report written compactly has less than 5 kB
CERTIFICATE_TYPES = ("VCEK", "VLEK", "ASK", "ASVK", "ARK")
SPEC = "kbs-protocol 2.4 snp"
_JSON_BEGINS = frozenset(b"{ \t\r\n")  # none of which is the first byte of a known version


# Bytes are lists of numbers, their lengths checked while they are read. What a whole fleet has in common, or a machine
# with itself, is kept as text: of a text that came lately, the bytes are known.
_B32 = Annotated[list[int], msgspec.Meta(min_length=32, max_length=32)]
_B64 = Annotated[list[int], msgspec.Meta(min_length=64, max_length=64)]
_B72 = Annotated[list[int], msgspec.Meta(min_length=72, max_length=72)]
_SIZED = {size: msgspec.json.Decoder(Annotated[list[int], msgspec.Meta(min_length=size, max_length=size)]) for size in (16, 32, 48, 64)}  # fmt: skip


class _Tcb(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
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
    r: _B72
    s: _B72


class _Report(msgspec.Struct, forbid_unknown_fields=True):
    version: int
    guest_svn: int
    policy: int
    family_id: msgspec.Raw
    image_id: msgspec.Raw
    vmpl: int
    sig_algo: int
    current_tcb: _Tcb
    plat_info: int
    key_info: int
    report_data: _B64
    measurement: msgspec.Raw
    host_data: msgspec.Raw
    id_key_digest: msgspec.Raw
    author_key_digest: msgspec.Raw
    report_id: _B32
    report_id_ma: msgspec.Raw
    reported_tcb: _Tcb
    chip_id: msgspec.Raw
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
# Members of a report that has no optional one, its parts included: 24 + 4 TCBs of 4 + 2 versions of 3 + r and s.
_MEMBERS = 24 + 4 * 4 + 2 * 3 + 2


class JsonEvidence(msgspec.Struct, frozen=True):
    """A parsed report, its 1184 bytes, and where the text of its certificates stands, which is read only when needed.

    That is ``document[start:end]``: long, so it is not copied.
    """

    report: SnpReport
    encoded: bytes
    document: bytes
    start: int
    end: int

    def certificates(self) -> list[tuple[str, bytes]]:
        """``(type, DER)`` of each certificate; ``MalformedEvidence`` if they cannot be read."""
        return _certificates(self.document[self.start : self.end])


def is_json(evidence: bytes) -> bool:
    """Whether evidence is in CoCo's JSON form rather than the raw report."""
    return bool(evidence) and evidence[0] in _JSON_BEGINS


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
        report_text, document, start, end = split_compact(data) or _split(data)
        fields = _REPORT.decode(report_text)
    except strict_json.UNREADABLE as error:
        raise _malformed(str(error)[:200]) from error
    # No member twice, at the price of counting quotation marks: every member is known and none has a string for its
    # value, so each mark belongs to a name. More of them than decoded members: one came twice, the last was taken.
    if report_text.count(b'"') != 2 * _members(fields):
        raise _malformed(_TWICE)
    encoded = _encoded(fields, _known if len(report_text) <= MAX_REMEMBERED else _listed)
    return JsonEvidence(SnpReport.parse(encoded), encoded, document, start, end)


def split_compact(data: bytes) -> tuple[bytes, bytes, int, int] | None:
    """The report's text, and where that of the certificates is, in a document without white space, as CoCo's guest has it.

    Cheap, since nothing is parsed: both texts are decoded as a whole later, or known by their digest.
    """
    end = data.find(_CHAIN)
    start, last = end + len(_CHAIN), len(data) - 1
    if end < 0 or start >= last or not data.startswith(_HEAD) or not data.endswith(b"}"):
        return None
    return data[len(_HEAD) : end], data, start, last


def _split(data: bytes) -> tuple[bytes, bytes, int, int]:
    """The same for any document. The marks that are neither text's are those of one or two names."""
    outer = _EVIDENCE.decode(data)
    report_text, chain_text = bytes(outer.attestation_report), bytes(outer.cert_chain)
    marks = data.count(b'"') - report_text.count(b'"') - chain_text.count(b'"')
    if marks != (4 if chain_text else 2):
        raise ValueError(_TWICE)
    return report_text, chain_text, 0, len(chain_text)


def _members(fields: _Report) -> int:
    """How many members the report and its parts have."""
    unset = msgspec.UNSET
    return (
        _MEMBERS
        + (fields.cpuid_fam_id is not unset)
        + (fields.cpuid_mod_id is not unset)
        + (fields.cpuid_step is not unset)
        + (fields.launch_mit_vector is not unset)
        + (fields.current_mit_vector is not unset)
        + (fields.current_tcb.fmc is not unset)
        + (fields.reported_tcb.fmc is not unset)
        + (fields.committed_tcb.fmc is not unset)
        + (fields.launch_tcb.fmc is not unset)
    )


def _encoded(fields: _Report, known: Callable[[int, bytes], bytes]) -> bytes:
    """The report's bytes, zeros where something is reserved. The decoders check lengths, this checks ranges."""
    version, current, committed, signature = fields.version, fields.current, fields.committed, fields.signature
    if version not in VERSIONS or fields.sig_algo != ECDSA_P384_SHA384:
        raise _malformed("unknown version or signature algorithm of a report")
    family, model, stepping = fields.cpuid_fam_id, fields.cpuid_mod_id, fields.cpuid_step
    if version > 2 and not (isinstance(family, int) and isinstance(model, int) and isinstance(stepping, int)):
        raise _malformed("a report of version 3 or later has cpuid_fam_id, cpuid_mod_id and cpuid_step")
    at_launch, now = fields.launch_mit_vector, fields.current_mit_vector
    if version > 3 and not (isinstance(at_launch, int) and isinstance(now, int)):
        raise MalformedEvidence(
            "the signed bytes of this report cannot be rebuilt from its JSON form",
            code="mitigation_vectors_missing",
            tee="snp",
            field="launch_mit_vector, current_mit_vector",
            got=f"version {version} without them",
            spec=SPEC,
            hint="reports of version 4 and 5 sign two mitigation vectors that this JSON does not carry: send "
            "launch_mit_vector and current_mit_vector, or the raw report of 1184 bytes",
        )
    tcb = _turin if family == TURIN_FAMILY else _milan
    try:
        return LAYOUT.pack(
            version,
            fields.guest_svn,
            fields.policy,
            known(16, bytes(fields.family_id)),
            known(16, bytes(fields.image_id)),
            fields.vmpl,
            fields.sig_algo,
            tcb(fields.current_tcb),
            fields.plat_info,
            fields.key_info,
            0,
            bytes(fields.report_data),
            known(48, bytes(fields.measurement)),
            known(32, bytes(fields.host_data)),
            known(48, bytes(fields.id_key_digest)),
            known(48, bytes(fields.author_key_digest)),
            bytes(fields.report_id),
            known(32, bytes(fields.report_id_ma)),
            tcb(fields.reported_tcb),
            family or 0,
            model or 0,
            stepping or 0,
            b"",
            known(64, bytes(fields.chip_id)),
            tcb(fields.committed_tcb),
            current.build,
            current.minor,
            current.major,
            0,
            committed.build,
            committed.minor,
            committed.major,
            0,
            tcb(fields.launch_tcb),
            at_launch or 0,
            now or 0,
            b"",
            bytes(signature.r),
            bytes(signature.s),
            b"",
        )
    except (*strict_json.UNREADABLE, OverflowError, struct.error) as error:
        raise _malformed("a member is out of range or has the wrong length") from error


def _listed(size: int, text: bytes) -> bytes:
    """The ``size`` bytes that ``text`` lists. No quotation mark is in it, or it would not be read."""
    return bytes(_SIZED[size].decode(text))


_known = lru_cache(maxsize=2048)(_listed)


@lru_cache(maxsize=256)  # a fleet has few TCB versions, and each report names four
def _milan(fields: _Tcb) -> bytes:
    if isinstance(fields.fmc, int):
        raise ValueError("fmc")  # noqa: TRY004 -- a member too many, not a wrong type
    return bytes((fields.bootloader, fields.tee, 0, 0, 0, 0, fields.snp, fields.microcode))


@lru_cache(maxsize=256)
def _turin(fields: _Tcb) -> bytes:
    if not isinstance(fields.fmc, int):
        raise ValueError("fmc")  # noqa: TRY004 -- a member is missing
    return bytes((fields.fmc, fields.bootloader, fields.tee, fields.snp, 0, 0, 0, fields.microcode))


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
