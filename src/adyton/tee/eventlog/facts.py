"""What may be claimed from a log's event data, and what a log must look like for it (evidence 7.3).

A quote covers register, digest and order of events; types and data are free text. So data counts only where the
specification says that the digest is its hash, and is; and a claim needs the sequence around it, because a label can be
put on any event. Learnt from go-attestation's event-log disclosure: an attacker relabels the real event, extends one of
his own, and a reader that skips what it does not know takes the forged one.

Secure Boot is read from PCR 7, before the separator, which firmware alone writes: everything there must be covered by its
digest, and a separator's digest under another label counts as one. CC event logs give no such claim: there boot
variables, whose content anybody with root may choose, are extended into the same register.
"""

from __future__ import annotations

from collections.abc import Iterable
from hmac import compare_digest
from typing import NamedTuple

from adyton.errors import EvidenceError
from adyton.rats.types import JsonValue
from adyton.tee.eventlog import kinds, tagged, variables
from adyton.tee.eventlog.banks import SHA256, Bank
from adyton.tee.eventlog.log import EventLog, Row
from adyton.tee.eventlog.variables import GLOBAL_VARIABLE, IMAGE_SECURITY_DATABASE, Variable

SPEC = "evidence 7.3"
SECURE_BOOT_PCR = 7
FIRMWARE_PCRS = range(8)
_SEPARATORS = (bytes(4), b"\xff" * 4)
_KEYS = {
    "PK": GLOBAL_VARIABLE,
    "KEK": GLOBAL_VARIABLE,
    "db": IMAGE_SECURITY_DATABASE,
    "dbx": IMAGE_SECURITY_DATABASE,
}


class Facts(NamedTuple):
    """Claims, and why some could not be made (register and reason)."""

    claims: dict[str, JsonValue]
    problems: tuple[str, ...]


def check_data(
    log: EventLog,
    bank: Bank,
    *,
    tee: str,
    registers: Iterable[int] | None = None,
    kinds_of: Iterable[int] | None = None,
) -> None:
    """Of every event whose type says that its data is hashed, the digest is that hash.

    ``registers``: the quoted ones, ``None`` for all; ``kinds_of``: the types, those of ``kinds.DATA_IS_MEASURED`` unless
    said otherwise. Raises ``EvidenceError`` ``event_data_digest_mismatch`` that names event and register.
    """
    position = log.position(bank)
    wanted = frozenset(registers) if registers is not None else None
    measured = kinds.DATA_IS_MEASURED if kinds_of is None else frozenset(kinds_of)
    data, new = log.data, bank.new
    for number, (register, kind, digests, begin, end) in enumerate(log.rows):
        if kind not in measured or (wanted is not None and register not in wanted):
            continue
        digest = digests[position] if position is not None else None
        got = new(data[begin:end]).digest()
        if digest is None or not compare_digest(digest, got):
            raise EvidenceError(
                f"event log: the data of event {number} is not what was measured",
                code="event_data_digest_mismatch",
                tee=tee,
                field=f"event {number}, {kinds.name(kind)}, register {register}",
                expected=digest,
                got=got,
                spec=SPEC,
                hint="registers do not protect event data; this event's was rewritten after the boot",
            )


