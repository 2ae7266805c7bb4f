"""A log that nobody reads holds up nobody: lines wait, then they are dropped and counted, and the end is not waited for."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.waiting import until

from adyton.broker.door.answer import Answer
from adyton.broker.door.connection import HttpRequest
from adyton.broker.running import outlet as outlets
from adyton.broker.running.journal import Journal
from adyton.broker.running.logs import Outgoing, missing
from adyton.broker.running.metrics import Metrics
from adyton.broker.running.outlet import Outlet

SOON = 10.0
FILLER = b"."


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    os.close(writer)
    os.close(reader)


@pytest.fixture
def full(pipe: tuple[int, int]) -> tuple[int, int]:
    """Nothing of what is written comes out before somebody reads, whichever thread runs first."""
    os.set_blocking(pipe[1], False)
    with suppress(BlockingIOError):
        while True:
            os.write(pipe[1], FILLER * 4096)
    os.set_blocking(pipe[1], True)
    return pipe


def told(count: int) -> bytes:
    return b"missing %d\n" % count


def read_all(reader: int, until_text: bytes) -> bytes:
    """Up to the end of the line with that text, without what filled the pipe before."""
    found = b""
    while until_text not in found or not found.endswith(b"\n"):
        found += os.read(reader, 1 << 16)
    return found.lstrip(FILLER)


def test_what_nobody_reads_waits_then_is_dropped_and_counted(full: tuple[int, int]) -> None:
    reader, writer = full
    outlet = Outlet(writer, told, most=200_000)
    line = b"x" * 999 + b"\n"
    began = time.monotonic()
    for _ in range(1000):
        outlet.put(line)
    assert not outlet.drain(0.05)
    assert time.monotonic() - began < SOON
    assert outlet.dropped == 800
    found = read_all(reader, b"missing 800\n")
    assert found.count(line) == 200 and outlet.drain(SOON)
    outlet.put(b"after\n")
    assert read_all(reader, b"after\n") == b"after\n"


def test_of_a_descriptor_that_never_waits_no_line_is_lost_or_cut(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    os.set_blocking(writer, False)  # as whoever shares standard error may have made it
    outlet = Outlet(writer, told)
    lines = [b"%06d %s\n" % (number, b"x" * 90) for number in range(3000)]  # four times what a pipe holds
    for line in lines:
        outlet.put(line)
    assert not outlet.drain(0.05)
    assert read_all(reader, lines[-1]) == b"".join(lines)
    assert outlet.drain(SOON) and not outlet.dropped


def test_lines_of_two_workers_on_one_pipe_are_whole(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    lines = {letter: b"%c" % letter * 150 + b"\n" for letter in b"ab"}
    for line in lines.values():
        Outlet(writer, told).put(line * 2000)
    found = b""
    while found.count(b"\n") < 4000:
        found += os.read(reader, 5000)  # slower than they write: the pipe is full most of the time
    assert set(found.splitlines(keepends=True)) == set(lines.values())


_FULL = """
import resource, sys
from adyton.broker.running.outlet import Outlet
file = open(sys.argv[1], "ab", buffering=0)
outlet = Outlet(file.fileno(), lambda count: b"missing")
most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, most))
for line in (b"a", b"b"):
    outlet.put((line * 299 + b"\\n") * 20)
    assert outlet.drain(10)
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
for line in (b"after", b"later"):
    outlet.put(line + b"\\n")
    assert outlet.drain(10)
