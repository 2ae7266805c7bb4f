"""What of an event's data its digest covers, as each producer of events hashes it (evidence 7.3).

Only ``DATA`` may become a claim, and only for the types in ``kinds.DATA_IS_MEASURED`` (``facts``). The others tell a reader
that a log is consistent: they say nothing about the event's label, which anybody may write.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

from adyton.tee.eventlog import kinds, variables
from adyton.tee.eventlog.banks import Bank

_GRUB = (b"grub_cmd: ", b"kernel_cmdline: ", b"module_cmdline: ", b"grub_cmd ", b"grub_kernel_cmdline ")
_VARIABLES = frozenset({kinds.EFI_VARIABLE_BOOT, kinds.EFI_VARIABLE_BOOT2, kinds.EFI_VARIABLE_AUTHORITY})


class Bound(Enum):
    """What was hashed."""

    DATA = "the event's data"
    VARIABLE = "the variable's content"
    COMMAND = "the text without the producer's prefix"
    NAME = "the name of a section, in ASCII with a NUL"
    NOTHING = "something that is not in the log"


def explain(kind: int, data: bytes, digest: bytes, bank: Bank) -> Bound:
    """How ``digest`` comes from ``data``, if it does."""
    for what, hashed in _candidates(kind, data):
        if bank.new(hashed).digest() == digest:
            return what
    return Bound.NOTHING


def _candidates(kind: int, data: bytes) -> Iterator[tuple[Bound, bytes]]:
    yield Bound.DATA, data
    if kind in _VARIABLES:
        try:
            yield Bound.VARIABLE, variables.variable(data).content
        except ValueError:
            return
    elif kind == kinds.IPL:
        for prefix in _GRUB:  # GRUB hashes the text, and logs it behind a prefix, with a NUL
            if data.startswith(prefix):
                yield Bound.COMMAND, data[len(prefix) :].split(b"\0", 1)[0]
        name = section_name(data)
        if name is not None:
            yield Bound.NAME, name.encode("ascii") + b"\0"


def section_name(data: bytes) -> str | None:
    """The UKI section that systemd-stub names in an event: UTF-16 with a NUL, ``.linux`` and the like."""
    try:
        text = data.decode("utf-16-le").rstrip("\0")
    except UnicodeDecodeError:
        return None
    return text if text.startswith(".") and text.isascii() and 2 <= len(text) <= 8 and text.isprintable() else None
