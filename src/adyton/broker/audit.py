"""What is written down of each decision, before its answer leaves.

One row a decision (``stores.audit``): who asked with which evidence, what was decided, by which policy and reference
values, and why. Reasons, digests and public measurements; never a secret, a token or a key.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from adyton.errors import AdytonError, ReleaseRefused
from adyton.protocol.ear import TokenClaims
from adyton.protocol.resource import ResourcePath
from adyton.rats.result import AttestationResult
from adyton.stores.audit import AuditRow
from adyton.stores.sqlite import Store

MAX_REASONS = 40
MAX_REASON = 400


class Auditor:
    """Writes rows. Every method returns when the row is on the disk, and raises ``Unavailable`` if it is not.

    Then nothing may be released: an answer without its row would be a decision that nobody can find.
    """

    def __init__(self, store: Store) -> None:
        self._log = store.audit

    async def attested(
        self, tenant: str, result: AttestationResult, now: datetime, *, request_id: str = "", peer: str = ""
    ) -> None:
        """Evidence was verified and appraised and a token is to be given; its status may still be bad."""
        primary = result.primary
        row = AuditRow(
            action="attest",
            decision="allowed",
            tee=primary.tee,
            measurement=primary.measurement,
            host_data=primary.host_data,
            root=primary.root.value,
            root_fingerprint=primary.root_fingerprint,
            status=result.status.text,
            reasons=reasons([f"{item.code}: {item.text}" for item in result.mismatches]),
            policy_digest=primary.policy_digest,
            reference_generation=result.reference_generation,
            request_id=request_id,
            peer=peer,
        )
        await self._log.append_async(tenant, row, now)

    async def attest_refused(
        self, tenant: str, tee: str, error: AdytonError, now: datetime, *, request_id: str = "", peer: str = ""
    ) -> None:
        """Evidence, or the request around it, was refused."""
        row = AuditRow(
            action="attest",
            decision="refused",
            tee=tee,
            reasons=_error_reasons(error),
            request_id=request_id,
            peer=peer,
        )
        await self._log.append_async(tenant, row, now)

    async def released(
        self,
        tenant: str,
        path: ResourcePath,
        claims: TokenClaims,
        by: str,
        now: datetime,
        *,
        request_id: str = "",
        peer: str = "",
    ) -> None:
        """A resource is about to be sent; ``by`` is the part of its binding that allowed it."""
        row = _release_row("allowed", path, claims, reasons([f"by_{by}"]), request_id, peer)
        await self._log.append_async(tenant, row, now)

    async def release_refused(
        self,
        tenant: str,
        path: ResourcePath,
        claims: TokenClaims | None,
        error: AdytonError,
        now: datetime,
        *,
        request_id: str = "",
        peer: str = "",
    ) -> None:
        """A resource is not sent. ``claims`` is ``None`` where no session or token was good enough to be read."""
        row = _release_row("refused", path, claims, _error_reasons(error), request_id, peer)
        await self._log.append_async(tenant, row, now)

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
    ) -> None:
        """An administrator did something (``resource.set``, ``policy.delete``…) or was refused."""
        row = AuditRow(
            action=action,
            decision="refused" if error else "allowed",
            resource=name[:300],
            reasons=_error_reasons(error) if error else (),
            request_id=request_id,
            peer=peer,
            actor=actor,
        )
        await self._log.append_async(tenant, row, now)


def reasons(codes: Iterable[str]) -> tuple[str, ...]:
    """Reasons as a row holds them: each once, in order, bounded in number and length."""
    found = list(dict.fromkeys([code[:MAX_REASON] for code in codes]))
    return tuple(found[:MAX_REASONS]) if len(found) <= MAX_REASONS else (*found[: MAX_REASONS - 1], "more")


def _error_reasons(error: AdytonError) -> tuple[str, ...]:
    """``code: text`` of everything that was wrong: the owner reads here what strangers are not told."""
    if isinstance(error, ReleaseRefused) and error.reasons:
        return reasons(error.reasons)
    facts = error.as_dict()
    said = ", ".join(f"{name} {facts[name]}" for name in ("field", "expected", "got") if facts[name] is not None)
    return reasons([f"{error.code}: {error.message}" + (f" ({said})" if said else "")])


def _release_row(  # noqa: PLR0917 -- one value each
    decision: str, path: ResourcePath, claims: TokenClaims | None, codes: tuple[str, ...], request_id: str, peer: str
) -> AuditRow:
    primary = claims.primary if claims is not None else None
    return AuditRow(
        action="release",
        decision="allowed" if decision == "allowed" else "refused",
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
    )
