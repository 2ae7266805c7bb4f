"""The store against damage, killing and crowds first; then that it keeps what it was given."""

from __future__ import annotations

import fcntl
import io
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from adyton.errors import DigestMismatch, NotFound, PlatformError
from adyton.image import store as store_module
from adyton.image.store import Store, StoreSource
from adyton.rats.types import Digest

DATA = os.urandom(5000)


def names(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir())


def blobs(store: Store) -> list[str]:
    return names(store.path / "blobs/sha256")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.mark.parametrize(
    ("data", "size"),
    [(DATA[:-1], None), (DATA + b"x", None), (b"", None), (DATA, 4999), (DATA, 5001), (b"x" * 5000, 5000)],
)
def test_what_is_not_the_digest_never_appears(store: Store, data: bytes, size: int | None) -> None:
    with pytest.raises(DigestMismatch) as error:
        store.add_blob(io.BytesIO(data), Digest.of(DATA), size)
    assert error.value.code == "blob_mismatch"
    assert store.blob(Digest.of(DATA)) is None
    assert (blobs(store), names(store.path / "tmp")) == ([], [])


def test_an_endless_blob_of_known_size_is_not_read_to_its_end(store: Store) -> None:
    class Endless:
        given = 0

        def readinto(self, buffer: memoryview, /) -> int:
            self.given += len(buffer)
            return len(buffer)

        def read(self, size: int = -1, /) -> bytes:
            raise NotImplementedError

        def close(self) -> None:
            pass

    stream = Endless()
    with pytest.raises(DigestMismatch):
        store.add_blob(stream, Digest.of(DATA), 100)
    assert stream.given < 10 << 20


def test_a_damaged_blob_is_as_good_as_absent(store: Store) -> None:
    path = store.add_blob(io.BytesIO(DATA), Digest.of(DATA))
    path.write_bytes(DATA[:-1] + bytes([DATA[-1] ^ 1]))
    assert store.read(Digest.of(DATA), 10_000) is None
    with pytest.raises(NotFound):
        StoreSource(store, Digest.of(DATA)).manifest()
    store.add_blob(io.BytesIO(DATA), Digest.of(DATA))
    assert store.read(Digest.of(DATA), 10_000) == DATA
    assert store.read(Digest.of(DATA), 4999) is None
    assert store.read(Digest.of(DATA), 5000) == DATA


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"name": "n"}', '{"name": "n", "digest": "sha256:00"}', '{"name": "other", "digest": "DIGEST"}'],
)
def test_a_damaged_name_is_unknown(store: Store, text: str) -> None:
    store.set_ref("n", Digest.of(DATA))
    [path] = (store.path / "refs").iterdir()
    path.write_text(text.replace("DIGEST", str(Digest.of(DATA))))
    assert store.ref("n") is None


def test_names(store: Store) -> None:
    awkward = ["docker://host:5000/a/b:tag", "../../etc/passwd", "x" * 3000, "oci:/dir/ü", ""]
    for name in awkward:
        assert store.ref(name) is None
        store.set_ref(name, Digest.of(name.encode()))
    store.set_ref("moved", Digest.of(b"1"))
    store.set_ref("moved", Digest.of(b"2"))
    again = Store(store.path)
    assert {name: again.ref(name) for name in awkward} == {name: Digest.of(name.encode()) for name in awkward}
    assert again.ref("moved") == Digest.of(b"2")
    assert set(again.refs()) == {*awkward, "moved"}
    assert names(store.path) == ["blobs", "lock", "refs", "tmp", "unpacked"]


def test_what_is_kept_can_be_read_in_any_part(store: Store) -> None:
    digest = Digest.of(DATA, "sha512")
    path = store.add_blob(io.BytesIO(DATA), digest, len(DATA))
    assert (store.blob(digest), path.read_bytes()) == (path, DATA)
    source = StoreSource(store, digest)
    with source.open_blob(digest, 4000) as blob:
        assert blob.read() == DATA[4000:]
    with pytest.raises(NotFound):
        source.open_blob(Digest.of(b"absent"))
    assert path.stat().st_mode & 0o077 == 0
    store.discard_blob(digest)
    store.discard_blob(digest)
    assert store.blob(digest) is None


def published(store: Store, content: str) -> Path:
    with store.staging() as place:
        (place / "layer").mkdir()
        (place / "layer/f").write_text(content)
        return store.publish_unpacked(place / "layer", Digest.of(b"layer"))


