"""Layouts, archives and directories on disk: what is broken in them, and what may not be followed."""

from __future__ import annotations

import io
import json
import os
import tarfile
from contextlib import closing
from pathlib import Path

import pytest
from tests.image.building import Built, descriptor_of, image, layer

from adyton.errors import AdytonError, ConfigError, Conflict, DigestMismatch, MalformedImage, NotFound, UnsupportedImage
from adyton.image.archive import ArchiveSource
from adyton.image.blob_file import FileBlobWriter, open_blob_file, read_file
from adyton.image.dir_layout import DirectorySink, DirectorySource
from adyton.image.manifest import Descriptor
from adyton.image.oci_layout import LayoutSink, LayoutSource
from adyton.image.reference import ImageReference
from adyton.image.source import ImageSink, read_blob
from adyton.image.transports import open_sink
from adyton.rats.types import Digest

ONE, TWO = image([layer({"a": b"one"})]), image([layer({"a": b"two"})])


def test_tags_of_a_layout(tmp_path: Path) -> None:
    for built, tag in ((ONE, "one"), (TWO, "two"), (ONE, "again"), (TWO, "again")):
        sink = LayoutSink(tmp_path, tag)
        for digest, blob in built.blobs.items():
            writer = sink.start_blob()
            writer.write(blob)
            writer.commit(digest)
        sink.put_manifest(built.raw, built.media_type)
    assert LayoutSource(tmp_path, "one").manifest().digest == ONE.digest
    assert LayoutSource(tmp_path, "again").manifest().digest == TWO.digest
    with pytest.raises(NotFound) as missing:
        LayoutSource(tmp_path, "three").manifest()
    assert "again" in str(missing.value.got)
    with pytest.raises(MalformedImage) as several:
        LayoutSource(tmp_path, None).manifest()
    assert several.value.code == "layout_ambiguous"


def test_a_layout_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        LayoutSource(tmp_path, None).manifest()
    ONE.write_layout(tmp_path)
    for version in (b"", b"{}", b'{"imageLayoutVersion":"9"}', b"x" * 5000):
        (tmp_path / "oci-layout").write_bytes(version)
        with pytest.raises(AdytonError):
            LayoutSource(tmp_path, None).manifest()
        with pytest.raises(AdytonError):
            LayoutSink(tmp_path, None)


@pytest.mark.parametrize("raw", [b"", b"{}", b'{"schemaVersion":2,"manifests":[]}', ONE.raw, b"[" * 100_000])
def test_an_index_that_is_none(tmp_path: Path, raw: bytes) -> None:
    ONE.write_layout(tmp_path)
    (tmp_path / "index.json").write_bytes(raw)
    with pytest.raises(AdytonError):
        LayoutSource(tmp_path, None).manifest()


def test_a_manifest_that_is_another(tmp_path: Path) -> None:
    ONE.write_layout(tmp_path)
    (tmp_path / "blobs" / "sha256" / ONE.digest.hex).write_bytes(TWO.raw)
    with pytest.raises(MalformedImage) as caught:
        LayoutSource(tmp_path, None).manifest()
    assert caught.value.code == "manifest_mismatch"


def test_things_that_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")  # opening it must not wait for a writer
    (tmp_path / "directory").mkdir()
    for name in ("fifo", "directory"):
        with pytest.raises(ConfigError):
            open_blob_file(tmp_path / name)
    with pytest.raises(NotFound):
        open_blob_file(tmp_path / "absent")
    (tmp_path / "large").write_bytes(bytes(101))
    with pytest.raises(ConfigError):
        read_file(tmp_path / "large", 100)


def test_a_writer_leaves_nothing_unless_it_commits(tmp_path: Path) -> None:
    writer = FileBlobWriter(tmp_path, lambda digest: tmp_path / digest.hex)
    writer.write(b"x")
    writer.abort()
    writer.abort()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(NotFound):
        FileBlobWriter(tmp_path / "absent", lambda digest: tmp_path / digest.hex)


def test_reading_a_blob_as_a_whole(tmp_path: Path) -> None:
    built = image([layer({"a": b"one"})])
    source = built.source
    config = built.manifest.config
    assert read_blob(source, config, 10_000) == built.blobs[config.digest]
    with pytest.raises(MalformedImage):
        read_blob(source, config, 10)
    assert source.opened == [config.digest]
    source.blobs[config.digest] += b" "
    with pytest.raises(DigestMismatch):
        read_blob(source, config, 10_000)
    empty = descriptor_of(b"")
    source.blobs[empty.digest] = b""
    assert read_blob(source, empty, 0) == b""


def archive(path: Path, built: Built, *extra: tuple[tarfile.TarInfo, bytes]) -> Path:
    layout = built.write_layout(path.parent / "layout", "v1")
    with tarfile.open(path, "w") as tar:
        for member, content in extra:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        tar.add(layout, arcname=".")
    return path


