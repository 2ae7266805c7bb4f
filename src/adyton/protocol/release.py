"""What a resource is bound to: the workloads that may ever have it (contracts, 3).

A ``Binding`` is written by the owner beside the value and stored with it. Its members are alternatives: one match is
enough. Without any it is *empty*, and an empty binding is never released; nothing is implied by an absent member.

==========================  ==========================================================================================
``workloads``               ``sha256:<hex>`` of a workload document (HOST_DATA), run by any guest whose measurement the
                            tenant's reference values accept; or ``<hex>/sha256:<hex>``, measurement and document
``images``                  ``sha256:<hex>``: manifest digest in the attested workload document (``image``)
``signers``                 ``sha256:<hex>``: SPKI of a key whose signature the attested document carries
``policy``                  Rego text, ``data.policy.allow`` over the claims (kbs-protocol 1.12)
``policy_id``               ``NAME`` or ``NAME@VERSION``: a resource policy that the tenant has stored
``rules``                   lists of values for claims, any rule of which may match (``protocol.rules``)
``any_workload_i_accept``   every workload whose attestation status this environment accepts: an ugly name on purpose
==========================  ==========================================================================================

``operations`` is no alternative but a limit: what may be done with it at all, ``release`` or a key's operations by name.
``None`` limits nothing (what a key's own settings allow); an empty list allows nothing. Two more are conditions:
``attestation``, whose policies must accept the evidence (``models``: ``models_cpu``, ``models_gpu``…), and ``devices``,
how many of a class must be there (``{"gpu": 1}``). ``until`` is an end (RFC 3339): from that time on nobody gets or uses it,
until its owner binds it anew.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

import msgspec

from adyton.errors import MalformedRequest
from adyton.protocol import rules as release_rules
from adyton.protocol.key_record import ANY_OPERATION
from adyton.protocol.release_rules import problem_of
from adyton.protocol.rules import Rule
from adyton.rats.types import Digest

MAX_ENTRIES = 1000
MAX_POLICY = 256 * 1024

# SHA-256 (enclaves, CSV), SHA-384 (SNP, TDX, Nitro), SHA-512 (some CCA realms)
_MEASUREMENT = re.compile(r"(?:[0-9a-f]{64}|[0-9a-f]{96}|[0-9a-f]{128})\Z")
_BARE_DIGEST = re.compile(r"\A((?:[0-9a-f]{64}|[0-9a-f]{96}|[0-9a-f]{128})/)?([0-9a-f]{64})\Z")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|[+-]\d\d:\d\d)\Z", re.ASCII)
_POLICY_ID = re.compile(r"([A-Za-z0-9_-][A-Za-z0-9_.-]{0,127})(?:@([1-9][0-9]{0,14}))?\Z")


class Binding(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The alternatives above. All members default to *nobody*."""

    workloads: list[str] = []
    images: list[str] = []
    signers: list[str] = []
    policy: str | None = None
    any_workload_i_accept: bool = False
    rules: list[Rule] = []
    operations: list[str] | None = None
    policy_id: str | None = None
    attestation: str | None = None
    devices: dict[str, int] = {}
    until: str | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing at all could release the resource."""
        named = self.workloads or self.images or self.signers or self.policy or self.policy_id or self.rules
        return not (named or self.any_workload_i_accept)

    def has_ended(self, now: datetime) -> bool:
        """Whether ``until`` has come."""
        return self.until is not None and now >= _moment(self.until)


@dataclass(frozen=True, slots=True)
class WorkloadIdentity:
    """What runs a workload and what it is. ``measurement`` in hex (32, 48 or 64 bytes), or ``None``: any accepted one."""

    document: Digest
    measurement: str | None = None

    @classmethod
    def parse(cls, text: str) -> WorkloadIdentity:
        """Read one entry of ``Binding.workloads``; ``MalformedRequest`` for anything else."""
        measurement, slash, digest = text.rpartition("/")
        if slash and not _MEASUREMENT.match(measurement):
            raise _malformed("workloads", "sha256:<hex>, or <hex digits of the measurement>/sha256:<hex>", text)
        return cls(document=_sha256("workloads", digest), measurement=measurement or None)

    def matches(self, measurement: str, host_data: bytes) -> bool:
        """Whether evidence with this measurement (hex), started for a document of this digest, is this workload."""
        return self.document.value == host_data and self.measurement in {None, measurement}


def written(
    *,
    workloads: Iterable[str] = (),
    images: Iterable[str] = (),
    signers: Iterable[str] = (),
    policy: str | None = None,
    any_workload_i_accept: bool = False,
    rules: Iterable[Rule] = (),
    operations: Iterable[str] | None = None,
    policy_id: str | None = None,
    attestation: str | None = None,
    devices: Mapping[str, int] | None = None,
    until: str | None = None,
) -> Binding:
    """A checked binding as a person writes it: the ``sha256:`` of a digest may be left out."""

    def named(entries: Iterable[str]) -> list[str]:
        return [_BARE_DIGEST.sub(r"\1sha256:\2", entry.strip().lower()) for entry in entries]

    return check(
        Binding(
            workloads=named(workloads),
            images=named(images),
            signers=named(signers),
            policy=policy,
            any_workload_i_accept=any_workload_i_accept,
            rules=list(rules),
            operations=None if operations is None else sorted(set(operations)),
            policy_id=policy_id,
            attestation=attestation,
            devices=dict(devices or {}),
            until=until,
        )
    )


def check(binding: Binding) -> Binding:
    """``binding`` itself if every entry can be matched; ``MalformedRequest`` names the one that cannot.

    An empty binding passes: it is a resource that nobody gets yet.
    """
    if len(binding.workloads) + len(binding.images) + len(binding.signers) > MAX_ENTRIES:
        raise _malformed("binding", f"at most {MAX_ENTRIES} entries", "more")
    for entry in binding.workloads:
        WorkloadIdentity.parse(entry)
    for entry in binding.images:
        _sha256("images", entry)
    for entry in binding.signers:
        _sha256("signers", entry)
    if binding.policy is not None and not 0 < len(binding.policy.encode("utf-8", "replace")) <= MAX_POLICY:
        raise _malformed("policy", f"Rego of 1 to {MAX_POLICY} bytes", len(binding.policy))
    release_rules.check(binding.rules)
    for operation in binding.operations or ():
        if operation not in ANY_OPERATION:
            raise _malformed("operations", ", ".join(sorted(ANY_OPERATION)), operation)
    if binding.policy_id is not None:
        policy_named(binding.policy_id)
    problem = problem_of(binding.attestation, binding.devices)
    if problem is not None:
        raise _malformed(*problem)
    if binding.until is not None:
        _moment(binding.until)
    return binding


def policy_named(text: str) -> tuple[str, int | None]:
    """Id and version of ``Binding.policy_id``; without a version, whichever is in force. ``MalformedRequest``."""
    found = _POLICY_ID.match(text)
    if not found:
        raise _malformed("policy_id", "NAME or NAME@VERSION", text)
    return found[1], int(found[2]) if found[2] else None


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text) if _TIME.match(text) else None
    except ValueError:
        moment = None
    if moment is None:
        raise _malformed("until", "a time such as 2027-01-31T12:00:00Z", text)
    return moment


def _sha256(field: str, text: str) -> Digest:
    try:
        digest = Digest.parse(text)
    except ValueError as error:
        raise _malformed(field, "sha256:<64 lower-case hex digits>", text) from error
    if digest.algorithm != "sha256":
        raise _malformed(field, "sha256:<64 lower-case hex digits>", text)
    return digest


def _malformed(field: str, expected: object, got: object) -> MalformedRequest:
    return MalformedRequest(
        "a binding has an entry that could never match",
        code="binding_malformed",
        field=field,
        expected=expected,
        got=got if isinstance(got, int) else str(got)[:80],
        spec="contracts 3",
    )
