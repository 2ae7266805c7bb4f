"""People for tests: organisations, keys, tokens, and an OpenID provider that speaks HTTPS."""

from __future__ import annotations

import datetime as dt
import http.server
import ipaddress
import json
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID
from tests.broker import rig

from adyton.client.admin import Admin
from adyton.client.people import People
from adyton.crypto import jws
from adyton.protocol.people import PersonBody


def pem(key: ed25519.Ed25519PrivateKey) -> str:
    return (
        key.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )


def signing(key: ed25519.Ed25519PrivateKey, **change: Any) -> Callable[[], str]:
    now = int(time.time())
    claims = {"aud": "adyton", "iat": now, "exp": now + 300, **change}
    return lambda: jws.sign(key, {name: value for name, value in claims.items() if value is not None})


class Somebody:
    """Somebody with a key, registered by the admin token or by whom ``by`` is."""

    def __init__(
        self,
        broker: rig.RunningBroker,
        tenant: str,
        name: str,
        role: str = "owner",
        *,
        tenants: tuple[str, ...] | None = None,
        by: Admin | None = None,
    ) -> None:
        self.broker, self.name = broker, name
        self.key = ed25519.Ed25519PrivateKey.generate()
        with by or broker.admin(tenant) as admin:
            People(admin).set_person(name, PersonBody(role, tenants))
            People(admin).add_key(name, pem(self.key))

    def admin(self, tenant: str) -> Admin:
        return Admin(self.broker.address(tenant), signing(self.key))

    def header(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {signing(self.key)()}"}


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


class Provider:
    """Discovery and keys over HTTPS with a CA of its own; ``keys`` and ``issuer`` may be changed while it runs."""

    def __init__(self, directory: Path) -> None:
        now = dt.datetime.fromtimestamp(time.time(), dt.UTC)
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            x509.CertificateBuilder()
            .subject_name(_name("provider"))
            .issuer_name(_name("provider"))
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
            .sign(key, hashes.SHA256())
        )
        self.ca = certificate.public_bytes(serialization.Encoding.PEM).decode()
        file = directory / "provider.pem"
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        file.write_bytes(private + self.ca.encode())
        self.keys: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self.status = 200
        self.described: dict[str, Any] = {}
        self.caching = ""
        self.dripping = False
        provider = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.asked.append(self.path)
                for _ in range(300 if provider.dripping else 0):
                    self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                    time.sleep(0.1)
                answers = {
                    "/realm/.well-known/openid-configuration": {
                        "issuer": provider.issuer,
                        "jwks_uri": f"{provider.base}/keys",
                        **provider.described,
                    },
                    "/keys": {"keys": provider.keys},
                }
                body = json.dumps(answers.get(self.path, {})).encode()
                self.send_response(provider.status)
                self.send_header("Content-Length", str(len(body)))
                if provider.caching:
                    self.send_header("Cache-Control", provider.caching)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.base = f"https://127.0.0.1:{self._server.server_address[1]}"
        self.issuer = f"{self.base}/realm"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
