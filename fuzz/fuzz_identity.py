"""Tokens of administrators and what an identity provider answers: somebody is known only by a signature of a listed key."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable

import atheris

with atheris.instrument_imports(include=["adyton"]):
    from adyton.broker.people.identity import Identities, check_provider
    from adyton.crypto import jws
    from adyton.errors import AdytonError
    from adyton.protocol.people import Mapped, ProviderBody
    from adyton.wire import b64

import contextlib

from cryptography.hazmat.primitives.asymmetric import ed25519

KEY = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
ISSUER = "https://id.example.org"
PROVIDER = ProviderBody(ISSUER, "adyton", roles={"root": Mapped("owner")}, algorithms=("EdDSA", "RS256", "ES256"))
NOW = 1_750_000_000.0
CLAIMS = {"iss": ISSUER, "aud": "adyton", "sub": "somebody", "iat": int(NOW), "exp": int(NOW) + 60}
SIGNED = jws.sign(KEY, CLAIMS)
HEAD = b64.encode_url(json.dumps({"alg": "EdDSA"}).encode())
DISCOVERY = json.dumps({"issuer": ISSUER, "jwks_uri": ISSUER + "/keys"}).encode()
logging.disable(logging.CRITICAL)


def tokens(data: bytes) -> list[str]:
    text, encoded = data.decode("latin-1"), b64.encode_url(data)
    head, payload, signature = SIGNED.split(".")
    return [
        text,
        f"{encoded}.{payload}.{signature}",
        f"{head}.{encoded}.{signature}",
        f"{head}.{payload}.{encoded}",
        f"{HEAD}.{encoded}.{b64.encode_url(KEY.sign(f'{HEAD}.{encoded}'.encode()))}",
    ]


def answering(discovery: bytes, listed: bytes, said: bytes) -> Callable[[str, str], tuple[bytes, str]]:
    def fetch(url: str, _: str) -> tuple[bytes, str]:
        return discovery if url.endswith("openid-configuration") else listed, said.decode("latin-1")

    return fetch


def one(data: bytes) -> None:
    try:
        for key in jws.read_set(data):
            assert key.kid and set(key.algorithms) <= set(jws.ALGORITHMS)
    except (ValueError, RecursionError):
        pass
    for token in tokens(data):
        try:
            parsed = jws.parse(token)
            jws.check_times(parsed.claims, NOW)
            jws.verify(parsed, [jws.trusted(KEY.public_key())])
        except AdytonError:
            continue
        assert token == SIGNED or token.startswith(f"{HEAD}."), "a stranger's token was believed"
    parsed = jws.parse(SIGNED)
    for discovery, listed in ((data, b'{"keys":[]}'), (DISCOVERY, data)):
        identities = Identities(answering(discovery, listed, data))
        try:
            identities.know("id", PROVIDER, parsed, NOW)
        except AdytonError:
            continue
        raise AssertionError("an answer of nobody's made somebody known")
    text = data.decode("utf-8", "replace")
    for body in (ProviderBody(text, "adyton"), ProviderBody(ISSUER, "adyton", ca=text)):
        with contextlib.suppress(AdytonError):
            check_provider("id", body)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
