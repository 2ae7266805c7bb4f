"""What an instance sees: its own root, processes and one channel; nothing of the host that it was not offered."""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

import pytest
from tests.platform.conftest import serving
from tests.platform.services import Running, make_document

from adyton.protocol import devtee, workload

pytestmark = pytest.mark.root


def test_nothing_of_the_host_is_in_reach(shared: Running, tmp_path: Path) -> None:
    marker = tmp_path / "host-marker"
    marker.write_text("of the host")
    seen, roots, top = shared.probe(
        f"""
seen = [os.path.exists({str(marker)!r}), os.path.exists("/old"), os.path.exists("/root"), os.path.exists("/work")]
host.say(seen)
host.say([line.split()[4] for line in open("/proc/self/mountinfo")])
host.say(sorted(os.listdir("/")))
"""
    )
    assert seen == [False] * 4
    mounts = cast("list[str]", roots)
    assert {"/", "/guest", "/store", "/proc", "/sys", "/dev", "/dev/pts", "/dev/shm"} <= set(mounts)
    assert all(mount == "/" or mount.split("/")[1] in {"guest", "store", "proc", "sys", "dev"} for mount in mounts)
    assert top == sorted(
        [
            "bin",
            "dev",
            "etc",
            "guest",
            "lib",
            "lib64",
            "private",
            "proc",
            "run",
            "store",
            "sys",
            "tmp",
            "usr",
            "volumes",
        ]
    )


def test_one_channel_and_three_streams_are_inherited(shared: Running) -> None:
    (said,) = shared.probe(
        """
links = {}
for name in os.listdir("/proc/self/fd"):
    try: links[name] = os.readlink("/proc/self/fd/" + name)
    except OSError: pass  # the directory's own
host.say(links)
"""
    )
    links = cast("dict[str, str]", said)
    assert set(links) == {"0", "1", "2", "3"}
    assert links["3"].startswith("socket:")


def test_it_is_alone_with_its_environment(shared: Running) -> None:
    pid, processes, environment, arguments, core = shared.probe(
        """
import resource
host.say(os.getpid())
host.say([name for name in os.listdir("/proc") if name.isdigit()])
host.say(dict(os.environ))
host.say(sys.orig_argv)
host.say(resource.getrlimit(resource.RLIMIT_CORE))
"""
    )
    assert pid == 1
    assert processes == ["1"]
    assert environment == {"PATH": "/guest/bin", "HOME": "/private", "LANG": "C.UTF-8"}
    assert cast("list[str]", arguments)[:5] == ["/guest/bin/python3", "-I", "-S", "-B", "-c"]
    assert core == [1, 1]  # less than any core, and heeded even by a core that is piped


def test_namespaces_are_its_own_except_the_network(shared: Running) -> None:
    (said,) = shared.probe(
        'host.say({name: os.readlink("/proc/self/ns/" + name) for name in ("mnt", "pid", "ipc", "net", "user")})'
    )
    theirs = cast("dict[str, str]", said)
    ours = {name: str(Path(f"/proc/self/ns/{name}").readlink()) for name in theirs}
    assert {name for name in ours if ours[name] != theirs[name]} == {"mnt", "pid", "ipc"}


def test_guest_stack_is_read_only_and_root_is_private_memory(shared: Running) -> None:
    refused, kind, size, leaves = shared.probe(
        """
try: open("/guest/bin/python3", "r+b"); host.say("written")
except OSError as error: host.say(error.strerror)
line = next(line for line in open("/proc/self/mountinfo") if line.split()[4] == "/")
host.say(line.split(" - ")[1].split()[0])
status = os.statvfs("/")
host.say(status.f_blocks * status.f_frsize)
open("/private/plaintext", "w").write("of the instance")
host.say(os.listdir("/private"))
"""
    )
    assert refused == "Read-only file system"
    assert (kind, size) == ("tmpfs", 64 << 20)
    assert leaves == ["plaintext"]
    assert not list((shared.home / "run" / "instance").iterdir())


def test_private_root_is_kept_out_of_swap_where_the_kernel_can(shared: Running) -> None:
    (said,) = shared.probe("host.say(next(line for line in open('/proc/self/mountinfo') if line.split()[4] == '/'))")
    major, minor = (int(part) for part in os.uname().release.split(".")[:2])
    if (major, minor) >= (6, 4):  # tmpfs learned it there
        assert "noswap" in cast("str", said).split(" - ")[1]


