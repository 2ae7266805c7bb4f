"""Digests of texts that come again and again: a chip sends the same certificates with every report.

A text is found by a sample of its bytes and then compared whole, so that what is found is always this very text's digest.
"""

from __future__ import annotations

import hashlib

LIMIT = 64
LONGEST = 32 * 1024  # bytes of a text that is kept
_known: dict[bytes, tuple[bytes, bytes]] = {}


def digest_of(document: bytes, start: int, end: int) -> bytes:
    """SHA-256 of ``document[start:end]``; nothing of nothing. Neither hashes nor copies a text that is known."""
    size = end - start
    sample = document[start:end:251]
    known = _known.get(sample)
    if known is not None and len(known[0]) == size and document.startswith(known[0], start):
        return known[1]
    text = document[start:end]
    digest = hashlib.sha256(text).digest() if text else b""
    if len(_known) >= LIMIT:
        _known.clear()
    if size <= LONGEST:
        _known[sample] = text, digest
    return digest
