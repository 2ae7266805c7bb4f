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
from functools import partial

import msgspec

from adyton.appraisal import explain, requirements, vector
from adyton.appraisal.policies import DEFAULT_ID
from adyton.appraisal.rego_check import ATTESTATION_DATA, Path
from adyton.broker.policy.concluding import Concluder
from adyton.broker.policy.policies import PolicyBook, TenantView
from adyton.broker.policy.rego import Memory, RegoEngine
from adyton.config import Environment
from adyton.errors import BindingMismatch, EndorsementUntrusted
from adyton.protocol import annotated
from adyton.protocol.initdata import InitData
from adyton.protocol.revoked import Revoked
from adyton.rats import binding
from adyton.rats.result import Appraisal, AttestationResult, Mismatch
from adyton.rats.types import JsonValue, RootKind, VerifiedEvidence
from adyton.stores.policy_types import StoredPolicy
from adyton.tee.deferred import Deferred

MAX_ALIKE = 1024
MAX_ALIKE_BYTES = 8 * 1024 * 1024  # of their documents: whoever may start guests chooses what is in those
MAX_DOCUMENTS = 512
MAX_DOCUMENT = 16 * 1024
_ADDITIONAL = "additional-evidence"
_BY_PCR = frozenset({"az-snp-vtpm", "az-tdx-vtpm", "tpm"})  # a PCR does not say what it was extended with
_ENCODE = msgspec.json.Encoder().encode  # tells what Python's ``==`` does not: true from 1


