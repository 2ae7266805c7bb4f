"""Recordings of decisions, and the rules of keeping and of releasing: a value that is written as it was read, or an error of ours."""

from __future__ import annotations

import contextlib
import sys

import atheris

with atheris.instrument_imports(include=["adyton"]):
    from adyton.errors import AdytonError
    from adyton.protocol import ear, recording, release_rules

HEAD = b'{"form":"adyton-recording/1","kind":"attestation","appraised":[{"name":"cpu0","tee":"snp","root":"vendor","input":'
ASKED = b'{"kind":"resource","asked":{"path":["a","b","c"],"claims":'


def one(data: bytes) -> None:
    for line in (data, HEAD + data + b"}]}", ASKED + data + b"}}"):
        try:
            read = recording.decode(line)
            assert recording.decode(recording.encode(read)) == read
            for part in read.appraised:
                assert isinstance(part.tee_class, str)
                again = recording.of_evidence(part.name, part.input)
                assert again.name == part.name
            if read.asked is not None:
                ear.read(read.asked.claims)
        except AdytonError:
            pass
    text = data.decode("utf-8", "replace")
    try:
        rules = recording.parse(text)
        assert recording.parse(recording.written(rules)) == rules
    except AdytonError:
        pass
    with contextlib.suppress(AdytonError):
        release_rules.parse(text).demand("models")


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
