"""Checkpoints, keys, proofs and rows of a log from strangers: one error for each; what verifies was signed."""

from __future__ import annotations

import contextlib
import sys

import atheris

with atheris.instrument_imports(include=["adyton.crypto.merkle", "adyton.protocol", "adyton.wire"]):
    from adyton.crypto import merkle
    from adyton.errors import DocumentInvalid, LogBroken
    from adyton.protocol import audit_proof, audit_row, checkpoint
    from adyton.protocol.audit_check import Reading
    from adyton.protocol.audit_proof import InclusionProof
    from adyton.protocol.checkpoint import LogKey, LogSigner

SIGNER = LogSigner("adyton/audit/00/default", bytes(range(32)))
ROOT = bytes(range(32))
NOTE = SIGNER.sign(5, ROOT)
KNOWN = checkpoint.verify(NOTE, [SIGNER.public])


def one(data: bytes) -> None:
    provider = atheris.FuzzedDataProvider(data)
    at, length = provider.ConsumeIntInRange(0, len(NOTE)), provider.ConsumeIntInRange(0, 20)
    changed = NOTE[:at] + provider.ConsumeUnicode(20) + NOTE[at + length :]
    rest = provider.ConsumeBytes(4096)
    for note in (changed, rest.decode("utf-8", "surrogateescape")):
        try:
            found = checkpoint.verify(note, [SIGNER.public])
        except (DocumentInvalid, LogBroken):
            continue
        assert found == KNOWN
    with contextlib.suppress(DocumentInvalid):
        text = rest.decode("latin-1")
        assert LogKey.parse(text).text() == text.strip()
    with contextlib.suppress(DocumentInvalid, LogBroken):
        proof = audit_proof.parse(rest)
        if isinstance(proof, InclusionProof):
            audit_proof.verify_inclusion(proof, "default", KNOWN)
            raise AssertionError("nobody knows a row of this log")  # noqa: TRY004 -- a finding of the fuzzer
    reading = Reading("default")
    with contextlib.suppress(LogBroken):
        reading.row(rest)
        assert reading.root() == merkle.leaf_hash(rest) and audit_row.decode(rest).sequence == 1
    path = [rest[start : start + 32] for start in range(0, len(rest), 32)]
    with contextlib.suppress(LogBroken):
        merkle.verify_inclusion(rest[:32], at % 9, 9, path, ROOT)
        raise AssertionError("a path to a root that nothing leads to")
    with contextlib.suppress(LogBroken):
        merkle.verify_consistency(4, ROOT, 9, ROOT[::-1], path)
        raise AssertionError("a path to a root that nothing leads to")


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
