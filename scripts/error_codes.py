"""Write ``docs/reference/error-codes.md`` from the verifier's own source; a test fails when the two differ.

Every error of Adyton's carries ``code=``. This reads, without running it, where that is written: as a literal, or as the
parameter of a function that builds the error, whose callers then say the literal. Run it with the project's interpreter:
``.venv/bin/python scripts/error_codes.py``.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from adyton import errors

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCE = REPOSITORY / "src"
TARGET = REPOSITORY / "docs" / "reference" / "error-codes.md"

# Heading -> what is read for it, below src/adyton.
SECTIONS: dict[str, tuple[str, ...]] = {
    "Whatever the TEE": ("tee/__init__.py", "tee/recognise.py", "tee/composite.py", "rats/binding.py"),
    "Certificates, revocation lists and answers": (
        *("crypto/x509.py", "crypto/chain.py", "crypto/path.py", "crypto/ocsp.py", "crypto/cose.py"),
        *("crypto/xmldsig.py", "crypto/ecdsa.py", "crypto/sm2.py"),
    ),
    "`snp`": ("tee/snp",),
    "`sgx` and `tdx`": ("tee/dcap", "tee/sgx", "tee/tdx"),
    "`az-snp-vtpm` and `az-tdx-vtpm`": ("tee/az_vtpm",),
    "`tpm`": ("tee/tpm",),
    "Event logs": ("tee/eventlog",),
    "`nitro`": ("tee/nitro",),
    "`cca`": ("tee/cca",),
    "`csv`": ("tee/csv",),
    "`se`": ("tee/se",),
    "`nvidia`": ("tee/nvidia",),
    "`hyperenclave`": ("tee/hyperenclave",),
    "`sample` and `sampledevice`": ("tee/sample",),
}
# What is raised only by those who calculate measurements, issue or read other things than evidence: not a verdict's.
NOT_VERDICTS = {"measure.py", "firmware.py", "vmsa.py", "id_block.py", "eif.py", "sigstruct.py", "sev_certificate.py"}
# Roles whose names are made: of as many authorities as a document brings.
MORE_ROLES = {"`nitro`": ("instance", "zone", "region", *(f"ca{number}" for number in range(4, 8)))}
NOTE = {
    "`sgx` and `tdx`": "`tcb_info` and `qe_identity` are the two signed documents of Intel's.",
    "`az-snp-vtpm` and `az-tdx-vtpm`": "Besides those of `snp`, `sgx` and `tdx`, and `tpm`.",
    "`hyperenclave`": "Besides those of `tpm` for certificates, quotes and PCRs.",
}
# What a name stands for that only running the code would tell: module -> name -> values.
_DOCUMENTS: dict[str, tuple[str, ...]] = {"code": ("tcb_info", "qe_identity"), "name": ("tcb_info", "qe_identity")}
VALUES: dict[str, dict[str, tuple[str, ...]]] = {
    "adyton.tee.dcap.collateral": _DOCUMENTS,
    "adyton.tee.dcap.documents": _DOCUMENTS,
    "adyton.tee.dcap.signed_json": _DOCUMENTS,
    "adyton.tee.dcap.tcb_info": {"name": ("tcb_info",)},
    "adyton.tee.dcap.qe_identity": {"name": ("qe_identity",)},
    "adyton.tee.nvidia.manifests": {"source": ("driver", "vbios")},
}
HEAD = """# Error codes of the verifier

Written by `scripts/error_codes.py` from the source itself. Every error carries `code`, `field`, `expected`, `got`, `spec` (the section that asks for the check, given below) and `hint`;
`adyton evidence verify --json` prints them. Codes are stable, messages are not.

* `MalformedEvidence`: the bytes are not that evidence (exit status 2). Where a parser has no closer word, its code is `malformed_evidence`.
* `UnsupportedEvidence`: well-formed, but it cannot be verified with what was given (4).
* Any other `EvidenceError` (`SignatureInvalid`, `FreshnessFailed`, `BindingMismatch`): the attester's side is wrong (1).
* `EndorsementError` (`EndorsementMissing`, `…Malformed`, `…Expired`, `…Revoked`, `…Untrusted`): the endorser's data is wrong or missing (1).

