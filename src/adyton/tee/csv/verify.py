"""Is this CSV evidence authentic? Every check of evidence 10, each with an error code of its own.

Evidence (raw, or CoCo's JSON) + endorsements + anchors → ``VerifiedEvidence``, or the first thing that is wrong.

The order is not the usual one: the report data is compared first. In version 1 the mask ``anonce`` is not signed, so a
change of it changes every field and keeps the signature; only a full-length match of a field that the verifier knows
beforehand proves the mask. Without an expectation the fields are shown as the evidence unmasks them, ``fields_bound``
is false and ``unchecked`` has ``anonce``.
"""

from __future__ import annotations

import hmac
from datetime import UTC, datetime

from adyton.crypto.sm2 import hmac_sm3
from adyton.crypto.x509 import EndorsementSet
from adyton.errors import EndorsementMissing, EvidenceError, SignatureInvalid, UnsupportedEvidence
from adyton.rats.binding import check_report_data
from adyton.rats.types import Check, JsonValue, ReportData, Revocation, TrustAnchors, VerifiedEvidence
from adyton.tee.csv import claims as claims_of
from adyton.tee.csv import endorsements as chains
from adyton.tee.csv import json_form
from adyton.tee.csv.abi import SM2_SIGNATURE, SPEC, TEE, CsvReport, serial_text
from adyton.tee.csv.certificate import HygonCertificate, Usage, read
from adyton.tee.csv.endorsements import Path
from adyton.tee.eventlog import ccel, coco, replay
from adyton.tee.eventlog.banks import SM3
from adyton.tee.eventlog.log import EventLog
from adyton.tee.remembered import Chain, Remembered, Window
from adyton.tee.steps import Step, done, walk

FOREVER = datetime.max.replace(tzinfo=UTC)  # Hygon's certificates do not expire
_ALWAYS = Window(datetime.min.replace(tzinfo=UTC), FOREVER)


