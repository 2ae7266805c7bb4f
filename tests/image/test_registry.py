"""The registry client against real registries, and against servers that break off, lie, loop and never end."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import ClassVar

import pytest
from tests import ports
from tests.image.building import Built, image, layer
from tests.image.registries import Authority, RunningRegistry, docker_registry, serving, token_server

from adyton.errors import AdytonError, ConfigError, DigestMismatch, MalformedImage, NotFound, NotPermitted, Unavailable
from adyton.image import media_types, registry_blob, registry_upload
from adyton.image.reference import ImageReference
from adyton.image.registry import Registry
from adyton.image.registry_auth import Credentials, challenges
from adyton.image.registry_blob import RegistryBlob
from adyton.image.registry_http import Origin
from adyton.image.registry_image import RegistrySink
from adyton.image.registry_options import RegistryOptions
from adyton.image.source import CheckedBlob
from adyton.image.transports import open_sink, open_source
from adyton.rats.types import Digest

BLOB = hashlib.shake_256(b"blob").digest(3 << 20)
DIGEST = Digest.of(BLOB)


def quick() -> Registry:
    """A registry client that does not wait."""
    return Registry(sleep=lambda _: None)


def named(host: str, name: str = "team/app:1") -> ImageReference:
    return ImageReference.parse(f"docker://{host}/{name}")


class Server(BaseHTTPRequestHandler):
    """A registry of the test's own; subclasses say what goes wrong."""

    protocol_version = "HTTP/1.1"
    log: ClassVar[list[str]]

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers and "Transfer_Encoding" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def drop(self) -> None:
        """Break the connection."""
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def start(self) -> int:
        """Where a range request begins."""
        return int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))

    def partial(self, data: bytes = BLOB, **headers: str) -> None:
        """An honest answer to a range request, as far as it goes."""
        start = self.start()
        ranged = {"Content_Range": f"bytes {start}-{len(BLOB) - 1}/{len(BLOB)}"} if start else {}
        length = str(len(BLOB) - start)
        self.answer(206 if start else 200, data[start:], **{"Content_Length": length, **ranged, **headers})

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the base class's name
        pass


def serve(get: Callable[[Server], None], **more: Callable[[Server], None]) -> type[Server]:
    """A server whose methods are the functions given; ``log`` lists method, path and authorization."""

    def logged(function: Callable[[Server], None]) -> Callable[[Server], None]:
        def run(self: Server) -> None:
            self.log.append(f"{self.command} {self.path} {self.headers.get('Authorization', '-')}")
            function(self)

        return run

    members = {"do_GET": logged(get), "do_HEAD": logged(get), "log": []}
    members.update({f"do_{method}": logged(function) for method, function in more.items()})
    return type("Wrong", (Server,), members)


def read_all(host: str, size: int = len(BLOB)) -> bytes:
    registry = quick()
    try:
        with CheckedBlob(registry.open_blob(named(host), DIGEST), DIGEST, size) as blob:
            return blob.read()
    finally:
        registry.close()


def resolve(host: str, name: str = "team/app:1", registry: Registry | None = None) -> None:
    registry = registry or quick()
    try:
        registry.resolve(named(host, name))
    finally:
        registry.close()


# --- blobs that break -----------------------------------------------------------------------------------------------


def test_a_connection_that_breaks_again_and_again_is_taken_up_where_it_broke() -> None:
    def get(self: Server) -> None:
        start = self.start()
        self.partial(BLOB[: start + 700_001])
        self.drop()

    handler = serve(get)
    with serving(handler) as host:
        assert read_all(host) == BLOB
    assert len(handler.log) == 5


def test_a_registry_that_ignores_ranges() -> None:
    def get(self: Server) -> None:
        self.answer(200, BLOB[: 400_000 * len(self.log)], Content_Length=str(len(BLOB)))
        self.drop()

    with serving(serve(get)) as host:
        assert read_all(host) == BLOB


def test_a_connection_that_never_gets_anywhere_is_given_up() -> None:
    def get(self: Server) -> None:
        self.partial(BLOB[: self.start() + 10])
        self.drop()

    handler = serve(get)
    with serving(handler) as host, pytest.raises(Unavailable):
        read_all(host)
    assert len(handler.log) < 12


