"""A server that speaks Vault's documented HTTP interface, over memory, for tests on machines without Vault.

KV version 2 (versions, check-and-set, soft delete, undelete, destroy, metadata, listing, max_versions), transit (key
versions, rotation, ``vault:v<n>:`` ciphertexts, associated data, import, deletion that must be allowed), AppRole, tokens
with a lease and renewal, policies by prefix, namespaces, seal. Errors are Vault's: ``{"errors": [...]}``, empty for 404.
"""

from __future__ import annotations

import base64
import json
import os
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap_with_padding

_HASHES: dict[str, Any] = {"sha2-256": hashes.SHA256, "sha2-384": hashes.SHA384, "sha2-512": hashes.SHA512}
_CURVES: dict[str, Any] = {"ecdsa-p256": ec.SECP256R1, "ecdsa-p384": ec.SECP384R1, "ecdsa-p521": ec.SECP521R1}


class Answer(Exception):
    def __init__(self, status: int, *errors: str) -> None:
        self.status, self.errors = status, list(errors)


@dataclass
class Token:
    policies: dict[str, set[str]]
    """Path prefix to capabilities."""
    expires: float = float("inf")
    ttl: float = 0.0
    renewable: bool = False


@dataclass
class Secret:
    versions: dict[int, dict[str, Any]] = field(default_factory=dict)
    newest: int = 0
    created: str = ""


@dataclass
class TransitKey:
    type: str
    versions: list[Any] = field(default_factory=list)
    deletion_allowed: bool = False
    imported: bool = False


EVERYTHING = {"": {"create", "read", "update", "delete", "list"}}
STEWARD = {"auth/token/": EVERYTHING[""], "sys/health": EVERYTHING[""]}


