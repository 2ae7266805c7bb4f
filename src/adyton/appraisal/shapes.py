"""What form the reference values have that the default policies ask for: what else could never match.

A measured value is looked up in a **list** of accepted ones; a property must **equal** one value. JSON tells numbers
from texts, and policies compare exactly, so ``["10"]`` is not ``[10]``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from adyton.rats.types import JsonValue

_DIGEST = re.compile(r"[0-9a-f]{96}\Z")


@dataclass(frozen=True, slots=True)
class Shape:
    """``many``: a list of accepted values. ``of``: 48 bytes in hex, a whole number of 8 bits, or true or false."""

    many: bool
    of: Literal["digest", "number", "truth"]

    @property
    def text(self) -> str:
        """For a person."""
        words = {
            "digest": "96 lower-case hex digits",
            "number": "a whole number from 0 to 255",
            "truth": "true or false",
        }
        return f"a list, each {words[self.of]}" if self.many else words[self.of]

    def fits(self, value: JsonValue) -> bool:
        """Whether a value of this form could ever match."""
        if self.many:
            return isinstance(value, list) and bool(value) and all(self._one(item) for item in value)
        return self._one(value)

    def _one(self, value: JsonValue) -> bool:
        if self.of == "digest":
            return isinstance(value, str) and _DIGEST.match(value) is not None
        if self.of == "truth":
            return isinstance(value, bool)
        return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 255

    def read(self, texts: Sequence[str]) -> JsonValue:
        """The value that a person means who types ``texts``; ``ValueError`` if it would not fit."""
        items = [self._read(text.strip()) for text in texts]
        value: JsonValue = items if self.many else items[0]
        if (len(items) > 1 and not self.many) or not self.fits(value):
            raise ValueError(self.text)
        return value

    def _read(self, text: str) -> JsonValue:
        if self.of == "digest":
            return text.lower().removeprefix("0x")
        if self.of == "truth":
            return {"true": True, "false": False}.get(text.lower(), text)
        return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else text


_NUMBERS = Shape(many=True, of="number")
_NUMBER = Shape(many=False, of="number")
_TRUTH = Shape(many=False, of="truth")
SHAPES = {
    "snp_launch_measurement": Shape(many=True, of="digest"),
    "snp_bootloader": _NUMBERS,
    "snp_microcode": _NUMBERS,
    "snp_snp_svn": _NUMBERS,
    "snp_tee_svn": _NUMBERS,
    "snp_smt_enabled": _TRUTH,
    "snp_tsme_enabled": _TRUTH,
    "snp_guest_abi_major": _NUMBER,
    "snp_guest_abi_minor": _NUMBER,
    "snp_single_socket": _TRUTH,
    "snp_smt_allowed": _TRUTH,
}
"""By name. A policy of one's own may give these names another form: so this is advice, and never stops a value."""
