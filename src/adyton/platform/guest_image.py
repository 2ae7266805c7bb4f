"""The guest stack as one file, bit for bit: the same inputs give the same ``adyton-guest.erofs`` anywhere.

Owners, times, modes, order and UUID are fixed; byte code is compiled in one process of fixed order and hash seed. What
goes in is said in ``guest_contents``. Beside the file lies ``<file>.inputs``: what it was made from, so that building
again does nothing when nothing changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from adyton.errors import ConfigError, PlatformError
from adyton.platform import guest_compile, guest_contents
from adyton.platform.guest_contents import Item
from adyton.rats.ports import Progress

UUID = "61647974-6f6e-4775-8573-740000000001"
FORMAT = 1  # grows when this module lays out the same contents differently
_SEED = "0"


@dataclass(frozen=True, slots=True)
class Built:
    """A guest file. ``rebuilt`` is false when the one that was there is still the one to be built."""

    path: Path
    sha256: bytes
    size: int
    rebuilt: bool


def build(
    output: Path, progress: Progress | None = None, *, items: list[Item] | None = None, force: bool = False
) -> Built:
    """Make the guest stack, or leave it if it is there already. ``PlatformError`` says what this machine lacks.

    ``items`` go in instead of ``guest_contents.contents()``.
    """
    maker = shutil.which("mkfs.erofs", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if maker is None:
        raise PlatformError(
            "the guest stack is an erofs file, and this machine has no mkfs.erofs",
            code="mkfs_erofs_missing",
            hint="apt-get install --no-install-recommends erofs-utils",
        )
    items = items if items is not None else guest_contents.contents()
    if os.path.lexists(output) and not output.is_file():  # a device would be replaced by what is built
        raise ConfigError("not a regular file", code="not_a_file", field="output", got=str(output))
    inputs = _fingerprint(items, Path(maker))
    stamp = output.with_name(output.name + ".inputs")
    if not force and (kept := _unchanged(output, stamp, inputs)) is not None:
        return kept
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".guest-", dir=output.parent) as scratch:
            tree, file = Path(scratch) / "root", Path(scratch) / "guest.erofs"
            _lay_out(items, tree, progress)
            _make(maker, tree, file)
            with file.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").digest()
            status = file.stat()
            file.rename(output)
    except OSError as error:
        raise PlatformError(
            f"the guest stack cannot be built: {error.strerror}",
            code="guest_build_failed",
            field=str(error.filename or output),
            hint=f"needs some 200 MB of space beside {output}",
        ) from error
    built = Built(output, digest, status.st_size, rebuilt=True)
    with suppress(OSError):  # without it the next one is built anew
        stamp.write_text(json.dumps({"inputs": inputs, "sha256": digest.hex(), "output": _shape(output)}) + "\n")
    return built


def _unchanged(output: Path, stamp: Path, inputs: str) -> Built | None:
    try:
        kept = json.loads(stamp.read_text())
        if kept["inputs"] == inputs and kept["output"] == _shape(output):
            return Built(output, bytes.fromhex(kept["sha256"]), output.stat().st_size, rebuilt=False)
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no stamp, or one of another making: build
    return None


def _fingerprint(items: list[Item], maker: Path) -> str:
    """Of everything that decides the result: each file's place and content, the compiler, the file system's maker."""
    whole = hashlib.sha256(f"{FORMAT} {UUID} {sys.version}".encode())
    tools = [Path(__file__), Path(guest_compile.__file__), maker.resolve()]
    for name, executable, source in [(f"tool:{i}", True, tool) for i, tool in enumerate(tools)] + [
        (item.path, item.executable, item.source) for item in items
    ]:
        with source.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        whole.update(f"\n{name} {int(executable)} {digest}".encode())
    return whole.hexdigest()


def _shape(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ino]


def _lay_out(items: list[Item], tree: Path, progress: Progress | None) -> None:
    """Put every file in its place below ``tree``, sources as byte code."""
    sources: list[tuple[str, str, str]] = []
    for item in items:
        target = tree / item.path
        target.parent.mkdir(parents=True, exist_ok=True)
        if item.compiled:
            sources.append((str(item.source), str(target.with_suffix(".pyc")), f"/guest/{item.path}"))
        else:
            shutil.copyfile(item.source, target)
            target.chmod(0o755 if item.executable else 0o644)
    _compile(sources, progress)
    for directory, _, files in os.walk(tree):
        Path(directory).chmod(0o755)
        for name in files:
            if name.endswith(".pyc"):
                (Path(directory) / name).chmod(0o644)


def _compile(sources: list[tuple[str, str, str]], progress: Progress | None) -> None:
    interpreter = getattr(sys, "_base_executable", sys.executable)
    command = [interpreter, "-S", "-s", "-B", guest_compile.__file__]
    environment = {"PYTHONHASHSEED": _SEED, "LC_ALL": "C.UTF-8"}
    with subprocess.Popen(
        command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as compiler:
        assert compiler.stdin is not None and compiler.stdout is not None and compiler.stderr is not None  # noqa: S101 -- pipes
        json.dump(sources, compiler.stdin)
        compiler.stdin.close()
        for line in compiler.stdout:
            if progress is not None:
                progress.advance("guest stack: byte code", int(line), len(sources))
        complaint = compiler.stderr.read()
    if compiler.returncode != 0:
        raise PlatformError(
            "the guest stack cannot be built: a Python source does not compile",
            code="guest_build_failed",
            got=complaint[-400:],
        )


def _make(maker: str, tree: Path, file: Path) -> None:
    command = [maker, "--quiet", "-T0", "-x-1", "--all-root", "-U", UUID, str(file), str(tree)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        raise PlatformError(
            "mkfs.erofs failed", code="guest_build_failed", got=(made.stderr or made.stdout)[-400:].strip()
        )
