"""Appraising verified evidence for one tenant: policy and reference values in, an attestation result out.

Who checks what: the handshake verifies the evidence and that it binds nonce, key and the digest of the init data
(``tee.verify``). This module checks once more that the init data it is handed has the digest in the evidence, because
everything that a policy reads in ``init_data_claims`` rests on it; it verifies nothing else.

After the policy, and not to be overruled by it: requirements (``appraisal.requirements``) and the development root's
``hardware`` of at least 32 (contracts, 3).
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from datetime import datetime

from adyton.appraisal import explain, requirements, vector
from adyton.appraisal.policies import DEFAULT_ID
from adyton.appraisal.rego_check import AcceptedPolicy
from adyton.appraisal.requirements import SnpRequirements
from adyton.broker.policies import ATTESTATION_RULES, PolicyBook, TenantView
from adyton.broker.rego import Absent, RegoEngine, Results
from adyton.errors import BindingMismatch
from adyton.protocol import annotated
from adyton.protocol.initdata import InitData
from adyton.rats import binding
from adyton.rats.result import Appraisal, AttestationResult
from adyton.rats.types import JsonValue, VerifiedEvidence

_ADDITIONAL = "additional-evidence"


class Appraiser:
    """``snp`` holds, by tenant, what that tenant accepts beyond the default."""

    def __init__(
        self, book: PolicyBook, engine: RegoEngine, *, snp: Mapping[str, SnpRequirements] | None = None
    ) -> None:
        self._book = book
        self._engine = engine
        self._snp = dict(snp or {})

    async def appraise(
        self,
        tenant: str,
        verified: Sequence[VerifiedEvidence],
        runtime_data: Mapping[str, JsonValue],
        init_data: InitData | None,
        now: datetime,
    ) -> AttestationResult:
        """Appraise all evidence of one attester, the primary first.

        ``runtime_data`` is what the primary evidence binds: ``tee-pubkey``, ``nonce``, ``additional-evidence``. Raises
        ``PolicyInvalid`` if the policy cannot be evaluated, ``BindingMismatch`` if ``init_data`` is not the evidence's,
        ``DocumentInvalid`` if it cannot be read; never because of a bad value.
        """
        view = self._book.view(tenant, now)
        claims = _init_data_claims(verified[0], init_data) if init_data is not None else None
        counts: dict[str, int] = {}
        appraisals = []
        for index, item in enumerate(verified):
            number = counts.get(item.tee_class, 0)
            counts[item.tee_class] = number + 1
            policy = self._book.attestation(view, item.tee_class)
            document = annotated.evidence(item, runtime_data, claims) if not index else _device(item, runtime_data)
            key, results = self._engine.remembered(policy, ATTESTATION_RULES, document, view.data_key)
            if results is None:
                results = await self._engine.evaluate_async(
                    policy, ATTESTATION_RULES, document, view.data, view.data_key if key else None
                )
            appraisals.append(
                self._conclude(tenant, view, item, policy, f"{item.tee_class}{number}", document, results)
            )
        return AttestationResult(
            appraisals=tuple(appraisals),
            generation=view.generation,
            reference_generation=view.references.generation,
            expires=min(item.expires for item in verified),
        )

    def _conclude(  # noqa: PLR0917 -- what was found, each by its own name
        self,
        tenant: str,
        view: TenantView,
        item: VerifiedEvidence,
        policy: AcceptedPolicy,
        name: str,
        document: dict[str, JsonValue],
        results: Results,
    ) -> Appraisal:
        failed = requirements.unmet(item.tee, item.claims, self._snp.get(tenant, requirements.DEFAULT))
        claimed, present = _value(results["trust_claims"])
        extra, extended = _value(results["extensions"])
        measurement = item.coco_claims.get("measurement")
        return Appraisal(
            name=name,
            tee=item.tee,
            vector=vector.with_floor(vector.from_rules(claimed, present=present), item.root, failed),
            policy_id=DEFAULT_ID,
            policy_digest=policy.digest,
            annotated=document,
            mismatches=failed + explain.mismatches(item.tee, item.coco_claims, view.references),
            root=item.root,
            root_fingerprint=item.root_fingerprint,
            measurement=measurement if isinstance(measurement, str) else "",
            host_data=item.init_data.hex(),
            extensions=vector.extensions(extra, present=extended),
        )


def _value(result: JsonValue | Absent) -> tuple[JsonValue, bool]:
    return (None, False) if isinstance(result, Absent) else (result, True)


def _device(item: VerifiedEvidence, runtime_data: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """A device binds nonce and key only; init data is the primary's."""
    own = {name: value for name, value in runtime_data.items() if name != _ADDITIONAL}
    return annotated.evidence(item, own, None)


def _init_data_claims(primary: VerifiedEvidence, init_data: InitData) -> dict[str, JsonValue]:
    try:
        expected = binding.init_data_field(init_data.raw, length=len(primary.init_data), algorithm=init_data.algorithm)
    except ValueError:
        expected = b""  # a digest that the field cannot hold is never cut to fit
    if not expected or not hmac.compare_digest(expected, primary.init_data):
        raise BindingMismatch(
            "the init data is not the one that the evidence was made for",
            code="init_data_mismatch",
            tee=primary.tee,
            field="init_data",
            expected=expected or None,
            got=primary.init_data,
            spec="kbs-protocol 1.10",
        )
    return annotated.init_data_claims(init_data)
