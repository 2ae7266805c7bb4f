"""The unpacker against archives that want out first, then against GNU tar on real trees."""

from __future__ import annotations

import io
import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adyton.errors import MalformedImage
from adyton.image import disk
from adyton.image.limits import DEFAULT, Limits
from adyton.image.tar_stream import TarReader
from adyton.image.unpack import Devices, Unpacked, unpack

UID, GID = os.geteuid(), os.getegid()


def member(name: str, data: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.uid, info.gid = len(data), UID, GID
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def directory(name: str, mode: int = 0o755, **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, b"", type=tarfile.DIRTYPE, mode=mode, **fields)


def symlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=tarfile.SYMTYPE, linkname=target)


def hardlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=tarfile.LNKTYPE, linkname=target)


def archive(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def unpack_into(
    target: Path, data: bytes, limits: Limits = DEFAULT, devices: Devices = Devices.REFUSED, step: int = 1 << 16
) -> Unpacked:
    target.mkdir(exist_ok=True)
    root = disk.open_directory(target)
    try:
        reader = TarReader((data[at : at + step] for at in range(0, len(data), step)), limits)
        return unpack(reader, root, limits=limits, devices=devices)
    finally:
        os.close(root)


def names(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir())


def seen(root: Path) -> dict[str, tuple[object, ...]]:
    """Everything about a tree that an archive can set."""
    found: dict[str, tuple[object, ...]] = {}
    inodes: dict[int, int] = {}
    for path in sorted([root, *root.rglob("*")]):
        at = path.lstat()
        content: object = None
        if stat.S_ISREG(at.st_mode):
            content = path.read_bytes()
        elif stat.S_ISLNK(at.st_mode):
            content = path.readlink()
        xattrs = {
            key: os.getxattr(path, key, follow_symlinks=False) for key in os.listxattr(path, follow_symlinks=False)
        }
        first = inodes.setdefault(at.st_ino, len(inodes))
        found[str(path.relative_to(root))] = (
            *(oct(at.st_mode), at.st_uid, at.st_gid, at.st_mtime_ns, at.st_rdev, first, tuple(sorted(xattrs.items()))),
            content,
        )
    return found


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A place that no archive may touch; checked afterwards."""
    place = tmp_path / "outside"
    place.mkdir()
    (place / "secret").write_text("secret")
    before = seen(place)
    yield place
    assert seen(place) == before
    assert names(tmp_path) == ["outside", "root"]


ESCAPES = {
    "dot dot": [member("../evil", b"x")],
    "dot dot inside": [member("a/../../evil", b"x")],
    "dot dot that stays inside": [member("a/../b", b"x")],
    "dot dot at the end": [directory("a/..")],
    "absolute dot dot": [member("/../evil", b"x")],
    "file below a link": [symlink("out", "OUTSIDE"), member("out/evil", b"x")],
    "file below a relative link": [symlink("out", "../outside"), member("out/evil", b"x")],
    "file below a link to the root": [symlink("out", "/"), member("out/tmp/evil", b"x")],
    "file below a link inside": [directory("a"), symlink("out", "a"), member("out/evil", b"x")],
    "directory below a link": [symlink("out", "OUTSIDE"), directory("out/evil")],
    "link below a link": [symlink("out", "OUTSIDE"), symlink("out/evil", "x")],
    "whiteout below a link": [symlink("out", "OUTSIDE"), member("out/.wh.secret")],
    "opaque through a link": [symlink("out", "OUTSIDE"), member("out/.wh..wh..opq")],
    "fifo below a link": [symlink("out", "OUTSIDE"), member("out/evil", type=tarfile.FIFOTYPE)],
    "link chain": [symlink("a", "b"), symlink("b", "OUTSIDE"), member("a/evil", b"x")],
    "deep link": [directory("d"), symlink("d/out", "../../outside"), member("d/out/evil/more", b"x")],
    "directory swapped for a link": [
        directory("a"),
        member("a/x", b"x"),
        symlink("a", "OUTSIDE"),
        member("a/secret", b"x"),
    ],
    "hard link upwards": [hardlink("evil", "../outside/secret")],
    "hard link absolute": [hardlink("evil", "/etc/passwd")],
    "hard link through a link": [symlink("out", "OUTSIDE"), hardlink("evil", "out/secret")],
    "hard link below a link": [member("f", b"x"), symlink("out", "OUTSIDE"), hardlink("out/evil", "f")],
    "hard link to what is not there": [hardlink("evil", "nothing")],
    "hard link to a directory": [directory("d"), hardlink("evil", "d")],
    "hard link to itself": [member("f", b"x"), hardlink("f", "f")],
    "hard link to itself, spelt otherwise": [member("f", b"x"), hardlink("f", "./f")],
    "hard link to the root": [hardlink("f", "/")],
    "hard link to nothing": [hardlink("f", "")],
    "whiteout of the parent": [directory("d"), member("d/.wh...")],
    "whiteout of the directory": [directory("d"), member("d/.wh..")],
    "whiteout of nothing": [member(".wh.")],
    "below a whiteout": [member(".wh.d/f", b"x")],
    "file below a file": [member("f", b"x"), member("f/evil", b"x")],
    "root as a file": [member(".", b"x")],
    "root as a link": [symlink("/", "OUTSIDE")],
    "root as a hard link": [member("f"), hardlink("./", "f")],
    "component too long": [member("x" * 256, b"x")],
    "path too long": [member("d/" * 3000 + "f", b"x")],
    "too deep": [member("d/" * 300 + "f", b"x")],
    "link target too long": [symlink("l", "x" * 5000)],
    "character device": [member("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3)],
    "block device": [member("disk", type=tarfile.BLKTYPE, devmajor=8, devminor=0)],
    "block device 0/0": [member("disk", type=tarfile.BLKTYPE)],
    "trusted xattr": [member("f", pax_headers={"SCHILY.xattr.trusted.overlay.opaque": "y"})],
    "trusted xattr on a directory": [directory("d", pax_headers={"SCHILY.xattr.trusted.overlay.redirect": "/etc"})],
    "overlay's user xattr": [member("f", pax_headers={"SCHILY.xattr.user.overlay.whiteout": "y"})],
    "trusted xattr on a link": [
        member("l", type=tarfile.SYMTYPE, linkname="t", pax_headers={"SCHILY.xattr.trusted.x": "y"})
    ],
}


@pytest.mark.parametrize("what", ESCAPES)
def test_what_wants_out_is_refused_and_reaches_nothing(what: str, tmp_path: Path, outside: Path) -> None:
    members = ESCAPES[what]
    for info, _ in members:
        info.linkname = info.linkname.replace("OUTSIDE", str(outside))
    with pytest.raises(MalformedImage) as refused:
        unpack_into(tmp_path / "root", archive(*members))
    assert refused.value.message
    disk.remove_tree(tmp_path / "root")
    assert not (tmp_path / "root").exists()
    (tmp_path / "root").mkdir()


def test_absolute_names_stay_inside(tmp_path: Path, outside: Path) -> None:
    unpack_into(tmp_path / "root", archive(member(f"{outside}/secret", b"mine"), member("//double//slash", b"x")))
    assert (tmp_path / "root" / outside.relative_to("/") / "secret").read_bytes() == b"mine"
    assert (tmp_path / "root/double/slash").read_bytes() == b"x"


def test_links_are_content_and_are_replaced_not_followed(tmp_path: Path, outside: Path) -> None:
    unpack_into(
        tmp_path / "root",
        archive(
            symlink("absolute", f"{outside}/secret"),
            symlink("file", f"{outside}/secret"),
            member("file", b"mine"),
            symlink("dir", str(outside)),
            directory("dir"),
            member("dir/secret", b"mine"),
            hardlink("hard to a link", "absolute"),
        ),
    )
    root = tmp_path / "root"
    assert (root / "absolute").readlink() == outside / "secret"
    assert (root / "hard to a link").readlink() == outside / "secret"
    assert (root / "absolute").lstat().st_nlink == 2
    assert not (root / "file").is_symlink()
    assert (root / "dir/secret").read_bytes() == b"mine"


LIMITS = {
    "entries": ([member(f"f{n}") for n in range(20)], Limits(entries=10)),
    "implied directories": ([member("a/b/c/d/e/f/g/h/i/j/k/f")], Limits(entries=10)),
    "bytes": ([member("f", bytes(20_000))], Limits(unpacked_bytes=10_000)),
    "bytes in sum": ([member(f"f{n}", bytes(3_000)) for n in range(8)], Limits(unpacked_bytes=20_000)),
    "depth": ([member("a/b/c/d/f")], Limits(depth=4)),
    "path": ([member("a" * 30 + "/" + "b" * 80)], Limits(path_bytes=100)),
}


@pytest.mark.parametrize("what", LIMITS)
def test_limits(what: str, tmp_path: Path) -> None:
    members, limits = LIMITS[what]
    with pytest.raises(MalformedImage):
        unpack_into(tmp_path / "root", archive(*members), limits)
    unpack_into(tmp_path / "free", archive(*members))


def test_a_file_of_holes_counts_by_its_apparent_size(tmp_path: Path) -> None:
    (tmp_path / "holes").touch()
    os.truncate(tmp_path / "holes", 1 << 40)
    data = subprocess.run(["tar", "-C", tmp_path, "-cSf", "-", "holes"], check=True, capture_output=True).stdout
    assert len(data) < 1 << 20
    with pytest.raises(MalformedImage) as refused:
        unpack_into(tmp_path / "root", data)
    assert refused.value.code == "layer_over_limit"


def endless_entries() -> Iterator[bytes]:
    number = 0
    while True:
        number += 1
        info = tarfile.TarInfo(f"d{number >> 12}/{number}")
        info.uid, info.gid = UID, GID
        yield info.tobuf(tarfile.USTAR_FORMAT)


@pytest.mark.slow
def test_two_million_entries_stop_at_one_million() -> None:
    place = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else Path("/tmp")
    target = place / f"adyton-entries-{os.getpid()}"
    target.mkdir()
    try:
        root = disk.open_directory(target)
        try:
            with pytest.raises(MalformedImage) as refused:
                unpack(TarReader(endless_entries()), root)
        finally:
            os.close(root)
        assert refused.value.field == "entries"
    finally:
        disk.remove_tree(target)
    assert not target.exists()


def test_trees_of_any_depth_and_mode_are_removed(tmp_path: Path) -> None:
    unpack_into(
        tmp_path / "root",
        archive(member("d/" * 250 + "f", b"x"), directory("locked", mode=0), member("locked/f"), symlink("l", "/etc")),
    )
    disk.remove_tree(tmp_path / "root")
    assert names(tmp_path) == []
    disk.remove_tree(tmp_path / "root")


@pytest.mark.parametrize("step", [1 << 16, 1000])
def test_attributes(tmp_path: Path, step: int) -> None:
    data = archive(
        directory("./", mode=0o711, mtime=5),
        directory("d", mode=0o555, mtime=1),
        member("d/f", b"x" * 3000, mode=0o4755, mtime=2),
        member("d/open", mode=0o666, pax_headers={"mtime": "3.000000004", "SCHILY.xattr.user.colour": "blue"}),
        member("pipe", type=tarfile.FIFOTYPE, mode=0o622, mtime=-7),
        directory("sticky", mode=0o3777),
        member("implied/deep/f"),
    )
    done = unpack_into(tmp_path / "root", data, step=step)
    root = tmp_path / "root"
    assert done == Unpacked(entries=9, file_bytes=3000, xattrs_dropped=done.xattrs_dropped)

    def mode(name: str) -> int:
        return stat.S_IMODE((root / name).stat().st_mode)

    assert (mode("."), mode("d"), mode("d/f"), mode("d/open")) == (0o711, 0o555, 0o4755, 0o666)
    assert (mode("pipe"), mode("sticky"), mode("implied")) == (0o622, 0o3777, 0o755)
    assert (root.stat().st_mtime, (root / "d").stat().st_mtime, (root / "d/f").stat().st_mtime) == (5, 1, 2)
    assert (root / "pipe").stat().st_mtime == -7
    assert (root / "d/open").stat().st_mtime_ns == 3_000_000_004
    if not done.xattrs_dropped:
        assert os.getxattr(root / "d/open", "user.colour") == b"blue"


def test_the_mask_of_the_process_does_not_show(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        unpack_into(
            tmp_path / "root", archive(directory("d"), member("d/f", mode=0o644), member("implied/f", mode=0o777))
        )
    finally:
        os.umask(before)
    found = {str(p.relative_to(tmp_path)): oct(stat.S_IMODE(p.stat().st_mode)) for p in (tmp_path / "root").rglob("*")}
    assert found == {"root/d": "0o755", "root/d/f": "0o644", "root/implied": "0o755", "root/implied/f": "0o777"}


def test_a_later_entry_replaces_an_earlier_one(tmp_path: Path) -> None:
    unpack_into(
        tmp_path / "root",
        archive(
            member("f", b"one"),
            hardlink("g", "f"),
            member("f", b"two"),
            directory("d"),
            member("d/deep/f", b"x"),
            member("d", b"file now"),
            member("e", b"x"),
            directory("e", mode=0o700),
            directory("e", mode=0o750),
            member("e/f", b"x"),
            directory("m", mode=0o700),
            member("m/kept", b"x"),
            directory("m", mode=0o711),
            member("./r/../../r".replace("/../..", ""), b"plain"),
        ),
    )
    root = tmp_path / "root"
    assert (root / "f").read_bytes() == b"two"
    assert (root / "g").read_bytes() == b"one"
    assert (root / "d").read_bytes() == b"file now"
    assert (root / "e/f").read_bytes() == b"x"
    assert (root / "m/kept").read_bytes() == b"x"
    assert [stat.S_IMODE((root / name).stat().st_mode) for name in ("e", "m")] == [0o750, 0o711]


def test_names_are_bytes(tmp_path: Path) -> None:
    info = tarfile.TarInfo("n")
    info.uid, info.gid = UID, GID
    block = bytearray(info.tobuf(tarfile.USTAR_FORMAT)[:512])
    block[:5] = b"\xff\xfe\n\x01~"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    unpack_into(tmp_path / "root", bytes(block) + bytes(1024))
    assert [os.fsencode(name) for name in names(tmp_path / "root")] == [b"\xff\xfe\n\x01~"]


def whiteout(path: Path) -> bool:
    at = path.lstat()
    return stat.S_ISCHR(at.st_mode) and at.st_rdev == 0


@pytest.mark.root
def test_whiteouts_take_overlays_form(tmp_path: Path) -> None:
    unpack_into(
        tmp_path / "root",
        archive(
            member(".wh.gone"),
            member("implied/.wh.gone too"),
            directory("d"),
            member("d/.wh..wh..opq"),
            member("d/new", b"x"),
            directory("again"),
            member("again/f", b"x"),
            member(".wh.again"),
            member("file", b"x"),
            member(".wh.file"),
            member(".wh.anew"),
            directory("anew"),
            member(".wh.by its content"),
            member("by its content/f", b"x"),
            member(".wh.refiled"),
            member("refiled", b"x"),
            member(".wh..wh.plnk/1.2", b"x"),
            member(".wh..wh.aufs", b"x"),
            member("char", type=tarfile.CHRTYPE),
        ),
    )
    root = tmp_path / "root"
    assert names(root) == sorted(["gone", "implied", "d", "again", "file", "anew", "refiled", "char", "by its content"])
    assert whiteout(root / "gone")
    assert whiteout(root / "implied/gone too")
    assert whiteout(root / "char")
    assert (root / "file").read_bytes() == (root / "refiled").read_bytes() == (root / "again/f").read_bytes() == b"x"
    for name in ("d", "again", "anew", "by its content"):
        assert os.getxattr(root / name, "trusted.overlay.opaque") == b"y"


@pytest.mark.root
def test_overlay_obeys_what_was_unpacked(tmp_path: Path) -> None:
    lower, upper = tmp_path / "lower", tmp_path / "upper"
    unpack_into(lower, archive(member("a/one"), member("a/two"), member("b/one"), member("c")))
    unpack_into(
        upper, archive(member("a/.wh.one"), directory("b"), member("b/.wh..wh..opq"), member("b/new"), member(".wh.c"))
    )
    merged = tmp_path / "merged"
    merged.mkdir()
    mount = ["mount", "-t", "overlay", "overlay", "-o", f"lowerdir={upper}:{lower}", str(merged)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("overlay cannot be mounted here")
    try:
        assert sorted(str(path.relative_to(merged)) for path in merged.rglob("*")) == ["a", "a/two", "b", "b/new"]
    finally:
        subprocess.run(["umount", merged], check=True)


@pytest.mark.root
def test_devices_only_as_asked_and_owners_and_capabilities(tmp_path: Path) -> None:
    capability = bytes.fromhex("0100000200200000000000000000000000000000")  # cap_net_raw+ep
    ping = member("ping", b"x", mode=0o755, uid=12, gid=34)
    ping[0].pax_headers = {"SCHILY.xattr.security.capability": capability.decode("latin-1")}
    data = archive(
        member("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666),
        ping,
        member("setuid", b"x", mode=0o6755, uid=12, gid=34),
        directory("home", uid=1000, gid=1000, mode=0o2750),
        member("home/link", type=tarfile.SYMTYPE, linkname="x", uid=1000, gid=1000),
    )
    unpack_into(tmp_path / "root", data, devices=Devices.CREATED_AS_ASKED)
    root = tmp_path / "root"
    assert (root / "null").stat().st_rdev == os.makedev(1, 3)
    assert os.getxattr(root / "ping", "security.capability") == capability
    assert [((root / n).lstat().st_uid, (root / n).lstat().st_gid) for n in ("ping", "home", "home/link")] == [
        (12, 34),
        (1000, 1000),
        (1000, 1000),
    ]
    assert stat.S_IMODE((root / "setuid").stat().st_mode) == 0o6755
    assert stat.S_IMODE((root / "home").stat().st_mode) == 0o2750


@pytest.mark.root
def test_a_directory_that_hands_down_its_group_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    os.chown(tmp_path / "root", 0, 77)
    (tmp_path / "root").chmod(0o2755)
    unpack_into(tmp_path / "root", archive(member("f", mode=0o644), directory("d", mode=0o755)))
    for name in ("f", "d"):
        at = (tmp_path / "root" / name).stat()
        assert (at.st_gid, stat.S_IMODE(at.st_mode)) == (0, 0o644 if name == "f" else 0o755)


def make_tree(root: Path) -> None:
    """A tree with something of everything."""
    (root / "usr/lib/deep/er").mkdir(parents=True)
    (root / "usr/lib/deep/er" / ("n" * 200)).write_bytes(b"long name")
    (root / "usr/bin").mkdir()
    (root / "usr/bin/tool").write_bytes(os.urandom(300_000))
    (root / "usr/bin/tool").chmod(0o4711)
    (root / "bin").symlink_to("usr/bin")
    (root / "absolute").symlink_to("/etc/hostname")
    os.link(root / "usr/bin/tool", root / "usr/bin/same tool")
    os.mkfifo(root / "pipe", 0o640)
    (root / "empty").mkdir(mode=0o700)
    (root / "ünïcode").write_text("x")
    with (root / "sparse").open("wb") as file:
        for at in range(8):
            file.seek(at << 20)
            file.write(os.urandom(5000))
        file.truncate(9 << 20)
    for number in range(200):
        (root / f"usr/lib/{number}").write_bytes(b"%d" % number * number)
    try:
        os.setxattr(root / "usr/lib/7", "user.mime", b"text\0plain")
        os.setxattr(root / "usr/lib", "user.dir", b"yes")
    except OSError:
        pass
    for path in root.rglob("*"):
        os.utime(path, ns=(10**18, 1_600_000_000_123_456_789), follow_symlinks=False)
    os.utime(root, ns=(10**18, 1_500_000_000_000_000_001))


@pytest.mark.parametrize(
    "options",
    [["--format=pax", "--xattrs", "--xattrs-include=*", "--sparse"], ["--format=gnu", "--sparse"], ["--format=pax"]],
)
def test_a_real_tree_comes_out_as_gnu_tar_has_it(tmp_path: Path, options: list[str]) -> None:
    (tmp_path / "in").mkdir()
    make_tree(tmp_path / "in")
    data = subprocess.run(["tar", "-C", tmp_path / "in", "-c", *options, "."], check=True, capture_output=True).stdout
    (tmp_path / "gnu").mkdir()
    subprocess.run(["tar", "-C", tmp_path / "gnu", "-xp", "--xattrs", "--xattrs-include=*"], input=data, check=True)
    unpack_into(tmp_path / "ours", data)
    assert seen(tmp_path / "ours") == seen(tmp_path / "gnu")
    if "--sparse" in options:
        assert (tmp_path / "ours/sparse").stat().st_blocks * 512 < 1 << 20


NAMES = st.sampled_from(["a", "b", "c", "d.txt", "é", "x" * 120])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
ENTRIES = st.one_of(
    st.tuples(st.just("file"), PATHS, st.binary(max_size=1500), st.sampled_from([0o644, 0o4755, 0o600, 0o777])),
    st.tuples(st.just("dir"), PATHS, st.just(b""), st.sampled_from([0o755, 0o700, 0o1777])),
    st.tuples(st.just("link"), PATHS, st.sampled_from([b"/etc/passwd", b"../..", b"a"]), st.just(0o777)),
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(entries=st.lists(ENTRIES, max_size=12), step=st.integers(200, 5000))
def test_any_tree_survives_the_round_trip(
    tmp_path: Path, entries: list[tuple[str, str, bytes, int]], step: int
) -> None:
    """A tree on disk, archived by Python's tarfile, unpacked by us, is the same tree."""
    source, target = tmp_path / "source", tmp_path / "target"
    for place in (source, target):
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
    for kind, name, data, mode in entries:
        path = source / name
        try:
            if any((source / parent).is_symlink() for parent in Path(name).parents):
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            if kind == "file":
                path.write_bytes(data) if not path.is_symlink() else None
            elif kind == "dir":
                path.mkdir()
            else:
                path.symlink_to(os.fsdecode(data))
            path.chmod(mode) if kind != "link" and not path.is_symlink() else None
        except OSError:  # names that contradict each other
            continue
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.add(source, arcname=".")
    unpack_into(target, buffer.getvalue(), step=step)
    # tarfile writes times as floats: compare without the last digits
    rounded = [
        {name: (*fields[:3], round(float(str(fields[3])) / 1e6), *fields[4:]) for name, fields in seen(place).items()}
        for place in (source, target)
    ]
    assert rounded[0] == rounded[1]
