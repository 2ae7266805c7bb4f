"""What is written down of each decision, before its answer leaves.

One row a decision (``stores.audit``): who asked with which evidence, what was decided, by which policy and reference
values, and why. Reasons, digests and public measurements; never a secret, a token or a key.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Literal, cast

import msgspec

from adyton.broker.holders import Holder
from adyton.broker.policy.rego import Memory
from adyton.errors import AdytonError, ReleaseRefused
from adyton.protocol.audit_row import AuditRow, Finding, PolicyUsed, shown
from adyton.protocol.ear import TokenClaims
from adyton.protocol.resource import PluginPath, ResourcePath
from adyton.rats.result import AttestationResult, Mismatch
from adyton.rats.types import JsonValue
from adyton.stores.sqlite import Store

MAX_REASONS = 40
MAX_REASON = 400


class Auditor:
    """Writes rows. Every method returns the row's number once it is on the disk, and raises ``Unavailable`` if it is not.

    Then nothing may be released: an answer without its row would be a decision that nobody can find.
    """

    def __init__(self, store: Store) -> None:
        self._log = store.audit
        self._released = Memory[AuditRow]()

    async def attested(
        self, tenant: str, row: AuditRow, now: datetime, *, request_id: str = "", peer: str = "", claims: str = ""
    ) -> int:
        """Evidence was verified and appraised and a token is to be given; its status may still be bad.

        ``row`` is ``attested_row``'s, ``claims`` the SHA-256 of the token's payload, in hex.
        """
        row = msgspec.structs.replace(row, request_id=request_id, peer=peer, claims=claims)
        return await self._log.append_async(tenant, row, now)

    async def attest_refused(
        self, tenant: str, tee: str, error: AdytonError, now: datetime, *, request_id: str = "", peer: str = ""
    ) -> int:
        """Evidence, or the request around it, was refused."""
        row = AuditRow(
            action="attest",
            decision="refused",
            tee=tee,
            reasons=_error_reasons(error),
            findings=_error_findings(error),
            request_id=request_id,
            peer=peer,
        )
        return await self._log.append_async(tenant, row, now)

    async def released(
        self,
        tenant: str,
        path: ResourcePath | PluginPath,
        claims: TokenClaims | Holder,
        by: str,
        now: datetime,
        *,
        request_id: str = "",
        peer: str = "",
        version: int | None = None,
        action: str = "release",
        policies: tuple[PolicyUsed, ...] = (),
    ) -> int:
        """A resource is about to be sent, in this version, or a key was used; ``by`` is the part of its binding that allowed it.

        Rows of holders that are alike differ in who asked.
        """
        key = None
        if isinstance(claims, Holder) and claims.like is not None:
            key = (claims.like, path.uri, by, version, action, policies)
        row = self._released.get(key)
        if row is None:
            told, claims = reasons([f"by_{by}"]), claims.claims if isinstance(claims, Holder) else claims
            row = _release_row("allowed", path, claims, told, "", "", version=version, action=action, policies=policies)
            self._released.put(key, row)
        row = msgspec.structs.replace(row, request_id=request_id, peer=peer)
        return await self._log.append_async(tenant, row, now)

    async def release_refused(
        self,
        tenant: str,
        path: ResourcePath | PluginPath,
        claims: TokenClaims | None,
        error: AdytonError,
        now: datetime,
        *,
        request_id: str = "",
        peer: str = "",
        mismatches: Sequence[Mismatch] = (),
        action: str = "release",
    ) -> int:
        """A resource is not sent. ``claims`` is ``None`` where no session or token was good enough to be read.

        ``mismatches`` are what about the evidence is not as the reference values say.
        """
        told = reasons([*_error_reasons(error), *[f"{item.code}: {item.text}" for item in mismatches]])
        found = (*_error_findings(error), *findings(mismatches))[:MAX_REASONS]
        asked = cast("tuple[PolicyUsed, ...]", error.policies) if isinstance(error, ReleaseRefused) else ()
        row = _release_row("refused", path, claims, told, request_id, peer, found=found, action=action, policies=asked)
        return await self._log.append_async(tenant, row, now)

    async def administered(
        self,
        tenant: str,
        action: str,
        name: str,
        now: datetime,
        *,
        actor: str = "",
        error: AdytonError | None = None,
        request_id: str = "",
        peer: str = "",
    ) -> int:
        """An administrator was refused something. What they did is recorded with it (``record.recorded``)."""
        row = administered(action, name, actor=actor, error=error, request_id=request_id, peer=peer)
        return await self._log.append_async(tenant, row, now)


def administered(
    action: str, name: str, *, actor: str = "", error: AdytonError | None = None, request_id: str = "", peer: str = ""
) -> AuditRow:
    """The row of an administrator's change or use, or of what was refused to them."""
    return AuditRow(
        action=action,
        decision="refused" if error else "allowed",
        resource=name[:300],
        reasons=_error_reasons(error) if error else (),
        findings=_error_findings(error) if error else (),
        request_id=request_id,
        peer=peer,
        actor=actor,
    )


