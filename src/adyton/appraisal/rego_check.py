"""Which Rego a broker accepts, and what of its input a policy reads (contracts, 5). On doubt, refuse.

``check`` looks at the words of a policy, not at what it means: every call must name a function of the policy itself or
one of ``builtins.ALLOWED``; ``data`` may only be what the broker supplies; ``with`` and imports that could rename
things are refused; nesting is bounded. What passes is still evaluated by a process that may be killed (broker/policy/rego.py).

The accepted text is written anew for the engine, word by word, for three reasons. Its strings become canonical JSON,
because the engine compares strings by their escaped text. ``input`` and the supplied ``data`` become two members of one
value, which the engine takes without parsing and without compiling anew. And comments go.

``paths`` are the places in ``input`` that the policy reads, if all are static: then its result depends on nothing but
the values there and the data, and may be remembered. ``None`` means that this cannot be told. Of a place in ``tests``,
which stands alone as a condition (``input.snp`` on its line), it matters only whether something is there and of what kind.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field

from adyton.appraisal.builtins import ALLOWED, FORBIDDEN_PLAIN, REFERENCE_FUNCTION
from adyton.appraisal.rego_scan import Token, refused, scan
from adyton.errors import PolicyInvalid

MAX_SIZE = 256 * 1024
MAX_DEPTH = 64
MAX_PATHS = 200
PACKAGE = "policy"
ATTESTATION_DATA = frozenset({"reference"})
RESOURCE_DATA = frozenset({"reference", "plugin", "resource-path", "query"})

_KEYWORDS = frozenset(
    [
        "as",
        "default",
        "else",
        "every",
        "false",
        "if",
        "import",
        "in",
        "not",
        "null",
        "package",
        "some",
        "true",
        "with",
    ]
)
_VALUES = frozenset({"true", "false", "null"})
_INFIX = frozenset({"in", "as", "with", "if", "else", "contains"})
_OPEN, _CLOSE = "([{", ")]}"
_IMPORTS = ("rego.v1", "future.keywords")

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class AcceptedPolicy:
    """A policy that may be evaluated. ``digest`` is SHA-256 of ``text`` in hex; ``engine_text`` is what is evaluated."""

    text: str = field(repr=False)
    digest: str
    engine_text: str = field(repr=False)
    paths: tuple[Path, ...] | None
    tests: tuple[Path, ...]
    calls: frozenset[str]

    @property
    def may_be_remembered(self) -> bool:
        """Whether its result depends on nothing but the data and the values at ``paths``."""
        return self.paths is not None


def check(text: str, data: frozenset[str] = ATTESTATION_DATA) -> AcceptedPolicy:
    """Accept ``text`` or raise ``PolicyInvalid``. ``data`` names what the broker supplies below ``data``."""
    try:
        encoded = text.encode()
    except UnicodeEncodeError as error:
        raise PolicyInvalid("the policy is not UTF-8 text", code="policy_refused") from error
    if not 0 < len(encoded) <= MAX_SIZE:
        raise PolicyInvalid(
            f"a policy has 1 to {MAX_SIZE} bytes", code="policy_too_large", expected=MAX_SIZE, got=len(encoded)
        )
    return _Checker(text, scan(text), data).run()


class _Checker:
    def __init__(self, text: str, tokens: list[Token], data: frozenset[str]) -> None:
        self.text = text
        self.tokens = tokens
        self.data = data
        self.paths: set[Path] | None = set()
        self.tests: set[Path] = set()
        self.calls: set[str] = set()
        self.bodies: list[bool] = []  # for each token: whether the bracket around it is the body of a rule
        self.functions = _functions(tokens)
        self.out: list[str] = []

    def run(self) -> AcceptedPolicy:
        self._package()
        self._depth()
        for taken in sorted(self.functions & FORBIDDEN_PLAIN):
            raise refused("a function of its own that has a builtin's name", None, got=taken)
        index = 0
        while index < len(self.tokens):
            index = self._step(index)
        return AcceptedPolicy(
            text=self.text,
            digest=hashlib.sha256(self.text.encode()).hexdigest(),
            engine_text="".join(self.out) + "\n",
            paths=tuple(sorted(self.paths, key=repr)) if self.paths is not None else None,
            tests=tuple(sorted(self.tests, key=repr)),
            calls=frozenset(self.calls),
        )

    def _package(self) -> None:
        first = self.tokens[:2]
        if [token.text for token in first] != ["package", PACKAGE] or any(token.kind != "name" for token in first):
            raise refused(f"to begin with: package {PACKAGE}", 1, code="policy_package")
        if self._sign(2, "."):
            raise refused(f"to be in package {PACKAGE}, not below it", 1, code="policy_package")

    def _depth(self) -> None:
        stack: list[tuple[str, bool]] = []
        for index, token in enumerate(self.tokens):
            self.bodies.append(bool(stack) and stack[-1][1])
            if token.kind != "sign":
                continue
            if token.text in _OPEN:
                before = self.tokens[index - 1]
                stack.append((token.text, token.text == "{" and before.kind == "name" and before.text == "if"))
                if len(stack) > MAX_DEPTH:
                    raise refused(f"brackets nested deeper than {MAX_DEPTH}", token.line, code="policy_too_deep")
            elif token.text in _CLOSE and (not stack or _OPEN.index(stack.pop()[0]) != _CLOSE.index(token.text)):
                raise refused("brackets that do not match", token.line)
        if stack:
            raise refused("brackets that are not closed", self.tokens[-1].line)

    def _step(self, index: int) -> int:
        """Judge the token at ``index`` and write it for the engine; returns the index of the next one to look at."""
        token = self.tokens[index]
        if token.kind == "string":
            self._write(token, json.dumps(token.text, ensure_ascii=False))
            return index + 1
        if token.kind == "sign":
            if token.text == "(":
                self._call(index)
            self._write(token)
            return index + 1
        if token.kind == "name" and not self._sign(index - 1, "."):
            if token.text == "with":
                raise refused("'with', which would replace input, data or functions", token.line)
            if token.text == "import":
                return self._import(index)
            if token.text == "input":
                return self._input(index)
            if token.text == "data":
                return self._data(index)
            if token.text == REFERENCE_FUNCTION and not self._sign(index + 1, "("):
                raise refused(f"a rule or variable named {REFERENCE_FUNCTION}", token.line)
            if token.text == "package" and index:
                raise refused("a second package", token.line)
        self._write(token)
        return index + 1

    def _call(self, index: int) -> None:
        """The parenthesis at ``index``: grouping, or a call of something that may be called."""
        if not index:
            raise refused("a parenthesis at its start", 1)
        before = self.tokens[index - 1]
        if before.kind == "sign" and before.text not in ")]}":
            return
        if before.kind != "name":
            raise refused("a call of something that is not a plain name", before.line)
        first = index - 1
        names = [before.text]
        while self._sign(first - 1, "."):
            first -= 2
            if first < 0 or self.tokens[first].kind != "name":
                raise refused("a call of something that is not a plain name", before.line)
            names.append(self.tokens[first].text)
        name = ".".join(reversed(names))
        if name in _KEYWORDS:
            if name in _VALUES:
                raise refused("a call of something that is not a plain name", before.line, got=name)
            return
        local = name.removeprefix(f"data.{PACKAGE}.")
        if name in ALLOWED or name == REFERENCE_FUNCTION:
            self.calls.add(name)
        elif "." in local or local in FORBIDDEN_PLAIN or local not in self.functions:
            raise refused(
                "a function that policies may not call", before.line, code="policy_builtin_forbidden", got=name[:80]
            )

    def _import(self, index: int) -> int:
        """Only the imports that choose the language; others would give things another name."""
        names: list[str] = []
        end = index + 1
        while end < len(self.tokens) and self.tokens[end].kind == "name":
            names.append(self.tokens[end].text)
            end += 1
            if not self._sign(end, "."):
                break
            end += 1
        name = ".".join(names)
        allowed = name in _IMPORTS or (name.startswith("future.keywords.") and name.count(".") == 2)
        renames = end < len(self.tokens) and self.tokens[end].kind == "name" and self.tokens[end].text == "as"
        if not allowed or renames or self._sign(end, "["):
            raise refused(
                "an import that is not allowed: write input… and data… in full", self.tokens[index].line, got=name
            )
        for token in self.tokens[index:end]:
            self._write(token)
        return end

    def _input(self, index: int) -> int:
        end, path, dynamic = self._path(index + 1)
        if dynamic or not path:
            self.paths = None
        elif self._stands_alone(index, end):
            self.tests.add(path)
        elif self.paths is not None:
            self.paths.add(path)
            if len(self.paths) > MAX_PATHS:
                self.paths = None
        self._write(self.tokens[index], "input.i")
        return self._copy_path(index + 1, end)

    def _stands_alone(self, index: int, end: int) -> bool:
        """Whether the words from ``index`` to ``end`` are a whole condition in the body of a rule."""
        if not self.bodies[index] or end >= len(self.tokens) or len(self.tests) >= MAX_PATHS:
            return False
        before, after = self.tokens[index - 1], self.tokens[end]
        begins = (before.kind == "sign" and before.text in "{;") or (
            "\n" in self.tokens[index].space
            and (
                before.kind in {"number", "string"}
                or (before.kind == "sign" and before.text in _CLOSE)
                or _is_value(before)
            )
        )
        ends = (after.kind == "sign" and after.text in "};") or (
            "\n" in after.space and after.kind == "name" and after.text not in _INFIX
        )
        return begins and ends

    def _data(self, index: int) -> int:
        token = self.tokens[index]
        end, path, _ = self._path(index + 1)
        root = path[0] if path else None
        if root == PACKAGE and len(path) > 1:
            self._write(token)
            return self._copy_path(index + 1, end)
        if root not in self.data:
            known = ", ".join(sorted(f"data.{name}" for name in self.data))
            raise refused(f"a use of data other than {known}", token.line, got=f"data.{root}"[:80] if root else "data")
        self._write(token, "input.d")
        return self._copy_path(index + 1, end)

    def _path(self, index: int) -> tuple[int, Path, bool]:
        """The static path from ``index`` on: where it ends, its parts, and whether it goes on by a computed one."""
        parts: list[str | int] = []
        while index < len(self.tokens):
            if self._sign(index, ".") and index + 1 < len(self.tokens) and self.tokens[index + 1].kind == "name":
                parts.append(self.tokens[index + 1].text)
                index += 2
            elif self._sign(index, "[") and "\n" not in self.tokens[index].space:
                inner = self.tokens[index + 1] if index + 1 < len(self.tokens) else None
                if inner is None or not self._sign(index + 2, "]") or inner.kind not in {"string", "number"}:
                    return index, tuple(parts), True
                if inner.kind == "number" and not inner.text.isdigit():
                    return index, tuple(parts), True
                parts.append(inner.text if inner.kind == "string" else int(inner.text))
                index += 3
            else:
                break
        return index, tuple(parts), False

    def _copy_path(self, index: int, end: int) -> int:
        for token in self.tokens[index:end]:
            self._write(token, json.dumps(token.text, ensure_ascii=False) if token.kind == "string" else token.text)
        return end

    def _sign(self, index: int, text: str) -> bool:
        return 0 <= index < len(self.tokens) and self.tokens[index].kind == "sign" and self.tokens[index].text == text

    def _write(self, token: Token, text: str | None = None) -> None:
        self.out.append(token.space)
        self.out.append(token.text if text is None else text)


def _is_value(token: Token) -> bool:
    return token.kind == "name" and (token.text not in _KEYWORDS or token.text in _VALUES)


def _functions(tokens: list[Token]) -> frozenset[str]:
    """The functions that a policy defines: a name that stands first in a line, outside all brackets, before a (."""
    found = set()
    depth = 0
    for index, token in enumerate(tokens[:-1]):
        if token.kind == "sign":
            depth += (token.text in _OPEN) - (token.text in _CLOSE)
        elif token.kind == "name" and depth == 0 and tokens[index + 1].text == "(" and tokens[index + 1].kind == "sign":
            previous = tokens[index - 1] if index else None
            if "\n" in token.space or (previous is not None and previous.text == "default"):
                found.add(token.text)
    return frozenset(found)
