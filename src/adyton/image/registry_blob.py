"""A blob as it comes from a registry: one stream, however often the connection below breaks."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from adyton.errors import AdytonError, Unavailable
from adyton.image.registry_http import Reply

PATIENCE = 5
PROGRESS = 1 << 20
WINDOW = 60.0
WINDOW_BYTES = 64 << 10
_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)\Z")
_SKIP = 1 << 16


class RegistryBlob:
    """Reads a blob from ``offset``.

    It gives up after ``PATIENCE`` broken connections without ``PROGRESS`` bytes in between, and where ``WINDOW`` seconds
    bring less than ``WINDOW_BYTES``. Where a registry answers a range request with the whole blob, what is already had
    is skipped; where it answers with another range than asked for, nothing of it is used.
    """

    def __init__(self, connect: Callable[[int], Reply], offset: int, sleep: Callable[[float], None]) -> None:
        self._connect = connect
        self._sleep = sleep
        self._position = offset
        self._total: int | None = None
        self._breaks = 0
        self._mark = offset
        self._reply: Reply | None = None
        self._closed = False
        self._since, self._then = time.monotonic(), offset
        self._open()

    def readinto(self, buffer: memoryview, /) -> int:
        """As ``BlobStream``: fills ``buffer`` but at the end of the blob, and gives 0 only there."""
        if self._closed:
            raise ValueError("read of a closed blob")
        filled = 0
        while filled < len(buffer) and (self._total is None or self._position < self._total):
            try:
                if self._reply is None:
                    self._open()
                    continue
                count = self._reply.readinto(buffer[filled:])
                if count == 0 and self._total is not None:
                    raise Unavailable("the connection broke in the middle of a blob", code="registry_broken")
            except Unavailable as error:
                self._broke(error)
                continue
            if count == 0:
                break
            if self._total is not None and self._position + count > self._total:
                raise _lied(f"{self._total} bytes", "more")
            self._position += count
            filled += count
            self._watch()
        return filled

    def read(self, size: int = -1, /) -> bytes:
        """As ``BlobStream``."""
        parts = bytearray()
        piece = bytearray(_SKIP)
        while size < 0 or len(parts) < size:
            want = _SKIP if size < 0 else min(_SKIP, size - len(parts))
            count = self.readinto(memoryview(piece)[:want])
            if count == 0:
                break
            parts += piece[:count]
        return bytes(parts)

    def close(self) -> None:
        """Let go of the connection."""
        self._closed = True
        self._drop()

    def _open(self) -> None:
        reply = self._connect(self._position)
        try:
            skip = self._check(reply)
            self._reply = reply
            scratch = bytearray(_SKIP)
            while skip:
                count = reply.readinto(memoryview(scratch)[: min(_SKIP, skip)])
                if count == 0:
                    raise Unavailable("the connection broke in the middle of a blob", code="registry_broken")
                skip -= count
        except AdytonError:
            self._reply = None
            reply.close()
            raise

    def _check(self, reply: Reply) -> int:
        """Compare the answer with what was asked for; how many bytes of it are already had."""
        if reply.status == 200:
            self._learn(reply.length)
            return self._position
        if reply.status == 416:  # only asked for with a range: the blob ends at or before it
            raise _lied(f"a blob of more than {self._position} bytes", "416")
        text = reply.header("Content-Range") or ""
        match = _RANGE.match(text)
        if match is None or int(match[1]) != self._position or int(match[2]) < self._position:
            raise _lied(f"bytes {self._position}-", text[:100])
        if match[3] != "*":
            self._learn(int(match[3]))
        if self._total is not None and int(match[2]) != self._total - 1:
            raise _lied(f"bytes {self._position}-{self._total - 1}", text[:100])
        return 0

    def _learn(self, total: int | None) -> None:
        if total is None:
            return
        if self._total is not None and self._total != total:
            raise _lied(f"{self._total} bytes", f"{total} bytes")
        self._total = total

    def _broke(self, error: Unavailable) -> None:
        self._drop()
        if error.code not in {"registry_broken", "registry_unreachable"}:
            raise error
        if self._position - self._mark >= PROGRESS:
            self._mark, self._breaks = self._position, 0
        self._breaks += 1
        if self._breaks > PATIENCE:
            raise error
        self._sleep(0.05 * 2**self._breaks)

    def _watch(self) -> None:
        """Give up on a registry that keeps a connection alive with next to nothing."""
        now = time.monotonic()
        if now - self._since < WINDOW:
            return
        if self._position - self._then < WINDOW_BYTES:
            raise Unavailable(
                f"the registry sends less than {WINDOW_BYTES} bytes in {WINDOW} s", code="registry_slow", field="blob"
            )
        self._since, self._then = now, self._position

    def _drop(self) -> None:
        if self._reply is not None:
            self._reply.close()
            self._reply = None


def _lied(expected: str, got: str) -> Unavailable:
    return Unavailable(
        "the registry sent another part of the blob than was asked for",
        code="registry_range",
        field="Content-Range",
        expected=expected,
        got=got,
        spec="RFC 9110 14.4",
    )
