"""Checkpoints: size and root of a log under a signature (C2SP tlog-checkpoint, signed-note), and the keys that sign them.

::

    <origin>                      which log it is
    <size>                        decimal
    <root>                        base64, 32 bytes

    — <name> <base64>             4 bytes of key id, then the signature; one line for each signer

The signature is Ed25519 over everything before the empty line, its last line end included. A key's id is the beginning
of SHA-256 over its name, a line end, the byte 1 (Ed25519) and the key. What a signer says is believed of the name in
its key only, and the log's own key bears the origin as its name: a checkpoint of one log never passes for another's.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from adyton.crypto.merkle import EMPTY, HASH_SIZE
from adyton.errors import DocumentInvalid, LogBroken
from adyton.wire import b64

MAX_NOTE = 64 * 1024
MAX_SIGNATURES = 16
MAX_SIZE = 2**53 - 1
_ED25519 = 1
_NAME = re.compile(r"[^\s+\x00-\x1f\x7f]{1,255}\Z")
_SIZE = re.compile(r"(?:0|[1-9][0-9]{0,15})\Z")
_KEY_ID = re.compile(r"[0-9a-f]{8}\Z")
_MARK = "\u2014 "
_SPEC = "C2SP tlog-checkpoint"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A log of ``size`` rows has this root. ``extensions``: further signed lines, of which nothing is believed."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def body(self) -> bytes:
        """What is signed."""
        lines = (self.origin, str(self.size), b64.encode(self.root), *self.extensions)
        return "".join(f"{line}\n" for line in lines).encode()


@dataclass(frozen=True, slots=True)
class LogKey:
    """A public key that a log or a witness signs with, under its name."""

    name: str
    public: bytes

    def __post_init__(self) -> None:
        if not _NAME.match(self.name) or len(self.public) != 32:
            raise ValueError("a log's key is a name without white space or '+', and 32 bytes")

    @property
    def id(self) -> bytes:
        """4 bytes that tell keys apart; they prove nothing."""
        return hashlib.sha256(self.name.encode() + b"\n" + bytes([_ED25519]) + self.public).digest()[:4]

    def text(self) -> str:
        """As it is handed to those who verify: ``<name>+<id>+<key>``."""
        return f"{self.name}+{self.id.hex()}+{b64.encode(bytes([_ED25519]) + self.public)}"

    @classmethod
    def parse(cls, text: str) -> LogKey:
        """The key in such a text, or ``DocumentInvalid`` ``log_key_malformed``."""
        name, _, rest = text.strip().partition("+")
        number, _, key = rest.partition("+")
        try:
            raw = b64.decode(key)
            found = cls(name, raw[1:])
        except ValueError as error:
            raise _key_malformed("a name, an id and an Ed25519 key, with '+' between them") from error
        if raw[0] != _ED25519:
            raise _key_malformed("an Ed25519 key")
        if not _KEY_ID.match(number) or number != found.id.hex():
            raise _key_malformed(f"the id {found.id.hex()} for this name and key")
        return found


class LogSigner:
    """The private half, under a name. ``private`` is 32 bytes."""

    def __init__(self, name: str, private: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(private)
        self.public = LogKey(name, self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))

    @staticmethod
    def generate() -> bytes:
        """A new private key."""
        return Ed25519PrivateKey.generate().private_bytes_raw()

    def sign(self, size: int, root: bytes) -> str:
        """The signed checkpoint of this log at that size."""
        if not 0 <= size <= MAX_SIZE or len(root) != HASH_SIZE:
            raise ValueError("a checkpoint has a size and a root of 32 bytes")
        body = Checkpoint(self.public.name, size, root).body()
        signed = b64.encode(self.public.id + self._key.sign(body))
        return f"{body.decode()}\n{_MARK}{self.public.name} {signed}\n"


def parse(note: str) -> Checkpoint:
    """What a signed checkpoint says, believed by nobody yet; ``DocumentInvalid`` ``checkpoint_malformed``."""
    return _read(note)[0]


def verify(note: str, keys: Iterable[LogKey], *, origin: str | None = None) -> Checkpoint:
    """The checkpoint, if one of ``keys`` that bears its origin as name signed it (and is that of ``origin``, if given).

    ``LogBroken`` ``checkpoint_untrusted`` without such a signature, ``checkpoint_forged`` if the signature of any key
    among ``keys`` is wrong, ``checkpoint_of_another_log`` for another origin.
    """
    checkpoint, signatures = _read(note)
    if origin is not None and checkpoint.origin != origin:
        raise LogBroken(
            "the checkpoint is that of another log",
            code="checkpoint_of_another_log",
            field="origin",
            expected=origin,
            got=checkpoint.origin,
            spec=_SPEC,
        )
    known = {(key.name, key.id): key for key in keys}
    body, good = checkpoint.body(), False
    for name, number, signature in signatures:
        key = known.get((name, number))
        if key is None:
            continue
        try:
            Ed25519PublicKey.from_public_bytes(key.public).verify(signature, body)
        except InvalidSignature:
            raise LogBroken(
                "the signature of the checkpoint does not verify",
                code="checkpoint_forged",
                field="signature",
                expected=key.text(),
                spec=_SPEC,
            ) from None
        good = good or name == checkpoint.origin
    if not good:
        raise LogBroken(
            "none of the given keys signed this checkpoint",
            code="checkpoint_untrusted",
            field="signature",
            expected=[key.text() for key in known.values()],
            got=[f"{name}+{number.hex()}" for name, number, _ in signatures],
            spec=_SPEC,
            hint="give the log's own key, from somebody who knows it; `adyton audit key` prints it",
        )
    return checkpoint


_Signature = tuple[str, bytes, bytes]


def _read(note: str) -> tuple[Checkpoint, list[_Signature]]:
    if len(note) > MAX_NOTE:
        raise _malformed(f"at most {MAX_NOTE} characters", len(note))
    text, gap, signed = note.rpartition("\n\n")
    if not gap or not signed.endswith("\n"):
        raise _malformed("signed lines, an empty line, signatures, a line end", "other")
    if any((character < " " and character != "\n") or character == "\x7f" for character in note):
        raise _malformed("no control characters", "some")
    try:
        note.encode()
    except UnicodeEncodeError as error:
        raise _malformed("text", "half of a character") from error
    lines = text.split("\n")
    if len(lines) < 3 or not all(lines):
        raise _malformed("origin, size and root, each a line", f"{len(lines)} lines")
    origin, size, root, *extensions = lines
    if not _SIZE.match(size) or int(size) > MAX_SIZE:
        raise _malformed("a decimal size", size[:40], "size")
    try:
        digest = b64.decode(root)
    except ValueError as error:
        raise _malformed("base64", root[:80], "root") from error
    if len(digest) != HASH_SIZE or (int(size) == 0 and digest != EMPTY):
        raise _malformed("32 bytes, and those of an empty log where the size is 0", len(digest), "root")
    marked = signed[:-1].split("\n")
    if len(marked) > MAX_SIGNATURES:
        raise _malformed(f"at most {MAX_SIGNATURES} signatures", len(marked), "signature")
    return Checkpoint(origin, int(size), digest, tuple(extensions)), [_signature(line) for line in marked]


def _signature(line: str) -> _Signature:
    name, space, value = line.removeprefix(_MARK).partition(" ")
    if not line.startswith(_MARK) or not space or not _NAME.match(name):
        raise _malformed("a dash, a name and base64", line[:80], "signature")
    try:
        raw = b64.decode(value)
    except ValueError as error:
        raise _malformed("base64", value[:80], "signature") from error
    if len(raw) < 5:
        raise _malformed("4 bytes of key id and a signature", len(raw), "signature")
    return name, raw[:4], raw[4:]


def _malformed(expected: str, got: object, field: str = "checkpoint") -> DocumentInvalid:
    return DocumentInvalid(
        "this is no signed checkpoint",
        code="checkpoint_malformed",
        field=field,
        expected=expected,
        got=got,
        spec=_SPEC,
    )


def _key_malformed(expected: str) -> DocumentInvalid:
    return DocumentInvalid(
        "this is no key of a log",
        code="log_key_malformed",
        field="key",
        expected=expected,
        spec="C2SP signed-note",
        hint="one line, as `adyton audit key` prints it",
    )
