"""Traces as a collector receives them: the spans of a decision, somebody else's trace continued, no secret."""

from __future__ import annotations

import gzip
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.broker import rig

from adyton.broker.running.tracing import Tracing
from adyton.devtee.root import DevelopmentRoot
from adyton.errors import ConfigError
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath

trace_service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
RESOURCE = "/kbs/v0/resource/default/key/1"
MARKER = b"not-for-any-collector"
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Collector(ThreadingHTTPServer):
    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.bodies.append(
                    gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
                )
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)

    def spans(self) -> list[dict[str, object]]:
        found = []
        for body in list(self.bodies):
            asked = trace_service.ExportTraceServiceRequest.FromString(body)
            for span in (one for r in asked.resource_spans for s in r.scope_spans for one in s.spans):
                attributes = {one.key: one.value.string_value or one.value.int_value for one in span.attributes}
                found.append(
                    {"name": span.name, "trace": span.trace_id.hex(), "parent": span.parent_span_id.hex(), **attributes}
                )
        return found


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as there:
        thread = threading.Thread(target=there.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield there
        there.shutdown()
        thread.join()


@pytest.mark.parametrize("url", ["", "collector:4318", "file:///etc/passwd", "http://"])
def test_what_is_no_collector(url: str) -> None:
    with pytest.raises(ConfigError):
        Tracing(url, "test")


def test_nothing_is_imported_that_was_not_asked_for() -> None:
    said = "import sys, adyton.broker.running.worker_process as _; print([n for n in sys.modules if n.startswith(('opentel', 'prometheus'))])"
    assert subprocess.run([sys.executable, "-c", said], capture_output=True, text=True).stdout.strip() == "[]"


def test_a_decision_is_one_trace(tmp_path: Path, root: DevelopmentRoot, collector: Collector) -> None:
    running = rig.started(tmp_path / "data", root, "--otlp", f"http://127.0.0.1:{collector.server_port}")
    running.publish()
    with running.admin() as admin:
        admin.set_resource(ResourcePath("default", "key", "1"), MARKER, Binding(workloads=[str(rig.document().digest)]))
    with rig.raw(running) as client:
        token, _ = client.handshake(rig.attester(root), rig.document())
        assert client.ask("GET", RESOURCE, headers={"traceparent": PARENT, "tracestate": "a=b"})[0] == 200
        for wrong in ("garbage", "00-" + "0" * 32 + "-00f067aa0ba902b7-01", "x" * 5000):
            assert client.ask("GET", "/kbs/v0/resource/a/b/secret-path", headers={"traceparent": wrong})[0] == 404
        cookie = next(iter(client.jar.values()))[0]
    assert running.stop() == 0
    spans = collector.spans()
    by = {name: [one for one in spans if one["name"] == name] for name in {str(one["name"]) for one in spans}}
    assert {"auth", "attest", "resource", "verify", "appraise", "decide", "audit"} <= by.keys()
    (attest,) = by["attest"]
    assert {one["name"] for one in spans if one["trace"] == attest["trace"]} == {
        "attest",
        "verify",
        "appraise",
        "audit",
    }
    mine = [one for one in spans if one["trace"] == PARENT[3:35]]
    assert {one["name"] for one in mine} == {"resource", "decide", "audit"}
    assert next(one for one in mine if one["name"] == "resource")["parent"] == PARENT[36:52]
    assert [one["adyton.code"] for one in by["resource"]].count("resource_absent") == 3
    everything = b"".join(collector.bodies)
    for secret in (MARKER, token[:60].encode(), cookie[:60].encode(), b"secret-path", rig.MEASUREMENT.hex().encode()):
        assert secret not in everything
    assert PARENT[3:35] in running.log()


def test_a_collector_that_is_not_there_holds_up_nobody(tmp_path: Path) -> None:
    running = rig.started(tmp_path / "data", None, "--otlp", "http://127.0.0.1:9")
    with rig.raw(running) as client:
        began = time.monotonic()
        for _ in range(20):
            assert client.ask("GET", "/kbs/v0/nothing")[0] in {401, 404}
        assert time.monotonic() - began < 15
    assert running.stop() == 0
