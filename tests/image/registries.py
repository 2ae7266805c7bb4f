"""Real registries for tests: Debian's ``docker-registry`` on a free port of loopback, with every way to log in.

::

    with docker_registry(tmp_path) as registry:            # plain http, anybody
        registry.host                                      # 127.0.0.1:<port>
    with docker_registry(tmp_path, htpasswd="user:secret", tls=authority) as registry: ...
    with docker_registry(tmp_path, token=token_server) as registry: ...
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import ipaddress
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from tests import ports
from tests.waiting import LONG, until


@dataclass(frozen=True)
class RunningRegistry:
    """A registry: where it listens and where it keeps what it holds."""

    host: str
    storage: Path

    def reference(self, name: str) -> str:
        """``docker://host/name``."""
        return f"docker://{self.host}/{name}"

    def files(self) -> list[Path]:
        """Every file in its storage."""
        return [path for path in self.storage.rglob("*") if path.is_file()]


class Authority:
    """A certificate authority of the test's own, and certificates for loopback under it."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
        now = dt.datetime.fromtimestamp(time.time(), dt.UTC)
        self._span = (now - dt.timedelta(hours=1), now + dt.timedelta(days=1))
        root = self._sign(self._name, self._key, ca=True)
        self.pem = root.public_bytes(Encoding.PEM).decode()
        self.path = directory / "ca.pem"
        self.path.write_text(self.pem)
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = self._sign(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")]), key, ca=False)
        self.certificate, self.key = directory / "server.pem", directory / "server.key"
        self.certificate.write_bytes(leaf.public_bytes(Encoding.PEM))
        self.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    def _sign(self, name: x509.Name, key: ec.EllipticCurvePrivateKey, *, ca: bool) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._span[0])
            .not_valid_after(self._span[1])
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if ca:
            usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
            builder = builder.add_extension(usage, critical=True)
        else:
            names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256())

    def server_context(self) -> ssl.SSLContext:
        """For a server of the test's own."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context


@dataclass
class TokenServer:
    """A token service as distribution's documentation describes it: ES256 JWTs for ``user``/``password``.

    ``requests`` holds the path and authorization of every request, ``anonymous`` lets everybody pull.
    """

    realm: str = ""
    user: str = "user"
    password: str = "secret"
    refresh: str = "identity"
    anonymous: bool = False
    lifetime: int = 60
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    bundle: Path = Path()


