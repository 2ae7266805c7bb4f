"""Shares, peers' messages and backup manifests from strangers: a value, or an error of the tree."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports():
    from adyton.errors import AdytonError
    from adyton.protocol import backup, peers, shares

_READERS = (
    peers.parse_hello,
    peers.parse_welcome,
    peers.parse_join,
    peers.parse_given,
    shares.parse,
    shares.described,
    backup.parse,
)


def one(data: bytes) -> None:
    if not data:
        return
    try:
        _READERS[data[0] % len(_READERS)](data[1:])
    except AdytonError:
        return


atheris.Setup(sys.argv, one)
atheris.Fuzz()
