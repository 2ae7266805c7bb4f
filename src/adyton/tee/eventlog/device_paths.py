"""UEFI device paths as text, a node at a time (UEFI 2.10 sections 10.3 and 10.6).

The texts are what policies compare, so they are those of CoCo's verifier to the letter, oddities included: vendor media
always have a comma, an IPv4 node prints addresses from their last byte to their first and the gateway as a number, a MAC
address loses the zeros at its end. A node of another kind, or too short, is ``Path(type,subtype,hex)``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

MAX_NODES = 64  # of one device path; real ones have fewer than ten
_NODE = struct.Struct("<BBH")
_END = 0x7F
_MBR, _GPT = 1, 2
_IPV4 = struct.Struct("<4s4sHHHB")
_PROTOCOLS = {6: "TCP", 17: "UDP"}
_ORIGINS = {0: "DHCP", 1: "Static"}
_BBS = {
    1: "FLOPPY",
    2: "HARD_DRIVE",
    3: "CDROM",
    4: "PCMCIA",
    5: "USB",
    6: "EMBEDDED_NETWORK",
    0x80: "DEV",
    0xFF: "UNKNOWN",
}


def guid_text(guid: bytes) -> str:
    """A GUID of 16 bytes in the usual notation: the first three parts are little-endian."""
    one, two, three = struct.unpack_from("<IHH", guid)
    return f"{one:08x}-{two:04x}-{three:04x}-{guid[8:10].hex()}-{guid[10:16].hex()}"


def texts(data: bytes) -> list[str]:
    """A text for each node up to the end node; walked, not recursed into. ``ValueError`` if it cannot be read."""
    nodes: list[str] = []
    offset = 0
    while offset < len(data):
        if offset + _NODE.size > len(data):
            raise ValueError("a node of the device path is cut off")
        kind, subkind, length = _NODE.unpack_from(data, offset)
        if length < _NODE.size or offset + length > len(data):
            raise ValueError("a node of the device path has no possible length")
        if kind == _END:
            break
        if len(nodes) == MAX_NODES:
            raise ValueError("a device path without end")
        nodes.append(node(kind, subkind, data[offset + _NODE.size : offset + length]))
        offset += length
    return nodes


def node(kind: int, subkind: int, body: bytes) -> str:
    """The text of one node, ``body`` being what follows its header."""
    least, reader = _READERS.get((kind, subkind), (0, None))
    text = reader(body) if reader is not None and len(body) >= least else None
    return f"Path({kind},{subkind},{body.hex()})" if text is None else text


def _pci(body: bytes) -> str:
    return f"Pci({body[0]},{body[1]})"


def _acpi(body: bytes) -> str:
    hid, uid = struct.unpack_from("<II", body)
    vendor = "".join(chr((hid >> shift & 0x1F) + 0x40) for shift in (10, 5, 0))
    return f"ACPI({vendor}{hid >> 16:04X},{uid})"


def _usb(body: bytes) -> str:
    return f"USB({body[0]},{body[1]})"


def _mac(body: bytes) -> str | None:
    if len(body) != 33:
        return None
    return f"Mac({body[:31].hex().rstrip('0').upper()},{body[32]:#04x})"


def _ipv4(body: bytes) -> str:
    local, remote, _, _, protocol, origin = _IPV4.unpack_from(body)
    gateway, mask = struct.unpack_from("<II", body, _IPV4.size)
    way = f",{gateway},{mask}" if gateway or mask else ""
    return f"IPv4({_address(remote)},{_PROTOCOLS.get(protocol, '')},{_ORIGINS.get(origin, '')},{_address(local)}{way})"


def _address(stored: bytes) -> str:
    return ".".join(str(part) for part in reversed(stored))


def _fibre_channel(body: bytes) -> str:
    return f"FibreEx(0x{body[:8].hex()},0x{body[8:16].hex()})"


def _hard_drive(body: bytes) -> str | None:
    number, begin, size = struct.unpack_from("<IQQ", body)
    if body[36] == _MBR:
        signature = f"MBR,{int.from_bytes(body[20:24], 'little'):#010x}"
    elif body[36] == _GPT:
        signature = f"GPT,{guid_text(body[20:36]).upper()}"
    else:
        return None
    return f"HD({number},{signature}{f',{begin:#x},{size:#x}' if number else ''})"


def _vendor_media(body: bytes) -> str:
    return f"VenMedia({guid_text(body).upper()},{body[16:].hex()})"


def _file(body: bytes) -> str | None:
    return None if len(body) % 2 else f"File({body[:-2].decode('utf-16-le', 'replace')})"


def _bios_boot(body: bytes) -> str | None:
    kind, status = struct.unpack_from("<HH", body)
    try:
        return f"BBS({_BBS.get(kind, kind)},{body[4:].split(bytes(1), 1)[0].decode()},{status})"
    except UnicodeDecodeError:
        return None


# (type, subtype) -> least length of what follows the header, reader
_READERS: dict[tuple[int, int], tuple[int, Callable[[bytes], str | None]]] = {
    (1, 1): (2, _pci),
    (2, 1): (8, _acpi),
    (3, 5): (2, _usb),
    (3, 0x0B): (33, _mac),
    (3, 0x0C): (_IPV4.size + 8, _ipv4),
    (3, 0x15): (16, _fibre_channel),
    (4, 1): (38, _hard_drive),
    (4, 3): (16, _vendor_media),
    (4, 4): (2, _file),
    (5, 1): (4, _bios_boot),
}
