"""What appraisal gives: AR4SI trustworthiness vectors and the attestation result (draft-ietf-rats-ar4si, EAR).

A result never says merely "no": it carries every mismatch that was found, for the owner's eyes. Adyton uses AR4SI's
values 0 to 127; the negative half of the scale is refused where a policy gives it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum

import msgspec

from adyton.rats.types import JsonValue, RootKind

ELEMENTS = (
    "instance-identity",
    "configuration",
    "executables",
    "file-system",
    "hardware",
    "runtime-opaque",
    "storage-opaque",
    "sourced-data",
)
_INDEX = {name: index for index, name in enumerate(ELEMENTS)}
DEVELOPMENT_HARDWARE = 32
"""The least bad value of ``hardware`` for evidence under a root without hardware behind it (contracts, 3)."""


class Tier(IntEnum):
    """AR4SI's tiers, ordered from best known to worst; the worst element of a vector is its status."""

    NONE = 0
    AFFIRMING = 1
    WARNING = 2
    CONTRAINDICATED = 3

    @classmethod
    def of(cls, value: int) -> Tier:
        """0 and 1 none, 2 to 31 affirming, 32 to 95 warning, 96 to 127 contraindicated; else ``ValueError``."""
        if not 0 <= value <= 127:
            raise ValueError("a trustworthiness value is 0 to 127")
        return _TIERS[value]

    @property
    def text(self) -> str:
        """As EAR writes it."""
        return _TEXTS[self]


_TEXTS = tuple(tier.name.lower() for tier in Tier)
_TIERS = (
    *([Tier.NONE] * 2),
    *([Tier.AFFIRMING] * 30),
    *([Tier.WARNING] * 64),
    *([Tier.CONTRAINDICATED] * 32),
)


class TrustVector(msgspec.Struct, frozen=True):
    """Eight values in the order of ``ELEMENTS``; ``stated`` are the elements that the policy set itself."""

    values: tuple[int, ...]
    stated: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if len(self.values) != len(ELEMENTS) or min(self.values) < 0 or max(self.values) > 127:
            raise ValueError("a trustworthiness vector has eight values of 0 to 127")

    @classmethod
    def of(cls, values: Mapping[str, int]) -> TrustVector:
        """From element names to values; elements left out are 0. An unknown name is ``ValueError``."""
        if not values.keys() <= _INDEX.keys():
            raise ValueError("unknown element of a trustworthiness vector")
        return cls(tuple(values.get(name, 0) for name in ELEMENTS), frozenset(values))

    def __getitem__(self, element: str) -> int:
        return self.values[_INDEX[element]]

    def items(self) -> Iterator[tuple[str, int]]:
        """Elements with their values."""
        return zip(ELEMENTS, self.values, strict=True)

    def with_hardware(self, value: int) -> TrustVector:
        """The same vector with another ``hardware``."""
        index = _INDEX["hardware"]
        return TrustVector((*self.values[:index], value, *self.values[index + 1 :]), self.stated)

    @property
    def status(self) -> Tier:
        """The tier of the worst element."""
        return _TIERS[max(self.values)]


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One thing that is not as it must be.

    ``reference`` names the reference value; ``expected`` is ``None`` if that is missing or has expired. Values are
    printable and never secret.
    """

    element: str
    field: str
    code: str
    reference: str | None = None
    expected: JsonValue = None
    got: JsonValue = None

    @property
    def text(self) -> str:
        """One line for a person."""
        if self.code == "reference_missing":
            return f"{self.field}: no reference value {self.reference!r} (evidence has {_short(self.got)})"
        if self.code == "reference_deprecated":
            return f"{self.field}: matches {self.reference!r}, which is deprecated (evidence has {_short(self.got)})"
        name = f" ({self.reference})" if self.reference else ""
        return f"{self.field}: expected {_short(self.expected)}{name}, evidence has {_short(self.got)}"


def _short(value: JsonValue) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 200 else text[:197] + "..."


class Appraisal(msgspec.Struct, frozen=True):
    """What was found about one piece of evidence: one submodule of an EAR, such as ``cpu0``.

    ``annotated`` is the object that policies read as ``input`` (kbs-protocol 2.5). ``measurement`` and ``host_data`` are
    lower-case hex, empty where the TEE has none. ``policy_digest`` is SHA-256 of the policy's text in hex, and
    ``policy_version`` its number, 0 for a built-in one. ``unmet`` are the codes of requirements that no policy can waive.
    """

    name: str
    tee: str
    vector: TrustVector
    policy_id: str
    policy_digest: str
    annotated: Mapping[str, JsonValue]
    mismatches: tuple[Mismatch, ...]
    root: RootKind
    root_fingerprint: str
    measurement: str
    host_data: str
    extensions: tuple[tuple[str, int, JsonValue], ...] = ()
    policy_version: int = 0
    unmet: tuple[str, ...] = ()

    @property
    def tee_class(self) -> str:
        """Its class, which its name begins with."""
        return self.name.rstrip("0123456789")

    @property
    def status(self) -> Tier:
        """The tier of the worst element."""
        return self.vector.status


class AttestationResult(msgspec.Struct, frozen=True, kw_only=True):
    """All evidence of one attester, appraised at one generation of its tenant's policies and reference values.

    ``alike``: two results that have the same one, and not ``None``, differ in nothing but report data and runtime data.
    """

    appraisals: tuple[Appraisal, ...]
    generation: int
    reference_generation: int
    expires: datetime
    alike: object = None

    def __post_init__(self) -> None:
        if not self.appraisals:
            raise ValueError("an attestation result without evidence")

    @property
    def primary(self) -> Appraisal:
        """The evidence of the TEE itself, which binds everything else."""
        return self.appraisals[0]

    @property
    def status(self) -> Tier:
        """The worst status of all submodules."""
        if len(self.appraisals) == 1:
            return self.appraisals[0].vector.status
        return max(appraisal.status for appraisal in self.appraisals)

    @property
    def mismatches(self) -> tuple[Mismatch, ...]:
        """Everything that is not as it must be."""
        if len(self.appraisals) == 1:
            return self.appraisals[0].mismatches
        return tuple(mismatch for appraisal in self.appraisals for mismatch in appraisal.mismatches)
