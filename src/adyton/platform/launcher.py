"""The first thing that runs in an instance: it makes the instance's world, then becomes the agent.

Plain standard library; this file's bytes are measured as the instance's kernel. It runs as the first process of a new
PID namespace, with the caller's standard streams and descriptor 3, the report channel, on which the service has sent
one frame for it (words separated by NUL, see ``launch``) and one for the agent, which it does not read. When it is done, the process
sees the private root below and nothing else of the host, and there is no way back:

    /guest /store /volumes/<n> /private /proc /sys /dev /run /tmp /etc/{resolv.conf,hosts,ssl/certs/ca-certificates.crt}

What fails is said as a ``Failed`` frame on the channel.
"""
# Every import here delays every start: no pathlib, no typing, no json unless something failed.
# ruff: noqa: PTH101, PTH102, PTH103, PTH106, PTH116, PTH120, PTH123, PTH211, S108

from __future__ import annotations

import ctypes
import errno
import os
import resource
import select
import stat
import struct
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

CHANNEL = 3
MAX_FRAME = 1 << 20
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
MNT_DETACH, SIGKILL = 2, 9
CLONE_NEWNS, CLONE_NEWIPC = 0x20000, 0x8000000
PR_SET_PDEATHSIG, PR_SET_DUMPABLE = 1, 4
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
BEGIN = "from adyton.agent.__main__ import main; main()"  # 4 ms less than -m, which imports runpy
AGENT = ("/guest/bin/python3", "-I", "-S", "-B", "-c", BEGIN)
ENVIRONMENT = {"PATH": "/guest/bin", "HOME": "/private", "LANG": "C.UTF-8"}
ETC = ("resolv.conf", "hosts", "ssl/certs/ca-certificates.crt")
DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
LINKS = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"}

_libc = ctypes.CDLL(None, use_errno=True)


class Failure(Exception):
    """The instance cannot be made: which step, and the kernel's reason."""

    def __init__(self, step: str, error: OSError, hint: str | None = None) -> None:
        super().__init__(step)
        self.step, self.error, self.hint = step, error, hint


def check(step: str, result: int, hint: str | None = None) -> None:
    """Raise ``Failure`` with the thread's errno if a call returned -1."""
    if result == -1:
        raise Failure(step, OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno())), hint)


def mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    """One mount; ``Failure`` names the target."""
    words = [None if word is None else os.fsencode(word) for word in (source, target, kind)]
    data = None if options is None else options.encode()
    check(f"mount {target}", _libc.mount(*words, ctypes.c_ulong(flags), data))


def bind(source: str, target: str, *, read_only: bool = False) -> None:
    """Mount ``source`` with what is mounted below it at ``target``, which is made to fit."""
    try:
        if stat.S_ISDIR(os.stat(source).st_mode):
            os.makedirs(target, exist_ok=True)
        else:
            os.close(os.open(target, os.O_WRONLY | os.O_CREAT, 0o644))
    except OSError as error:
        raise Failure(f"offer {source}", error) from error
    mount(source, target, None, MS_BIND | MS_REC)
    if read_only:
        mount(None, target, None, MS_BIND | MS_REMOUNT | MS_RDONLY)


def receive() -> list[str]:
    """This file's own frame: exactly its bytes, so that the next frame stays for the agent."""

    def exactly(length: int) -> bytes:
        data = b""
        while len(data) < length:
            piece = os.read(CHANNEL, length - len(data))
            if not piece:
                os._exit(125)  # the service is gone
            data += piece
        return data

    (length,) = struct.unpack(">I", exactly(4))
    if length > MAX_FRAME:
        raise Failure("read the launch frame", OSError(errno.EMSGSIZE, "too large"))
    return os.fsdecode(exactly(length)).split("\0")


def confine() -> None:
    """Die with the service; leave no core; get namespaces of our own."""
    _libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    check("tie to the service", _libc.prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0))
    poll = select.poll()
    poll.register(CHANNEL, select.POLLHUP)
    if any(events & select.POLLHUP for _, events in poll.poll(0)):
        os._exit(125)  # it died before it could take us with it
    # One byte rather than none: less than any core, and the one limit that a core piped to a handler heeds (core(5)).
    core = 0 if resource.getrlimit(resource.RLIMIT_CORE)[1] == 0 else 1  # what is 0 already may not be raised
    resource.setrlimit(resource.RLIMIT_CORE, (core, core))
    hint = "needs CAP_SYS_ADMIN: run as root, in a container with --privileged"
    check("new namespaces", _libc.unshare(CLONE_NEWNS | CLONE_NEWIPC), hint)
    mount(None, "/", None, MS_REC | MS_PRIVATE)


