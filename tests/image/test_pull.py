"""Pulling: refusals, damage, crowds, kills and full disks first; then plain and encrypted images from real places."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.image.building import Built, MemorySink, MemorySource, image, index_of, layer
from tests.image.registries import docker_registry

from adyton.errors import (
    AdytonError,
    DecryptionFailed,
    DigestMismatch,
    MalformedImage,
    NotFound,
    PlatformError,
    ReleaseRefused,
    Unavailable,
    UnsupportedImage,
)
from adyton.image.encrypt import BrokerKey, Recipients, encrypt
from adyton.image.limits import Limits
from adyton.image.manifest import Platform
from adyton.image.ocicrypt import ImageKeys
from adyton.image.pull import PulledImage, fetch, pull
from adyton.image.reference import ImageReference
from adyton.image.registry_options import RegistryOptions
from adyton.image.store import Store, StoreSource
from adyton.image.transports import open_sink, open_source
from adyton.protocol.resource import ResourcePath
from adyton.rats.types import Digest

SECRET = b"the secret recipe, " * 500
KID = ResourcePath.parse("kbs:///default/key/app")
KEK = bytes(range(32))
NOBODY = ImageKeys()

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the images' files belong to root")


class Keys:
    """A key source that knows one key, and counts."""

    def __init__(self, refusal: AdytonError | None = None) -> None:
        self.asked = 0
        self._refusal = refusal

    def key(self, uri: str) -> bytes:
        self.asked += 1
        if self._refusal is not None:
            raise self._refusal
        if uri != KID.uri:
            raise NotFound(uri)
        return KEK


def plain() -> Built:
    return image(
        [
            layer({"etc/base": b"base", "bin/sh": b"shell"}),
            layer({"app/one": SECRET}, "zstd"),
            layer({"app/two": os.urandom(200_000)}, "none"),
            layer({"app/three": b"three"}),
        ],
        Cmd=["/bin/sh"],
    )


def sealed(built: Built) -> Built:
    sink = MemorySink()
    encrypt(built.source, sink, Recipients(broker_keys=(BrokerKey(KID, KEK),)), platform=Platform("amd64", "linux"))
    return sink.built


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def private(tmp_path: Path) -> Path:
    return tmp_path / "private"


def names(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir()) if place.exists() else []


def files(pulled: PulledImage) -> list[dict[str, bytes]]:
    """The files of every layer, top first."""
    return [
        {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for root in pulled.lower_dirs
    ]


def content(place: Path) -> bytes:
    return b"".join(path.read_bytes() for path in place.rglob("*") if path.is_file())


def unpacked(store: Store) -> list[str]:
    return names(store.path / "unpacked/sha256")


class Lying(MemorySource):
    """Serves blobs after ``change``."""

    def __init__(self, built: Built, change: Callable[[Digest, bytes], bytes]) -> None:
        super().__init__(built)
        self.blobs = {digest: change(digest, blob) for digest, blob in self.blobs.items()}


# --- refused --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", [0, 1, 2, 3])
@pytest.mark.parametrize("encrypted", [False, True])
def test_an_altered_layer_is_refused_and_never_seen(which: int, encrypted: bool, store: Store, private: Path) -> None:
    built = sealed(plain()) if encrypted else plain()
    victim = built.manifest.layers[which].digest

    def change(digest: Digest, blob: bytes) -> bytes:
        return blob[:-9] + bytes([blob[-9] ^ 1]) + blob[-8:] if digest == victim else blob

    with pytest.raises(DigestMismatch) as error:
        pull(Lying(built, change), built.digest, store, private, ImageKeys(source=Keys()))
    assert error.value.code == "blob_mismatch"
    assert store.blob(victim) is None
    diff = built.config.diff_ids[which]
    assert store.unpacked(diff) is None
    assert not any(name.startswith((victim.hex, ".")) for name in names(private))
    assert names(store.path / "tmp") == []


@pytest.mark.parametrize("change", [lambda blob: blob + b"x", lambda blob: blob[:-1], lambda _: b""])
def test_other_lengths_are_refused(change: Callable[[bytes], bytes], store: Store, private: Path) -> None:
    built = plain()
    with pytest.raises(DigestMismatch):
        pull(Lying(built, lambda _, blob: change(blob)), built.digest, store, private, NOBODY)
    assert (unpacked(store), names(store.path / "tmp")) == ([], [])


def test_another_manifest_is_refused(store: Store, private: Path) -> None:
    built, other = plain(), image([layer({"other": b"x"})])
    source = MemorySource(other)
    source.manifests[built.digest] = other.raw
    with pytest.raises((DigestMismatch, NotFound)):
        pull(source, built.digest, store, private, NOBODY)


def test_an_index_is_not_an_image(store: Store, private: Path) -> None:
    raw = index_of({"linux/amd64": plain()})
    with pytest.raises(UnsupportedImage):
        pull(MemorySource(plain(), top=raw), Digest.of(raw), store, private, NOBODY)


def test_a_configuration_that_lies_about_a_layer_is_refused(store: Store, private: Path) -> None:
    one, two = layer({"a": b"1"}), layer({"a": b"2"})
    lie = image([type(one)(one.blob, one.media_type, two.diff_id, one.tar)])
    with pytest.raises(DigestMismatch) as error:
        pull(lie.source, lie.digest, store, private, NOBODY)
    assert error.value.code == "diff_id_mismatch"
    assert (unpacked(store), store.blob(lie.manifest.layers[0].digest)) == ([], None)


def test_a_hostile_layer_stops_the_others_and_leaves_nothing(store: Store, private: Path) -> None:
    built = image([layer({f"f{n}": os.urandom(1000)}) for n in range(6)] + [layer({"../evil": b"x"})])
    with pytest.raises(MalformedImage):
        pull(built.source, built.digest, store, private, NOBODY)
    assert names(store.path / "tmp") == []
    assert len(unpacked(store)) < 7


def test_limits_reach_the_layers(store: Store, private: Path) -> None:
    built = image([layer({"zeros": bytes(5_000_000)})])
    with pytest.raises(MalformedImage) as error:
        pull(built.source, built.digest, store, private, NOBODY, limits=Limits(unpacked_bytes=1_000_000))
    assert error.value.code == "layer_over_limit"
    assert (unpacked(store), names(store.path / "tmp")) == ([], [])


def test_without_key_nothing_is_fetched(store: Store, private: Path) -> None:
    built = sealed(plain())
    for keys, kind in ((NOBODY, DecryptionFailed), (ImageKeys(source=Keys(ReleaseRefused("no"))), ReleaseRefused)):
        source = built.source
        with pytest.raises(kind):
            pull(source, built.digest, store, private, keys)
        assert source.opened == [built.manifest.config.digest][: len(source.opened)]
        assert (unpacked(store), names(private)) == ([], [])


def test_layers_unpacked_for_others_do_not_open_an_encrypted_image(store: Store, private: Path) -> None:
    """The hole of host-side stores: the same diff ids are unpacked already, so no key would ever be asked for."""
    built = plain()
    pull(built.source, built.digest, store, private, NOBODY)
    assert len(unpacked(store)) == 4
    hidden = sealed(built)
    with pytest.raises(DecryptionFailed):
        pull(hidden.source, hidden.digest, store, private, NOBODY)
    keys = Keys()
    pulled = pull(hidden.source, hidden.digest, store, private, ImageKeys(source=keys))
    assert keys.asked == 4
    assert all(path.is_relative_to(private) for path in pulled.lower_dirs)


def test_plain_layers_of_an_encrypted_image_are_not_the_hosts_either(store: Store, private: Path) -> None:
    built = plain()
    host = pull(built.source, built.digest, store, private, NOBODY)
    (host.lower_dirs[-1] / "bin/sh").write_bytes(b"the host's own shell")
    mixed = json.loads(sealed(built).raw)
    mixed["layers"][0] = json.loads(built.raw)["layers"][0]
    blobs = {**built.blobs, **sealed(built).blobs}
    source = sealed(built)
    mixed["layers"][1:] = json.loads(source.raw)["layers"][1:]
    image_ = Built(json.dumps(mixed).encode(), {**blobs, **source.blobs})
    pulled = pull(image_.source, image_.digest, store, private, ImageKeys(source=Keys()))
    assert pulled.encrypted
    assert files(pulled)[-1]["bin/sh"] == b"shell"


def test_a_source_that_is_gone(store: Store, private: Path) -> None:
    class Gone(MemorySource):
        def open_blob(self, digest: Digest, offset: int = 0) -> io.BytesIO:
            raise Unavailable("the registry is gone")

    built = plain()
    with pytest.raises(Unavailable):
        pull(Gone(built), built.digest, store, private, NOBODY)
    with pytest.raises(NotFound):
        pull(None, Digest.of(b"unknown"), store, private, NOBODY)
    store.add_blob(built.source.open_blob(built.manifest.config.digest), built.manifest.config.digest)
    with pytest.raises(NotFound) as error:
        pull(None, built.digest, store, private, NOBODY)
    assert error.value.hint
    assert names(store.path / "tmp") == []


@pytest.mark.root
def test_a_disk_that_fills_up_while_pulling(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", tmp_path], check=True)
    try:
        store = Store(tmp_path / "store")
        built = image([layer({"small": b"x"}), layer({"large": os.urandom(3_000_000)}, "none")])
        with pytest.raises(PlatformError) as error:
            pull(built.source, built.digest, store, tmp_path / "private", NOBODY)
        assert error.value.code == "disk_full"
        assert error.value.hint
        assert names(store.path / "tmp") == []
        assert store.blob(built.manifest.layers[1].digest) is None
        assert store.unpacked(built.config.diff_ids[1]) is None
        subprocess.run(["mount", "-o", "remount,size=64m", tmp_path], check=True)
        assert len(pull(built.source, built.digest, store, tmp_path / "private", NOBODY).lower_dirs) == 2
    finally:
        subprocess.run(["umount", tmp_path], check=True)


# --- right ----------------------------------------------------------------------------------------------------------


class Seen:
    def __init__(self) -> None:
        self.steps: list[tuple[str, int, int | None]] = []

    def advance(self, label: str, done: int, total: int | None) -> None:
        self.steps.append((label, done, total))


def test_a_plain_image_is_fetched_once(store: Store, private: Path) -> None:
    built, seen = plain(), Seen()
    pulled = pull(built.source, built.digest, store, private, NOBODY, seen)
    assert [sorted(one) for one in files(pulled)] == [["app/three"], ["app/two"], ["app/one"], ["bin/sh", "etc/base"]]
    assert (pulled.encrypted, pulled.config.run.cmd, pulled.manifest.digest) == (False, ["/bin/sh"], built.digest)
    assert all(path.is_relative_to(store.path) for path in pulled.lower_dirs)
    size = sum(one.size for one in built.manifest.layers)
    assert seen.steps[-1] == ("layers", size, size)
    assert names(private) == []
    again = built.source
    assert pull(again, built.digest, store, private, NOBODY).lower_dirs == pulled.lower_dirs
    assert again.opened == []
    assert pull(None, built.digest, store, private, NOBODY).lower_dirs == pulled.lower_dirs


def test_what_the_store_holds_damaged_is_fetched_again(store: Store, private: Path) -> None:
    built = plain()
    fetch(built.source, built.digest, store)
    for descriptor in (built.manifest.layers[2], built.manifest.config):
        path = store.blob(descriptor.digest)
        assert path is not None
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(NotFound):
        pull(None, built.digest, store, private, NOBODY)
    source = built.source
    pull(source, built.digest, store, private, NOBODY)
    assert sorted(map(str, source.opened)) == sorted(
        map(str, (built.manifest.config.digest, built.manifest.layers[2].digest))
    )
    assert len(StoreSource(store, built.digest).open_blob(built.manifest.layers[2].digest).read()) > 200_000


def test_an_encrypted_image_is_ciphertext_in_the_store(store: Store, private: Path) -> None:
    built = sealed(image([layer({"base": b"x"}), layer({"recipe": SECRET}, "none")]))
    pulled = pull(built.source, built.digest, store, private, ImageKeys(source=Keys()))
    assert pulled.encrypted
    assert files(pulled)[0] == {"recipe": SECRET}
    assert SECRET[:40] in content(private)
    assert SECRET[:40] not in content(store.path)
    assert (unpacked(store), private.stat().st_mode & 0o077) == ([], 0)
    again = built.source
    assert files(pull(again, built.digest, store, private.with_name("other"), ImageKeys(source=Keys()))) == files(
        pulled
    )
    assert again.opened == []
    assert pull(None, built.digest, store, private, ImageKeys(source=Keys())).lower_dirs == pulled.lower_dirs


def test_a_layer_that_comes_twice_counts_where_it_is_highest(store: Store, private: Path) -> None:
    same, other = layer({"a": b"same"}), layer({"b": b"other"})
    built = image([same, other, same])
    assert files(pull(built.source, built.digest, store, private, NOBODY)) == [{"a": b"same"}, {"b": b"other"}]
    hidden = sealed(built)
    assert len(pull(hidden.source, hidden.digest, store, private, ImageKeys(source=Keys())).lower_dirs) == 3


def test_a_layer_that_hides_all_below_it_is_the_lowest(store: Store, private: Path) -> None:
    built = image([layer({"a": b"secret of old"}), layer({".wh..wh..opq": b"", "b": b"new"}), layer({"c": b"top"})])
    for each, keys in ((built, NOBODY), (sealed(built), ImageKeys(source=Keys()))):
        assert files(pull(each.source, each.digest, store, private, keys)) == [{"c": b"top"}, {"b": b"new"}]


def test_many_at_once(store: Store, tmp_path: Path) -> None:
    built = plain()
    sources = [built.source for _ in range(6)]

    def one(number: int) -> tuple[Path, ...]:
        return pull(sources[number], built.digest, Store(store.path), tmp_path / "p", NOBODY).lower_dirs

    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(one, range(6)))) == 1
    opened = [digest for source in sources for digest in source.opened]
    for descriptor in built.manifest.layers:
        assert opened.count(descriptor.digest) == 1  # the others waited
    assert names(store.path / "tmp") == []


PULL = """
import sys, time
from pathlib import Path
from adyton.image.oci_layout import LayoutSource
from adyton.image.ocicrypt import ImageKeys
from adyton.image.pull import pull
from adyton.image.store import Store
from adyton.rats.types import Digest

