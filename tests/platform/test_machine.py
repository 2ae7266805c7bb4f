"""Sealed memory stays as it is; block devices over it are read-only and go away by themselves."""

from __future__ import annotations

import errno
import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from tests.platform.services import backing_of
from tests.waiting import until

from adyton.errors import PlatformError
from adyton.platform import guest
from adyton.platform.machine import LoopDevice, Nursery, seal


def sealed(content: bytes) -> int:
    memory = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(memory, content)
    seal(memory)
    return memory


def test_sealed_memory_cannot_be_written_grown_or_shrunk() -> None:
    memory = sealed(b"measured" * 1024)
    for change in (
        lambda: os.pwrite(memory, b"x", 0),
        lambda: os.ftruncate(memory, 0),
        lambda: os.ftruncate(memory, 1 << 20),
        lambda: os.write(os.open(f"/proc/self/fd/{memory}", os.O_RDWR), b"x"),
        lambda: mmap.mmap(memory, 8192, prot=mmap.PROT_READ | mmap.PROT_WRITE),
        lambda: os.posix_fallocate(memory, 0, 1 << 20),
    ):
        with pytest.raises(OSError) as caught:
            change()
        assert caught.value.errno in {errno.EPERM, errno.EACCES}
    assert os.pread(memory, 8, 0) == b"measured"
    os.close(memory)


def test_memory_that_cannot_be_sealed_is_refused() -> None:
    memory = os.memfd_create("test")  # sealing not allowed
    with pytest.raises(PlatformError) as caught:
        seal(memory)
    assert caught.value.code == "memfd_seal_refused"
    os.close(memory)


@pytest.mark.root
def test_a_loop_device_is_read_only_and_ends_with_its_last_user() -> None:
    memory = sealed(b"B" * (64 << 10))
    device = LoopDevice(memory)
    os.close(memory)
    with device.path.open("rb") as file:
        assert file.read(16) == b"B" * 16
    with pytest.raises(OSError) as caught, device.path.open("r+b", buffering=0) as file:
        file.write(b"x")
    assert caught.value.errno in {errno.EPERM, errno.EROFS, errno.EACCES}
    backing = backing_of(device.path.name)
    assert backing is not None
    device.close()
    until(lambda: backing_of(device.path.name) != backing)


@pytest.mark.root
def test_a_loop_device_of_a_killed_process_ends(tmp_path: Path) -> None:
    program = """
import os, time
from adyton.platform.machine import LoopDevice, seal
memory = os.memfd_create("killed", os.MFD_ALLOW_SEALING)
os.write(memory, bytes(65536))
seal(memory)
print(LoopDevice(memory).path.name, flush=True)
time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert process.stdout is not None
    name = process.stdout.readline().decode().strip()
    backing = backing_of(name)
    assert backing is not None
    process.kill()
    process.wait()
    process.stdout.close()
    until(lambda: backing_of(name) != backing)


def test_without_loop_devices_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def refuse(path: object, *arguments: int, **others: int) -> int:
        if path == "/dev/loop-control":
            raise FileNotFoundError(errno.ENOENT, "No such file or directory")
        return real(path, *arguments, **others)  # type: ignore[arg-type]

    memory = sealed(bytes(4096))
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(PlatformError) as caught:
        LoopDevice(memory)
    monkeypatch.undo()
    os.close(memory)
    assert caught.value.code == "loop_missing"
    assert "modprobe loop" in str(caught.value.hint)


def test_who_is_not_root_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(PlatformError) as caught:
        guest.LoadedGuest.load(tmp_path / "any")
    assert caught.value.code == "root_required"
    assert "sudo" in str(caught.value.hint)


def _inheritable(descriptor: int) -> bool:
    try:
        return os.get_inheritable(descriptor)
    except OSError:
        return False  # the directory's own


@pytest.mark.root
def test_a_nursery_starts_the_first_process_of_a_namespace_and_stays_outside_itself() -> None:
    program = b"""
import os
left = sorted(int(name) for name in os.listdir("/proc/self/fd"))
os.write(3, repr([os.getpid(), os.getsid(0), dict(os.environ), [n for n in left if os.path.exists(f"/proc/self/fd/{n}")]]).encode())
"""
    own = Path("/proc/self/ns/pid_for_children").readlink()
    inherited = {int(path.name) for path in Path("/proc/self/fd").iterdir() if _inheritable(int(path.name))}
    nursery = Nursery(program)
    ours, theirs = socket.socketpair()
    null = os.open(os.devnull, os.O_RDWR)
    started = nursery.start((null, null, null), theirs.fileno())
    theirs.close()
    said = eval(ours.recv(65536))
    assert os.waitpid(started, 0) == (started, 0)
    assert said[0] == 1
    assert said[2] in ({}, {"LC_CTYPE": "C.UTF-8"})  # Python's own coercion of the locale
    assert set(said[3]) - {0, 1, 2, 3, 4} <= inherited  # of this test's own; the launcher closes what is above 3
    assert Path("/proc/self/ns/pid_for_children").readlink() == own
    ours.close()
    os.close(null)


@pytest.mark.root
@pytest.mark.parametrize("missing", ["erofs", "overlay"])
def test_a_kernel_that_lacks_a_file_system_is_named(tmp_path: Path, missing: str) -> None:
    known = tmp_path / "filesystems"
    known.write_text("".join(f"nodev\t{name}\n" for name in ("tmpfs", "erofs", "overlay") if name != missing))
    with pytest.raises(PlatformError) as caught:
        guest.check_machine(known)
    assert (caught.value.code, caught.value.field) == ("filesystem_missing", missing)
    assert f"modprobe {missing}" in str(caught.value.hint)


@pytest.mark.root
def test_an_instance_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    program = """
import os, socket, time
from adyton.platform.guest import launcher_bytes
from adyton.platform.machine import Nursery
ours, theirs = socket.socketpair()
null = os.open(os.devnull, os.O_RDWR)
print(Nursery(launcher_bytes()).start((null, null, null), theirs.fileno()), flush=True)
theirs.close()
time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    assert Path(f"/proc/{child}").exists()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    until(lambda: not Path(f"/proc/{child}").exists())  # it waited for its order: the channel's end tells it


@pytest.mark.root
@pytest.mark.parametrize(
    "order",
    [
        b"",
        b"\0\0\0\0",
        struct.pack(">I", 1 << 30),
        struct.pack(">I", 3) + b"a\0b",
        struct.pack(">I", 7) + b"/\0x\0a\0b",
    ],
)
def test_a_launcher_without_a_proper_order_makes_nothing(order: bytes) -> None:
    nursery = Nursery(guest.launcher_bytes())
    ours, theirs = socket.socketpair()
    null = os.open(os.devnull, os.O_RDWR)
    child = nursery.start((null, null, null), theirs.fileno())
    theirs.close()
    ours.sendall(order)
    ours.shutdown(socket.SHUT_WR)
    said = b"".join(iter(lambda: ours.recv(65536), b""))
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) in {1, 125}
    assert not said or b"launch_failed" in said
    assert " - tmpfs adyton " not in Path("/proc/self/mountinfo").read_text()
    ours.close()
    os.close(null)
