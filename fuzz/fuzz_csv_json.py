"""Any bytes are CSV evidence in JSON that comes back from being written again, or malformed."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports():
    import json

    from adyton.devtee import csv as forging
    from adyton.errors import MalformedEvidence
    from adyton.tee.csv import json_form
    from adyton.tee.csv.abi import CsvReport

FORGE = forging.CsvForge.new()
PEK = FORGE.pek_certificate
RAW = CsvReport.parse(forging.wrapped(FORGE.report(pek=PEK)))
SEED = json.dumps(json_form.to_json(RAW, PEK, serial=bytes(64), hsk_cek=FORGE.hsk_cek, event_log=b"log")).encode()


def one(data: bytes) -> None:
    if data[:1] == b"\xff":  # put the bytes somewhere into something that is right
        at = int.from_bytes(data[1:4], "big") % len(SEED)
        data = SEED[:at] + data[4:] + SEED[at + len(data[4:]) :]
    try:
        parsed = json_form.parse(data)
    except MalformedEvidence:
        return
    again = json_form.to_json(
        parsed.report, parsed.pek, serial=parsed.serial, hsk_cek=parsed.hsk_cek, event_log=parsed.event_log
    )
    same = json_form.parse(json.dumps(again).encode())
    assert (same.pek, same.hsk_cek, same.serial) == (parsed.pek, parsed.hsk_cek, parsed.serial)
    assert same.report.info == parsed.report.info


def main() -> None:
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
