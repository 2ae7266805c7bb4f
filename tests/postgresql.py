"""A PostgreSQL server for tests: its own files, its own user, a Unix socket and a loopback port, durable as in earnest."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests import ports
from tests.waiting import LONG, until

if TYPE_CHECKING:
    import psycopg

    from adyton.stores.postgres import PostgresDatabase

BIN = Path("/usr/lib/postgresql/15/bin")
USER = "postgres"
PREFIX = "adyton-pg-"
OWNER = "owner"


def as_user(command: list[str]) -> list[str]:
    """PostgreSQL does not run as root: another user does it then."""
    if os.geteuid() != 0:
        return command
    return ["setpriv", "--reuid", USER, "--regid", USER, "--clear-groups", "--inh-caps=-all", *command]


@dataclass
class Server:
    """``start`` and ``kill`` may be called as often as wanted; ``close`` removes everything."""

    directory: Path
    settings: dict[str, str] = field(default_factory=dict)
    address: str = "127.0.0.1"
    process: subprocess.Popen[bytes] | None = None
    port: int = 0
    made: int = 0
    inside: tuple[str, ...] = ()
    _session: psycopg.Connection | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def make(cls, directory: Path | None = None, *, address: str = "127.0.0.1", **settings: str) -> Server:
        """``initdb`` in a new directory (short: a socket's path has at most 107 bytes)."""
        if directory is None:
            _remove_orphans()
        place = directory or Path(tempfile.mkdtemp(prefix=PREFIX, dir="/tmp"))
        (place / OWNER).write_text(f"{os.getpid()} {_began(os.getpid())}")
        (place / "data").mkdir(mode=0o700)
        place.chmod(0o755)
        if os.geteuid() == 0:
            shutil.chown(place, USER, USER)
            shutil.chown(place / "data", USER, USER)
        subprocess.run(
            as_user([str(BIN / "initdb"), "-D", str(place / "data"), "-U", "adyton", "-A", "trust", "-E", "UTF8",
                     "--locale=C.UTF-8", "--data-checksums", "--wal-segsize=1", "--no-instructions"]),
            check=True, capture_output=True, cwd="/",
        )  # fmt: skip
        return cls(place, settings, address, port=ports.reserve())

    @property
    def data(self) -> Path:
        return self.directory / "data"

    def start(self) -> None:
        """Start and wait until it answers."""
        options = {
            "listen_addresses": self.address, "port": str(self.port), "unix_socket_directories": str(self.directory),
            "fsync": "on", "shared_buffers": "16MB", "max_connections": "60", "min_wal_size": "4MB", "max_wal_size": "32MB",
            "autovacuum_naptime": "5s", "log_min_messages": "warning", **self.settings,
        }  # fmt: skip
        command = [str(BIN / "postgres"), "-D", str(self.data)]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        log = (self.directory / "log").open("ab")
        with log:
            self.process = subprocess.Popen(
                [*self.inside, *as_user(command)], stdout=log, stderr=log, cwd="/", start_new_session=True
            )
        until(lambda: self._ended() or self.ready(), what=lambda: f"PostgreSQL does not start: {self._said()}")
        if self._ended():
            raise RuntimeError(f"PostgreSQL ended: {self._said()}")

    def _ended(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def _said(self) -> str:
        return (self.directory / "log").read_text()[-2000:]

    def ready(self) -> bool:
        """Whether it answers on its socket."""
        asked = subprocess.run(
            [str(BIN / "pg_isready"), "-q", "-h", str(self.directory), "-p", str(self.port), "-d", "postgres"],
            cwd="/", check=False,
        )  # fmt: skip
        return asked.returncode == 0

    def database(self, name: str = "") -> str:
        """Make an empty database; its name."""
        self.made += 1
        name = name or f"adyton_{self.made}"
        self.sql(f'CREATE DATABASE "{name}"', "postgres")
        return name

    def url(self, name: str, *, tcp: bool = False) -> str:
        """How to reach it: by the socket, or by loopback."""
        if tcp:
            return f"postgresql://adyton@127.0.0.1:{self.port}/{name}"
        return f"postgresql://adyton@/{name}?host={self.directory}&port={self.port}"

    def schema(self) -> str:
        """How to reach an empty schema of its own, quicker to have than a database."""
        import psycopg

        with self._lock:
            if self._session is None:
                self.database("tests")
                self._session = psycopg.connect(self.url("tests"), autocommit=True)
            self.made += 1
            name = f"s{self.made}"
            self._session.execute(f"CREATE SCHEMA {name}")
        return self.url("tests") + f"&options=-csearch_path%3D{name}"

    def opener(self) -> Callable[[], PostgresDatabase]:
        """What opens such a schema, each time the same."""
        from adyton.stores.postgres import PostgresDatabase
        from adyton.stores.postgres_address import DatabaseAddress

        address = DatabaseAddress.read(self.schema())
        return lambda: PostgresDatabase(address)

    def sql(self, statement: str, database: str, *, check: bool = True) -> str:
        """What ``psql`` prints."""
        ran = subprocess.run(
            ["psql", "-X", "-A", "-t", "-q", "-h", str(self.directory), "-p", str(self.port), "-U", "adyton",
             "-v", "ON_ERROR_STOP=1", "-d", database, "-c", statement],
            capture_output=True, text=True, cwd="/", check=False,
        )  # fmt: skip
        if check and ran.returncode:
            raise RuntimeError(ran.stderr)
        return (ran.stdout + ran.stderr).strip()

    def kill(self) -> None:
        """As a power cut would: the whole server at once."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(int((self.data / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
        self.process.wait(LONG)
        until(self._childless, what="a child of the killed PostgreSQL goes on")

    def _childless(self) -> bool:
        """Children see that it is gone, and go."""
        found = subprocess.run(["pgrep", "-f", "^postgres: .*"], capture_output=True, text=True, check=False)
        return not any(_works_in(int(one), self.data) for one in found.stdout.split())

    def stop(self, how: str = "fast") -> None:
        """``fast`` ends sessions and writes everything; ``immediate`` does not."""
        if self.process is not None and self.process.poll() is None:
            number = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}[how]
            with contextlib.suppress(ProcessLookupError, FileNotFoundError, IndexError):
                os.kill(int((self.data / "postmaster.pid").read_text().split()[0]), number)
            self.process.wait(LONG)

    def close(self) -> None:
        """Stop and remove."""
        if self._session is not None:
            self._session.close()
        self.stop("immediate")
        shutil.rmtree(self.directory, ignore_errors=True)


def _remove_orphans() -> None:
    """What earlier runs left that were killed: their servers, and their files."""
    for place in Path("/tmp").glob(f"{PREFIX}*"):
        try:
            number, _, began = (place / OWNER).read_text().partition(" ")
            if _began(int(number)) == began:
                continue
            with contextlib.suppress(OSError, ValueError, IndexError):
                server = int((place / "data" / "postmaster.pid").read_text().split()[0])
                if _works_in(server, place / "data"):
                    os.kill(server, signal.SIGKILL)
        except (OSError, ValueError):  # another run makes or removes it at this moment
            continue
        shutil.rmtree(place, ignore_errors=True)


def _began(number: int) -> str:
    """When a process began, in ticks since the machine did; nothing for one that is not there."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def _works_in(number: int, data: Path) -> bool:
    try:
        return Path(f"/proc/{number}/cwd").resolve() == data.resolve()
    except OSError:
        return False