class Verification:
    """One verification: what was given, and what the steps have found so far."""

    __slots__ = (
        "_key", "anchors", "event_log", "given", "hsk_cek", "json", "log", "path", "pek", "pek_bytes", "remembered",
        "report", "report_data", "revocation", "serial",
    )  # fmt: skip
    pek: HygonCertificate

    def __init__(
        self,
        evidence: bytes,
        *,
        given: EndorsementSet,
        anchors: TrustAnchors,
        revocation: Revocation,
        report_data: ReportData | None,
        remembered: Remembered | None,
    ) -> None:
        self.given = given
        self.anchors = anchors
        self.revocation = "revocation_lists" if revocation is Revocation.REQUIRED else "revocation"
        self.report_data = report_data
        self.remembered = remembered
        self.path: Path | None = None
        self.log: EventLog | None = None
        self._key: tuple[object, ...] = ()
        self.report, self.json = read_evidence(evidence)
        carried, signer = self.json, self.report.signer
        if carried is not None:
            self.pek_bytes, self.hsk_cek, self.event_log = carried.pek, carried.hsk_cek, carried.event_log
        else:
            self.pek_bytes, self.hsk_cek, self.event_log = signer.pek if signer is not None else b"", b"", None
        self.serial = serial_of(self.report, carried)

    # The checks, in order. Each is silent or raises.

    def format(self) -> None:
        """Lengths and version: parsing's."""

    def bound(self) -> None:
        """The report data is the expected one, in full length: the mask is the firmware's."""
        if self.report_data is not None:
            check_report_data(TEE, self.report_data, ReportData(self.report.report_data))

    def usage(self) -> None:
        """The report says that a PEK signed it, with SM2."""
        report = self.report
        if report.usage != Usage.PEK or report.algorithm != SM2_SIGNATURE:
            raise EvidenceError(
                "the report is not signed by a PEK with SM2",
                code="signature_usage",
                tee=TEE,
                field="sig_usage, sig_algo",
                expected=f"{Usage.PEK:#x}, {SM2_SIGNATURE}",
                got=f"{report.usage:#x}, {report.algorithm}",
                spec=SPEC,
            )

    def signer_mac(self) -> None:
        """Raw form: HMAC-SM3 of the signer block, keyed with ``mnonce``. It proves that nothing was garbled, no more."""
        signer = self.report.signer
        if self.json is None and signer is not None:
            expected = hmac_sm3(self.report.mnonce, signer.masked)
            if not hmac.compare_digest(expected, signer.mac):
                raise EvidenceError(
                    "the signer block behind the report was changed or belongs to another report",
                    code="signer_mac",
                    tee=TEE,
                    field="signer",
                    expected=expected,
                    got=signer.mac,
                    spec=SPEC,
                )

    def certificate(self) -> None:
        """The PEK comes with the evidence, and is one."""
        if not self.pek_bytes:
            raise EndorsementMissing(
                "the report comes without the certificate of the key that signed it",
                code="pek_missing",
                tee=TEE,
                field="pek",
                spec=SPEC,
                hint="send the report with its signer block (2548 bytes), or CoCo's JSON form",
            )
        if self.remembered is not None:
            anchors = self.anchors
            self._key = (TEE, self.pek_bytes, self.hsk_cek, self.given.digest, anchors.vendor, anchors.custom)
            known = self.remembered.recall(self._key, FOREVER)
            if isinstance(known, Path):
                self.path = known
                self.pek = known.pek
                self.pek.key.prepare()  # met a second time: worth two milliseconds
                return
        self.pek = read(self.pek_bytes)
        chains.check_pek(self.pek)

    def links(self) -> None:
        """Usages, algorithms and signatures from the PEK up to a root."""
        if self.path is None:
            given = chains.of(self.given, self.hsk_cek)
            self.path = chains.find(self.pek, given, self.anchors, serial=self.serial)

    def root(self) -> None:
        """The root's key is trusted."""
        if self.path is not None:
            chains.check_root(self.path, self.anchors)

    def signature(self) -> None:
        """SM2 with SM3 over the first 180 bytes as they stand, masked (version 2: 1024 bytes), under the PEK and its id."""
        report, pek = self.report, self.pek
        try:
            pek.key.verify(
                int.from_bytes(report.r, "little"),
                int.from_bytes(report.s, "little"),
                report.signed_bytes,
                user_id=pek.user_id,
            )
        except SignatureInvalid as error:
            raise SignatureInvalid(
                "the report's signature does not verify under the certified key",
                code="report_sig",
                tee=TEE,
                field="signature",
                spec=SPEC,
                hint="the report was changed, or signed by another chip",
            ) from error

    def launch_register(self) -> None:
        """Version 2: register 0 is the launch measurement."""
        report = self.report
        if report.version == 2 and not hmac.compare_digest(report.registers[0], report.measure):
            raise EvidenceError(
                "register 0 is not the launch measurement",
                code="rtmr0_mismatch",
                tee=TEE,
                field="rtmr0",
                expected=report.measure,
                got=report.registers[0],
                spec=SPEC,
            )

    def events(self) -> None:
        """Version 2: the event log leads to registers 1 to 4. Version 1 has none that a log could lead to."""
        if self.has_bound_log and self.event_log is not None:
            log = ccel.parse(self.event_log)
            quoted = dict(enumerate(self.report.registers[1:], 1))
            replay.check(log, SM3, quoted, tee=TEE, name=lambda index: f"rtmr{index}")
            self.log = log

    @property
    def has_bound_log(self) -> bool:
        """Whether there is a log, and registers for it."""
        return self.event_log is not None and self.report.version == 2

    @property
    def has_mac(self) -> bool:
        """Whether the signer block is as the firmware made it."""
        return self.json is None and self.report.signer is not None

    def verified(self) -> VerifiedEvidence:
        """Hand over what was verified. Call it after every step."""
        path, report = self.path, self.report
        if path is None:
            raise ValueError("not walked")
        if self.remembered is not None:
            self.remembered.keep(self._key, Chain(path, _ALWAYS))
        bound = report.version == 2 or self.report_data is not None
        claims = claims_of.of_report(report, self.serial)
        claims["platform_id"] = path.platform.hex()
        claims["fields_bound"] = bound
        if self.has_mac:
            claims["hmac_of_signer_block"] = claims_of.MAC_VALID
        unchecked: tuple[str, ...] = (self.revocation, "chip_serial", "oca")
        if not self.has_mac:
            unchecked += ("signer_mac",)
        if self.report_data is None:
            unchecked += ("report_data",) if bound else ("report_data", "anonce")
        coco_claims = claims_of.coco(report, self.serial)
        if self.log is not None:
            coco_claims["uefi_event_logs"] = coco.entries(self.log)
        elif self.event_log is not None:
            unchecked += ("event_log",)
        return VerifiedEvidence(
            tee=TEE,
            tee_class="cpu",
            claims=claims,
            coco_claims=coco_claims,
            tcb=claims_of.tcb(report, path.pek),
            report_data=ReportData(report.report_data),
            init_data=b"",
            root=chains.root_kind(path.root_fingerprint, self.anchors),
            root_fingerprint=path.root_fingerprint.hex(),
            checks=done(STEPS, self),
            expires=FOREVER,
            expires_first="",
            unchecked=unchecked,
        )