@pytest.mark.parametrize(
    "wrong",
    [
        f"bytes 0-{len(BLOB) - 1}/{len(BLOB)}",
        f"bytes 5-{len(BLOB) - 1}/{len(BLOB)}",
        f"bytes 1000-{len(BLOB)}/{len(BLOB) + 1}",
        "bytes 1000-1001/1002",
        f"bytes 1000-2000/{len(BLOB)}",
        "bytes 1000-500/*",
        "bytes */*",
        "pages 1-2/3",
        "",
    ],
)
def test_a_range_that_was_not_asked_for_is_not_used(wrong: str) -> None:
    def get(self: Server) -> None:
        if self.start():
            self.partial(Content_Range=wrong)
        else:
            self.partial(BLOB[:1000])
            self.drop()

    with serving(serve(get)) as host, pytest.raises(Unavailable) as caught:
        read_all(host)
    assert caught.value.code == "registry_range"


def test_a_blob_that_changes_its_length_in_between() -> None:
    def get(self: Server) -> None:
        if self.start():
            self.answer(200, BLOB + b"x")
        else:
            self.partial(BLOB[:1000])
            self.drop()

    with serving(serve(get)) as host, pytest.raises(Unavailable):
        read_all(host)


def test_another_blob_than_asked_for() -> None:
    with serving(serve(lambda self: self.answer(200, bytes(len(BLOB))))) as host, pytest.raises(DigestMismatch):
        read_all(host)


def test_a_blob_without_end_is_cut_off_at_its_size() -> None:
    def get(self: Server) -> None:
        self.answer(200, Transfer_Encoding="chunked")
        for _ in range(10_000):
            self.wfile.write(b"10000\r\n" + bytes(0x10000) + b"\r\n")

    with serving(serve(get)) as host, pytest.raises(DigestMismatch, match="longer"):
        read_all(host, size=1 << 20)


def test_a_chunked_blob_that_breaks() -> None:
    def get(self: Server) -> None:
        self.answer(200, Transfer_Encoding="chunked")
        self.wfile.write(b"64\r\n" + bytes(50))
        self.drop()

    with serving(serve(get)) as host, pytest.raises(AdytonError):
        read_all(host)


def test_a_blob_that_is_encoded_on_the_way() -> None:
    handler = serve(lambda self: self.answer(200, BLOB, Content_Encoding="gzip"))
    with serving(handler) as host, pytest.raises(Unavailable, match="encodes"):
        read_all(host)


def test_a_blob_that_drips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_blob, "WINDOW", 0.2)

    def get(self: Server) -> None:
        self.answer(200, Content_Length=str(len(BLOB)))
        with contextlib.suppress(OSError):
            for byte in BLOB:
                self.wfile.write(bytes([byte]))
                time.sleep(0.01)

    with serving(serve(get)) as host, pytest.raises(Unavailable) as caught:
        read_all(host)
    assert caught.value.code == "registry_slow"


def test_opening_at_an_offset_and_reading_in_threads() -> None:
    with serving(serve(lambda self: self.partial())) as host:
        registry = quick()

        def tail(offset: int) -> bytes:
            with closing(registry.open_blob(named(host), DIGEST, offset)) as blob:
                return blob.read()

        offsets = [0, 1, 1000, len(BLOB) - 1, 7, 8]
        with ThreadPoolExecutor(6) as pool:
            assert list(pool.map(tail, offsets)) == [BLOB[offset:] for offset in offsets]
        registry.close()


# --- manifests ------------------------------------------------------------------------------------------------------


def test_an_endless_manifest() -> None:
    def get(self: Server) -> None:
        self.answer(200, Transfer_Encoding="chunked")
        for _ in range(1000):
            self.wfile.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")

    with serving(serve(get)) as host, pytest.raises(MalformedImage) as caught:
        resolve(host)
    assert caught.value.code == "answer_too_large"


