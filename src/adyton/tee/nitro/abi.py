"""The attestation document of a Nitro enclave: bytes to a frozen type (evidence 8; AWS's ``attestation_process.md``).

A COSE_Sign1, mostly without its tag, whose payload is a map of nine members. No trust: nothing is verified here.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from adyton.crypto import cose
from adyton.errors import MalformedEvidence
from adyton.wire import cbor

TEE = "nitro"
SPEC = "evidence 8"
MAX_SIZE = 32 * 1024  # bytes; real documents have 4.4 to 4.8 thousand
PCR_SIZE = 48
PCR_ZERO = bytes(PCR_SIZE)
DIGEST = "SHA384"
MAX_PCR = 31
IMAGE_PCRS = (0, 1, 2)
MAX_BUNDLE = 8  # authorities in front of the leaf; real ones have four
MAX_CERTIFICATE = 1024
MAX_MODULE_ID = 256

_REQUIRED = frozenset({"module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle"})
_OPTIONAL_SIZES = {"public_key": 1024, "user_data": 512, "nonce": 512}
_MEMBERS = _REQUIRED | _OPTIONAL_SIZES.keys()
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_TIMESTAMP = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // timedelta(milliseconds=1)
_INTEGERS = frozenset({int})
_BYTES = frozenset({bytes})
_PCR_INDICES = frozenset(range(MAX_PCR + 1))


class AttestationDocument(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a document says. ``timestamp``: milliseconds since 1970. ``pcrs``: index to 48 bytes, at least 0, 1 and 2.

    ``certificate``: the leaf, DER. ``cabundle``: its authorities, the root first, the leaf's issuer last.
    ``public_key``, ``user_data``, ``nonce``: as the enclave asked for them, ``None`` if it did not.
    """

    raw: bytes
    message: cose.Sign1
    module_id: str
    timestamp: int
    pcrs: dict[int, bytes]
    certificate: bytes
    cabundle: tuple[bytes, ...]
    public_key: bytes | None
    user_data: bytes | None
    nonce: bytes | None

    @property
    def time(self) -> datetime:
        """The timestamp, in UTC."""
        return _EPOCH + timedelta(milliseconds=self.timestamp)

    def encode(self) -> bytes:
        """The bytes that it was read from: a signature is over bytes, so nothing is written anew."""
        return self.raw


def parse(data: bytes) -> AttestationDocument:
    """From exactly one document, or ``MalformedEvidence``. Every size is the format's."""
    if len(data) > MAX_SIZE:
        raise _malformed("size", f"larger than {MAX_SIZE} bytes", got=len(data))
    try:
        message = cose.parse(data, max_size=MAX_SIZE)
    except ValueError as error:
        raise _malformed("cose", f"not a COSE_Sign1: {error}") from error
    if message.algorithm != cose.ES384:
        raise _malformed("alg", "signed with another algorithm than ES384", expected=cose.ES384, got=message.algorithm)
    if message.unprotected:
        raise _malformed("unprotected", "an unsigned header, of which this format has none")
    if len(message.signature) != 96:
        raise _malformed("signature", "an ES384 signature has 96 bytes", expected=96, got=len(message.signature))
    try:
        payload = cbor.decode(message.payload, max_size=MAX_SIZE, max_depth=4, open_map=True)
    except ValueError as error:
        raise _malformed("payload", f"the payload is not CBOR: {error}") from error
    if type(payload) is not dict:
        raise _malformed("payload", "the payload is no map")
    return _document(data, message, payload)


def _document(data: bytes, message: cose.Sign1, payload: dict[Any, Any]) -> AttestationDocument:
    names = payload.keys()
    if not names <= _MEMBERS:
        unknown = next(name for name in names if name not in _MEMBERS)
        raise _malformed("payload", "a member that this format does not have", got=str(unknown)[:40])
    if not names >= _REQUIRED:
        raise _malformed("payload", "members are missing", expected=sorted(_REQUIRED - names))
    module_id, timestamp, certificate = payload["module_id"], payload["timestamp"], payload["certificate"]
    if type(module_id) is not str or not 1 <= len(module_id) <= MAX_MODULE_ID:
        raise _malformed("module_id", f"text of 1 to {MAX_MODULE_ID} characters is due")
    if payload["digest"] != DIGEST:
        raise _malformed("digest", "PCRs of another hash", expected=DIGEST, got=str(payload["digest"])[:40])
    if type(timestamp) is not int or not 0 < timestamp <= _MAX_TIMESTAMP:
        raise _malformed("timestamp", "not a number of milliseconds since 1970")
    if type(certificate) is not bytes or not 1 <= len(certificate) <= MAX_CERTIFICATE:
        raise _malformed("certificate", f"a byte string of 1 to {MAX_CERTIFICATE} is due")
    optional = [payload.get(name) for name in _OPTIONAL_SIZES]
    for value, (name, size) in zip(optional, _OPTIONAL_SIZES.items(), strict=True):
        if value is not None and (
            type(value) is not bytes or len(value) > size or (name == "public_key" and not value)
        ):
            raise _malformed(name, f"null or a byte string of at most {size} is due")
    return AttestationDocument(
        raw=data,
        message=message,
        module_id=module_id,
        timestamp=timestamp,
        pcrs=_pcrs(payload["pcrs"]),
        certificate=certificate,
        cabundle=_bundle(payload["cabundle"]),
        public_key=optional[0],
        user_data=optional[1],
        nonce=optional[2],
    )


def _pcrs(value: Any) -> dict[int, bytes]:
    if type(value) is not dict or not value.keys() <= _PCR_INDICES or not _INTEGERS.issuperset(map(type, value)):
        raise _malformed("pcrs", f"a map of registers 0 to {MAX_PCR} is due")
    for register in IMAGE_PCRS:
        if register not in value:
            raise _malformed("pcrs", "without the registers that measure the image", expected=[*IMAGE_PCRS])
    values = value.values()
    if not _BYTES.issuperset(map(type, values)) or {*map(len, values)} != {PCR_SIZE}:
        raise _malformed("pcrs", f"a register is not {PCR_SIZE} bytes")
    return value


def _bundle(value: Any) -> tuple[bytes, ...]:
    if type(value) is not list or not 1 <= len(value) <= MAX_BUNDLE or not _BYTES.issuperset(map(type, value)):
        raise _malformed("cabundle", f"an array of 1 to {MAX_BUNDLE} byte strings is due")
    if not 1 <= min(map(len, value)) <= max(map(len, value)) <= MAX_CERTIFICATE:
        raise _malformed("cabundle", f"a certificate has 1 to {MAX_CERTIFICATE} bytes here")
    return tuple(value)


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
