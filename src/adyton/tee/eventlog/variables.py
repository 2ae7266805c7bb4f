"""UEFI_VARIABLE_DATA and UEFI_IMAGE_LOAD_EVENT, as events carry them (PFP 1.06, 10.2.3 and 10.2.6; UEFI 2.10 section 32.4).

Read for people and policies: whether any of it is true is ``facts``' question.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from adyton.tee.eventlog import device_paths

_VARIABLE = struct.Struct("<16sQQ")
_IMAGE = struct.Struct("<QQQQ")  # address, length, link-time address, length of the path
GLOBAL_VARIABLE = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
IMAGE_SECURITY_DATABASE = "d719b2cb-3d3a-4596-a3bc-dad00e67656f"


class Variable(NamedTuple):
    """A UEFI variable: its vendor's GUID (16 bytes as stored), its name, and its content."""

    guid: bytes
    name: str
    content: bytes

    @property
    def vendor(self) -> str:
        """The GUID in the usual notation: the first three parts are little-endian."""
        return device_paths.guid_text(self.guid)


def variable(data: bytes) -> Variable:
    """Read UEFI_VARIABLE_DATA that fills ``data`` exactly, or ``ValueError``."""
    if len(data) < _VARIABLE.size:
        raise ValueError("shorter than a variable's header")
    guid, characters, size = _VARIABLE.unpack_from(data)
    middle = _VARIABLE.size + 2 * characters
    if middle + size != len(data):
        raise ValueError("lengths of name and content do not add up")
    return Variable(guid, data[_VARIABLE.size : middle].decode("utf-16-le"), data[middle:])


def image_path(data: bytes) -> list[str]:
    """The device path of UEFI_IMAGE_LOAD_EVENT, a text for each node; ``ValueError`` if it cannot be read."""
    if len(data) < _IMAGE.size:
        raise ValueError("shorter than an image's event")
    size = _IMAGE.unpack_from(data)[3]
    if _IMAGE.size + size > len(data):
        raise ValueError("the device path is longer than the event")
    return device_paths.texts(data[_IMAGE.size : _IMAGE.size + size])
