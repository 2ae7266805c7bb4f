"""Digests as documents write them, made into reference values: lists of lower-case hex."""

from __future__ import annotations

from adyton.provenance.values import refused
from adyton.rats.types import JsonValue

SIZES = {"sha256": 32, "sha384": 48, "sha512": 64, "sha3_256": 32, "sha3_384": 48, "sha3_512": 64}
_HEX = frozenset("0123456789abcdef")


def values(digest: object, field: str) -> list[JsonValue]:
    """The strong digests of a map of algorithm to hex, in its order; ``DocumentInvalid`` if there is none.

    Others (``sha1``, ``gitCommit``) are left out: an attacker may make two things of one such digest.
    """
    if not isinstance(digest, dict):
        raise _wrong(field, "a map of digests", digest)
    found: list[JsonValue] = []
    for algorithm, text in digest.items():
        size = SIZES.get(str(algorithm))
        if size is None:
            continue
        if not isinstance(text, str) or len(text) != 2 * size or not _HEX.issuperset(text):
            raise _wrong(field, f"{2 * size} lower-case hex digits", text)
        found.append(text)
    if not found:
        raise _wrong(field, "a digest of SHA-2 or SHA-3", sorted(map(str, digest)))
    return found


def _wrong(field: str, expected: str, got: object) -> Exception:
    return refused(
        "a digest that cannot be a reference value",
        "digest_invalid",
        field=field,
        expected=expected,
        got=str(got)[:140],
    )