`ROLE_` stands for the certificate that is meant: the roles are named with each TEE, so `leaf_sig`, `pck_ca_revoked`, `root_untrusted`. `spec` is then the section on that TEE's certificates.
`FIELD` is the name of the field, an ellipsis what the evidence brings with it.
"""
# Where the messages alone, whose parts differ from case to case, would say nothing.
MEANINGS = {
    "event_log_mismatch": "the log leads to another value than the quoted one; register and event are named",
    "tcb_info_validity": "the TCB info is not valid at this time",
    "qe_identity_validity": "the QE identity is not valid at this time",
}
MESSAGES = 3  # of one code
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Raised:
    """One error as it is written: expressions in the scope of ``home``, with ``bound`` for its parameters."""

    code: str
    kind: str
    message: str
    spec: str


@dataclass
class Module:
    """A file, its functions, and what its names stand for."""

    name: str
    tree: ast.Module
    functions: dict[str, Function] = field(default_factory=dict)
    imported: dict[str, tuple[str, str]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Module:
        """Parse a file; nothing of it runs."""
        name = ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
        module = cls(name, ast.parse(path.read_text(encoding="utf-8")))
        for node in ast.walk(module.tree):
            if isinstance(node, Function):
                module.functions[node.name] = node
            elif isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    module.imported[alias.asname or alias.name] = (node.module, alias.name)
        return module

    def constant(self, name: str) -> str | None:
        """The text that a name of the module stands for, or the name of the class."""
        value = getattr(importlib.import_module(self.name), name, None)
        return value if isinstance(value, str) else value.__name__ if isinstance(value, type) else None


def _calls(node: ast.AST) -> Iterator[ast.Call]:
    for inner in ast.walk(node):
        if isinstance(inner, ast.Call):
            yield inner


def _own_calls(function: Function) -> list[ast.Call]:
    """Calls in a function, those in functions inside it left to those."""
    inside = [node for node in ast.walk(function) if isinstance(node, Function) and node is not function]
    theirs = {id(call) for node in inside for call in _calls(node)}
    return [call for call in _calls(function) if id(call) not in theirs]


def _text(module: Module, node: ast.expr | None, bound: Mapping[str, str]) -> str:
    """What an expression says; what only running it would tell stands in angle brackets."""
    if node is None:
        return ""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(
            _text(module, part.value if isinstance(part, ast.FormattedValue) else part, bound) for part in node.values
        )
    if isinstance(node, ast.Name):
        return bound.get(node.id) or module.constant(node.id) or f"<{node.id}>"
    if isinstance(node, ast.Attribute):
        return f"<{node.attr}>"
    if isinstance(node, ast.IfExp):
        return f"{_text(module, node.body, bound)} or {_text(module, node.orelse, bound)}"
    if isinstance(node, ast.Subscript):
        return f"<{ast.unparse(node.slice)}>"
    return "<…>"


def _parameters(function: Function) -> list[str]:
    every = [*function.args.posonlyargs, *function.args.args]
    return [item.arg for item in every if item.arg not in {"self", "cls"}]


def _bind(module: Module, function: Function, call: ast.Call, bound: Mapping[str, str]) -> dict[str, str]:
    parameters = _parameters(function)
    found = {name: _text(module, value, bound) for name, value in zip(parameters, call.args, strict=False)}
    found |= {item.arg: _text(module, item.value, bound) for item in call.keywords if item.arg}
    return {name: value for name, value in found.items() if value != f"<{name}>"}


class Reader:
    """All modules that a verdict's errors come from."""

    def __init__(self) -> None:
        self.modules: dict[str, Module] = {}
        for part in ("crypto", "rats", "tee"):
            for path in sorted((SOURCE / "adyton" / part).rglob("*.py")):
                module = Module.read(path)
                self.modules[module.name] = module

    def errors(self, path: Path) -> list[Raised]:
        """Those of one file; a builder of errors is counted where it is called with a literal."""
        module = self.modules[".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")]
        found: list[Raised] = []
        for node in ast.walk(module.tree):
            if isinstance(node, Function):
                for call in _own_calls(node):
                    found += self._of_call(module, call, {}, 0)
        every = []
        for one in found:
            marks = [mark for mark in VALUES.get(module.name, ()) if f"<{mark}>" in one.code != f"<{mark}>"] or [""]
            for mark in marks:
                values = VALUES[module.name][mark] if mark else ()
                every += [replace(one, code=one.code.replace(f"<{mark}>", value)) for value in values] or [one]
        return [one for one in every if self._complete(one)]

    def _of_call(self, module: Module, call: ast.Call, bound: Mapping[str, str], depth: int) -> list[Raised]:
        given = {item.arg: item.value for item in call.keywords if item.arg}
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        if name == "error" and len(call.args) >= 3:  # of a certificate's role
            kind, suffix, message = (_text(module, value, bound) for value in call.args[:3])
            return [Raised(f"ROLE_{suffix}", kind, message, "")]
        if "code" in given and (name[:1].isupper() or name == "kind"):
            message = _text(module, call.args[0], bound) if call.args else ""
            kind = bound.get(name) or name
            return [Raised(_text(module, given["code"], bound), kind, message, _text(module, given.get("spec"), bound))]
        target = self._target(module, call.func)
        if target is None or depth > 3:
            return []
        home, function = target
        inner = _bind(module, function, call, bound)
        if not inner:
            return []
        found = []
        for deeper in _own_calls(function):
            for one in self._of_call(home, deeper, inner, depth + 1):
                plain = self._of_call(home, deeper, {}, depth + 1)
                if one not in plain:  # it is this caller who says which
                    found.append(one)
        return found

    def _target(self, module: Module, called: ast.expr) -> tuple[Module, Function] | None:
        if isinstance(called, ast.Name):
            if called.id in module.functions:
                return module, module.functions[called.id]
            where, name = module.imported.get(called.id, ("", ""))
            home = self.modules.get(where)
            return (home, home.functions[name]) if home and name in home.functions else None
        if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name):
            if called.value.id in {"self", "cls"} and called.attr in module.functions:
                return module, module.functions[called.attr]
            where, name = module.imported.get(called.value.id, ("", ""))
            home = self.modules.get(f"{where}.{name}")
            return (home, home.functions[called.attr]) if home and called.attr in home.functions else None
        return None

    @staticmethod
    def _complete(one: Raised) -> bool:
        kind = getattr(errors, one.kind, object)
        if not issubclass(kind, errors.EvidenceError | errors.EndorsementError):
            return False  # what the owner of a document or a peer is told
        return not re.search(r"<(code|field|kind)>", one.code)

    def roles(self, path: Path) -> list[str]:
        """Which certificates and lists a file gives names to."""
        module = self.modules[".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")]
        found: list[str] = []
        for statement in ast.walk(module.tree):
            if isinstance(statement, ast.Assign | ast.Return | ast.AnnAssign) and any(
                getattr(call.func, "id", "") == "Role" for call in _calls(statement)
            ):
                texts = [node.value for node in ast.walk(statement) if isinstance(node, ast.Constant)]
                found += [text for text in texts if isinstance(text, str) and re.fullmatch("[a-z_]+", text)]
        return [name for name in dict.fromkeys(found) if name not in {"snp", "sgx", "tdx"}]


