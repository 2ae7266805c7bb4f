"""The order of the checks over a quote, and what each tells a reader (evidence 3.3).

``STEPS`` are all of them; ``SIGNATURE_STEPS`` those that need no collateral. What was verified of a platform and its quoting
enclave before is not done again.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from adyton.rats.types import Check, JsonValue, Revocation
from adyton.tee.dcap.bodies import TdBody
from adyton.tee.dcap.checks import Verification
from adyton.tee.dcap.collateral import CollateralWalk
from adyton.tee.dcap.pck import Pck
from adyton.tee.dcap.platform import PlatformWalk
from adyton.tee.dcap.quote import INTEL_QE_VENDOR
from adyton.tee.steps import Step


def _once(do: Callable[[PlatformWalk], None]) -> Callable[[Verification], None]:
    """A check over the platform, which is not done again for a known one."""

    def step(run: Verification) -> None:
        if not run.known:
            do(run.platform_walk)

    return step


def _unless_known(do: Callable[[Verification], None]) -> Callable[[Verification], None]:
    """A check over the quoting enclave, which is not done again for a known one."""

    def step(run: Verification) -> None:
        if not run.known:
            do(run)

    return step


def _of_collateral(do: Callable[[CollateralWalk], None]) -> Callable[[Verification], None]:
    """A check over the collateral, which is not done again for known collateral."""

    def step(run: Verification) -> None:
        if run.known:
            return
        walk = run.platform_walk.collateral()
        if walk is not None:
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
    return run.platform.pck if run.known else run.platform_walk.pck


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


def summary(run: Verification) -> tuple[tuple[Check, ...], tuple[str, ...]]:
    """The checks that were passed, and what was not checked."""
    passed, unchecked = _summary(
        tdx=isinstance(run.body, TdBody),
        revocation=run.revocation is Revocation.REQUIRED,
        collateral=run.with_collateral,
        report_data=run.report_data is not None,
        init_data=run.init_data is not None,
        log=run.event_log is not None,
    )
    collateral = run.platform.collateral
    if collateral is not None and (collateral.info.unknown or collateral.identity.unknown):
        unchecked += tuple([f"tcb_info.{name}" for name in collateral.info.unknown])
        unchecked += tuple([f"qe_identity.{name}" for name in collateral.identity.unknown])
    return passed, unchecked


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
