"""Proofs about a log as files: that a row is in it, or that one checkpoint continues another. Checked offline.

JSON, one object. ``row`` is the row's bytes as text, byte for byte what is hashed. Nothing in a proof is believed but
what a verified checkpoint of the same size bears out; the one inside is there so that a proof can travel alone.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from adyton.crypto import merkle
from adyton.errors import DocumentInvalid, LogBroken
from adyton.protocol import audit_row
from adyton.protocol.audit_row import AuditEntry
from adyton.protocol.checkpoint import Checkpoint
from adyton.wire import b64, strict_json

MAX_PROOF = 4 * 1024 * 1024
INCLUSION = "adyton-audit-inclusion/1"
CONSISTENCY = "adyton-audit-consistency/1"


class InclusionProof(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="proof", tag=INCLUSION):
    """Row ``sequence`` (from 1) is in the log of ``size`` rows. ``path`` is base64, from the leaf up."""

    sequence: int
    size: int
    row: str
    path: tuple[str, ...]
    checkpoint: str


class ConsistencyProof(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="proof", tag=CONSISTENCY):
    """The log of ``size`` rows begins with the one of ``old_size``; ``checkpoint`` is that of ``size``."""

    old_size: int
    size: int
    path: tuple[str, ...]
    checkpoint: str


Proof: TypeAlias = InclusionProof | ConsistencyProof
_DECODER: msgspec.json.Decoder[Proof] = msgspec.json.Decoder(Proof)
_KINDS: dict[type[Proof], Literal["inclusion", "consistency"]] = {
    InclusionProof: "inclusion",
    ConsistencyProof: "consistency",
}


def parse(data: bytes) -> Proof:
    """A proof that nobody believes yet; ``DocumentInvalid`` ``proof_malformed``."""
    try:
        strict_json.parse(data, max_size=MAX_PROOF)
        return _DECODER.decode(data)
    except strict_json.UNREADABLE as error:
        raise DocumentInvalid(
            f"this is no proof about a log: {str(error)[:200]}",
            code="proof_malformed",
            field="proof",
            expected=[INCLUSION, CONSISTENCY],
            hint="`adyton audit prove` makes one",
        ) from error


def kind(proof: Proof) -> Literal["inclusion", "consistency"]:
    """In a word."""
    return _KINDS[type(proof)]


def verify_inclusion(proof: InclusionProof, tenant: str, checkpoint: Checkpoint) -> AuditEntry:
    """The row, if it is in the log of this (verified) checkpoint; ``LogBroken`` else."""
    _same_size(proof, checkpoint)
    body = proof.row.encode("utf-8", "surrogatepass")
    merkle.verify_inclusion(
        audit_row.leaf(body), proof.sequence - 1, checkpoint.size, _path(proof.path), checkpoint.root
    )
    entry = audit_row.decode(body)
    if entry.sequence != proof.sequence or entry.tenant != tenant:  # then the log itself was written wrongly
        raise LogBroken(
            "the row says that it is another one",
            code="row_foreign",
            field=f"row {proof.sequence}",
            expected=f"{tenant} {proof.sequence}",
            got=f"{entry.tenant[:80]} {entry.sequence}",
        )
    return entry


def verify_consistency(proof: ConsistencyProof, old: Checkpoint, new: Checkpoint) -> None:
    """The log of the checkpoint ``new`` continues that of ``old``, both verified; ``LogBroken`` else."""
    _same_size(proof, new)
    if proof.old_size != old.size:
        raise _other(proof.old_size, old.size)
    merkle.verify_consistency(old.size, old.root, new.size, new.root, _path(proof.path))


def text_of(path: list[bytes]) -> tuple[str, ...]:
    """A path as a proof holds it."""
    return tuple(b64.encode(item) for item in path)


def _path(path: tuple[str, ...]) -> list[bytes]:
    try:
        return [b64.decode(item) for item in path]
    except ValueError as error:
        raise DocumentInvalid("the path is not base64", code="proof_malformed", field="path") from error


def _same_size(proof: Proof, checkpoint: Checkpoint) -> None:
    if proof.size != checkpoint.size:
        raise _other(proof.size, checkpoint.size)


def _other(of: int, size: int) -> LogBroken:
    return LogBroken(
        "the proof is for another checkpoint",
        code="proof_for_another_checkpoint",
        field="size",
        expected=size,
        got=of,
        hint="a proof for the checkpoint that you have: adyton audit prove ROW --checkpoint FILE",
    )
