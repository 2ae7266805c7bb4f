"""Bodies of the handshake: whatever arrives is read or is ``MalformedRequest``; what was read can be bound."""

from __future__ import annotations

import contextlib
import sys

import atheris

with atheris.instrument_imports(include=["adyton.protocol", "adyton.wire", "adyton.crypto.jwk"]):
    from adyton.errors import MalformedRequest
    from adyton.protocol import kbs_errors, rcar
    from adyton.wire import b64

from cryptography.hazmat.primitives.asymmetric import rsa

SEED = (
    b'{"init-data":{"format":"toml","body":"x"},"runtime-data":{"nonce":"AAAA","tee-pubkey":{"kty":"EC","crv":"P-256",'
    b'"alg":"ECDH-ES+A256KW","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":'
    b'"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}},"tee-evidence":{"primary_evidence":'
)
OLDER = (
    b'{"tee-pubkey":{"kty":"EC","crv":"P-256","alg":"ECDH-ES+A256KW","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",'
    b'"y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"},"tee-evidence":'
)
NUMBER = b64.encode_url(rsa.generate_private_key(65537, 2048).public_key().public_numbers().n.to_bytes(256))
OLDEST = b'{"tee-pubkey":{"alg":"RSA1_5","k-exp":"AQAB","k-mod":"' + NUMBER.encode() + b'"},"tee-evidence":'


def one(data: bytes) -> None:
    kbs_errors.decode(data)
    for body in (data, SEED + data + b',"additional_evidence":""}}'):
        for parse in (rcar.parse_request, rcar.parse_challenge, rcar.parse_token):
            with contextlib.suppress(MalformedRequest):
                parse(body)
        for version in rcar.VERSIONS[:-1]:
            for older in (
                body,
                OLDER + data + b"}",
                OLDER + b'{"primary_evidence":' + data + b',"additional_evidence":""}}',
                OLDEST + data + b"}",
            ):
                with contextlib.suppress(MalformedRequest):
                    found = rcar.parse_older(older, version, "AAAA", rsa1_5=True)
                    assert len(found.report_data("sha384").value) == 64
                    assert version == rcar.OLDEST or found.primary in older
        try:
            read = rcar.parse_attestation(body)
        except MalformedRequest:
            continue
        assert len(read.report_data("sha384").value) == 64
        assert read.primary in body


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