def test_a_manifest_that_is_not_the_digest_asked_for() -> None:
    with serving(serve(lambda self: self.answer(200, b"{}"))) as host, pytest.raises(DigestMismatch):
        resolve(host, f"team/app@{DIGEST}")


def test_a_manifest_that_contradicts_the_stated_digest() -> None:
    handler = serve(lambda self: self.answer(200, b"{}", Docker_Content_Digest=str(DIGEST)))
    with serving(handler) as host, pytest.raises(DigestMismatch):
        resolve(host)


def test_a_manifest_that_is_cut_off() -> None:
    def get(self: Server) -> None:
        self.answer(200, b"{", Content_Length="100")
        self.drop()

    with serving(serve(get)) as host, pytest.raises(Unavailable):
        resolve(host)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, Unavailable),
        (401, NotPermitted),
        (403, NotPermitted),
        (404, NotFound),
        (418, Unavailable),
        (503, Unavailable),
    ],
)
def test_statuses(status: int, kind: type[AdytonError]) -> None:
    said = json.dumps({"errors": [{"code": "X", "message": "\x1b[31mred\x00" + "m" * 1000}]}).encode()
    with serving(serve(lambda self: self.answer(status, said))) as host, pytest.raises(kind) as caught:
        resolve(host)
    assert str(caught.value.as_dict()).isprintable()
    assert len(str(caught.value.as_dict())) < 1200


def test_retry_after_is_kept_and_bounded() -> None:
    waits: list[float] = []
    replies = iter([(429, "7"), (503, "nonsense"), (503, None)])

    def get(self: Server) -> None:
        status, wait = next(replies, (404, None))
        self.answer(status, b"", **({"Retry_After": wait} if wait else {}))

    with serving(serve(get)) as host, pytest.raises(NotFound):
        resolve(host, registry=Registry(sleep=waits.append))
    assert 7.0 in waits
    with serving(serve(lambda self: self.answer(429, Retry_After="86400"))) as host, pytest.raises(Unavailable) as late:
        resolve(host, registry=Registry(sleep=waits.append))
    assert late.value.code == "registry_busy"
    assert max(waits) <= 60


def test_nobody_there() -> None:
    port = ports.reserve()  # where nobody listens
    with pytest.raises(Unavailable, match="cannot be reached"):
        resolve(f"127.0.0.1:{port}")


def test_garbage_instead_of_http() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        stop = threading.Event()

        def run() -> None:
            server.settimeout(0.1)
            while not stop.is_set():
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    continue
                with connection:
                    connection.recv(4096)
                    connection.sendall(b"\x00\xff\xfe nonsense\r\n\r\n")

        thread = threading.Thread(target=run)
        thread.start()
        try:
            with pytest.raises(Unavailable):
                resolve(f"127.0.0.1:{server.getsockname()[1]}")
        finally:
            stop.set()
            thread.join()


# --- redirects ------------------------------------------------------------------------------------------------------


def test_a_redirect_is_followed_and_the_credentials_stay_behind() -> None:
    elsewhere = serve(lambda self: self.answer(200, BLOB))
    with serving(elsewhere) as target:

        def get(self: Server) -> None:
            if not self.headers.get("Authorization"):
                self.answer(401, WWW_Authenticate='Basic realm="x"')
            else:
                self.answer(307, Location=f"http://{target}/blob?signature=1")

        with serving(serve(get)) as host:
            auth = json.dumps({"auths": {host: {"username": "user", "password": "secret"}}})
            registry = Registry(RegistryOptions(auth_json=auth), sleep=lambda _: None)
            with closing(registry.open_blob(named(host), DIGEST)) as blob:
                assert blob.read() == BLOB
            registry.close()
    assert elsewhere.log == ["GET /blob?signature=1 -"]


def test_a_redirect_in_a_circle() -> None:
    handler = serve(lambda self: self.answer(302, Location=self.path))
    with serving(handler) as host, pytest.raises(Unavailable) as caught:
        resolve(host)
    assert caught.value.code == "registry_redirects"
    assert len(handler.log) == 6