def attested_row(result: AttestationResult, platform: tuple[str, dict[str, JsonValue]] = ("", {})) -> AuditRow:
    """What a row says of an attestation, whoever asked for it. ``platform`` is what ``platforms.told`` says."""
    primary = result.primary
    return AuditRow(
        action="attest",
        decision="allowed",
        tee=primary.tee,
        measurement=primary.measurement,
        host_data=primary.host_data,
        root=primary.root.value,
        root_fingerprint=primary.root_fingerprint,
        status=result.status.text,
        reasons=reasons([f"{item.code}: {item.text}" for item in result.mismatches]),
        findings=findings(result.mismatches),
        vector=primary.vector.values,
        policy_digest=primary.policy_digest,
        reference_generation=result.reference_generation,
        platform=platform[0],
        tcb=cast("dict[str, object]", platform[1]),
        policies=appraised(result),
    )


def appraised(result: AttestationResult) -> tuple[PolicyUsed, ...]:
    """The policies that appraised, each once."""
    found = [
        _appraised_by(one.policy_id, one.tee_class, one.policy_version, one.policy_digest) for one in result.appraisals
    ]
    return tuple(found) if len(found) == 1 else tuple(dict.fromkeys(found))


@lru_cache(maxsize=256)
def _appraised_by(policy_id: str, tee_class: str, version: int, policy_digest: str) -> PolicyUsed:
    return PolicyUsed("attestation", f"{policy_id}_{tee_class}", version, policy_digest)


def reasons(codes: Iterable[str]) -> tuple[str, ...]:
    """Reasons as a row holds them: each once, in order, bounded in number and length."""
    found = list(dict.fromkeys([code[:MAX_REASON] for code in codes]))
    return tuple(found[:MAX_REASONS]) if len(found) <= MAX_REASONS else (*found[: MAX_REASONS - 1], "more")


def findings(mismatches: Iterable[Mismatch]) -> tuple[Finding, ...]:
    """Mismatches as a row holds them."""
    found = [
        Finding(
            code=item.code,
            claim=item.field,
            element=item.element,
            reference=item.reference or "",
            expected=shown(item.expected),
            got=shown(item.got),
        )
        for item in mismatches
    ]
    return tuple(found[:MAX_REASONS])


def _error_findings(error: AdytonError) -> tuple[Finding, ...]:
    """Each reason of a refusal, or the one thing that an error says, with its hint."""
    if isinstance(error, ReleaseRefused) and error.reasons:
        pairs = [reason.partition(": ") for reason in reasons(error.reasons)]
        return tuple([Finding(code=code, text=text) for code, _, text in pairs])
    facts = error.as_dict()
    return (
        Finding(
            code=error.code,
            claim=error.field or "",
            expected=shown(cast("JsonValue", facts["expected"])),
            got=shown(cast("JsonValue", facts["got"])),
            text=error.message[:MAX_REASON],
            hint=(error.hint or "")[:MAX_REASON],
        ),
    )


def _error_reasons(error: AdytonError) -> tuple[str, ...]:
    """``code: text`` of everything that was wrong: the owner reads here what strangers are not told."""
    if isinstance(error, ReleaseRefused) and error.reasons:
        return reasons(error.reasons)
    facts = error.as_dict()
    said = ", ".join(f"{name} {facts[name]}" for name in ("field", "expected", "got") if facts[name] is not None)
    return reasons([f"{error.code}: {error.message}" + (f" ({said})" if said else "")])


def _release_row(  # noqa: PLR0917 -- one value each
    decision: Literal["allowed", "refused"],
    path: ResourcePath | PluginPath,
    claims: TokenClaims | None,
    codes: tuple[str, ...],
    request_id: str,
    peer: str,
    *,
    found: tuple[Finding, ...] = (),
    version: int | None = None,
    action: str = "release",
    policies: tuple[PolicyUsed, ...] = (),
) -> AuditRow:
    primary = claims.primary if claims is not None else None
    return AuditRow(
        action=action,
        decision=decision,
        resource=path.uri,
        tee=primary.tee if primary else "",
        measurement=primary.measurement if primary else "",
        host_data=primary.host_data.hex() if primary else "",
        root=primary.root.value if primary and primary.root else "",
        root_fingerprint=primary.root_fingerprint if primary else "",
        status=max(item.status for item in claims.submodules).text if claims else "",
        reasons=codes,
        policy_digest=primary.policy_digest if primary else "",
        reference_generation=primary.reference_generation if primary else None,
        request_id=request_id,
        peer=peer,
        vector=primary.vector.values if primary else (),
        findings=found,
        version=version,
        policies=policies,
    )
