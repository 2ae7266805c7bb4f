"""Any opaque data is read into claims that are JSON, or malformed."""

from __future__ import annotations

import json
import sys

import atheris

with atheris.instrument_imports():
    from adyton.errors import MalformedEvidence
    from adyton.tee.nvidia import abi, opaque

REPORT = abi.Report(bytes(32), 0, bytes(2), ((1, 1, bytes(48)),), bytes(32), (), bytes(96))


def one(data: bytes) -> None:
    fields = []
    offset = 0
    while offset + 2 <= len(data):  # type, size, data: sizes small, so that there are many fields
        kind, size = data[offset] % 48, data[offset + 1] % 24
        fields.append((kind, data[offset + 2 : offset + 2 + size]))
        offset += 2 + size
    report = REPORT._replace(opaque=tuple(fields))
    try:
        read = abi.parse(report.encode())
    except MalformedEvidence:
        return
    assert read == report
    try:
        said = opaque.read(read)
    except MalformedEvidence:
        return
    json.dumps(said.config)


def main() -> None:
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
