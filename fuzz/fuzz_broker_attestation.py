"""What owners and brokers say to each other before the first secret: a value or an error of ours, whatever the bytes."""

from __future__ import annotations

import contextlib
import sys

import atheris
import msgspec

with atheris.instrument_imports():
    from adyton.errors import AdytonError
    from adyton.protocol import broker_attestation as wire

SEED = wire.Facts("", wire.digest(b"{}"), "l+00000000+AA==", "test")


def one(data: bytes) -> None:
    with contextlib.suppress(AdytonError):
        assert len(wire.parse_challenge(data).nonce) == 32
    nonce = data[:32].ljust(32, b"\0")
    whole = wire.write(wire.Proof(wire.VERSION, SEED, [nonce], b"{}", "snp", msgspec.Raw(b"{}")))
    at = data[0] % len(whole) if data else 0
    for body in (data, whole[:at] + data[1:] + whole[at + 1 :]):
        try:
            found = wire.parse_proof(body)
        except AdytonError:
            continue
        assert found.canonical == wire.bound(found.facts, found.nonces)
        assert wire.parse_proof(wire.write(found)) == found
        with contextlib.suppress(AdytonError):
            wire.check_nonce(found, nonce)
        with contextlib.suppress(AdytonError):
            assert found.facts.log_key.text()


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