def _files(part: str) -> list[Path]:
    base = SOURCE / "adyton" / part
    return [base] if base.is_file() else [path for path in sorted(base.glob("*.py")) if path.name not in NOT_VERDICTS]


def _plain(text: str) -> str:
    text = re.sub(r"<[^>]*>", "…", text).replace("|", "\\|")
    return "" if not text.strip("…: ") else text


def _row(code: str, every: list[Raised]) -> str:
    kinds = ", ".join(dict.fromkeys(f"`{one.kind}`" for one in every))
    messages = list(dict.fromkeys(filter(None, (_plain(one.message) for one in every))))
    # Where one has a part that differs from case to case, the cases themselves say more.
    closer = [text for text in messages if not text.endswith("…")] or messages
    if code in MEANINGS:
        closer = [MEANINGS[code]]
    shown = "; ".join(closer[:MESSAGES]) + ("; …" if len(closer) > MESSAGES else "")
    specs = ", ".join(dict.fromkeys(one.spec for one in every if one.spec and "<" not in one.spec))
    return f"| `{code}` | {kinds} | {shown} | {specs} |"


def render() -> str:
    """The whole document."""
    reader = Reader()
    lines = [HEAD]
    for heading, parts in SECTIONS.items():
        files = [path for part in parts for path in _files(part)]
        by_code: dict[str, list[Raised]] = {}
        for path in files:
            for one in reader.errors(path):
                prefix = "ROLE_" if one.code.startswith("ROLE_") else ""
                either = one.code.removeprefix("ROLE_").split(" or ")
                each = one.message.split(" or ") if len(either) > 1 else [one.message]
                for code, message in zip(either, each, strict=True):
                    place = by_code.setdefault(prefix + re.sub("<[^>]*>", "FIELD", code), [])
                    place.append(replace(one, message=message))
        for code in [code for code in by_code if "FIELD" in code and code != "malformed_FIELD"]:
            if any(re.fullmatch(code.replace("FIELD", ".+"), other) for other in by_code if other != code):
                del by_code[code]  # its cases are there
        lines += [f"## {heading}", ""]
        if heading in NOTE:
            lines += [NOTE[heading], ""]
        roles = list(dict.fromkeys([role for path in files for role in reader.roles(path)]))
        roles += MORE_ROLES.get(heading, ())
        if roles:
            lines += [f"Roles: {', '.join(f'`{role}`' for role in roles)}.", ""]
        if by_code:
            lines += ["| code | error | what is wrong | asked for by |", "|---|---|---|---|"]
            lines += [_row(code, by_code[code]) for code in sorted(by_code)]
            lines.append("")
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