class Slow(LayoutSource):
    def open_blob(self, digest, offset=0):
        blob = super().open_blob(digest, offset)
        class Stream:
            def readinto(self, buffer):
                time.sleep(0.002)
                return blob.readinto(buffer[:4096])
            def close(self):
                blob.close()
        return Stream()

source = Slow(Path(sys.argv[1]), None)
pull(source, Digest.parse(sys.argv[2]), Store(Path(sys.argv[3])), Path(sys.argv[3] + "-private"), ImageKeys())
"""


def puller(layout: Path, built: Built, store: Store) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", PULL, layout, str(built.digest), store.path])


def test_killed_at_any_moment_the_store_still_works(store: Store, tmp_path: Path) -> None:
    built = image(
        [
            layer({f"d{n}/f{m}": os.urandom(900) for m in range(60)}, kind)
            for n, kind in enumerate(["gzip", "zstd", "none"])
        ]
    )
    layout = built.write_layout(tmp_path / "layout")
    for delay in (0.1, 0.25, 0.3, 0.35, 0.4):
        process = puller(layout, built, store)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        for place in ("blobs/sha256", "unpacked"):
            for path in (store.path / place).iterdir():
                if place == "blobs/sha256":
                    assert Digest.parse(f"sha256:{path.name}").matches(path.read_bytes())
        for diff_id, one in zip(built.config.diff_ids, built.manifest.layers, strict=True):
            if (there := store.unpacked(diff_id)) is not None:
                assert len([path for path in there.rglob("*") if path.is_file()]) == 60, one
    Store(store.path)
    assert names(store.path / "tmp") == []
    again = pull(built.source, built.digest, store, tmp_path / "p", NOBODY)
    assert [len(one) for one in files(again)] == [60, 60, 60]


def test_what_is_there_already_needs_no_cryptography(store: Store, private: Path) -> None:
    """Starting a plain image is fast because nothing is loaded for it."""
    built = plain()
    pull(built.source, built.digest, store, private, NOBODY)
    program = (
        "import sys; from pathlib import Path; from adyton.image.pull import pull; from adyton.image.store import Store\n"
        "from adyton.rats.types import Digest\n"
        "pull(None, Digest.parse(sys.argv[1]), Store(Path(sys.argv[2])), Path('/nowhere'), None)\n"
        "assert not {'cryptography', 'isal', 'backports', 'concurrent'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program, str(built.digest), store.path], check=True)


@pytest.mark.slow
def test_two_processes_pull_the_same_image(store: Store, tmp_path: Path) -> None:
    built = image([layer({f"f{m}": os.urandom(9000) for m in range(40)}, "none") for _ in range(3)])
    layout = built.write_layout(tmp_path / "layout")
    processes = [puller(layout, built, store) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert len(pull(None, built.digest, store, tmp_path / "p", NOBODY).lower_dirs) == 3
    assert names(store.path / "tmp") == []


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    if shutil.which("docker-registry") is None:
        pytest.skip("docker-registry is not installed")
    with docker_registry(tmp_path / "registry") as running:
        yield running.reference("app") + ":1"


def test_from_a_registry(registry: str, store: Store, private: Path) -> None:
    reference = ImageReference.parse(registry)
    options = RegistryOptions(plain_http=frozenset({reference.registry}))
    sink = open_sink(reference, options)
    encrypt(plain().source, sink, Recipients(broker_keys=(BrokerKey(KID, KEK),)), platform=Platform("amd64", "linux"))
    sink.close()
    source = open_source(reference, options)
    digest = source.manifest().digest
    pulled = pull(source, digest, store, private, ImageKeys(source=Keys()))
    source.close()
    assert files(pulled)[2] == {"app/one": SECRET}
    assert SECRET[:40] not in content(store.path)