@pytest.mark.parametrize(
    "location",
    [
        "http://registry.example/x",
        "file:///etc/passwd",
        "ftp://x/y",
        "http://user@127.0.0.1/",
        "http://[",
        "//",
        "\\\\x",
    ],
)
def test_a_redirect_to_where_nobody_may_go(location: str) -> None:
    handler = serve(lambda self: self.answer(307, Location=location))
    with serving(handler) as host, pytest.raises(AdytonError):
        resolve(host)


def test_a_redirect_from_https_to_http(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    plain = serve(lambda self: self.answer(200, BLOB))
    with serving(plain) as target:
        handler = serve(lambda self: self.answer(307, Location=f"http://{target}/"))
        with serving(handler, authority.server_context()) as host:
            registry = Registry(RegistryOptions(ca_pem=authority.pem), sleep=lambda _: None)
            with pytest.raises(Unavailable) as caught:
                registry.open_blob(named(host), DIGEST)
            registry.close()
    assert caught.value.code == "registry_downgrade"
    assert plain.log == []


# --- TLS ------------------------------------------------------------------------------------------------------------


def test_a_certificate_that_nobody_vouches_for(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    handler = serve(lambda self: self.answer(200, b"{}"))
    with serving(handler, authority.server_context()) as host:
        with pytest.raises(ConfigError) as caught:
            resolve(host)
        assert caught.value.code == "registry_certificate"
        assert handler.log == []
        accepted = Registry(RegistryOptions(unverified_tls=frozenset({host})), sleep=lambda _: None)
        resolve(host, registry=accepted)
        known = Registry(RegistryOptions(ca_pem=authority.pem), sleep=lambda _: None)
        resolve(host, registry=known)


def test_a_ca_file_without_a_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with serving(serve(lambda self: self.answer(200, b"{}")), authority.server_context()) as host:
        with pytest.raises(ConfigError) as caught:
            resolve(host, registry=Registry(RegistryOptions(ca_pem="not a certificate"), sleep=lambda _: None))
        assert caught.value.code == "ca_invalid"


def test_plain_http_is_for_loopback_or_when_asked() -> None:
    http = Registry(RegistryOptions(plain_http=frozenset({"registry.example:5000"}))).http
    assert http.base("registry.example:5000") == "http://registry.example:5000"
    assert http.base("registry.example") == "https://registry.example"
    assert http.base("127.0.0.1.registry.example") == "https://127.0.0.1.registry.example"
    assert not http.may_be_plain(Origin("http", "127.0.0.1.registry.example", 80))
    assert http.may_be_plain(Origin("http", "::1", 80))


@pytest.mark.parametrize("name", ["registry.example:80", "Registry.Example", "REGISTRY.example:5000"])
def test_a_host_is_the_same_in_any_spelling(name: str) -> None:
    http = Registry(RegistryOptions(plain_http=frozenset({name}))).http
    begun = f"{http.base(name)}/v2/app/blobs/uploads/"
    assert http.next_url(begun, "/v2/app/blobs/uploads/1").endswith("/1")
    with pytest.raises(Unavailable):
        http.next_url(begun, "http://registry.example:81/v2/")


def test_errors_show_no_signatures_and_no_passwords() -> None:
    http = Registry().http
    for location in (
        "http://user:hunter2@registry.example/x",
        "ftp://storage.example/blob?signature=hunter2",
        "http://storage.example/blob?signature=hunter2",
        "http://storage.example#hunter2",
        "//user:hunter2@storage.example",
        "https://user:hunter2@storage.example?x/",
    ):
        with pytest.raises(Unavailable) as caught:
            http.next_url("https://registry.example/", location)
        assert "hunter2" not in str(caught.value.as_dict())


# --- logging in -----------------------------------------------------------------------------------------------------


def realm(self: Server, where: str) -> None:
    self.answer(401, WWW_Authenticate=f'Bearer realm="{where}",service="s"')


def test_a_realm_without_tls_for_a_registry_with_it(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    token = serve(lambda self: self.answer(200, b'{"token":"x"}'))
    with serving(token) as target:
        handler = serve(lambda self: realm(self, f"http://{target}/token"))
        with serving(handler, authority.server_context()) as host:
            auth = json.dumps({"auths": {host: {"username": "user", "password": "secret"}}})
            registry = Registry(RegistryOptions(auth_json=auth, ca_pem=authority.pem), sleep=lambda _: None)
            with pytest.raises(Unavailable) as caught:
                resolve(host, registry=registry)
    assert caught.value.code == "registry_realm"
    assert token.log == []


@pytest.mark.parametrize("where", ["", "http://registry.example/token", "gopher://x", "http://u@127.0.0.1/"])
def test_a_realm_that_cannot_be_used(where: str) -> None:
    with serving(serve(lambda self: realm(self, where))) as host, pytest.raises(Unavailable):
        resolve(host)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"[]",
        b"{}",
        b'{"token":""}',
        b'{"token":1}',
        b'{"token":"a\\r\\nInjected: yes"}',
        b'{"token":"a b"}',
        b"x" * 300000,
    ],
)
def test_a_token_service_that_gives_no_token(answer: bytes) -> None:
    with contextlib.ExitStack() as stack:
        service = stack.enter_context(serving(serve(lambda self: self.answer(200, answer))))
        host = stack.enter_context(serving(serve(lambda self: realm(self, f"http://{service}/t"))))
        with pytest.raises(AdytonError):
            resolve(host)


def test_a_token_that_does_not_help_is_tried_once() -> None:
    token = serve(lambda self: self.answer(200, b'{"token":"abc"}'))
    with serving(token) as service:
        handler = serve(lambda self: realm(self, f"http://{service}/t"))
        with serving(handler) as host, pytest.raises(NotPermitted):
            resolve(host)
    assert (len(handler.log), len(token.log)) == (2, 1)
    assert handler.log[1].endswith("Bearer abc")


def test_challenges_are_read_as_they_are_written() -> None:
    (challenge,) = challenges(['Bearer realm="https://a/t?x=1,2",service=reg,scope="repository:a\\"b:pull"'])
    assert challenge.parameters == {"realm": "https://a/t?x=1,2", "service": "reg", "scope": 'repository:a"b:pull'}
    assert [one.scheme for one in challenges(["", "Basic", 'NEGOTIATE x="'])] == ["basic", "negotiate"]
    both = challenges(['Basic realm="x, y" , Bearer realm="https://a/t",service="s",Digest'])
    assert [one.scheme for one in both] == ["basic", "bearer", "digest"]
    assert both[1].parameters == {"realm": "https://a/t", "service": "s"}
    for long in ("\\" * 9000, " " * 9000, "a=b " * 3000, "a " * 9000, ', Bearer realm="x"' * 900):
        assert len(challenges([f'Bearer realm="{long}', long] * 50)) <= 8


def test_an_entry_without_a_secret_is_no_credential() -> None:
    """As Docker leaves them where a program keeps the secrets: what needs no login is pulled without one."""
    text = json.dumps({"auths": {"r.example": {"username": "u", "password": "p"}, "r.example/a": {}, "docker.io": {}}})
    found = Credentials.parse(text)
    assert found.find("docker.io", "library/busybox") is None
    whole = found.find("r.example", "a")
    assert whole is not None and whole.user == "u"


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "[]",
        '{"auths":[]}',
        '{"auths":{"a":{"auth":"!"}}}',
        '{"auths":{"a":{"auth":"bm9jb2xvbg=="}}}',
        '{"auths":{"a":{"auth":"//8="}}}',
        '{"auths":{"a":{},"a":{}}}',
    ],
)
def test_credentials_that_cannot_be_read(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Credentials.parse(text)
    assert caught.value.code == "auth_json"


def test_the_longest_prefix_in_whole_parts_wins() -> None:
    def entry(user: str) -> dict[str, str]:
        return {"username": user, "password": "p"}

    found = Credentials.parse(
        json.dumps(
            {
                "auths": {
                    "https://index.docker.io/v1/": entry("hub"),
                    "r.example": entry("host"),
                    "r.example/team": entry("team"),
                    "r.example/team/app": entry("app"),
                },
                "credHelpers": {"h.example": "x"},
            }
        )
    )

    def who(registry: str, repository: str) -> str | None:
        credential = found.find(registry, repository)
        return credential.user if credential else None

    assert who("docker.io", "library/busybox") == "hub"
    assert who("r.example", "other") == "host"
    assert who("r.example", "team/x") == "team"
    assert who("r.example", "teams/x") == "host"
    assert who("r.example", "team/app/deep") == "app"
    assert who("r.example:5000", "team") is None
    assert who("evil-r.example", "team") is None
    with pytest.raises(ConfigError) as caught:
        found.find("h.example", "x")
    assert caught.value.code == "auth_helper"
    assert "p" not in repr(found.find("r.example", "team")).replace("app", "").replace("repr", "").split("user")[0]


# --- uploads that break ---------------------------------------------------------------------------------------------


class Uploads:
    """An upload session that breaks as told. ``held`` is what the registry has."""

    def __init__(self) -> None:
        self.held = bytearray()
        self.break_at: list[int] = []
        self.lose = False
        self.ranges: list[str] = []
        self.done = ""

    def handler(self) -> type[Server]:
        return serve(self.get, POST=self.post, PATCH=self.patch, PUT=self.put, DELETE=lambda self: self.answer(204))

    def get(self, server: Server) -> None:
        if "/uploads/" not in server.path:
            server.answer(404)
            return
        end = max(len(self.held) - 1, 0)
        server.answer(204, Range=f"0-{end}", Location=server.path)

    def post(self, server: Server) -> None:
        server.answer(202, Location="/v2/team/app/blobs/uploads/1?state=a")

    def patch(self, server: Server) -> None:
        self.ranges.append(server.headers["Content-Range"])
        length = int(server.headers["Content-Length"])
        if int(server.headers["Content-Range"].split("-")[0]) != len(self.held):
            server.rfile.read(length)
            server.answer(416, Range=f"0-{max(len(self.held) - 1, 0)}", Location=server.path)
            return
        if self.break_at:
            self.held += server.rfile.read(min(length, self.break_at.pop(0)))
            if self.lose:
                self.held.clear()
            server.drop()
            return
        self.held += server.rfile.read(length)
        server.answer(202, Range=f"0-{len(self.held) - 1}", Location=server.path)

    def put(self, server: Server) -> None:
        self.held += server.rfile.read(int(server.headers["Content-Length"]))
        self.done = server.path
        server.answer(201, Docker_Content_Digest=str(Digest.of(bytes(self.held))))


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_upload, "CHUNK", 1 << 20)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("breaks", [[], [0], [1], [500_000], [1 << 20], [0, 0, 300, 0], [1, 1, 1, 1]])
def test_an_upload_that_breaks_is_taken_up_where_it_broke(breaks: list[int]) -> None:
    uploads = Uploads()
    uploads.break_at = list(breaks)
    with serving(uploads.handler()) as host:
        registry = quick()
        upload = registry.start_upload(named(host))
        for start in range(0, len(BLOB), 300_000):
            upload.write(memoryview(BLOB)[start : start + 300_000])
        upload.commit(DIGEST)
        registry.close()
    assert bytes(uploads.held) == BLOB
    assert uploads.done.startswith("/v2/team/app/blobs/uploads/1?state=a&digest=sha256%3A")


