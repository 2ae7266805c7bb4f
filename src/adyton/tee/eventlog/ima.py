"""Measurement lists of Linux's IMA, ASCII and binary: template hashes recomputed, PCR 10 replayed (evidence 7.1).

The kernel's ``security/integrity/ima/ima_template_lib.c`` and Documentation/security/IMA-templates. An entry is PCR, SHA-1 of
the template data, template's name, template data. The SHA-1 bank is extended with that hash; other banks with their own hash
of the same template data, or, in kernels before 5.8, with the SHA-1 padded with zeros. A violation has an
all-zero hash and extends FF..FF.
"""

from __future__ import annotations

import binascii
import struct
from collections.abc import Callable, Iterator
from hmac import compare_digest
from typing import Final, NamedTuple

from adyton.errors import EvidenceError, MalformedEvidence
from adyton.tee.eventlog.banks import SHA1, Bank

MAX_SIZE: Final = 32 * 1024 * 1024
MAX_ENTRIES: Final = 500_000
IMA_PCR: Final = 10
SPEC = "Linux IMA-templates; evidence 7.1"
_ZERO = bytes(SHA1.size)
_U32 = struct.Struct("<I")
_HEAD = struct.Struct("<I20sI")  # PCR, template hash, length of the template's name
_MAX_NAME = 255
_IMA_FIELD = 256  # of the oldest template, "ima": the file's name is hashed in this length
TEMPLATES: Final = ("ima", "ima-ng", "ima-sig", "ima-buf", "ima-modsig", "ima-ngv2", "ima-sigv2")


class Entry(NamedTuple):
    """One entry. ``data``: the template data as it is hashed, ``None`` where ASCII does not give it back."""

    pcr: int
    template_hash: bytes
    template: str
    data: bytes | None
    path: str

    @property
    def violation(self) -> bool:
        """Whether the kernel noted that it could not measure."""
        return self.template_hash == _ZERO


def parse(data: bytes) -> list[Entry]:
    """Read a list of either form, told apart by its first byte: ASCII begins with a digit, binary with a PCR below 32."""
    if len(data) > MAX_SIZE:
        raise _malformed(f"larger than {MAX_SIZE} bytes", 0)
    if not data:
        return []
    return _ascii(data) if data[:1].isdigit() else _binary(data)


def check_templates(entries: list[Entry], *, tee: str) -> int:
    """Every template hash is that of its data; returns how many were recomputed. Violations have none.

    ``EvidenceError`` ``event_data_digest_mismatch`` names the first entry that differs.
    """
    count = 0
    for number, entry in enumerate(entries):
        if entry.violation or entry.data is None:
            continue
        got = SHA1.new(entry.data).digest()
        if got != entry.template_hash:
            raise EvidenceError(
                f"IMA: the template data of entry {number} is not what was measured",
                code="event_data_digest_mismatch",
                tee=tee,
                field=f"entry {number}",
                expected=entry.template_hash,
                got=got,
                spec=SPEC,
            )
        count += 1
    return count


def replay(entries: list[Entry], bank: Bank, *, padded: bool = False) -> dict[int, bytes]:
    """PCR -> value. ``padded``: other banks than SHA-1 were extended with the SHA-1 hash and zeros (before Linux 5.8).

    ``MalformedEvidence`` if a bank is asked for that needs template data which an entry lacks.
    """
    values: dict[int, bytes] = {}
    new, start = bank.new, bytes(bank.size)
    for pcr, step in _steps(entries, bank, padded=padded):
        values[pcr] = new(values.get(pcr, start) + step).digest()
    return values


def check(entries: list[Entry], bank: Bank, quoted: bytes, *, tee: str) -> int:
    """The list leads to a quoted PCR 10, in the way of new kernels or of old ones; returns how many entries it took.

    A list is read while the kernel adds to it: entries after the quote are no fault, so any beginning of the list will do
    (an empty one only where nothing was measured). Else ``EvidenceError`` ``ima_mismatch``.
    """
    ways = (True,) if any(entry.data is None for entry in entries) else (False, True)
    for padded in ways:
        value, new = bytes(bank.size), bank.new
        if not entries and compare_digest(value, quoted):
            return 0
        for number, (pcr, step) in enumerate(_steps(entries, bank, padded=padded), 1):
            if pcr == IMA_PCR:
                value = new(value + step).digest()
                if value == quoted:
                    return number
    raise EvidenceError(
        "IMA: no beginning of the list leads to the quoted PCR 10",
        code="ima_mismatch",
        tee=tee,
        field=f"pcr{IMA_PCR}",
        expected=quoted,
        got=value,
        spec=SPEC,
        hint="the list was changed, cut before the quote, or belongs to another boot",
    )


def _steps(entries: list[Entry], bank: Bank, *, padded: bool) -> Iterator[tuple[int, bytes]]:
    """PCR, and what it was extended with, entry by entry."""
    new, size = bank.new, bank.size
    violation = b"\xff" * size
    sha1 = bank.identifier == SHA1.identifier
    for number, (pcr, digest, _, data, _) in enumerate(entries):
        if digest == _ZERO:
            yield pcr, violation
        elif sha1:
            yield pcr, digest
        elif padded:
            yield pcr, digest.ljust(size, b"\0")
        elif data is not None:
            yield pcr, new(data).digest()
        else:
            raise _malformed("its template is unknown, so other banks cannot be replayed", number)


