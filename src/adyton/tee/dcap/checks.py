"""Every check of evidence 3.3 over one quote, in Intel's order, each with an error code of its own.

``Verification`` holds what was given and found; ``sequence`` has its checks in their order. SGX and TDX share them; TDX has
two more parts, its module and its event log, which are passed over where there is none.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric import ec

from adyton.crypto.ecdsa import verify_p256
from adyton.crypto.x509 import EndorsementSet
from adyton.errors import BindingMismatch, EvidenceError, SignatureInvalid
from adyton.rats.binding import check_report_data
from adyton.rats.types import ReportData, Revocation, TrustAnchors
from adyton.tee.dcap import levels
from adyton.tee.dcap.bodies import SgxBody, TdBody
from adyton.tee.dcap.collateral import VerifiedCollateral
from adyton.tee.dcap.levels import TcbVerdict
from adyton.tee.dcap.platform import Enclave, Platform, PlatformWalk
from adyton.tee.dcap.quote import INTEL_QE_VENDOR, Quote
from adyton.tee.dcap.tcb_info import EnclaveLevel, TcbLevel, TdxModule
from adyton.tee.eventlog import ccel
from adyton.tee.eventlog.log import EventLog
from adyton.tee.remembered import Remembered

_P256 = ec.SECP256R1()
_ZEROS = bytes(32)


class Verification:
    """One verification. ``event_log`` is a TD's, if there is one; ``verdict`` is ``None`` where no collateral is looked at."""

    __slots__ = (
        "body",
        "event_log",
        "events",
        "init_data",
        "key",
        "known",
        "module",
        "module_level",
        "platform",
        "platform_level",
        "platform_walk",
        "qe_level",
        "quote",
        "raw",
        "report_data",
        "revocation",
        "tee",
        "verdict",
        "with_collateral",
    )  # fmt: skip
    module: TdxModule
    module_level: EnclaveLevel | None
    platform: Platform
    platform_level: TcbLevel
    qe_level: EnclaveLevel | None
    key: ec.EllipticCurvePublicKey

    def __init__(
        self,
        tee: str,
        quote: Quote,
        raw: bytes,
        *,
        endorsements: EndorsementSet,
        now: datetime,
        anchors: TrustAnchors,
        revocation: Revocation,
        report_data: ReportData | None,
        init_data: bytes | None,
        remembered: Remembered | None,
        with_collateral: bool = True,
        event_log: EventLog | None = None,
    ) -> None:
        self.tee = tee
        self.quote = quote
        self.raw = raw
        self.body = quote.body
        self.report_data = report_data
        self.init_data = init_data
        self.revocation = revocation
        self.with_collateral = with_collateral
        self.event_log = event_log
        self.events: tuple[int, ...] = ()
        self.verdict: TcbVerdict | None = None
        self.module_level = None
        self.qe_level = None
        self.platform_walk = PlatformWalk(
            tee,
            quote,
            raw,
            endorsements=endorsements,
            anchors=anchors,
            revocation=revocation,
            now=now,
            remembered=remembered,
            with_collateral=with_collateral,
        )
        enclave = self.platform_walk.recall()
        self.known = enclave is not None
        if enclave is not None:
            self.platform, self.key, self.qe_level = enclave

    # The checks, in order. Each is silent or raises.

    def vendor(self) -> None:
        """3.3.1: version, types and lengths were parsing's; here, whose quoting enclave it is."""
        if self.quote.header.qe_vendor_id != INTEL_QE_VENDOR:
            raise EvidenceError(
                "not made by Intel's quoting enclave",
                code="qe_vendor_id",
                tee=self.tee,
                field="qe_vendor_id",
                expected=INTEL_QE_VENDOR,
                got=self.quote.header.qe_vendor_id,
                spec="evidence 3.3.1",
            )

    def settled(self) -> None:
        """All about the platform is verified: what comes now is the quoting enclave's, and the quote's own."""
        self.platform = self.platform_walk.done()

    def tdx_module(self) -> None:
        """3.3.7: the TDX module is one of Intel's, by the TCB info."""
        if isinstance(self.body, TdBody):
            self.module = levels.module_identity(self._collateral.info, self.body.tee_tcb_svn)
            levels.check_module(self.module, self.body)

    def qe_report_signature(self) -> None:
        """3.3.8: the PCK key signed the QE's report."""
        quote, offset = self.quote, self.quote.qe_report_offset
        try:
            verify_p256(self.platform.pck.key, quote.qe_report_signature, self.raw[offset : offset + 384])
        except SignatureInvalid as error:
            raise SignatureInvalid(
                "the QE report's signature does not verify under the PCK certificate's key",
                code="qe_report_sig",
                tee=self.tee,
                field="qe_report_signature",
                spec="evidence 3.3.8",
                hint="the quote was changed, or carries another platform's certificate",
            ) from error

    def qe_report_data(self) -> None:
        """3.3.9: the QE vouches for the attestation key: SHA-256 of key and authentication data, then 32 zeros."""
        quote = self.quote
        expected = hashlib.sha256(quote.attestation_key + quote.qe_auth_data).digest() + _ZEROS
        if not hmac.compare_digest(expected, quote.qe_report.report_data):
            raise BindingMismatch(
                "the QE's report does not vouch for the attestation key",
                code="qe_report_data",
                tee=self.tee,
                field="qe_report_data",
                expected=expected,
                got=quote.qe_report.report_data,
                spec="evidence 3.3.9",
            )

    def attestation_key(self) -> None:
        """3.3.11: and that key is a point of P-256."""
        try:
            self.key = ec.EllipticCurvePublicKey.from_encoded_point(_P256, b"\x04" + self.quote.attestation_key)
        except ValueError as error:
            raise EvidenceError(
                "the attestation key is not a point of P-256",
                code="attestation_key",
                tee=self.tee,
                field="attestation_key",
                got=self.quote.attestation_key,
                spec="evidence 3.3.11",
            ) from error

    def qe_identity(self) -> None:
        """3.3.10: the quoting enclave is the one that Intel describes."""
        levels.check_qe(self._collateral.identity, self.quote.qe_report, self.tee)

    def qe_tcb(self) -> None:
        """3.3.10: its version is one that Intel knows of."""
        self.qe_level = levels.qe_level(self._collateral.identity, self.quote.qe_report, self.tee)

    def quote_signature(self) -> None:
        """3.3.11: the attestation key signed header and body."""
        quote = self.quote
        try:
            verify_p256(self.key, quote.signature, self.raw[: quote.signed_size])
        except SignatureInvalid as error:
            raise SignatureInvalid(
                "the quote's signature does not verify under the attestation key",
                code="quote_sig",
                tee=self.tee,
                field="signature",
                spec="evidence 3.3.11",
                hint="header or body of the quote were changed",
            ) from error

    def platform_tcb(self) -> None:
        """3.3.12: the platform reaches a level that Intel knows of."""
        self.platform_level = levels.platform_level(self.platform.levels, self.body, self.tee)

    def module_tcb(self) -> None:
        """3.3.13: and so does the TDX module."""
        if isinstance(self.body, TdBody):
            self.module_level = levels.module_level(self.module, self.body.tee_tcb_svn)

    def tcb(self) -> None:
        """3.3.14 to 16: one status of all of them. Whether it is good enough is appraisal's; it cannot be lost."""
        if self.qe_level is None:
            raise ValueError("the quoting enclave's level is not known")
        self.verdict = levels.judge(
            self._collateral.info,
            self.platform.levels,
            self.body,
            platform=self.platform_level,
            qe=self.qe_level,
            module=self.module_level,
        )

    def log(self) -> None:
        """The event log leads to the TD's run-time registers."""
        body = self.body
        if self.event_log is not None and isinstance(body, TdBody):
            registers = (body.rtmr0, body.rtmr1, body.rtmr2, body.rtmr3)
            self.events = ccel.check_rtmrs(self.event_log, registers, tee=self.tee)

    def bound(self) -> None:
        """The quote was made for this nonce and key."""
        if self.report_data is not None:
            check_report_data(self.tee, self.report_data, ReportData(self.body.report_data))

    def started_for(self) -> None:
        """CONFIGID or MRCONFIGID is what was expected, in full length."""
        if self.init_data is not None and not hmac.compare_digest(self.init_data, self.init_data_field):
            raise BindingMismatch(
                "it was not started with this init data",
                code="init_data_mismatch",
                tee=self.tee,
                field="configid" if isinstance(self.body, SgxBody) else "mrconfigid",
                expected=self.init_data,
                got=self.init_data_field,
                spec="evidence 14",
            )

    @property
    def init_data_field(self) -> bytes:
        """CONFIGID, 64 bytes, or MRCONFIGID, 48."""
        return self.body.configid if isinstance(self.body, SgxBody) else self.body.mrconfigid

    @property
    def _collateral(self) -> VerifiedCollateral:
        collateral = self.platform.collateral
        if collateral is None:
            raise ValueError("no collateral was looked at")
        return collateral

    def remember(self) -> None:
        """Keep what was verified of platform and quoting enclave. Call it after every check."""
        if not self.known:
            self.platform_walk.remember(Enclave(self.platform, self.key, self.qe_level))
