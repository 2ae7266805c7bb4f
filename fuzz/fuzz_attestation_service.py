"""Requests to the attestation service over both wires: whatever arrives is read or is one error of the tree."""

from __future__ import annotations

import base64
import contextlib
import json
import sys

import atheris

with atheris.instrument_imports(include=["adyton.protocol", "adyton.wire", "adyton.rats"]):
    from adyton.errors import AdytonError
    from adyton.protocol import attestation_service as wire
    from adyton.protocol import reference_messages
    from adyton.wire import strict_json

from google.protobuf.message import DecodeError

from adyton.protocol.grpc import attestation_pb2, reference_pb2

HEAD = b'{"policy_ids":[],"verification_requests":[{"tee":"snp","evidence":"e30","runtime_data":'


def made(provider: atheris.FuzzedDataProvider) -> bytes:
    """A request of the right form with parts that a fuzzer chooses."""

    def text() -> str:
        return str(provider.ConsumeUnicodeNoSurrogates(40))

    def encoded() -> str:
        return base64.urlsafe_b64encode(provider.ConsumeBytes(80)).rstrip(b"=").decode()

    runtimes = [{"raw": encoded()}, {"structured": {"nonce": text(), text(): [text()]}}, {}, None, {"raw": text()}]
    inits = [{"init_data_toml": text()}, {"init_data_digest": encoded()}, {}, None]
    pieces = []
    for _ in range(provider.ConsumeIntInRange(0, 3)):
        one = {
            "tee": provider.PickValueInList(["snp", "tdx", "se", "tpm", "sample", text()]),
            "evidence": encoded(),
            "runtime_data": provider.PickValueInList(runtimes),
            "init_data": provider.PickValueInList(inits),
            "runtime_data_hash_algorithm": provider.PickValueInList(["sha256", "sha384", "sha512", None, text()]),
        }
        pieces.append({name: value for name, value in one.items() if value is not None})
    return json.dumps({"verification_requests": pieces, "policy_ids": [text()]}).encode()


def registered(data: bytes) -> None:
    """A message of reference values: as it came, and of the right form around a payload that a fuzzer chooses."""
    provider = atheris.FuzzedDataProvider(data)
    form = {"version": "0.1.0", "type": provider.PickValueInList(list(reference_messages.TYPES))}
    payload = {"payload": str(provider.ConsumeUnicodeNoSurrogates(200))}
    for body in (data, json.dumps(form | payload).encode()):
        with contextlib.suppress(AdytonError, ValueError):
            given = strict_json.parse(body, max_size=reference_messages.MAX_SIZE)
            if isinstance(given, dict):
                message = reference_messages.read(given)
                assert message.values() if message.kind == reference_messages.SAMPLE else message.document()


def one(data: bytes) -> None:
    registered(data)
    for body in (data, HEAD + data + b"}]}", made(atheris.FuzzedDataProvider(data))):
        with contextlib.suppress(AdytonError):
            read = wire.parse(body)
            assert read.pieces and read.policy_id
            for piece in read.pieces:
                assert piece.expected is None or any(piece.expected.value)
                with contextlib.suppress(AdytonError):
                    _ = piece.init_field
        for kind in (wire.PolicyBody, wire.ChallengeBody):
            with contextlib.suppress(AdytonError):
                wire.unambiguous(body, kind)
    with contextlib.suppress(AdytonError):
        json.dumps(wire.structured(data.decode("latin-1")))
    for message in (attestation_pb2.AttestationRequest, reference_pb2.ReferenceValueRegisterRequest):
        with contextlib.suppress(DecodeError):
            message.FromString(data)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
