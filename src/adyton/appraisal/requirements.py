"""What evidence must satisfy before any policy is asked (contracts, 3): no policy can waive it.

SEV-SNP: the report was asked for at VMPL 0, by the most privileged software of the guest, and is of version 3 or later,
which says on what processor it was made. A tenant that runs otherwise lists what it accepts, by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from adyton.rats.result import Mismatch
from adyton.rats.types import JsonValue

LATEST_REPORT = 5


@dataclass(frozen=True, slots=True)
class SnpRequirements:
    """Which VMPLs and report versions a tenant accepts. Empty means that nothing is."""

    vmpls: frozenset[int] = frozenset({0})
    report_versions: frozenset[int] = frozenset(range(3, LATEST_REPORT + 1))


DEFAULT = SnpRequirements()


def unmet(tee: str, claims: Mapping[str, JsonValue], snp: SnpRequirements = DEFAULT) -> tuple[Mismatch, ...]:
    """The requirements that these claims (Adyton's names) do not satisfy. A claim that is not there satisfies none."""
    if tee != "snp":
        return ()
    found = []
    for name, accepted in (("vmpl", snp.vmpls), ("report_version", snp.report_versions)):
        got = claims.get(name)
        if isinstance(got, bool) or not isinstance(got, int) or got not in accepted:
            expected = cast("JsonValue", sorted(accepted))
            found.append(Mismatch("hardware", name, f"{name}_not_accepted", expected=expected, got=got))
    return tuple(found)
