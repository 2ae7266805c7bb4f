"""Make the messages of ``src/adyton/protocol/grpc/*.proto``: a ``*_pb2.py`` and its types ``*_pb2.pyi`` for each.

Run it after changing a ``.proto``, with the project's interpreter: ``.venv/bin/python scripts/protos.py``. With
``--check`` it writes nothing and fails if what is there differs from what would be made.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

SOURCE = Path(__file__).resolve().parents[1] / "src"
DIRECTORY = SOURCE / "adyton" / "protocol" / "grpc"
# Messages of the protocol's own library (google/protobuf/empty.proto and the like).
WELL_KNOWN = Path(grpc_tools.__file__).parent / "_proto"


def make(into: Path) -> list[Path]:
    """All of them, below ``into``; relative paths of what was made. ``RuntimeError`` if a ``.proto`` is wrong."""
    names = sorted(str(path.relative_to(SOURCE)) for path in DIRECTORY.glob("*.proto"))
    status = protoc.main(
        ["protoc", f"-I{SOURCE}", f"-I{WELL_KNOWN}", f"--python_out={into}", f"--pyi_out={into}", *names]
    )
    if status:
        raise RuntimeError("protoc refuses a .proto; its message is above")
    return sorted(path.relative_to(into) for path in into.rglob("*_pb2.py*") if path.suffix in {".py", ".pyi"})


def differing() -> list[str]:
    """What in the tree is not what would be made of its ``.proto``, or is made of none."""
    with tempfile.TemporaryDirectory() as made:
        root = Path(made)
        wanted = make(root)
        wrong = [
            str(path)
            for path in wanted
            if not (SOURCE / path).exists() or (SOURCE / path).read_bytes() != (root / path).read_bytes()
        ]
        present = {path.relative_to(SOURCE) for path in DIRECTORY.glob("*_pb2.py*")}
        return wrong + [str(path) for path in sorted(present - set(wanted))]


if __name__ == "__main__":
    if "--check" in sys.argv:
        if wrong := differing():
            raise SystemExit(f"made of another .proto: {', '.join(wrong)}")
    else:
        for written in make(SOURCE):
            print(f"wrote src/{written}")
