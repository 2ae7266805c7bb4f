"""Reports that differ only in what each handshake makes anew: report data, report id and signature.

A guest's reports from one machine are alike in all else, and all else is what parsing and most checks look at. ``Shape``
is what such reports have in common, by value. ``see`` finds the shape of evidence whose like was parsed before, and what
differs, without parsing the rest again: the rest is compared, byte for byte. Nothing here is a verdict.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import msgspec

from adyton.tee.snp import json_form
from adyton.tee.snp.abi import REPORT_SIZE
from adyton.wire import strict_json

LIMIT = 1024
LONGEST = json_form.MAX_REMEMBERED
# Offsets in a report: where its data, its id and its signature begin and end (evidence 4.1).
_DATA, _DATA_END, _ID, _ID_END, _R, _S, _S_END = 0x50, 0x90, 0x140, 0x160, 0x2A0, 0x2E8, 0x330
_MARKS = (b'"report_data":[', b'"report_id":[', b'"signature":{"r":[', b'],"s":[')
_B32 = Annotated[list[int], msgspec.Meta(min_length=32, max_length=32)]
_B64 = Annotated[list[int], msgspec.Meta(min_length=64, max_length=64)]
_B72 = Annotated[list[int], msgspec.Meta(min_length=72, max_length=72)]
_OWN = msgspec.json.Decoder(tuple[_B64, _B32, _B72, _B72])
_Parts = tuple[bytes, ...]


class Shape:
    """What reports that are alike have in common: all signed bytes but report data and report id. Equal by these bytes.

    ``begin``, ``middle``, ``end``: what stands before, between and after those two. ``traits``: what choosing a chain looks at.
    """

    __slots__ = ("_hash", "begin", "end", "host_data", "middle", "traits")

    def __init__(self, encoded: bytes, traits: tuple[object, ...]) -> None:
        self.begin, self.middle, self.end = encoded[:_DATA], encoded[_DATA_END:_ID], encoded[_ID_END:_R]
        self.host_data = encoded[0xC0:0xE0]
        self.traits = traits
        self._hash = hash((self.begin, self.middle, self.end))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Shape):
            return NotImplemented
        return (self.begin, self.middle, self.end) == (other.begin, other.middle, other.end)

    def signed(self, data: bytes, number: bytes) -> bytes:
        """The signed bytes of such a report with these report data and this id."""
        return b"".join((self.begin, data, self.middle, number, self.end))


class Seen(NamedTuple):
    """Evidence of a known shape: its own report data, id and signature, and where the text of its certificates stands."""

    shape: Shape
    data: bytes
    number: bytes
    signature: bytes
    document: bytes
    start: int
    end: int


_known: dict[_Parts, Shape] = {}


def see(evidence: bytes) -> Seen | None:
    """What is known of evidence whose like was learnt; ``None`` where nothing is, or where its own parts do not fit."""
    if not json_form.is_json(evidence):
        shape = _known.get(_parts_of_raw(evidence)) if len(evidence) == REPORT_SIZE else None
        if shape is None:
            return None
        return Seen(shape, evidence[_DATA:_DATA_END], evidence[_ID:_ID_END], evidence[_R:_S_END], b"", 0, 0)
    split = json_form.split_compact(evidence) if len(evidence) <= json_form.MAX_SIZE else None
    if split is None:
        return None
    text, document, start, end = split
    parts, texts = _parts_of_text(text)
    shape = _known.get(parts)
    if shape is None:
        return None
    try:
        data, number, r, s = _OWN.decode(b"[[%b],[%b],[%b],[%b]]" % texts)
        return Seen(shape, bytes(data), bytes(number), bytes(r) + bytes(s), document, start, end)
    except (*strict_json.UNREADABLE, OverflowError):
        return None


def learn(evidence: bytes, shape: Shape) -> None:
    """Remember the shape of evidence that was parsed as a whole, and as strictly as ever."""
    parts: _Parts
    if not json_form.is_json(evidence):
        parts = _parts_of_raw(evidence)
    else:
        split = json_form.split_compact(evidence)
        if split is None or len(split[0]) > LONGEST:
            return
        parts, _ = _parts_of_text(split[0])
        if not all(part.endswith(mark) for part, mark in zip(parts, _MARKS, strict=False)):
            return
    if len(_known) >= LIMIT:
        _known.clear()
    _known[parts] = shape


def _parts_of_raw(report: bytes) -> _Parts:
    return report[:_DATA], report[_DATA_END:_ID], report[_ID_END:_R]


def _parts_of_text(text: bytes) -> tuple[_Parts, _Parts]:
    """A report's text without the four lists that are its own, and those.

    No list of these contains a bracket, so with the first part given, which ends with a name, each is where it must be.
    What is cut at the wrong places, because the names stand elsewhere, has parts that nothing learnt has.
    """
    data, number, signature, s = _MARKS
    a = text.find(data) + len(data)
    b = text.find(b"]", a)
    c = text.find(number, b) + len(number)
    d = text.find(b"]", c)
    e = text.find(signature, d) + len(signature)
    f = text.find(b"]", e)
    g = f + len(s)
    h = text.find(b"]", g)
    return (text[:a], text[b:c], text[d:e], text[f:g], text[h:]), (text[a:b], text[c:d], text[e:f], text[g:h])
