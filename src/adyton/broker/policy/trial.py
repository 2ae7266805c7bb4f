"""What would change: recorded decisions under the policy that decides and under a candidate. Decides nothing.

Both are asked about the same recorded evidence with the same reference values. Used by the broker on what it recorded, and
by the command line on files.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from adyton.appraisal import counterfactual
from adyton.appraisal.counterfactual import Path
from adyton.appraisal.rego_check import ATTESTATION_DATA, RESOURCE_DATA, AcceptedPolicy, check
from adyton.broker.policy.afterwards import floored
from adyton.broker.policy.concluding import conclusion
from adyton.broker.policy.policies import ATTESTATION_RULES, RESOURCE_POLICY, RESOURCE_RULES
from adyton.broker.policy.rego import RegoEngine
from adyton.errors import AdytonError, MalformedRequest, PolicyInvalid
from adyton.protocol.audit_row import PolicyUsed, shown
from adyton.protocol.policies import Cause, TestReport, Trial
from adyton.protocol.recording import Appraised, Asked, Recording
from adyton.rats.result import ELEMENTS, Tier, TrustVector
from adyton.rats.types import JsonValue

MAX_EXPLAINED = 20
MAX_TRIALS = 1000
MAX_CAUSES = 8
_SORTED = msgspec.json.Encoder(order="sorted")
_ALLOW, _DENY = "allow", "deny"
_RANK = {Tier.AFFIRMING: 0, Tier.NONE: 1, Tier.WARNING: 2, Tier.CONTRAINDICATED: 3}  # nothing known releases nothing


@dataclass(frozen=True, slots=True)
class Named:
    """A policy's text and what it is called; ``text`` ``None``: none is in force."""

    used: PolicyUsed
    text: str | None


class _Over(Exception):
    """The time for this trial is over."""


