"""Keys, ciphertexts and release policies from strangers: a value or an error of ours, whatever the bytes."""

from __future__ import annotations

import contextlib
import sys

import atheris

with atheris.instrument_imports():
    from adyton.crypto import key_import, key_kinds, transit
    from adyton.crypto.key_kinds import Kind
    from adyton.errors import AdytonError
    from adyton.protocol import aecs

KINDS = [kind for kind in Kind if kind.operations and not kind.rsa_bits]
KEYS = {kind: key_kinds.generate(kind) for kind in KINDS}
FORMATS: tuple[key_import.Format, ...] = ("pem", "der", "jwk", "raw")


def one(data: bytes) -> None:
    if len(data) < 2:
        return
    kind, form, rest = KINDS[data[0] % len(KINDS)], FORMATS[data[1] % 4], data[2:]
    try:
        secret, _ = key_import.read(kind, form, rest)
        assert key_import.read(kind, "raw" if kind.size else "der", secret)[0] == secret
    except AdytonError:
        pass
    text = rest.decode("latin-1")
    for opened in (transit.decrypt, transit.unwrap):
        try:
            opened(kind, KEYS[kind], text, b"")
        except AdytonError:
            pass
        else:
            raise AssertionError("a stranger's text opened")
    with contextlib.suppress(AdytonError):
        assert aecs.read(rest)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
