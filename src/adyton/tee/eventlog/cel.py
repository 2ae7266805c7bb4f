"""Canonical event logs in TLV form, as Google's Confidential Space writes them (TCG CEL 1.0, section 5.1; evidence 7.1).

A record is three TLVs, each a type byte and a big-endian length of four bytes: number (0), measurement register
(1: PCR; 0x6C: index of a CC register), digests (3: TLVs of TCG algorithm and digest), then the content. The digest is over
the whole content TLV, type and length included, so content is covered; the record's number is not.
"""

from __future__ import annotations

import struct
from hmac import compare_digest
from typing import Final, NamedTuple

from adyton.errors import EvidenceError, MalformedEvidence, UnsupportedEvidence
from adyton.tee.eventlog.banks import BY_ID, Bank

MAX_SIZE: Final = 4 * 1024 * 1024
COS_CONTENT: Final = 80
PCR_INDEX: Final = 0x01
CC_INDEX: Final = 0x6C
SPEC = "TCG CEL 1.0 5.1; evidence 7.1"
_TLV = struct.Struct(">BI")
_NUMBER, _DIGESTS = 0x00, 0x03
# Confidential Space's events, by the type byte of the TLV in the content
COS_EVENTS = {
    0: "image_reference",
    1: "image_digest",
    2: "restart_policy",
    3: "image_id",
    4: "argument",
    5: "environment_variable",
    6: "override_argument",
    7: "override_environment_variable",
    8: "launch_separator",
    9: "memory_monitor",
    10: "gpu_cc_mode",
}


class Record(NamedTuple):
    """One record. ``index_kind`` says of what ``register`` is the number; ``content``: the whole TLV that the digests are over."""

    number: int
    index_kind: int
    register: int
    digests: dict[Bank, bytes]
    content: bytes

    @property
    def kind(self) -> int:
        """The type byte of the content."""
        return self.content[0]

    @property
    def event(self) -> tuple[str, bytes]:
        """Name and value of a Confidential Space event; a number for the name where it has none. ``ValueError`` for others."""
        if self.kind != COS_CONTENT:
            raise ValueError("no event of Confidential Space")
        kind, value, end = _tlv(self.content, _TLV.size, len(self.content))
        if end != len(self.content):
            raise ValueError("an event of Confidential Space that is not one TLV")
        return COS_EVENTS.get(kind, str(kind)), value


def parse(data: bytes) -> list[Record]:
    """Read a log; records count from 0 without a gap. ``MalformedEvidence`` for anything else."""
    if len(data) > MAX_SIZE:
        raise _malformed(f"larger than {MAX_SIZE} bytes", "cel", len(data))
    records: list[Record] = []
    offset = 0
    while offset < len(data):
        field = f"record {len(records)}"
        try:
            record, offset = _record(data, offset)
        except (struct.error, ValueError) as error:
            raise _malformed(str(error), field, None) from error
        if record.number != len(records):
            raise _malformed("its number is not the next one", field, record.number)
        records.append(record)
    return records


def check_content(records: list[Record], *, tee: str) -> None:
    """Every digest is that of its record's content, or ``EvidenceError`` ``event_data_digest_mismatch``."""
    for record in records:
        for bank, digest in record.digests.items():
            got = bank.new(record.content).digest()
            if not compare_digest(got, digest):
                raise EvidenceError(
                    f"event log: the content of record {record.number} is not what was measured",
                    code="event_data_digest_mismatch",
                    tee=tee,
                    field=f"record {record.number}",
                    expected=digest,
                    got=got,
                    spec=SPEC,
                )


def replay(records: list[Record], bank: Bank, *, index_kind: int = CC_INDEX) -> dict[int, bytes]:
    """Index -> value of each register that a record of this kind of index extends; registers start at zero."""
    values: dict[int, bytes] = {}
    zero = bytes(bank.size)
    for record in records:
        if record.index_kind != index_kind:
            continue
        digest = record.digests.get(bank)
        if digest is None:
            raise UnsupportedEvidence(
                f"record {record.number} of the event log has no digest of this bank",
                code="event_log_bank",
                field=f"record {record.number}",
                expected=bank.name,
                got=[own.name for own in record.digests],
                spec=SPEC,
            )
        values[record.register] = bank.new(values.get(record.register, zero) + digest).digest()
    return values


def _record(data: bytes, offset: int) -> tuple[Record, int]:
    kind, number, offset = _tlv(data, offset, len(data))
    if kind != _NUMBER or len(number) != 8:
        raise ValueError("a record does not begin with its number")
    index_kind, index, offset = _tlv(data, offset, len(data))
    if index_kind not in (PCR_INDEX, CC_INDEX) or len(index) != 1:
        raise ValueError("a record without a measurement register")
    kind, listed, offset = _tlv(data, offset, len(data))
    if kind != _DIGESTS:
        raise ValueError("a record without digests")
    begin = offset
    _, _, offset = _tlv(data, offset, len(data))
    return Record(int.from_bytes(number, "big"), index_kind, index[0], _digests(listed), data[begin:offset]), offset


def _digests(listed: bytes) -> dict[Bank, bytes]:
    found: dict[Bank, bytes] = {}
    offset = 0
    while offset < len(listed):
        identifier, digest, offset = _tlv(listed, offset, len(listed))
        bank = BY_ID.get(identifier)
        if bank is None or len(digest) != bank.size or bank in found:
            raise ValueError("a digest of an unknown algorithm, of another length, or twice")
        found[bank] = digest
    if not found:
        raise ValueError("a record without a digest")
    return found


def _tlv(data: bytes, offset: int, limit: int) -> tuple[int, bytes, int]:
    kind, size = _TLV.unpack_from(data, offset)
    begin = offset + _TLV.size
    end = begin + size
    if end > limit:
        raise ValueError("a value is longer than what holds it")
    return kind, data[begin:end], end


def _malformed(message: str, field: str, got: object) -> MalformedEvidence:
    return MalformedEvidence(
        f"canonical event log: {message}", code="event_log_malformed", field=field, got=got, spec=SPEC
    )