class Bench:
    """Tries one candidate. ``references`` are the values that hold, by name; ``seconds`` how long it may take in all."""

    def __init__(  # noqa: PLR0917 -- one value each
        self,
        engine: RegoEngine,
        kind: str,
        policy_id: str,
        now: Named,
        candidate: Named,
        references: Mapping[str, JsonValue],
        *,
        seconds: float = float("inf"),
    ) -> None:
        if kind not in {"attestation", "resource"}:
            raise MalformedRequest(
                "requirements are not tried", code="policy_name_invalid", field="kind", got=kind[:40]
            )
        self._engine = engine
        self._seconds, self._end = seconds, time.monotonic() + seconds
        self._kind, self._id = kind, policy_id
        self._now, self._candidate = now, candidate
        self._data: dict[str, JsonValue] = {"reference": dict(references)}
        self._references = references
        self._key = hashlib.sha256(_SORTED.encode(references)).hexdigest()
        data = RESOURCE_DATA if kind == "resource" else ATTESTATION_DATA
        self._rules: tuple[str, ...] = RESOURCE_RULES if kind == "resource" else ATTESTATION_RULES
        self._before = check(now.text, data) if now.text is not None else None
        self._after = check(candidate.text or "", data)
        engine.compile(self._after, self._rules)
        self._others: list[Mapping[str, JsonValue]] = []

    def run(self, recordings: Sequence[Recording]) -> TestReport:
        """Every recording that the policy had its say in, those that change first; ``PolicyInvalid`` if time runs out."""
        try:
            return self._run(recordings)
        except _Over:
            raise PolicyInvalid(
                "trying this policy takes too long",
                code="policy_test_too_long",
                expected=f"{self._seconds:g} s",
                hint="try it on fewer decisions (--limit), or without a broker on a file of them",
            ) from None

    def _run(self, recordings: Sequence[Recording]) -> TestReport:
        concerned = [one for one in recordings if self._concerns(one)]
        self._others = [part.input for one in concerned[:50] for part in one.appraised if self._mine(part)]
        self._others += [one.asked.claims for one in concerned[:50] if one.asked is not None]
        trials, better, worse, explained = [], 0, 0, 0
        for one in concerned:
            trial, way = self._attestation(one) if one.asked is None else self._release(one, one.asked)
            better, worse = better + (way < 0), worse + (way > 0)
            if trial.changed and explained < MAX_EXPLAINED:
                explained += 1
                trial = msgspec.structs.replace(trial, causes=tuple(self._causes(one)))
            trials.append(trial)
        trials.sort(key=lambda trial: trial.same)
        return TestReport(
            now=self._now.used,
            candidate=self._candidate.used,
            tried=len(trials),
            same=sum(trial.same for trial in trials),
            better=better,
            worse=worse,
            failed=sum(bool(trial.error) for trial in trials),
            trials=tuple(trials[:MAX_TRIALS]),
        )

    def _mine(self, part: Appraised) -> bool:
        return self._id.endswith(f"_{part.tee_class}")

    def _concerns(self, one: Recording) -> bool:
        if one.asked is None:
            return self._kind == "attestation" and any(map(self._mine, one.appraised))
        if self._kind != "resource":
            return False
        named = [used.id for used in one.policies if used.kind == "resource"]
        return self._id == RESOURCE_POLICY or not named or self._id in named

    def _attestation(self, one: Recording) -> tuple[Trial, int]:
        now, then, changed, error, way = [Tier.NONE], [Tier.NONE], [], "", 0
        for part in one.appraised:
            recorded = TrustVector(part.vector or (0,) * len(ELEMENTS))
            if not self._mine(part):
                now.append(recorded.status)
                then.append(recorded.status)
                continue
            try:
                before, after = (
                    self._vector(self._before, part, part.input),
                    self._vector(self._after, part, part.input),
                )
            except AdytonError as failed:
                error = f"{failed.code}: {failed.message}"
                continue
            now.append(before.status)
            then.append(after.status)
            way = max(way, _way(before, after), key=lambda one: (one > 0, one < 0))
            changed += [
                f"{part.name}.{element}: {old} -> {new}"
                for (element, old), (_, new) in zip(before.items(), after.items(), strict=True)
                if old != new
            ]
        first, second = max(now), max(then)
        subject = ", ".join(_subject(part) for part in one.appraised)
        trial = Trial(
            one.number, one.time, subject, first.text, second.text, tuple(changed), sequence=one.sequence, error=error
        )
        return trial, way

    def _release(self, one: Recording, asked: Asked) -> tuple[Trial, int]:
        now = then = ""
        error = ""
        try:
            now, then = self._allows(self._before, asked, asked.claims), self._allows(self._after, asked, asked.claims)
        except AdytonError as failed:
            error = f"{failed.code}: {failed.message}"
        changed = (f"allow: {now} -> {then}",) if now != then else ()
        trial = Trial(
            one.number, one.time, "/".join(asked.path), now, then, changed, sequence=one.sequence, error=error
        )
        return trial, (now != then) * (1 if then == _DENY else -1)

    def _vector(self, policy: AcceptedPolicy | None, part: Appraised, document: Mapping[str, JsonValue]) -> TrustVector:
        if policy is None:
            return TrustVector.of({})
        self._in_time()
        results = self._engine.evaluate(policy, self._rules, document, self._data, self._key)
        return floored(conclusion(results)[0], part)

    def _allows(self, policy: AcceptedPolicy | None, asked: Asked, claims: Mapping[str, JsonValue]) -> str:
        if policy is None:  # no tenant's policy narrows nothing; a policy that a resource names and is not there, all
            return _ALLOW if self._id == RESOURCE_POLICY else _DENY
        self._in_time()
        path: list[JsonValue] = [*asked.path]
        query: dict[str, JsonValue] = dict(asked.query)
        data: dict[str, JsonValue] = {**self._data, "plugin": "resource", "resource-path": path, "query": query}
        key = (self._key, *asked.path, repr(sorted(asked.query.items())))
        return _ALLOW if self._engine.evaluate(policy, self._rules, claims, data, key)["allow"] is True else _DENY

    def _in_time(self) -> None:
        if time.monotonic() > self._end:
            raise _Over

    def _causes(self, one: Recording) -> Iterable[Cause]:
        paths: list[Path] = [
            path for policy in (self._after, self._before) for path in (policy.paths if policy else None) or ()
        ]
        found: list[tuple[Path, JsonValue]] = []
        if one.asked is not None:
            asked = one.asked
            first = self._allows(self._before, asked, asked.claims)

            def alike(document: Mapping[str, JsonValue]) -> bool:
                harsher = self._after if first == _ALLOW else self._before
                return self._quiet(harsher, asked, document) == _ALLOW

            found = counterfactual.causes(asked.claims, paths, self._others, self._references, alike)
        for part in filter(self._mine, one.appraised):
            before, after = self._vector(self._before, part, part.input), self._vector(self._after, part, part.input)

            def agree(
                document: Mapping[str, JsonValue],
                part: Appraised = part,
                sides: tuple[TrustVector, ...] = (before, after),
            ) -> bool:
                try:
                    other = self._vector(self._after, part, document), self._vector(self._before, part, document)
                except AdytonError:
                    return False
                way = _way(*sides)  # what would have to be otherwise for the harsher one to be as kind as the other
                kind = way >= 0 and sides[0].values == other[0].values
                return kind or (way <= 0 and sides[1].values == other[1].values)

            found += counterfactual.causes(part.input, paths, self._others, self._references, agree)
        return [Cause(counterfactual.written(path), shown(got)) for path, got in found[:MAX_CAUSES]]

    def _quiet(self, policy: AcceptedPolicy | None, asked: Asked, document: Mapping[str, JsonValue]) -> str:
        try:
            return self._allows(policy, asked, document)
        except AdytonError:
            return ""


def _way(before: TrustVector, after: TrustVector) -> int:
    """1 if anything is worse off, -1 if things are only better off, 0 if every element stays in its tier."""
    ranks = [(_RANK[Tier.of(old)], _RANK[Tier.of(new)]) for old, new in zip(before.values, after.values, strict=True)]
    if any(new > old for old, new in ranks):
        return 1
    return -1 if any(new < old for old, new in ranks) else 0


def _subject(part: Appraised) -> str:
    own = part.input.get("adyton")
    measurement = own.get("measurement") if isinstance(own, dict) else ""
    return f"{part.name} {part.tee} {str(measurement)[:16]}".rstrip()
