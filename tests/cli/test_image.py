"""``adyton image`` as a person meets it: a real broker, a real registry, what is printed, what is never printed."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from tests import ports
from tests.image.building import Built, busybox_layer, image, index_of, layer
from tests.image.registries import RunningRegistry, docker_registry, serving
from tests.waiting import LONG, until

from adyton.cli import adyton
from adyton.cli.output import run
from adyton.protocol import kbs_errors
from adyton.protocol.kbs_errors import Variant

URI = "kbs:///default/key/app"
PROGRAM = (sys.executable, "-m", "adyton")
MARKER = b"the recipe nobody may read"


@dataclass(frozen=True)
class Outcome:
    """What a command left: status, standard output, standard error."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, object]:
        """Standard output as the one JSON object that it must be."""
        value: dict[str, object] = json.loads(self.out)
        return value


Command = Callable[..., Outcome]


@pytest.fixture
def command(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, broker: Path
) -> Command:
    """Runs ``adyton …`` in this process, in a home of its own that knows the broker."""
    monkeypatch.setenv("ADYTON_HOME", str(broker))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "ADYTON_BROKER"):
        monkeypatch.delenv(name, raising=False)

    def call(*arguments: object) -> Outcome:
        capfd.readouterr()
        status = run(adyton, [str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return Outcome(status, captured.out, captured.err)

    return call


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5):
        return True
    return False


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A broker that runs; gives the home whose ``broker.json`` names it."""
    home = tmp_path_factory.mktemp("home")
    port = ports.reserve()
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "adyton", "broker", "serve", "--listen", f"127.0.0.1:{port}"],
            env={**os.environ, "ADYTON_HOME": str(home)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        until(lambda: process.poll() is not None or _listens(port), what=(home / "log").read_text)
        assert process.poll() is None, (home / "log").read_text()
        yield home
    finally:
        process.terminate()
        process.wait(LONG)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRegistry]:
    with docker_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture
def plain(tmp_path: Path) -> str:
    """A plain image on disk."""
    built().write_layout(tmp_path / "plain", "v1")
    return f"oci:{tmp_path}/plain:v1"


@pytest.fixture
def uri(request: pytest.FixtureRequest) -> str:
    """A key URI of the test's own."""
    name = "".join(character if character.isalnum() else "-" for character in request.node.name)
    return f"kbs:///default/key/{name[:100]}"


def built() -> Built:
    return image([busybox_layer(), layer({"etc/recipe": MARKER}, "none")], Cmd=["/bin/sh"], Env=["A=b"])


@pytest.fixture
def pems(tmp_path: Path) -> tuple[Path, Path]:
    """A recipient's key pair: private and public PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    private, public = tmp_path / "key.pem", tmp_path / "pub.pem"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


def forms(secret: bytes) -> list[str]:
    """How a secret could look in a text."""
    return [
        secret.hex(),
        secret.hex().upper(),
        base64.b64encode(secret).decode().rstrip("="),
        base64.urlsafe_b64encode(secret).decode().rstrip("="),
        repr(secret)[2:-1],
    ]


# --- refused --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--key-file", "KEY"],
        ["--broker", "http://127.0.0.1:1"],
        ["--recipient", "pgp:x"],
        ["--recipient", "PUB"],
        ["--recipient", "jwe:PUB", "--workload", "sha256:" + "00" * 32],
        ["--recipient", "jwe:PUB", "--image-binding"],
        ["--key", URI, "--key-file", "KEY", "--any-workload-i-accept"],
        ["--key", URI, "--key-file", "/nonexistent"],
    ],
)
def test_wrong_usage(
    command: Command, plain: str, tmp_path: Path, pems: tuple[Path, Path], arguments: list[str]
) -> None:
    (tmp_path / "KEY").write_bytes(bytes(32))
    named = [
        argument.replace("PUB", str(pems[1])).replace("KEY", str(tmp_path / "KEY")) if argument != "--key" else argument
        for argument in arguments
    ]
    outcome = command("image", "encrypt", plain, f"oci:{tmp_path}/out:v1", *named)
    assert (outcome.status, outcome.out) == (3, "")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--key", "kbs:///a/b"],
        ["--key", "kbs:///a/b/.."],
        ["--key", "https:///a/b/c"],
        ["--key", URI, "--key-file", "SHORT"],
        ["--key", URI, "--workload", "sha256:00"],
        ["--key", URI, "--platform", "linux"],
        ["--key", URI, "--admin-token-file", "SHORT"],
        ["--recipient", "jwe:SHORT"],
    ],
)
def test_refused_before_anything_is_written(command: Command, plain: str, tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "SHORT").write_bytes(b"x" * 31)
    named = [argument.replace("SHORT", str(tmp_path / "SHORT")) for argument in arguments]
    outcome = command("image", "encrypt", plain, f"oci:{tmp_path}/out:v1", *named)
    assert (outcome.status, outcome.out) == (1, "")
    assert "error: " in outcome.err
    assert not (tmp_path / "out").exists()


class Stub(BaseHTTPRequestHandler):
    """A server that reads what it is sent and answers with a status alone."""

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the base class's name
        pass


def test_where_registering_fails_the_image_does_not_come_to_exist(
    command: Command, plain: str, registry: RunningRegistry, tmp_path: Path
) -> None:
    asked: list[str] = []

    class Failing(Stub):
        """A broker that has nothing at the URI, and breaks when it is given something."""

        def do_GET(self) -> None:
            asked.append("GET")
            self._answer(404, kbs_errors.encode(Variant.PLUGIN_NOT_FOUND, "there is no such resource"))

        def do_PUT(self) -> None:
            asked.append("PUT")
            self._answer(503)

    target = registry.reference("failed/app:v1")
    (tmp_path / "token").write_text("token")
    with serving(Failing) as host:
        outcome = command(
            *("image", "encrypt", plain, target, "--key", URI),
            *("--broker", f"http://{host}", "--admin-token-file", tmp_path / "token"),
        )
    assert outcome.status == 1
    assert asked[0] == "GET"
    assert "PUT" in asked
    assert command("image", "inspect", target).status == 1
    stored = [str(path) for path in registry.files() if "failed/app" in str(path)]
    assert any("/_layers/" in path for path in stored)
    assert not any("/_manifests/" in path for path in stored)


def test_without_a_broker_nothing_is_written(command: Command, plain: str, tmp_path: Path) -> None:
    port = ports.reserve()
    outcome = command(
        "image", "encrypt", plain, f"oci:{tmp_path}/out:v1", "--key", URI, "--broker", f"http://127.0.0.1:{port}"
    )
    assert outcome.status == 1
    assert not (tmp_path / "out").exists()


def test_json_is_one_object_also_where_it_fails(command: Command, plain: str, tmp_path: Path) -> None:
    outcome = command("image", "encrypt", plain, f"oci:{tmp_path}/out:v1", "--key", "kbs:///a", "--json")
    error = outcome.json["error"]
    assert isinstance(error, dict)
    assert (outcome.status, error["code"]) == (1, "resource_path_invalid")
    assert "resource_path_invalid" in outcome.err


def test_a_key_that_is_there_already_is_not_replaced_by_accident(
    command: Command, plain: str, tmp_path: Path, uri: str
) -> None:
    first = command("image", "encrypt", plain, f"oci:{tmp_path}/one:v1", "--key", uri, "--json")
    assert first.status == 0, first.err
    again = command("image", "encrypt", plain, f"oci:{tmp_path}/two:v1", "--key", uri)
    assert again.status == 1
    assert "key_exists" in again.err
    assert not (tmp_path / "two").exists()
    replaced = command("image", "encrypt", plain, f"oci:{tmp_path}/two:v1", "--key", uri, "--replace-key", "--json")
    assert replaced.status == 0
    assert replaced.json["digest"] != first.json["digest"]


def test_a_manifest_that_cannot_be_pushed_says_that_the_key_is_registered(
    command: Command, plain: str, uri: str
) -> None:
    class Half(Stub):
        """Takes blobs, refuses manifests."""

        def do_HEAD(self) -> None:
            self._answer(404)

        def do_POST(self) -> None:
            self._answer(202, Location="/v2/a/b/blobs/uploads/1")

        def do_PUT(self) -> None:
            self._answer(400 if "/manifests/" in self.path else 201)

    with serving(Half) as host:
        outcome = command("image", "encrypt", plain, f"docker://{host}/a/b:v1", "--key", uri)
    assert outcome.status == 1
    assert "--replace-key" in outcome.err


def test_decrypting_needs_a_key_that_one_holds(command: Command, plain: str, tmp_path: Path) -> None:
    assert command("image", "decrypt", plain, f"oci:{tmp_path}/out:v1").status == 3


# --- through a broker -----------------------------------------------------------------------------------------------


def test_encrypted_for_a_broker_and_bound_to_the_image(
    command: Command, plain: str, registry: RunningRegistry, uri: str
) -> None:
    target = registry.reference("team/app:v1")
    outcome = command("image", "encrypt", plain, target, "--key", uri, "--json")
    assert (outcome.status, outcome.err) == (0, "")
    answer = outcome.json
    assert answer["registered"] is True
    assert answer["binding"] == {"images": [answer["digest"]]}
    shown = command("resource", "show", uri, "--json")
    assert shown.json["binding"] == {"images": [answer["digest"]]}
    assert shown.json["size"] == 32
    inspected = command("image", "inspect", target, "--json").json
    assert (inspected["digest"], inspected["encrypted"]) == (answer["digest"], "all")
    layers = inspected["layers"]
    assert isinstance(layers, list)
    assert layers[0]["recipients"] == [{"scheme": "provider.attestation-agent", "wrap": "A256GCM", "key": uri}]
    assert not any(MARKER in path.read_bytes() for path in registry.files())


def test_other_bindings(command: Command, plain: str, tmp_path: Path, uri: str) -> None:
    workload = "sha256:" + "ab" * 32
    out = f"oci:{tmp_path}/out:v1"
    outcome = command("image", "encrypt", plain, out, "--key", uri, "--workload", workload, "--json")
    assert outcome.json["binding"] == {"workloads": [workload]}
    again = ("--key", uri, "--replace-key", "--json")
    both = command("image", "encrypt", plain, out, "--workload", workload, "--image-binding", *again).json
    assert both["binding"] == {"workloads": [workload], "images": [both["digest"]]}
    anyone = command("image", "encrypt", plain, out, "--any-workload-i-accept", *again).json
    assert anyone["binding"] == {"any_workload_i_accept": True}
    policy = tmp_path / "p.rego"
    policy.write_text("package policy\ndefault allow = false\n")
    ruled = command("image", "encrypt", plain, out, "--policy", policy, *again).json
    assert ruled["binding"] == {"policy": policy.read_text()}


def test_what_a_person_reads(command: Command, plain: str, tmp_path: Path, uri: str) -> None:
    outcome = command("image", "encrypt", plain, f"oci-archive:{tmp_path}/app.tar:v1", "--key", uri)
    assert outcome.status == 0
    assert f"key         {uri}" in outcome.out
    assert "registered  yes" in outcome.out
    inspected = command("image", "inspect", f"oci-archive:{tmp_path}/app.tar")
    assert "2, encrypted: all" in inspected.out
    assert f"provider.attestation-agent {uri} A256GCM" in inspected.out


# --- with keys of one's own -----------------------------------------------------------------------------------------


def test_offline_with_a_key_file_and_back(
    command: Command, plain: str, registry: RunningRegistry, tmp_path: Path
) -> None:
    key = os.urandom(32)
    (tmp_path / "key").write_bytes(key)
    target = registry.reference("offline/app:v1")
    outcome = command("image", "encrypt", plain, target, "--key", URI, "--key-file", tmp_path / "key")
    assert outcome.status == 0
    assert "registered  no" in outcome.out
    back = command(
        "image", "decrypt", target, f"dir:{tmp_path}/back", "--key-file", tmp_path / "key", "--key", URI, "--json"
    )
    assert back.status == 0, back.err
    for digest, blob in built().blobs.items():
        assert (tmp_path / "back" / digest.hex).read_bytes() == blob
    (tmp_path / "wrong").write_bytes(bytes(32))
    wrong = command("image", "decrypt", target, f"dir:{tmp_path}/no", "--key-file", tmp_path / "wrong")
    other = command(
        "image", "decrypt", target, f"dir:{tmp_path}/no", "--key-file", tmp_path / "key", "--key", "kbs:///a/b/c"
    )
    assert (wrong.status, other.status) == (1, 1)
    assert "wrong_key" in wrong.err
    assert "key_other" in other.err
    assert not (tmp_path / "no" / "manifest.json").exists()
    said = outcome.out + outcome.err + back.out + back.err + wrong.err + other.err
    stored = b"".join(path.read_bytes() for path in registry.files())
    for form in forms(key):
        assert form not in said
        assert form.encode() not in stored
    assert key not in stored


def test_for_people(command: Command, plain: str, tmp_path: Path, pems: tuple[Path, Path]) -> None:
    private, public = pems
    sealed = f"oci:{tmp_path}/sealed:v1"
    outcome = command("image", "encrypt", plain, sealed, "--recipient", f"jwe:{public}", "--json")
    assert outcome.json["recipients"] == 1
    assert outcome.json["key"] is None
    assert command("image", "decrypt", sealed, f"dir:{tmp_path}/back", "--decryption-key", private).status == 0
    for digest, blob in built().blobs.items():
        assert (tmp_path / "back" / digest.hex).read_bytes() == blob
    assert "ECDH-ES+A256KW" in command("image", "inspect", sealed).out


def test_a_sec1_key_gets_a_hint(command: Command, plain: str, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = tmp_path / "sec1.pem"
    pem.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
    outcome = command("image", "decrypt", plain, f"dir:{tmp_path}/no", "--decryption-key", pem)
    assert outcome.status == 1
    assert "openssl pkcs8" in outcome.err


# --- inspecting -----------------------------------------------------------------------------------------------------


def test_an_index_shows_its_platforms(command: Command, tmp_path: Path) -> None:
    intel, arm = built(), image([layer({"a": b"arm"})], architecture="arm64")
    path = tmp_path / "multi"
    intel.write_layout(path)
    arm.write_layout(path)
    top = Built(index_of({"linux/amd64": intel, "linux/arm64": arm}), {}, "application/vnd.oci.image.index.v1+json")
    top.write_layout(path, "v1")
    outcome = command("image", "inspect", f"oci:{path}:v1", "--platform", "linux/arm64", "--json")
    assert outcome.json["platform"] == "linux/arm64"
    assert outcome.json["digest"] == str(arm.digest)
    assert "linux/amd64, linux/arm64" in command("image", "inspect", f"oci:{path}:v1", "--platform", "linux/amd64").out
    missing = command("image", "inspect", f"oci:{path}:v1", "--platform", "linux/s390x")
    assert missing.status == 1
    assert "linux/arm64" in missing.err


def test_a_strangers_text_does_not_reach_the_terminal_as_it_is(command: Command, tmp_path: Path) -> None:
    image([layer({"a": b"x"})], Cmd=["\x1b[2J\x07"]).write_layout(tmp_path / "evil", "v1")
    outcome = command("image", "inspect", f"oci:{tmp_path}/evil:v1")
    assert outcome.status == 0
    assert "\x1b" not in outcome.out
    assert "?[2J?" in outcome.out


def test_nor_does_it_in_an_error(command: Command, tmp_path: Path) -> None:
    path = image([layer({"a": b"x"})]).write_layout(tmp_path / "evil", "v1")
    index = json.loads((path / "index.json").read_text())
    index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"] = "\x1b]0;title\x07"
    (path / "index.json").write_text(json.dumps(index))
    outcome = command("image", "inspect", f"oci:{path}:v1")
    assert outcome.status == 1
    assert "title" in outcome.err
    assert "\x1b]" not in outcome.err


def test_bars_only_on_a_terminal(plain: str, tmp_path: Path, pems: tuple[Path, Path]) -> None:
    """Standard error is a terminal: bars there. Standard output stays the answer alone."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "adyton", "image", "encrypt", plain, f"oci:{tmp_path}/out:v1"),
            *("--recipient", f"jwe:{pems[1]}"),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "HOME": str(tmp_path)},
    )
    os.close(theirs)
    seen = b""
    with contextlib.suppress(OSError):
        while piece := os.read(ours, 65536):
            seen += piece
    os.close(ours)
    out, _ = process.communicate()
    assert process.returncode == 0
    assert b"layer 1" in seen
    assert b"layer 1" not in out
    assert out.startswith(b"WHAT")


