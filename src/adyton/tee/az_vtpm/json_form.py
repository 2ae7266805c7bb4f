"""The three JSON shapes in which CoCo's attesters send Azure evidence (``kbs-protocol`` 2.4, ``az-snp-vtpm``).

Without a version: lists of bytes, and for SNP a PEM certificate. Versions 1 and 2: hex for the TPM's quote, base64url (with
padding or without) for the rest; version 2 additionally puts the digest into the runtime claims' ``user-data``. SNP evidence
carries the ``vcek``, TDX evidence the ``td_quote``. Strict: every member is known, and there once.
"""

from __future__ import annotations

import struct
from typing import Annotated

import msgspec

from adyton.errors import MalformedEvidence
from adyton.tee.az_vtpm.abi import HclReport, malformed
from adyton.wire import b64, strict_json

MAX_SIZE = 512 * 1024
PCRS = 24
_Byte = Annotated[int, msgspec.Meta(ge=0, le=255)]
_Bytes = Annotated[list[_Byte], msgspec.Meta(max_length=16 * 1024)]
_Pcr = Annotated[list[_Byte], msgspec.Meta(min_length=32, max_length=32)]
_Pcrs = Annotated[list[_Pcr], msgspec.Meta(min_length=PCRS, max_length=PCRS)]
_HexPcrs = Annotated[list[str], msgspec.Meta(min_length=PCRS, max_length=PCRS)]
_HEX_SIZE = {64}
_SPLIT = struct.Struct("32s" * PCRS).unpack


class _Strict(msgspec.Struct, forbid_unknown_fields=True):
    """No member that is not known."""


class _OldQuote(_Strict):
    signature: _Bytes
    message: _Bytes
    pcrs: _Pcrs


class _Quote(_Strict):
    signature: str
    message: str
    pcrs: _HexPcrs


class _OldSnp(_Strict):
    quote: _OldQuote
    report: _Bytes
    vcek: str


class _OldTdx(_Strict):
    tpm_quote: _OldQuote
    hcl_report: _Bytes
    td_quote: _Bytes


class _Snp(_Strict):
    version: Annotated[int, msgspec.Meta(ge=1, le=2)]
    tpm_quote: _Quote
    hcl_report: str
    vcek: str


class _Tdx(_Strict):
    version: Annotated[int, msgspec.Meta(ge=1, le=2)]
    tpm_quote: _Quote
    hcl_report: str
    td_quote: str


class Evidence(msgspec.Struct, frozen=True):
    """The parts. ``version`` 0 has none in its JSON; ``vcek``: DER or PEM; ``td_quote``: the raw quote, or ``None``."""

    version: int
    message: bytes
    signature: bytes
    pcrs: tuple[bytes, ...]
    hcl: HclReport
    vcek: bytes | None
    td_quote: bytes | None


_DECODE_SNP, _DECODE_TDX = msgspec.json.Decoder(_Snp).decode, msgspec.json.Decoder(_Tdx).decode
_QUOTES = 2 * (7 + 28)  # seven names and 28 strings: a member that came twice would bring more


def parse(evidence: bytes) -> Evidence:
    """Take the JSON apart; ``MalformedEvidence`` if it is none of the shapes."""
    try:
        if evidence.count(b'"') == _QUOTES and b"\\" not in evidence and len(evidence) <= MAX_SIZE:
            try:
                return _new(_DECODE_TDX(evidence) if b'"td_quote"' in evidence else _DECODE_SNP(evidence))
            except msgspec.DecodeError:
                pass  # another shape with as many quotes, or none: looked at in full
        value = strict_json.parse(evidence, max_size=MAX_SIZE)
        members = value.keys() if isinstance(value, dict) else frozenset()
        tdx = "td_quote" in members
        if "version" in members:
            return _new(msgspec.convert(value, _Tdx) if tdx else msgspec.convert(value, _Snp))
        return _old(msgspec.convert(value, _OldTdx) if tdx else msgspec.convert(value, _OldSnp))
    except MalformedEvidence:
        raise
    except strict_json.UNREADABLE as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error)[:160]
        raise malformed(f"not Azure vTPM evidence in any of its JSON forms: {reason}", field="evidence") from error


def _old(value: _OldSnp | _OldTdx) -> Evidence:
    quote = value.quote if isinstance(value, _OldSnp) else value.tpm_quote
    return Evidence(
        0,
        bytes(quote.message),
        bytes(quote.signature),
        tuple(map(bytes, quote.pcrs)),
        HclReport.parse(bytes(value.report if isinstance(value, _OldSnp) else value.hcl_report)),
        value.vcek.encode("utf-8") if isinstance(value, _OldSnp) else None,
        bytes(value.td_quote) if isinstance(value, _OldTdx) else None,
    )


def _new(value: _Snp | _Tdx) -> Evidence:
    quote = value.tpm_quote
    return Evidence(
        value.version,
        _hex(quote.message),
        _hex(quote.signature),
        _pcrs(quote.pcrs),
        HclReport.parse(_unpadded(value.hcl_report)),
        _unpadded(value.vcek) if isinstance(value, _Snp) else None,
        _unpadded(value.td_quote) if isinstance(value, _Tdx) else None,
    )


def _pcrs(texts: list[str]) -> tuple[bytes, ...]:
    if set(map(len, texts)) != _HEX_SIZE:
        raise ValueError("a PCR that has not 64 digits")
    return _SPLIT(_hex("".join(texts)))


def _hex(text: str) -> bytes:
    data = bytes.fromhex(text)
    if data.hex() != text:
        raise ValueError("not plain lower-case hex")
    return data


def _unpadded(text: str) -> bytes:
    """base64url with the right padding, or none."""
    bare = text.rstrip("=")
    if len(text) != len(bare) and len(text) != (len(bare) + 3) // 4 * 4:
        raise ValueError("base64url with the wrong padding")
    return b64.decode_url(bare)