def test_an_archive_is_read_in_place(tmp_path: Path) -> None:
    source = ArchiveSource(archive(tmp_path / "a.tar", ONE), "v1")
    assert source.manifest().digest == ONE.digest
    for digest, blob in ONE.blobs.items():
        with closing(source.open_blob(digest)) as stream:
            assert stream.read() == blob
        with closing(source.open_blob(digest, 5)) as stream:
            assert stream.read() == blob[5:]
        with closing(source.open_blob(digest, len(blob) + 5)) as stream:
            assert stream.read() == b""
    with pytest.raises(NotFound):
        source.open_blob(Digest.of(b"nothing"))


def test_an_archive_with_a_member_twice(tmp_path: Path) -> None:
    with pytest.raises(MalformedImage):
        ArchiveSource(archive(tmp_path / "a.tar", ONE, (tarfile.TarInfo("index.json"), b"{}")), "v1")


def test_an_archive_with_a_link_in_place_of_a_blob(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    link = tarfile.TarInfo("index.json")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with tarfile.open(path, "w") as tar:
        tar.addfile(link)
    with pytest.raises(NotFound):
        ArchiveSource(path, None).manifest()


@pytest.mark.parametrize("content", [b"", b"x", bytes(511), b"\x1f\x8b" + bytes(600), os.urandom(2000)])
def test_archives_that_are_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(content)
    with pytest.raises((UnsupportedImage, NotFound)):
        ArchiveSource(path, None).manifest()


@pytest.mark.parametrize("kind", [b"0", b"5", b"Q", b"x", b"L", b"S"])
@pytest.mark.parametrize("size", [-(1 << 60), -1024, -512, -1, 1 << 33, 1 << 60, 1 << 80])
def test_an_archive_whose_header_lies_about_a_length(tmp_path: Path, kind: bytes, size: int) -> None:
    header = bytearray(tarfile.TarInfo("a").tobuf(tarfile.GNU_FORMAT))
    header[124:136] = (0xFF if size < 0 else 0x80).to_bytes(1, "big") + size.to_bytes(11, "big", signed=True)
    header[156:157] = kind
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    path = tmp_path / "a.tar"
    path.write_bytes(bytes(header) + bytes(1024))
    with pytest.raises(AdytonError):
        ArchiveSource(path, None).manifest()


def test_an_archive_that_is_cut_off(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar", ONE)
    whole = path.read_bytes()
    for length in range(0, len(whole), 509):
        path.write_bytes(whole[:length])
        try:
            source = ArchiveSource(path, "v1")
            for digest, blob in ONE.blobs.items():
                with closing(source.open_blob(digest)) as stream:
                    assert stream.read() == blob
        except AdytonError:
            continue


def test_directories(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "precious").write_text("x")
    with pytest.raises(ConfigError) as caught:
        DirectorySink(tmp_path / "other")
    assert caught.value.code == "destination_not_empty"
    with pytest.raises(NotFound):
        DirectorySource(tmp_path / "none").manifest()
    sink = DirectorySink(tmp_path / "image")
    with pytest.raises(Conflict):
        DirectorySink(tmp_path / "image")
    sink.put_manifest(ONE.raw, ONE.media_type)
    sink.close()
    source = DirectorySource(tmp_path / "image")
    assert source.manifest().digest == source.manifest(ONE.digest).digest == ONE.digest
    with pytest.raises(NotFound):
        source.manifest(TWO.digest)
    (tmp_path / "image" / f"{TWO.digest.hex}.manifest.json").write_bytes(TWO.raw)
    assert source.manifest(TWO.digest).raw == TWO.raw
    (tmp_path / "image" / f"{TWO.digest.hex}.manifest.json").write_bytes(ONE.raw)
    with pytest.raises(MalformedImage):
        source.manifest(TWO.digest)


def test_a_directory_holds_one_image_and_nothing_of_the_one_before(tmp_path: Path) -> None:
    place = tmp_path / "image"
    for built in (ONE, TWO):
        sink = DirectorySink(place)
        for digest, blob in built.blobs.items():
            writer = sink.start_blob()
            writer.write(blob)
            writer.commit(digest)
        (place / "signature-1").write_bytes(b"of the one before")
        (place / ".incoming-x").write_bytes(b"of a writer that was killed")
        (place / "notes.txt").write_text("the owner's")
        sink.put_manifest(built.raw, built.media_type)
        sink.close()
    left = {path.name for path in place.iterdir()}
    blobs = {digest.hex for digest in TWO.blobs if digest != TWO.digest}
    assert left - {TWO.digest.hex} == {"manifest.json", "version", "notes.txt"} | blobs


def test_a_directory_is_not_written_while_it_is_read(tmp_path: Path) -> None:
    with closing(DirectorySink(tmp_path / "image")) as sink:
        sink.put_manifest(ONE.raw, ONE.media_type)
    (tmp_path / "link").symlink_to("image")
    with pytest.raises(ConfigError) as caught:
        open_sink(ImageReference.parse(f"dir:{tmp_path}/link"), None, ImageReference.parse(f"dir:{tmp_path}/image"))
    assert caught.value.code == "destination_is_source"
    assert DirectorySource(tmp_path / "image").manifest().digest == ONE.digest


def test_entries_of_others_in_an_index_stay_as_they_are(tmp_path: Path) -> None:
    ONE.write_layout(tmp_path, "theirs")
    index = json.loads((tmp_path / "index.json").read_text())
    index["manifests"][0]["platform"] = {"os": "linux", "architecture": "amd64", "os.version": "7"}
    (tmp_path / "index.json").write_text(json.dumps(index))
    LayoutSink(tmp_path, "ours").put_manifest(TWO.raw, TWO.media_type)
    after = json.loads((tmp_path / "index.json").read_text())["manifests"]
    assert after[0] == index["manifests"][0]
    assert after[1]["digest"] == str(TWO.digest)


@pytest.mark.parametrize("kind", ["oci", "dir"])
def test_what_is_not_published_is_removed_and_nothing_else(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "a" / "b"
    reference = ImageReference.parse(f"{kind}:{place}")
    with closing(open_sink(reference)) as sink:
        _write(sink, b"a layer")
        assert any(path.is_file() for path in place.rglob("*"))
    assert list(tmp_path.iterdir()) == []
    place.mkdir(parents=True)
    with closing(open_sink(reference)) as sink:
        _write(sink, b"a layer")
    assert list(place.iterdir()) == []  # it was there before
    with closing(open_sink(reference)) as sink:
        for blob in ONE.blobs.values():
            _write(sink, blob)
        sink.put_manifest(ONE.raw, ONE.media_type)
    whole = sorted(place.rglob("*"))
    with closing(open_sink(reference)) as sink:
        for blob in (*ONE.blobs.values(), b"another layer"):
            _write(sink, blob)
    assert sorted(place.rglob("*")) == whole


def test_what_two_write_at_once_one_of_them_does_not_remove(tmp_path: Path) -> None:
    first, second = LayoutSink(tmp_path / "x", "first"), LayoutSink(tmp_path / "x", "second")
    for blob in ONE.blobs.values():
        _write(first, blob)
    first.close()
    for blob in ONE.blobs.values():
        _write(second, blob)
    second.put_manifest(ONE.raw, ONE.media_type)
    second.close()
    source = LayoutSource(tmp_path / "x", None)
    for digest, blob in ONE.blobs.items():
        with closing(source.open_blob(digest)) as stream:
            assert stream.read() == blob


def test_sinks_give_back_their_descriptors(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for kind in ("oci", "oci-archive", "dir"):
        for number in range(3):
            with closing(open_sink(ImageReference.parse(f"{kind}:{tmp_path / kind}-{number}"))) as sink:
                _write(sink, b"a layer")
                if number:
                    sink.put_manifest(ONE.raw, ONE.media_type)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_an_archive_replaces_no_device(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for name in ("pipe", "directory", "link"):
        with pytest.raises(ConfigError) as caught:
            open_sink(ImageReference.parse(f"oci-archive:{tmp_path / name}"))
        assert caught.value.code == "not_a_file"
    assert (tmp_path / "pipe").is_fifo() and len(list(tmp_path.iterdir())) == 3


def test_blobs_are_as_private_as_the_mask_says(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        for reference in (f"oci:{tmp_path / 'o'}", f"dir:{tmp_path / 'd'}"):
            with closing(open_sink(ImageReference.parse(reference))) as sink:
                for blob in ONE.blobs.values():
                    _write(sink, blob)
                sink.put_manifest(ONE.raw, ONE.media_type)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o077 for path in tmp_path.rglob("*")} == {0}


def _write(sink: ImageSink, blob: bytes) -> None:
    writer = sink.start_blob()
    writer.write(blob)
    writer.commit(Digest.of(blob))


def put_all(sink: ImageSink, built: Built) -> None:
    for digest, blob in built.blobs.items():
        writer = sink.start_blob()
        writer.write(blob)
        writer.commit(digest)


@pytest.mark.parametrize("links", [True, False])
def test_what_another_writer_published_stays_when_the_first_gives_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    """Both write the same blobs into one layout; who came first, and made the names, does not come to its end."""

    def unsupported(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    if not links:  # vfat
        monkeypatch.setattr(os, "link", unsupported)
    first, second = LayoutSink(tmp_path / "layout", "one"), LayoutSink(tmp_path / "layout", "two")
    put_all(first, ONE)
    put_all(first, TWO)
    put_all(first, TWO)  # a layer may be there twice
    put_all(second, ONE)
    second.put_manifest(ONE.raw, ONE.media_type)
    second.close()
    first.close()
    source = LayoutSource(tmp_path / "layout", "two")
    assert {digest: read_blob(source, found, 10_000) for digest, found in described(ONE)} == ONE.blobs
    assert not any(
        (tmp_path / "layout" / "blobs" / "sha256" / digest.hex).exists() for digest in TWO.blobs.keys() - ONE.blobs
    )


def described(built: Built) -> list[tuple[Digest, Descriptor]]:
    return [(one.digest, one) for one in (built.manifest.config, *built.manifest.layers)]