@pytest.mark.parametrize("transport", ["oci", "oci-archive", "dir"])
def test_ended_while_it_writes_nothing_is_left(pems: tuple[Path, Path], tmp_path: Path, transport: str) -> None:
    """Ended by what a service manager or a terminal that closes sends; half a plain image would be left else."""
    source = tmp_path / "source"
    image([layer({"big": os.urandom(48 << 20)}), layer({"b": os.urandom(48 << 20)})]).write_layout(source)
    out = tmp_path / "out"
    command = ["env", "--default-signal=HUP", *PROGRAM, "image", "encrypt"]  # also where nohup runs these tests
    command += [f"oci:{source}", f"{transport}:{out / 'x'}", "--recipient", f"jwe:{pems[1]}"]

    def begun() -> bool:
        with contextlib.suppress(FileNotFoundError):  # one that has its name by now
            return any(path.is_file() for path in out.rglob("*"))
        return False

    for number in (signal.SIGTERM, signal.SIGHUP):
        for _ in range(20):
            out.mkdir()
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            until(begun)
            process.send_signal(number)
            said, complaint = process.communicate(timeout=LONG)
            if process.returncode != 0:
                break
            shutil.rmtree(out)  # it was quicker
        assert (process.returncode, said, complaint) == (128 + number, b"", b"")
        assert list(out.iterdir()) == []
        out.rmdir()


def test_plain_layers_that_stay_beside_are_said(
    command: Command, plain: str, tmp_path: Path, pems: tuple[Path, Path]
) -> None:
    beside = f"{plain.rpartition(':')[0]}:sealed"
    outcome = command("image", "encrypt", plain, beside, "--recipient", f"jwe:{pems[1]}", "--json")
    assert outcome.status == 0 and outcome.json["layers"]
    assert "the plain ones of SRC stay" in outcome.err
    outcome = command("image", "encrypt", plain, f"oci:{tmp_path}/apart:v1", "--recipient", f"jwe:{pems[1]}")
    assert outcome.status == 0 and "stay" not in outcome.err
