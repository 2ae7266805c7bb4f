"""in-toto's artifact rules: a queue of artifacts, rules that take some out, and two that fail (in-toto 0.9, 4.3.3).

Semantics and patterns are those of the reference implementation: shell globs in which ``*`` crosses slashes, keywords in
any case, ``REQUIRE`` with a literal name.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from adyton.provenance.values import refused

Artifacts = Mapping[str, Mapping[str, str]]
SPEC = "in-toto 0.9, 4.3.3"
_SIMPLE = frozenset({"create", "delete", "modify", "allow", "disallow", "require"})


class Rule(NamedTuple):
    """One rule. Only ``match`` has what stands after the pattern."""

    kind: str
    pattern: str
    source_prefix: str = ""
    other: str = ""
    other_prefix: str = ""
    step: str = ""


class Recorded(NamedTuple):
    """What a step's links agree on."""

    materials: Artifacts
    products: Artifacts


def parse(words: object, field: str) -> Rule:
    """A rule as a layout writes it: a list of texts; ``DocumentInvalid`` for any other."""
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words) or len(words) < 2:
        raise _malformed(field, words)
    kind, pattern = words[0].lower(), words[1]
    if kind in _SIMPLE and len(words) == 2:
        return Rule(kind, pattern)
    if kind != "match":
        raise _malformed(field, words)
    rest = list(words[2:])
    source_prefix, other_prefix = _prefix(rest), ""
    if len(rest) < 2 or rest[0].lower() != "with" or rest[1].lower() not in {"materials", "products"}:
        raise _malformed(field, words)
    other = rest[1].lower()
    del rest[:2]
    other_prefix = _prefix(rest)
    if len(rest) != 2 or rest[0].lower() != "from" or not rest[1]:
        raise _malformed(field, words)
    return Rule("match", pattern, source_prefix, other, other_prefix, rest[1])


def _prefix(rest: list[str]) -> str:
    if len(rest) >= 2 and rest[0].lower() == "in":
        prefix = rest[1]
        del rest[:2]
        return prefix
    return ""


def apply(rules: Sequence[Rule], step: str, kind: str, recorded: Mapping[str, Recorded]) -> None:
    """Run ``rules`` over the step's ``materials`` or ``products``; ``DocumentInvalid`` at the first that fails."""
    own = recorded[step]
    artifacts: Artifacts = getattr(own, kind)
    queue = set(artifacts)
    for rule in rules:
        chosen = {name for name in queue if fnmatchcase(name, rule.pattern)}
        if rule.kind == "disallow":
            if chosen:
                raise _broken(rule, step, kind, sorted(chosen)[:5])
        elif rule.kind == "require":
            if rule.pattern not in queue:
                raise _broken(rule, step, kind, "absent")
        elif rule.kind == "match":
            queue -= _matched(rule, queue, artifacts, recorded)
        else:
            queue -= {name for name in chosen if _takes(rule.kind, name, own)}


def _takes(kind: str, name: str, own: Recorded) -> bool:
    before, after = own.materials.get(name), own.products.get(name)
    if kind == "create":
        return before is None and after is not None
    if kind == "delete":
        return before is not None and after is None
    if kind == "modify":
        return before is not None and after is not None and before != after
    return True  # allow


def _matched(rule: Rule, queue: set[str], artifacts: Artifacts, recorded: Mapping[str, Recorded]) -> set[str]:
    other = recorded.get(rule.step)
    if other is None:
        return set()
    targets: Artifacts = getattr(other, rule.other)
    prefix = posixpath.join(rule.source_prefix, "") if rule.source_prefix else ""
    found = set()
    for name in queue:
        if not name.startswith(prefix):
            continue
        inner = name[len(prefix) :]
        target = posixpath.join(rule.other_prefix, inner) if rule.other_prefix else inner
        if fnmatchcase(inner, rule.pattern) and target in targets and artifacts[name] == targets[target]:
            found.add(name)
    return found


def _broken(rule: Rule, step: str, kind: str, got: object) -> Exception:
    return refused(
        f"the {kind} of step {step!r} break a rule of the layout",
        "in_toto_rule",
        field=f"{step}.expected_{kind}",
        expected=f"{rule.kind.upper()} {rule.pattern}",
        got=got,
        spec=SPEC,
    )


def _malformed(field: str, words: object) -> Exception:
    return refused("not an artifact rule", "in_toto_malformed", field=field, got=str(words)[:120], spec=SPEC)