def facts(log: EventLog, bank: Bank, *, quoted: Iterable[int]) -> Facts:
    """Claims from a TPM's log of whose registers ``quoted`` were checked against a quote; others give none.

    ``secure_boot`` (boolean, ``None`` if the log does not show it soundly), ``secure_boot_keys`` (SHA-256 of the variables'
    contents by name), ``separators`` (of PCRs 0 to 7, those that have exactly one), ``application_events`` (not of
    PCRs 0 to 7: what firmware hashes there, boot variables among it, is the host's to choose, and so is the label).
    """
    registers = frozenset(quoted)
    position = log.position(bank)
    claims: dict[str, JsonValue] = {"secure_boot": None, "secure_boot_keys": None, "separators": []}
    problems: list[str] = []
    if position is None:
        return Facts(claims, (f"no digests of bank {bank.name}",))
    marks = {bank.new(value).digest() for value in _SEPARATORS}
    single: list[JsonValue] = []
    for register in FIRMWARE_PCRS:
        if register in registers:
            problem = _separator_problem(log, position, marks, register)
            if problem is None:
                single.append(register)
            else:
                problems.append(f"pcr{register:02d}: {problem}")
    claims["separators"] = single
    if SECURE_BOOT_PCR in single:
        try:
            claims.update(_secure_boot(log, position, bank, marks))
        except ValueError as reason:
            problems.append(f"pcr{SECURE_BOOT_PCR:02d}: {reason}")
    claims["application_events"] = application_events(log, bank, quoted=registers.difference(FIRMWARE_PCRS))
    return Facts(claims, tuple(problems))


def application_events(log: EventLog, bank: Bank, *, quoted: Iterable[int]) -> list[JsonValue]:
    """CoCo's application events (AAEL) whose digest is the hash of their data, in quoted registers, in order."""
    registers = frozenset(quoted)
    position = log.position(bank)
    found: list[JsonValue] = []
    for number, (register, kind, digests, begin, end) in enumerate(log.rows):
        if kind != kinds.EVENT_TAG or register not in registers or position is None:
            continue
        body = log.data[begin:end]
        event = tagged.application_event(body)
        digest = digests[position]
        if event is not None and digest is not None and compare_digest(bank.new(body).digest(), digest):
            found.append(
                {
                    "event": number,
                    "register": register,
                    "domain": event.domain,
                    "operation": event.operation,
                    "content": event.value,
                }
            )
    return found


def _separator_problem(log: EventLog, position: int, marks: set[bytes], register: int) -> str | None:
    count = 0
    for row in log.rows:
        if row[0] != register or row[1] == kinds.NO_ACTION:
            continue
        is_mark = row[2][position] in marks
        if is_mark != (row[1] == kinds.SEPARATOR):
            return "a separator under another label, or a label without one"
        count += is_mark
    return None if count == 1 else f"{count} separators where one belongs"


def _secure_boot(log: EventLog, position: int, bank: Bank, marks: set[bytes]) -> dict[str, JsonValue]:
    """Read what firmware wrote into PCR 7 before the separator; ``ValueError`` if it is not covered or not clear."""
    found: dict[str, Variable] = {}
    for row in log.rows:
        if row[0] != SECURE_BOOT_PCR or row[1] == kinds.NO_ACTION:
            continue
        if row[2][position] in marks:
            break
        _check_covered(log, row, position, bank)
        if row[1] == kinds.EFI_VARIABLE_DRIVER_CONFIG:
            variable = variables.variable(log.data[row[3] : row[4]])
            vendor = GLOBAL_VARIABLE if variable.name == "SecureBoot" else _KEYS.get(variable.name)
            if vendor == variable.vendor:
                if variable.name in found:
                    raise ValueError("a Secure Boot variable twice")
                found[variable.name] = variable
    state = found.pop("SecureBoot", None)
    if state is None or state.content not in (b"", b"\0", b"\1"):
        raise ValueError("no clear Secure Boot state before the separator")
    keys: dict[str, JsonValue] = {name: SHA256.new(item.content).digest().hex() for name, item in found.items()}
    return {"secure_boot": state.content == b"\1", "secure_boot_keys": keys}


def _check_covered(log: EventLog, row: Row, position: int, bank: Bank) -> None:
    if row[1] not in {kinds.EFI_VARIABLE_DRIVER_CONFIG, kinds.EFI_VARIABLE_AUTHORITY, kinds.EFI_ACTION}:
        raise ValueError(f"an event of type {kinds.name(row[1])}, which does not belong there")
    if bank.new(log.data[row[3] : row[4]]).digest() != row[2][position]:
        raise ValueError("an event whose data is not what was measured")
