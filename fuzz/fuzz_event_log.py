"""Any bytes are a TCG or CC event log whose parts are what was given, or malformed; whatever is read can be replayed."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports():
    from adyton.errors import EvidenceError, MalformedEvidence, UnsupportedEvidence
    from adyton.tee.eventlog import ccel, coco, facts, replay, uki
    from adyton.tee.eventlog.log import EventLog

AGILE = bytes.fromhex(
    "0100000003000000" + "00" * 20 + "21000000" + b"Spec ID Event03\0".hex() + "0000000000020002010000000c00300000"
)
EVENT = bytes.fromhex("0700000001000080010000000c00") + bytes(48)


def one(data: bytes) -> None:
    for candidate in (data, AGILE + data, AGILE + EVENT + data):
        try:
            log = EventLog.parse(candidate)
        except MalformedEvidence:
            continue
        assert log.raw + log.tail == candidate
        coco.entries(log)
        for bank in log.banks:
            try:
                values = replay.replay(log, bank)
                assert replay.check(log, bank, values, tee="tpm").keys() == values.keys()
                facts.facts(log, bank, quoted=range(24))
                uki.sections(log, bank)
                facts.check_data(log, bank, tee="tpm")
            except (EvidenceError, UnsupportedEvidence):
                continue
    try:
        ccel.parse_table(data)
    except MalformedEvidence:
        return


def main() -> None:
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
