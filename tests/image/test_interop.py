"""Debian's skopeo and docker-registry on the other side: what they encrypt we open, what we encrypt they open."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from tests.image.building import Built, MemorySink, busybox_layer, image, layer
from tests.image.registries import docker_registry

from adyton.image.decrypt import decrypt
from adyton.image.encrypt import BrokerKey, Recipients, encrypt
from adyton.image.jwe_recipient import PrivateKey
from adyton.image.manifest import Platform
from adyton.image.ocicrypt import ImageKeys
from adyton.image.recipient_keys import load_private_key, load_public_key
from adyton.image.reference import ImageReference
from adyton.image.transports import open_sink, open_source
from adyton.protocol.resource import ResourcePath

pytestmark = pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")
LINUX = Platform("amd64", "linux")


def skopeo(tmp_path: Path, *arguments: str) -> str:
    """Run skopeo without the user's configuration."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    result = subprocess.run(
        ["skopeo", "--insecure-policy", "--override-os", "linux", "--override-arch", "amd64", *arguments],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def built() -> Built:
    return image([busybox_layer(), layer({"etc/secret": b"the recipe"}, "none")], Cmd=["/bin/sh"])


def key_files(tmp_path: Path, key: PrivateKey, name: str) -> tuple[Path, Path]:
    private, public = tmp_path / f"{name}.pem", tmp_path / f"{name}.pub.pem"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


KEYS: dict[str, PrivateKey] = {
    "rsa": rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ec": ec.generate_private_key(ec.SECP256R1()),
}


@pytest.mark.parametrize("names", [["rsa"], ["ec"], ["rsa", "ec"]])
def test_skopeo_encrypts_and_we_open(tmp_path: Path, names: list[str]) -> None:
    original = built()
    original.write_layout(tmp_path / "plain", "v1")
    files = [key_files(tmp_path, KEYS[name], name) for name in names]
    flags = [part for _, public in files for part in ("--encryption-key", f"jwe:{public}")]
    skopeo(tmp_path, "copy", *flags, f"oci:{tmp_path}/plain:v1", f"oci:{tmp_path}/sealed:v1")
    for private, _ in files:
        sink = MemorySink()
        source = open_source(ImageReference.parse(f"oci:{tmp_path}/sealed:v1"))
        decrypt(source, sink, ImageKeys((load_private_key(private.read_bytes()),)), platform=LINUX)
        # skopeo compresses the plain layer on its way, so only the first is the same blob; both are the same layers
        assert original.manifest.layers[0].digest in sink.blobs
        assert sink.built.config == original.config


@pytest.mark.parametrize("names", [["rsa"], ["ec"], ["rsa", "ec"]])
@pytest.mark.parametrize("transport", ["oci", "oci-archive", "dir"])
def test_we_encrypt_and_skopeo_opens(tmp_path: Path, names: list[str], transport: str) -> None:
    original = built()
    files = [key_files(tmp_path, KEYS[name], name) for name in names]
    recipients = Recipients(public_keys=tuple(load_public_key(public.read_bytes()) for _, public in files))
    tag = "" if transport == "dir" else ":v1"
    sealed = f"{transport}:{tmp_path}/sealed{tag}"
    sink = open_sink(ImageReference.parse(sealed))
    encrypt(original.source, sink, recipients, platform=LINUX)
    sink.close()
    for number, (private, _) in enumerate(files):
        target = tmp_path / f"back{number}"
        skopeo(tmp_path, "copy", "--decryption-key", str(private), sealed, f"oci:{target}:v1")
        manifest = open_source(ImageReference.parse(f"oci:{target}:v1")).manifest().parse()
        layers = json.loads(manifest.raw)["layers"]
        assert [entry["digest"] for entry in layers] == [str(entry.digest) for entry in original.manifest.layers]
        for digest, blob in original.blobs.items():
            assert (target / "blobs" / "sha256" / digest.hex).read_bytes() == blob


def test_through_a_registry_both_ways(tmp_path: Path) -> None:
    original = built()
    original.write_layout(tmp_path / "plain", "v1")
    private, public = key_files(tmp_path, KEYS["ec"], "ec")
    with docker_registry(tmp_path) as registry:
        theirs, ours = registry.reference("team/theirs:v1"), registry.reference("team/ours:v1")
        skopeo(
            tmp_path, "copy", "--dest-tls-verify=false", "--encryption-key", f"jwe:{public}",
            f"oci:{tmp_path}/plain:v1", theirs,
        )  # fmt: skip
        sink = MemorySink()
        source = open_source(ImageReference.parse(theirs))
        decrypt(source, sink, ImageKeys((load_private_key(private.read_bytes()),)), platform=LINUX)
        source.close()
        assert sink.built.config == original.config

        out = open_sink(ImageReference.parse(ours))
        recipients = Recipients(public_keys=(load_public_key(public.read_bytes()),))
        encrypt(original.source, out, recipients, platform=LINUX)
        out.close()
        assert not any(b"the recipe" in path.read_bytes() for path in registry.files())
        inspected = json.loads(skopeo(tmp_path, "inspect", "--tls-verify=false", ours))
        assert len(inspected["Layers"]) == 2
        skopeo(
            tmp_path, "copy", "--src-tls-verify=false", "--decryption-key", str(private), ours, f"dir:{tmp_path}/back"
        )
        for digest, blob in original.blobs.items():
            assert (tmp_path / "back" / digest.hex).read_bytes() == blob


def test_skopeo_carries_an_image_that_it_cannot_open(tmp_path: Path) -> None:
    """Encrypted for a broker: Debian's skopeo knows no key provider, and copies it byte for byte."""
    sink = open_sink(ImageReference.parse(f"oci:{tmp_path}/sealed:v1"))
    recipients = Recipients(broker_keys=(BrokerKey(ResourcePath.parse("kbs:///default/key/1"), bytes(32)),))
    result = encrypt(built().source, sink, recipients, platform=LINUX)
    sink.close()
    with docker_registry(tmp_path) as registry:
        there = registry.reference("team/sealed:v1")
        skopeo(tmp_path, "copy", "--dest-tls-verify=false", f"oci:{tmp_path}/sealed:v1", there)
        source = open_source(ImageReference.parse(there))
        assert source.manifest().digest == result.digest
        for entry in result.layers:
            with closing(source.open_blob(entry.digest)) as blob:
                assert entry.digest.matches(blob.read())
        source.close()


@pytest.mark.parametrize("transport", ["oci", "oci-archive", "dir"])
def test_we_read_what_skopeo_writes(tmp_path: Path, transport: str) -> None:
    original = built()
    original.write_layout(tmp_path / "plain", "v1")
    tag = "" if transport == "dir" else ":v1"
    skopeo(tmp_path, "copy", f"oci:{tmp_path}/plain:v1", f"{transport}:{tmp_path}/copy{tag}")
    source = open_source(ImageReference.parse(f"{transport}:{tmp_path}/copy{tag}"))
    sink = MemorySink()
    recipients = Recipients(public_keys=(KEYS["ec"].public_key(),))
    encrypt(source, sink, recipients, platform=LINUX)
    assert sink.built.config == original.config
