"""The token of a realm: two COSE_Sign1 in one CBOR map, bytes to frozen types (evidence 9; draft-ffm-rats-cca-token, DEN0137).

Tag 399 around ``{44234: platform, 44241: realm}``, each a byte string; newer attesters write tag 907 and wrap each as
``[263, token]``. No trust: nothing is verified here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from adyton.crypto import cose
from adyton.errors import MalformedEvidence
from adyton.tee.cca.platform import PlatformClaims, platform_claims
from adyton.tee.cca.realm import RealmClaims, realm_claims
from adyton.tee.cca.shape import SPEC, TEE, Wrong
from adyton.wire import cbor, strict_json

MAX_SIZE = 32 * 1024  # bytes of a token; the largest that was seen has 2.2 thousand
MAX_JSON_SIZE = 5 * MAX_SIZE + 64  # each byte is a number of up to three digits and a comma
COLLECTION_TAG = 399
WRAPPED_TAG = 907
PLATFORM = 44234
REALM = 44241
_CWT = 263  # content format of a CWT, CoAP registry
_INTEGERS = frozenset({int})
_JSON_BEGINS = frozenset(b"{ \t\r\n")


class Token(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Both halves as they were sent, and what they say. ``platform_bytes`` is the platform's message, byte for byte."""

    raw: bytes
    wrapped: bool
    platform_bytes: bytes
    platform: cose.Sign1
    realm: cose.Sign1
    platform_claims: PlatformClaims
    realm_claims: RealmClaims

    def encode(self) -> bytes:
        """The bytes that it was read from: signatures are over bytes, so nothing is written anew."""
        return self.raw


def is_json(evidence: bytes) -> bool:
    """Whether evidence is in CoCo's JSON form."""
    return bool(evidence) and evidence[0] in _JSON_BEGINS


class Platform(NamedTuple):
    """The platform's half: its message, and the claims in it."""

    message: cose.Sign1
    claims: PlatformClaims


def read(evidence: bytes, known: Callable[[bytes], Platform | None] | None = None) -> Token:
    """A token as it is, or in CoCo's JSON form ``{"token": [bytes as numbers]}``; ``MalformedEvidence``."""
    return parse(_from_json(evidence) if is_json(evidence) else evidence, known)


def parse(data: bytes, known: Callable[[bytes], Platform | None] | None = None) -> Token:
    """From exactly one token, or ``MalformedEvidence``.

    ``known`` may have the platform's half, by its bytes: realms of one platform send the same one.
    """
    if len(data) > MAX_SIZE:
        raise _malformed("size", f"larger than {MAX_SIZE} bytes")
    try:
        tag, item = cbor.split_tag(data)
        collection = cbor.decode(item, max_size=MAX_SIZE, max_depth=4)
    except ValueError as error:
        raise _malformed("token", f"not CBOR of this format: {error}") from error
    if tag not in {COLLECTION_TAG, WRAPPED_TAG}:
        raise _malformed(
            "token", "not tagged as a collection of tokens", expected=[COLLECTION_TAG, WRAPPED_TAG], got=tag
        )
    if type(collection) is not dict or collection.keys() != {PLATFORM, REALM}:
        raise _malformed("token", "a map of the platform's and the realm's token is due", expected=[PLATFORM, REALM])
    wrapped = tag == WRAPPED_TAG
    platform_bytes = _half(collection[PLATFORM], wrapped=wrapped)
    platform = known(platform_bytes) if known is not None else None
    try:
        if platform is None:
            message = _message("platform", platform_bytes)
            platform = Platform(message, platform_claims(_claims("platform", message)))
        realm = _message("realm", _half(collection[REALM], wrapped=wrapped))
        return Token(
            raw=data,
            wrapped=wrapped,
            platform_bytes=platform_bytes,
            platform=platform.message,
            realm=realm,
            platform_claims=platform.claims,
            realm_claims=realm_claims(_claims("realm", realm)),
        )
    except Wrong as error:
        raise _malformed(error.field, error.message, expected=error.expected, got=error.got) from error


def _half(value: Any, *, wrapped: bool) -> bytes:
    if wrapped:
        if type(value) is not list or len(value) != 2 or value[0] != _CWT:
            raise _malformed("token", "a half is not wrapped as a CWT", expected=f"[{_CWT}, bytes]")
        value = value[1]
    if type(value) is not bytes:
        raise _malformed("token", "a half is no byte string")
    return value


def _message(name: str, data: bytes) -> cose.Sign1:
    try:
        message = cose.parse(data, max_size=MAX_SIZE)
    except ValueError as error:
        raise _malformed(name, f"not a COSE_Sign1: {error}") from error
    if message.algorithm not in cose.NAMES:
        raise _malformed(
            f"{name}_alg", "signed with an unknown algorithm", expected=[*cose.NAMES], got=message.algorithm
        )
    return message


def _claims(name: str, message: cose.Sign1) -> dict[Any, Any]:
    try:
        claims = cbor.decode(message.payload, max_size=MAX_SIZE, max_depth=6)
    except ValueError as error:
        raise _malformed(name, f"the claims are not CBOR of this format: {error}") from error
    if type(claims) is not dict:
        raise _malformed(name, "the claims are no map")
    return claims


def _from_json(text: bytes) -> bytes:
    try:
        document = strict_json.parse(text, max_size=MAX_JSON_SIZE, max_depth=4)
    except ValueError as error:
        raise _malformed("json", str(error)) from error
    if type(document) is not dict or document.keys() != {"token"}:
        raise _malformed("json", "an object with the member token, and no other, is due")
    numbers = document["token"]
    if type(numbers) is not list or not _INTEGERS.issuperset(map(type, numbers)):
        raise _malformed("json", "token is no array of integers")
    try:
        return bytes(numbers)
    except ValueError as error:
        raise _malformed("json", "token holds a number that is no byte") from error


def _malformed(field: str, message: str, *, expected: object = None, got: object = None) -> MalformedEvidence:
    return MalformedEvidence(
        f"{field}: {message}",
        code=f"malformed_{field}",
        tee=TEE,
        field=field,
        expected=expected,
        got=got,
        spec=SPEC,
    )