def _tell_bound(run: Verification) -> tuple[JsonValue, JsonValue]:
    return run.report_data.value.hex() if run.report_data is not None else None, run.report.report_data.hex()


def _tell_usage(run: Verification) -> tuple[JsonValue, JsonValue]:
    return f"{Usage.PEK:#x}, {SM2_SIGNATURE}", f"{run.report.usage:#x}, {run.report.algorithm}"


def _tell_root(run: Verification) -> tuple[JsonValue, JsonValue]:
    pins = sorted(pin.hex() for pin in chains.trusted(run.anchors))
    return pins[0] if len(pins) == 1 else [*pins], run.path.root_fingerprint.hex() if run.path is not None else None


def _check(name: str, group: str, spec: str = SPEC) -> Check:
    return Check(name, ok=True, spec=spec, group=group)


STEPS: tuple[Step[Verification], ...] = (
    Step(_check("format", "report"), Verification.format),
    Step(
        _check("report_data", "binding"),
        Verification.bound,
        lambda run: run.report_data is not None,
        _tell_bound,
    ),
    Step(_check("signature_usage", "report"), Verification.usage, tell=_tell_usage),
    Step(_check("signer_mac", "report"), Verification.signer_mac, lambda run: run.has_mac),
    Step(_check("certificate", "chain"), Verification.certificate),
    Step(_check("chain", "chain"), Verification.links),
    Step(_check("root", "chain"), Verification.root, tell=_tell_root),
    Step(_check("report_sig", "report"), Verification.signature),
    Step(_check("rtmr0", "registers"), Verification.launch_register, lambda run: run.report.version == 2),
    Step(_check("event_log", "registers", "evidence 7.2"), Verification.events, lambda run: run.has_bound_log),
)


def verify(
    evidence: bytes,
    *,
    endorsements: EndorsementSet,
    now: datetime,  # noqa: ARG001 -- every room has the same door
    anchors: TrustAnchors,
    revocation: Revocation = Revocation.REQUIRED,
    report_data: ReportData | None = None,
    init_data: bytes | None = None,
    remembered: Remembered | None = None,
    trail: list[Check] | None = None,
) -> VerifiedEvidence:
    """As ``adyton.tee.verify``, for CSV. There is no init data to expect.

    Nothing here depends on ``now``, and no list can be asked for: Hygon's certificates have neither validity nor revocation.
    """
    if report_data is not None and len(report_data.value) != 64:
        raise ValueError("the report data has 64 bytes")
    run = Verification(
        evidence, given=endorsements, anchors=anchors, revocation=revocation, report_data=report_data, remembered=remembered
    )  # fmt: skip
    if init_data is not None:
        raise UnsupportedEvidence(
            "a CSV report has no init data", code="no_init_data", tee=TEE, field="init_data", spec="evidence 14"
        )
    walk(STEPS, run, trail)
    return run.verified()


def show(evidence: bytes) -> dict[str, JsonValue]:
    """What the report says. Parsed only."""
    report, carried = read_evidence(evidence)
    return claims_of.of_report(report, serial_of(report, carried))


def read_evidence(evidence: bytes) -> tuple[CsvReport, json_form.JsonEvidence | None]:
    """The report; and the JSON around it, unless it is raw: JSON has no NUL, and a raw report's signature is full of them."""
    if evidence[:1] not in {b"{", b" ", b"\n", b"\t", b"\r"} or b"\0" in evidence:
        return CsvReport.parse(evidence), None
    carried = json_form.parse(evidence)
    return carried.report, carried


def serial_of(report: CsvReport, carried: json_form.JsonEvidence | None) -> str | None:
    """The chip's serial number as the evidence has it."""
    if carried is not None:
        return serial_text(carried.serial)
    return report.signer.chip_serial if report.signer is not None else None
