"""The system-call filter: containers-common's default profile, put into the form that OCI runtimes read.

The profile file has conditions (architecture, capabilities, kernel) that the runtime-spec does not know; they are
decided here. A guest stack without the file runs workloads without a filter and says so.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import cast

from adyton.errors import ConfigError
from adyton.rats.types import JsonValue

_ARCHITECTURES = {"x86_64": ("amd64", "SCMP_ARCH_X86_64"), "aarch64": ("arm64", "SCMP_ARCH_AARCH64")}
Table = dict[str, JsonValue]


def load(profile: Path, capabilities: Collection[str]) -> JsonValue:
    """``linux.seccomp`` for this machine and these capabilities; ``None`` where there is no profile file.

    ``ConfigError`` for a file that is not such a profile: a filter that cannot be read must not become no filter.
    """
    machine = os.uname()
    if not profile.is_file() or machine.machine not in _ARCHITECTURES:
        return None
    try:
        document = json.loads(profile.read_bytes())
        return convert(document, machine.machine, _kernel(machine.release), capabilities)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError("the system-call filter cannot be read", code="seccomp_invalid", got=str(profile)) from error


def convert(document: Table, machine: str, kernel: tuple[int, int], capabilities: Collection[str]) -> Table:
    """The profile's rules that hold for ``machine``, ``kernel`` (major, minor) and ``capabilities``."""
    go_name, libseccomp_name = _ARCHITECTURES[machine]
    architectures = [libseccomp_name]
    for entry in cast("list[Table]", document["archMap"]):
        if entry["architecture"] == libseccomp_name:
            architectures += cast("list[str]", entry["subArchitectures"])
    rules: list[JsonValue] = []
    for rule in cast("list[Table]", document["syscalls"]):
        includes, excludes = (cast("Table", rule.get(name) or {}) for name in ("includes", "excludes"))
        if _holds(includes, go_name, kernel, capabilities) and not _hits(excludes, go_name, capabilities):
            kept: Table = {"names": rule["names"], "action": rule["action"]}
            if rule.get("args"):
                kept["args"] = [
                    {name: value for name, value in argument.items() if value is not None}
                    for argument in cast("list[Table]", rule["args"])
                ]
            if rule.get("errnoRet") is not None:
                kept["errnoRet"] = rule["errnoRet"]
            rules.append(kept)
    result: Table = {
        "defaultAction": document["defaultAction"],
        "architectures": list[JsonValue](architectures),
        "syscalls": rules,
    }
    if document.get("defaultErrnoRet") is not None:
        result["defaultErrnoRet"] = document["defaultErrnoRet"]
    return result


def _holds(condition: Table, machine: str, kernel: tuple[int, int], capabilities: Collection[str]) -> bool:
    arches = cast("list[str]", condition.get("arches") or [])
    needed = cast("list[str]", condition.get("caps") or [])
    oldest = condition.get("minKernel")
    return (
        (not arches or machine in arches)
        and all(name in capabilities for name in needed)
        and (oldest is None or kernel >= _kernel(str(oldest)))
    )


def _hits(condition: Table, machine: str, capabilities: Collection[str]) -> bool:
    arches = cast("list[str]", condition.get("arches") or [])
    refused = cast("list[str]", condition.get("caps") or [])
    return machine in arches or any(name in capabilities for name in refused)


def _kernel(release: str) -> tuple[int, int]:
    major, minor = release.split("-", maxsplit=1)[0].split(".")[:2]
    return int(major), int(minor)
