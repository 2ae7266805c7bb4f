"""CC event logs: the ACPI table that says where one lies, and which of its indices is which register.

UEFI 2.10 section 38.4.1 and ACPI's CCEL table. Index 0 is the launch measurement (MRTD), which nothing extends; 1 to 4 are
RTMR0 to RTMR3. A log is ``EventLog.parse(data, registers=CC_REGISTERS)``: ``parse`` here does that.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from adyton.errors import MalformedEvidence
from adyton.tee.eventlog import replay as replaying
from adyton.tee.eventlog.banks import SHA384, Bank
from adyton.tee.eventlog.kinds import NO_ACTION
from adyton.tee.eventlog.log import CC_REGISTERS, EventLog, malformed

RTMRS = 4
SPEC = "UEFI 2.10 38.4.1; evidence 7.1"
_TABLE = struct.Struct("<4sIBB6s8sI4sIBBHQQ")  # the ACPI header, then type, subtype, reserved, length, address
CC_TYPES = {1: "sev", 2: "tdx"}


class CcelTable(NamedTuple):
    """What the table says. ``minimum_length``: bytes of the log area; ``address``: where it begins in memory."""

    revision: int
    oem_id: bytes
    oem_table_id: bytes
    cc_type: int
    cc_subtype: int
    minimum_length: int
    address: int


def parse_table(table: bytes) -> CcelTable:
    """Read the ACPI table ``CCEL``, 56 bytes whose sum is zero; anything else is ``MalformedEvidence``."""
    if len(table) != _TABLE.size:
        raise _bad_table("is not 56 bytes long", len(table))
    signature, length, revision, _, oem, oem_table, _, _, _, cc_type, subtype, _, minimum, address = _TABLE.unpack(
        table
    )
    if signature != b"CCEL" or length != _TABLE.size:
        raise _bad_table("has another signature or length", signature)
    if sum(table) & 0xFF:
        raise _bad_table("has a wrong checksum", sum(table) & 0xFF)
    return CcelTable(revision, oem, oem_table, cc_type, subtype, minimum, address)


def parse(data: bytes) -> EventLog:
    """Read a CC event log; no event but EV_NO_ACTION may be about index 0."""
    log = EventLog.parse(data, registers=CC_REGISTERS)
    for number, row in enumerate(log.rows if log.touches(0) else ()):
        if row[0] == 0 and row[1] != NO_ACTION:
            raise malformed("extends the launch measurement", field=f"event {number}", expected="index 1 to 4", got=0)
    return log


def rtmrs(log: EventLog, bank: Bank = SHA384) -> tuple[bytes, ...]:
    """RTMR0 to RTMR3 as the log says."""
    values = replaying.replay(log, bank)
    zero = bytes(bank.size)
    return tuple([values.get(index, zero) for index in range(1, RTMRS + 1)])


def check_rtmrs(log: EventLog, quoted: Sequence[bytes], *, tee: str, bank: Bank = SHA384) -> tuple[int, ...]:
    """The log leads to all of RTMR0 to RTMR3, also those without events; returns how many events each has.

    ``EvidenceError`` ``event_log_mismatch`` names register (``rtmr2``) and event.
    """
    if len(quoted) != RTMRS:
        raise ValueError("there are four run-time registers")
    counts = replaying.check(log, bank, dict(enumerate(quoted, 1)), tee=tee, name=lambda index: f"rtmr{index - 1}")
    return tuple([counts.get(index, 0) for index in range(1, RTMRS + 1)])


def _bad_table(reason: str, got: object) -> MalformedEvidence:
    return MalformedEvidence(f"the CCEL table {reason}", code="ccel_table", field="ccel_table", got=got, spec=SPEC)
