"""The attester's client against a real broker, and against servers that misbehave."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from tests import ports
from tests.broker import rig
from tests.waiting import LONG

from adyton.client.address import BrokerAddress
from adyton.client.handshake import BrokerKeys, Session
from adyton.client.transport import MAX_ANSWER, Transport
from adyton.devtee.root import DevelopmentRoot
from adyton.errors import (
    AdytonError,
    DecryptionFailed,
    MalformedRequest,
    NotFound,
    ReleaseRefused,
    TooLarge,
    Unavailable,
)
from adyton.protocol.resource import ResourcePath

KEY = ResourcePath("default", "key", "1")


@contextlib.contextmanager
def faulty(answer: Callable[[bytes], bytes]) -> Iterator[BrokerAddress]:
    """A server that answers every request with the bytes that ``answer`` gives, then closes."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client, contextlib.suppress(OSError):
                client.settimeout(LONG)
                client.sendall(answer(client.recv(65536)))
                client.shutdown(socket.SHUT_WR)
                while client.recv(65536):  # a close with something unread would be a reset
                    pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield BrokerAddress(f"http://127.0.0.1:{listener.getsockname()[1]}")
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(LONG)


def http(status: int, body: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def error(text: str) -> bytes:
    return json.dumps({"type": "https://x/PolicyDeny", "detail": text}).encode()


def test_one_attestation_serves_many_resources(broker: rig.RunningBroker, root: DevelopmentRoot) -> None:
    attester = rig.attester(root)
    with Session(broker.address(), attester, rig.document().raw) as session:
        for _ in range(3):
            assert session.resource(KEY) == bytes(range(32))
        assert session.token().count(".") == 2
    assert attester.collected == 1


def test_a_session_that_the_broker_forgot_is_made_anew_once(broker: rig.RunningBroker, root: DevelopmentRoot) -> None:
    attester = rig.attester(root)
    with Session(broker.address(), attester, rig.document().raw) as session:
        session.resource(KEY)
        broker.publish()  # a change of rules ends sessions
        assert session.resource(KEY) == bytes(range(32))
        assert attester.collected == 2
        broker.publish(snp_launch_measurement=[])
        with pytest.raises(ReleaseRefused) as refused:
            session.resource(KEY)
        assert refused.value.code == "release_refused"
        assert attester.collected == 3
        broker.publish()


def test_refused_evidence(broker: rig.RunningBroker, tmp_path_factory: pytest.TempPathFactory) -> None:
    foreign = rig.make_root(tmp_path_factory.mktemp("foreign"))
    attester = rig.attester(foreign)
    with Session(broker.address(), attester, rig.document().raw) as session:
        with pytest.raises(ReleaseRefused) as refused:
            session.resource(KEY)
        assert refused.value.code == "evidence_refused"
        assert "untrusted" in str(refused.value)
    assert attester.collected == 1


def test_image_keys(broker: rig.RunningBroker, root: DevelopmentRoot) -> None:
    attester = rig.attester(root)
    with Session(broker.address(), attester, rig.document().raw) as session:
        keys = BrokerKeys(session)
        assert keys.key("kbs:///default/key/1") == bytes(range(32))
        assert keys.key("kbs:///default/key/1") == bytes(range(32))
        with pytest.raises(DecryptionFailed):
            keys.key("kbs:///default/text/1")
        with pytest.raises(MalformedRequest):
            keys.key("kbs:///../key/1")


def test_nobody_there() -> None:
    with (
        Transport(BrokerAddress(f"http://127.0.0.1:{ports.reserve()}")) as transport,
        pytest.raises(Unavailable) as refused,
    ):
        transport.request("GET", "/")
    assert refused.value.code == "broker_unreachable"


def test_nobody_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = BrokerAddress(f"http://127.0.0.1:{listener.getsockname()[1]}")
        with Transport(address, timeout=0.3) as transport, pytest.raises(Unavailable):
            transport.request("GET", "/")


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"", Unavailable),
        (b"\x16\x03\x01", Unavailable),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", Unavailable),
        (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200 + b"\r\n", Unavailable),
        (b"HTTP/1.1 200 OK\r\nA: " + b"a" * 70_000 + b"\r\n\r\n", Unavailable),
        (http(200, b"{}"), MalformedRequest),
        (http(200, b"[" * 9000), MalformedRequest),
        (http(200, b'{"nonce":"","extra-params":""}'), MalformedRequest),
        (http(200, b'{"nonce":"x","extra-params":{"selected-hash-algorithm":"md5"}}'), MalformedRequest),
        (http(401, error("no")), ReleaseRefused),
        (http(401, b"<html>no</html>"), ReleaseRefused),
        (http(403, error("no")), ReleaseRefused),
        (http(404, error("no")), NotFound),
        (http(500, b""), Unavailable),
        (http(302, b"", "Location: http://example.invalid/"), Unavailable),
    ],
)
def test_servers_that_misbehave(root: DevelopmentRoot, answer: bytes, kind: type[AdytonError]) -> None:
    with faulty(lambda _: answer) as address, Session(address, rig.attester(root), timeout=LONG) as session:
        with pytest.raises(kind) as refused:
            session.resource(KEY)
        assert len(str(refused.value)) < 900


def test_an_answer_without_end(root: DevelopmentRoot) -> None:
    body = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + bytes(MAX_ANSWER + 10)
    with faulty(lambda _: body) as address, Session(address, rig.attester(root)) as session, pytest.raises(TooLarge):
        session.resource(KEY)


def test_control_characters_in_a_refusal_do_not_reach_the_terminal(root: DevelopmentRoot) -> None:
    answer = http(403, error("\x1b[2J\n\rfake"))
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(faulty(lambda _: answer))
        session = stack.enter_context(Session(address, rig.attester(root)))
        refused = stack.enter_context(pytest.raises(ReleaseRefused))
        session.resource(KEY)
    assert str(refused.value).isprintable()


def test_a_busy_broker_is_waited_for(root: DevelopmentRoot) -> None:
    calls = []

    def answer(_: bytes) -> bytes:
        calls.append(1)
        return http(429, error("busy"), "Retry-After: 0") if len(calls) < 3 else http(403, error("no"))

    with faulty(answer) as address, Session(address, rig.attester(root)) as session, pytest.raises(ReleaseRefused):
        session.resource(KEY)
    assert len(calls) == 3


def test_a_cookie_of_what_stands_in_front_does_not_hide_the_brokers(root: DevelopmentRoot) -> None:
    asked: list[bytes] = []

    def answer(request: bytes) -> bytes:
        asked.append(request)
        if request.startswith(b"POST /kbs/v0/auth"):
            ours, theirs = "Set-Cookie: kbs-session-id=ours; Path=/kbs", "Set-Cookie: AWSALB=theirs; Path=/"
            return http(200, b'{"nonce":"AAAA","extra-params":""}', theirs, ours, theirs)
        return http(403, error("no"))

    with faulty(answer) as address, Session(address, rig.attester(root)) as session, pytest.raises(ReleaseRefused):
        session.resource(KEY)
    assert b"Cookie: kbs-session-id=ours\r\n" in asked[1]


def test_a_kept_connection_that_was_closed_is_opened_anew(broker: rig.RunningBroker, root: DevelopmentRoot) -> None:
    with Session(broker.address(), rig.attester(root), rig.document().raw) as session:
        session.resource(KEY)
        connection = session._transport._connection
        assert connection is not None
        connection.sock.shutdown(socket.SHUT_RDWR)
        assert session.resource(KEY) == bytes(range(32))
