"""The converged TCB status over random level tables, against the rules stated a second time, in their plainest form.

What is said here is evidence 3.3, steps 7, 10 and 12 to 16, read anew; nothing of the code under test is used. Where
another implementation follows the same rules (bodies of TD 1.0, components that it compares as well), it is asked too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import dcap_qvl
import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from adyton import tee
from adyton.crypto.x509 import EndorsementSet
from adyton.devtee.dcap import DcapForge, sgx_body, td_body
from adyton.devtee.dcap_collateral import STATUSES, Collateral, Level, ModuleLevel
from adyton.errors import AdytonError
from adyton.rats.types import TrustAnchors
from adyton.tee.dcap.quote import Quote

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
FORGE = DcapForge.new(NOW)
ADVISORIES = ["INTEL-SA-00001", "INTEL-SA-00002", "INTEL-DOC-10000"]
Advisories = st.lists(st.sampled_from(ADVISORIES), max_size=2, unique=True)
Svn = st.integers(0, 3)  # what levels ask for
High = st.sampled_from([1, 2, 3, 3, 4])  # what platforms have: mostly enough, or every table would refuse


def components(*first: int) -> tuple[int, ...]:
    return (*first, *([0] * (16 - len(first))))


SGX = st.builds(components, Svn, Svn, Svn)
TDX = st.builds(components, Svn, st.just(0), Svn, Svn)
MODULE_LEVELS = st.lists(
    st.builds(
        ModuleLevel,
        Svn,
        st.sampled_from(["UpToDate", "UpToDate", "OutOfDate", "OutOfDate", "Revoked"]),
        advisories=Advisories,
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda level: level.isvsvn,
)


@dataclass(frozen=True, slots=True)
class World:
    """A platform, what runs on it, and Intel's tables."""

    tee: str
    components: tuple[int, ...]
    pcesvn: int
    svn: tuple[int, ...]
    svn_now: tuple[int, ...] | None
    qe_svn: int
    levels: tuple[Level, ...]
    modules: dict[int, list[ModuleLevel]]
    qe_levels: tuple[ModuleLevel, ...]


@st.composite
def worlds(draw: st.DrawFn, *, plain: bool = False) -> World:
    """``plain``: only what another implementation reads by the same rules."""
    kind = draw(st.sampled_from(["sgx", "tdx"]))
    tdx = TDX if kind == "tdx" else st.none()
    levels = draw(
        st.lists(
            st.builds(Level, SGX, Svn, st.sampled_from(STATUSES), tdx, advisories=Advisories),
            min_size=1,
            max_size=6,
            unique_by=lambda level: (level.sgx, level.pcesvn, level.tdx),
        )
    )
    version = st.just(0) if plain else st.sampled_from([0, 1, 1, 3])
    major = draw(version)
    td15 = not plain and draw(st.booleans())
    module_majors = draw(st.sampled_from([(1, 3), (1, 3), (1,), (3,)]))
    modules = {each: draw(MODULE_LEVELS) for each in module_majors}
    qe_levels = draw(MODULE_LEVELS)
    if plain:  # it takes the first that fits, as Intel's service sorts them
        levels.sort(key=lambda level: (level.sgx, level.pcesvn, level.tdx or ()), reverse=True)
        qe_levels.sort(key=lambda level: -level.isvsvn)
    return World(
        tee=kind,
        components=components(draw(High), draw(High), draw(High)),
        pcesvn=draw(High),
        svn=components(draw(High), major, draw(High), draw(High)),
        svn_now=components(draw(High), major, draw(High), draw(High)) if td15 else None,
        qe_svn=draw(High),
        levels=tuple(levels),
        modules=modules,
        qe_levels=tuple(qe_levels),
    )


class Refused(Exception):
    """No status at all."""


