"""The proxy as others see it: PCCS's and KDS's paths and headers, over real sockets, to clients good and bad."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

import dcap_qvl
import pytest
from tests.collateral.conftest import NOW, Collect
from tests.collateral.endorser import Answer, Clock, Endorser, at, play_amd, play_intel, vcek_path
from tests.waiting import LONG, until

from adyton.collateral import gather, server
from adyton.collateral.cache import Cache
from adyton.collateral.collector import Collector
from adyton.collateral.front import Front, route
from adyton.collateral.server import Server, tls_context
from adyton.collateral.wanted import AmdVcek, IntelTcbInfo, NvidiaRim
from adyton.crypto.x509 import EndorsementSet
from adyton.devtee.forge import Forge

REFERENCE = "2026-01-15T00:00:00Z"


@contextmanager
def serving(front: Front, tls: ssl.SSLContext | None = None, head_seconds: float = 10.0) -> Iterator[int]:
    """A proxy in a thread of its own; its port."""
    ready: list[int] = []
    started, ended = threading.Event(), threading.Event()

    async def run() -> None:
        proxy = Server(front, tls=tls, head_seconds=head_seconds)
        ready.append((await proxy.start("127.0.0.1", 0))[1])
        started.set()
        await asyncio.to_thread(ended.wait)
        await proxy.stop()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    assert started.wait(LONG)
    try:
        yield ready[0]
    finally:
        ended.set()
        thread.join(LONG)


@pytest.fixture
def proxy(cache: Cache, collect: Collect, clock: Clock) -> Iterator[Callable[..., int]]:
    stack = ExitStack()

    def start(*sources: str, seconds: float = 20.0, **limits: float) -> int:
        front = Front(cache, collect(*sources, **limits), clock, seconds=seconds)
        return stack.enter_context(serving(front))

    with stack:
        yield start


def ask(port: int, target: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, target)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


@pytest.mark.vectors
@pytest.mark.parametrize("tee", ["sgx", "tdx"])
def test_a_foreign_verifier_gets_its_collateral(
    tee: str, vectors: Path, endorser: Endorser, proxy: Callable[..., int], clock: Clock
) -> None:
    """dcap-qvl (Rust) points at the proxy as it would at a PCCS, and verifies with what it gets."""
    clock.at = at(REFERENCE)
    quote = (vectors / f"dcap-synthetic/{tee}-uptodate.quote.bin").read_bytes()
    recorded = json.loads((vectors / f"dcap-synthetic/{tee}-uptodate.collateral.json").read_text())
    play_intel(endorser, recorded, tee=tee, ca="platform")
    port = proxy(f"pccs={endorser.url}")

    async def get() -> dcap_qvl.QuoteCollateralV3:
        return await dcap_qvl.get_collateral(f"http://127.0.0.1:{port}", quote)

    for _ in range(2):
        collateral = asyncio.run(get())
        got = json.loads(collateral.to_json())
        for name in (
            "tcb_info",
            "tcb_info_signature",
            "qe_identity",
            "qe_identity_signature",
            "pck_crl",
            "root_ca_crl",
        ):
            assert _plain(got[name]) == _plain(recorded[name]), name
        root = EndorsementSet.parse([(vectors / "dcap-synthetic/test-root.pem").read_bytes()]).certificates[0].der
        report = dcap_qvl.verify_with_root_ca(quote, collateral, root, int(clock.at.timestamp()))
        assert report.status == "UpToDate"
    assert len(endorser.asked) == 4  # the second time came from the cache


def _plain(value: object) -> object:
    return bytes(value).hex() if isinstance(value, list) else str(value).lower() if isinstance(value, str) else value


@pytest.mark.vectors
def test_pccs_paths_and_headers(vectors: Path, endorser: Endorser, proxy: Callable[..., int], clock: Clock) -> None:
    clock.at = at(REFERENCE)
    recorded = json.loads((vectors / "dcap-synthetic/tdx-uptodate.collateral.json").read_text())
    play_intel(endorser, recorded, tee="tdx", ca="platform")
    port = proxy(f"pccs={endorser.url}")
    status, headers, body = ask(port, "/tdx/certification/v4/tcb?fmspc=AABBCCDDEEFF&update=early")
    assert (status, headers["content-type"]) == (200, "application/json")
    assert unquote(headers["tcb-info-issuer-chain"]).strip() == recorded["tcb_info_issuer_chain"].strip()
    assert body == f'{{"tcbInfo":{recorded["tcb_info"]},"signature":"{recorded["tcb_info_signature"]}"}}'.encode()
    assert int(headers["cache-control"].removeprefix("max-age=")) > 0
    assert len(headers["request-id"]) == 32
    status, headers, body = ask(port, "/sgx/certification/v4/pckcrl?ca=platform")
    assert (status, bytes.fromhex(body.decode()).hex()) == (200, recorded["pck_crl"])
    assert "BEGIN" in unquote(headers["sgx-pck-crl-issuer-chain"])
    _, _, der = ask(port, "/sgx/certification/v4/pckcrl?ca=PLATFORM&encoding=der")
    assert der.hex() == recorded["pck_crl"]
    _, _, pem = ask(port, "/sgx/certification/v4/pckcrl?ca=platform&encoding=pem")
    assert EndorsementSet.parse([pem]).crls[0].der == der
    assert ask(port, "/sgx/certification/v4/rootcacrl")[2].decode() == recorded["root_ca_crl"]
    uri = "https%3A%2F%2Fcertificates.trustedservices.intel.com%2FIntelSGXRootCA.der"
    for path in (f"/sgx/certification/v4/crl?uri={uri}", "/IntelSGXRootCA.der"):
        assert ask(port, path)[2].hex() == recorded["root_ca_crl"]
    status, _, body = ask(port, "/tdx/certification/v4/qe/identity", "HEAD")
    assert (status, body) == (200, b"")
    assert ask(port, "/healthz")[2] == b"ok\n"
    for wrong in (
        "/sgx/certification/v4/tcb", "/sgx/certification/v4/tcb?fmspc=00", "/sgx/certification/v4/tcb?fmspc=zzzzzzzzzzzz",
        "/sgx/certification/v4/tcb?fmspc=aabbccddeeff&update=early&tcbEvaluationDataNumber=1",
        "/sgx/certification/v4/tcb?fmspc=aabbccddeeff&fmspc=aabbccddeeff", "/sgx/certification/v4/tcb?fmspc=aabbccddeeff&update=late",
        "/sgx/certification/v4/tcb?fmspc=aabbccddeeff&url=http://evil", "/sgx/certification/v4/pckcrl", "/sgx/certification/v4/pckcrl?ca=root",
        "/sgx/certification/v4/crl?uri=http://169.254.169.254/", "/sgx/certification/v4/pckcert?qeid=00",
        "/sgx/certification/v4/qe/identity?update=", "/v1/rim/..", "/ocsp/AAAA",
    ):  # fmt: skip
        assert ask(port, wrong)[0] == 400, wrong
    for nowhere in (
        "/",
        "/sgx/certification/v3/tcb",
        "/tdx/certification/v4/pckcrl?ca=platform",
        "/vcek",
        "/etc/passwd",
        "/v1/rim/a/b",
    ):
        assert ask(port, nowhere)[0] == 404, nowhere
    assert {target.partition("?")[0] for target in endorser.asked} <= {t.partition("?")[0] for t in endorser.routes}


def test_kds_paths(endorser: Endorser, proxy: Callable[..., int], forge: Forge) -> None:
    play_amd(endorser, forge)
    port = proxy(f"kds={endorser.url}")
    status, headers, body = ask(port, vcek_path(forge))
    assert (status, body, headers["content-type"]) == (200, forge.certificates[0][1], "application/octet-stream")
    reordered = vcek_path(forge).partition("?")
    assert ask(port, f"{reordered[0]}?{'&'.join(reversed(reordered[2].split('&')))}")[2] == body
    assert EndorsementSet.parse([ask(port, "/vcek/v1/Genoa/cert_chain")[2]]).certificates[1].common_name == "ARK-Genoa"
    assert ask(port, "/vcek/v1/Siena/cert_chain")[0] == 200  # certified under Genoa's root
    assert EndorsementSet.parse([ask(port, "/vcek/v1/Genoa/crl")[2]]).crls
    assert ask(port, "/vlek/v1/Genoa/crl")[0] == 200
    assert ask(port, "/vlek/v1/Genoa/cert_chain")[0] == 404  # upstream has none
    chip = "00" * 64
    for wrong in (
        f"/vcek/v1/Rome/{chip}", "/vcek/v1/Genoa/crl?x=1", f"/vcek/v1/Genoa/{chip}?blSPL=256", f"/vcek/v1/Genoa/{chip}?blSPL=x",
        f"/vcek/v1/Genoa/{chip}?more=1", f"/vcek/v1/Genoa/{chip}?fmcSPL=1", "/vcek/v1/Genoa/0011223344556677", f"/vlek/v1/Genoa/{chip}",
    ):  # fmt: skip
        assert ask(port, wrong)[0] == 400, wrong
    assert len(endorser.asked) == 4


def test_another_adyton_is_a_source(
    endorser: Endorser, proxy: Callable[..., int], forge: Forge, tmp_path: Path, clock: Clock
) -> None:
    from adyton.collateral import services

    play_amd(endorser, forge)
    port = proxy(f"kds={endorser.url}")
    with Cache(tmp_path / "second") as cache:
        chained = Collector(cache, [services.source(f"http://127.0.0.1:{port}", clock=clock)], clock=clock)
        found = gather.gather("snp", forge.report(), chained, clock.at)
        assert len(found.certificates) == 3
        assert len(found.crls) == 1


@pytest.mark.vectors
def test_manifests_and_ocsp_through_the_proxy(
    vectors: Path, proxy: Callable[..., int], cache: Cache, clock: Clock
) -> None:
    from cryptography.x509 import ocsp

    from adyton.collateral import services
    from adyton.collateral.items import Item
    from adyton.collateral.wanted import NvidiaOcsp

    body = (vectors / "nvidia/ocsp/gpu_certificate_l3.der").read_bytes()
    said = ocsp.load_der_ocsp_response(body)
    clock.at = said.this_update_utc
    status = NvidiaOcsp(said.issuer_name_hash, said.issuer_key_hash, said.serial_number)
    rim = (vectors / "nvidia/rim/NV_GPU_DRIVER_GH100_550.90.07.xml").read_bytes()
    cache.put(Item.read(status, body, url="test:", fetched=clock.at))
    cache.put(Item.read(NvidiaRim("NV_GPU_DRIVER_GH100_550.90.07"), rim, url="test:", fetched=clock.at))
    source = services.source(f"http://127.0.0.1:{proxy()}", clock=clock)
    assert source.get(status, seconds=5).body == body
    assert source.get(NvidiaRim("NV_GPU_DRIVER_GH100_550.90.07"), seconds=5).body == rim


def test_refusals_say_when_to_come_again(
    endorser: Endorser, proxy: Callable[..., int], forge: Forge, clock: Clock
) -> None:
    play_amd(endorser, forge)
    port = proxy(f"kds={endorser.url}", seconds=10, per_minute=2)
    assert ask(port, "/vcek/v1/Genoa/cert_chain")[0] == 200
    assert ask(port, "/vcek/v1/Genoa/crl")[0] == 200
    status, headers, body = ask(port, vcek_path(forge))
    assert status == 429  # the budget is spent
    assert 50 <= int(headers["retry-after"]) <= 60
    assert json.loads(body)["error"]["code"] == headers["error-code"] == "endorser_busy"
    assert ask(port, "/vcek/v1/Genoa/crl")[0] == 200  # what is there is served
    clock.step(minutes=2)
    endorser.limit, endorser.retry_after = 0, "33"
    status, headers, _ = ask(port, vcek_path(forge))
    assert (status, headers["retry-after"]) == (429, "33")
    clock.step(minutes=2)
    endorser.limit, endorser.outage = None, True
    status, headers, _ = ask(port, vcek_path(forge))
    assert status in {429, 503}
    assert int(headers["retry-after"]) >= 1
    assert ask(port, "/sgx/certification/v4/rootcacrl")[0] == 404  # nobody to ask


def test_wrong_content_from_above_is_not_passed_on(endorser: Endorser, proxy: Callable[..., int]) -> None:
    endorser.routes["/vcek/v1/Genoa/crl"] = Answer(b"<html>captive portal</html>")
    status, headers, body = ask(proxy(f"kds={endorser.url}"), "/vcek/v1/Genoa/crl")
    assert (status, headers["error-code"]) == (503, "endorsement_unusable")
    assert b"captive" not in body


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 20_000, 431), (b"POST /vcek/v1/Genoa/crl HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n", 400), (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 400), (b"nonsense\r\n\r\n", 400),
        (b"\x16\x03\x01\x00\x00\r\n\r\n", 400), (b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", 400), (b"GET http://[ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET //x HTTP/1.1\r\nHost: a\r\n\r\n", 400), (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /?" + b"a=1&" * 50 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 400), (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.0\r\n\r\n", 200), (b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 200),
    ],
)  # fmt: skip
def test_what_is_no_request(sent: bytes, status: int, proxy: Callable[..., int]) -> None:
    with socket.create_connection(("127.0.0.1", proxy()), timeout=LONG) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        got = b""
        while piece := connection.recv(65536):
            got += piece
    assert got.startswith(f"HTTP/1.1 {status} ".encode()), got[:200]


def test_kept_connections_and_pipelines(proxy: Callable[..., int]) -> None:
    with socket.create_connection(("127.0.0.1", proxy()), timeout=LONG) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n" * 3)
        connection.shutdown(socket.SHUT_WR)
        got = b""
        while piece := connection.recv(65536):
            got += piece
    assert got.count(b"HTTP/1.1 200 OK") == 3


def test_it_ends_at_once_though_connections_are_kept(cache: Cache, collect: Collect, clock: Clock) -> None:
    with serving(Front(cache, collect(), clock)) as port:
        kept = http.client.HTTPConnection("127.0.0.1", port, timeout=LONG)
        kept.request("GET", "/healthz")
        assert kept.getresponse().read() == b"ok\n"
        begun = time.monotonic()
    assert time.monotonic() - begun < 8
    kept.close()


def test_slow_clients_are_hung_up_on(cache: Cache, collect: Collect, clock: Clock) -> None:
    with (
        serving(Front(cache, collect(), clock), head_seconds=0.4) as port,
        socket.create_connection(("127.0.0.1", port), timeout=LONG) as slow,
    ):
        begun = time.monotonic()
        slow.sendall(b"GET /healthz")
        for _ in range(20):
            time.sleep(0.1)
            try:
                slow.sendall(b"z")
            except OSError:
                break
        assert slow.recv(100) == b"" or time.monotonic() - begun < 5
        assert ask(port, "/healthz")[0] == 200


def test_many_clients_at_once_cost_one_request_above(endorser: Endorser, cache: Cache, forge: Forge) -> None:
    from adyton.collateral import services

    play_amd(endorser, forge)
    endorser.delay = 0.3
    collector = Collector(cache, [services.source(f"kds={endorser.url}", clock=lambda: NOW)], clock=lambda: NOW)
    statuses: list[int] = []
    with serving(Front(cache, collector, lambda: NOW)) as port:
        threads = [
            threading.Thread(target=lambda: statuses.append(ask(port, "/vcek/v1/Genoa/crl")[0])) for _ in range(30)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LONG)
    assert statuses == [200] * 30
    assert len(endorser.asked) == 1


def test_too_many_connections(proxy: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 3)
    port = proxy()
    held = [socket.create_connection(("127.0.0.1", port), timeout=LONG) for _ in range(3)]
    try:
        until(lambda: ask(port, "/healthz")[0] == 503)
    finally:
        for connection in held:
            connection.close()


def test_tls(cache: Cache, collect: Collect, clock: Clock, tmp_path: Path) -> None:
    from adyton.broker.door import certificate

    made, key = certificate.make(tmp_path, ["localhost"], datetime.now(UTC))  # noqa: TID251 -- TLS has a clock of its own
    with serving(Front(cache, collect(), clock), tls_context(str(made), str(key)), head_seconds=20.0) as port:
        context = ssl.create_default_context(cafile=str(made))
        connection = http.client.HTTPSConnection("localhost", port, timeout=LONG, context=context)
        connection.request("GET", "/healthz")
        assert connection.getresponse().read() == b"ok\n"
        connection.close()
        with socket.create_connection(("127.0.0.1", port), timeout=LONG) as plain:
            plain.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
            with suppress(ConnectionError):
                assert not plain.recv(100).startswith(b"HTTP/1.1 200")


def test_routes_read_what_sources_ask(forge: Forge) -> None:
    """Whatever our own client asks for as of a PCCS, KDS or RIM service, our own server understands."""
    from tests.collateral.test_items import vcek_of

    from adyton.collateral import services

    _, proxy_ask = services.KINDS["proxy"]
    for wanted in (
        vcek_of(forge), IntelTcbInfo("tdx", bytes(6), "early"), IntelTcbInfo("sgx", bytes(6), "17"), NvidiaRim("NV_X_1.2"),
    ):  # fmt: skip
        request = proxy_ask(wanted)
        assert request is not None
        found = route(request.target)
        assert found is not None
        assert found[0] == wanted
        assert urlsplit(request.target).path == found[1]
    assert isinstance(vcek_of(forge), AmdVcek)
