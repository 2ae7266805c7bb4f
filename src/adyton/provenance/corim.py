"""CoRIM: reference values in CBOR, signed with COSE_Sign1 (draft-ietf-rats-corim-10).

Read are tag 501 (unsigned), COSE_Sign1 around it (tag 18, or 502 and 500 as older drafts wrap it). Of what is inside,
CoMID's reference triples become values; other kinds of tags and of triples are passed over, since they are about other
things. What a CoMID's values are named is in ``comid``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from adyton.crypto import cose
from adyton.errors import SignatureInvalid
from adyton.provenance import comid, dsse, times
from adyton.provenance.keys import Key
from adyton.provenance.plain import unsigned
from adyton.provenance.provider import UNSIGNED, Provider
from adyton.provenance.values import MAX_DOCUMENT, Stated, Statement, refused
from adyton.wire import cbor

KIND = "corim"
SPEC = "draft-ietf-rats-corim-10"
MEDIA_TYPES = frozenset({"application/rim+cbor", "application/corim-unsigned+cbor"})
MAX_TAGS = 256
_CORIM = 501
_WRAPPERS = (500, 502)
_COMID = 506
_EDDSA = -8
_CONTENT_TYPE, _META, _CWT = 3, 8, 15
_UNSIGNED_HEAD = cbor.head(6, _CORIM)


class Validity(NamedTuple):
    """From when to when; ``None`` where nothing is said."""

    begin: datetime | None = None
    end: datetime | None = None

    def within(self, other: Validity) -> Validity:
        """What both allow."""
        begins = [one for one in (self.begin, other.begin) if one is not None]
        ends = [one for one in (self.end, other.end) if one is not None]
        return Validity(max(begins, default=None), min(ends, default=None))


class Corim:
    """Reads CoRIMs, signed or not."""

    kind = KIND

    def recognises(self, parsed: object, document: bytes) -> bool:
        """By the tag in front, or the array of four that a COSE_Sign1 without its tag is."""
        if parsed is not None:
            return False
        inner = _unwrapped(document)
        return inner.startswith((_UNSIGNED_HEAD, b"\xd2\x84", b"\x84"))

    def extract(self, parsed: Any, document: bytes, provider: Provider, now: datetime) -> Statement:
        """Verify, then read."""
        inner = _unwrapped(document)
        if inner.startswith(_UNSIGNED_HEAD):
            if UNSIGNED not in provider.accept:
                raise unsigned("COSE_Sign1")
            return _statement(inner, hashlib.sha256(inner).digest(), frozenset(), Validity())
        try:
            message = cose.parse(inner, max_size=MAX_DOCUMENT)
            header = cbor.decode(message.protected, tags=comid.TAGS)
        except ValueError as error:
            raise _malformed("cose", str(error)) from error
        # One COSE_Sign1 has one signer: an entry that asks for more signatures than that is never satisfied.
        signers = dsse.enough((key.id for key in provider.keys if _signed(message, key)), provider.threshold)
        content_type = header.get(_CONTENT_TYPE)
        if not isinstance(content_type, str) or content_type not in MEDIA_TYPES:
            raise _malformed("content type", content_type, sorted(MEDIA_TYPES))
        if not message.payload.startswith(_UNSIGNED_HEAD):
            raise _malformed("payload", "something else", "tag 501")
        proof = hashlib.sha256(message.signed).digest()
        return _statement(message.payload, proof, signers, _signature_validity(header))


def _unwrapped(document: bytes) -> bytes:
    for tag in _WRAPPERS:
        document = document.removeprefix(cbor.head(6, tag))
    return document


def _signed(message: cose.Sign1, key: Key) -> bool:
    public = key.public
    try:
        if isinstance(public, ed25519.Ed25519PublicKey):
            if message.algorithm != _EDDSA:
                return False
            public.verify(message.signature, message.signed)
        elif isinstance(public, ec.EllipticCurvePublicKey):
            cose.verify(message, public, cose.OF_CURVE[public.curve.name])
        else:
            return False  # RSA is not used in CoRIMs that are read here
    except (InvalidSignature, SignatureInvalid):
        return False
    return True


def _signature_validity(header: dict[int | str, Any]) -> Validity:
    """``corim-meta`` (header 8) and CWT claims (header 15): how long the signature is good for."""
    found = Validity()
    meta = header.get(_META)
    if meta is not None:
        read = _decode(meta, "corim-meta")
        if not isinstance(read, dict):
            raise _malformed("corim-meta", "no map")
        found = found.within(_validity(read.get(1), "signature-validity"))
    claims = header.get(_CWT)
    if claims is not None:
        if not isinstance(claims, dict):
            raise _malformed("CWT claims", "no map")
        found = found.within(_validity({0: claims.get(5), 1: claims.get(4)}, "CWT claims"))
    return found


def _validity(value: object, field: str) -> Validity:
    if value is None:
        return Validity()
    if not isinstance(value, dict):
        raise _malformed(field, "no map")
    begin, end = (_seconds(value.get(at), field) for at in (0, 1))
    return Validity(begin, end)


def _seconds(value: object, field: str) -> datetime | None:
    if isinstance(value, cbor.Tagged) and value.tag == 1:
        value = value.value
    return None if value is None else times.of_seconds(value, field, SPEC)


def _statement(corim: bytes, proof: bytes, signers: frozenset[str], signature: Validity) -> Statement:
    read = _decode(corim.removeprefix(_UNSIGNED_HEAD), "corim")
    if not isinstance(read, dict):
        raise _malformed("corim", "no map")
    tags = read.get(1)
    if not isinstance(tags, list) or not 0 < len(tags) <= MAX_TAGS:
        raise _malformed("corim.tags", type(tags).__name__, f"1 to {MAX_TAGS}")
    validity = _validity(read.get(4), "rim-validity").within(signature)
    values: dict[str, Stated] = {}
    for tag in tags:
        if not isinstance(tag, cbor.Tagged):
            raise _malformed("corim.tags", "an element without its tag")
        if tag.tag != _COMID:
            continue
        for name, stated in _comid(tag.value):
            if name in values:
                raise _malformed(name, "two CoMIDs say what it is", "one")
            values[name] = stated
    if not values:
        raise _malformed("corim.tags", "nothing", "a CoMID with reference values")
    return Statement(
        kind=KIND,
        values=values,
        proof=proof,
        signers=signers,
        not_before=validity.begin,
        not_after=validity.end,
    )


def _comid(encoded: object) -> Iterable[tuple[str, Stated]]:
    identity, version, values = comid.read(_decode(encoded, "comid"))
    for name, value in values.items():
        yield name, Stated(value, f"comid:{identity}", version)


def _decode(data: object, field: str) -> Any:
    if not isinstance(data, bytes):
        raise _malformed(field, type(data).__name__, "a byte string")
    try:
        return cbor.decode(data, max_size=MAX_DOCUMENT, tags=comid.TAGS)
    except ValueError as error:
        raise _malformed(field, str(error)) from error


def _malformed(field: str, got: object, expected: object = None) -> Exception:
    return refused("not a CoRIM", "corim_malformed", field=field, expected=expected, got=str(got)[:120], spec=SPEC)