def state(world: World) -> tuple[str, list[str]]:
    """The rules."""
    tdx = world.tee == "tdx"
    newest_first = sorted(world.levels, key=lambda level: (level.sgx, level.pcesvn, level.tdx or ()), reverse=True)
    module = None
    if tdx and world.svn[1] > 0:
        if world.svn[1] not in world.modules:
            raise Refused("module")
        for candidate in sorted(world.modules[world.svn[1]], key=lambda level: -level.isvsvn):
            if module is None and world.svn[0] >= candidate.isvsvn:
                module = candidate
        if module is None:
            raise Refused("module level")
    qe = None
    for candidate in sorted(world.qe_levels, key=lambda level: -level.isvsvn):
        if qe is None and world.qe_svn >= candidate.isvsvn:
            qe = candidate
    if qe is None:
        raise Refused("qe")
    on_sgx = [
        level
        for level in newest_first
        if world.pcesvn >= level.pcesvn
        and all(have >= least for have, least in zip(world.components, level.sgx, strict=True))
    ]
    skipped = (0, 1) if world.svn[1] > 0 else ()
    both = [
        level
        for level in on_sgx
        if not tdx or all(world.svn[i] >= (level.tdx or ())[i] for i in range(16) if i not in skipped)
    ]
    if not both:
        raise Refused("platform")
    platform = both[0]
    advisories = sorted({a for level in (platform, qe, module) if level is not None for a in level.advisories})
    parts = [part.status for part in (module, qe) if part is not None]
    status = platform.status
    if "Revoked" in {status, *parts}:
        return "Revoked", advisories
    if "OutOfDate" in parts:
        status = {
            "UpToDate": "OutOfDate",
            "SWHardeningNeeded": "OutOfDate",
            "ConfigurationNeeded": "OutOfDateConfigurationNeeded",
            "ConfigurationAndSWHardeningNeeded": "OutOfDateConfigurationNeeded",
        }.get(status, status)
    if world.svn_now is not None and module is not None and module.status == "OutOfDate" and qe.status == "UpToDate":
        now, newest = world.svn_now, newest_first[0].tdx or ()
        patched = now[0] >= max(level.isvsvn for level in world.modules[now[1]]) and now[2] >= newest[2]
        if patched and not on_sgx[0].status.startswith(("OutOfDate", "Revoked")):
            configuration = "Configuration" in on_sgx[0].status or "Configuration" in status
            return "TDRelaunchAdvised" + ("ConfigurationNeeded" if configuration else ""), advisories
    return status, advisories


def evidence(world: World) -> tuple[DcapForge, Quote, Collateral]:
    here = FORGE.with_platform(replace(FORGE.platform, components=world.components, pcesvn=world.pcesvn))
    fields: dict[str, Any] = {}
    if world.tee == "tdx":
        fields = {"tee_tcb_svn": bytes(world.svn), "td15": world.svn_now is not None}
        if world.svn_now is not None:
            fields["tee_tcb_svn_2"] = bytes(world.svn_now)
    body = td_body(**fields) if world.tee == "tdx" else sgx_body()
    collateral = here.collateral(
        world.tee, levels=world.levels, modules=world.modules.items(), qe_levels=world.qe_levels
    )
    return here, here.quote(body, qe_report={"isvsvn": world.qe_svn}), collateral


def ours(world: World) -> tuple[str, list[str]]:
    here, quote, collateral = evidence(world)
    verified = tee.verify(
        world.tee,
        quote.encode(),
        endorsements=EndorsementSet.parse(collateral.blobs()),
        now=NOW,
        anchors=TrustAnchors(vendor=False, custom=frozenset({here.fingerprint})),
    )
    status, advisories = verified.claims["tcb_status"], verified.claims["advisory_ids"]
    assert isinstance(status, str)
    assert isinstance(advisories, list)
    assert verified.tcb["status"] == status
    return status, [str(advisory) for advisory in advisories]


@settings(max_examples=200, deadline=None)
@given(worlds())
def test_the_status_is_what_the_rules_say(world: World) -> None:
    try:
        expected = state(world)
    except Refused:
        with pytest.raises(AdytonError):
            ours(world)
        return
    assert ours(world) == expected


@settings(max_examples=100)
@given(worlds(plain=True))
def test_another_implementation_says_the_same(world: World) -> None:
    """It refuses what is revoked, which for Adyton is a verdict that every policy refuses."""
    here, quote, collateral = evidence(world)
    root = here.root.certificate.public_bytes(Encoding.DER)
    bundle = dcap_qvl.QuoteCollateralV3.from_json(json.dumps(collateral.bundle()))
    try:
        report = dcap_qvl.verify_with_root_ca(quote.encode(), bundle, root, int(NOW.timestamp()))
        theirs: tuple[str, list[str]] | None = (report.status, sorted(set(report.advisory_ids)))
    except ValueError:
        theirs = None
    try:
        mine: tuple[str, list[str]] | None = ours(world)
    except AdytonError:
        mine = None
    if theirs is None:
        assert mine is None or mine[0] == "Revoked"
    else:
        assert mine is not None
        assert mine[0] == theirs[0]


