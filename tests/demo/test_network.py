from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from adyton.demo.network import RecordingWire


class _Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 -- the base names it so
        return


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Echo) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_address[1]}"
        httpd.shutdown()


def test_everything_is_forwarded_and_attestations_are_remembered(server: str) -> None:
    with RecordingWire(server) as wire:
        connection = http.client.HTTPConnection(wire.url.removeprefix("http://"), timeout=60)
        for path, body in [
            ("/kbs/v0/auth", b"a" * 10),
            ("/kbs/v0/attest", b"b" * 100_000),
            ("/t/x/kbs/v0/attest", b"c"),
        ]:
            connection.request("POST", path, body)
            assert connection.getresponse().read() == body
        connection.close()
        assert wire.recorded_attestations() == [b"b" * 100_000, b"c"]


def test_a_broker_that_is_away_is_a_closed_connection() -> None:
    with RecordingWire("http://127.0.0.1:1") as wire:
        connection = http.client.HTTPConnection(wire.url.removeprefix("http://"), timeout=60)
        with pytest.raises((http.client.HTTPException, OSError)):
            connection.request("GET", "/")
            connection.getresponse()
        connection.close()
        assert wire.recorded_attestations() == []
