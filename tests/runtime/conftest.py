"""The whole road for the runtime's tests: the platform service, a guest stack, an image made on the spot, the command."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.platform.services import Caller
from tests.waiting import LONG

from adyton.protocol import devtee

APPLETS = (
    "sh",
    "cat",
    "echo",
    "id",
    "pwd",
    "env",
    "sleep",
    "ls",
    "stat",
    "touch",
    "head",
    "nc",
    "hostname",
    "stty",
    "httpd",
    "true",
)
PASSWD = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n"
CONFIG = {
    "Cmd": ["sh", "-c", "echo default command in $PWD as $(id -un) with $FROM_IMAGE"],
    "Env": ["PATH=/bin", "FROM_IMAGE=1"],
    "WorkingDir": "/work",
    "User": "app",
    "Volumes": {"/volume": {}},
}


def busybox_layer() -> bytes:
    """A tar of busybox and the usual files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:

        def add(name: str, kind: bytes = tarfile.DIRTYPE, data: bytes = b"", link: str = "", mode: int = 0o755) -> None:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.mode, info.size = kind, link, mode, len(data)
            tar.addfile(info, io.BytesIO(data))

        for name in ("bin", "etc", "tmp", "work"):
            add(name, mode=0o1777 if name == "tmp" else 0o755)
        add("bin/busybox", tarfile.REGTYPE, Path("/bin/busybox").read_bytes())
        for applet in APPLETS:
            add(f"bin/{applet}", tarfile.SYMTYPE, link="busybox")
        add("etc/passwd", tarfile.REGTYPE, PASSWD.encode(), mode=0o644)
        add("etc/group", tarfile.REGTYPE, b"root:x:0:\napp:x:1001:\n", mode=0o644)
        info = tarfile.TarInfo("volume")
        info.type, info.mode, info.uid, info.gid = tarfile.DIRTYPE, 0o755, 1000, 1001
        tar.addfile(info)
        add("volume/from-image", tarfile.REGTYPE, b"kept", mode=0o644)
    return buffer.getvalue()


def write_layout(directory: Path, layers: list[bytes], config: dict[str, Any], tag: str = "latest") -> str:
    """An OCI layout (image-spec 1.1); the manifest's digest."""

    def blob(data: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (directory / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
        (directory / "blobs" / "sha256" / digest).write_bytes(data)
        return {"digest": f"sha256:{digest}", "size": len(data)}

    listed = [{"mediaType": "application/vnd.oci.image.layer.v1.tar", **blob(layer)} for layer in layers]
    image = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine],
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in listed]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            **blob(json.dumps(image).encode()),
        },
        "layers": listed,
    }
    entry = {"mediaType": manifest["mediaType"], **blob(json.dumps(manifest).encode())}
    index = {"schemaVersion": 2, "manifests": [{**entry, "annotations": {"org.opencontainers.image.ref.name": tag}}]}
    (directory / "index.json").write_text(json.dumps(index))
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return str(entry["digest"])


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of an image of busybox."""
    directory = tmp_path_factory.mktemp("image")
    write_layout(directory, [busybox_layer()], CONFIG)
    return f"oci:{directory}:latest"


@pytest.fixture(scope="session")
def secret(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, bytes]:
    """The name of an image with a secret file ``/secret``, and what the file holds; nothing else on this disk does."""
    marker = os.urandom(32).hex().encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo("secret")
        info.size, info.mode = len(marker), 0o644
        tar.addfile(info, io.BytesIO(marker))
    directory = tmp_path_factory.mktemp("secret")
    write_layout(directory, [busybox_layer(), buffer.getvalue()], CONFIG)
    return f"oci:{directory}:latest", marker


@dataclass(frozen=True)
class Adyton:
    """The command line over a home of its own."""

    home: Path

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "ADYTON_HOME": str(self.home), "PYTHONWARNINGS": "error"}

    def start(self, *arguments: str, stream: int = subprocess.PIPE) -> subprocess.Popen[bytes]:
        """In the background; ``stream``: a descriptor for all three standard streams instead of pipes."""
        argv = [sys.executable, "-m", "adyton", *arguments]
        return subprocess.Popen(argv, env=self.environment, stdin=stream, stdout=stream, stderr=stream)

    def __call__(
        self,
        *arguments: str,
        input: bytes = b"",  # noqa: A002 -- as subprocess.run calls it
        timeout: float = 3 * LONG,
    ) -> subprocess.CompletedProcess[bytes]:
        argv = [sys.executable, "-m", "adyton", *arguments]
        return subprocess.run(argv, env=self.environment, input=input, capture_output=True, timeout=timeout)


@pytest.fixture(scope="session")
def adyton() -> Iterator[Adyton]:
    """A home with a guest stack; the service is started by the first command that needs it, and stopped at the end."""
    with tempfile.TemporaryDirectory(
        prefix="adyton-", ignore_cleanup_errors=True
    ) as directory:  # a socket's path is short
        command = Adyton(Path(directory))
        yield command
        command("devtee", "stop", "--force")
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(autouse=True)
def nothing_stays(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each test begins with a home in which no instance is, whatever an earlier one left."""
    yield
    if "adyton" in request.fixturenames:
        _remove_instances(request.getfixturevalue("adyton").home)


def _remove_instances(home: Path) -> None:
    def ask(message: devtee.ControlRequest) -> devtee.ControlReply | None:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(LONG)
            connection.connect(str(home / "run" / "devtee.sock"))
            return Caller(connection).ask(message)

    try:
        listed = ask(devtee.List(all=True))
    except (FileNotFoundError, ConnectionRefusedError):  # no service runs
        return
    assert isinstance(listed, devtee.Instances)
    for one in listed.instances:
        ask(devtee.Remove(one.id, force=True))
