"""Back ends that are broken or hostile: no answer is without end in bytes, time or depth, and none escapes as it came.

A server here does to each connection what a test says; what is asked of it must end soon, in an error of ours, and in
little memory.
"""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.stores.backends import laws
from tests.stores.backends.certificates import Authority
from tests.waiting import LONG, until

from adyton.errors import AdytonError, Unavailable
from adyton.stores.backends import ttlv
from adyton.stores.backends.aws import Aws
from adyton.stores.backends.grpc_plugin import PluginClient, PluginRequest
from adyton.stores.backends.guard import Guard
from adyton.stores.backends.kmip import Kmip
from adyton.stores.backends.options import AwsOptions, KmipOptions, PluginOptions, VaultOptions
from adyton.stores.backends.port import KeyKind, Signing
from adyton.stores.backends.vault import Vault

MODULE = Path("/usr/lib/softhsm/libsofthsm2.so")
SECONDS = 0.4
PATIENT = 20.0  # of a call that ends by what it is told, also on a machine that does much else
MOST_SECONDS = 30.0  # of a call with its retries
MOST_BYTES = 48 * 1024 * 1024
Conversation = Callable[[socket.socket], None]


class Server:
    """Does ``talk`` to each connection, once what was asked has come in part."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.talk: Conversation = lambda _: None
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self._listener.getsockname()[1]
        self.open = True
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while self.open:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            connection.settimeout(20)
            if self._context is None:
                self.talk(connection)
            else:
                with self._context.wrap_socket(connection, server_side=True) as secured:
                    self.talk(secured)

    def close(self) -> None:
        self.open = False
        self._listener.close()


def answering(*pieces: bytes, drip: bool = False, then: bytes = b"", again: bool = True) -> Conversation:
    """Each request is answered by the pieces, byte for byte if ``drip``, and then by ``then`` without end."""

    def talk(connection: socket.socket) -> None:
        while connection.recv(1 << 20):
            for piece in pieces:
                if not drip:
                    connection.sendall(piece)
                    continue
                for byte in piece:
                    connection.sendall(bytes([byte]))
                    time.sleep(0.05)
            end = time.monotonic() + 2 * MOST_SECONDS
            while then and time.monotonic() < end:
                connection.sendall(then)
            if not again:
                return

    return talk


def silent(connection: socket.socket) -> None:
    connection.recv(1)
    time.sleep(LONG)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
LENGTH = HEAD + b"Content-Length: %d\r\n\r\n"
DEEP = b'{"data":' + b"[" * 400_000
HTTP: dict[str, tuple[Conversation, set[str]]] = {
    "silent": (silent, {"backend_slow"}),
    "a status line that drips": (answering(b"HTTP/1.1 200 OK" * 100, drip=True), {"backend_slow"}),
    "a header that drips": (answering(HEAD + b"X: " + b"y" * 1000, drip=True), {"backend_slow"}),
    "headers without end": (
        answering(HEAD, then=b"X: y\r\n" * 1000),
        {"backend_unreachable", "backend_answer_too_large", "backend_answer_malformed"},
    ),
    "a line without end": (
        answering(b"HTTP/1.1 200 ", then=b"y" * 65536),
        {"backend_unreachable", "backend_answer_too_large", "backend_answer_malformed"},
    ),
    "continue without end": (
        answering(then=b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
        {"backend_answer_too_large", "backend_slow"},
    ),
    "a body that drips": (answering(LENGTH % 1000 + b"{" * 1000, drip=True), {"backend_slow"}),
    "a body that stops": (answering(LENGTH % 1000 + b"{"), {"backend_slow"}),
    "a body without end": (answering(HEAD + b"\r\n", then=b"[" * 65536), {"backend_answer_too_large"}),
    "a body of a length that none has": (
        answering(LENGTH % (1 << 50), then=b"[" * 65536),
        {"backend_answer_too_large"},
    ),
    "chunks without end": (
        answering(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", then=b"1000\r\n" + b"[" * 4096 + b"\r\n"),
        {"backend_answer_too_large"},
    ),
    "a chunk of a length that none has": (
        answering(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"7fffffffffffffff\r\n", then=b"[" * 65536),
        {"backend_answer_too_large"},
    ),
    "JSON of any depth": (
        answering(LENGTH % len(DEEP) + DEEP),
        {"backend_unreachable", "backend_answer_malformed"},
    ),
    "an error of any length": (
        answering(b"HTTP/1.1 400 X\r\n\r\n", then=b'{"errors":["' + b"x" * 65536),
        {"backend_answer_too_large"},
    ),
}


@contextmanager
def soon_and_small() -> Iterator[None]:
    tracemalloc.start()
    began = time.monotonic()
    try:
        yield
        assert time.monotonic() - began < MOST_SECONDS
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()


def code_of(call: Callable[[], object]) -> str:
    with pytest.raises(AdytonError) as caught:
        call()
    return caught.value.code


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture
def seconds(request: pytest.FixtureRequest) -> float:
    """Little where the end of the time is what ends the call."""
    how = getattr(request.node, "callspec", None) and request.node.callspec.params.get("how")
    ways = KMIP_WAYS if "kmip" in request.fixturenames else HTTP
    return PATIENT if how and "backend_slow" not in ways[how][1] else SECONDS


@pytest.fixture
def vault(server: Server, seconds: float, tmp_path: Path) -> Iterator[Vault]:
    (tmp_path / "token").write_text("steward\n")
    (tmp_path / "token").chmod(0o600)
    url = f"http://127.0.0.1:{server.port}"
    holder = Vault(VaultOptions(url=url, token_file=str(tmp_path / "token"), seconds=seconds))
    yield holder
    holder.close()


@pytest.fixture
def aws(server: Server, seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    credentials = tmp_path / "credentials"
    credentials.write_text("[default]\naws_access_key_id = A\naws_secret_access_key = s\n")
    credentials.chmod(0o600)
    url = f"http://127.0.0.1:{server.port}"
    options = AwsOptions(region="eu-central-1", endpoint_url=url, credentials_file=str(credentials), seconds=seconds)
    holder = Aws(options)
    yield holder
    holder.close()


@pytest.mark.parametrize("how", HTTP)
def test_vault(vault: Vault, server: Server, how: str) -> None:
    server.talk, codes = HTTP[how]
    with soon_and_small():
        assert code_of(lambda: vault.get("acme", laws.ONE)) in codes


@pytest.mark.parametrize("how", HTTP)
def test_aws(aws: Aws, server: Server, how: str) -> None:
    server.talk, codes = HTTP[how]
    with suppress(AdytonError):
        aws.get("acme", laws.ONE)  # what a client is made of is loaded with its first use: not counted
    with soon_and_small():
        assert code_of(lambda: aws.get("acme", laws.ONE)) in codes


def test_pages_without_end_end_with_the_call(aws: Aws, server: Server) -> None:
    pages = 0

    def talk(connection: socket.socket) -> None:
        nonlocal pages
        while connection.recv(1 << 20):
            pages += 1
            page = {"SecretList": [{"Name": "adyton/acme/default/key/1@x"}], "NextToken": f"{pages}"}
            body = json.dumps(page).encode()
            connection.sendall(LENGTH % len(body) + body)

    server.talk = talk
    with suppress(AdytonError):
        aws.get("acme", laws.ONE)  # what a client is made of is loaded with its first use
    pages = 0
    guard = Guard("aws", SECONDS, 1)
    assert code_of(lambda: guard.run(lambda: aws.list("acme"))) == "backend_slow"

    def nobody_asks() -> bool:
        seen = pages
        time.sleep(2 * SECONDS)
        return pages == seen

    until(nobody_asks, what="somebody goes on asking for whom nobody waits")
    assert pages > 1
    guard.close()


def test_a_thread_that_nobody_waits_for_comes_back(vault: Vault, server: Server) -> None:
    server.talk = answering(LENGTH % 1_000_000 + b"{" * 1_000_000, drip=True)
    guard = Guard("vault", SECONDS, 1)
    assert code_of(lambda: guard.run(lambda: vault.get("acme", laws.ONE))) == "backend_slow"
    body = b'{"data":{"data":{"value":"v"},"metadata":{"version":1,"created_time":"now"}}}'
    server.talk = answering(LENGTH % len(body) + body)

    def back() -> bool:
        with suppress(Unavailable):
            return guard.run(lambda: vault.get("acme", laws.ONE)) == b"v"
        return False

    until(back)
    guard.close()


# any JSON at all

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KNOWN: tuple[str, ...] = (
    "data",
    "adyton",
    "value",
    "metadata",
    "version",
    "created_time",
    "keys",
    "type",
    "latest_version",
    "1",
    "auth",
)
KNOWN += ("public_key", "ciphertext", "plaintext", "signature", "errors", "lease_duration", "client_token", "ttl")
AWS_KNOWN: tuple[str, ...] = (
    "KeyMetadata",
    "KeyId",
    "KeyState",
    "KeySpec",
    "KeyUsage",
    "PublicKey",
    "CiphertextBlob",
    "Plaintext",
)
AWS_KNOWN += (
    "Signature",
    "SecretList",
    "Name",
    "NextToken",
    "SecretBinary",
    "SecretString",
    "__type",
    "message",
    "Keys",
)
AWS_KNOWN += ("Description",)
VALUES = ("aes256-gcm96", "rsa-2048", "ecdsa-p256", "ed25519", "vault:v1:AAAA", "SYMMETRIC_DEFAULT", "RSA_2048", "AAAA")


def shaped(names: tuple[str, ...]) -> st.SearchStrategy[Any]:
    """JSON of the members that somebody looks for."""
    leaves = ANY_JSON | st.sampled_from([*VALUES, "ENCRYPT_DECRYPT", "SIGN_VERIFY", 1, 1 << 70])
    return st.recursive(
        leaves,
        lambda inner: st.dictionaries(st.sampled_from(names), inner, max_size=5) | st.lists(inner),
        max_leaves=12,
    )


def everything(holder: Any) -> list[Callable[[], object]]:
    return [
        holder.check,
        lambda: holder.get("acme", laws.ONE),
        lambda: holder.get("acme", laws.ONE, "0" * 32),
        lambda: holder.put("acme", laws.ONE, b"v"),
        lambda: holder.delete("acme", laws.ONE),
        lambda: holder.list("acme"),
        lambda: holder.generate(KeyKind.AES_256, "k"),
        lambda: holder.generate(KeyKind.RSA_2048, "k"),
        lambda: holder.import_key(KeyKind.AES_256, "k", bytes(32)),
        lambda: holder.public("h"),
        lambda: holder.encrypt("h", b"x", b"a"),
        lambda: holder.decrypt("h", b"vault:v1:AAAA" * 3, b"a"),
        lambda: holder.sign("h", Signing.ES256, b"m"),
        lambda: holder.sign("h", Signing.RS256, b"m"),
        lambda: holder.destroy("h"),
    ]


def nothing_foreign(holder: Any, which: int) -> None:
    with suppress(AdytonError):
        everything(holder)[which % len(everything(holder))]()


QUICK = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@QUICK
@given(st.integers(0, 100), shaped(KNOWN), st.sampled_from([200, 204, 400, 403, 404, 500]))
def test_whatever_vault_says(vault: Vault, server: Server, which: int, said: Any, status: int) -> None:
    body = json.dumps(said).encode()
    server.talk = answering(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body)
    nothing_foreign(vault, which)


@QUICK
@given(st.integers(0, 100), shaped(AWS_KNOWN), st.sampled_from([200, 200, 400]))
def test_whatever_aws_says(aws: Aws, server: Server, which: int, said: Any, status: int) -> None:
    body = json.dumps(said).encode()
    server.talk = answering(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body)
    guard = Guard("aws", SECONDS, 1)
    with suppress(Unavailable):  # of a listing whose pages never end
        guard.run(lambda: nothing_foreign(aws, which))
    guard.close()


# KMIP


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("kmip"), "ours")


@pytest.fixture(scope="module")
def kmip_server(authority: Authority) -> Iterator[Server]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("kmip"))
    made = Server(context)
    yield made
    made.close()


@pytest.fixture
def kmip(kmip_server: Server, seconds: float, authority: Authority) -> Iterator[Kmip]:
    certificate, key = authority.issue("broker", client=True)
    holder = Kmip(KmipOptions("127.0.0.1", certificate, key, authority.ca, port=kmip_server.port, seconds=seconds))
    yield holder
    holder.close()


def item(tag: int, kind: int, value: bytes, size: int | None = None) -> bytes:
    told = len(value) if size is None else size
    return tag.to_bytes(3, "big") + bytes([kind]) + told.to_bytes(4, "big") + value + bytes(-len(value) % 8)


def response(value: bytes, size: int | None = None) -> bytes:
    return item(0x42007B, 1, value, size)


def nested(levels: int) -> bytes:
    value = b""
    for _ in range(levels):
        value = item(0x42000F, 1, value)
    return value


KMIP_WAYS: dict[str, tuple[Conversation, set[str]]] = {
    "silent": (silent, {"backend_slow"}),
    "drips": (answering(response(nested(40)), drip=True), {"backend_slow"}),
    "stops": (answering(response(b"", 1024)), {"backend_slow"}),
    "hangs up": (answering(b"\x42\x00", again=False), {"backend_answer_malformed"}),
    "the longest length": (answering(response(b"", 0xFFFFFFFF), then=bytes(65536)), {"backend_answer_malformed"}),
    "one byte more than is allowed": (
        answering(response(b"", ttlv.MAX_MESSAGE + 8), then=bytes(65536)),
        {"backend_answer_malformed"},
    ),
    "of any depth": (answering(response(nested(100_000))), {"backend_answer_malformed"}),
    "an item longer than what it is in": (
        answering(response(item(0x42000F, 1, item(0x420094, 7, b"x", 1 << 31)))),
        {"backend_answer_malformed"},
    ),
    "a number of 16 MiB": (
        answering(response(item(0x42006A, 2, bytes(8), 1 << 24))),
        {"backend_answer_malformed"},
    ),
    "items without number": (answering(response(item(0x42000F, 1, b"") * 100_000)), {"backend_answer_malformed"}),
    "no response": (answering(item(0x420078, 1, b"")), {"backend_answer_malformed"}),
    "nothing in it": (answering(response(b"")), {"backend_answer_malformed"}),
    "HTTP": (answering(b"HTTP/1.1 400 Bad Request\r\n\r\n"), {"backend_answer_malformed"}),
}


@pytest.mark.parametrize("how", KMIP_WAYS)
def test_kmip(kmip: Kmip, kmip_server: Server, how: str) -> None:
    kmip_server.talk, codes = KMIP_WAYS[how]
    with soon_and_small():
        assert code_of(kmip.check) in codes


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.integers(0, 100), st.binary(max_size=200), st.lists(st.integers(0, 400), max_size=4))
def test_whatever_a_kmip_server_says(
    kmip: Kmip, kmip_server: Server, which: int, noise: bytes, flips: list[int]
) -> None:
    told = bytearray(response(ANSWER if flips else noise + bytes(-len(noise) % 8)))
    for at in flips:
        told[8 + at % (len(told) - 8)] ^= 1 << at % 8
    kmip_server.talk = answering(bytes(told))
    nothing_foreign(kmip, which)


ANSWER = item(
    0x42007A,
    1,
    item(0x420069, 1, item(0x42006A, 2, b"\0\0\0\1") + item(0x42006B, 2, b"\0\0\0\2"))
    + item(0x420092, 9, bytes(8))
    + item(0x42000D, 2, b"\0\0\0\1"),
) + item(
    0x42000F,
    1,
    item(0x42005C, 5, b"\0\0\0\x08") + item(0x42007F, 5, bytes(4)) + item(0x42007C, 1, item(0x420094, 7, b"17") * 3),
)
"""A good answer to Locate: three identifiers."""


def test_a_server_that_finds_things_for_ever_is_left_with_the_call(kmip: Kmip, kmip_server: Server) -> None:
    kmip_server.talk = answering(response(ANSWER))
    guard = Guard("kmip", SECONDS, 1)
    with pytest.raises(Unavailable):
        guard.run(lambda: kmip.get("acme", laws.ONE))
    guard.close()


# plug-ins


@pytest.mark.parametrize(
    ("talk", "codes"),
    [
        (silent, {"backend_slow", "backend_unreachable"}),
        (answering(b"HTTP/1.1 200 OK\r\n\r\n", then=b"x" * 65536), {"backend_slow", "backend_unreachable"}),
        (answering(b"\0\0\0\4\0\0\0\0\0" * 1000, drip=True), {"backend_slow", "backend_unreachable"}),
        (answering(then=b"\0\0\0\4\0\0\0\0\0" * 1000), {"backend_slow", "backend_unreachable"}),
    ],
)
def test_a_plug_in(server: Server, talk: Conversation, codes: set[str]) -> None:
    server.talk = talk
    client = PluginClient(PluginOptions(endpoint=f"http://127.0.0.1:{server.port}", seconds=SECONDS))
    guard = Guard("plugin", SECONDS, 1)
    with soon_and_small():  # under a flood of frames gRPC forgets its own deadline: the guard does not
        assert code_of(lambda: guard.run(lambda: client.handle(PluginRequest("GET", ("x",))))) in codes
    guard.close()
    server.open = False
    client.close()


# tokens

SHIM = r"""
#include <dlfcn.h>
#include <string.h>
#include <unistd.h>
typedef unsigned long (*call)(unsigned long, void *, unsigned long);
struct list { unsigned char version[8]; void *calls[68]; };
static struct list ours;
static call look;
static unsigned long hangs(unsigned long session, void *wanted, unsigned long count) {
    while (access(HANGS, F_OK) == 0) usleep(20000);
    return look(session, wanted, count);
}
unsigned long C_GetFunctionList(struct list **given) {
    unsigned long (*theirs)(struct list **) = dlsym(dlopen(MODULE, RTLD_NOW), "C_GetFunctionList");
    struct list *found;
    unsigned long result = theirs(&found);
    memcpy(&ours, found, sizeof ours);
    look = (call)ours.calls[26]; /* C_FindObjectsInit */
    ours.calls[26] = hangs;
    *given = &ours;
    return result;
}
"""
HANGING = """
import sys, threading, time
from pathlib import Path
from adyton.errors import AdytonError
from adyton.protocol.resource import ResourcePath
from adyton.stores.backends.guard import Guard
from adyton.stores.backends.options import Pkcs11Options
from adyton.stores.backends.pkcs11 import Pkcs11

