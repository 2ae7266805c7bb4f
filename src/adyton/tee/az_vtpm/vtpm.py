"""The vTPM's part of Azure evidence: runtime claims under the hardware's report data, a quote under their key, its PCRs.

The attestation key is believed for one reason only: it stands in the claims whose hash is in the hardware's report. The
measurement in that report is of Microsoft's paravisor; what the guest booted is in the PCRs, and only in those quoted.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache

from cryptography.hazmat.primitives.asymmetric import rsa

from adyton.crypto.x509 import EndorsementSet
from adyton.errors import BindingMismatch, MalformedEvidence
from adyton.rats.binding import check_report_data
from adyton.rats.types import Check, JsonValue, ReportData, Revocation, TrustAnchors, VerifiedEvidence
from adyton.tee.az_vtpm.abi import SPEC, RuntimeClaims
from adyton.tee.az_vtpm.json_form import PCRS, Evidence
from adyton.tee.eventlog.banks import SHA256
from adyton.tee.remembered import Remembered
from adyton.tee.steps import Step
from adyton.tee.tpm.abi import RSASSA, Attest, Signature
from adyton.tee.tpm.quote import Quote, check_signature, quoted_pcrs

INIT_DATA_PCR = 8
_ALL = {SHA256: frozenset(range(PCRS))}
Hardware = Callable[["Verification"], VerifiedEvidence]


class Verification:
    """One verification: what was given, and what the checks have found so far."""

    __slots__ = (
        "anchors", "attest", "claims", "endorsements", "evidence", "hardware", "hardware_data", "hardware_type",
        "init_data", "inner_trail", "now", "pcrs", "remembered", "report_data", "revocation", "tee", "verified_by",
    )  # fmt: skip
    hardware: VerifiedEvidence
    pcrs: dict[int, bytes]

    def __init__(
        self,
        tee: str,
        evidence: Evidence,
        *,
        hardware_type: int,
        hardware_data: bytes,
        verified_by: Hardware | None,
        endorsements: EndorsementSet,
        now: datetime,
        anchors: TrustAnchors,
        revocation: Revocation,
        report_data: ReportData | None,
        init_data: bytes | None,
        remembered: Remembered | None,
        trail: list[Check] | None,
    ) -> None:
        """``hardware_data``: the hardware report's data field; ``verified_by`` verifies that report."""
        self.tee = tee
        self.evidence = evidence
        self.hardware_type = hardware_type
        self.hardware_data = hardware_data
        self.verified_by = verified_by
        self.endorsements = endorsements
        self.now = now
        self.anchors = anchors
        self.revocation = revocation
        self.report_data = report_data
        self.init_data = init_data
        self.remembered = remembered
        self.inner_trail: list[Check] | None = [] if trail is not None else None
        self.claims = RuntimeClaims.parse(evidence.hcl.claims)
        self.attest = Attest.parse(evidence.message)

    def kind(self) -> None:
        """5 (6): the runtime header names the hardware that is about to be verified."""
        if self.evidence.hcl.report_type != self.hardware_type:
            raise MalformedEvidence(
                "the HCL report is of other hardware",
                code="hcl_report_type",
                tee=self.tee,
                field="report_type",
                expected=self.hardware_type,
                got=self.evidence.hcl.report_type,
                spec=f"{SPEC} (6)",
            )

    def bound_claims(self) -> None:
        """5 (2): the hardware's report data is SHA-256 of the claims' bytes, and zeros."""
        if not hmac.compare_digest(self.evidence.hcl.bound, self.hardware_data):
            raise BindingMismatch(
                "the hardware's report does not vouch for these runtime claims",
                code="runtime_claims_mismatch",
                tee=self.tee,
                field="claims",
                expected=self.evidence.hcl.bound,
                got=self.hardware_data,
                spec=f"{SPEC} (2)",
            )

    def hardware_report(self) -> None:
        """5 (1): the report itself, with everything that its own room checks."""
        if self.verified_by is not None:
            self.hardware = self.verified_by(self)

    def quote(self) -> None:
        """5 (3): the TPM's quote is signed by the claims' attestation key, RSASSA with SHA-256."""
        check_signature(
            Signature(RSASSA, SHA256, (self.evidence.signature,)),
            self.evidence.message,
            _key(*self.claims.ak),
            tee=self.tee,
        )

    def registers(self) -> None:
        """5 (5): the values are the quoted ones: the SHA-256 bank, and all 24 of it, so that none can be shifted."""
        values = {SHA256: dict(enumerate(self.evidence.pcrs))}
        self.pcrs = quoted_pcrs(Quote(self.attest, RSASSA, SHA256), values, wanted=_ALL, tee=self.tee)[SHA256]

    def bound(self) -> None:
        """5 (4): extraData is what was expected, whole; from version 2 on the claims' user data repeats it."""
        expected = self.report_data
        if expected is None:
            return
        check_report_data(self.tee, expected, ReportData(self.attest.extra_data))
        if self.evidence.version < 2:
            return
        padded = expected.value.ljust(64, b"\0")
        if not hmac.compare_digest(padded, self.claims.user_data.ljust(64, b"\0")):
            raise BindingMismatch(
                "the claims' user data does not repeat what the quote is bound to",
                code="user_data_mismatch",
                tee=self.tee,
                field="user-data",
                expected=padded,
                got=self.claims.user_data,
                spec="kbs-protocol 1.5",
            )

    def started_for(self) -> None:
        """PCR 8 is what extending it by the init data's digest gives, and nothing else was extended into it."""
        if self.init_data is not None and not hmac.compare_digest(self.init_data, self.pcrs[INIT_DATA_PCR]):
            raise BindingMismatch(
                "the guest was not started with this init data",
                code="init_data_mismatch",
                tee=self.tee,
                field="pcr08",
                expected=self.init_data,
                got=self.pcrs[INIT_DATA_PCR],
                spec="kbs-protocol 1.10",
            )

    def vtpm_claims(self) -> dict[str, JsonValue]:
        """What the vTPM's part says."""
        attest, claims = self.attest, self.claims
        return {
            "hcl_report_type": self.evidence.hcl.report_type,
            "hcl_version": self.evidence.hcl.version,
            "nonce": attest.extra_data.hex(),
            "pcr_bank": SHA256.name,
            "pcrs": {f"{number:02}": value.hex() for number, value in self.pcrs.items()},
            "vm_configuration": dict(claims.configuration),
            "user_data": claims.user_data.hex(),
            "tpm_firmware": hex(attest.firmware_version),
            "clock": attest.clock,
            "reset_count": attest.reset_count,
            "restart_count": attest.restart_count,
            "safe": int(attest.safe),
            "report_data": attest.extra_data.hex(),
            "init_data": self.pcrs[INIT_DATA_PCR].hex(),
        }


