"""Every check of evidence 3.3 over one quote, in Intel's order, each with an error code of its own.

``Verification`` holds what was given and found; ``STEPS`` are its checks. SGX and TDX share them; TDX has two more
parts, its module and its event log, which are passed over where there is none.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache

from cryptography.hazmat.primitives.asymmetric import ec

from adyton.crypto.ecdsa import verify_p256
from adyton.crypto.x509 import EndorsementSet
from adyton.errors import BindingMismatch, EvidenceError, SignatureInvalid
from adyton.rats.binding import check_report_data
from adyton.rats.types import Check, JsonValue, ReportData, Revocation, TrustAnchors
from adyton.tee.dcap import levels
from adyton.tee.dcap.bodies import SgxBody, TdBody
from adyton.tee.dcap.collateral import CollateralWalk, VerifiedCollateral
from adyton.tee.dcap.levels import TcbVerdict
from adyton.tee.dcap.pck import Pck
from adyton.tee.dcap.platform import Enclave, Platform, PlatformWalk
from adyton.tee.dcap.quote import INTEL_QE_VENDOR, Quote
from adyton.tee.dcap.tcb_info import EnclaveLevel, TcbLevel, TdxModule
from adyton.tee.eventlog import ccel
from adyton.tee.eventlog.log import EventLog
from adyton.tee.remembered import Remembered
from adyton.tee.steps import Step

_P256 = ec.SECP256R1()
_ZEROS = bytes(32)


class Verification:
    """One verification. ``event_log`` is a TD's, if there is one; ``verdict`` is ``None`` where no collateral is looked at."""

    __slots__ = (
        "_known", "_platform_walk", "body", "event_log", "events", "init_data", "key", "module", "module_level", "platform",
        "platform_level", "qe_level", "quote", "raw", "report_data", "revocation", "tee", "verdict", "with_collateral",
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
        self._platform_walk = PlatformWalk(
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
        known = self._platform_walk.recall()
        self._known = known is not None
        if known is not None:
            self.platform, self.key, self.qe_level = known

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
        self.platform = self._platform_walk.done()

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
        if not self._known:
            self._platform_walk.remember(Enclave(self.platform, self.key, self.qe_level))

    def summary(self) -> tuple[tuple[Check, ...], tuple[str, ...]]:
        """The checks that were passed, and what was not checked."""
        passed, unchecked = _summary(
            tdx=isinstance(self.body, TdBody),
            revocation=self.revocation is Revocation.REQUIRED,
            collateral=self.with_collateral,
            report_data=self.report_data is not None,
            init_data=self.init_data is not None,
            log=self.event_log is not None,
        )
        collateral = self.platform.collateral
        if collateral is not None and (collateral.info.unknown or collateral.identity.unknown):
            unchecked += tuple([f"tcb_info.{name}" for name in collateral.info.unknown])
            unchecked += tuple([f"qe_identity.{name}" for name in collateral.identity.unknown])
        return passed, unchecked


def _once(do: Callable[[PlatformWalk], None]) -> Callable[[Verification], None]:
    """A check over the platform, which is not done again for a known one."""

    def step(run: Verification) -> None:
        if not run._known:  # noqa: SLF001 -- this module's own class
            do(run._platform_walk)  # noqa: SLF001

    return step


def _unless_known(do: Callable[[Verification], None]) -> Callable[[Verification], None]:
    """A check over the quoting enclave, which is not done again for a known one."""

    def step(run: Verification) -> None:
        if not run._known:  # noqa: SLF001
            do(run)

    return step


def _of_collateral(do: Callable[[CollateralWalk], None]) -> Callable[[Verification], None]:
    """A check over the collateral, which is not done again for known collateral."""

    def step(run: Verification) -> None:
        if not run._known and (walk := run._platform_walk.collateral()) is not None:  # noqa: SLF001
            do(walk)

    return step


def _status_said(run: Verification) -> tuple[JsonValue, JsonValue]:
    return None, run.verdict.status.value if run.verdict is not None else None


def _fmspc_said(run: Verification) -> tuple[JsonValue, JsonValue]:
    fmspc = _pck_of(run).fmspc.hex()  # both the same, or it would have been refused
    return fmspc, fmspc


def _pceid_said(run: Verification) -> tuple[JsonValue, JsonValue]:
    pceid = _pck_of(run).pceid.hex()
    return pceid, pceid


def _pck_of(run: Verification) -> Pck:
    return run.platform.pck if run._known else run._platform_walk.pck  # noqa: SLF001


def _vendor_said(run: Verification) -> tuple[JsonValue, JsonValue]:
    return INTEL_QE_VENDOR.hex(), run.quote.header.qe_vendor_id.hex()


def _module_said(run: Verification) -> tuple[JsonValue, JsonValue]:
    svn = run.body.tee_tcb_svn if isinstance(run.body, TdBody) else bytes(2)
    return run.module.id or "TDX module of version 0", f"version {svn[1]}, SVN {svn[0]}"


def _qe_level_said(run: Verification) -> tuple[JsonValue, JsonValue]:
    level = run.qe_level
    return None, f"{level.status.value} as of {level.date}" if level is not None else None


def _platform_level_said(run: Verification) -> tuple[JsonValue, JsonValue]:
    return None, f"{run.platform_level.status.value} as of {run.platform_level.date}"


def _module_level_said(run: Verification) -> tuple[JsonValue, JsonValue]:
    level = run.module_level
    return None, f"{level.status.value} as of {level.date}" if level is not None else "judged with the platform"


def _report_data_said(run: Verification) -> tuple[JsonValue, JsonValue]:
    return run.report_data.value.hex() if run.report_data is not None else None, run.body.report_data.hex()


def _init_data_said(run: Verification) -> tuple[JsonValue, JsonValue]:
    return run.init_data.hex() if run.init_data is not None else None, run.init_data_field.hex()


_SAID: dict[str, Callable[[Verification], tuple[JsonValue, JsonValue]]] = {"fmspc": _fmspc_said, "pceid": _pceid_said}


def _is_td(run: Verification) -> bool:
    return isinstance(run.body, TdBody)


def _check(name: str, section: str, group: str) -> Check:
    return Check(name, ok=True, spec=section, group=group)


_PCK, _TCB_INFO, _QE_IDENTITY = "PCK certificate", "TCB info", "QE identity"
_MODULE, _QE, _QUOTE, _TCB, _BINDING = "TDX module", "quoting enclave", "quote", "TCB", "binding"

_PLATFORM: tuple[Step[Verification], ...] = (
    Step(_check("qe_vendor_id", "evidence 3.3.1", _QUOTE), Verification.vendor, tell=_vendor_said),
    Step(_check("pck_certificate", "evidence 3.3.2", _PCK), _once(PlatformWalk.certificate)),
    Step(_check("pck_chain", "evidence 3.3.2", _PCK), _once(PlatformWalk.chain)),
    Step(_check("pck_validity", "evidence 3.3.2", _PCK), _once(PlatformWalk.validity)),
    Step(_check("root", "evidence 3.3.2", _PCK), _once(PlatformWalk.root)),
    Step(
        _check("revocation", "evidence 3.3.3", _PCK),
        _once(PlatformWalk.revoked),
        applies=lambda run: run.revocation is Revocation.REQUIRED,
    ),
)
_COLLATERAL: tuple[Step[Verification], ...] = tuple(
    Step(_check(name, f"evidence {section}", group), _of_collateral(do), tell=_SAID.get(name))
    for name, section, group, do in (
        ("tcb_info_sig", "3.3.4", _TCB_INFO, CollateralWalk.tcb_info_signature),
        ("tcb_info_signer", "3.3.4", _TCB_INFO, CollateralWalk.tcb_info_signer),
        ("tcb_info_validity", "3.3.4", _TCB_INFO, CollateralWalk.tcb_info_validity),
        ("tcb_info_tee", "3.3.4", _TCB_INFO, CollateralWalk.tcb_info_tee),
        ("fmspc", "3.3.5", _TCB_INFO, CollateralWalk.fmspc),
        ("pceid", "3.3.5", _TCB_INFO, CollateralWalk.pceid),
        ("qe_identity_sig", "3.3.6", _QE_IDENTITY, CollateralWalk.qe_identity_signature),
        ("qe_identity_signer", "3.3.6", _QE_IDENTITY, CollateralWalk.qe_identity_signer),
        ("qe_identity_validity", "3.3.6", _QE_IDENTITY, CollateralWalk.qe_identity_validity),
        ("qe_identity_tee", "3.3.6", _QE_IDENTITY, CollateralWalk.qe_identity_tee),
    )
)
_BOUND: tuple[Step[Verification], ...] = (
    Step(
        _check("event_log", "evidence 7.2", "event log"),
        Verification.log,
        applies=lambda run: run.event_log is not None,
    ),
    Step(
        _check("report_data", "kbs-protocol 1.5", _BINDING),
        Verification.bound,
        applies=lambda run: run.report_data is not None,
        tell=_report_data_said,
    ),
    Step(
        _check("init_data", "evidence 14", _BINDING),
        Verification.started_for,
        applies=lambda run: run.init_data is not None,
        tell=_init_data_said,
    ),
)
_SETTLED = Step(
    _check("", "", ""), _unless_known(Verification.settled), applies=lambda _: False
)  # no check, but its place is here
_QE_REPORT: tuple[Step[Verification], ...] = (
    Step(_check("qe_report_sig", "evidence 3.3.8", _QE), _unless_known(Verification.qe_report_signature)),
    Step(_check("qe_report_data", "evidence 3.3.9", _QE), _unless_known(Verification.qe_report_data)),
    Step(_check("attestation_key", "evidence 3.3.11", _QE), _unless_known(Verification.attestation_key)),
)
_SIGNATURE = Step(_check("quote_sig", "evidence 3.3.11", _QUOTE), Verification.quote_signature)

STEPS: tuple[Step[Verification], ...] = (
    *_PLATFORM,
    *_COLLATERAL,
    _SETTLED,
    Step(_check("tdx_module", "evidence 3.3.7", _MODULE), Verification.tdx_module, applies=_is_td, tell=_module_said),
    *_QE_REPORT,
    Step(_check("qe_identity", "evidence 3.3.10", _QE), _unless_known(Verification.qe_identity)),
    Step(_check("qe_tcb", "evidence 3.3.10", _QE), _unless_known(Verification.qe_tcb), tell=_qe_level_said),
    _SIGNATURE,
    Step(_check("platform_tcb", "evidence 3.3.12", _TCB), Verification.platform_tcb, tell=_platform_level_said),
    Step(
        _check("tdx_module_tcb", "evidence 3.3.13", _TCB),
        Verification.module_tcb,
        applies=_is_td,
        tell=_module_level_said,
    ),
    Step(_check("tcb_status", "evidence 3.3.14", _TCB), Verification.tcb, tell=_status_said),
    *_BOUND,
)
SIGNATURE_STEPS: tuple[Step[Verification], ...] = (*_PLATFORM, _SETTLED, *_QE_REPORT, _SIGNATURE, *_BOUND)


@lru_cache(maxsize=128)
def _summary(**asked: bool) -> tuple[tuple[Check, ...], tuple[str, ...]]:
    """By what was asked: the checks that were passed, and what was not checked."""
    passed_over = {
        *(("revocation",) if not asked["revocation"] else ()),
        *(("tdx_module", "tdx_module_tcb") if not asked["tdx"] else ()),
        *(("event_log",) if not asked["log"] else ()),
        *(("report_data",) if not asked["report_data"] else ()),
        *(("init_data",) if not asked["init_data"] else ()),
    }
    steps = STEPS if asked["collateral"] else SIGNATURE_STEPS
    passed = tuple(step.check for step in steps if step is not _SETTLED and step.check.id not in passed_over)
    unchecked = [
        *(("revocation",) if not asked["revocation"] else ()),
        *(("tcb", "qe_identity") if not asked["collateral"] else ()),
        *(name for name in ("report_data", "init_data") if not asked[name]),
    ]
    return passed, tuple(unchecked)
