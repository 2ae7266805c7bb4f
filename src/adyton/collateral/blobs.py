"""Contents by their digest, in one directory: each written beside its place, synced, and renamed; whole or not there."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Container
from pathlib import Path

from adyton.errors import PlatformError


class Blobs:
    """A directory of files named by the SHA-256 of their content, in hex. Safe from several threads and processes."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(mode=0o700, exist_ok=True)

    def write(self, content: bytes) -> str:
        """Keep it; its digest. When this returns it is on disk. ``PlatformError`` if it cannot be."""
        digest = hashlib.sha256(content).hexdigest()
        path = self._directory / digest
        temporary = path.with_name(f".{digest}.{os.getpid()}.{threading.get_ident()}")
        try:
            if self.read(digest) == content:
                os.utime(path)  # so that nobody tidies it away before somebody speaks of it
                return digest
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(descriptor)
            temporary.rename(path)
            folder = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise PlatformError(
                f"the cache cannot be written: {error.strerror}",
                code="cache_unusable",
                field=str(self._directory),
                hint="give a directory that is yours and has room: --cache DIR",
            ) from error
        return digest

    def read(self, digest: str) -> bytes | None:
        """The content, or ``None`` if it is not there or damaged."""
        try:
            content = (self._directory / digest).read_bytes()
        except OSError:
            return None
        return content if hashlib.sha256(content).hexdigest() == digest else None

    def tidy(self, kept: Container[str], before: float) -> int:
        """Remove what is not ``kept`` and was written ``before`` (Unix time), pieces of killed writers too; how many."""
        removed = 0
        for path in self._directory.iterdir():
            if path.name not in kept and path.stat().st_mtime < before:
                path.unlink(missing_ok=True)
                removed += 1
        return removed