@pytest.mark.usefixtures("small_chunks")
def test_a_registry_that_loses_what_it_had_acknowledged() -> None:
    uploads = Uploads()
    with serving(uploads.handler()) as host:
        registry = quick()
        upload = registry.start_upload(named(host))
        upload.write(BLOB[: 1 << 20])
        uploads.break_at, uploads.lose = [10], True
        with pytest.raises(Unavailable) as caught:
            upload.write(BLOB[1 << 20 :])
        upload.abort()
        registry.close()
    assert caught.value.code == "registry_upload"


def test_a_registry_that_stores_something_else() -> None:
    class Liar(Uploads):
        def put(self, server: Server) -> None:
            server.rfile.read(int(server.headers["Content-Length"]))
            server.answer(201, Docker_Content_Digest=str(Digest.of(b"other")))

    with serving(Liar().handler()) as host:
        registry = quick()
        upload = registry.start_upload(named(host))
        upload.write(b"small")
        with pytest.raises(DigestMismatch):
            upload.commit(Digest.of(b"small"))
        with pytest.raises(DigestMismatch):
            registry.put_manifest(named(host), b"{}", media_types.OCI_MANIFEST)
        registry.close()


def test_an_upload_location_on_another_host_gets_no_credentials() -> None:
    other = Uploads()
    with serving(other.handler()) as target:

        def post(self: Server) -> None:
            if not self.headers.get("Authorization"):
                self.answer(401, WWW_Authenticate='Basic realm="x"')
            else:
                self.answer(202, Location=f"http://{target}/v2/team/app/blobs/uploads/1")

        with serving(serve(lambda self: self.answer(404), POST=post)) as host:
            auth = json.dumps({"auths": {host: {"username": "user", "password": "secret"}}})
            registry = Registry(RegistryOptions(auth_json=auth), sleep=lambda _: None)
            upload = registry.start_upload(named(host))
            upload.write(b"small")
            upload.commit(Digest.of(b"small"))
            registry.close()
    assert bytes(other.held) == b"small"