@contextlib.contextmanager
def token_server(directory: Path, *, anonymous: bool = False, lifetime: int = 60) -> Iterator[TokenServer]:
    """Run one on loopback over plain http."""
    authority = Authority(directory / "token")
    state = TokenServer(anonymous=anonymous, lifetime=lifetime, bundle=authority.certificate)
    key = authority.key.read_bytes()
    certificate = x509.load_pem_x509_certificate(authority.certificate.read_bytes()).public_bytes(Encoding.DER)
    # docker-registry 2.8 wants the chain in x5c up to a root in its bundle.
    state.bundle = authority.path

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            given = self.headers.get("Authorization")
            state.requests.append((self.path, given))
            expected = "Basic " + base64.b64encode(f"{state.user}:{state.password}".encode()).decode()
            self._grant(parse_qs(parts.query), known=given == expected, wrong=given not in {None, expected})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            state.requests.append((body, self.headers.get("Authorization")))
            form = parse_qs(body)
            good = form.get("refresh_token") == [state.refresh] and form.get("grant_type") == ["refresh_token"]
            self._grant(form, known=good, wrong=not good)

        def _grant(self, query: dict[str, list[str]], *, known: bool, wrong: bool) -> None:
            if wrong or not (known or state.anonymous):
                self._send(401, b"{}")
                return
            access = []
            for scope in query.get("scope", []):
                kind, name, actions = scope.split(":")
                allowed = [action for action in actions.split(",") if known or action == "pull"]
                access.append({"type": kind, "name": name, "actions": allowed})
            now = int(time.time())
            claims = {
                "iss": "tests",
                "aud": query.get("service", [""])[0],
                "sub": state.user if known else "",
                "nbf": now - 5,
                "iat": now,
                "exp": now + state.lifetime,
                "jti": uuid.uuid4().hex,
                "access": access,
            }
            header = {"typ": "JWT", "alg": "ES256", "x5c": [base64.b64encode(certificate).decode()]}
            token = _jwt(header, claims, key)
            self._send(200, json.dumps({"token": token, "expires_in": state.lifetime}).encode())

        def _send(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with serving(Handler) as host:
        state.realm = f"http://{host}/token"
        yield state


def _jwt(header: Mapping[str, object], claims: Mapping[str, object], key: bytes) -> str:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    def part(value: bytes) -> str:
        return base64.urlsafe_b64encode(value).rstrip(b"=").decode()

    signed = part(json.dumps(header).encode()) + "." + part(json.dumps(claims).encode())
    private = load_pem_private_key(key, None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    r, s = decode_dss_signature(private.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
    return signed + "." + part(r.to_bytes(32, "big") + s.to_bytes(32, "big"))


@contextlib.contextmanager
def serving(handler: type[BaseHTTPRequestHandler], context: ssl.SSLContext | None = None) -> Iterator[str]:
    """A threaded HTTP server of the test's own on a free port; gives ``127.0.0.1:<port>``."""

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, request: object, client_address: object) -> None:
            pass

    server = Quiet(("127.0.0.1", 0), handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def docker_registry(
    directory: Path,
    *,
    htpasswd: str | None = None,
    tls: Authority | None = None,
    token: TokenServer | None = None,
) -> Iterator[RunningRegistry]:
    """Run ``docker-registry`` with storage in ``directory``. ``htpasswd``: ``user:password``."""
    directory.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="registry-", dir=directory))
    storage = work / "storage"
    port = ports.reserve()
    config: dict[str, object] = {
        "version": 0.1,
        "log": {"level": "error"},
        "storage": {
            "filesystem": {"rootdirectory": str(storage)},
            "delete": {"enabled": True},
            "maintenance": {"uploadpurging": {"enabled": False}},
        },
    }
    http: dict[str, object] = {"addr": f"127.0.0.1:{port}", "secret": "tests"}
    if tls is not None:
        http["tls"] = {"certificate": str(tls.certificate), "key": str(tls.key)}
    config["http"] = http
    if htpasswd is not None:
        (work / "htpasswd").write_text(_htpasswd(htpasswd))
        config["auth"] = {"htpasswd": {"realm": "tests", "path": str(work / "htpasswd")}}
    if token is not None:
        config["auth"] = {
            "token": {
                "realm": token.realm,
                "service": "registry.tests",
                "issuer": "tests",
                "rootcertbundle": str(token.bundle),
            }
        }
    (work / "config.yml").write_text(json.dumps(config))  # JSON is YAML
    environment = {"PATH": os.environ["PATH"], "OTEL_TRACES_EXPORTER": "none"}
    with (work / "log").open("wb") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", str(work / "config.yml")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
        )
    try:
        _wait(process, port, work / "log")
        yield RunningRegistry(f"127.0.0.1:{port}", storage)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(LONG)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _htpasswd(pair: str) -> str:
    """A line of htpasswd with bcrypt, as docker-registry wants it, by the C library's ``libcrypt``."""
    user, _, password = pair.partition(":")
    script = (
        "import ctypes, ctypes.util, sys\n"
        "lib = ctypes.CDLL(ctypes.util.find_library('crypt'))\n"
        "lib.crypt.restype = ctypes.c_char_p\n"
        "lib.crypt_gensalt.restype = ctypes.c_char_p\n"
        "salt = lib.crypt_gensalt(b'$2y$', 5, b'0123456789abcdef', 16)\n"
        "print(lib.crypt(sys.stdin.readline().strip().encode(), salt).decode())\n"
    )
    hashed = subprocess.run([sys.executable, "-c", script], input=password, text=True, capture_output=True, check=True)
    return f"{user}:{hashed.stdout.strip()}\n"


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until(lambda: process.poll() is not None or _listens(port), what="docker-registry does not listen")
    if process.poll() is not None:
        raise AssertionError(f"docker-registry ended: {log.read_text()[-2000:]}")


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5):
        return True
    return False