def _now() -> str:
    whole, part = divmod(time.time_ns(), 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{part:09d}Z"


class VaultServer:
    """``with VaultServer() as vault``. ``before`` may raise ``Answer``, sleep, or return raw bytes to send instead.

    ``after`` is called when what was asked is done and not answered yet.
    """

    def __init__(self, *, tls: tuple[str, str] | None = None, namespace: str = "") -> None:
        self.tokens: dict[str, Token] = {"steward": Token(EVERYTHING)}
        self.roles: dict[str, tuple[str, dict[str, set[str]], float]] = {}
        self.secrets: dict[str, Secret] = {}
        self.keys: dict[str, TransitKey] = {}
        self.sealed, self.max_versions, self.namespace = False, 10, namespace
        self.logins, self.renewals = 0, 0
        self.requests: list[tuple[str, str]] = []
        self.before: Callable[[str, str], bytes | None] = lambda *_: None
        self.after: Callable[[str, str], None] = lambda *_: None
        self._lock = threading.RLock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # head and body leave together
            disable_nagle_algorithm = True

            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                path = unquote(urlsplit(self.path).path)
                raw = outer.before(self.command, path)
                if raw is not None:
                    self.wfile.write(raw)
                    self.close_connection = True
                    return
                status, answer = outer.answer(self.command, self.path, dict(self.headers.items()), body)
                outer.after(self.command, path)
                sent = json.dumps(answer).encode() if answer is not None else b""
                self.send_response(status)
                if sent:
                    self.send_header("Content-Type", "application/json")
                if status != 204:
                    self.send_header("Content-Length", str(len(sent)))
                self.end_headers()
                self.wfile.write(sent)

            do_GET = do_POST = do_PUT = do_DELETE = do_LIST = _serve  # noqa: N815 -- http.server names them

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:  # a client that went away
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._server.server_port}"

    @cached_property
    def _wrapping(self) -> rsa.RSAPrivateKey:
        return rsa.generate_private_key(65537, 2048)  # Vault's has 4096 bits, which takes seconds to make

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, method: str, target: str, headers: dict[str, str], body: bytes) -> tuple[int, Any]:
        split = urlsplit(target)
        path, query = unquote(split.path).removeprefix("/v1/"), parse_qs(split.query)
        with self._lock:
            self.requests.append((method, path))
            try:
                return self._route(method, path, query, {k.lower(): v for k, v in headers.items()}, body)
            except Answer as error:
                return error.status, {"errors": error.errors}

    def _route(self, method: str, path: str, query: Any, headers: dict[str, str], body: bytes) -> tuple[int, Any]:
        if path == "sys/health":
            status = 503 if self.sealed else 200
            return status, {"initialized": True, "sealed": self.sealed, "standby": False, "version": "1.20.0"}
        if self.sealed:
            raise Answer(503, "Vault is sealed")
        if headers.get("x-vault-namespace", "").strip("/") != self.namespace:
            raise Answer(403, "permission denied")
        if ".." in path:
            raise Answer(400, "path cannot contain parent references")
        try:
            given = json.loads(body) if body else {}
        except ValueError as error:
            raise Answer(400, "error parsing JSON") from error
        if path == "auth/approle/login":
            return self._log_in(given)
        name = headers.get("x-vault-token", "")
        token = self.tokens.get(name)
        if token is None or token.expires < time.monotonic():
            raise Answer(403, "permission denied")
        capability = {"GET": "read", "LIST": "list", "DELETE": "delete"}.get(method, "update")
        if method in {"POST", "PUT"} and path.startswith(("transit/encrypt/", "transit/keys/")):
            capability = "update" if path.split("/")[2] in self.keys else "create"
        if not any(path.startswith(start) and capability in may for start, may in token.policies.items()):
            raise Answer(403, "1 error occurred:\n\t* permission denied\n\n")
        if path == "auth/token/lookup-self":
            left = 0 if token.expires == float("inf") else int(token.expires - time.monotonic())
            return 200, {"data": {"ttl": left, "renewable": token.renewable, "policies": ["default"]}}
        if path == "auth/token/renew-self":
            if not token.renewable:
                raise Answer(400, "lease is not renewable")
            self.renewals += 1
            token.expires = time.monotonic() + token.ttl
            return 200, {"auth": {"client_token": name, "lease_duration": int(token.ttl), "renewable": True}}
        mount, _, rest = path.partition("/")
        if mount == "secret":
            return self._kv(method, rest, query, given)
        if mount == "transit":
            return self._transit(method, rest, given)
        raise Answer(404, "no handler for route " + json.dumps(path) + ". route entry not found.")

    def _log_in(self, given: Any) -> tuple[int, Any]:
        role = self.roles.get(given.get("role_id", ""))
        if role is None or role[0] != given.get("secret_id"):
            raise Answer(400, "invalid role or secret ID")
        self.logins += 1
        name = "hvs." + os.urandom(12).hex()
        self.tokens[name] = Token({**role[1], **STEWARD}, time.monotonic() + role[2], role[2], renewable=True)
        return 200, {"auth": {"client_token": name, "lease_duration": int(role[2]), "renewable": True}}

    # KV version 2

    def _kv(self, method: str, rest: str, query: Any, given: Any) -> tuple[int, Any]:
        area, _, path = rest.partition("/")
        if area == "metadata" and method == "LIST":
            folder = path.rstrip("/") + "/" if path else ""
            names = {
                key[len(folder) :].split("/")[0] + ("/" if "/" in key[len(folder) :] else "")
                for key in self.secrets
                if key.startswith(folder)
            }
            if not names:
                raise Answer(404)
            return 200, {"data": {"keys": sorted(names)}}
        secret = self.secrets.get(path)
        if area == "metadata" and method == "GET":
            if secret is None:
                raise Answer(404)
            shown = ("created_time", "deletion_time", "destroyed")
            versions = {str(number): {k: one[k] for k in shown} for number, one in secret.versions.items()}
            return 200, {"data": {"current_version": secret.newest, "versions": versions}}
        match area, method:
            case "data", "GET":
                if secret is None:
                    raise Answer(404)
                number = int(query.get("version", ["0"])[0]) or secret.newest
                version = secret.versions.get(number)
                if version is None:
                    raise Answer(404)
                metadata = {k: version[k] for k in ("created_time", "deletion_time", "destroyed")} | {"version": number}
                gone = version["destroyed"] or version["deletion_time"]
                data = None if gone else version["data"]
                return 404 if gone else 200, {"data": {"data": data, "metadata": metadata}}
            case "data", "POST" | "PUT":
                if not isinstance(given.get("data"), dict):
                    raise Answer(400, "no data provided")
                secret = secret or self.secrets.setdefault(path, Secret(created=_now()))
                cas = given.get("options", {}).get("cas")
                if cas is not None and cas != secret.newest:
                    raise Answer(400, "check-and-set parameter did not match the current version")
                secret.newest += 1
                made = {"created_time": _now(), "deletion_time": "", "destroyed": False}
                secret.versions[secret.newest] = {**made, "data": given["data"]}
                for old in [number for number in secret.versions if number <= secret.newest - self.max_versions]:
                    del secret.versions[old]
                return 200, {"data": {**made, "version": secret.newest}}
            case "data", "DELETE":
                if secret is not None and secret.newest in secret.versions:
                    secret.versions[secret.newest]["deletion_time"] = _now()
                return 204, None
            case "delete" | "undelete" | "destroy", "POST" | "PUT":
                for number in given.get("versions", []):
                    version = secret.versions.get(int(number)) if secret else None
                    if version is None:
                        continue
                    if area == "destroy":
                        version.update(destroyed=True, data=None)
                    elif not version["destroyed"]:
                        version["deletion_time"] = _now() if area == "delete" else ""
                return 204, None
            case "metadata", "DELETE":
                self.secrets.pop(path, None)
                return 204, None
        raise Answer(405, "unsupported operation")

    # transit

    def _transit(self, method: str, rest: str, given: Any) -> tuple[int, Any]:
        match [method, *rest.split("/")]:
            case ["LIST", "keys"]:
                if not self.keys:
                    raise Answer(404)
                return 200, {"data": {"keys": sorted(self.keys)}}
            case ["GET", "wrapping_key"]:
                return 200, {"data": {"public_key": _pem(self._wrapping.public_key())}}
            case ["GET", "keys", name]:
                return 200, {"data": self._shown(name, self._key(name, 404))}
            case ["POST", "keys", name]:
                if name not in self.keys:
                    self.keys[name] = TransitKey(given.get("type", "aes256-gcm96"))
                    self.keys[name].versions.append(_new(self.keys[name].type))
                return 200, {"data": self._shown(name, self.keys[name])}
            case ["POST", "keys", name, "rotate"]:
                key = self._key(name)
                key.versions.append(_new(key.type))
                return 204, None
            case ["POST", "keys", name, "config"]:
                self._key(name).deletion_allowed = bool(given.get("deletion_allowed"))
                return 204, None
            case ["POST", "keys", name, "import"]:
                self.keys[name] = TransitKey(given["type"], [self._unwrapped(given)], imported=True)
                return 204, None
            case ["DELETE", "keys", name]:
                if not self._key(name).deletion_allowed:
                    raise Answer(400, "error deleting policy: deletion is not allowed for this key")
                del self.keys[name]
                return 204, None
            case ["POST", "encrypt", name]:
                if name not in self.keys:  # Vault makes it, for whoever may create
                    self.keys[name] = TransitKey("aes256-gcm96", [_new("aes256-gcm96")])
                return 200, {"data": {"ciphertext": self._encrypted(self.keys[name], given)}}
            case ["POST", "decrypt", name]:
                return 200, {"data": {"plaintext": _b64(self._decrypted(self._key(name), given))}}
            case ["POST", "sign", name]:
                return 200, {"data": {"signature": self._signed(self._key(name), given)}}
        raise Answer(404)

    def _key(self, name: str, status: int = 400) -> TransitKey:
        if name not in self.keys:
            raise Answer(status, *(["encryption key not found"] if status == 400 else []))
        return self.keys[name]

    def _shown(self, name: str, key: TransitKey) -> dict[str, Any]:
        def one(version: Any) -> Any:
            if isinstance(version, bytes):
                return 1700000000
            public = version.public_key()
            if isinstance(public, ed25519.Ed25519PublicKey):
                return {"public_key": _b64(public.public_bytes_raw()), "name": "ed25519"}
            return {"public_key": _pem(public), "name": key.type}

        versions = {str(number): one(version) for number, version in enumerate(key.versions, 1)}
        return {"name": name, "type": key.type, "latest_version": len(key.versions), "keys": versions}

    def _unwrapped(self, given: Any) -> Any:
        wrapped, size = _unb64(given["ciphertext"]), self._wrapping.key_size // 8
        try:
            oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
            material = aes_key_unwrap_with_padding(self._wrapping.decrypt(wrapped[:size], oaep), wrapped[size:])
            if given["type"] == "aes256-gcm96":
                if len(material) != 32:
                    raise ValueError("length")
                return material
            key = serialization.load_der_private_key(material, None)
            if type(key) is not type(_new(given["type"])):
                raise ValueError("kind")
            return key
        except (ValueError, InvalidUnwrap) as error:
            raise Answer(400, "error importing key: invalid key size or type") from error

    def _encrypted(self, key: TransitKey, given: Any) -> str:
        newest = key.versions[-1]
        plaintext, aad = _unb64(given["plaintext"]), _unb64(given.get("associated_data", ""))
        if isinstance(newest, bytes):
            nonce = os.urandom(12)
            made = nonce + AESGCM(newest).encrypt(nonce, plaintext, aad)
        elif isinstance(newest, rsa.RSAPrivateKey):
            made = newest.public_key().encrypt(plaintext, _OAEP)
        else:
            raise Answer(400, "message encryption not supported for key type " + key.type)
        return f"vault:v{len(key.versions)}:{_b64(made)}"

    def _decrypted(self, key: TransitKey, given: Any) -> bytes:
        head, _, text = str(given["ciphertext"]).rpartition(":")
        number = head.removeprefix("vault:v")
        if not head.startswith("vault:v") or not number.isdigit() or not 0 < int(number) <= len(key.versions):
            raise Answer(400, "invalid ciphertext: no prefix")
        version, sealed = key.versions[int(number) - 1], _unb64(text)
        try:
            if isinstance(version, bytes):
                return AESGCM(version).decrypt(sealed[:12], sealed[12:], _unb64(given.get("associated_data", "")))
            return bytes(version.decrypt(sealed, _OAEP))
        except (InvalidTag, ValueError) as error:
            raise Answer(400, "cipher: message authentication failed") from error

    def _signed(self, key: TransitKey, given: Any) -> str:
        newest, message = key.versions[-1], _unb64(given["input"])
        if isinstance(newest, ed25519.Ed25519PrivateKey):
            made = newest.sign(message)
        else:
            chosen = _HASHES[given.get("hash_algorithm", "sha2-256")]()
            if isinstance(newest, ec.EllipticCurvePrivateKey):
                made = newest.sign(message, ec.ECDSA(chosen))
            elif isinstance(newest, rsa.RSAPrivateKey):
                salt = chosen.digest_size if given.get("salt_length") == "hash" else padding.PSS.MAX_LENGTH
                pss = padding.PSS(padding.MGF1(chosen), salt)
                made = newest.sign(message, pss if given.get("signature_algorithm") != "pkcs1v15" else padding.PKCS1v15(), chosen)  # fmt: skip
            else:
                raise Answer(400, f"key type {key.type} does not support signing")
        return f"vault:v{len(key.versions)}:{_b64(made)}"


_OAEP = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)


def _new(type_: str) -> Any:
    if type_ == "aes256-gcm96":
        return os.urandom(32)
    if type_.startswith("rsa-"):
        return rsa.generate_private_key(65537, int(type_[4:]))
    if type_ == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if type_ in _CURVES:
        return ec.generate_private_key(_CURVES[type_]())
    raise Answer(400, f"unknown key type {type_}")


def _pem(key: Any) -> str:
    return str(key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo), "ascii")


def _b64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _unb64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise Answer(400, "failed to base64-decode") from error
