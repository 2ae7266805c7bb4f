"""TCG event logs: SHA-1 only (TCG 1.2) and crypto-agile (Spec ID Event03), which CC event logs of TDX and CSV are too.

PC Client Platform Firmware Profile 1.06, sections 10.2 and 10.4.5; UEFI 2.10 section 38.4 (evidence 7.1). Little-endian.
Nothing here is believed: of an event its register and its digests are covered by a quote, its type and data are not.

A log ends where its bytes end, or where eight or more bytes FF or 00 fill the rest; that fill is kept apart as ``tail``,
so that ``raw + tail`` is what was given. Events are rows of plain tuples until somebody asks for more: replaying a log
costs little besides its hashing.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from enum import Enum
from functools import lru_cache
from itertools import accumulate
from operator import sub
from typing import Any, NamedTuple, TypeAlias

from adyton.errors import MalformedEvidence
from adyton.tee.eventlog import kinds
from adyton.tee.eventlog.banks import BY_ID, SHA1, SHA384, SM3, Bank

MAX_SIZE = 16 * 1024 * 1024  # bytes; a firmware's log area has 64 KiB to a few MiB
MAX_EVENTS = 200_000
TPM_REGISTERS = 24
CC_REGISTERS = 5  # index 0 is the TEE's launch measurement, 1 to 4 are its run-time registers
SPEC = "TCG PFP 1.06 10.2; evidence 7.1"

_FIRST = struct.Struct("<II20sI")  # register, type, SHA-1, size of data
_HEAD = struct.Struct("<III")  # register, type, number of digests
_U16 = struct.Struct("<H")
_U32 = struct.Struct("<I")
_SPEC_ID = b"Spec ID Event03\0"
_LOCALITY = b"StartupLocality\0"
_NO_COLUMNS: list[tuple[Any, ...]] = [(), (), (), (), (), ()]
_END = 8  # bytes of fill that end a log
# What Confidential Containers puts before its own events where the firmware keeps no log: no signature, two banks
_COCO_HEADER = bytes.fromhex("0000000003000000" + "00" * 20 + "25000000" + "00" * 24 + "020000000c0030001200200000")

Row: TypeAlias = tuple[int, int, tuple[bytes | None, ...], int, int]
"""Register, type, digests in the order of the log's banks, where the data begins, where it ends."""


class Format(Enum):
    """How events are written."""

    TCG_1_2 = "TCG 1.2 (SHA-1)"
    CRYPTO_AGILE = "crypto-agile"


class Event(NamedTuple):
    """One event, for whoever looks at single ones. ``number`` counts from 0, the header of a crypto-agile log not."""

    number: int
    register: int
    kind: int
    digests: dict[str, bytes]
    data: bytes


