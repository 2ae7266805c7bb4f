"""Compile Python sources into byte code that is the same every time. Run as a script; plain standard library.

Standard input: one JSON array of [source file, target file, name in tracebacks]. The caller sets PYTHONHASHSEED and the
order, which decide how constants are laid out. A target is an unchecked hash-based ``.pyc`` (PEP 552) that stands where
the source would: nothing looks for a source beside it, and nothing is ever written back.
"""

from __future__ import annotations

import importlib.util
import json
import marshal
import struct
import sys
import warnings
from pathlib import Path

_UNCHECKED_HASH = 1


def byte_code(source: bytes, name: str) -> bytes:
    """The content of the ``.pyc``; ``SyntaxError`` if ``source`` is not Python."""
    code = compile(source, name, "exec", dont_inherit=True, optimize=0)
    header = importlib.util.MAGIC_NUMBER + struct.pack("<I", _UNCHECKED_HASH) + importlib.util.source_hash(source)
    return header + marshal.dumps(code)


def main() -> None:
    """Compile what standard input lists; a line on standard output after each hundred."""
    warnings.simplefilter("ignore")  # about other people's sources
    for done, (source, target, name) in enumerate(json.load(sys.stdin), 1):
        Path(target).write_bytes(byte_code(Path(source).read_bytes(), name))
        if done % 100 == 0:
            sys.stdout.write(f"{done}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
