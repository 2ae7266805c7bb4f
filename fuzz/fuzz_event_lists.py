"""Any bytes are a canonical event log, an IMA list, dstack's or Windows' events, or refused; in bounded depth."""

from __future__ import annotations

import contextlib
import struct
import sys

import atheris

with atheris.instrument_imports():
    from adyton.errors import EvidenceError, MalformedEvidence
    from adyton.tee.eventlog import cel, device_paths, dstack, ima, sipa, tagged, variables
    from adyton.tee.eventlog.banks import SHA1, SHA384


def one(data: bytes) -> None:
    try:
        records = cel.parse(data)
        cel.check_content(records, tee="tdx")
        cel.replay(records, SHA384)
    except EvidenceError:
        pass
    for candidate in (data, b"10 " + data):
        try:
            entries = ima.parse(candidate)
            ima.replay(entries, SHA1)
            ima.check_templates(entries, tee="tpm")
        except EvidenceError:
            continue
    with contextlib.suppress(EvidenceError):
        dstack.runtime_events(dstack.parse(data), tee="tdx")
    for read in (sipa.parse, tagged.parse, variables.variable, variables.image_path, device_paths.texts):
        for candidate in (data, struct.pack("<II", 0x40000001, len(data)) + data):
            try:
                read(candidate)
            except MalformedEvidence as error:
                raise AssertionError("not this reader's error") from error
            except ValueError:
                continue
    tagged.application_event(data)


def main() -> None:
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