# --- real registries ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRegistry]:
    with docker_registry(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


def built(text: bytes = b"hello") -> Built:
    return image([layer({"a": text})], Cmd=["/bin/sh"])


def push(sink_name: str, image_: Built, options: RegistryOptions | None = None, source: str | None = None) -> None:
    near = ImageReference.parse(source) if source else None
    with closing(open_sink(ImageReference.parse(sink_name), options, near)) as sink:
        for digest, blob in image_.blobs.items():
            if not sink.has_blob(digest):
                writer = sink.start_blob()
                writer.write(blob)
                writer.commit(digest)
        assert sink.put_manifest(image_.raw, image_.media_type) == image_.digest


def pull(name: str, image_: Built, options: RegistryOptions | None = None) -> None:
    source = open_source(ImageReference.parse(name), options)
    try:
        fetched = source.manifest()
        assert (fetched.raw, fetched.digest, fetched.media_type) == (image_.raw, image_.digest, image_.media_type)
        assert source.manifest(image_.digest).raw == image_.raw
        for digest, blob in image_.blobs.items():
            with closing(source.open_blob(digest)) as stream:
                assert stream.read() == blob
            with closing(source.open_blob(digest, 3)) as stream:
                assert stream.read() == blob[3:]
    finally:
        source.close()


def test_pushed_and_pulled(running: RunningRegistry) -> None:
    name = running.reference("team/app:1")
    push(name, built())
    pull(name, built())
    registry = quick()
    reference = ImageReference.parse(name)
    assert registry.has_manifest(reference)
    assert not registry.has_manifest(ImageReference.parse(running.reference("team/app:2")))
    with pytest.raises(NotFound):
        registry.resolve(ImageReference.parse(running.reference("team/app:2")))
    with pytest.raises(NotFound):
        registry.open_blob(reference, Digest.of(b"nothing"))
    with pytest.raises(NotFound):
        registry.resolve(reference.with_digest(Digest.of(b"nothing")))
    registry.close()


@pytest.mark.usefixtures("small_chunks")
def test_a_large_blob_in_chunks(running: RunningRegistry) -> None:
    registry = quick()
    reference = ImageReference.parse(running.reference("team/large:1"))
    upload = registry.start_upload(reference)
    upload.write(BLOB + b"tail")
    whole = Digest.of(BLOB + b"tail")
    assert not registry.has_blob(reference, whole)
    upload.commit(whole)
    assert registry.has_blob(reference, whole)
    with closing(registry.open_blob(reference, whole, len(BLOB))) as blob:
        assert blob.read() == b"tail"
    registry.close()


@pytest.mark.usefixtures("small_chunks")
def test_a_wrong_digest_is_refused_and_an_aborted_upload_leaves_no_blob(running: RunningRegistry) -> None:
    registry = quick()
    reference = ImageReference.parse(running.reference("team/abort:1"))
    for data in (b"small", BLOB):
        upload = registry.start_upload(reference)
        upload.write(data)
        with pytest.raises(AdytonError):
            upload.commit(Digest.of(b"something else"))
        upload.abort()
        upload.abort()
        assert not registry.has_blob(reference, Digest.of(data))
    registry.close()


def test_blobs_of_the_same_registry_are_mounted(running: RunningRegistry) -> None:
    first, second = running.reference("one/app:1"), running.reference("two/app:1")
    push(first, built())
    sink = RegistrySink(quick(), ImageReference.parse(second), "one/app")
    assert all(sink.has_blob(digest) for digest in built().blobs)
    assert not sink.has_blob(Digest.of(b"nowhere"))
    sink.close()
    push(second, built(), source=first)
    pull(second, built())


def test_a_destination_with_a_digest(running: RunningRegistry) -> None:
    with pytest.raises(ConfigError) as caught:
        open_sink(ImageReference.parse(running.reference(f"a/b@{DIGEST}")))
    assert caught.value.code == "destination_digest"


def test_passwords_over_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    with docker_registry(tmp_path, htpasswd="user:secret", tls=authority) as registry:
        name = registry.reference("team/app:1")

        def options(password: str) -> RegistryOptions:
            auths = {registry.host: {"username": "user", "password": password}}
            return RegistryOptions(auth_json=json.dumps({"auths": auths}), ca_pem=authority.pem)

        with pytest.raises(NotPermitted) as anonymous:
            push(name, built(), RegistryOptions(ca_pem=authority.pem))
        assert anonymous.value.got == "no credentials"
        with pytest.raises(NotPermitted) as wrong:
            push(name, built(), options("wrong-password"))
        assert "wrong-password" not in str(wrong.value.as_dict())
        push(name, built(), options("secret"))
        pull(name, built(), options("secret"))


def test_tokens(tmp_path: Path) -> None:
    with token_server(tmp_path, anonymous=True) as tokens, docker_registry(tmp_path, token=tokens) as registry:
        name = registry.reference("team/app:1")

        def options(**entry: str) -> RegistryOptions:
            return RegistryOptions(auth_json=json.dumps({"auths": {registry.host: entry}}))

        with pytest.raises(NotPermitted):
            push(name, built())
        with pytest.raises(NotPermitted):
            push(name, built(), options(username="user", password="wrong"))
        push(name, built(), options(username="user", password="secret"))
        tokens.requests.clear()
        pull(name, built())
        assert len(tokens.requests) == 1  # one token for the whole pull, without credentials
        assert tokens.requests[0][1] is None
        assert "scope=repository%3Ateam%2Fapp%3Apull" in tokens.requests[0][0]
        identity = options(identitytoken="identity", username="user", password="")
        push(registry.reference("team/two:1"), built(b"two"), identity)
        pull(registry.reference("team/two:1"), built(b"two"), identity)


def test_a_token_that_expires_is_renewed(tmp_path: Path) -> None:
    with (
        token_server(tmp_path, anonymous=True, lifetime=13) as tokens,
        docker_registry(tmp_path, token=tokens) as there,
    ):
        registry = quick()
        reference = ImageReference.parse(there.reference("team/app:1"))
        assert not registry.has_manifest(reference)
        time.sleep(3.1)
        assert not registry.has_manifest(reference)
        registry.close()
        assert len(tokens.requests) == 2


def test_http_contexts_are_not_left_open() -> None:
    """A blob closed in the middle gives its connection up."""
    with serving(serve(lambda self: self.partial())) as host:
        registry = quick()
        blob = registry.open_blob(named(host), DIGEST)
        assert isinstance(blob, RegistryBlob)
        blob.readinto(memoryview(bytearray(10)))
        blob.close()
        blob.close()
        with pytest.raises(ValueError, match="closed"):
            blob.readinto(memoryview(bytearray(10)))
        registry.close()


def test_tls_is_at_least_1_2(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    context = authority.server_context()
    with pytest.warns(DeprecationWarning):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with serving(serve(lambda self: self.answer(200, b"{}")), context) as host, pytest.raises(AdytonError):
        registry = Registry(RegistryOptions(ca_pem=authority.pem), sleep=lambda _: None)
        registry.http.request("GET", f"https://{host}/", {})
