"""Encrypted images on the real road: Debian's registry, skopeo's encryption, a broker, attestation."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests import ports
from tests.waiting import LONG, until

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        shutil.which("skopeo") is None or shutil.which("docker-registry") is None, reason="needs Debian's"
    ),
]
KEY = "kbs:///default/key/runtime"
Secret = tuple[str, bytes]  # an image's name, and the content of its file /secret


@contextlib.contextmanager
def program(argv: list[str], port: int, log: Path, environment: dict[str, str]) -> Iterator[None]:
    """A server, once it listens."""
    with log.open("wb") as written:
        process = subprocess.Popen(argv, stdout=written, stderr=written, env=environment)
    try:
        until(lambda: process.poll() is not None or _listens(port), what=log.read_text)
        assert process.poll() is None, log.read_text()
        yield
    finally:
        process.terminate()
        process.wait(LONG)


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5):
        return True
    return False


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Debian's registry; ``host:port``."""
    directory = tmp_path_factory.mktemp("registry")
    port = ports.reserve()
    (directory / "config.yml").write_text(
        f"version: 0.1\nlog: {{accesslog: {{disabled: true}}}}\nhttp: {{addr: 127.0.0.1:{port}}}\n"
        f"storage: {{filesystem: {{rootdirectory: {directory}/data}}}}\n"
    )
    argv = ["docker-registry", "serve", str(directory / "config.yml")]
    with program(argv, port, directory / "log", dict(os.environ)):
        yield f"127.0.0.1:{port}"


@pytest.fixture
def broker(adyton: Any, tmp_path: Path) -> Iterator[str]:
    """A broker that trusts this development root; its URL."""
    root = json.loads(adyton("devtee", "init", "--json").stdout)
    port = ports.reserve()
    argv = [sys.executable, "-m", "adyton", "broker", "serve", "--listen", f"127.0.0.1:{port}"]
    argv += ["--environment", "development", "--trust-dev-root", root["fingerprint"]]
    argv += ["--endorsements", root["endorsements"]]
    with program(argv, port, tmp_path / "broker.log", adyton.environment):
        until(lambda: adyton("resource", "list").returncode == 0, what=(tmp_path / "broker.log").read_text)
        yield f"http://127.0.0.1:{port}"


def assert_nowhere(marker: bytes, *directories: Path) -> None:
    """No file below holds the secret."""
    found = subprocess.run(["grep", "-rlF", marker.decode(), *map(str, directories)], capture_output=True)
    assert (found.returncode, found.stdout) == (1, b"")


def must(result: subprocess.CompletedProcess[bytes]) -> str:
    assert result.returncode == 0, result.stderr
    return result.stdout.decode()


def test_skopeos_encryption_and_the_owners_own_key(adyton: Any, secret: Secret, registry: str, tmp_path: Path) -> None:
    image, marker = secret
    key, other = tmp_path / "key.pem", tmp_path / "other.pem"
    for path in (key, other):
        subprocess.run(["openssl", "genrsa", "-out", str(path), "2048"], check=True, capture_output=True)
    public = tmp_path / "public.pem"
    subprocess.run(["openssl", "rsa", "-in", str(key), "-pubout", "-out", str(public)], check=True, capture_output=True)
    name = f"docker://{registry}/skopeo/app:v1"
    argv = ["skopeo", "copy", "--dest-tls-verify=false", "--encryption-key", f"jwe:{public}", image, name]
    subprocess.run(argv, check=True, capture_output=True)
    command = ("cat", "/secret")
    keyless = adyton("run", "--rm", name, *command)
    assert (keyless.returncode, keyless.stdout) == (125, b"")
    wrong = adyton("run", "--rm", "--decryption-key", str(other), name, *command)
    assert (wrong.returncode, wrong.stdout) == (125, b"")
    right = adyton("run", "--rm", "--decryption-key", str(key), name, *command)
    assert (right.returncode, right.stdout) == (0, marker), right.stderr
    kept = adyton("run", "-d", "--name", "kept", "--decryption-key", str(key), name, "sleep", "100")
    assert kept.returncode == 0
    assert_nowhere(marker, adyton.home)  # while it runs, and what runs before left behind
    again = adyton("run", "--rm", name, *command)  # nothing that a run with the key leaves behind opens it without
    assert (again.returncode, again.stdout) == (125, b"")
    must(adyton("rm", "-f", "kept"))


def test_a_plain_image_from_a_registry(adyton: Any, image: str, registry: str) -> None:
    name = f"{registry}/plain/app:v1"
    argv = ["skopeo", "copy", "--dest-tls-verify=false", image, f"docker://{name}"]
    subprocess.run(argv, check=True, capture_output=True)
    assert must(adyton("run", "--rm", name, "echo", "pulled")) == "pulled\n"
    assert must(adyton("run", "--rm", "--pull", "never", name, "echo", "stored")) == "stored\n"
    assert must(adyton("run", "--rm", "--pull", "always", name, "echo", "asked")) == "asked\n"
    unknown = adyton("run", "--rm", f"{registry}/plain/app:v2", "true")
    assert (unknown.returncode, unknown.stdout) == (125, b"")
    never = adyton("run", "--rm", "--pull", "never", f"{registry}/plain/other:v1", "true")
    assert never.returncode == 125
    assert b"not in the store" in never.stderr


def test_a_key_by_attestation_and_only_for_the_bound_workload(
    adyton: Any, secret: Secret, registry: str, broker: str, tmp_path: Path
) -> None:
    image, marker = secret
    name = f"docker://{registry}/sealed/app:v1"
    must(adyton("image", "encrypt", image, name, "--key", KEY, "--broker", broker))
    document = tmp_path / "w.toml"
    command = ("cat", "/secret")
    new = ("workload", "new", "--broker", broker, "--logs", "host")
    must(adyton(*new, "-o", str(document), name, *command))
    early = adyton("run", "--rm", "--workload", str(document), name)  # no reference values yet
    assert (early.returncode, early.stdout) == (125, b"")
    values = tmp_path / "values.json"
    guest = str(adyton.home / "guest" / "adyton-guest.erofs")
    values.write_text(must(adyton("measure", "guest", guest, "--reference-values")))
    must(adyton("reference", "set", "--file", str(values)))
    digest = must(adyton("measure", "workload", str(document))).strip()
    must(adyton("resource", "bind", KEY, "--workload", digest))
    ran = adyton("run", "--rm", "--workload", str(document), name)
    assert (ran.returncode, ran.stdout) == (0, marker), ran.stderr
    same = adyton("run", "--rm", "--broker", broker, name, *command)  # writes the very same document
    assert (same.returncode, same.stdout) == (0, marker), same.stderr
    other = tmp_path / "other.toml"
    must(adyton(*new, "-o", str(other), name, "cat", "/secret", "/secret"))
    for changed in (
        ("--workload", str(other), name),
        ("--broker", broker, name, "cat", "/./secret"),
        ("--broker", broker, "--debug", name, *command),
        ("--broker", broker, "-e", "A=1", name, *command),
    ):
        refused = adyton("run", "--rm", *changed)
        assert (refused.returncode, refused.stdout) == (125, b""), changed
    brokerless = adyton("run", "--rm", name, *command)
    assert (brokerless.returncode, brokerless.stdout) == (125, b"")
    assert b"names no broker" in brokerless.stderr
    assert_nowhere(marker, adyton.home)