@settings(max_examples=50)
@given(worlds(), st.data())
def test_a_worse_platform_never_has_a_better_status(world: World, data: st.DataObject) -> None:
    """A lower SVN anywhere, with tables whose statuses only get worse downwards."""
    order = ["UpToDate", "OutOfDate", "Revoked"]
    ranked = sorted(world.levels, key=lambda level: (level.sgx, level.pcesvn, level.tdx or ()), reverse=True)
    sums = [sum(level.sgx) + level.pcesvn + sum(level.tdx or ()) for level in ranked]
    tables = tuple(
        replace(level, status=order[min(2, (max(sums) - own) // 3)]) for level, own in zip(ranked, sums, strict=True)
    )
    one = replace(world, levels=tables[:1], svn_now=None)
    index = data.draw(st.integers(0, 2))
    worse = replace(one, components=components(*(max(0, c - (i == index)) for i, c in enumerate(one.components[:3]))))
    worse = replace(worse, qe_svn=max(0, one.qe_svn - data.draw(st.integers(0, 1))))
    worse_qe = tuple(replace(level, status="UpToDate" if level.isvsvn >= 2 else "OutOfDate") for level in one.qe_levels)
    one, worse = replace(one, qe_levels=worse_qe), replace(worse, qe_levels=worse_qe)
    try:
        low = ours(worse)[0]
    except AdytonError:
        return
    high = ours(one)[0]
    badness = ["UpToDate", "OutOfDate", "Revoked"]
    assert badness.index(high) <= badness.index(low)


@st.composite
def updated(draw: st.DrawFn) -> World:
    """A TD of 1.5 whose module was out of date when it was launched, and may have been updated under it."""
    level = st.builds(
        Level,
        st.just(components(1)),
        st.integers(0, 2),
        st.sampled_from(STATUSES),
        st.builds(components, Svn, st.just(0), Svn),
    )
    statuses = st.sampled_from(["UpToDate", "UpToDate", "UpToDate", "OutOfDate", "Revoked"])
    return World(
        tee="tdx",
        components=components(1),
        pcesvn=draw(st.integers(1, 2)),
        svn=components(draw(st.integers(0, 2)), 1, draw(High)),
        svn_now=components(draw(High), 1, draw(High)),
        qe_svn=1,
        levels=tuple(draw(st.lists(level, min_size=1, max_size=3, unique_by=lambda each: (each.pcesvn, each.tdx)))),
        modules={1: [ModuleLevel(draw(st.integers(1, 4))), ModuleLevel(0, "OutOfDate", advisories=["INTEL-SA-00003"])]},
        qe_levels=(ModuleLevel(1, draw(statuses)),),
    )


@given(updated())
def test_a_td_launched_before_the_update_is_to_be_relaunched(world: World) -> None:
    try:
        expected = state(world)
    except Refused:
        with pytest.raises(AdytonError):
            ours(world)
        return
    assert ours(world) == expected


@pytest.mark.parametrize(
    ("platform", "now", "status"),
    [
        ("UpToDate", (5, 1, 2), "TDRelaunchAdvised"),
        ("SWHardeningNeeded", (5, 1, 2), "TDRelaunchAdvised"),
        ("ConfigurationNeeded", (5, 1, 2), "TDRelaunchAdvisedConfigurationNeeded"),
        ("ConfigurationAndSWHardeningNeeded", (6, 1, 3), "TDRelaunchAdvisedConfigurationNeeded"),
        ("OutOfDate", (5, 1, 2), "OutOfDate"),
        ("Revoked", (5, 1, 2), "Revoked"),
        ("UpToDate", (4, 1, 2), "OutOfDate"),
        ("UpToDate", (5, 1, 1), "OutOfDate"),
        ("ConfigurationNeeded", (4, 1, 2), "OutOfDateConfigurationNeeded"),
    ],
)
def test_when_relaunching_is_advised(platform: str, now: tuple[int, ...], status: str) -> None:
    world = World(
        tee="tdx",
        components=components(1),
        pcesvn=1,
        svn=components(4, 1, 2),
        svn_now=components(*now),
        qe_svn=1,
        levels=(Level(components(1), 1, platform, components(5, 0, 2)),),
        modules={1: [ModuleLevel(5), ModuleLevel(3, "OutOfDate")]},
        qe_levels=(ModuleLevel(1),),
    )
    assert ours(world)[0] == state(world)[0] == status
