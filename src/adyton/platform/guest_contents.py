"""What goes into the guest stack, and from where on this machine: interpreter, libraries, OCI runtime, the agent's rooms.

The guest's root, mounted at ``/guest`` inside an instance::

    bin/python3, bin/runc            the interpreter that is running now (its base installation); Debian's runc
    share/containers/seccomp.json    the filter of system calls that podman uses by default
    lib/*.so*                        the dynamic linker and every shared library that anything here needs
    lib/python3.11/                  the standard library as byte code, without what no agent uses
    lib/python3.11/lib-dynload/      its extension modules
    lib/python3.11/                  beside it the rooms of Adyton that the agent needs, and the distributions those need

An instance has ``/lib``, ``/lib64`` and ``/usr/lib`` as links to ``/guest/lib``, so that linker and libraries are found
where every program looks for them, with no wrapper.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import adyton
from adyton.errors import PlatformError

ROOMS = (
    *("errors.py", "config.py", "__init__.py", "wire", "rats", "crypto", "protocol"),
    *("tee/__init__.py", "tee/deferred.py", "tee/remembered.py", "tee/steps.py", "tee/snp"),
    *("client", "image", "attesters", "agent"),
)
# What only brokers and verifiers of other TEEs use, with libraries of their own: an agent writes evidence, it judges none.
_LEFT_OUT = frozenset({"__pycache__", "cbor.py", "cose.py", "xmldsig.py", "grpc", "broker_attestation.py"})
DISTRIBUTIONS = ("cryptography", "cffi", "msgspec", "isal", "backports.zstd")
_UNUSED_MODULES = frozenset(
    {
        *("test", "tests", "idlelib", "tkinter", "turtledemo", "turtle.py", "ensurepip", "lib2to3", "pydoc_data"),
        *("site-packages", "dist-packages", "__pycache__", "lib-dynload", "distutils", "unittest", "venv", "msilib"),
        *("sqlite3", "dbm", "curses", "wsgiref", "xmlrpc", "pydoc.py", "doctest.py", "__phello__", "sitecustomize.py"),
    }
)
_UNUSED_EXTENSIONS = re.compile(
    r"(_test|_ctypes_test|_xxtest|xxlimited|_tkinter|_curses|_sqlite3|_dbm|_gdbm|readline|nis|ossaudiodev|spwd|_codecs_)"
)
_UNUSED_SUFFIXES = (".pyi", ".h", ".c", ".cpp", ".pyx", ".pxd", ".a", ".exe", ".txt", ".md", ".rst", ".typed", ".html")
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
_FILTER = Path("/usr/share/containers/seccomp.json")
_LIBRARY = re.compile(r"^\s*(?:(?P<name>\S+) => )?(?P<path>/\S+) \(0x[0-9a-f]+\)$")


@dataclass(frozen=True, slots=True)
class Item:
    """One file of the guest: its path in the guest, the file it comes from, and whether it is executable."""

    path: str
    source: Path
    executable: bool = False

    @property
    def compiled(self) -> bool:
        """Whether the guest holds its byte code instead."""
        return self.source.suffix == ".py"


def contents(runtime: Path | None = None) -> list[Item]:
    """Every file, by path. ``PlatformError`` names what is missing on this machine."""
    found = [*programs(runtime), *modules()]
    binaries = [item.source for item in found if item.executable or ".so" in item.source.name]
    items = [*found, *(Item(f"lib/{name}", path, True) for name, path in libraries(binaries))]
    return sorted({item.path: item for item in items}.values(), key=lambda item: item.path)


def programs(runtime: Path | None = None) -> Iterator[Item]:
    """The interpreter and the OCI runtime."""
    interpreter = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    yield Item("bin/python3", interpreter, True)
    if runtime is None:
        search = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"
        name = shutil.which("runc", path=search)
        if name is None:
            raise PlatformError(
                "the guest stack needs runc, the OCI runtime, and this machine has none",
                code="runtime_missing",
                hint="apt-get install --no-install-recommends runc",
            )
        runtime = Path(name)
    yield Item("bin/runc", runtime.resolve(), True)
    if not _FILTER.is_file():
        raise PlatformError(
            "the guest stack needs the default filter of system calls, and this machine has none",
            code="seccomp_missing",
            field=str(_FILTER),
            hint="apt-get install --no-install-recommends golang-github-containers-common",
        )
    yield Item("share/containers/seccomp.json", _FILTER)


def modules() -> Iterator[Item]:
    """The standard library, Adyton's rooms, and the distributions."""
    paths = sysconfig.get_paths(vars={"platbase": sys.base_prefix, "installed_platbase": sys.base_exec_prefix})
    standard = Path(paths["stdlib"])
    for path in _files(standard, _UNUSED_MODULES):
        if path.suffix == ".py" and not path.relative_to(standard).parts[0].startswith("config-"):
            yield Item(f"lib/{PYTHON}/{path.relative_to(standard)}", path)
    for path in sorted((standard / "lib-dynload").glob("*.so")):
        if not _UNUSED_EXTENSIONS.match(path.name):
            yield Item(f"lib/{PYTHON}/lib-dynload/{path.name}", path, True)
    packages = f"lib/{PYTHON}"  # not site-packages: the agent starts with -S, which saves importing site
    house = Path(adyton.__file__).parent
    for room in ROOMS:
        for path in [house / room] if room.endswith(".py") else _files(house / room, _LEFT_OUT):
            if path.suffix == ".py":
                yield Item(f"{packages}/adyton/{path.relative_to(house)}", path)
    for name in DISTRIBUTIONS:
        yield from _distribution(name, packages)


