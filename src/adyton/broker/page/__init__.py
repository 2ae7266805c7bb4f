"""The web page: a few files that are read once and served as they are.

They hold no data: what they show they ask the administrative API for, with the token that a person gives them.

Nothing is loaded from elsewhere and nothing inline runs: the content security policy allows this origin only, no
``innerHTML`` (trusted types), no frame, no form.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources

from adyton.broker.door.answer import Answer

_TYPES = {
    "html": b"text/html; charset=utf-8",
    "css": b"text/css; charset=utf-8",
    "js": b"text/javascript; charset=utf-8",
    "svg": b"image/svg+xml",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS = (
    f"content-security-policy: {POLICY}\r\n"
    "x-content-type-options: nosniff\r\n"
    "referrer-policy: no-referrer\r\n"
    "cross-origin-opener-policy: same-origin\r\n"
    "cross-origin-resource-policy: same-origin\r\n"
    "permissions-policy: camera=(), geolocation=(), microphone=(), payment=(), usb=()\r\n"
).encode()
INDEX = "index.html"


class Page:
    """The files by name. ``answer`` serves ``/ui`` and ``/ui/<file>``."""

    def __init__(self) -> None:
        self._files = _read()

    def answer(self, parts: tuple[str, ...]) -> Answer | None:
        """The file, or ``None`` if there is no such one. ``parts`` is what follows ``ui``."""
        if len(parts) > 1:
            return None
        return self._files.get(parts[0] if parts else INDEX)


def _read() -> Mapping[str, Answer]:
    found = {}
    for file in (resources.files(__name__) / "files").iterdir():
        kind = _TYPES.get(file.name.rpartition(".")[2])
        if kind is not None:
            found[file.name] = Answer(200, file.read_bytes(), kind, headers=_HEADERS)
    return found
