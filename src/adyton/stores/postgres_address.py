"""Where a shared database is, and how its server is believed: libpq's own URL, with what is unsafe in it refused.

No password stands in it (process lists, logs and unit files show it): it comes from a file that only the broker's user
reads, from ``~/.pgpass`` or a service file, or the server knows the user otherwise (certificate, peer). Over a network
the server's certificate and name are checked unless the URL names something weaker in words.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from adyton.errors import ConfigError

_SCHEMES = ("postgresql://", "postgres://")
_DEFAULTS = {
    "application_name": "adyton broker",
    "client_encoding": "UTF8",
    "connect_timeout": "3",
    "target_session_attrs": "read-write",
    "keepalives_idle": "2",
    "keepalives_interval": "1",
    "keepalives_count": "2",
    "tcp_user_timeout": "3000",
}
_SILENTLY_WEAK = frozenset({"allow", "prefer"})


@dataclass(frozen=True, slots=True)
class DatabaseAddress:
    """What to connect to. ``where`` is what messages call it; the password is not in it, nor in the ``repr``."""

    where: str
    parameters: dict[str, str] = field(repr=False)

    @classmethod
    def read(cls, url: str, password_file: Path | None = None) -> DatabaseAddress:
        """Read a URL and the password's file; ``ConfigError`` for what cannot or must not be used."""
        if not url.startswith(_SCHEMES):
            raise _wrong("not the address of a database", "postgresql://[USER@]HOST[:PORT]/DATABASE", "")
        try:
            given = _parse(url)
        except ConfigError:
            raise
        except Exception:  # noqa: BLE001 -- whatever it is, its text may quote the password
            raise _wrong("not the address of a database", "postgresql://[USER@]HOST[:PORT]/DATABASE", "") from None
        if given.keys() & {"password", "sslpassword"}:
            raise ConfigError(
                "a password stands in the database's address, where everybody on this machine can read it",
                code="database_password_shown",
                field="database",
                hint="take it out, treat it as known and change it; then --database-password-file FILE (mode 0600), "
                "~/.pgpass or a service file",
            )
        host = given.get("host", "") or given.get("hostaddr", "")
        near = all(is_near(one) for one in host.split(",")) and "service" not in given
        if given.get("sslmode") in _SILENTLY_WEAK:
            raise _wrong("this way of TLS gives way silently", "verify-full, or disable in words", given["sslmode"])
        parameters = {**_DEFAULTS, **given}
        if not near and "service" not in given:
            parameters.setdefault("sslmode", "verify-full")
        if password_file is not None:
            parameters["password"] = _password(password_file)
        name = given.get("dbname") or given.get("service") or "of its user"
        port = f" port {given['port']}" if given.get("port") else ""
        return cls(f"database {name} at {host or given.get('service') or 'the local socket'}{port}", parameters)

    @staticmethod
    def conninfo(parameters: dict[str, str]) -> bytes:
        """``parameters`` as libpq reads them."""
        return " ".join([f"{name}={_quoted(value)}" for name, value in parameters.items() if value]).encode()


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def is_near(host: str) -> bool:
    """A Unix socket, or loopback."""
    return host == "" or host.startswith(("/", "@", "127.")) or host in {"localhost", "::1"}


def _password(path: Path) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            text = file.read(4096)
    except OSError as error:
        raise ConfigError(
            f"the database's password cannot be read: {error.strerror}",
            code="database_password_unreadable",
            field=str(path),
        ) from error
    if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077 or status.st_uid not in {0, os.geteuid()}:
        raise ConfigError(
            "the database's password can be read by others",
            code="database_password_exposed",
            field=str(path),
            expected="a regular file of this user, mode 0600",
            got=f"mode {stat.S_IMODE(status.st_mode):04o}, user {status.st_uid}",
        )
    try:
        return text.decode().rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise ConfigError(
            "the database's password is not text", code="database_password_unreadable", field=str(path)
        ) from error


def _parse(url: str) -> dict[str, str]:
    try:
        from psycopg import pq
    except ImportError as error:
        raise ConfigError(
            "PostgreSQL needs a package that is not installed",
            code="extra_missing",
            field="database",
            expected="adyton[postgres]",
            hint="pip install 'adyton[postgres]'",
        ) from error
    options = pq.Conninfo.parse(url.encode())
    return {option.keyword.decode(): option.val.decode() for option in options if option.val is not None}


def _wrong(what: str, expected: str, got: str) -> ConfigError:
    return ConfigError(what, code="database_address", field="database", expected=expected, got=got[:80] or None)