module, pin, hangs = sys.argv[1:]
token = Pkcs11(Pkcs11Options(module=module, token="adyton", pin_file=pin, seconds=0.5))
guard = Guard("hsm", 0.5, 2)
path = ResourcePath("a", "b", "c")
token.put("acme", path, b"v")
Path(hangs).touch()
ticks = []
def tick():
    while True:
        ticks.append(time.monotonic())
        time.sleep(0.02)
threading.Thread(target=tick, daemon=True).start()
def ask(said):
    began = time.monotonic()
    try:
        guard.run(lambda: token.get("acme", path))
    except AdytonError as error:
        said.append((error.code, time.monotonic() - began))
said = []
asking = [threading.Thread(target=ask, args=(said,)) for _ in range(2)]
[one.start() for one in asking]
[one.join() for one in asking]
assert {code for code, _ in said} <= {"backend_slow", "hsm_busy"}, said
assert max(seconds for _, seconds in said) < 20, said
assert len(ticks) > 5  # all else goes on: no lock of the interpreter is held
Path(hangs).unlink()
for _ in range(200):
    try:
        assert guard.run(lambda: token.get("acme", path)) == b"v"
        break
    except AdytonError:
        time.sleep(0.2)
else:
    raise AssertionError("it does not come back")
print("well")
"""


@pytest.mark.skipif(not (MODULE.exists() and shutil.which("gcc")), reason="needs SoftHSM2 and a C compiler")
def test_a_token_that_hangs_holds_up_its_own_calls_only(tmp_path: Path) -> None:
    (tmp_path / "shim.c").write_text(SHIM)
    module, hangs, pin = tmp_path / "shim.so", tmp_path / "hangs", tmp_path / "pin"
    defined = [f'-DMODULE="{MODULE}"', f'-DHANGS="{hangs}"']
    subprocess.run(["gcc", "-shared", "-fPIC", *defined, "-o", module, tmp_path / "shim.c", "-ldl"], check=True)
    (tmp_path / "tokens").mkdir()
    (tmp_path / "softhsm2.conf").write_text(f"directories.tokendir = {tmp_path}/tokens\n")
    pin.write_text("a1b2c3d4\n")
    pin.chmod(0o600)
    environment = {"SOFTHSM2_CONF": str(tmp_path / "softhsm2.conf"), "PATH": "/usr/bin:/bin"}
    subprocess.run(
        ["softhsm2-util", "--init-token", "--free", "--label", "adyton", "--pin", "a1b2c3d4", "--so-pin", "87654321"],
        check=True, capture_output=True, env=environment,
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", HANGING, str(module), str(pin), str(hangs)],
        capture_output=True, text=True, env=environment, check=False, timeout=2 * LONG,
    )  # fmt: skip
    assert done.stdout == "well\n", done.stderr[-2000:]


@given(st.binary(max_size=400))
def test_ttlv_is_checked_whatever_it_is(value: bytes) -> None:
    with suppress(ValueError):
        ttlv.check(value)
    with suppress(ValueError):
        assert ttlv.length(value[:8]) <= ttlv.MAX_MESSAGE


@given(st.integers(0, ttlv.MAX_DEPTH - 1), st.binary(max_size=30))
def test_ttlv_that_is_right_is_taken(levels: int, value: bytes) -> None:
    inner = item(0x420094, 7, value)
    for _ in range(levels):
        inner = item(0x42000F, 1, inner)
    ttlv.check(inner)
    if not levels and not value:
        return
    with pytest.raises(ValueError, match="KMIP"):
        ttlv.check(inner[:-8])