@lru_cache(maxsize=64)
def _key(modulus: int, exponent: int) -> rsa.RSAPublicKey:
    try:
        return rsa.RSAPublicNumbers(exponent, modulus).public_key()
    except ValueError as error:
        raise MalformedEvidence(
            "the claims' attestation key is no RSA key", code="ak_key", field="keys", spec=SPEC
        ) from error


def _check(name: str, section: str, group: str) -> Check:
    return Check(name, ok=True, spec=section, group=group)


STEPS: tuple[Step[Verification], ...] = (
    Step(
        _check("hcl_type", f"{SPEC} (6)", "HCL report"),
        Verification.kind,
        tell=lambda run: (run.hardware_type, run.evidence.hcl.report_type),
    ),
    Step(
        _check("runtime_claims", f"{SPEC} (2)", "HCL report"),
        Verification.bound_claims,
        tell=lambda run: (run.evidence.hcl.bound.hex(), run.hardware_data.hex()),
    ),
    Step(_check("hardware", f"{SPEC} (1)", "HCL report"), Verification.hardware_report),
    Step(
        _check("quote_sig", f"{SPEC} (3)", "vTPM quote"),
        Verification.quote,
        tell=lambda run: ("the attestation key of the runtime claims", f"RSA {run.claims.ak[0].bit_length()}"),
    ),
    Step(
        _check("pcrs", f"{SPEC} (5)", "vTPM quote"),
        Verification.registers,
        tell=lambda run: (None, f"{len(run.pcrs)} PCRs of {SHA256.name}, digest {run.attest.pcr_digest.hex()}"),
    ),
    Step(
        _check("report_data", f"{SPEC} (4)", "binding"),
        Verification.bound,
        applies=lambda run: run.report_data is not None,
        tell=lambda run: (run.report_data.value.hex() if run.report_data else None, run.attest.extra_data.hex()),
    ),
    Step(
        _check("init_data", "kbs-protocol 1.10", "binding"),
        Verification.started_for,
        applies=lambda run: run.init_data is not None,
        tell=lambda run: (run.init_data.hex() if run.init_data else None, run.pcrs[INIT_DATA_PCR].hex()),
    ),
)
