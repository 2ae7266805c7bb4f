"""Cases of an ``evidence-vectors/1`` manifest: run one, and say in what it differs from what the manifest expects.

One module for each TEE, by explicit table, and in it one function for each kind of case. A kind without one is not passed
over: it is reported as differing.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adyton.cli.files import read
from adyton.cli.vectors.case import Case, Got
from adyton.errors import AdytonError, ConfigError, UnsupportedEvidence
from adyton.rats.types import JsonValue

_MAX_FILE = 1 << 30  # a guest's initial RAM disk can be as large as that
NOT_SUPPORTED = "not supported"
_UNCOMPARED = ("failure", "note")  # members of `expected` that say why, not what
# The manifest's name of a TEE -> the module with ``RUNNERS``, kind of case -> function.
_MODULES = {
    "azure-vtpm": "adyton.cli.vectors.azure",
    "csv": "adyton.cli.vectors.csv",
    "ibm-se": "adyton.cli.vectors.se",
    "cca": "adyton.cli.vectors.cca",
    "nitro": "adyton.cli.vectors.nitro",
    "measure": "adyton.cli.vectors.measure",
    "roots": "adyton.cli.vectors.roots",
    "nvidia": "adyton.cli.vectors.nvidia",
    "sgx": "adyton.cli.vectors.dcap",
    "snp": "adyton.cli.vectors.snp",
    "tdx": "adyton.cli.vectors.dcap",
    "tpm": "adyton.cli.vectors.tpm",
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """A case with what came out of it."""

    entry: Mapping[str, Any]
    got: dict[str, JsonValue]
    differs: list[str]

    @property
    def ok(self) -> bool:
        """Whether nothing differs."""
        return not self.differs

    @property
    def supported(self) -> bool:
        """Whether Adyton knows this kind of case."""
        return self.got["outcome"] != NOT_SUPPORTED

    def as_dict(self) -> dict[str, JsonValue]:
        """The line that ``--json`` prints."""
        return {
            "id": self.entry["id"],
            "tee": self.entry["tee"],
            "kind": self.entry["kind"],
            "ok": self.ok,
            "expected": self.entry["expected"],
            "got": self.got,
            "differs": [*self.differs],
        }


def run(manifest: Mapping[str, Any], folder: Path, entry: Mapping[str, Any]) -> Outcome:
    """Run one case. Whatever an unreadable or changed file is, it makes the case differ."""
    runner = _runner(entry["tee"], entry["kind"])
    if runner is None:
        return Outcome(entry, {"outcome": NOT_SUPPORTED}, ["expected.outcome"])
    files: dict[str, bytes] = {}
    lists: dict[str, tuple[bytes, ...]] = {}
    for role, names in entry["files"].items():
        contents = []
        for name in names if isinstance(names, list) else [names]:
            try:
                contents.append(read(folder / name, _MAX_FILE))
            except (ConfigError, TypeError) as error:  # no text
                reason = error.message if isinstance(error, ConfigError) else "not a file's name"
                return Outcome(entry, {"outcome": "unreadable", "file": name, "reason": reason}, [f"files.{role}"])
            entry_of_file = manifest.get("files", {}).get(name)
            listed = entry_of_file.get("sha256") if isinstance(entry_of_file, dict) else None
            if listed is not None and hashlib.sha256(contents[-1]).hexdigest() != listed:
                return Outcome(entry, {"outcome": "changed", "file": name}, [f"files.{role}"])
        if isinstance(names, list):
            lists[role] = tuple(contents)
        else:
            files[role] = contents[0]
    case = Case(entry, files, lists)
    got = Got({"outcome": "valid"}, {})
    try:
        runner(case, got)
    except AdytonError as error:
        got.members["outcome"] = "unsupported" if isinstance(error, UnsupportedEvidence) else "invalid"
        got.members["failure"] = error.code
        got.members["failure_detail"] = error.message
    except (LookupError, TypeError, ValueError) as error:  # the case lacks what its kind needs, or has it wrong
        return Outcome(entry, {"outcome": "malformed case", "reason": f"{type(error).__name__}: {error}"}, ["case"])
    return _compare(case, got)


def _runner(tee: str, kind: str) -> Callable[[Case, Got], None] | None:
    module = _MODULES.get(tee)
    if module is None:
        return None
    runners: dict[str, Callable[[Case, Got], None]] = importlib.import_module(module).RUNNERS
    return runners.get(kind)


def _compare(case: Case, got: Got) -> Outcome:
    expected = {"outcome": None, **case.entry["expected"]}  # a case that expects nothing would pass whatever comes
    differs = [
        f"expected.{name}"
        for name, value in expected.items()
        if not name.startswith(_UNCOMPARED) and got.members.get(name) != value
    ]
    differs += [f"claims.{name}" for name, value in case.claims.items() if got.claims.get(name) != value]
    claims = {name: got.claims.get(name) for name in case.claims}
    return Outcome(case.entry, {**got.members, **({"claims": claims} if claims else {})}, differs)
