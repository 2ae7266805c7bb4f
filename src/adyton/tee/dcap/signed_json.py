"""Reading the JSON that Intel signs: exact bytes kept, members there once, hex and dates of one form (evidence 1, rule 4).

What is signed is text. It is never written anew before its signature was checked; nor is a member ever looked up in text
in which it could stand twice.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

from adyton.errors import EndorsementError, EndorsementMalformed
from adyton.tee.dcap import forms
from adyton.wire import strict_json

MAX_SIZE = 1024 * 1024
_NEVER = datetime.max.replace(tzinfo=UTC)
_T = TypeVar("_T")


class Head(msgspec.Struct, frozen=True):
    """As much of a document as choosing among several needs; nothing is checked."""

    id: str = ""
    version: int = 0
    issueDate: str = ""  # noqa: N815 -- Intel's names
    nextUpdate: str = ""  # noqa: N815
    fmspc: str = ""
    pceId: str = ""  # noqa: N815
    tcbEvaluationDataNumber: int = 0  # noqa: N815


_HEAD: msgspec.json.Decoder[Head] = msgspec.json.Decoder(Head)
_FIRST = re.compile(rb'[ \t\r\n]*\{[ \t\r\n]*"([^"\\]*)"[ \t\r\n]*:[ \t\r\n]*').match
_NEXT = re.compile(rb'[ \t\r\n]*,[ \t\r\n]*"([^"\\]*)"[ \t\r\n]*:[ \t\r\n]*').match
_LAST = re.compile(rb"[ \t\r\n]*\}[ \t\r\n]*").fullmatch
_MEMBERS: msgspec.json.Decoder[dict[str, msgspec.Raw]] = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Signed:
    """A signed document: ``content``, byte for byte, and r and s over it, 64 bytes, big-endian.

    ``name`` is that of its member in what Intel serves: ``tcbInfo`` or ``enclaveIdentity``. ``head`` and the dates are
    what it says of itself, for choosing among several; what cannot be read there is never fresh. ``form``: the document
    as its type, if it is of it; ``reading`` is for who reads it, who need do that once.
    """

    __slots__ = ("begin", "content", "end", "form", "head", "name", "reading", "signature")

    def __init__(
        self, name: str, content: bytes, signature: bytes, head: Head, form: forms.TcbInfo | forms.Identity | None
    ) -> None:
        self.name = name
        self.content = content
        self.signature = signature
        self.head = head
        self.form = form
        self.begin = _moment(head.issueDate)
        self.end = _moment(head.nextUpdate)
        self.reading: Any = None

    @classmethod
    def of(cls, name: str, content: bytes, signature: bytes) -> Signed:
        """From text and signature; ``EndorsementMalformed`` if the text is not a document of Intel's at all."""
        try:
            return cls(name, content, signature, *_FORMS[name](content))
        except strict_json.UNREADABLE:
            pass  # what else is wrong with it is asked when it was chosen
        try:
            head = _HEAD.decode(content)
        except strict_json.UNREADABLE as error:
            raise malformed(name, "not a document of Intel's form") from error
        return cls(name, content, signature, head, None)


def _tcb_info(content: bytes) -> tuple[Head, forms.TcbInfo]:
    form = forms.TCB_INFO.decode(content)
    number = form.tcbEvaluationDataNumber
    name = form.id or ""
    return Head(name, form.version, form.issueDate, form.nextUpdate, form.fmspc, form.pceId, number), form


def _identity(content: bytes) -> tuple[Head, forms.Identity]:
    form = forms.IDENTITY.decode(content)
    number = form.tcbEvaluationDataNumber
    return Head(form.id, form.version, form.issueDate, form.nextUpdate, tcbEvaluationDataNumber=number), form


_FORMS: dict[str, Callable[[bytes], tuple[Head, forms.TcbInfo | forms.Identity]]] = {
    "tcbInfo": _tcb_info,
    "enclaveIdentity": _identity,
}


def members(document: bytes) -> dict[str, bytes]:
    """The members of one object, each as the bytes that stand there; ``ValueError`` if it is none or one comes twice."""
    if len(document) > MAX_SIZE:
        raise ValueError(f"larger than {MAX_SIZE} bytes")
    try:
        found = {name: bytes(raw) for name, raw in _MEMBERS.decode(document).items()}
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    if not _stand_once(document, found):  # escapes in a name, or a name that comes twice
        strict_json.parse(document, max_size=MAX_SIZE, max_depth=MAX_SIZE)
    return found


def _stand_once(document: bytes, found: dict[str, bytes]) -> bool:
    """Whether the text is these members, one after the other, and no other; ``False`` if that cannot be said so simply."""
    offset = 0
    before = _FIRST
    for name, raw in found.items():
        match = before(document, offset)
        if match is None or match[1] != name.encode():
            return False
        offset = match.end()
        if not document.startswith(raw, offset):
            return False
        offset += len(raw)
        before = _NEXT
    return _LAST(document, offset) is not None


def decode(document: Signed, decoder: msgspec.json.Decoder[_T]) -> tuple[_T, Any]:
    """The document as its type; and as plain values, or ``None`` if it has only members that the type has.

    ``EndorsementMalformed`` if it is not of it, or a name comes twice.
    """
    content = document.content
    try:
        typed: Any = document.form
        if typed is None:
            typed = decoder.decode(content)  # which says what is wrong
        if forms.encoded(typed) == content:  # one text, one value
            return typed, None
        plain: Any = msgspec.json.decode(content)
        if msgspec.json.encode(plain) != content:  # else somebody must look at every name
            strict_json.parse(content, max_size=MAX_SIZE, max_depth=MAX_SIZE)
    except strict_json.UNREADABLE as error:
        raise malformed(document.name, f"not a document of Intel's form: {error}") from error
    return typed, plain


def date(text: str, name: str) -> datetime:
    """``2026-06-01T00:00:00Z``, or ``EndorsementMalformed``."""
    if len(text) == 20 and text[10] == "T" and text[19] == "Z" and text.isascii():
        try:
            return datetime.fromisoformat(text)
        except ValueError:
            pass
    raise malformed(name, "a date is not of the form YYYY-MM-DDThh:mm:ssZ", got=text[:40])


def _moment(text: str) -> datetime:
    """A date for ordering candidates; one that cannot be read is at the end of time, where nothing is fresh."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return _NEVER
    return moment if moment.tzinfo is not None else _NEVER


def hexadecimal(text: str, size: int, name: str) -> bytes:
    """Exactly ``size`` bytes in hex of either case, or ``EndorsementMalformed``."""
    if len(text) == 2 * size and text.isalnum() and text.isascii():
        try:
            return bytes.fromhex(text)
        except ValueError:
            pass
    raise malformed(name, f"a value is not {size} bytes in hex", got=text[:80])


def malformed(name: str, reason: str, got: object = None) -> EndorsementError:
    """The error about the document of this name."""
    return EndorsementMalformed(
        f"{name}: {reason}", code=f"{CODES[name]}_malformed", field=CODES[name], got=got, spec="evidence 3.2"
    )


CODES = {"tcbInfo": "tcb_info", "enclaveIdentity": "qe_identity"}