def private_root(root: str, size: int) -> None:
    """An empty tmpfs at ``root``, out of swap where the kernel knows how."""
    options = f"mode=0755,size={size}"
    try:
        mount("adyton", root, "tmpfs", MS_NOSUID | MS_NODEV, options + ",noswap")
    except Failure as failure:
        if failure.error.errno != errno.EINVAL:
            raise
        mount("adyton", root, "tmpfs", MS_NOSUID | MS_NODEV, options)
    for name in ("guest", "store", "volumes", "private", "proc", "sys", "dev", "run", "tmp", "etc", "usr", "old"):
        os.mkdir(f"{root}/{name}", 0o700 if name in {"private", "volumes", "old"} else 0o755)
    os.chmod(f"{root}/tmp", 0o1777)  # noqa: S103 -- what a /tmp is
    for name in ("lib", "lib64", "usr/lib", "usr/lib64"):
        os.symlink("/guest/lib", f"{root}/{name}")
    for name in ("bin", "usr/bin"):
        os.symlink("/guest/bin", f"{root}/{name}")


def devices(root: str) -> None:
    """A minimal /dev."""
    mount("adyton-dev", f"{root}/dev", "tmpfs", MS_NOSUID, "mode=0755,size=65536k")
    for name, (major, minor) in DEVICES.items():
        path = f"{root}/dev/{name}"
        try:
            os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(major, minor))
            os.chmod(path, 0o666)  # noqa: S103 -- devices for everybody
        except PermissionError:  # no CAP_MKNOD here: take the host's
            bind(f"/dev/{name}", path)
    for name, target in LINKS.items():
        os.symlink(target, f"{root}/dev/{name}")
    os.mkdir(f"{root}/dev/pts")
    mount("devpts", f"{root}/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620")
    os.symlink("pts/ptmx", f"{root}/dev/ptmx")
    os.mkdir(f"{root}/dev/shm")
    mount("adyton-shm", f"{root}/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=1777,size=65536k")


def copy_etc(root: str) -> None:
    """The few files of the host's /etc that name resolution and TLS need; their content is not trusted."""
    for name in ETC:
        try:
            with open(f"/etc/{name}", "rb") as source:
                content = source.read(4 << 20)
        except OSError:
            continue
        os.makedirs(os.path.dirname(f"{root}/etc/{name}"), exist_ok=True)
        with open(f"{root}/etc/{name}", "wb") as target:
            target.write(content)
    with open(f"{root}/etc/passwd", "w") as target:
        target.write("root:x:0:0:root:/private:/bin/false\n")


def enter(root: str) -> None:
    """Make ``root`` the only root."""
    os.chdir(root)
    check("pivot_root", _libc.syscall(SYS_PIVOT_ROOT[os.uname().machine], b".", b"old"))
    os.chdir("/")
    check("leave the host's root", _libc.umount2(b"/old", MNT_DETACH))
    os.rmdir("/old")


def launch(order: Sequence[str]) -> None:
    """Make the world that ``order`` describes, and become the agent.

    Mount point of the root, its size in bytes, block device of the guest stack, the store; then for each volume
    ``ro`` or ``rw`` and the operator's path.
    """
    root, size, guest, store, *volumes = order
    confine()
    private_root(root, int(size))
    mount(guest, f"{root}/guest", "erofs", MS_RDONLY | MS_NOSUID | MS_NODEV)
    bind(store, f"{root}/store")
    for number, (mode, source) in enumerate(zip(volumes[::2], volumes[1::2], strict=True)):
        bind(source, f"{root}/volumes/{number}", read_only=mode == "ro")
    mount("proc", f"{root}/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    bind("/sys", f"{root}/sys")
    devices(root)
    copy_etc(root)
    enter(root)
    os.set_inheritable(CHANNEL, True)
    os.closerange(CHANNEL + 1, 1 << 16)
    os.execve(AGENT[0], AGENT, ENVIRONMENT)  # noqa: S606 -- no shell is in the guest


def main() -> None:
    """Launch, or say on the channel what failed."""
    os.umask(0o022)
    try:
        launch(receive())
    except Failure as failure:
        refuse(failure.step, failure.error, failure.hint)
    except (OSError, ValueError) as error:
        refuse("set up or start the agent", error, None)


def refuse(step: str, error: Exception, hint: str | None) -> None:
    """End, with a ``Failed`` frame as the last word."""
    import json

    reason = getattr(error, "strerror", None) or repr(error)
    said = {
        "code": "launch_failed",
        "message": f"the instance cannot be made: {step}: {reason}",
        "hint": hint,
        "kind": "PlatformError",
    }
    body = json.dumps({"type": "Failed", "error": said}).encode()
    os.write(CHANNEL, struct.pack(">I", len(body)) + body)
    sys.exit(125)


if __name__ == "__main__":
    main()
