"""Any JSON is evidence that comes back to the byte, or malformed. Whole documents are mutated, not only random bytes."""

from __future__ import annotations

import json
import sys

import atheris

with atheris.instrument_imports():
    from adyton.errors import MalformedEvidence
    from adyton.tee.snp import json_form
    from adyton.tee.snp.abi import SnpReport, Tcb
    from adyton.wire import strict_json

TURIN = {name: Tcb.of(boot_loader=1, tee=2, snp=3, microcode=4, fmc=5) for name in ("current_tcb", "reported_tcb", "committed_tcb", "launch_tcb")}  # fmt: skip
SEEDS = [
    json.dumps(json_form.to_json(report, [("VCEK", b"\x30\x00"), ("ARK", b"\x30\x00")])).encode()
    for report in (
        SnpReport(version=2),
        SnpReport(version=3, cpuid_family=0x19),
        SnpReport(version=5, cpuid_family=0x1A, **TURIN),  # type: ignore[arg-type]  # names and values belong together
    )
]


def one(data: bytes) -> None:
    provider = atheris.FuzzedDataProvider(data)
    if provider.ConsumeBool():
        document = bytearray(SEEDS[provider.ConsumeIntInRange(0, len(SEEDS) - 1)])
        for _ in range(provider.ConsumeIntInRange(1, 4)):
            start = provider.ConsumeIntInRange(0, len(document))
            end = min(len(document), start + provider.ConsumeIntInRange(0, 8))
            document[start:end] = provider.ConsumeBytes(provider.ConsumeIntInRange(0, 12))
        data = bytes(document)
    try:
        report, certificates = json_form.parse_json(data)
    except MalformedEvidence:
        return
    strict_json.parse(data, max_size=json_form.MAX_SIZE)  # what was accepted has no duplicate member, no NaN
    again, chain = json_form.parse_json(json.dumps(json_form.to_json(report, certificates)).encode())
    assert (again.encode(), chain) == (report.encode(), certificates)


def main() -> None:
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
