"""UEFI_VARIABLE_DATA and UEFI device paths, as events carry them (PFP 1.06, 10.2.6; UEFI 2.10 sections 10.3 and 32.4).

Read for people and policies: whether any of it is true is ``facts``' question.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

MAX_NODES = 64  # of one device path; real ones have fewer than ten
_VARIABLE = struct.Struct("<16sQQ")
_NODE = struct.Struct("<BBH")
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
        return guid_text(self.guid)


def guid_text(guid: bytes) -> str:
    """A GUID of 16 bytes in the usual notation."""
    one, two, three = struct.unpack_from("<IHH", guid)
    return f"{one:08x}-{two:04x}-{three:04x}-{guid[8:10].hex()}-{guid[10:].hex()}"


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
    return device_path(data[_IMAGE.size : _IMAGE.size + size])


def device_path(data: bytes) -> list[str]:
    """A text for each node up to the end node; walked, not recursed into, and at most ``MAX_NODES`` long."""
    nodes: list[str] = []
    offset = 0
    while offset < len(data):
        if offset + _NODE.size > len(data):
            raise ValueError("a node of the device path is cut off")
        kind, subkind, length = _NODE.unpack_from(data, offset)
        if length < _NODE.size or offset + length > len(data):
            raise ValueError("a node of the device path has no possible length")
        if kind == 0x7F:
            break
        if len(nodes) == MAX_NODES:
            raise ValueError("a device path without end")
        nodes.append(_node(kind, subkind, data[offset + _NODE.size : offset + length]))
        offset += length
    return nodes


def _node(kind: int, subkind: int, body: bytes) -> str:
    """UEFI 2.10, table 10.53, for the nodes that boot paths are made of; any other as ``Path(type,subtype,hex)``."""
    if (kind, subkind) == (1, 1) and len(body) == 2:
        return f"Pci({body[0]},{body[1]})"
    if (kind, subkind) == (2, 1) and len(body) == 8:
        hid, uid = struct.unpack("<II", body)
        vendor = "".join(chr((hid >> shift & 0x1F) + 0x40) for shift in (10, 5, 0))
        return f"ACPI({vendor}{hid >> 16:04X},{uid})"
    if (kind, subkind) == (4, 1) and len(body) == 38 and body[36:] == b"\x02\x02":
        number, begin, size = struct.unpack_from("<IQQ", body)
        return f"HD({number},GPT,{guid_text(body[20:36]).upper()},{begin:#x},{size:#x})"
    if (kind, subkind) == (4, 4):
        return f"File({body.decode('utf-16-le', 'replace').rstrip(chr(0))})"
    return f"Path({kind},{subkind},{body.hex()})"
