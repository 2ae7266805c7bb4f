"""How this instance proves itself: its attester, asked for one piece of evidence at a time by all of its processes."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from adyton.errors import ConfigError, Unavailable
from adyton.rats.ports import Attester, CollectedEvidence
from adyton.rats.types import ReportData

LOCK = "attester.lock"
WAIT_SECONDS = 30.0
_PAUSE = 0.02


@cache
def attester_of(text: str) -> Attester:
    """``snp``: this guest's device; ``devtee:N``: the report channel at descriptor N. ``ConfigError`` otherwise."""
    from adyton.attesters.devtee import DevTeeAttester
    from adyton.attesters.report_socket import ReportSocket
    from adyton.attesters.snp_device import SnpDeviceAttester

    if (number := descriptor(text)) is not None:
        return DevTeeAttester(ReportSocket(number))
    if text == "snp":
        return SnpDeviceAttester.find()
    raise ConfigError(
        "no such attester",
        code="setting_invalid",
        field="attester",
        expected="snp, or devtee:DESCRIPTOR",
        got=text[:40],
    )


def descriptor(text: str) -> int | None:
    """The descriptor that worker processes must inherit for this attester, or ``None``."""
    kind, _, number = text.partition(":")
    return int(number) if kind == "devtee" and number.isascii() and number.isdigit() and len(number) < 8 else None


class OneAtATime:
    """An ``Attester`` over another one. A report channel is one stream, which processes share; a TEE makes few a second."""

    def __init__(self, inner: Attester, directory: Path) -> None:
        self._inner = inner
        self._path = directory / LOCK
        self._thread = threading.Lock()

    @property
    def tee(self) -> str:
        """The inner one's."""
        return self._inner.tee

    def collect(self, report_data: ReportData) -> CollectedEvidence:
        """As the inner one; ``Unavailable`` ``attester_busy`` if others hold it for ``WAIT_SECONDS``."""
        if not self._thread.acquire(timeout=WAIT_SECONDS):
            raise _busy()
        try:
            with self._locked():
                return self._inner.collect(report_data)
        finally:
            self._thread.release()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            opened = os.open(self._path, flags, 0o600)
        except OSError as error:
            raise Unavailable(
                f"the attester's lock cannot be opened: {error.strerror}", code="attester_busy", field=str(self._path)
            ) from error
        try:
            end = time.monotonic() + WAIT_SECONDS
            while True:
                try:
                    fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > end:
                        raise _busy() from None
                    time.sleep(_PAUSE)
            yield
        finally:
            os.close(opened)


def _busy() -> Unavailable:
    return Unavailable("evidence is being made for others", code="attester_busy", hint="ask again")
