"""``adyton workload``: documents from images on disk, and reading them back."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from adyton.cli import adyton
from adyton.cli.output import run
from adyton.cli.places import places
from adyton.errors import NotFound
from adyton.image.reference import ImageReference
from adyton.image.store import Store
from adyton.protocol import workload
from adyton.rats.types import Digest
from adyton.runtime import images

PIN = "sha256:" + "ab" * 32
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ADYTON_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def image(tmp_path: Path) -> tuple[str, str]:
    """Name and manifest digest of an image without layers."""
    blobs = tmp_path / "image" / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def blob(value: Any, kind: str) -> dict[str, Any]:
        data = json.dumps(value).encode()
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {
            "mediaType": f"application/vnd.oci.image.{kind}.v1+json",
            "digest": f"sha256:{digest}",
            "size": len(data),
        }

    run_config = {"Cmd": ["serve"], "Env": ["A=1", "B=2"], "User": "app", "WorkingDir": "/w", "Volumes": {"/v": {}}}
    rootfs = {"type": "layers", "diff_ids": []}
    config = blob({"architecture": ARCHITECTURE, "os": "linux", "config": run_config, "rootfs": rootfs}, "config")
    manifest = blob({"schemaVersion": 2, "config": config, "layers": []}, "manifest")
    platform = {"os": "linux", "architecture": ARCHITECTURE}
    other = {**manifest, "digest": "sha256:" + "00" * 32, "platform": {"os": "linux", "architecture": "s390x"}}
    index = blob({"schemaVersion": 2, "manifests": [other, {**manifest, "platform": platform}]}, "index")
    named = {**index, "annotations": {"org.opencontainers.image.ref.name": "v1"}}
    (tmp_path / "image" / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))
    (tmp_path / "image" / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return f"oci:{tmp_path}/image:v1", str(manifest["digest"])


def new(file: Path, *arguments: str) -> workload.Workload:
    assert run(adyton, ["workload", "new", "-o", str(file), *arguments]) == 0
    return workload.parse(file.read_bytes()).workload


@pytest.mark.parametrize(
    "arguments",
    [
        ["-e", "A"],
        ["-e", "A~("],
        ["-p", "70000"],
        ["--broker-pin", PIN],
        ["--broker", "https://broker.example"],
        ["--broker", "https://broker.example", "--broker-pin", "sha256:00"],
        ["--broker", "gopher://broker.example", "--broker-pin", PIN],
        ["--network", "none", "-p", "80"],
        ["-w", "relative"],
        ["-v", "/a:/b:/c:/d"],
    ],
)
def test_what_cannot_be_enforced_is_not_written(arguments: list[str], image: tuple[str, str], tmp_path: Path) -> None:
    assert run(adyton, ["workload", "new", "-o", str(tmp_path / "w.toml"), *arguments, image[0]]) in {1, 3}
    assert not (tmp_path / "w.toml").exists()


def test_the_image_speaks_where_the_options_do_not(image: tuple[str, str], tmp_path: Path) -> None:
    written = new(tmp_path / "w.toml", image[0])
    assert written == workload.Workload(
        image=image[1],
        command=["serve"],
        cwd="/w",
        user="app",
        env={"A": "1", "B": "2"},
        mounts=[workload.Mount("/v", "volume")],
    )


def test_every_option_stands_in_the_document(image: tuple[str, str], tmp_path: Path) -> None:
    written = new(
        tmp_path / "w.toml",
        *("-e", "A=x=~y", "-e", "C~[a-z]=?", "-p", "80", "--network", "host", "-u", "0:0", "-w", "/", "--logs", "host"),
        *("-v", f"{tmp_path}:/h:ro", "-v", "name:/n", "--tmpfs", "/t", "--debug", "--terminal"),
        *("--broker", "https://broker.example", "--broker-pin", PIN, "--entrypoint", "run", image[0], "--flag", "-x"),
    )
    assert written.command == ["run", "--flag", "-x"]
    assert written.env == {"A": "x=~y", "B": "2", "C": workload.EnvPattern("[a-z]=?")}
    assert written.mounts == [
        workload.Mount("/v", "volume"),
        workload.Mount("/t", "tmpfs"),
        workload.Mount("/h", "host", "ro"),
        workload.Mount("/n", "volume"),
    ]
    assert written.broker == workload.Broker("https://broker.example", PIN)
    assert (written.network, written.ports, written.user, written.cwd) == ("host", [workload.Port(80)], "0:0", "/")
    assert (written.debug, written.terminal, written.logs) == (True, True, "host")


def test_the_pin_of_a_certificate(image: tuple[str, str], tmp_path: Path) -> None:
    import datetime as dt

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "broker")])
    begin = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(begin)
        .not_valid_after(begin + dt.timedelta(days=1))
        .sign(key, SHA256())
    )
    (tmp_path / "broker.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    options = ("--broker", "https://b", "--broker-cert", str(tmp_path / "broker.pem"))
    written = new(tmp_path / "w.toml", *options, image[0])
    assert written.broker is not None
    assert written.broker.pin == f"sha256:{hashlib.sha256(spki).hexdigest()}"
    wrong = ["workload", "new", "-o", str(tmp_path / "x.toml"), *options, "--broker-pin", PIN, image[0]]
    assert run(adyton, wrong) == 3
    (tmp_path / "broker.pem").write_text("nonsense")
    assert run(adyton, ["workload", "new", "-o", str(tmp_path / "x.toml"), *options, image[0]]) == 1


def test_show(image: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "w.toml"
    new(file, image[0])
    said = capsys.readouterr().err
    digest = f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
    assert said.startswith(digest)
    assert run(adyton, ["workload", "show", "--json", str(file)]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["host_data"], shown["workload"]["image"]) == (digest, image[1])
    assert run(adyton, ["workload", "show", str(file)]) == 0
    assert workload.parse_table(capsys.readouterr().out).image == image[1]
    file.write_text("nonsense")
    assert run(adyton, ["workload", "show", str(file)]) == 1


def test_to_standard_output(image: tuple[str, str], capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert run(adyton, ["workload", "new", image[0]]) == 0
    out, err = capfdbinary.readouterr()
    assert workload.parse(out).digest.hex in err.decode()


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["IMAGE", "-o", "FILE"], None),
        (["IMAGE", "--logs", "host", "-oFILE", "/bin/a", "-c", "b"], ["/bin/a", "-c", "b"]),
        (["IMAGE", "/bin/a", "-c", "b", "-o", "FILE"], ["/bin/a", "-c", "b"]),
        (["-o", "FILE", "IMAGE", "/bin/a", "-o", "b"], ["/bin/a", "-o", "b"]),
        (["--output=FILE", "IMAGE", "--", "/bin/a", "-o", "b"], ["/bin/a", "-o", "b"]),
        (["-o", "FILE", "--", "IMAGE", "/bin/a", "--logs", "host"], ["/bin/a", "--logs", "host"]),
    ],
)
def test_options_may_stand_before_and_after_the_image(
    words: list[str], command: list[str] | None, image: tuple[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "W.toml"
    name = image[0]
    arguments = [word.replace("FILE", str(file)).replace("IMAGE", name) for word in words]
    assert run(adyton, ["workload", "new", *arguments]) == 0
    written = workload.parse(file.read_bytes()).workload
    assert command is None or written.command == command


def test_a_document_may_stand_for_its_image(image: tuple[str, str], tmp_path: Path) -> None:
    file = tmp_path / "W.toml"
    written = new(file, image[0])
    store = Store(places().store)
    assert images.name_of(Digest.parse(written.image), store) == str(ImageReference.parse(image[0]))
    with pytest.raises(NotFound):
        images.name_of(Digest("sha256", bytes(32)), store)
    assert run(adyton, ["run"]) == 125
