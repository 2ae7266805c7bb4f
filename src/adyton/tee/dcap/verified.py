"""Handing over what was verified of a quote: claims of body, platform and TCB in one mapping, written when read."""

from __future__ import annotations

from collections.abc import Callable

from adyton.rats.types import JsonValue, ReportData, VerifiedEvidence
from adyton.tee.dcap import claims as claims_of
from adyton.tee.dcap.checks import Verification
from adyton.tee.dcap.levels import TcbVerdict
from adyton.tee.dcap.sequence import summary
from adyton.tee.deferred import Deferred


def hand_over(
    run: Verification,
    of_body: Callable[[], dict[str, JsonValue]],
    coco_of_body: Callable[[], dict[str, JsonValue]],
) -> VerifiedEvidence:
    """What ``run`` verified. ``of_body`` gives Adyton's claims of the body, ``coco_of_body`` CoCo's of quote and body."""
    platform, verdict = run.platform, run.verdict
    collateral = platform.collateral
    ready: dict[str, JsonValue] = {"tcb_status": verdict.status.value if verdict is not None else None}

    def claims() -> dict[str, JsonValue]:
        made = of_body() | claims_of.of_quote(run.quote) | claims_of.of_pck(platform.pck, platform.issuer.kind)
        made |= claims_of.of_collateral(platform.span, platform.issuer)
        if verdict is not None and collateral is not None:
            return made | claims_of.of_tcb(verdict, collateral)
        return made | ready

    def coco() -> dict[str, JsonValue]:
        made = coco_of_body() | claims_of.coco_platform(platform.pck, platform.issuer, platform.span)
        if verdict is not None and collateral is not None:
            made |= claims_of.coco_tcb(verdict, collateral)
        return made

    def tcb() -> dict[str, JsonValue]:
        return _tcb(run, verdict)

    checks, unchecked = summary(run)
    return VerifiedEvidence(
        tee=run.tee,
        tee_class="cpu",
        claims=Deferred(claims, ready),
        coco_claims=Deferred(coco, ready if verdict is not None else None),
        tcb=Deferred(tcb),
        report_data=ReportData(run.body.report_data),
        init_data=run.init_data_field,
        root=platform.issuer.root_kind,
        root_fingerprint=platform.issuer.root_fingerprint,
        checks=checks,
        expires=platform.span.end,
        expires_first=platform.span.first,
        unchecked=unchecked,
    )


def _tcb(run: Verification, verdict: TcbVerdict | None) -> dict[str, JsonValue]:
    pck, collateral = run.platform.pck, run.platform.collateral
    known: dict[str, JsonValue] = {
        "status": None,
        "fmspc": pck.fmspc.hex(),
        "components": list(pck.components),
        "pcesvn": pck.pcesvn,
    }
    if verdict is None or collateral is None:
        return known
    module = verdict.module
    return known | {
        "status": verdict.status.value,
        "date": verdict.platform.date,
        "advisory_ids": list(verdict.advisories),
        "platform": verdict.platform.status.value,
        "qe": verdict.qe.status.value,
        "tdx_module": module.status.value if module is not None else None,
        "evaluation_data_number": collateral.info.evaluation_number,
    }
