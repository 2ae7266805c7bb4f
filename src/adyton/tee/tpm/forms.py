"""The forms in which a TPM's evidence comes: CoCo's JSON, and Adyton's bundle of parts.

CoCo (``kbs-protocol`` 2.4, ``tpm``)::

    {"ak_public": b64 SPKI, "tpm_quote": {"signature": b64, "message": b64, "pcrs": [24 hex]}}

The bundle, for quotes over several banks, certificates and logs (``README.md`` has it in full)::

    {"quotes": [{"message": b64, "signature": b64}...], "pcrs": {"sha256": {"0": hex...}...},
     "ak_public": b64?, "ak_certificate": b64?, "event_log": b64?, "ima_log": b64?}

Strict: every member is known, of its type, there once, within its length. ``MalformedEvidence`` otherwise.
"""

from __future__ import annotations

import binascii
import struct
from collections.abc import Iterable
from typing import NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from adyton.errors import MalformedEvidence
from adyton.tee.eventlog.banks import BY_NAME, SHA256, Bank
from adyton.tee.tpm.abi import MAX_PCRS, TEE
from adyton.wire import b64, strict_json

MAX_SIZE = 48 * 1024 * 1024  # a log of IMA may have many megabytes
MAX_QUOTES = 8
SPEC = "kbs-protocol 2.4 tpm"


class _CocoQuote(msgspec.Struct, forbid_unknown_fields=True):
    signature: str
    message: str
    pcrs: list[str]


class _Coco(msgspec.Struct, forbid_unknown_fields=True):
    ak_public: str
    tpm_quote: _CocoQuote


class _BundleQuote(msgspec.Struct, forbid_unknown_fields=True):
    message: str
    signature: str


class _Bundle(msgspec.Struct, forbid_unknown_fields=True):
    quotes: list[_BundleQuote]
    pcrs: dict[str, dict[str, str]]
    ak_public: str | UnsetType | None = UNSET
    ak_certificate: str | UnsetType | None = UNSET
    event_log: str | UnsetType | None = UNSET
    ima_log: str | UnsetType | None = UNSET


class Evidence(NamedTuple):
    """The parts. ``ak_public``: SPKI, TPMT_PUBLIC or TPM2B_PUBLIC; ``full``: the form numbers PCRs by position.

    ``quotes``: pairs of TPMS_ATTEST and TPMT_SIGNATURE.
    """

    quotes: tuple[tuple[bytes, bytes], ...]
    pcrs: dict[Bank, dict[int, bytes]]
    ak_public: bytes | None
    ak_certificate: bytes | None
    event_log: bytes | None
    ima_log: bytes | None
    full: bool


_COCO = msgspec.json.Decoder(_Coco)
_BUNDLE = msgspec.json.Decoder(_Bundle)
_NUMBERS = tuple(range(MAX_PCRS))
_HEX_SIZE = {2 * SHA256.size}
_SPLIT = struct.Struct(f"{SHA256.size}s" * MAX_PCRS).unpack


def parse(data: bytes) -> Evidence:
    """Read either form."""
    if len(data) > MAX_SIZE:
        raise MalformedEvidence(
            "evidence is too large", code="evidence_too_large", tee=TEE, expected=MAX_SIZE, got=len(data), spec=SPEC
        )
    try:
        if b'"tpm_quote"' in data[:8192]:
            return _coco(data)
        return _bundle(data)
    except strict_json.UNREADABLE as error:
        raise MalformedEvidence(
            f"not TPM evidence in JSON: {str(error)[:200]}", code="evidence_json", tee=TEE, field="json", spec=SPEC
        ) from error


def _coco(data: bytes) -> Evidence:
    fields = _COCO.decode(data)
    quote = fields.tpm_quote
    # No member twice, at the price of counting quotation marks: five names and the strings that were decoded. Base64
    # and hex hold no mark; a name that came twice does.
    if data.count(b'"') != 2 * (5 + 3 + len(quote.pcrs)):
        raise ValueError("an object has two members of the same name")
    if len(quote.pcrs) != MAX_PCRS:
        raise ValueError(f"{len(quote.pcrs)} PCRs where 24 are numbered by their position")
    values: Iterable[bytes] = map(_hex, quote.pcrs)
    if set(map(len, quote.pcrs)) == _HEX_SIZE:  # as they should be: all in one go
        values = _SPLIT(_hex("".join(quote.pcrs)))
    return Evidence(
        quotes=((b64.decode(quote.message), b64.decode(quote.signature)),),
        pcrs={SHA256: dict(zip(_NUMBERS, values, strict=True))},
        ak_public=b64.decode(fields.ak_public),
        ak_certificate=None,
        event_log=None,
        ima_log=None,
        full=True,
    )


def _bundle(data: bytes) -> Evidence:
    fields = _BUNDLE.decode(data)
    if data.count(b'"') != 2 * _texts(fields):  # as in ``_coco``
        raise ValueError("an object has two members of the same name")
    if not 1 <= len(fields.quotes) <= MAX_QUOTES:
        raise ValueError(f"{len(fields.quotes)} quotes where 1 to {MAX_QUOTES} can be")
    pcrs: dict[Bank, dict[int, bytes]] = {}
    for name, values in fields.pcrs.items():
        bank = BY_NAME.get(name)
        if bank is None:
            raise ValueError("PCRs of an unknown bank")
        pcrs[bank] = {_number(number): _hex(text) for number, text in values.items()}
        if len(pcrs[bank]) != len(values):
            raise ValueError("a PCR comes twice")
    return Evidence(
        quotes=tuple((b64.decode(quote.message), b64.decode(quote.signature)) for quote in fields.quotes),
        pcrs=pcrs,
        ak_public=_optional(fields.ak_public),
        ak_certificate=_optional(fields.ak_certificate),
        event_log=_optional(fields.event_log),
        ima_log=_optional(fields.ima_log),
        full=False,
    )


def _texts(fields: _Bundle) -> int:
    """How many names and strings the bundle was decoded from."""
    pcrs = sum(1 + 2 * len(values) for values in fields.pcrs.values())
    optional = (fields.ak_public, fields.ak_certificate, fields.event_log, fields.ima_log)
    given = sum(1 if text is None else 2 for text in optional if text is not UNSET)
    return 2 + 4 * len(fields.quotes) + pcrs + given


def _optional(text: str | UnsetType | None) -> bytes | None:
    return b64.decode(text) if isinstance(text, str) else None


def _hex(text: str) -> bytes:
    try:
        return binascii.unhexlify(text)
    except (binascii.Error, ValueError) as error:
        raise ValueError("a PCR's value that is not hex") from error


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 2 and int(text) < MAX_PCRS):
        raise ValueError("a PCR's number that is none from 0 to 23")
    return int(text)
