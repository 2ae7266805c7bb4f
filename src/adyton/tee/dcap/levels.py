"""Which TCB level a platform has reached, and what its status comes to (evidence 3.3, steps 7, 10 and 12 to 16).

Every search that finds nothing refuses: no level is ever taken by default.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import ge
from typing import NamedTuple

from adyton.errors import EvidenceError
from adyton.tee.dcap.bodies import SgxBody, TdBody
from adyton.tee.dcap.pck import Pck
from adyton.tee.dcap.qe_identity import QeIdentity
from adyton.tee.dcap.status import TcbStatus, converge, relaunch
from adyton.tee.dcap.tcb_info import EnclaveLevel, TcbInfo, TcbLevel, TdxModule

_ZERO = bytes(8)


class TcbVerdict(NamedTuple):
    """The converged ``status``, and what went into it; ``module`` is ``None`` for SGX and for TDX modules of version 0."""

    status: TcbStatus
    platform: TcbLevel
    qe: EnclaveLevel
    module: EnclaveLevel | None
    advisories: tuple[str, ...]


def reached(info: TcbInfo, pck: Pck) -> tuple[TcbLevel, ...]:
    """Every level that the certificate's SGX components and PCE reach, newest first; maybe none."""
    components, pcesvn = pck.components, pck.pcesvn
    return tuple(
        [level for level in info.levels if pcesvn >= level.pcesvn and all(map(ge, components, level.sgx))]
    )  # fmt: skip


def platform_level(levels: Iterable[TcbLevel], body: SgxBody | TdBody, tee: str) -> TcbLevel:
    """Step 12: the newest of the ``reached`` levels, for TDX one that the TD's own TCB reaches as well."""
    if isinstance(body, SgxBody):
        for level in levels:
            return level
    else:
        svn = body.tee_tcb_svn
        first = 2 if svn[1] else 0  # with a module version, 0 and 1 are for the module's identity to judge
        own = svn[first:]
        for level in levels:
            if level.tdx is not None and all(map(ge, own, level.tdx[first:])):
                return level
    raise EvidenceError(
        "the platform's TCB is below every level that Intel knows of",
        code="tcb_not_supported",
        tee=tee,
        field="tcb",
        expected="a level of the TCB info",
        got="none",
        spec="evidence 3.3.12",
    )


def module_identity(info: TcbInfo, svn: bytes) -> TdxModule:
    """Step 7: what the module of version ``svn[1]`` must be."""
    version = svn[1]
    found = info.tdx_module_identities.get(f"TDX_{version:02X}") if version else info.tdx_module
    if found is None:
        raise _module_mismatch(
            "no identity of this version of the TDX module",
            "tdx_module_unknown",
            "tee_tcb_svn",
            sorted(info.tdx_module_identities),
            f"TDX_{version:02X}",
        )
    return found


def check_module(module: TdxModule, body: TdBody) -> None:
    """Step 7: signed by whom it must be, with the attributes that it must have, and none set."""
    if body.mrsignerseam != module.mrsigner:
        raise _module_mismatch(
            "the TDX module has another signer",
            "tdx_module_mrsigner",
            "mrsignerseam",
            module.mrsigner,
            body.mrsignerseam,
        )
    if body.seam_attributes != _ZERO or module.attributes != _ZERO:  # under whatever mask: zero must be what is wanted
        raise _module_mismatch(
            "the TDX module has other attributes",
            "tdx_module_attributes",
            "seam_attributes",
            module.attributes,
            body.seam_attributes,
        )


def module_level(module: TdxModule, svn: bytes) -> EnclaveLevel | None:
    """Step 13: the newest level that the module's own SVN reaches; ``None`` for version 0, which has no levels."""
    if not svn[1]:
        return None
    for level in module.levels:
        if svn[0] >= level.isvsvn:
            return level
    raise EvidenceError(
        "the TDX module is below every level that Intel knows of",
        code="tdx_module_not_supported",
        tee="tdx",
        field="tee_tcb_svn",
        expected=f"at least {module.levels[-1].isvsvn}",
        got=svn[0],
        spec="evidence 3.3.13",
    )


