"""A blob on its way into a registry: in one piece when it is small, in chunks that can be taken up again when not.

OCI distribution-spec, pushing blobs. A chunk stays in memory until the registry has acknowledged it, so a connection
that breaks costs one question (how far did you get?) and the rest of one chunk. The digest is sent last; a registry
shows nothing of the blob before.
"""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

from adyton.errors import AdytonError, DigestMismatch, NotFound, Unavailable
from adyton.image.reference import ImageReference
from adyton.image.registry_http import Reply
from adyton.rats.types import Digest

if TYPE_CHECKING:
    from adyton.image.registry import Registry

CHUNK = 8 << 20
MAX_CHUNK = 64 << 20
PATIENCE = 5
_RANGE = re.compile(r"(?:bytes=)?0-(\d{1,19})\Z")
_BINARY = {"Content-Type": "application/octet-stream"}


class RegistryUpload:
    """A ``BlobWriter`` into one repository."""

    def __init__(self, registry: Registry, reference: ImageReference) -> None:
        self._registry = registry
        self._reference = reference
        self._buffer = bytearray()
        self._sent = 0
        self._location: str | None = None
        self._chunk = CHUNK
        self._done = False

    def write(self, data: bytes | memoryview) -> None:
        """As ``BlobWriter``."""
        if self._done:
            raise ValueError("write to a finished upload")
        view = memoryview(data)
        while view:
            room = self._chunk - len(self._buffer)
            self._buffer += view[:room]
            view = view[room:]
            if len(self._buffer) >= self._chunk:
                self._send_chunk()

    def commit(self, digest: Digest) -> None:
        """Finish; the registry checks the digest itself, and what it answers is compared."""
        body: memoryview | bytes = b""
        if self._location is None:
            self._start()
            body = bytes(self._buffer)  # monolithic: the whole blob with the closing request
        elif self._buffer:
            self._send_chunk()
        url = self._location or ""
        url += ("&" if urlsplit(url).query else "?") + urlencode({"digest": str(digest)})
        try:
            reply = self._request("PUT", url, body, frozenset({201, 204}))
        except (Unavailable, NotFound):
            # The answer may have been lost after the blob was stored.
            if not self._registry.has_blob(self._reference, digest):
                raise
        else:
            stated = reply.header("Docker-Content-Digest")
            reply.close()
            if stated is not None and stated != str(digest):
                raise DigestMismatch(
                    "the registry stored a blob as another one",
                    code="blob_mismatch",
                    expected=str(digest),
                    got=stated[:200],
                )
        self._done = True
        self._buffer.clear()

    def abort(self) -> None:
        """Tell the registry to forget it; that it may not hear is its own business."""
        if self._done:
            return
        self._done = True
        self._buffer.clear()
        if self._location is not None:
            with contextlib.suppress(AdytonError):
                self._request("DELETE", self._location, None, frozenset(range(200, 500)), attempts=1).close()

    def _start(self) -> None:
        reply = self._request("POST", "/blobs/uploads/", b"", frozenset({202}))
        least = reply.header("OCI-Chunk-Min-Length")
        if least is not None and least.isascii() and least.isdigit() and int(least) <= MAX_CHUNK:
            self._chunk = max(self._chunk, int(least))
        self._moved(reply)

    def _send_chunk(self) -> None:
        if self._location is None:
            self._start()
        self._send(memoryview(bytes(self._buffer)))  # a copy: errors may keep a view of what was sent alive
        self._sent += len(self._buffer)
        self._buffer.clear()

    def _send(self, chunk: memoryview) -> None:
        done, refused = 0, False
        for left in range(PATIENCE, -1, -1):
            first, last = self._sent + done, self._sent + len(chunk) - 1
            headers = {**_BINARY, "Content-Range": f"{first}-{last}"}
            try:
                reply = self._request(
                    "PATCH", self._location or "", chunk[done:], frozenset({202, 416}), headers=headers, attempts=1
                )
                if reply.status == 202:
                    self._moved(reply)
                    return
                reply.close()
                refused = True
            except Unavailable:
                refused = False
                if left == 0:
                    raise
                self._registry.sleep(0.05 * 2 ** (PATIENCE - left))
            done = self._received(zero=0 if not refused else 1) - self._sent
            if done == len(chunk):
                return
        raise Unavailable("the registry does not take a chunk", code="registry_upload", field="blob")

    def _received(self, zero: int) -> int:
        """How many bytes of the blob the registry holds; it must be within the chunk under way.

        ``0-0`` is what distribution says for one byte and for none. ``zero``: what it is taken for; when the beginning
        was refused because of it, it was one.
        """
        reply = self._request("GET", self._location or "", None, frozenset({204, 202, 200}))
        text = reply.header("Range") or ""
        self._moved(reply)
        match = _RANGE.match(text)
        held = int(match[1]) + 1 if match else -1
        if held == 1 and self._sent == 0:
            held = zero
        if not self._sent <= held <= self._sent + len(self._buffer):
            raise Unavailable(
                "the registry lost a part of the upload",
                code="registry_upload",
                field="Range",
                expected=f"0-{self._sent} or more",
                got=text[:80],
            )
        return held

    def _moved(self, reply: Reply) -> None:
        location = reply.header("Location")
        reply.close()
        if location is not None:
            self._location = self._registry.http.next_url(reply.url, location)
        elif self._location is None:
            raise Unavailable("the registry does not say where to upload to", code="registry_upload", field="Location")

    def _request(
        self,
        method: str,
        path: str,
        body: bytes | memoryview | None,
        accept: frozenset[int],
        *,
        headers: dict[str, str] | None = None,
        attempts: int = PATIENCE,
    ) -> Reply:
        return self._registry.call(
            self._reference,
            method,
            path,
            body=body,
            headers=headers or (_BINARY if body else {}),
            accept=accept,
            push=True,
            attempts=attempts,
        )