class Likeness:
    """What appraising came to for one piece of evidence, and comes to for all that are like it by the same view.

    The policy's answer is a function of the values that it reads, and none of those is of the single piece. ``said``: what
    whoever tells of such results keeps for the next one. ``mark``: what others know it by, who keep it longer.
    """

    __slots__ = ("appraisal", "generation", "mark", "reference_generation", "said", "view")

    def __init__(self, view: TenantView, appraisal: Appraisal) -> None:
        self.view = view.mark
        self.generation = view.generation
        self.reference_generation = view.references.generation
        self.appraisal = appraisal
        self.mark = object()
        self.said: object = None

    def result(self, item: VerifiedEvidence, runtime_data: Mapping[str, JsonValue]) -> AttestationResult:
        """The result for another one."""
        annotated = Deferred(partial(self._annotated, item, runtime_data))  # which seldom anybody reads
        return AttestationResult(
            appraisals=(msgspec.structs.replace(self.appraisal, annotated=annotated),),
            generation=self.generation,
            reference_generation=self.reference_generation,
            expires=item.expires,
            alike=self,
        )

    def _annotated(self, item: VerifiedEvidence, runtime_data: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
        return {
            **self.appraisal.annotated,
            "report_data": item.report_data.value.hex(),
            "runtime_data_claims": dict(runtime_data),
            item.tee: dict(item.coco_claims),
        }


def _overlap(path: Path, other: Path) -> bool:
    """Whether a value at one of these places has or is a part of that at the other."""
    length = min(len(path), len(other))
    return path[:length] == other[:length]


class Appraiser:
    """Appraises for one worker."""

    def __init__(self, book: PolicyBook, engine: RegoEngine) -> None:
        self._book = book
        self._concluder = Concluder(engine)
        self._alike = Memory[Likeness](MAX_ALIKE)
        self._alike_bytes = 0  # that were put there
        # What is found again and again in a fleet: each is a function of its key alone, so it never grows stale.
        self._explained = Memory[tuple[Mismatch, ...]]()
        self._documents = Memory[dict[str, JsonValue]](MAX_DOCUMENTS)

    async def appraise(  # noqa: PLR0917 -- whose, what, when
        self,
        tenant: str,
        verified: Sequence[VerifiedEvidence],
        runtime_data: Mapping[str, JsonValue],
        init_data: InitData | None,
        now: datetime,
        policy_set: str = DEFAULT_ID,
    ) -> AttestationResult:
        """Appraise all evidence of one attester, the primary first.

        ``runtime_data`` is what the primary evidence binds: ``tee-pubkey``, ``nonce``, ``additional-evidence``. Raises
        ``EndorsementUntrusted`` if the tenant's environment forbids the root that some of it leads to, at the very moment
        that is decided by; ``PolicyInvalid`` if the policy cannot be evaluated, ``BindingMismatch`` if ``init_data`` is not the evidence's,
        ``DocumentInvalid`` if it cannot be read; never because of a bad value.
        """
        view = self._book.view(tenant, now)
        _refuse_root(view.environment, verified)
        first = verified[0]
        key: tuple[object, ...] | None = None
        raw = init_data.raw if init_data is not None else None
        if first.alike is not None and len(verified) == 1:
            key = (tenant, first.alike, first.root_fingerprint, first.unchecked, policy_set, raw, len(runtime_data))
            known = self._alike.get(key)
            if known is not None and known.view is view.mark and known.appraisal.root is first.root:
                return known.result(first, runtime_data)
        claims = self._init_data_claims(first, init_data) if init_data is not None else None
        host_data = _host_data(verified[0], init_data)
        counts: dict[str, int] = {}
        appraisals = []
        for index, item in enumerate(verified):
            number = counts.get(item.tee_class, 0)
            counts[item.tee_class] = number + 1
            policy = self._book.attestation(view, item.tee_class, policy_set)
            if not index:
                document = annotated.evidence(item, runtime_data, claims, host_data)
            else:
                document, host_data = _device(item, runtime_data), b""
            appraisals.append(
                await self._appraise_one(
                    view, item, f"{item.tee_class}{number}", document, policy, host_data, policy_set
                )
            )
        like = None
        if key is not None and self._is_of_its_likeness(view, first.tee, policy_set, first.tee_class):
            like = Likeness(view, appraisals[0])
            self._alike_bytes += len(raw or b"")
            if self._alike_bytes > MAX_ALIKE_BYTES:
                self._alike, self._alike_bytes = Memory[Likeness](MAX_ALIKE), len(raw or b"")
            self._alike.put(key, like)
        return AttestationResult(
            appraisals=tuple(appraisals),
            generation=view.generation,
            reference_generation=view.references.generation,
            expires=min(item.expires for item in verified),
            alike=like,
        )

    def _is_of_its_likeness(self, view: TenantView, tee: str, policy_set: str, tee_class: str) -> bool:
        """Whether nothing that appraisal looks at is each piece of evidence's own, so that all that are alike get the same."""
        policy = self._book.accept(self._book.attestation(view, tee_class, policy_set).text, ATTESTATION_DATA)
        own = (("report_data",), ("runtime_data_claims",), (tee, "report_data"))
        return (
            policy.paths is not None
            and not any(_overlap(path, one) for path in (*policy.paths, *explain.read_by(tee)) for one in own)
            and not any(path[: len(one)] == one for path in policy.tests for one in own)
        )

    def revoked(self, tenant: str, result: AttestationResult, now: datetime) -> Revoked:
        """What was revoked at the generation that ``result`` was made at, or since."""
        return self._book.view(tenant, now, result.generation).revoked

    async def _appraise_one(  # noqa: PLR0917 -- what is needed, each by its own name
        self,
        view: TenantView,
        item: VerifiedEvidence,
        name: str,
        document: dict[str, JsonValue],
        policy: StoredPolicy,
        host_data: bytes,
        policy_set: str,
    ) -> Appraisal:
        concluded = await self._concluder.conclude(self._book.accept(policy.text, ATTESTATION_DATA), document, view)
        failed = requirements.unmet(item.tee, item.claims, view.snp)
        said = document["adyton"]
        measurement = said.get("measurement") if isinstance(said, dict) else None
        return Appraisal(
            name=name,
            tee=item.tee,
            vector=vector.with_floor(concluded[0], item.root, failed),
            policy_id=policy_set,
            policy_digest=policy.digest,
            annotated=document,
            mismatches=failed + self._mismatches(view, item, document),
            root=item.root,
            root_fingerprint=item.root_fingerprint,
            measurement=measurement if isinstance(measurement, str) else "",
            host_data=host_data.hex(),
            extensions=concluded[1],
            policy_version=policy.version,
            unmet=tuple([item.code for item in failed]),
        )

    def _mismatches(
        self, view: TenantView, item: VerifiedEvidence, document: Mapping[str, JsonValue]
    ) -> tuple[Mismatch, ...]:
        deprecated = view.references.deprecated  # which no policy sees, so that it is not in the data's key
        key = (item.tee, view.data_key, deprecated, _ENCODE(explain.relevant(item.tee, document)))
        found = self._explained.get(key)
        if found is None:
            found = explain.mismatches(item.tee, document, view.references)
            self._explained.put(key, found)
        return found

    def _init_data_claims(self, primary: VerifiedEvidence, init_data: InitData) -> dict[str, JsonValue]:
        expected = binding.expected_init_data(primary.tee, init_data.raw, init_data.algorithm)
        if not hmac.compare_digest(expected, primary.init_data):
            raise BindingMismatch(
                "the init data is not the one that the evidence was made for",
                code="init_data_mismatch",
                tee=primary.tee,
                field="init_data",
                expected=expected,
                got=primary.init_data,
                spec="kbs-protocol 1.10",
            )
        key = (primary.tee, init_data.algorithm, expected)
        claims = self._documents.get(key)
        if claims is None:
            claims = annotated.init_data_claims(init_data)
            if len(init_data.raw) <= MAX_DOCUMENT:
                self._documents.put(key, claims)
        return claims


def _refuse_root(environment: str, verified: Sequence[VerifiedEvidence]) -> None:
    """What leads to a root without hardware behind it counts only where both broker and tenant may trust such roots.

    The broker verified it, so it trusts the root; an empty environment is the broker's.
    """
    for item in verified:
        if item.root is RootKind.CUSTOM and environment and not Environment(environment).may_trust_development_roots:
            raise EndorsementUntrusted(
                f"a development root protects nothing from the host, and this tenant is for {environment}",
                tee=item.tee,
                field="environment",
                expected="a root of the TEE's vendor",
                got=item.root_fingerprint,
                spec="contracts 3",
                hint="attest to a tenant whose environment is development, ci or test",
            )


def _host_data(primary: VerifiedEvidence, init_data: InitData | None) -> bytes:
    """The digest of the document that the TEE was started for, once checked against the evidence, or as that says it."""
    if init_data is not None and primary.tee in _BY_PCR:
        return init_data.digest
    return binding.document_digest(primary.tee, primary.init_data)


def _device(item: VerifiedEvidence, runtime_data: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """A device binds nonce and key only; init data is the primary's."""
    own = {name: value for name, value in runtime_data.items() if name != _ADDITIONAL}
    return annotated.evidence(item, own, None, b"")
