"""Init data 0.1.0: a TOML document whose digest a TEE holds in a field that the guest cannot change.

The digest is over the **bytes** of the document; nothing is canonicalised (``coco-guest`` 6.1, ``kbs-protocol`` 1.10).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from adyton.errors import DocumentInvalid
from adyton.wire import toml

VERSION = "0.1.0"
ALGORITHMS = {
    "sha256": "sha256",
    "sha384": "sha384",
    "sha512": "sha512",
    "sha-256": "sha256",
    "sha-384": "sha384",
    "sha-512": "sha512",
}
MAX_SIZE = 256 * 1024


@dataclass(frozen=True, slots=True)
class InitData:
    """A parsed document with the bytes it came from. ``algorithm`` is a hashlib name, ``data`` the ``[data]`` table."""

    raw: bytes
    algorithm: str
    data: Mapping[str, str]

    @property
    def digest(self) -> bytes:
        """The digest of the whole document, by its own algorithm."""
        return hashlib.new(self.algorithm, self.raw).digest()


def parse(raw: bytes) -> InitData:
    """Read init data; ``DocumentInvalid`` for anything that is not exactly version 0.1.0 of it."""
    if len(raw) > MAX_SIZE:
        raise DocumentInvalid(f"init data is larger than {MAX_SIZE} bytes", code="init_data_too_large")
    try:
        document = toml.parse(raw.decode("utf-8"))
    except ValueError as error:
        raise DocumentInvalid("init data is not TOML", code="init_data_malformed", spec="coco-guest 6.1") from error
    unknown = set(document) - {"version", "algorithm", "data"}
    if unknown:
        raise DocumentInvalid("init data has unknown members", code="init_data_malformed", got=sorted(unknown))
    if document.get("version") != VERSION:
        raise DocumentInvalid(
            "unknown version of init data",
            code="init_data_version",
            expected=VERSION,
            got=str(document.get("version"))[:40],
        )
    name = document.get("algorithm")
    if not isinstance(name, str) or name not in ALGORITHMS:
        raise DocumentInvalid(
            "unknown digest algorithm in init data",
            code="init_data_algorithm",
            expected=sorted(ALGORITHMS),
            got=str(name)[:40],
        )
    data = document.get("data")
    if not isinstance(data, dict) or not all(isinstance(value, str) for value in data.values()):
        raise DocumentInvalid("[data] must be a table of strings", code="init_data_malformed", field="data")
    return InitData(raw=raw, algorithm=ALGORITHMS[name], data=data)


def write(data: Mapping[str, str], algorithm: str = "sha256") -> bytes:
    """A document holding ``data``; ``parse(write(x)).data == x``."""
    lines = [f'version = "{VERSION}"', f'algorithm = "{algorithm}"', "", "[data]"]
    lines += [f"{toml_string(name)} = {_multiline(value)}" for name, value in data.items()]
    return ("\n".join(lines) + "\n").encode("utf-8")


def toml_string(text: str) -> str:
    """``text`` as a TOML basic string on one line."""
    out = ['"']
    for char in text:
        if char in '"\\':
            out.append("\\" + char)
        elif ord(char) < 0x20 or ord(char) == 0x7F:
            out.append(f"\\u{ord(char):04x}")
        else:
            out.append(char)
    return "".join([*out, '"'])


def _multiline(text: str) -> str:
    printable = all(char in "\n\t" or (ord(char) >= 0x20 and ord(char) != 0x7F) for char in text)
    return (
        f"'''\n{text}'''" if "\n" in text and printable and "'''" not in text and text[-1] != "'" else toml_string(text)
    )
