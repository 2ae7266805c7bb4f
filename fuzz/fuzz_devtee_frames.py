"""Frames of the development TEE's protocol: any bytes are a message or ``MalformedRequest``, never anything else.

What decodes is encoded and decoded again to the same message.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports():
    from adyton.errors import MalformedRequest
    from adyton.protocol import devtee

MESSAGES = (
    *(devtee.Run("d", volumes={"/a": "b"}, publish=[devtee.Publish(80)], env={"A": "b"}), devtee.Logs("i", True)),
    *(devtee.Stop("i", 1.5), devtee.About(), devtee.Signal(15), devtee.Started("i", "00"), devtee.Phase("p", total=3)),
    *(
        devtee.Running([devtee.Publish(1)]),
        devtee.Failed({"code": "c", "got": [None, 1, {"x": 1.5}]}),
        devtee.Exited(0),
    ),
    *(
        devtee.Output("stdout", b"abc"),
        devtee.ReportRequest(bytes(64)),
        devtee.Report(b"r", [devtee.Certificate("VCEK", b"c")]),
    ),
)
SEEDS = [devtee.frame(message)[4:] for message in MESSAGES]
TOKENS = [
    *(
        b"null",
        b"true",
        b"-1",
        b"1e400",
        b"[]",
        b"{}",
        b'""',
        b'"\\ud800"',
        b",",
        b":",
        b"[[",
        b"}}",
        b"NaN",
        b"=",
        b"\xff",
    ),
    *(b"99999999999999999999", b'"type":"Run",', b'"type":"Failed",', b'"error":', b'"x":' + b"[" * 2000),
]
DECODERS = (devtee.CONTROL_REQUEST, devtee.CONTROL_REPLY, devtee.TO_AGENT, devtee.FROM_AGENT)


def altered(data: bytes) -> bytes:
    """A message near a valid one: tokens put in, pieces cut out."""
    provider = atheris.FuzzedDataProvider(data)
    body = provider.PickValueInList(SEEDS)
    for _ in range(provider.ConsumeIntInRange(0, 5)):
        position = provider.ConsumeIntInRange(0, len(body))
        cut = provider.ConsumeIntInRange(0, 12)
        body = body[:position] + provider.PickValueInList(TOKENS) + body[position + cut :]
    return bytes(body)


def one(data: bytes) -> None:
    check(data)
    check(altered(data))


def check(data: bytes) -> None:
    try:
        if len(data) >= devtee.HEADER.size:
            assert 0 <= devtee.body_length(data[: devtee.HEADER.size]) <= devtee.MAX_FRAME
    except MalformedRequest:
        pass
    for decoder in DECODERS:
        try:
            message = devtee.decode(decoder, data)
        except MalformedRequest:
            continue
        framed = devtee.frame(message)
        assert devtee.body_length(framed[:4]) == len(framed) - 4
        assert devtee.decode(decoder, framed[4:]) == message


def main() -> None:
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