"""


def test_after_a_line_that_was_cut_the_next_one_stands_alone(tmp_path: Path) -> None:
    """The disk was full, and is not any more."""
    subprocess.run([sys.executable, "-c", _FULL, str(tmp_path / "log")], check=True, timeout=60)
    lines = (tmp_path / "log").read_bytes().split(b"\n")
    assert lines == [b"a" * 299] * 3 + [b"a" * 100, b"after", b"later", b""]


def test_where_no_thread_could_begin_the_next_line_begins_one(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = pipe
    outlet = Outlet(writer, told)

    def refused(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", refused)
        outlet.put(b"one\n")
        assert not outlet.drain(0.01)
    outlet.put(b"two\n")
    assert outlet.drain(SOON)
    assert read_all(reader, b"two\n") == b"one\ntwo\n"


def test_a_reader_that_went_away_is_nobodys_trouble() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    outlet = Outlet(writer, told)
    for _ in range(10):
        outlet.put(b"line\n")
        assert outlet.drain(SOON)
    os.close(writer)
    outlet.put(b"line\n")
    assert outlet.drain(SOON)


def test_from_many_threads_each_line_is_whole(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file:
        outlet = Outlet(file.fileno(), told)

        def say(number: int) -> None:
            for i in range(500):
                outlet.put(b"%d %d\n" % (number, i))

        threads = [threading.Thread(target=say, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert outlet.drain(SOON)
    lines = (tmp_path / "log").read_bytes().splitlines()
    assert sorted(lines) == sorted(b"%d %d" % (n, i) for n in range(4) for i in range(500))
    assert [line for line in lines if line.startswith(b"2 ")] == [b"2 %d" % i for i in range(500)]


def test_the_thread_ends_and_begins_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlets, "IDLE_SECONDS", 0.01)
    with (tmp_path / "log").open("wb") as file:
        outlet = Outlet(file.fileno(), told)
        for count in range(1, 4):
            outlet.put(b"line\n")
            assert outlet.drain(SOON)
            until(lambda: outlet._thread is None)
            assert (tmp_path / "log").read_bytes() == b"line\n" * count


def test_after_a_fork_the_child_writes_its_own(tmp_path: Path) -> None:
    with (tmp_path / "log").open("ab") as file:
        outlet = Outlet(file.fileno(), told)
        outlet.put(b"parent\n")
        assert outlet.drain(SOON)
        child = os.fork()
        if not child:
            outlet.put(b"child\n")
            os._exit(0 if outlet.drain(SOON) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (tmp_path / "log").read_bytes() == b"parent\nchild\n"


def test_messages_and_the_line_about_those_that_are_missing(full: tuple[int, int]) -> None:
    reader, writer = full
    handler = Outgoing("json", writer)
    handler.outlet = Outlet(writer, lambda count: missing("json", count), most=200_000)
    logger = logging.getLogger("adyton.test.outlet")
    logger.propagate = False
    logger.addHandler(handler)
    try:
        for number in range(500):
            logger.error("%d %s", number, "x" * 1000)
        found = read_all(reader, b"missing here").splitlines()
    finally:
        logger.removeHandler(handler)
    assert handler.outlet.drain(SOON)
    last = json.loads(found[-1])
    kept = [json.loads(line) for line in found[:-1]]
    assert [int(one["message"].split()[0]) for one in kept] == list(range(len(kept)))
    assert last["level"] == "warning" and last["message"].startswith(f"{500 - len(kept)} lines")


def test_requests_are_counted_though_nobody_reads_their_lines(full: tuple[int, int]) -> None:
    metrics = Metrics()
    journal = Journal(full[1], metrics=metrics)
    journal._outlet._most = 300_000
    request = HttpRequest("GET", b"/kbs/v0/" + b"x" * 190, {b"host": b"x"}, b"", keep_alive=True, peer="192.0.2.1")

    async def many() -> float:
        slowest = 0.0
        for _ in range(30):
            for _ in range(200):
                journal.request(request, Answer(200), time.perf_counter())
            began = time.perf_counter()
            journal.flush()
            slowest = max(slowest, time.perf_counter() - began)
        return slowest

    assert asyncio.run(many()) < SOON
    found = metrics.snapshot({}, {}, {})
    assert sum(found.requests.values()) == 6000
    assert 0 < found.counters["log_lines_dropped"] == journal._outlet.dropped < 6000
    assert read_all(full[0], b"missing here").count(b"\n") == 6001 - journal._outlet.dropped


def test_a_broker_whose_log_nobody_reads_answers_and_ends(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "adyton",
        "broker",
        "serve",
        "--data",
        str(tmp_path / "d"),
        "--listen",
        "127.0.0.1:0",
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as broker:
        try:
            described = tmp_path / "d" / "broker.json"
            until(described.exists, seconds=60)
            address = urlsplit(json.loads(described.read_text())["public_url"])
            connection = HTTPConnection(address.hostname or "", address.port, timeout=60)
            for number in range(800):  # four times what a pipe holds
                connection.request("GET", f"/kbs/v0/resource/{'x' * 150}/{number}/none")
                answer = connection.getresponse()
                answer.read()
                assert answer.status in {400, 401, 403, 404}
            connection.close()
            broker.terminate()
            assert broker.wait(60) == 0
        finally:
            broker.kill()
