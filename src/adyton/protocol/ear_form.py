"""The text of a token's claims with gaps where each handshake has its own: for tokens that say the same otherwise.

Claims of a fleet differ in time, nonce, key and report data. ``of`` takes one payload apart; ``Form.filled`` gives, byte
for byte, what encoding another payload would give that differs from it in nothing else. A form's ``text`` is what is
compressed for session cookies, once: gaps are JSON strings of two characters, NUL and a letter, which no claim may be.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from adyton.errors import SessionInvalid
from adyton.protocol.ear import EVIDENCE
from adyton.rats.types import JsonValue

PRIMARY = "cpu0"
_ISSUED, _EXPIRES, _DATA, _NONCE, _KEY, _ID = (f"\0{letter}" for letter in "iednkj")
_ORDER = b"iednkdj"
_GAP = re.compile(rb'"\\u0000([a-z])"')
_ENCODE = msgspec.json.Encoder().encode
Own = tuple[bytes, bytes, bytes, bytes, bytes, bytes]
"""What fills the gaps, as JSON: issued, expires, report data, nonce, key, id."""


class Form(msgspec.Struct, frozen=True):
    """``text`` has the gaps, ``pieces`` are what stands between them."""

    text: bytes
    pieces: tuple[bytes, ...]

    def filled(self, own: Own) -> bytes:
        """The payload with these in the gaps."""
        a, b, c, d, e, f, g, h = self.pieces
        issued, expires, data, nonce, key, token_id = own
        return b"".join((a, issued, b, expires, c, data, d, nonce, e, key, f, data, g, token_id, h))


def of(payload: Mapping[str, Any]) -> Form | None:
    """The form of a payload with one submodule; ``None`` if it has not all that may differ just where it is expected."""
    submodule = payload["submods"][PRIMARY]
    evidence = submodule[EVIDENCE]
    tee, runtime = evidence["adyton"]["tee"], evidence["runtime_data_claims"]
    marked: dict[str, JsonValue] = {
        **evidence,
        "report_data": _DATA,
        "runtime_data_claims": {**runtime, "nonce": _NONCE, "tee-pubkey": _KEY},
        tee: {**evidence[tee], "report_data": _DATA},
    }
    text = _ENCODE(
        {
            **payload,
            "iat": _ISSUED,
            "exp": _EXPIRES,
            "submods": {PRIMARY: {**submodule, EVIDENCE: marked}},
            "jti": _ID,
        }
    )
    return read(text)


def read(text: bytes) -> Form | None:
    """The form with this text; ``None`` if its gaps are others, or stand otherwise."""
    found = _GAP.split(text)
    return Form(text, tuple(found[::2])) if b"".join(found[1::2]) == _ORDER else None


def own_parts(*, issued: int, expires: int, data: str, nonce: str, key: Mapping[str, str], token_id: str) -> Own:
    """What fills the gaps. ``data`` is hex."""
    encode = _ENCODE
    return b"%d" % issued, b"%d" % expires, b'"%b"' % data.encode(), encode(nonce), encode(key), encode(token_id)


def written(text: bytes, own: tuple[bytes, ...]) -> bytes:
    """The payload of a form's text and what fills it; ``SessionInvalid`` if they do not belong together."""
    form = read(text)
    if form is None or len(own) != len(_ORDER) - 1:
        raise SessionInvalid("the session's claims cannot be read", code="session_version")
    return form.filled(own)  # type: ignore[arg-type]  # its length was asked for