class EventLog:
    """A parsed log. ``banks``: what its header names; ``rows``: its events, the header's own event not among them.

    ``locality``: the startup locality that PCR 0 begins with, ``None`` if no event says.
    """

    __slots__ = ("_begin", "_columns", "_rows", "banks", "data", "end", "format", "locality")

    def __init__(
        self,
        data: bytes,
        end: int,
        form: Format,
        banks: tuple[Bank, ...],
        *,
        begin: int = 0,
        columns: list[tuple[Any, ...]] | None = None,
        rows: list[Row] | None = None,
    ) -> None:
        """``columns``: what ``_layout`` unpacks, event after event from ``begin`` on without a gap; else ``rows``."""
        self.data = data
        self.end = end
        self.format = form
        self.banks = banks
        self.locality: int | None = None
        self._begin = begin
        self._columns = columns
        self._rows = rows

    @classmethod
    def parse(cls, data: bytes, *, registers: int = TPM_REGISTERS) -> EventLog:
        """Read a log of either format, or ``MalformedEvidence``. An extending event beyond ``registers`` is malformed."""
        if len(data) > MAX_SIZE:
            raise malformed(f"larger than {MAX_SIZE} bytes", field="event_log", got=len(data))
        if len(data) < _FIRST.size:
            raise malformed("shorter than its first event", field="event_log", got=len(data))
        _, kind, digest, size = _FIRST.unpack_from(data)
        begin = _FIRST.size
        end = begin + size
        if end > len(data):
            raise malformed("the first event is longer than the log", field="event 0", got=size)
        if kind == kinds.NO_ACTION and not any(digest) and _is_agile(data, begin, end):
            banks = (SHA384, SM3) if data.startswith(_COCO_HEADER) else _banks(data[begin:end])
            log = _agile(data, end, banks)
        else:
            log = _sha1_only(data)
        if len(log) > MAX_EVENTS:
            raise malformed(f"more than {MAX_EVENTS} events", field="event_log", got=len(log))
        if log.needs_a_look(registers):
            log.locality = _check(data, log.rows, registers)
        return log

    @property
    def raw(self) -> bytes:
        """The events, without the fill."""
        return self.data[: self.end]

    @property
    def tail(self) -> bytes:
        """The fill after the last event; not looked at."""
        return self.data[self.end :]

    @property
    def rows(self) -> list[Row]:
        """Every event as a row; made on first use."""
        if self._rows is None:
            registers, kinds_, _, *digests, sizes = self._columns or _NO_COLUMNS
            head = _layout(self.banks)[0].size
            ends = list(accumulate((head + size for size in sizes), initial=self._begin))[1:]
            begins = map(sub, ends, sizes)
            self._rows = list(zip(registers, kinds_, zip(*digests[1::2], strict=True), begins, ends, strict=True))
        return self._rows

    def __len__(self) -> int:
        return len(self._columns[0] if self._columns is not None else self.rows)

    def counts(self) -> dict[int, int]:
        """Register -> how many events extend it."""
        if self._columns is not None and not self.has(kinds.NO_ACTION):
            return dict(Counter(self._columns[0]))
        return dict(Counter([row[0] for row in self.rows if row[1] != kinds.NO_ACTION]))

    def has(self, kind: int) -> bool:
        """Whether some event is of this type."""
        return kind in (self._columns[1] if self._columns is not None else [row[1] for row in self.rows])

    def touches(self, register: int) -> bool:
        """Whether some event is about this register."""
        return register in (self._columns[0] if self._columns is not None else [row[0] for row in self.rows])

    def needs_a_look(self, registers: int) -> bool:
        """Whether some event is about a register from ``registers`` up, or extends none at all."""
        if self._columns is not None:
            return kinds.NO_ACTION in self._columns[1] or max(self._columns[0]) >= registers
        return any(row[1] == kinds.NO_ACTION or row[0] >= registers for row in self.rows)

    def extends(self, position: int) -> Iterable[tuple[int, bytes | None]]:
        """Register and digest of the bank at ``position`` of every event that extends."""
        if self._columns is not None and not self.has(kinds.NO_ACTION):
            return zip(self._columns[0], self._columns[4 + 2 * position], strict=True)
        return [(row[0], row[2][position]) for row in self.rows if row[1] != kinds.NO_ACTION]

    def position(self, bank: Bank) -> int | None:
        """Where ``bank``'s digest stands in a row; ``None`` if the log lacks that bank."""
        for position, own in enumerate(self.banks):
            if own.identifier == bank.identifier:
                return position
        return None

    def events(self) -> Iterator[Event]:
        """Every event as an object."""
        names = [bank.name for bank in self.banks]
        for number, (register, kind, digests, begin, end) in enumerate(self.rows):
            present = {name: value for name, value in zip(names, digests, strict=True) if value is not None}
            yield Event(number, register, kind, present, self.data[begin:end])

    def data_of(self, number: int) -> bytes:
        """The data of event ``number``."""
        row = self.rows[number]
        return self.data[row[3] : row[4]]


def malformed(message: str, *, field: str, expected: object = None, got: object = None) -> MalformedEvidence:
    """The error of a log that cannot be read."""
    return MalformedEvidence(
        f"event log: {message}", code="event_log_malformed", field=field, expected=expected, got=got, spec=SPEC
    )


def _is_agile(data: bytes, begin: int, end: int) -> bool:
    return data.startswith(_SPEC_ID, begin) or (end == len(_COCO_HEADER) and data.startswith(_COCO_HEADER))


@lru_cache(maxsize=64)  # a header is the same at every boot
def _banks(body: bytes) -> tuple[Bank, ...]:
    """The algorithms of TCG_EfiSpecIDEvent: signature 16, class 4, version 3, word size 1, count 4, {id 2, size 2}."""
    field = "event 0"
    try:
        (count,) = _U32.unpack_from(body, 24)
        if not 1 <= count <= len(BY_ID):
            raise malformed("a number of algorithms that no TPM has", field=field, got=count)
        banks = []
        for number in range(count):
            identifier, size = struct.unpack_from("<HH", body, 28 + 4 * number)
            bank = BY_ID.get(identifier)
            if bank is None or bank.size != size or bank in banks:
                raise malformed(
                    "an algorithm that is unknown, has another size or comes twice", field=field, got=hex(identifier)
                )
            banks.append(bank)
        vendor = 28 + 4 * count
        if vendor + 1 + body[vendor] != len(body):
            raise malformed("its header is not as long as it says", field=field, got=len(body))
    except (struct.error, IndexError):
        raise malformed("its header is cut off", field=field, got=len(body)) from None
    return tuple(banks)


@lru_cache(maxsize=64)
def _layout(banks: tuple[Bank, ...]) -> tuple[struct.Struct, tuple[int, ...]]:
    """An event that has every bank's digest, in the header's order: which is how nearly every event is."""
    fields = "".join(f"H{bank.size}s" for bank in banks)
    return struct.Struct(f"<III{fields}I"), tuple(bank.identifier for bank in banks)


