"""DSSE envelopes: a payload, its type, and signatures over both (DSSE 1.0.2).

A signature counts for a key if it verifies under it; the key id beside it is a hint and decides nothing. ``threshold``
different keys must have signed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from adyton.provenance.keys import Key
from adyton.provenance.values import MAX_DOCUMENT, refused
from adyton.wire import b64, strict_json

SPEC = "DSSE 1.0.2"
MAX_SIGNATURES = 16


@dataclass(frozen=True, slots=True)
class Envelope:
    """An envelope as it was read; nothing is verified. ``signatures`` are pairs of key id (a hint) and bytes."""

    payload: bytes
    payload_type: str
    signatures: tuple[tuple[str, bytes], ...]

    @property
    def signed(self) -> bytes:
        """What the signatures are over: the pre-authentication encoding."""
        kind = self.payload_type.encode("utf-8")
        return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(self.payload), self.payload)

    def content(self) -> Any:
        """The payload as JSON, or ``DocumentInvalid``. Ask after verifying."""
        return read_json(self.payload, "payload")


def read_json(data: bytes, field: str) -> Any:
    """Strict JSON of a document or a part of it, or ``DocumentInvalid``."""
    try:
        return strict_json.parse(data, max_size=MAX_DOCUMENT)
    except ValueError as error:
        raise refused("the document is not JSON", "document_malformed", field=field, got=str(error)) from error


def is_envelope(value: object) -> bool:
    """Whether a JSON value has an envelope's members."""
    return isinstance(value, dict) and "payload" in value and "payloadType" in value


def parse(value: object) -> Envelope:
    """Read a decoded JSON object, or ``DocumentInvalid``."""
    if not isinstance(value, dict):
        raise _malformed("envelope", "an object", value)
    kind, payload, signatures = value.get("payloadType"), value.get("payload"), value.get("signatures")
    if not isinstance(kind, str) or not kind:
        raise _malformed("payloadType", "a media type", kind)
    if not isinstance(payload, str):
        raise _malformed("payload", "base64", payload)
    if not isinstance(signatures, list) or len(signatures) > MAX_SIGNATURES:
        raise _malformed("signatures", f"a list of at most {MAX_SIGNATURES}", signatures)
    found = []
    for one in signatures:
        if not isinstance(one, dict) or not isinstance(one.get("sig"), str):
            raise _malformed("signatures", "objects with sig", one)
        hint = one.get("keyid")
        found.append((hint if isinstance(hint, str) else "", _base64(one["sig"], "sig")))
    return Envelope(_base64(payload, "payload"), kind, tuple(found))


def verify(envelope: Envelope, keys: Sequence[Key], threshold: int) -> frozenset[str]:
    """The ids of those of ``keys`` that signed, at least ``threshold`` of them, or ``DocumentInvalid``."""
    signed = envelope.signed
    return enough(
        (key.id for key in keys if any(key.verifies(sig, signed) for _, sig in envelope.signatures)), threshold
    )


def enough(signers: Any, threshold: int) -> frozenset[str]:
    """``signers`` if there are enough different ones; ``threshold`` is 1 or more."""
    found = frozenset(signers)
    if threshold < 1 or len(found) < threshold:
        raise refused(
            "the document is not signed by enough of its provider's keys",
            "provenance_unsigned",
            field="signatures",
            expected=max(threshold, 1),
            got=len(found),
            hint="is it this provider's document, and are the provider's keys the ones it signs with?",
        )
    return found


def _base64(text: str, field: str) -> bytes:
    try:
        if "-" in text or "_" in text:
            return b64.decode_url(text.rstrip("="))
        return b64.decode(text)
    except ValueError as error:
        raise _malformed(field, "base64", text) from error


def _malformed(field: str, expected: str, got: object) -> Exception:
    return refused(
        "not a DSSE envelope", "envelope_malformed", field=field, expected=expected, got=str(got)[:80], spec=SPEC
    )
