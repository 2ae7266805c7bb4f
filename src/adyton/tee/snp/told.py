"""What each check compared, for whoever reads the trail. Nothing of this is computed unless somebody does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from adyton.rats.types import Check, JsonValue
from adyton.tee.snp.checks import Verification
from adyton.tee.snp.product import Product

_Told = tuple[JsonValue, JsonValue]


def told(check: Check, run: Verification) -> Check:
    """The check that ``run`` has just passed, with what was expected and what came."""
    tell = _TELL.get(check.id)
    if tell is None:
        return check
    expected, got = tell(run)
    return replace(check, expected=expected, got=got)


def _format(run: Verification) -> _Told:
    return "report version 2 to 5", f"version {run.report.version}"


def _signing_key(run: Verification) -> _Told:
    kind = run.report.key_info.signing_key
    return "VCEK or VLEK", kind.name if kind is not None else None


def _product(run: Verification) -> _Told:
    product = run.product
    named = product.value if product is not None else f"{Product.MILAN.value} or {Product.GENOA.value}"
    return named, run.leaf.product_name


def _key_kind(run: Verification) -> _Told:
    return _signing_key(run)[1], run.leaf.kind.name


def _chip_id(run: Verification) -> _Told:
    hardware_id = run.leaf.hardware_id
    return hardware_id.hex() if hardware_id is not None else None, run.report.chip_id.hex()


def _certificate(run: Verification) -> _Told:
    return None, f"{run.leaf.certificate.common_name}, SHA-256 {run.leaf.certificate.digest.hex()}"


def _validity(run: Verification) -> _Told:
    certificate = run.leaf.certificate
    return f"{_time(certificate.not_before)} to {_time(certificate.not_after)}", _time(run.now)


def _tcb(run: Verification) -> _Told:
    names = ("fmc", "boot loader", "tee", "snp", "microcode")
    return tuple(  # type: ignore[return-value]  # two of them
        ", ".join(f"{name} {value}" for name, value in zip(names, levels, strict=True))
        for levels in (run.leaf.tcb, run.report.reported_tcb.components)
    )


def _tcb_order(run: Verification) -> _Told:
    report = run.report
    stages = (("reported", report.reported_tcb), ("committed", report.committed_tcb), ("current", report.current_tcb))
    return "reported ≤ committed ≤ current", ", ".join(f"{name} {tcb.raw.hex()}" for name, tcb in stages)


def _report_data(run: Verification) -> _Told:
    expected = run.report_data
    return expected.value.hex() if expected is not None else None, run.report.report_data.hex()


def _init_data(run: Verification) -> _Told:
    return run.init_data.hex() if run.init_data is not None else None, run.report.host_data.hex()


def _time(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


_TELL: dict[str, Callable[[Verification], _Told]] = {
    "format": _format,
    "signing_key": _signing_key,
    "certificate": _certificate,
    "product": _product,
    "key_kind": _key_kind,
    "chip_id": _chip_id,
    "validity": _validity,
    "tcb": _tcb,
    "tcb_order": _tcb_order,
    "report_data": _report_data,
    "init_data": _init_data,
}
