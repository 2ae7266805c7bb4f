"""The report channel of an instance: an answer that comes too late is never the answer to another question."""

from __future__ import annotations

import os
import socket

import pytest

from adyton.attesters import report_socket
from adyton.attesters.report_socket import ReportSocket
from adyton.errors import ConfigError, Unavailable
from adyton.protocol import devtee
from adyton.protocol.devtee import Report


def test_a_late_answer_is_nobody_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_socket, "TIMEOUT", 0.05)
    ours, platform = socket.socketpair()
    channel = ReportSocket(os.dup(ours.fileno()))
    with pytest.raises(Unavailable):
        channel.report(b"first" + bytes(59))
    with platform, ours:
        platform.sendall(devtee.frame(Report(report=b"of the first", certificates=[])))
        with pytest.raises(Unavailable) as caught:
            channel.report(b"second" + bytes(58))
    assert caught.value.code == "report_failed"


def test_an_answer_that_is_cut_off_or_no_message() -> None:
    for said in (b"", b"\0", b"\xff" * 8, devtee.frame(Report(report=b"r", certificates=[]))[:-1]):
        ours, platform = socket.socketpair()
        channel = ReportSocket(ours.detach())
        platform.sendall(said)
        platform.shutdown(socket.SHUT_WR)
        with platform, pytest.raises(Unavailable):
            channel.report(bytes(64))


def test_there_must_be_a_channel() -> None:
    with pytest.raises(ConfigError):
        ReportSocket(999_999)
