"""Keys, encrypted answers and tokens from strangers: one error for each, and a key that was read can be encrypted to."""

from __future__ import annotations

import contextlib
import json
import sys

import atheris

with atheris.instrument_imports(include=["adyton.crypto", "adyton.wire"]):
    from adyton.crypto import detached, jwe, jwk, jwt
    from adyton.errors import MalformedRequest, SessionInvalid, SignatureInvalid

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey

PRIVATE = ec.generate_private_key(ec.SECP256R1())
SIGNER = jwt.Signer.generate()
KEYS = {SIGNER.kid: SIGNER.private.public_key()}
NAMELESS = jwt.VerifyingKeys(KEYS, tuple(KEYS.values()))
QUANTUM = MLKEM768PrivateKey.generate()
GOOD = dict(jwk.from_public(PRIVATE.public_key()).members)


def one(data: bytes) -> None:
    provider = atheris.FuzzedDataProvider(data)
    changed: dict[str, object] = dict(GOOD)
    for _ in range(provider.ConsumeIntInRange(0, 3)):
        name = provider.PickValueInList(["kty", "crv", "alg", "x", "y", "n", "e", "d", "pub", "k-mod", "k-exp"])
        changed[name] = provider.ConsumeUnicodeNoSurrogates(90)
    rest = provider.ConsumeBytes(4096)
    for candidate in (changed, _json(rest)):
        try:
            key = jwk.parse(candidate)
        except MalformedRequest:
            continue
        assert jwk.parse(dict(key.members)).members == key.members
        jwe.encrypt(key, b"x")
        with contextlib.suppress(MalformedRequest):
            jwe.encrypt(jwk.parse(candidate, jwk.MODERN | {jwk.OLD_RSA_ALGORITHM}, oldest=True), b"x")
    with contextlib.suppress(MalformedRequest):
        jwe.decrypt(QUANTUM, rest)
    with contextlib.suppress(SessionInvalid):
        jwt.verify_any(rest.decode("latin-1"), NAMELESS, now=0)
    with contextlib.suppress(SessionInvalid):
        jwt.verifying_keys(rest)
    with contextlib.suppress(SignatureInvalid):
        detached.verify(rest.decode("latin-1"), b"payload", "fuzz")
        raise AssertionError("nobody signed it")
    with contextlib.suppress(SessionInvalid):
        jwt.unverified_issuer(rest.decode("latin-1"))
    with contextlib.suppress(MalformedRequest):
        jwe.decrypt(PRIVATE, rest)
    with contextlib.suppress(SessionInvalid):
        jwt.verify(rest.decode("latin-1"), KEYS, now=0)


def _json(data: bytes) -> object:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
