"""The message in which Confidential Containers' tools register reference values (kbs-protocol 3.2).

``{"version": "0.1.0", "type", "payload"}``. ``type`` is ``sample`` (base64 of a JSON object of values, unsigned), or the
kind of a document with its proof: ``in-toto``, ``slsa``, ``corim``, ``swid`` (also ``rim``), ``json``; then the payload is the
document, as text or as base64. ``provider`` and ``state`` are ours and may be absent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import msgspec

from adyton.errors import DocumentInvalid
from adyton.protocol.providers import KINDS, STATES
from adyton.rats.types import JsonValue
from adyton.wire import b64, strict_json

SAMPLE = "sample"
VERSION = "0.1.0"
MAX_SIZE = 8 * 1024 * 1024
_CODE = "reference_message"
_SPEC = "kbs-protocol 3.2"
_ALIASES = {"rim": "swid"}
TYPES = (SAMPLE, *KINDS, *_ALIASES)


class Message(msgspec.Struct, frozen=True):
    """``kind`` is ``sample`` or one of ``KINDS``; ``provider`` is empty if the message names none."""

    kind: str
    payload: str
    provider: str = ""
    state: str = "stable"

    def values(self) -> dict[str, JsonValue]:
        """What a ``sample`` says; ``DocumentInvalid``."""
        try:
            found = strict_json.parse(b64.decode(self.payload), max_size=MAX_SIZE)
        except ValueError as error:
            raise DocumentInvalid(
                "the payload is not base64 of JSON", code=_CODE, field="payload", spec=_SPEC
            ) from error
        if not isinstance(found, dict) or not found:
            raise DocumentInvalid(
                "the payload is not an object of values", code=_CODE, field="payload", spec=_SPEC
            )  # fmt: skip
        return cast("dict[str, JsonValue]", found)

    def document(self) -> bytes:
        """The document of another type; ``DocumentInvalid``."""
        text = self.payload.strip()
        if text.startswith(("{", "<")):  # no base64 begins so
            return text.encode()
        try:
            found = b64.decode(text)
        except ValueError:
            found = b""
        if not found:
            raise DocumentInvalid(
                "the payload is no document: neither its text nor its base64",
                code=_CODE,
                field="payload",
                spec=_SPEC,
                hint="base64 -w0 FILE",
            )
        return found


def read(given: Mapping[str, object]) -> Message:
    """The message, its payload not yet looked into; ``DocumentInvalid`` ``reference_message`` names what is wrong."""
    if given.get("version") != VERSION:
        raise _wrong("version", VERSION, given.get("version"))
    kind, payload = given.get("type"), given.get("payload")
    if not isinstance(kind, str) or kind not in TYPES:
        raise _wrong("type", list(TYPES), kind)
    if not isinstance(payload, str):
        raise _wrong("payload", "a text", type(payload).__name__)
    provider, state = given.get("provider", ""), given.get("state", "stable")
    if not isinstance(provider, str):
        raise _wrong("provider", "a text", type(provider).__name__)
    if not isinstance(state, str) or state not in STATES:
        raise _wrong("state", list(STATES), state)
    if kind == SAMPLE and ("provider" in given or "state" in given):
        raise _wrong("type", "a document with its proof, where a provider or a state is named", kind)
    return Message(_ALIASES.get(kind, kind), payload, provider, state)


def _wrong(field: str, expected: object, got: object) -> DocumentInvalid:
    return DocumentInvalid(
        "not a reference-value message that is taken here",
        code=_CODE,
        field=field,
        expected=expected,
        got=str(got)[:40],
        spec=_SPEC,
    )
