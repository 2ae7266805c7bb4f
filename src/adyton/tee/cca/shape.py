"""What claims of both halves have in common: sizes, names of hashes, and how one that is wrong is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TEE = "cca"
SPEC = "evidence 9"
HASHES = {"sha-256": "sha256", "sha-384": "sha384", "sha-512": "sha512"}  # IANA's names -> Python's
_HASH_SIZES = frozenset({32, 48, 64})
MAX_TEXT = 512
MAX_BYTES = 4096
_MISSING = object()


class Wrong(Exception):
    """A claim is missing, or not what it must be. Never leaves this room: it becomes ``MalformedEvidence``."""

    def __init__(self, field: str, message: str, *, expected: object = None, got: object = None) -> None:
        super().__init__(message)
        self.field = field
        self.message = message
        self.expected = expected
        self.got = got


def need(claims: Mapping[Any, Any], label: int | str, field: str) -> Any:
    """A mandatory claim."""
    value = claims.get(label, _MISSING)
    if value is _MISSING:
        raise Wrong(field, "a mandatory claim is missing", expected=str(label))
    return value


def sized(value: Any, field: str, *sizes: int) -> bytes:
    """A byte string of one of these lengths."""
    if type(value) is not bytes or len(value) not in sizes:
        raise Wrong(field, "a byte string of another length is due", expected=[*sizes], got=_length(value))
    return value


def digest(value: Any, field: str) -> bytes:
    """A byte string as long as one of the hashes."""
    if type(value) is not bytes or len(value) not in _HASH_SIZES:
        raise Wrong(field, "as long as no known hash", expected=sorted(_HASH_SIZES), got=_length(value))
    return value


def some_bytes(value: Any, field: str) -> bytes:
    """A byte string that is not empty."""
    if type(value) is not bytes or not 1 <= len(value) <= MAX_BYTES:
        raise Wrong(field, f"a byte string of 1 to {MAX_BYTES} is due", got=_length(value))
    return value


def text(value: Any, field: str) -> str:
    """Text that is not empty."""
    if type(value) is not str or not 1 <= len(value) <= MAX_TEXT:
        raise Wrong(field, f"text of 1 to {MAX_TEXT} characters is due", got=_length(value))
    return value


def hash_name(value: Any, field: str) -> str:
    """The name of a hash that is known."""
    if type(value) is not str or value not in HASHES:
        raise Wrong(field, "not the name of a known hash", expected=[*HASHES], got=str(value)[:40])
    return value


def instance_id(value: Any, field: str) -> bytes:
    """A UEID of random kind: 33 bytes, of which the first is 1 (RFC 9711 4.2.1)."""
    whole = sized(value, field, 33)
    if whole[0] != 1:
        raise Wrong(field, "not of the random kind", expected=1, got=whole[0])
    return whole


def _length(value: Any) -> str:
    return f"{len(value)} of {type(value).__name__}" if isinstance(value, bytes | str) else type(value).__name__
