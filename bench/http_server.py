"""The broker's HTTP server against the two that could have been it: CPU of the whole server process per request.

Each server answers 200 with a short JSON body after reading the request's, over loopback HTTP/1.1, keep-alive, one
worker; the floor is the broker's own. Requests carry 0 bytes or 11.6 kB, the size of an attestation with one
certificate. CPU is the kernel's account of all threads of the server (``/proc/<pid>/task/*/schedstat``, nanoseconds),
rounds alternate between the servers, the median counts.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import signal
import socket
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

SERVERS = ("adyton", "uvicorn", "granian")
SIZES = (0, 11_600)
ANSWER = b'{"nonce":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","extra-params":""}'


def serve_adyton(port: int) -> None:
    import uvloop

    from adyton.broker.door.answer import Answer
    from adyton.broker.door.connection import HttpRequest
    from adyton.broker.door.entrance import Entrance
    from adyton.broker.door.worker import Limits, Worker

    def application(request: HttpRequest) -> Answer:
        assert request.body is not None
        return Answer(200, ANSWER)

    async def main() -> None:
        worker = Worker(application, Limits(), Answer(429, b"{}"), {})
        Entrance(worker, socket.create_server(("127.0.0.1", port), backlog=1024), None)
        await asyncio.Event().wait()

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    uvloop.run(main())


async def asgi(scope: dict[str, Any], receive: Callable[[], Any], send: Callable[[dict[str, Any]], Any]) -> None:
    """The smallest ASGI application that reads its request."""
    if scope["type"] != "http":
        return
    more = True
    while more:
        more = (await receive()).get("more_body", False)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(ANSWER)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": ANSWER})


async def rsgi(scope: Any, protocol: Any) -> None:
    """The smallest RSGI application that reads its request."""
    if scope.proto == "http":
        await protocol()
        protocol.response_bytes(200, [("content-type", "application/json")], ANSWER)


def serve_uvicorn(port: int) -> None:
    import uvicorn

    uvicorn.run(asgi, host="127.0.0.1", port=port, log_level="error", http="httptools", loop="uvloop", lifespan="off")


def serve_granian(port: int) -> None:
    from granian.constants import Interfaces
    from granian.server import Server

    Server(f"{__name__}:rsgi", "127.0.0.1", port, interface=Interfaces.RSGI, log_enabled=False).serve()


def processor_seconds(pid: int) -> float:
    """CPU seconds of a process and its children, all threads."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
        for child in (task / "children").read_text().split():
            total += int(processor_seconds(int(child)) * 1e9)
    return total / 1e9


def drive(port: int, size: int, count: int) -> None:
    """``count`` requests on one kept connection; every answer is checked."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.connect()
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    body = bytes(size)
    for _ in range(count):
        connection.request("POST", "/kbs/v0/auth", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        if answer.status != 200 or answer.read() != ANSWER:
            raise SystemExit("a server did not answer as it should")
    connection.close()


def start(name: str) -> tuple[subprocess.Popen[bytes], int]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    process = subprocess.Popen([sys.executable, __file__, "--serve", name, "--port", str(port)])
    for _ in range(500):
        try:
            drive(port, 10, 1)
        except OSError:
            signal.sigtimedwait([], 0.02)
            continue
        return process, port
    raise SystemExit(f"{name} did not start")


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--quick", action="store_true", help="fewer rounds")
    options.add_argument("--json", action="store_true", help="one JSON object as the last line")
    options.add_argument("--serve", choices=SERVERS, help=argparse.SUPPRESS)
    options.add_argument("--port", type=int, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.serve:
        {"adyton": serve_adyton, "uvicorn": serve_uvicorn, "granian": serve_granian}[given.serve](given.port)
        return
    rounds, each = (3, 400) if given.quick else (9, 2000)
    running = {name: start(name) for name in SERVERS}
    spent: dict[tuple[str, int], list[float]] = {(name, size): [] for name in SERVERS for size in SIZES}
    try:
        for _ in range(rounds):
            for (name, size), times in spent.items():
                process, port = running[name]
                drive(port, size, 20)
                before = processor_seconds(process.pid)
                drive(port, size, each)
                times.append((processor_seconds(process.pid) - before) / each * 1e6)
    finally:
        for process, _ in running.values():
            process.terminate()
        for process, _ in running.values():
            process.wait(20)
    found = {key: statistics.median(times) for key, times in spent.items()}
    print(f"{'CPU µs per request':22}" + "".join(f"{size:>10} B" for size in SIZES))
    for name in SERVERS:
        print(f"  {name:20}" + "".join(f"{found[name, size]:>12.1f}" for size in SIZES))
    ratios = {
        f"{name}_over_adyton_{size}": round(found[name, size] / found["adyton", size], 3)
        for name in SERVERS[1:]
        for size in SIZES
    }
    if given.json:
        print(json.dumps(ratios))


if __name__ == "__main__":
    main()
