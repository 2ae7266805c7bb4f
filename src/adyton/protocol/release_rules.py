"""What a release demands beside its binding, as a tenant's owner writes it down: which attestation policy, which devices.

The document of kind ``requirements``, id ``release``::

    {"repositories": {"models": {"attestation": "models", "devices": {"gpu": 1}}}, "devices": {}, "attestation": "default"}

``attestation`` is the id of a set of policies, one for each class of evidence (``models_cpu``, ``models_gpu``); evidence
is appraised by those instead of ``default_cpu`` and its kin. ``devices`` is how many accepted devices of a class there
must be at least. Both may stand at the top for all of the tenant's resources, at a repository, and in a resource's own
binding: the nearest ``attestation`` counts, and of ``devices`` the most that any of them demands.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from adyton.errors import PolicyInvalid

DEFAULT_ID = "default"
DEVICE_CLASSES = frozenset({"gpu", "switch", "ppcie"})
MAX_REPOSITORIES = 1000
MAX_DEVICES = 64
POLICY_SET = re.compile(r"[A-Za-z0-9-](?:[A-Za-z0-9_.-]{0,99}[A-Za-z0-9-])?\Z")


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What one repository demands. ``attestation`` ``None``: nothing but what the tenant demands of all."""

    attestation: str | None = None
    devices: dict[str, int] = {}


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    repositories: dict[str, Rule] = {}
    attestation: str | None = None
    devices: dict[str, int] = {}


@dataclass(frozen=True, slots=True)
class Demand:
    """What one release demands: whose policies appraise, and how many devices of which class there must be."""

    attestation: str = DEFAULT_ID
    devices: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_usual(self) -> bool:
        """Whether what was decided when the evidence came is all there is to it."""
        return self.attestation == DEFAULT_ID and not self.devices


_NOTHING = Rule()


@dataclass(frozen=True, slots=True)
class ReleaseRules:
    """A tenant's rules."""

    all: Rule = _NOTHING
    repositories: Mapping[str, Rule] = field(default_factory=dict)

    def demand(
        self, repository: str, attestation: str | None = None, devices: Mapping[str, int] | None = None
    ) -> Demand:
        """What a resource of this repository demands whose binding says so much itself."""
        rule = self.repositories.get(repository)
        if rule is None and attestation is None and not devices and self is NONE:
            return USUAL
        found = dict(self.all.devices)
        for more in (rule.devices if rule else {}, devices or {}):
            for name, count in more.items():
                found[name] = max(count, found.get(name, 0))
        named = attestation or (rule.attestation if rule else None) or self.all.attestation or DEFAULT_ID
        return Demand(named, found)

    @property
    def policy_sets(self) -> frozenset[str]:
        """Every set of attestation policies that is named."""
        rules = (self.all, *self.repositories.values())
        return frozenset({rule.attestation for rule in rules if rule.attestation})


NONE = ReleaseRules()
USUAL = Demand()
_DECODER = msgspec.json.Decoder(_Document)


def parse(text: str) -> ReleaseRules:
    """The rules that a document says; ``PolicyInvalid`` for anything that is not such a document."""
    try:
        document = _DECODER.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise _invalid(
            "document", '{"repositories": {"models": {"attestation": "models"}}}', str(error)[:120]
        ) from error
    if len(document.repositories) > MAX_REPOSITORIES:
        raise _invalid("repositories", f"at most {MAX_REPOSITORIES}", len(document.repositories))
    every = Rule(document.attestation, document.devices)
    for rule in (every, *document.repositories.values()):
        problem = problem_of(rule.attestation, rule.devices)
        if problem is not None:
            raise _invalid(*problem)
    return ReleaseRules(every, document.repositories)


def problem_of(attestation: str | None, devices: Mapping[str, int]) -> tuple[str, object, object] | None:
    """What about these cannot be: field, expected, got; ``None`` if nothing."""
    if attestation is not None and not POLICY_SET.match(attestation):
        return "attestation", "letters, digits, '-' and inner '_' and '.'", attestation[:80]
    if not devices.keys() <= DEVICE_CLASSES:
        return "devices", sorted(DEVICE_CLASSES), sorted(devices)[:10]
    for count in devices.values():
        if not 1 <= count <= MAX_DEVICES:
            return "devices", f"1 to {MAX_DEVICES} of a class", count
    return None


def _invalid(field_: str, expected: object, got: object) -> PolicyInvalid:
    return PolicyInvalid(
        "these rules of release cannot be kept",
        code="release_rules_invalid",
        field=field_,
        expected=expected,
        got=got,
        hint="docs/policies.md shows such a document",
    )
