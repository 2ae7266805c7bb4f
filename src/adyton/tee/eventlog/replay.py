"""Replaying an event log: which values the registers must have if the log is true; and where it differs if they do not.

R := start, then R := H(R || digest) for every event but EV_NO_ACTION (evidence 7.2). PCRs 0 to 16 and 23 start at zero, PCR 0
at the startup locality that the log tells (4 where an H-CRTM event comes first), PCRs 17 to 22 at FF..FF, or at zero
once a dynamic launch has reset them. What replay protects is register and digest of each event and their order;
never an event's type, and its data only where ``facts`` says so.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from hmac import compare_digest
from typing import NamedTuple

from adyton.errors import EvidenceError, MalformedEvidence, UnsupportedEvidence
from adyton.tee.eventlog import kinds
from adyton.tee.eventlog.banks import Bank
from adyton.tee.eventlog.log import TPM_REGISTERS, EventLog

SPEC = "evidence 7.2"
DYNAMIC = range(17, 23)  # registers that a dynamic launch resets
_H_CRTM_LOCALITY = 4
_MAX_OMISSIONS = 256  # events of one register up to which a missing one is searched for


class Difference(NamedTuple):
    """Where a log and a register part. ``event``: its number in the log; ``None`` if no single event can be named."""

    register: int
    event: int | None
    reason: str
    expected: bytes
    got: bytes


def start(register: int, bank: Bank, *, locality: int = 0) -> bytes:
    """What a PCR holds after power-on, before anything is extended into it."""
    if register in DYNAMIC:
        return b"\xff" * bank.size
    return (locality if register == 0 else 0).to_bytes(bank.size, "big")


def extend(bank: Bank, value: bytes, digest: bytes) -> bytes:
    """One step: H(value || digest)."""
    return bank.new(value + digest).digest()


def replay(log: EventLog, bank: Bank, *, dynamic_launch: bool = False) -> dict[int, bytes]:
    """Register -> value for every register that an event extends.

    ``dynamic_launch``: registers 17 to 22 begin at zero. ``UnsupportedEvidence`` if the log lacks the bank,
    ``MalformedEvidence`` if one of its events does.
    """
    position = _position(log, bank)
    new = bank.new
    starts = _starts(bank, startup_locality(log), dynamic_launch)
    values = list(starts)
    try:
        for register, digest in log.extends(position):  # this loop is the whole cost
            values[register] = new(values[register] + digest).digest()  # type: ignore[operator]  # None: below
    except TypeError:
        number = next(i for i, row in enumerate(log.rows) if row[1] != kinds.NO_ACTION and row[2][position] is None)
        raise MalformedEvidence(
            "event log: an event lacks the digest of a bank that its header names",
            code="event_log_malformed",
            field=f"event {number}",
            expected=bank.name,
            spec=SPEC,
        ) from None
    # A register that was extended holds another object than it began with, also if the bytes were the same.
    return {register: value for register, value in enumerate(values) if value is not starts[register]}


@lru_cache(maxsize=64)
def _starts(bank: Bank, locality: int, dynamic_launch: bool) -> tuple[bytes, ...]:
    """Of all registers."""
    return tuple(
        bytes(bank.size) if dynamic_launch and register in DYNAMIC else start(register, bank, locality=locality)
        for register in range(TPM_REGISTERS)
    )


def startup_locality(log: EventLog) -> int:
    """The locality that PCR 0 starts with: as the log tells, 4 where its first extend is an H-CRTM event, else 0."""
    if log.locality is not None:
        return log.locality
    if not log.has(kinds.EFI_HCRTM_EVENT):
        return 0
    for row in log.rows:
        if row[0] == 0 and row[1] != kinds.NO_ACTION:
            return _H_CRTM_LOCALITY if row[1] == kinds.EFI_HCRTM_EVENT else 0
    return 0


def check(
    log: EventLog,
    bank: Bank,
    quoted: Mapping[int, bytes],
    *,
    tee: str,
    required: Collection[int] | None = None,
    name: Callable[[int], str] = "pcr{:02d}".format,
) -> dict[int, int]:
    """The log leads to the quoted values; returns how many events extend each register that it reaches.

    A register that the log does not reach must hold its start value if it is in ``required`` (``None``: all that are
    quoted); others may hold anything, as somebody else extends them. A register that the log reaches and nobody quoted
    is not looked at. Raises ``EvidenceError`` ``event_log_mismatch`` that names register and event.
    """
    replayed = replay(log, bank)
    for register in quoted:
        value = quoted[register]
        got = replayed.get(register)
        if got is None:
            if required is not None and register not in required:
                continue
            if not compare_digest(value, start(register, bank)) and not (register in DYNAMIC and not any(value)):
                raise _mismatch(
                    Difference(
                        register, None, "is not reached by the log, and was extended", value, start(register, bank)
                    ),
                    tee,
                    name,
                )
        elif not compare_digest(got, value):
            if register in DYNAMIC and compare_digest(replay(log, bank, dynamic_launch=True)[register], value):
                continue
            raise _mismatch(_difference(log, bank, register, value, got), tee, name)
    return log.counts()


def first_difference(log: EventLog, bank: Bank, register: int, quoted: bytes) -> Difference | None:
    """Where the log parts from a quoted value; ``None`` if it does not.

    Sought in this order: the register stopped before the log did; one event is in the log too many. If neither
    explains the value, some event before the last is not the one that was extended, and none can be named.
    """
    got = replay(log, bank).get(register, start(register, bank))
    return None if compare_digest(got, quoted) else _difference(log, bank, register, quoted, got)


def between(log: EventLog, other: EventLog, bank: Bank) -> tuple[int, int] | None:
    """Register, and number in ``log``, of the first event whose digest is not ``other``'s at the same place.

    Compared register by register, as they are extended; ``None`` if every register gets the same events. Where ``log`` ends
    first the number is that of its end.
    """
    ours, theirs = _by_register(log, bank), _by_register(other, bank)
    parted: list[tuple[int, int]] = []
    for register in sorted({*ours, *theirs}):
        mine, wanted = ours.get(register, []), theirs.get(register, [])
        same = 0
        while same < min(len(mine), len(wanted)) and mine[same][1] == wanted[same][1]:
            same += 1
        if same < len(mine):
            parted.append((mine[same][0], register))
        elif same < len(wanted):
            parted.append((len(log), register))
    if not parted:
        return None
    number, register = min(parted)
    return register, number


def _by_register(log: EventLog, bank: Bank) -> dict[int, list[tuple[int, bytes]]]:
    position = _position(log, bank)
    found: dict[int, list[tuple[int, bytes]]] = {}
    for number, row in enumerate(log.rows):
        if row[1] != kinds.NO_ACTION:
            found.setdefault(row[0], []).append((number, row[2][position] or b""))
    return found


def _position(log: EventLog, bank: Bank) -> int:
    position = log.position(bank)
    if position is None:
        raise UnsupportedEvidence(
            "the event log has no digests of the bank that was quoted",
            code="event_log_bank",
            field="event_log",
            expected=bank.name,
            got=[own.name for own in log.banks],
            spec=SPEC,
        )
    return position


def _difference(log: EventLog, bank: Bank, register: int, quoted: bytes, got: bytes) -> Difference:
    events = _by_register(log, bank)[register]
    value = start(register, bank, locality=startup_locality(log) if register == 0 else 0)
    values = [value]
    for number, digest in events:
        if compare_digest(value, quoted):
            return Difference(register, number, "is in the log and was not extended, nor any later one", quoted, got)
        value = extend(bank, value, digest)
        values.append(value)
    for left_out in range(len(events) if len(events) <= _MAX_OMISSIONS else 0):
        value = values[left_out]
        for _, digest in events[left_out + 1 :]:
            value = extend(bank, value, digest)
        if compare_digest(value, quoted):
            return Difference(register, events[left_out][0], "is in the log and was not extended", quoted, got)
    return Difference(register, None, "has a value that no part of the log leads to", quoted, got)


def _mismatch(difference: Difference, tee: str, name: Callable[[int], str]) -> EvidenceError:
    register, event, reason, quoted, got = difference
    where = name(register)
    return EvidenceError(
        f"event log: {where} {reason}" if event is None else f"event log: event {event} of {where} {reason}",
        code="event_log_mismatch",
        tee=tee,
        field=where if event is None else f"{where}, event {event}",
        expected=quoted,
        got=got,
        spec=SPEC,
        hint="the log was changed, cut or belongs to another boot; what the quote signs is the register, not the log",
    )
