r"""How the broker's own messages are written on standard error: one line each, as JSON or as text, whatever is in them.

What a stranger sent may be part of a message. So line breaks and control characters never leave as such: JSON escapes
them, and text shows them as ``\\x0a``. One message is one line, and no line is anybody's but ours.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Literal, TypeAlias

import msgspec

from adyton.broker.running.outlet import Outlet

Format: TypeAlias = Literal["json", "text"]
FORMATS: tuple[Format, ...] = ("json", "text")
LEVELS = ("debug", "info", "warning", "error")
MAX_MESSAGE = 8000
LAST_SECONDS = 2.0
"""For what still waits to be written when the process ends."""
_ENCODE = msgspec.json.Encoder().encode
_CONTROLS = {number: f"\\x{number:02x}" for number in (*range(32), *range(127, 160))} | {
    0x2028: "\\u2028",
    0x2029: "\\u2029",
}


_IN_JSON = {number: f"\\u{number:04x}" for number in (*range(127, 160), 0x2028, 0x2029)}  # msgspec escapes the rest


def plain(text: str) -> str:
    """``text`` without anything that could end a line or move a terminal's cursor."""
    return text.translate(_CONTROLS)


class Lines(logging.Formatter):
    """Formats records of ``logging``."""

    def __init__(self, form: Format) -> None:
        super().__init__()
        self._form = form

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        message = record.getMessage()
        if record.exc_info:
            message += "\n" + self.formatException(record.exc_info)
        message = message[:MAX_MESSAGE]
        if self._form == "text":
            return f"{record.levelname} {plain(message)}"
        line = {"time": round(record.created, 3), "level": record.levelname.lower(), "logger": record.name}
        return _ENCODE({**line, "message": message}).decode().translate(_IN_JSON)


class Outgoing(logging.Handler):
    """Writes to standard error without waiting for who reads it; at the end of the process for a moment."""

    def __init__(self, form: Format, descriptor: int = 2) -> None:
        super().__init__()
        self.setFormatter(Lines(form))
        self.outlet = Outlet(descriptor, partial(missing, form))

    def emit(self, record: logging.LogRecord) -> None:
        """One line."""
        try:
            self.outlet.put(self.format(record).encode("utf-8", "backslashreplace") + b"\n")
        except Exception:  # noqa: BLE001 -- as every handler: what cannot be said stops nobody
            self.handleError(record)

    def flush(self) -> None:
        """Give what waits a moment to go."""
        self.outlet.drain(LAST_SECONDS)


def missing(form: Format, count: int) -> bytes:
    """The line that stands where ``count`` lines were dropped."""
    text = f"{count} lines of the log are missing here: nobody read them in time"
    record = logging.LogRecord(__name__, logging.WARNING, "", 0, text, None, None)
    return Lines(form).format(record).encode() + b"\n"


def configure(form: Format, level: str) -> None:
    """Write what is said at ``level`` or above, in this form."""
    handler = Outgoing(form)
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