def test_unpacked_layers_appear_complete_and_once(store: Store) -> None:
    assert store.unpacked(Digest.of(b"layer")) is None
    first = published(store, "one")
    assert published(store, "two") == first == store.unpacked(Digest.of(b"layer"))
    assert (first / "f").read_text() == "one"
    assert names(store.path / "tmp") == []


def test_unpacked_layers_of_an_earlier_boot_do_not_count(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    published(store, "before the crash")
    (tmp_path / "boot").write_text("another boot\n")
    monkeypatch.setattr(store_module, "_BOOT_ID", tmp_path / "boot")
    assert store.unpacked(Digest.of(b"layer")) is None
    assert (published(store, "after") / "f").read_text() == "after"
    assert names(store.path / "tmp") == []
    monkeypatch.setattr(store_module, "_BOOT_ID", tmp_path / "missing")
    assert store.unpacked(Digest.of(b"layer")) is None


def test_half_of_an_unpacked_layer_does_not_count(store: Store) -> None:
    path = published(store, "one")
    (path.parent / "boot").unlink()
    assert store.unpacked(Digest.of(b"layer")) is None
    assert (published(store, "two") / "f").read_text() == "two"
    (path / "f").unlink()
    path.rmdir()
    assert store.unpacked(Digest.of(b"layer")) is None


def test_rubbish_is_swept_only_when_nobody_works(store: Store) -> None:
    rubbish = store.path / "tmp/rubbish"
    (rubbish / "deep").mkdir(parents=True)
    with store.staging() as place:
        (place / "mine").write_text("x")
        other = Store(store.path)
        assert rubbish.is_dir()
        assert (place / "mine").is_file()
        with other.staging():
            Store(store.path)
            assert (place / "mine").is_file()
    assert rubbish.is_dir()
    Store(store.path)
    assert names(store.path / "tmp") == []


KILLED = """
import sys
from pathlib import Path
from adyton.image.store import Store
from adyton.rats.types import Digest
store = Store(Path(sys.argv[1]))
with store.incoming() as blob, store.staging() as place:
    blob.write(b"half")
    (place / "layer").mkdir()
    (place / "layer/f").write_text("half")
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_a_killed_writer_leaves_a_store_that_works(store: Store) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", KILLED, store.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    assert writer.stdin is not None
    assert writer.stdout.readline() == "ready\n"
    assert len(names(store.path / "tmp")) == 2
    Store(store.path)
    assert len(names(store.path / "tmp")) == 2
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdin.close()
    writer.stdout.close()
    again = Store(store.path)
    assert (names(store.path / "tmp"), blobs(store), names(store.path / "unpacked")) == ([], [], [])
    again.add_blob(io.BytesIO(DATA), Digest.of(DATA))
    assert again.read(Digest.of(DATA), 5000) == DATA


def test_many_writers_of_the_same_things(store: Store) -> None:
    def work(number: int) -> bool:
        mine = Store(store.path)
        mine.add_blob(io.BytesIO(DATA), Digest.of(DATA))
        mine.set_ref("name", Digest.of(DATA))
        return (published(mine, "same") / "f").read_text() == "same" and mine.read(Digest.of(DATA), 9999) == DATA

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(40)))
    assert (len(blobs(store)), names(store.path / "tmp")) == (1, [])


def test_one_unpacks_and_the_other_waits(store: Store) -> None:
    order: list[str] = []
    inside = threading.Event()

    def other() -> None:
        inside.wait()
        with store.staging(), store.one_at_a_time(Digest.of(b"layer")):
            order.append("other")

    thread = threading.Thread(target=other)
    thread.start()
    with store.staging(), store.one_at_a_time(Digest.of(b"layer")):
        inside.set()
        thread.join(0.2)
        order.append("one")
    thread.join()
    assert order == ["one", "other"]


def test_who_waits_too_long_goes_on_alone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "PATIENCE", 0.1)
    path = store.path / "tmp" / f"lock-{Digest.of(b'layer').hex}"
    with path.open("w") as stuck:
        fcntl.flock(stuck, fcntl.LOCK_EX)
        with store.staging(), store.one_at_a_time(Digest.of(b"layer")):
            pass


@pytest.mark.root
def test_a_full_disk_is_said_and_nothing_stays(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path], check=True)
    try:
        store = Store(tmp_path / "store")
        data = bytes(3 << 20)
        with pytest.raises(PlatformError) as error:
            store.add_blob(io.BytesIO(data), Digest.of(data))
        assert (error.value.code, blobs(store), names(store.path / "tmp")) == ("disk_full", [], [])
        store.add_blob(io.BytesIO(DATA), Digest.of(DATA))
        assert store.read(Digest.of(DATA), 5000) == DATA
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PlatformError):
        Store(tmp_path / "file")