def test_where_no_limit_may_be_raised_instances_start_all_the_same(root_directory: Path, probe_guest: Path) -> None:
    program = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
    with serving(root_directory, probe_guest, "-c", program) as start:
        (core,) = start().probe("import resource; host.say(resource.getrlimit(resource.RLIMIT_CORE))")
    assert core == [0, 0]


def test_private_root_has_a_limit(shared: Running) -> None:
    (said,) = shared.probe(
        """
try:
    with open("/private/big", "wb") as file:
        for _ in range(80): file.write(bytes(1 << 20))
    host.say("no limit")
except OSError as error: host.say(error.strerror)
"""
    )
    assert said == "No space left on device"


def test_devices_are_few_and_work(shared: Running) -> None:
    names, works = shared.probe(
        """
host.say(sorted(os.listdir("/dev")))
open("/dev/null", "w").write("x")
import pty
master, slave = os.openpty()
host.say([len(open("/dev/urandom", "rb").read(8)), open("/dev/zero", "rb").read(2) == bytes(2), os.ttyname(slave)])
"""
    )
    assert names == sorted(
        [*("fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty", "urandom", "zero")]
    )
    assert works == [8, True, "/dev/pts/0"]


def test_store_and_volumes_are_where_the_start_frame_says(shared: Running, tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "in").write_text("from the host")
    (tmp_path / "file").write_text("one file")
    (shared.home / "store" / "blob").write_text("cipher")
    mounts = [
        workload.Mount("/a", "host"),
        workload.Mount("/b", "host", "ro"),
        workload.Mount("/c", "volume"),
        workload.Mount("/d", "host", "ro"),
    ]
    volumes = {"/a": str(tmp_path / "dir"), "/b": str(tmp_path / "dir"), "/c": "named", "/d": str(tmp_path / "file")}
    said = shared.probe(
        """
host.say(start.volumes)
host.say([open("/store/blob").read(), open(start.volumes["/a"] + "/in").read(), open(start.volumes["/d"]).read()])
open(start.volumes["/a"] + "/out", "w").write("from inside")
open(start.volumes["/c"] + "/kept", "w").write("lasts")
open("/store/new", "w").write("new")
refused = []
for place in (start.volumes["/b"] + "/out", start.volumes["/d"]):
    try: open(place, "w")
    except OSError as error: refused.append(error.strerror)
host.say(refused)
""",
        document=make_document(mounts=mounts),
        volumes=volumes,
    )
    assert said[0] == {"/a": "/volumes/0", "/b": "/volumes/1", "/c": "/volumes/2", "/d": "/volumes/3"}
    assert said[1] == ["cipher", "from the host", "one file"]
    assert said[2] == ["Read-only file system"] * 2
    assert (tmp_path / "dir" / "out").read_text() == "from inside"
    assert (shared.home / "volumes" / "named" / "kept").read_text() == "lasts"
    assert (shared.home / "store" / "new").read_text() == "new"


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("/nowhere/at/all", "volume_missing"),
        ("../escape", "volume_invalid"),
        ("", "volume_invalid"),
        (".hidden", "volume_invalid"),
        ("a/b", "volume_invalid"),
        ("/etc\0/x", "volume_invalid"),
    ],
)
def test_a_volume_that_cannot_be_starts_nothing(shared: Running, source: str, code: str) -> None:
    document = make_document(mounts=[workload.Mount("/a", "host")])
    before = len(shared.instances())
    reply = shared.start("", document=document, volumes={"/a": source}).receive()
    assert isinstance(reply, devtee.Failed)
    assert reply.error["code"] == code
    assert len(shared.instances()) == before
    assert not (shared.home / "escape").exists()


def test_a_launch_that_fails_says_at_which_step(service: Running) -> None:
    (service.home / "store").rmdir()
    reply = service.start("host.say(1)").everything()[-1]
    assert isinstance(reply, devtee.Failed)
    assert reply.error["code"] == "launch_failed"
    assert "store" in str(reply.error["message"])
    assert [row.state for row in service.instances()] == ["failed"]
