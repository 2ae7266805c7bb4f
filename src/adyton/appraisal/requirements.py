"""What evidence must satisfy before any policy is asked (contracts, 3): no policy can waive it.

SEV-SNP: the report was asked for at VMPL 0, by the most privileged software of the guest, and is of version 3 or later,
which says on what processor it was made. A tenant that runs otherwise lists what it accepts, by name: a document
``{"vmpls": [0, 1], "report_versions": [3, 4, 5]}``, kept beside its policies; a member left out keeps its default.

Nobody can list a revoked TCB, nor a CSV report whose fields nothing binds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import msgspec

from adyton.errors import PolicyInvalid
from adyton.rats.result import Mismatch
from adyton.rats.types import JsonValue

FIRST_REPORT, LATEST_REPORT = 2, 5


@dataclass(frozen=True, slots=True)
class SnpRequirements:
    """Which VMPLs and report versions a tenant accepts. Empty means that nothing is."""

    vmpls: frozenset[int] = frozenset({0})
    report_versions: frozenset[int] = frozenset(range(3, LATEST_REPORT + 1))


DEFAULT = SnpRequirements()


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    vmpls: tuple[int, ...] = tuple(sorted(DEFAULT.vmpls))
    report_versions: tuple[int, ...] = tuple(sorted(DEFAULT.report_versions))


_DECODER = msgspec.json.Decoder(_Document)


def parse(text: str) -> SnpRequirements:
    """The requirements that a tenant's document says; ``PolicyInvalid`` for anything that is not such a document."""
    try:
        document = _DECODER.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise _invalid("document", '{"vmpls": [0], "report_versions": [3, 4, 5]}', str(error)[:120]) from error
    vmpls, versions = frozenset(document.vmpls), frozenset(document.report_versions)
    if not vmpls or not vmpls <= set(range(4)):
        raise _invalid("vmpls", "one or more of 0 to 3", sorted(vmpls)[:10])
    if not versions or not versions <= set(range(FIRST_REPORT, LATEST_REPORT + 1)):
        raise _invalid("report_versions", f"one or more of {FIRST_REPORT} to {LATEST_REPORT}", sorted(versions)[:10])
    return SnpRequirements(vmpls, versions)


def written(requirements: SnpRequirements) -> str:
    """The document that ``parse`` reads."""
    document = _Document(tuple(sorted(requirements.vmpls)), tuple(sorted(requirements.report_versions)))
    return msgspec.json.encode(document).decode()


def _invalid(field: str, expected: str, got: object) -> PolicyInvalid:
    return PolicyInvalid(
        "these requirements of SEV-SNP evidence cannot be kept",
        code="requirements_invalid",
        field=field,
        expected=expected,
        got=got,
        spec="contracts 3",
        hint="adyton policy snp --vmpl N --report-version N writes them",
    )


_TCB = ("tcb_status", "platform_tcb_status", "qe_tcb_status", "tdx_module_tcb_status")
REVOKED = "Revoked"
_SNP_CLAIMS: Mapping[str, tuple[str | None, str]] = {  # which claim has the VMPL, and which the version of the report
    "snp": ("vmpl", "report_version"),
    "az-snp-vtpm": (None, "snp_report_version"),  # the paravisor's, whose VMPL 0 the verifier has checked
}


def unmet(tee: str, claims: Mapping[str, JsonValue], snp: SnpRequirements = DEFAULT) -> tuple[Mismatch, ...]:
    """The requirements that these claims (Adyton's names) do not satisfy. A claim that is not there satisfies none.

    SEV-SNP: VMPL and version of the report. Every other TEE: no part of the TCB is revoked. Hygon CSV: the report's fields are
    bound to what was expected of it.
    """
    if tee in _SNP_CLAIMS:
        return _unmet_of_snp(*_SNP_CLAIMS[tee], claims, snp)
    found = []
    revoked = [name for name in _TCB if claims.get(name) == REVOKED]
    found += [
        Mismatch("hardware", name, "tcb_revoked", expected="a TCB that is not revoked", got=REVOKED) for name in revoked
    ]
    if tee == "csv" and claims.get("fields_bound") is not True:
        got = claims.get("fields_bound")
        found.append(Mismatch("hardware", "fields_bound", "fields_unbound", expected=True, got=got))
    return tuple(found)


def _unmet_of_snp(
    vmpl: str | None, version: str, claims: Mapping[str, JsonValue], snp: SnpRequirements
) -> tuple[Mismatch, ...]:
    found: tuple[Mismatch, ...] = ()
    if vmpl is not None and not _is_one_of(got := claims.get(vmpl), snp.vmpls):
        found += (_not_accepted("vmpl", snp.vmpls, got),)
    if not _is_one_of(got := claims.get(version), snp.report_versions):
        found += (_not_accepted("report_version", snp.report_versions, got),)
    return found


def _is_one_of(got: JsonValue, accepted: frozenset[int]) -> bool:
    return type(got) is int and got in accepted


def _not_accepted(name: str, accepted: frozenset[int], got: JsonValue) -> Mismatch:
    return Mismatch("hardware", name, f"{name}_not_accepted", expected=cast("JsonValue", sorted(accepted)), got=got)
