"""The guest stack as the service holds it: copied once into sealed memory, measured there, offered as a block device.

What is measured is what every instance mounts: the file on disk may change or vanish afterwards. The launcher, kept in
sealed memory likewise, is the other half of the measurement.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from adyton.devtee.firmware import measurement
from adyton.errors import ConfigError, PlatformError
from adyton.platform import launcher
from adyton.platform.machine import LoopDevice, Nursery, seal

_EROFS_MAGIC = 0xE0F5E1E2
_MAGIC_AT = 1024


@dataclass(frozen=True, slots=True)
class LoadedGuest:
    """Ready to start instances from. ``measurement``: MEASUREMENT of each of them, 48 bytes."""

    path: Path
    measurement: bytes
    device: LoopDevice
    nursery: Nursery

    @classmethod
    def load(cls, path: Path) -> LoadedGuest:
        """Copy, seal, measure and attach ``path``. ``ConfigError`` or ``PlatformError`` says what is in the way."""
        check_machine()
        memory = os.memfd_create("adyton-guest", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            _copy(path, memory)
            seal(memory)  # before it is measured: nothing can come between
            os.lseek(memory, 0, os.SEEK_SET)
            with os.fdopen(os.dup(memory), "rb") as sealed:
                digest = hashlib.file_digest(sealed, "sha256").digest()
            device = LoopDevice(memory)
        finally:
            os.close(memory)
        device.keep_mounted("erofs")
        kernel = launcher_bytes()
        return cls(path, measurement(kernel, digest), device, Nursery(kernel))


def launcher_bytes() -> bytes:
    """The launcher as it is installed here."""
    return Path(launcher.__file__).read_bytes()


def measure(path: Path) -> bytes:
    """MEASUREMENT, 48 bytes, of instances that a service with this launcher starts from ``path``."""
    try:
        with path.open("rb") as file:
            _check_magic(os.pread(file.fileno(), 4, _MAGIC_AT), path)
            return measurement(launcher_bytes(), hashlib.file_digest(file, "sha256").digest())
    except OSError as error:
        raise _unreadable(path, error) from error


def _copy(path: Path, memory: int) -> None:
    try:
        with path.open("rb") as file:
            _check_magic(os.pread(file.fileno(), 4, _MAGIC_AT), path)
            size, done = os.fstat(file.fileno()).st_size, 0
            while done < size and (sent := os.sendfile(memory, file.fileno(), done, size - done)):
                done += sent
    except OSError as error:
        raise _unreadable(path, error) from error


def _check_magic(found: bytes, path: Path) -> None:
    if int.from_bytes(found, "little") != _EROFS_MAGIC:
        raise ConfigError(
            "this is not a guest stack", code="guest_invalid", field=str(path), expected="an erofs file", hint=_BUILD
        )


_BUILD = "build one: adyton devtee build-guest"


def _unreadable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"the guest stack cannot be read: {error.strerror}", code="guest_unreadable", field=str(path), hint=_BUILD
    )


def check_machine(file_systems: Path = Path("/proc/filesystems")) -> None:
    """``PlatformError`` unless instances can be started here at all."""
    if os.geteuid() != 0:
        raise PlatformError(
            "the development TEE starts its instances with mounts and namespaces, which only root may make here",
            code="root_required",
            got=f"user id {os.geteuid()}",
            hint="run it as root: sudo adyton …",
        )
    known = file_systems.read_text()
    modprobe = shutil.which("modprobe", path="/usr/sbin:/sbin:/usr/bin:/bin")
    for name, option in (("erofs", "CONFIG_EROFS_FS"), ("overlay", "CONFIG_OVERLAY_FS")):
        if f"\t{name}\n" in known:
            continue
        if modprobe is not None:
            subprocess.run([modprobe, "-q", name], check=False, capture_output=True)
        if f"\t{name}\n" not in file_systems.read_text():
            raise PlatformError(
                f"the kernel does not know the file system {name}, which instances need",
                code="filesystem_missing",
                field=name,
                hint=f"modprobe {name}, or a kernel with {option}",
            )
