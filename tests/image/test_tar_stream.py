"""The tar reader against broken archives first, then against GNU tar and Python's own writer."""

from __future__ import annotations

import contextlib
import io
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from adyton.errors import MalformedImage
from adyton.image.limits import DEFAULT, Limits
from adyton.image.tar_header import Kind, TarEntry, number, records, seconds
from adyton.image.tar_stream import TarReader


def archive(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    """An archive of ``members`` as Python writes it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def member(name: str, data: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def header(name: bytes = b"a", *, size: bytes = b"00000000000\0", flag: bytes = b"0", **at: bytes) -> bytes:
    """A ustar header of raw fields, with its checksum right; ``at`` sets the fields after it."""
    block = bytearray(512)
    block[0 : len(name)] = name
    block[100:124] = at.get("owner", b"0000644\x000000000\x000000000\0")
    block[124:136] = size
    block[136:148] = at.get("mtime", b"00000000000\0")
    block[156:157] = flag
    link = at.get("link", b"")
    block[157 : 157 + len(link)] = link
    block[257:265] = at.get("magic", b"ustar\x0000")
    prefix = at.get("prefix", b"")
    block[345 : 345 + len(prefix)] = prefix
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def blocks(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def pax(*pairs: tuple[bytes, bytes], flag: bytes = b"x") -> bytes:
    body = b""
    for key, value in pairs:
        rest = b" " + key + b"=" + value + b"\n"
        length = len(rest) + 1
        while len(b"%d" % length) + len(rest) != length:
            length += 1
        body += b"%d" % length + rest
    return header(b"pax", size=b"%011o\0" % len(body), flag=flag) + blocks(body)


def old_sparse(length: int) -> bytes:
    """An old GNU sparse header of one extent at 0 that is the whole file."""
    extents = bytes(386 - 345) + b"%011o\0%011o\0" % (0, length)
    prefix = extents.ljust(483 - 345, b"\0") + b"%011o\0" % length
    return header(b"s", size=b"%011o\0" % length, flag=b"S", magic=b"ustar  \0", prefix=prefix)


END = bytes(1024)


def read(data: bytes, step: int = 1 << 16, limits: Limits = DEFAULT) -> list[tuple[TarEntry, bytes]]:
    """All entries with their data, the archive handed over in pieces of ``step`` bytes."""

    def pieces() -> Iterator[bytes]:
        for at in range(0, len(data), step):
            yield data[at : at + step]

    reader = TarReader(pieces(), limits)
    found = []
    while (entry := reader.next()) is not None:
        whole = reader.whole()
        found.append((entry, bytes(whole) if whole is not None else b"".join(bytes(p) for p in reader.body())))
    reader.drain()
    assert reader.read_bytes == len(data)
    return found


BROKEN = {
    "checksum": b"b" + header()[1:] + END,
    "cut header": header()[:300],
    "cut data": header(size=b"%011o\0" % 600) + bytes(512),
    "cut before padding": header(size=b"%011o\0" % 600) + bytes(600),
    "negative size": header(size=b"\xff" + b"\xff" * 11) + END,
    "huge size": header(size=b"\x80" + b"\xff" * 11) + END,
    "size with sign": header(size=b"-0000000001\0") + END,
    "size with underscore": header(size=b"0000000_001\0") + END,
    "size not octal": header(size=b"00000000009\0") + END,
    "owner that leaves owners alone": header(owner=b"0000644\0" + b"\x80\0\0\0\xff\xff\xff\xff" + b"0000000\0") + END,
    "negative owner": header(owner=b"0000644\0" + b"\xff" * 8 + b"0000000\0") + END,
    "time beyond all": header(mtime=b"\x80" + b"\xff" * 11) + END,
    "unknown type": header(flag=b"Q") + END,
    "multi-volume": header(flag=b"M") + END,
    "lone zero block": header() + bytes(512) + header() + END,
    "ends after extended header": pax((b"path", b"x")) + END,
    "ends after extended header, no marker": pax((b"path", b"x")),
    "two extended headers": pax((b"path", b"x")) + pax((b"path", b"y")) + header() + END,
    "two long names": (header(flag=b"L", size=b"%011o\0" % 2) + blocks(b"x\0")) * 2 + header() + END,
    "global path": pax((b"path", b"x"), flag=b"g") + header() + END,
    "global size": pax((b"size", b"0"), flag=b"g") + header() + END,
    "global xattr": pax((b"SCHILY.xattr.user.a", b"0"), flag=b"g") + header() + END,
    "NUL in path": pax((b"path", b"a\0b")) + header() + END,
    "NUL in link": pax((b"linkpath", b"a\0b")) + header(flag=b"2") + END,
    "pax size negative": pax((b"size", b"-1")) + header() + END,
    "pax size hex": pax((b"size", b"0x10")) + header() + END,
    "pax size huge": pax((b"size", b"9" * 30)) + header() + END,
    "pax uid -1": pax((b"uid", b"4294967295")) + header() + END,
    "pax time": pax((b"mtime", b"1e9")) + header() + END,
    "file name ends with slash": header(b"a/") + END,
    "sparse beyond size": pax((b"GNU.sparse.size", b"10"), (b"GNU.sparse.map", b"8,4"))
    + header(size=b"%011o\0" % 4)
    + blocks(b"abcd")
    + END,
    "sparse overlap": pax((b"GNU.sparse.size", b"10"), (b"GNU.sparse.map", b"0,4,2,4"))
    + header(size=b"%011o\0" % 8)
    + blocks(b"abcdefgh")
    + END,
    "sparse map cut": pax((b"GNU.sparse.size", b"10"), (b"GNU.sparse.map", b"0,4,2"))
    + header(size=b"%011o\0" % 4)
    + blocks(b"abcd")
    + END,
    "sparse does not fit": pax((b"GNU.sparse.size", b"10"), (b"GNU.sparse.map", b"0,4"))
    + header(size=b"%011o\0" % 8)
    + blocks(b"abcdefgh")
    + END,
    "sparse 1.0 without map": pax(
        (b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"1")
    )
    + header()
    + END,
    "sparse 1.0 endless count": pax(
        (b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"1")
    )
    + header(size=b"%011o\0" % 512)
    + blocks(b"99999999\n0\n")
    + END,
    "old sparse of two lengths": pax((b"size", b"1024")) + old_sparse(512) + END + END,
    "old sparse, shorter the other time": pax((b"size", b"10")) + old_sparse(512) + END + END,
    "sparse on a directory": pax((b"GNU.sparse.size", b"0")) + header(flag=b"5") + END,
}


@pytest.mark.parametrize("what", BROKEN)
@pytest.mark.parametrize("step", [1 << 16, 100])
def test_broken_archives_are_refused(what: str, step: int) -> None:
    with pytest.raises(MalformedImage):
        read(BROKEN[what], step)


@pytest.mark.parametrize(
    "body", [b"x", b"4 a=\n", b"99 a=b\n", b"6 =ab\n", b"6 abc\n", b"6 a=bc", b"3 \n", b"-6 a=b\n", b"+6 a=b\n"]
)
def test_broken_records_are_refused(body: bytes) -> None:
    with pytest.raises(MalformedImage):
        records(body)


def test_an_extended_header_over_its_limit_is_refused() -> None:
    data = pax((b"comment", b"x" * 5000)) + header() + END
    assert len(read(data)) == 1
    with pytest.raises(MalformedImage) as refused:
        read(data, limits=Limits(extended_bytes=4096))
    assert refused.value.code == "layer_over_limit"


def test_an_archive_that_grows_without_end_stops_at_the_limit() -> None:
    def endless() -> Iterator[bytes]:
        yield header(size=b"\x80\0\0\0\0\0\x80\0\0\0\0\0")
        while True:
            yield bytes(1 << 16)

    reader = TarReader(endless(), Limits(unpacked_bytes=1 << 24))
    assert reader.next() is not None
    with pytest.raises(MalformedImage, match="over a limit"):
        reader.next()
    assert reader.read_bytes < (1 << 24) + (1 << 17)


def test_numbers() -> None:
    assert number(b"0000755\0") == number(b"   755 \0") == number(b"755\0\0\0\0\0") == 0o755
    assert number(bytes(8)) == 0
    assert number(b"\x80" + bytes(9) + b"\x01\x02") == 0x102
    assert number(b"\xff" * 11 + b"\xfe") == -2
    for wrong in (b"0o755\0\0\0", b"7 5\0\0\0\0\0", b"+755\0\0\0\0"):
        with pytest.raises(MalformedImage):
            number(wrong)


def test_times_have_nanoseconds_and_may_lie_before_1970() -> None:
    assert seconds(b"12.5") == 12_500_000_000
    assert seconds(b"-0.25") == -250_000_000
    assert seconds(b"1.0000000019") == 1_000_000_001


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("step", [1 << 16, 333])
def test_what_python_writes_is_read(form: int, step: int) -> None:
    long = "d" * 90 + "/" + "f" * 99 if form == tarfile.USTAR_FORMAT else "d/" * 60 + "f" * 200
    data = archive(
        member("dir", type=tarfile.DIRTYPE, mode=0o1777),
        member("dir/file", b"x" * 5000, mode=0o4755, uid=1234, gid=99, mtime=1_700_000_000),
        member(long, b"long"),
        member("link", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        member("hard", type=tarfile.LNKTYPE, linkname="dir/file"),
        member("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
        member("pipe", type=tarfile.FIFOTYPE),
        form=form,
    )
    found = read(data, step)
    assert [entry.kind for entry, _ in found] == [
        Kind.DIRECTORY,
        Kind.FILE,
        Kind.FILE,
        Kind.SYMLINK,
        Kind.HARDLINK,
        Kind.CHARACTER,
        Kind.FIFO,
    ]
    entry, content = found[1]
    assert (entry.name, entry.mode, entry.uid, entry.gid, content) == (b"dir/file", 0o4755, 1234, 99, b"x" * 5000)
    assert entry.mtime == 1_700_000_000 * 10**9
    assert (found[2][0].name, found[2][1]) == (long.encode(), b"long")
    assert (found[3][0].link, found[4][0].link, found[5][0].device) == (b"/etc/passwd", b"dir/file", (1, 3))


def test_extended_headers_say_it_better() -> None:
    data = archive(
        member(
            "plain",
            b"data",
            pax_headers={
                "path": "ünïcode",
                "mtime": "123.456",
                "SCHILY.xattr.user.colour": "blue",
                "SCHILY.xattr.user.empty": "",
                "uid": "3000000000",
            },
        )
    )
    [(entry, content)] = read(data)
    assert entry.name == "ünïcode".encode()
    assert (entry.mtime, entry.uid, content) == (123_456_000_000, 3_000_000_000, b"data")
    assert entry.xattrs == ((b"user.colour", b"blue"), (b"user.empty", b""))


def test_global_records_are_defaults() -> None:
    data = pax((b"uid", b"7"), (b"comment", b"c"), flag=b"g") + header() + pax((b"uid", b"8")) + header(b"b") + END
    assert [entry.uid for entry, _ in read(data)] == [7, 8]


def test_a_link_has_no_data_whatever_its_header_says() -> None:
    found = read(header(b"l", flag=b"2", link=b"t", size=b"%011o\0" % 77) + header(b"next") + END)
    assert [entry.name for entry, _ in found] == [b"l", b"next"]


def test_old_headers_without_magic_and_with_signed_checksums_are_read() -> None:
    block = bytearray(header("é".encode("latin-1"), magic=bytes(8)))
    signed = sum(byte - 256 if byte > 127 else byte for byte in block[:148] + b" " * 8 + block[156:])
    block[148:156] = b"%06o\0 " % signed
    [(entry, _)] = read(bytes(block) + END)
    assert entry.name == b"\xe9"
    [(entry, _)] = read(header(b"old/", flag=b"\0", magic=bytes(8)) + END)
    assert entry.kind is Kind.DIRECTORY


def test_the_end_marker_may_be_missing_and_what_follows_it_is_ignored() -> None:
    assert len(read(header())) == 1
    assert len(read(header() + bytes(512))) == 1
    assert len(read(header() + END + b"rubbish" * 999)) == 1
    assert read(b"") == []


@pytest.mark.parametrize(
    "options", [("--format=gnu",), *[("--format=pax", f"--sparse-version={v}") for v in ("0.0", "0.1", "1.0")]]
)
@pytest.mark.parametrize("step", [1 << 16, 700])
def test_sparse_files_of_gnu_tar(tmp_path: Path, options: tuple[str, ...], step: int) -> None:
    holes = 40
    with (tmp_path / "sparse").open("wb") as file:
        for index in range(holes):
            file.seek(index * 65536 + 4096)
            file.write(b"%04d" % index * 1024)
        file.truncate(holes * 65536 + 12345)
    (tmp_path / "after").write_bytes(b"after")
    data = subprocess.run(
        ["tar", "-C", tmp_path, "-cS", *options, "sparse", "after"], check=True, capture_output=True
    ).stdout
    assert len(data) < holes * 20_000
    (first, content), (second, after) = read(data, step)
    assert first.sparse is not None
    assert first.name == b"sparse"
    rebuilt = bytearray(first.sparse.size)
    at = 0
    for offset, length in first.sparse.extents:
        rebuilt[offset : offset + length] = content[at : at + length]
        at += length
    assert bytes(rebuilt) == (tmp_path / "sparse").read_bytes()
    assert (second.name, after) == (b"after", b"after")


@settings(max_examples=60, deadline=None)
@given(
    members=st.lists(
        st.tuples(
            st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=300),
            st.binary(max_size=2000),
        ),
        max_size=6,
    ),
    form=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    step=st.integers(1, 3000),
)
def test_names_and_data_survive(members: list[tuple[str, bytes]], form: int, step: int) -> None:
    data = archive(*(member(name, content) for name, content in members), form=form)
    assert [(entry.name, content) for entry, content in read(data, step)] == [
        (name.encode(), content) for name, content in members
    ]


@settings(max_examples=150, deadline=None)
@given(rubbish=st.binary(max_size=3000), step=st.integers(1, 3000))
def test_rubbish_gives_one_kind_of_error(rubbish: bytes, step: int) -> None:
    with contextlib.suppress(MalformedImage):
        read(rubbish, step)


@settings(max_examples=100, deadline=None)
@given(at=st.integers(0, 511), bit=st.integers(0, 7))
def test_every_bit_of_a_header_is_under_its_checksum(at: int, bit: int) -> None:
    data = bytearray(header(b"name", size=b"%011o\0" % 3) + blocks(b"abc") + END)
    data[at] ^= 1 << bit
    assume((at, bit) not in {(154, 5), (155, 5)})  # NUL and blank both end the checksum's own number
    with pytest.raises(MalformedImage):
        read(bytes(data))
