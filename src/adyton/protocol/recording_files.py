"""Recorded decisions out of files of several kinds: recordings, tokens, attestation results, annotated evidence.

Nothing is verified: what a policy would say of it is all that anybody learns.
"""

from __future__ import annotations

from typing import Any

import msgspec

from adyton.errors import DocumentInvalid, SessionInvalid
from adyton.protocol import ear, recording
from adyton.protocol.recording import FORM, Appraised, Recording
from adyton.wire import b64, strict_json

MAX_SIZE = 64 * 1024 * 1024
_JWT_PARTS = 3


def read(data: bytes, name: str) -> list[Recording]:
    """All decisions in ``data``; ``DocumentInvalid`` ``recording_malformed``. ``name`` is what an error calls it.

    Lines of recordings; or one JSON object: a token's payload, or annotated evidence, taken for ``cpu0``; or a token.
    """
    text = data.strip()
    if text.count(b".") == _JWT_PARTS - 1 and not text.startswith(b"{"):
        try:
            text = b64.decode_url(text.split(b".")[1].decode("ascii"))
        except ValueError as error:
            raise _malformed(name) from error
    lines = [line for line in text.split(b"\n") if line.strip()]
    if lines and all(FORM.encode() in line for line in lines):
        return [recording.decode(line) for line in lines]
    try:
        value = strict_json.parse(text, max_size=MAX_SIZE)
    except strict_json.UNREADABLE as error:
        raise _malformed(name) from error
    if not isinstance(value, dict):
        raise _malformed(name)
    if value.get("form") == FORM:
        return [recording.decode(msgspec.json.encode(value))]
    return [_of_token(value, name) if "submods" in value else _of_evidence(value, name)]


def _of_token(value: dict[str, Any], name: str) -> Recording:
    try:
        claims = ear.read(value)
    except SessionInvalid as error:
        raise _malformed(name) from error
    parts = []
    for submodule in claims.submodules:
        seen = recording.of_evidence(submodule.name, submodule.evidence)
        parts.append(Appraised(seen.name, seen.tee, seen.root, seen.input, submodule.vector.values, seen.unmet))
    return Recording(kind="attestation", appraised=tuple(parts))


def _of_evidence(value: dict[str, Any], name: str) -> Recording:
    seen = recording.of_evidence("cpu0", value)
    if not seen.tee or seen.root not in {"vendor", "custom"}:
        raise _malformed(name)
    return Recording(kind="attestation", appraised=(seen,))


def _malformed(name: str) -> DocumentInvalid:
    return DocumentInvalid(
        f"{name} is no recorded decision",
        code="recording_malformed",
        field=name,
        expected="lines of recordings, a token, its payload, or annotated evidence",
    )