def _ascii(data: bytes) -> list[Entry]:
    entries: list[Entry] = []
    lines = data.split(b"\n")
    if lines[-1]:
        raise _malformed("the last line is cut off", len(lines) - 1)
    del lines[-1]
    if len(lines) > MAX_ENTRIES:
        raise _malformed(f"more than {MAX_ENTRIES} entries", len(lines))
    for number, line in enumerate(lines):
        parts = line.split(b" ", 3)
        try:
            pcr, digest = int(parts[0]), binascii.unhexlify(parts[1])
            template, rest = parts[2].decode("ascii"), parts[3]
            if not 0 <= pcr < 24 or len(parts[0]) > 2 or len(digest) != SHA1.size:
                raise ValueError("no PCR or no hash")
            reader = _ASCII.get(template)
            body, path = reader(rest) if reader is not None else (None, "")
        except (ValueError, IndexError) as error:
            raise _malformed("a line that cannot be read", number) from error
        entries.append(Entry(pcr, digest, template, body, path))
    return entries


def _binary(data: bytes) -> list[Entry]:
    entries: list[Entry] = []
    offset = 0
    try:
        while offset < len(data):
            if len(entries) == MAX_ENTRIES:
                raise _malformed(f"more than {MAX_ENTRIES} entries", MAX_ENTRIES)
            pcr, digest, size = _HEAD.unpack_from(data, offset)
            begin = offset + _HEAD.size
            offset = begin + size
            if not 0 <= pcr < 24 or size > _MAX_NAME or offset > len(data):
                raise ValueError("no PCR, or no name of a template")
            template = data[begin:offset].decode("ascii")
            if template == "ima":  # which has no length of its own: hash 20, length of the name, name
                (size,) = _U32.unpack_from(data, offset + SHA1.size)
                end = offset + SHA1.size + _U32.size + size
                name = data[offset + SHA1.size + _U32.size : end]
                body = data[offset : offset + SHA1.size] + name.ljust(_IMA_FIELD, b"\0")
                if size > _IMA_FIELD:
                    raise ValueError("a name longer than its template allows")
            else:
                (size,) = _U32.unpack_from(data, offset)
                offset += _U32.size
                end = offset + size
                body = data[offset:end]
                name = _second_field(body)
            if end > len(data):
                raise ValueError("longer than the list")
            offset = end
            entries.append(Entry(pcr, digest, template, body, name.rstrip(b"\0").decode("utf-8", "replace")))
    except (struct.error, ValueError) as error:
        raise _malformed("an entry that cannot be read", len(entries)) from error
    return entries


def _second_field(body: bytes) -> bytes:
    """The name in template data whose first field is the file's digest; empty if there is none."""
    try:
        (size,) = _U32.unpack_from(body)
        (length,) = _U32.unpack_from(body, _U32.size + size)
    except struct.error:
        return b""
    begin = 2 * _U32.size + size
    return body[begin : begin + length]


def _field(value: bytes) -> bytes:
    return _U32.pack(len(value)) + value


def _digest_field(text: bytes) -> bytes:
    """``algorithm:hex`` as it is hashed: the algorithm with a colon and a NUL, then the digest. ``ima-ngv2`` has a type before."""
    algorithm, _, value = text.rpartition(b":")
    if not algorithm or not value:
        raise ValueError("no digest")
    return algorithm + b":\0" + binascii.unhexlify(value)


def _ng(rest: bytes) -> tuple[bytes, str]:
    digest, _, path = rest.partition(b" ")
    return _field(_digest_field(digest)) + _field(path + b"\0"), path.decode("utf-8", "replace")


def _sig(rest: bytes) -> tuple[bytes, str]:
    """As ``ima-ng`` with a signature in hex, which may be empty, at the end: a name may hold spaces, hex holds none."""
    digest, _, tail = rest.partition(b" ")
    path, _, last = tail.rpartition(b" ")
    if not path:
        path, last = last, b""
    signature = binascii.unhexlify(last)
    return _field(_digest_field(digest)) + _field(path + b"\0") + _field(signature), path.decode("utf-8", "replace")


def _buf(rest: bytes) -> tuple[bytes, str]:
    digest, name, buffer = rest.split(b" ")
    body = _field(_digest_field(digest)) + _field(name + b"\0") + _field(binascii.unhexlify(buffer))
    return body, name.decode("utf-8", "replace")


def _old(rest: bytes) -> tuple[bytes, str]:
    digest, _, path = rest.partition(b" ")
    value = binascii.unhexlify(digest)
    if len(value) != SHA1.size or len(path) > _IMA_FIELD:
        raise ValueError("no SHA-1, or too long a name")
    return value + path.ljust(_IMA_FIELD, b"\0"), path.decode("utf-8", "replace")


_ASCII: dict[str, Callable[[bytes], tuple[bytes, str]]] = {
    "ima": _old,
    "ima-ng": _ng,
    "ima-ngv2": _ng,
    "ima-sig": _sig,
    "ima-sigv2": _sig,
    "ima-buf": _buf,
}


def _malformed(message: str, number: int) -> MalformedEvidence:
    return MalformedEvidence(
        f"IMA measurement list: {message}", code="event_log_malformed", field=f"entry {number}", spec=SPEC
    )
