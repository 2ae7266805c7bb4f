"""The brokers that this user has found to be what they should be: a small file, one broker a line, as ssh keeps hosts.

Whoever can write the file decides whom secrets are sent to. So it is read only as a regular file of this user (or root)
that nobody else may write, in such a directory, and never through a symbolic link.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from adyton.errors import ConfigError, ReleaseRefused
from adyton.wire import strict_json

NAME = "known-brokers"
MAX_SIZE = 4 * 1024 * 1024
_MAX_LINE = 64 * 1024


class Known(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One broker; ``pin`` names its TLS key. Times are RFC 3339.

    ``attested``: it proved the rest, and that the key is its own; ``pin``: its owner said the pin. ``workload`` is the
    init data's field in hex, ``tcb`` what can be compared of it.
    """

    url: str
    pin: str
    by: Literal["attested", "pin"]
    first_seen: str
    seen: str
    tee: str = ""
    measurement: str = ""
    workload: str = ""
    root: str = ""
    log: str = ""
    tcb: dict[str, int] = {}


_DECODER = msgspec.json.Decoder(Known)


def origin(url: str) -> str:
    """How a broker is called in the file: scheme, host and port, in lower case; every tenant's base is the same broker."""
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def read(path: Path) -> dict[str, Known]:
    """The brokers by origin; none where there is no file. ``ConfigError`` ``known_brokers_exposed``, ``…_malformed``."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise _exposed(path, f"{error.strerror}") from error
    with os.fdopen(descriptor, "rb") as file:
        _check(path, os.fstat(descriptor), stat.S_ISREG)
        _check(path.parent, path.parent.stat(), stat.S_ISDIR)
        content = file.read(MAX_SIZE + 1)
    found: dict[str, Known] = {}
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            strict_json.parse(line, max_size=_MAX_LINE)
            one = _DECODER.decode(line)
            if one.url in found or one.url != origin(one.url) or len(content) > MAX_SIZE:
                raise ValueError("twice, or not an origin")
        except (*strict_json.UNREADABLE, ValueError) as error:
            raise ConfigError(
                "the file of known brokers cannot be read",
                code="known_brokers_malformed",
                field=f"{path}: line {number}",
                hint="remove the line, and attest that broker anew",
            ) from error
        found[one.url] = one
    return found


def change(path: Path, how: Callable[[dict[str, Known]], None]) -> None:
    """Read, change and write it whole, alone; durable on return."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _alone(path):
            known = read(path)
            how(known)
            _write(path, known)
    except OSError as error:
        raise ConfigError(
            f"the file of known brokers cannot be written: {error.strerror}",
            code="known_brokers_unwritable",
            field=str(path),
        ) from error


def compare(known: Known, now: Known) -> None:
    """``ReleaseRefused`` with everything that differs: ``broker_identity_changed``, or ``broker_pin_changed`` alone."""
    reasons = [
        f"{name}: known {getattr(known, name) or 'none'}, now {getattr(now, name) or 'none'}"
        for name in ("tee", "measurement", "workload", "root", "log")
        if known.by == "attested" and getattr(known, name) != getattr(now, name)
    ]
    reasons += [
        f"tcb: known {name} of {least}, now {now.tcb.get(name, 'none')}"
        for name, least in known.tcb.items()
        if known.by == "attested" and now.tcb.get(name, -1) < least
    ]
    code = "broker_identity_changed" if reasons else "broker_pin_changed"
    if known.pin != now.pin:
        reasons.append(f"pin: known {known.pin}, now {now.pin or 'none'}")
    if reasons:
        raise ReleaseRefused(
            f"{known.url} is not the broker that it was on {known.first_seen[:10]}",
            code=code,
            reasons=tuple(reasons),
            hint="if its owner says that this is right: the same command again with --replace",
        )


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    lock = os.open(path.with_name(f".{path.name}.lock"), flags, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _write(path: Path, known: dict[str, Known]) -> None:
    content = b"".join(msgspec.json.encode(known[url]) + b"\n" for url in sorted(known))
    part = path.with_name(f".{path.name}.{os.getpid()}")
    with suppress(FileNotFoundError):
        part.unlink()
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        part.replace(path)
    finally:
        with suppress(FileNotFoundError):
            part.unlink()


def _check(path: Path, status: os.stat_result, kind: Callable[[int], bool]) -> None:
    if not kind(status.st_mode) or status.st_mode & 0o022 or status.st_uid not in {0, os.geteuid()}:
        raise _exposed(path, f"mode {stat.S_IMODE(status.st_mode):04o}, user {status.st_uid}")


def _exposed(path: Path, got: str) -> ConfigError:
    return ConfigError(
        "others could write whom you send secrets to",
        code="known_brokers_exposed",
        field=str(path),
        expected="a regular file, not a symbolic link, of this user; neither it nor its directory writable by others",
        got=got,
        hint="look at what is in it, chmod go-w it, or remove it and attest your brokers anew",
    )