def _distribution(name: str, packages: str) -> Iterator[Item]:
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        if name == "backports.zstd" and sys.version_info >= (3, 14):  # in the standard library from then on
            return
        raise PlatformError(
            f"the guest stack needs the distribution {name}",
            code="distribution_missing",
            hint="set up the environment again: make setup",
        ) from None
    for entry in distribution.files or ():
        path = Path(str(distribution.locate_file(entry)))
        unwanted = ".." in entry.parts or "__pycache__" in entry.parts or entry.parts[0].endswith(".dist-info")
        if not unwanted and path.suffix not in _UNUSED_SUFFIXES and path.is_file():
            yield Item(f"{packages}/{entry}", path, path.suffix == ".so")


def libraries(binaries: Iterable[Path]) -> list[tuple[str, Path]]:
    """(soname, file) of every shared library that ``binaries`` need, the dynamic linker among them.

    ``PlatformError`` when one of them is not on this machine.
    """
    listed = subprocess.run(
        ["ldd", *map(str, binaries)],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.defpath, "LC_ALL": "C"},
    ).stdout
    found: dict[str, Path] = {}
    for line in listed.splitlines():
        if line.endswith("=> not found"):
            raise PlatformError(
                "a shared library that the guest stack needs is not on this machine",
                code="library_missing",
                field=line.split()[0],
                hint="find its package with: apt-file search NAME",
            )
        if match := _LIBRARY.match(line):
            path = Path(match["path"])
            found[Path(match["name"] or path).name] = path.resolve()
    if not any(name.startswith("ld-linux") for name in found):
        raise PlatformError(
            "the dynamic linker was not found: this machine's ldd says nothing that can be read",
            code="linker_missing",
            hint="the guest stack is built on Linux with glibc",
        )
    return sorted(found.items())


def _files(directory: Path, without: frozenset[str]) -> Iterator[Path]:
    """Every file below, sorted, leaving out names in ``without`` wherever they are."""
    for entry in sorted(directory.iterdir()):
        if entry.name in without:
            continue
        if entry.is_dir():
            yield from _files(entry, without)
        elif entry.is_file():
            yield entry