def _agile(data: bytes, begin: int, banks: tuple[Bank, ...]) -> EventLog:
    """Read on as if every event had every digest in the header's order; if one has not, read again, event by event."""
    layout, identifiers = _layout(banks)
    unpack, size, count, total = layout.unpack_from, layout.size, len(banks), len(data)
    plain: list[tuple[Any, ...]] = []
    keep = plain.append
    offset, last = begin, total - size
    while offset <= last:
        row = unpack(data, offset)
        if row[2] != count:
            break
        offset += size + row[-1]
        keep(row)
    events = len(plain)
    columns = list(zip(*plain))  # noqa: B905 -- rows of one layout
    if all(column.count(own) == events for column, own in zip(columns[3:-1:2], identifiers, strict=False)):
        if offset > total:
            raise malformed("an event is longer than the log", field=f"event {len(plain) - 1}", got=plain[-1][-1])
        if plain and (offset == total or _is_fill(data, offset, _fills(data))):
            return EventLog(data, offset, Format.CRYPTO_AGILE, banks, begin=begin, columns=columns)
    rows: list[Row] = []
    offset, fills = begin, _fills(data)
    while offset < total and not _is_fill(data, offset, fills):
        rows.append(_other(data, offset, banks, len(rows)))
        offset = rows[-1][4]
    return EventLog(data, offset, Format.CRYPTO_AGILE, banks, rows=rows)


def _other(data: bytes, offset: int, banks: tuple[Bank, ...], number: int) -> Row:
    """One event, which may have fewer digests than the header names, or have them in another order."""
    field = f"event {number}"
    try:
        register, kind, count = _HEAD.unpack_from(data, offset)
        offset += _HEAD.size
        if not 1 <= count <= len(banks):
            raise malformed("a number of digests that its header does not name", field=field, got=count)
        found: dict[int, bytes] = {}
        sizes = {bank.identifier: bank.size for bank in banks}
        for _ in range(count):
            (identifier,) = _U16.unpack_from(data, offset)
            size = sizes.get(identifier)
            if size is None or identifier in found:
                raise malformed("a digest that its header does not name, or twice", field=field, got=hex(identifier))
            begin = offset + _U16.size
            offset = begin + size
            found[identifier] = data[begin:offset]
        (size,) = _U32.unpack_from(data, offset)
    except struct.error:
        raise malformed("an event is cut off", field=field) from None
    begin = offset + _U32.size
    end = begin + size
    if end > len(data):
        raise malformed("an event is longer than the log", field=field, got=size)
    return register, kind, tuple(found.get(bank.identifier) for bank in banks), begin, end


def _sha1_only(data: bytes) -> EventLog:
    unpack, size, total = _FIRST.unpack_from, _FIRST.size, len(data)
    rows: list[Row] = []
    offset, fills = 0, _fills(data)
    while offset < total:
        if _is_fill(data, offset, fills):
            break
        if offset + size > total:
            raise malformed("an event is cut off", field=f"event {len(rows)}")
        register, kind, digest, length = unpack(data, offset)
        begin = offset + size
        offset = begin + length
        if offset > total:
            raise malformed("an event is longer than the log", field=f"event {len(rows)}", got=length)
        rows.append((register, kind, (digest,), begin, offset))
    return EventLog(data, offset, Format.TCG_1_2, (SHA1,), rows=rows)


def _fills(data: bytes) -> dict[bytes, int]:
    """How a fill begins -> from where on there is nothing else; found once, as a stranger's log may ask at each event."""
    return {byte * _END: len(data.rstrip(byte)) for byte in (b"\0", b"\xff")}


def _is_fill(data: bytes, offset: int, fills: dict[bytes, int]) -> bool:
    """Whether nothing but FF or nothing but 00 follows, eight bytes of it at least."""
    return offset >= fills.get(data[offset : offset + _END], len(data))


def _check(data: bytes, rows: list[Row], registers: int) -> int | None:
    """Registers exist. Returns the startup locality (PFP 1.06, 10.4.5.3): one EV_NO_ACTION in PCR 0, of 0, 3 or 4.

    It stands before anything is extended there.
    """
    locality = None
    extended = False
    for row in rows:
        if row[1] != kinds.NO_ACTION:
            if row[0] == 0:
                extended = True
            elif row[0] >= registers:
                number = rows.index(row)
                raise malformed(
                    "a register that does not exist", field=f"event {number}", expected=f"below {registers}", got=row[0]
                )
        elif row[0] == 0 and data.startswith(_LOCALITY, row[3], row[4]):
            begin, end = row[3:]
            if extended or locality is not None or end - begin != len(_LOCALITY) + 1 or data[end - 1] not in (0, 3, 4):
                raise malformed(
                    "a startup locality that is late, repeated or none",
                    field=f"event {rows.index(row)}",
                    expected="0, 3 or 4",
                )
            locality = data[end - 1]
    return locality