def check_qe(identity: QeIdentity, report: SgxBody, tee: str) -> None:
    """Step 10: the enclave that signed is the one that the identity describes."""
    miscselect = report.miscselect.to_bytes(4, "little")
    if _masked(miscselect, identity.miscselect_mask) != identity.miscselect:
        raise _qe_mismatch(tee, "miscselect", identity.miscselect, miscselect)
    if _masked(report.attributes, identity.attributes_mask) != identity.attributes:
        raise _qe_mismatch(tee, "attributes", identity.attributes, report.attributes)
    if report.mrsigner != identity.mrsigner:
        raise _qe_mismatch(tee, "mrsigner", identity.mrsigner, report.mrsigner)
    if report.isvprodid != identity.isvprodid:
        raise _qe_mismatch(tee, "isvprodid", identity.isvprodid, report.isvprodid)


def qe_level(identity: QeIdentity, report: SgxBody, tee: str) -> EnclaveLevel:
    """Step 10: the newest level that the quoting enclave's SVN reaches."""
    for level in identity.levels:
        if report.isvsvn >= level.isvsvn:
            return level
    raise EvidenceError(
        "the quoting enclave is below every level that Intel knows of",
        code="qe_not_supported",
        tee=tee,
        field="isvsvn",
        expected=f"at least {identity.levels[-1].isvsvn}",
        got=report.isvsvn,
        spec="evidence 3.3.10",
    )


def judge(
    info: TcbInfo,
    levels: tuple[TcbLevel, ...],
    body: SgxBody | TdBody,
    *,
    platform: TcbLevel,
    qe: EnclaveLevel,
    module: EnclaveLevel | None,
) -> TcbVerdict:
    """Steps 14 to 16: one status, and the advisories of all the levels that were matched."""
    status = converge(platform.status, module.status if module is not None else None)
    if isinstance(body, TdBody) and body.tee_tcb_svn_2 is not None and module is not None:
        status = _after_update(info, levels[0].status, status, qe=qe, module=module, now=body.tee_tcb_svn_2)
    status = converge(status, qe.status)
    matched = (platform, qe) if module is None else (platform, qe, module)
    named = {advisory for level in matched if level.advisories for advisory in level.advisories}
    return TcbVerdict(status, platform, qe, module, tuple(sorted(named)))


_CURRENT = frozenset(
    {
        TcbStatus.UP_TO_DATE,
        TcbStatus.SW_HARDENING_NEEDED,
        TcbStatus.CONFIGURATION_NEEDED,
        TcbStatus.CONFIGURATION_AND_SW_HARDENING_NEEDED,
    }
)
_OUTDATED = frozenset({TcbStatus.OUT_OF_DATE, TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED})


def _after_update(
    info: TcbInfo, sgx: TcbStatus, status: TcbStatus, *, qe: EnclaveLevel, module: EnclaveLevel, now: bytes
) -> TcbStatus:
    """Step 15: the module was updated under the running TD; ``now`` is the TCB since then, ``sgx`` the machine's status."""
    if (
        qe.status is not TcbStatus.UP_TO_DATE
        or sgx not in _CURRENT
        or status not in _OUTDATED
        or module.status is not TcbStatus.OUT_OF_DATE
    ):
        return status
    newest = info.levels[0].tdx or bytes(16)
    wanted = module_identity(info, now).levels[0].isvsvn if now[1] else newest[0]
    return relaunch(sgx, status) if now[0] >= wanted and now[2] >= newest[2] else status


def _masked(value: bytes, mask: bytes) -> bytes:
    return (int.from_bytes(value, "big") & int.from_bytes(mask, "big")).to_bytes(len(value), "big")


def _module_mismatch(message: str, code: str, field: str, expected: object, got: object) -> EvidenceError:
    return EvidenceError(message, code=code, tee="tdx", field=field, expected=expected, got=got, spec="evidence 3.3.7")


def _qe_mismatch(tee: str, field: str, expected: object, got: object) -> EvidenceError:
    return EvidenceError(
        f"the quoting enclave is not the one that Intel describes: {field}",
        code=f"qe_{field}",
        tee=tee,
        field=field,
        expected=expected,
        got=got,
        spec="evidence 3.3.10",
    )
