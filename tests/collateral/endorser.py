"""A local server that behaves as endorsers do: recorded or forged answers, rate limits, outages, and every way to answer badly."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

from cryptography.x509 import ocsp

from adyton.devtee.forge import Forge


@dataclass
class Answer:
    """One answer. ``behaviour``: ``slow``, ``truncated``, ``drop``, ``endless``, or nothing special."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    behaviour: str = ""


Route = Answer | Callable[[str], Answer]


class Endorser:
    """Answers by exact path (with query), or by path alone. ``asked`` are the targets in order."""

    def __init__(self) -> None:
        self.routes: dict[str, Route] = {}
        self.posted: Callable[[bytes], Answer] | None = None
        self.asked: list[str] = []
        self.limit: int | None = None  # answers 429 after so many requests
        self.retry_after = "1"
        self.outage = False
        self.delay = 0.0
        self._lock = threading.Lock()
        endorser = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                endorser.answer(self)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                endorser.answer(self, endorser.posted(body) if endorser.posted else None)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the base's name
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, handler: BaseHTTPRequestHandler, ready: Answer | None = None) -> None:
        with self._lock:
            self.asked.append(handler.path)
            count = len(self.asked)
        if self.delay:
            time.sleep(self.delay)
        if self.outage:
            handler.close_connection = True
            handler.connection.close()
            return
        if self.limit is not None and count > self.limit:
            self.send(handler, Answer(b"slow down", 429, {"Retry-After": self.retry_after}))
            return
        found = ready or self.routes.get(handler.path) or self.routes.get(handler.path.partition("?")[0])
        if callable(found):
            found = found(handler.path)
        self.send(handler, found or Answer(b"nothing here", 404))

    @staticmethod
    def send(handler: BaseHTTPRequestHandler, answer: Answer) -> None:
        if answer.behaviour == "drop":
            handler.close_connection = True
            return
        handler.send_response(answer.status)
        for name, value in answer.headers.items():
            handler.send_header(name, value)
        length = len(answer.body) + (1000 if answer.behaviour == "truncated" else 0)
        if answer.behaviour != "endless":
            handler.send_header("Content-Length", str(length))
        else:
            handler.send_header("Connection", "close")
            handler.close_connection = True
        handler.end_headers()
        try:
            if answer.behaviour == "slow":
                for byte in answer.body[:200]:
                    handler.wfile.write(bytes((byte,)))
                    time.sleep(0.05)
                return
            handler.wfile.write(answer.body)
            while answer.behaviour == "endless":
                handler.wfile.write(bytes(65536))
        except OSError:
            pass
        if answer.behaviour == "truncated":
            handler.close_connection = True


@contextmanager
def running() -> Iterator[Endorser]:
    """An endorser for as long as the context lasts."""
    endorser = Endorser()
    try:
        yield endorser
    finally:
        endorser.close()


class Clock:
    """Time that the test moves; waiting moves it too."""

    def __init__(self, at: datetime) -> None:
        self.at = at
        self.slept = 0.0

    def __call__(self) -> datetime:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.slept += seconds
        self.at += timedelta(seconds=seconds)

    def step(self, **interval: float) -> None:
        self.at += timedelta(**interval)


def vcek_path(forge: Forge) -> str:
    levels = forge.signer.levels
    chip = forge.signer.chip_id[: 8 if forge.product == "Turin" else 64].hex()
    fmc = f"fmcSPL={levels.fmc:02d}&" if forge.product == "Turin" else ""
    return (
        f"/vcek/v1/{forge.product}/{chip}?{fmc}blSPL={levels.boot_loader:02d}&teeSPL={levels.tee:02d}"
        f"&snpSPL={levels.snp:02d}&ucodeSPL={levels.microcode:02d}"
    )


def pem(*encoded: bytes) -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    return b"".join(x509.load_der_x509_certificate(one).public_bytes(Encoding.PEM) for one in encoded)


def play_amd(endorser: Endorser, forge: Forge, *, crl: bytes | None = None) -> None:
    """Answer as AMD's key service would for this chip."""
    (_, leaf), (_, middle), (_, root) = forge.certificates
    endorser.routes[vcek_path(forge)] = Answer(leaf)
    endorser.routes[f"/vcek/v1/{forge.product}/cert_chain"] = Answer(pem(middle, root))
    endorser.routes[f"/vcek/v1/{forge.product}/crl"] = Answer(crl or forge.crl())


def play_intel(endorser: Endorser, collateral: Path | dict[str, str], *, tee: str, ca: str, pccs: bool = True) -> None:
    """Answer as PCCS (or PCS) would, with collateral in the form in which it is often recorded: one JSON object."""
    recorded = json.loads(collateral.read_text()) if isinstance(collateral, Path) else collateral

    def chain(name: str) -> str:
        return quote(recorded[name], safe="")

    v4 = f"/{tee}/certification/v4"
    inner = {"tcb_info": "tcbInfo", "qe_identity": "enclaveIdentity"}
    documents = {
        name: f'{{"{member}":{recorded[name]},"signature":"{recorded[name + "_signature"]}"}}'.encode()
        for name, member in inner.items()
    }
    json_type = {"Content-Type": "application/json"}
    endorser.routes[f"{v4}/tcb"] = Answer(
        documents["tcb_info"], headers={**json_type, "TCB-Info-Issuer-Chain": chain("tcb_info_issuer_chain")}
    )
    endorser.routes[f"{v4}/qe/identity"] = Answer(
        documents["qe_identity"],
        headers={**json_type, "SGX-Enclave-Identity-Issuer-Chain": chain("qe_identity_issuer_chain")},
    )
    endorser.routes[f"/sgx/certification/v4/pckcrl?ca={ca}&encoding=der"] = Answer(
        bytes.fromhex(recorded["pck_crl"]), headers={"SGX-PCK-CRL-Issuer-Chain": chain("pck_crl_issuer_chain")}
    )
    if pccs:
        endorser.routes["/sgx/certification/v4/rootcacrl"] = Answer(recorded["root_ca_crl"].encode())
    else:
        endorser.routes["/IntelSGXRootCA.der"] = Answer(bytes.fromhex(recorded["root_ca_crl"]))


def play_nvidia(endorser: Endorser, rims: dict[str, bytes], answers: list[bytes]) -> None:
    """Answer as NVIDIA's RIM service and OCSP responder would."""
    for name, body in rims.items():
        value = {
            "id": name, "rim": base64.b64encode(body).decode(), "sha256": hashlib.sha256(body).hexdigest(),
            "last_updated": "2025-03-14T15:09:03.011000", "rim_format": "TCG", "request_id": "0",
        }  # fmt: skip
        endorser.routes[f"/v1/rim/{name}"] = Answer(json.dumps(value).encode())
    by_serial = {ocsp.load_der_ocsp_response(answer).serial_number: answer for answer in answers}

    def posted(body: bytes) -> Answer:
        found = by_serial.get(ocsp.load_der_ocsp_request(body).serial_number)
        return Answer(found) if found else Answer(bytes.fromhex("30030a0106"))  # unauthorized

    endorser.posted = posted


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)
