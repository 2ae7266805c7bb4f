"""Steps 14 to 16: how the statuses of platform, module and quoting enclave become one, which no caller can lose."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tee.dcap.conftest import Lab

from adyton.devtee.dcap import td_body
from adyton.devtee.dcap_collateral import STATUSES, Level, ModuleLevel
from adyton.rats.types import VerifiedEvidence
from adyton.tee.dcap.status import ENCLAVE_STATUSES, PLATFORM_STATUSES, TcbStatus, converge, relaunch

TDX = (5, 1, 2, *([0] * 13))
WORSE = {
    "UpToDate": "OutOfDate",
    "SWHardeningNeeded": "OutOfDate",
    "ConfigurationNeeded": "OutOfDateConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded": "OutOfDateConfigurationNeeded",
    "OutOfDate": "OutOfDate",
    "OutOfDateConfigurationNeeded": "OutOfDateConfigurationNeeded",
    "Revoked": "Revoked",
}


def judged(lab: Lab, kind: str, platform: str, qe: str, module: str = "UpToDate", **more: Any) -> VerifiedEvidence:
    room = "sgx" if kind == "sgx" else "tdx"
    level = Level(
        lab.forge.platform.components, 13, platform, TDX if room == "tdx" else None, advisories=("INTEL-SA-00001",)
    )
    collateral = lab.forge.collateral(
        room,
        levels=more.pop("levels", [level]),
        qe_levels=[ModuleLevel(8, qe, advisories=("INTEL-SA-00002", "INTEL-SA-00001"))],
        modules=more.pop("modules", [(1, [ModuleLevel(5, module, advisories=("INTEL-DOC-10000",))])]),
    )
    return lab.verify(lab.quote(kind, **more), collateral)


def test_revoked_anywhere_is_revoked_everywhere(lab: Lab, kind: str) -> None:
    for parts in (("Revoked", "UpToDate", "UpToDate"), ("UpToDate", "Revoked", "OutOfDate")):
        verified = judged(lab, kind, *parts)
        assert verified.claims["tcb_status"] == "Revoked"
        assert verified.tcb["status"] == "Revoked"
        assert verified.coco_claims["tcb_status"] == "Revoked"
    if kind != "sgx":
        assert judged(lab, kind, "UpToDate", "UpToDate", "Revoked").claims["tcb_status"] == "Revoked"


@pytest.mark.parametrize("platform", STATUSES)
def test_a_part_out_of_date_makes_the_whole_so(lab: Lab, platform: str) -> None:
    assert judged(lab, "sgx", platform, "UpToDate").claims["tcb_status"] == platform
    assert judged(lab, "sgx", platform, "OutOfDate").claims["tcb_status"] == WORSE[platform]
    assert judged(lab, "td10", platform, "UpToDate", "OutOfDate").claims["tcb_status"] == WORSE[platform]
    claims = judged(lab, "td10", platform, "OutOfDate", "OutOfDate").claims
    assert claims["tcb_status"] == WORSE[platform]
    assert (claims["platform_tcb_status"], claims["qe_tcb_status"]) == (platform, "OutOfDate")
    assert claims["tdx_module_tcb_status"] == "OutOfDate"


def test_advisories_are_of_all_matched_levels_each_once(lab: Lab) -> None:
    assert judged(lab, "sgx", "UpToDate", "UpToDate").claims["advisory_ids"] == ["INTEL-SA-00001", "INTEL-SA-00002"]
    claims = judged(lab, "td15", "UpToDate", "UpToDate").claims
    assert claims["advisory_ids"] == ["INTEL-DOC-10000", "INTEL-SA-00001", "INTEL-SA-00002"]


@given(st.sampled_from(sorted(PLATFORM_STATUSES)), st.sampled_from(sorted(ENCLAVE_STATUSES)))
def test_converging_never_makes_better(platform: str, part: str) -> None:
    order = ["UpToDate", "SWHardeningNeeded", "ConfigurationNeeded", "ConfigurationAndSWHardeningNeeded"]
    order += ["OutOfDate", "OutOfDateConfigurationNeeded", "Revoked"]
    once = converge(PLATFORM_STATUSES[platform], ENCLAVE_STATUSES[part])
    assert order.index(once.value) >= order.index(platform)
    assert converge(once, ENCLAVE_STATUSES[part]) is once
    assert converge(PLATFORM_STATUSES[platform], None).value == platform
    if part == "UpToDate":
        assert once.value == platform


# Step 15: a TD that was launched before the module was updated

NOW_UPDATED = bytes((6, 1, 2)) + bytes(13)
MODULES = [(1, [ModuleLevel(6), ModuleLevel(5, "OutOfDate")])]


def relaunched(lab: Lab, platform: str = "UpToDate", **changes: Any) -> str:
    body = changes.pop("body", td_body(td15=True, tee_tcb_svn_2=changes.pop("now", NOW_UPDATED)))
    changes.setdefault("modules", MODULES)
    verified = judged(lab, "td15", platform, changes.pop("qe", "UpToDate"), body=body, **changes)
    status = verified.claims["tcb_status"]
    assert isinstance(status, str)
    return status


@pytest.mark.parametrize(
    ("platform", "expected"),
    [
        ("UpToDate", "TDRelaunchAdvised"),
        ("SWHardeningNeeded", "TDRelaunchAdvised"),
        ("ConfigurationNeeded", "TDRelaunchAdvisedConfigurationNeeded"),
        ("ConfigurationAndSWHardeningNeeded", "TDRelaunchAdvisedConfigurationNeeded"),
        ("OutOfDate", "OutOfDate"),
        ("OutOfDateConfigurationNeeded", "OutOfDateConfigurationNeeded"),
        ("Revoked", "Revoked"),
    ],
)
def test_relaunch_is_advised_if_only_the_old_module_is_the_reason(lab: Lab, platform: str, expected: str) -> None:
    assert relaunched(lab, platform) == expected


def test_relaunch_is_not_advised_otherwise(lab: Lab) -> None:
    assert relaunched(lab, now=bytes((5, 1, 2)) + bytes(13)) == "OutOfDate"  # not updated since
    assert relaunched(lab, now=bytes((6, 1, 1)) + bytes(13)) == "OutOfDate"  # component 2 is below the newest level's
    assert relaunched(lab, qe="OutOfDate") == "OutOfDate"
    assert relaunched(lab, qe="Revoked") == "Revoked"
    assert relaunched(lab, body=td_body(td15=True, tee_tcb_svn=NOW_UPDATED)) == "UpToDate"  # nothing to be advised
    old = td_body()
    assert judged(lab, "td10", "UpToDate", "UpToDate", body=old, modules=MODULES).claims["tcb_status"] == "OutOfDate"


def test_relaunch_asks_for_the_newest_module_that_runs_now(lab: Lab) -> None:
    modules = [*MODULES, (2, [ModuleLevel(3), ModuleLevel(1, "OutOfDate")])]
    assert relaunched(lab, now=bytes((3, 2, 2)) + bytes(13), modules=modules) == "TDRelaunchAdvised"
    assert relaunched(lab, now=bytes((2, 2, 2)) + bytes(13), modules=modules) == "OutOfDate"
    assert (
        relaunched(lab, now=bytes((5, 0, 2)) + bytes(13)) == "TDRelaunchAdvised"
    )  # version 0: the level's component 0
    assert relaunched(lab, now=bytes((4, 0, 2)) + bytes(13)) == "OutOfDate"
    body = td_body(td15=True, tee_tcb_svn_2=bytes((9, 9, 9)) + bytes(13))
    assert (
        lab.refused(lab.quote("td15", body=body), lab.forge.collateral("tdx", modules=MODULES)) == "tdx_module_unknown"
    )


def test_relaunch_by_the_status_of_the_machine_not_only_of_the_td(lab: Lab) -> None:
    """The TD's level may be an old one although the machine's own is current; a machine that is not, hides nothing."""
    components = lab.forge.platform.components
    older = (*TDX[:2], 1, *TDX[3:])
    body = td_body(td15=True, tee_tcb_svn=bytes((5, 1, 1)) + bytes(13), tee_tcb_svn_2=NOW_UPDATED)
    for newest, expected in (("UpToDate", "TDRelaunchAdvised"), ("OutOfDate", "OutOfDate")):
        levels = [Level(components, 13, newest, TDX), Level(components, 12, "OutOfDate", older)]
        assert relaunched(lab, body=body, levels=levels) == expected


def test_every_status_pair_of_relaunch() -> None:
    for sgx, whole in product(TcbStatus, TcbStatus):
        wanted = "ConfigurationNeeded" if "Configuration" in sgx.value + whole.value else ""
        assert relaunch(sgx, whole).value == f"TDRelaunchAdvised{wanted}"
