"""What one client of gRPC may cost: nobody else's answer, and no more than was said."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.broker.services import http2
from tests.broker.services.http2 import Raw
from tests.broker.services.service_rig import Service, healthy, own_channel, silent
from tests.waiting import LONG, until

QUERY = "/reference.ReferenceValueProviderService/QueryReferenceValue"

SOON = 8.0  # seconds; who says nothing may stay for ten


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    place = tmp_path_factory.mktemp("bounds")
    arguments = ("--grpc", "127.0.0.1:0", "--max-body", "100000", "--max-connections", "40")
    running = Service(place / "data", arguments, ("reference", "serve")).start()
    yield running
    assert "Traceback" not in running.log()
    assert running.stop() == 0


@pytest.fixture
def good(service: Service) -> Iterator[Any]:
    with own_channel(service) as channel:
        assert healthy(channel)
        yield channel


def memory(service: Service) -> int:
    """Bytes that its process holds."""
    assert service.process is not None
    text = Path(f"/proc/{service.process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+)", text)
    assert found is not None
    return int(found.group(1)) * 1024


def status(channel: Any, body: bytes, **more: Any) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(QUERY)(body, timeout=LONG, **more)
    error: Any = caught.value
    return error.code().name, error.details()


def test_silent_calls_of_many_connections_keep_nobody_waiting(service: Service, good: Any) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            silent(stack.enter_context(own_channel(service)), 32)
            until(lambda: healthy(good), SOON)
        for _ in range(20):
            until(lambda: healthy(good), SOON)


def test_many_at_once_are_all_answered(service: Service) -> None:
    """More than may wait, for a while: none is taken for one that only waits."""

    def ask(channel: Any) -> int:
        return sum(channel.unary_unary(QUERY)(b"", timeout=LONG) == b"" for _ in range(25))

    with own_channel(service) as one, own_channel(service) as two, ThreadPoolExecutor(40) as pool:
        assert sum(pool.map(ask, [one, two] * 20)) == 40 * 25


def test_whoever_reads_no_answer_keeps_nobody_waiting(service: Service, good: Any) -> None:
    """Neither behind a window of nothing, nor where nobody takes the bytes off the socket."""
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            raw = stack.enter_context(Raw(service.said["gRPC"], window=0))
            for _ in range(30):
                raw.ask()
            until(lambda: healthy(good), SOON)
        for _ in range(20):
            until(lambda: healthy(good), SOON)


@pytest.mark.slow
def test_whoever_reads_no_answer_is_sent_away(service: Service) -> None:
    with Raw(service.said["gRPC"], window=0) as raw:
        stream = raw.ask()
        raw.socket.settimeout(LONG)
        kinds = [(kind, number) for kind, _, number, _ in raw.frames(http2.RST_STREAM, stream)]
        assert (http2.RST_STREAM, stream) in kinds


def test_a_message_over_the_limit(service: Service, good: Any) -> None:
    assert status(good, b"x" * 100_001)[0] == "RESOURCE_EXHAUSTED"
    # Announced, and never sent: refused when it is announced.
    with Raw(service.said["gRPC"]) as raw:
        stream = raw.ask(QUERY, None)
        raw.send(http2.frame(http2.DATA, 0, stream, b"\x00\xff\xff\xff\xff"))
        kinds = [kind for kind, _, number, _ in raw.frames(http2.RST_STREAM, stream) if number == stream]
        assert kinds and kinds[-1] in {http2.HEADERS, http2.RST_STREAM}
    assert healthy(good)


def test_a_message_that_grows_when_it_is_unpacked(service: Service) -> None:
    before = memory(service)
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
    for compression in (grpc.Compression.Gzip, grpc.Compression.Deflate):
        with grpc.insecure_channel(service.said["gRPC"], options=options, compression=compression) as channel:
            assert status(channel, bytes(80_000_000))[0] == "RESOURCE_EXHAUSTED"
            assert healthy(channel)
    assert memory(service) < before + 40_000_000


def test_headers_over_the_limit(service: Service, good: Any) -> None:
    for metadata in ([("x", "y" * 17_000)], [(f"x{number}", "y" * 100) for number in range(300)]):
        assert status(good, b"", metadata=metadata)[0] == "RESOURCE_EXHAUSTED"
    before = memory(service)
    with Raw(service.said["gRPC"]) as raw:  # a head that has no end
        raw.send(http2.frame(http2.HEADERS, 0, 1, http2.head(QUERY)))
        piece = b"".join(http2.header(f"x{number}", "y" * 100) for number in range(120))
        for _ in range(2000):
            raw.send(http2.frame(http2.CONTINUATION, 0, 1, piece))
        assert raw.ended(5) or memory(service) < before + 20_000_000
    assert healthy(good)


def test_more_calls_of_a_connection_than_are_served_at_once(service: Service, good: Any) -> None:
    with Raw(service.said["gRPC"]) as raw:
        for _ in range(200):
            raw.ask(QUERY, None)
        frames = raw.frames(http2.RST_STREAM)
        assert any(kind in {http2.RST_STREAM, http2.GOAWAY} for kind, *_ in frames)
        until(lambda: healthy(good), SOON)


def test_calls_that_are_taken_back_as_soon_as_they_are_made(service: Service, good: Any) -> None:
    before = memory(service)
    with Raw(service.said["gRPC"]) as raw:
        for _ in range(20):
            for _ in range(200):
                stream = raw.ask(QUERY, None)
                raw.send(http2.frame(http2.RST_STREAM, 0, stream, b"\x00\x00\x00\x08"))
            until(lambda: healthy(good), SOON)
    assert memory(service) < before + 40_000_000
    until(lambda: healthy(good))


def test_pings_without_end_close_the_connection(service: Service, good: Any) -> None:
    with Raw(service.said["gRPC"]) as raw:
        raw.ask(QUERY, None)
        for number in range(50):
            raw.send(http2.frame(http2.PING, 0, 0, number.to_bytes(8, "big")))
        said = raw.frames(http2.GOAWAY)
        assert said[-1][0] == http2.GOAWAY and b"too_many_pings" in said[-1][3]
    assert healthy(good)


def test_more_connections_than_may_stand(service: Service, good: Any) -> None:
    with contextlib.ExitStack() as stack:
        raws = [stack.enter_context(Raw(service.said["gRPC"])) for _ in range(60)]
        until(lambda: sum(raw.ended(0.01) for raw in raws) >= 20)
        assert sum(raw.ended(0.05) for raw in raws) < 60
        assert healthy(good)
    until(lambda: healthy(good))


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 1000, http2.PREFACE + b"\xff" * 100])
def test_what_is_not_http2(service: Service, good: Any, garbage: bytes) -> None:
    with Raw(service.said["gRPC"], preface=False) as raw:
        raw.send(garbage)
        assert raw.ended(LONG)
    assert healthy(good)


def test_a_call_of_no_method_and_of_no_service(service: Service, good: Any) -> None:
    for path in ("/attestation.AttestationService/AttestationEvaluate", "/grpc.health.v1.Health/Watch", "/", "/x/y"):
        with pytest.raises(grpc.RpcError) as caught:
            good.unary_unary(path)(b"", timeout=LONG)
        error: Any = caught.value
        assert error.code() == grpc.StatusCode.UNIMPLEMENTED
    with pytest.raises(grpc.RpcError) as caught:
        good.unary_unary("/grpc.health.v1.Health/Check")(b"\x0a\x01x", timeout=LONG)
    error = caught.value
    assert error.code() == grpc.StatusCode.NOT_FOUND


@pytest.mark.slow
def test_a_connection_that_says_nothing(service: Service) -> None:
    with Raw(service.said["gRPC"], preface=False) as raw:
        assert raw.ended(20)
