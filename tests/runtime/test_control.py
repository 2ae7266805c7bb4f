"""The control connection: errors come back as themselves, and a service that misbehaves or does not start is said."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import msgspec
import pytest

from adyton import errors
from adyton.errors import AdytonError, MalformedRequest, PlatformError, Unavailable
from adyton.protocol import devtee
from adyton.runtime.attached import Streams, attached, exit_status
from adyton.runtime.control import Control, failed, failure
from adyton.runtime.progress import Quiet
from adyton.runtime.service import Service, connect


@pytest.fixture
def pair() -> tuple[Control, socket.socket]:
    ours, theirs = socket.socketpair()
    return Control(ours), theirs


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x00",
        b"\x00\x00\x00\x05abc",
        b"\xff\xff\xff\xff",
        b"\x00\x00\x00\x02{}",
        b'\x00\x00\x00\x10{"type": "Wrong"}',
    ],
)
def test_a_service_that_talks_nonsense(pair: tuple[Control, socket.socket], data: bytes) -> None:
    control, service = pair
    with control:
        service.sendall(data)
        service.close()
        with pytest.raises((MalformedRequest, Unavailable)):
            control.receive()


def test_the_end_is_the_end(pair: tuple[Control, socket.socket]) -> None:
    control, service = pair
    service.close()
    assert control.receive() is None
    with pytest.raises(Unavailable):
        control.ask(devtee.About())
    control.close()


LEAVES = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, AdytonError) and kind not in {errors.ReleaseRefused, errors.TooMany}
]


@pytest.mark.parametrize("kind", LEAVES)
def test_errors_survive_the_wire(kind: type[AdytonError]) -> None:
    error = kind("message", code="code", field="field", expected=[1], got=b"\x01", spec="spec", hint="hint")
    frame = devtee.frame(failed(error))[4:]
    reply = devtee.decode(devtee.CONTROL_REPLY, frame)
    assert isinstance(reply, devtee.Failed)
    back = failure(reply)
    assert type(back) is kind
    assert back.as_dict() == error.as_dict()


def test_reasons_survive_the_wire() -> None:
    back = failure(failed(errors.ReleaseRefused("no", reasons=("one", "two"), code="c", hint="h")))
    assert isinstance(back, errors.ReleaseRefused)
    assert back.reasons == ("one", "two")
    assert isinstance(failure(failed(errors.TooMany("later", retry_after=3))), errors.TooMany)


@pytest.mark.parametrize("told", [{}, {"kind": "SystemExit"}, {"kind": "annotations"}, {"kind": 5, "message": []}])
def test_strange_errors_are_still_errors(told: dict[str, object]) -> None:
    assert type(failure(devtee.Failed(told))) is AdytonError


def test_descriptors_travel_with_the_first_frame(pair: tuple[Control, socket.socket]) -> None:
    control, service = pair
    read, write = os.pipe()
    with control, service:
        control.send(devtee.Run(document="x"), (read, write, write))
        data, descriptors, _, _ = socket.recv_fds(service, 1 << 16, 3)
        assert len(descriptors) == 3
        message = devtee.decode(devtee.CONTROL_REQUEST, data[4:])
        assert isinstance(message, devtee.Run)
        os.write(descriptors[1], b"through")
        assert os.read(read, 10) == b"through"
    for descriptor in (read, write, *descriptors):
        os.close(descriptor)


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (devtee.Failed({"code": "command_not_found", "kind": "ImageError"}), 127),
        (devtee.Failed({"code": "command_not_invocable", "kind": "ImageError"}), 126),
        (devtee.Failed({"code": "anything", "kind": "ReleaseRefused"}), 125),
        (devtee.Exited(77), 77),
    ],
)
def test_statuses(pair: tuple[Control, socket.socket], reply: msgspec.Struct, status: int) -> None:
    control, service = pair

    def serve() -> None:
        with service:
            for descriptor in socket.recv_fds(service, 1 << 16, 3)[1]:
                os.close(descriptor)
            for message in (devtee.Started("id", "00"), devtee.Phase("document"), reply):
                service.sendall(devtee.frame(message))

    thread = threading.Thread(target=serve)
    thread.start()
    with control:
        try:
            got = attached(control, devtee.Run(document=""), Streams(0, 1, 2), Quiet())
        except AdytonError as error:
            got = exit_status(error)
    thread.join()
    assert got == status


def test_what_the_service_said_before_it_left_is_heard(pair: tuple[Control, socket.socket]) -> None:
    control, service = pair
    with service:
        service.sendall(devtee.frame(failed(PlatformError("no room here", code="no_room"))))
    with control, pytest.raises(PlatformError) as caught:
        attached(control, devtee.Run(document=""), Streams(0, 1, 2), Quiet())
    assert caught.value.code == "no_room"


def test_a_service_that_leaves_is_not_a_success(pair: tuple[Control, socket.socket]) -> None:
    control, service = pair
    service.shutdown(socket.SHUT_WR)
    with control, service, pytest.raises(Unavailable):
        attached(control, devtee.Run(document=""), Streams(0, 1, 2), Quiet())


def test_a_service_that_does_not_start(tmp_path: Path) -> None:
    said: list[str] = []
    command = ["-c", "import sys; print('no erofs here', file=sys.stderr); sys.exit(1)"]
    with pytest.raises(PlatformError) as caught:
        connect(Service(tmp_path / "socket", command, tmp_path / "deep" / "log"), said.append)
    assert caught.value.code == "platform_start_failed"
    assert caught.value.got == "no erofs here"
    assert len(said) == 1
