"""The certificate table that a host gives an SNP guest beside a report (GHCB specification, "extended guest request").

Entries of 24 bytes: GUID (16), offset from the table's start (4, little-endian), length (4, little-endian); an entry of
zeros ends it. Firmware tools write the GUID in either byte order, and no known one reads as another, so both are taken.
The table comes from the host: it is a hint, and every certificate in it is verified later like any other.
"""

from __future__ import annotations

import struct
import uuid

from adyton.errors import MalformedEvidence

_ENTRY = struct.Struct("<16sII")
MAX_SIZE = 64 * 1024
GUIDS = {
    "c0b406a4-a803-4952-9743-3fb6014cd0ae": "ARK",
    "4ab7b379-bbac-4fe4-a02f-05aef327c782": "ASK",
    "63da758d-e664-4564-adc5-f4b93be8accd": "VCEK",
    "a8074bc2-a25a-483e-aae6-39c045a0b8a1": "VLEK",
}
_KNOWN = {uuid.UUID(text).bytes: name for text, name in GUIDS.items()} | {
    uuid.UUID(text).bytes_le: name for text, name in GUIDS.items()
}


def parse(table: bytes) -> list[tuple[str, bytes]]:
    """``(cert_type, DER)`` of every known entry, in the table's order. Empty input is an empty table.

    Entries of other GUIDs are passed over. ``MalformedEvidence`` if an entry points outside the table, a kind comes
    twice, or no entry ends it.
    """
    if not table:
        return []
    if len(table) > MAX_SIZE:
        raise _malformed("is too large", got=len(table))
    found: list[tuple[str, bytes]] = []
    for position in range(0, len(table) - _ENTRY.size + 1, _ENTRY.size):
        guid, offset, length = _ENTRY.unpack_from(table, position)
        if guid == bytes(16):
            return found
        if offset + length > len(table):
            raise _malformed("has an entry that points outside it", got=offset + length)
        name = _KNOWN.get(guid)
        if name is None or not length:
            continue
        if any(name == known for known, _ in found):
            raise _malformed("holds two certificates of one kind", got=name)
        found.append((name, bytes(table[offset : offset + length])))
    raise _malformed("has no end", got=len(table))


def write(certificates: list[tuple[str, bytes]]) -> bytes:
    """A table of these certificates, as a host would lay it out."""
    guids = {name: uuid.UUID(text).bytes for text, name in GUIDS.items()}
    offset = _ENTRY.size * (len(certificates) + 1)
    head, body = b"", b""
    for name, der in certificates:
        head += _ENTRY.pack(guids[name], offset + len(body), len(der))
        body += der
    return head + bytes(_ENTRY.size) + body


def _malformed(reason: str, *, got: object) -> MalformedEvidence:
    return MalformedEvidence(
        f"the certificate table beside the report {reason}",
        code="certificate_table_malformed",
        tee="snp",
        field="certs",
        got=got,
        spec="GHCB specification, certificate table",
    )
