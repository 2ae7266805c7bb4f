"""What each route of the administrative API takes and gives, for its OpenAPI document.

By method and path as they stand in ``permissions``; ``parameters`` name the path's stars.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from adyton.protocol.admin import (
    About,
    Decision,
    Explanation,
    KeptCheckpoint,
    LogEdge,
    LogHead,
    LogKeyView,
    LogReport,
    ReferenceBody,
    ReferenceView,
    ResourceBody,
    ResourceView,
)
from adyton.protocol.audit_proof import ConsistencyProof, InclusionProof
from adyton.protocol.authority import (
    AuthorityView,
    CertificateView,
    CrlView,
    RevokeCertificatesBody,
    RotateAuthorityBody,
)
from adyton.protocol.backends import BackendView
from adyton.protocol.keys import (
    OPERATIONS,
    ConfigurationView,
    KeyView,
    NewKey,
    PublicView,
    RotateBody,
    TransitAnswer,
    TransitBody,
)
from adyton.protocol.people import (
    ApprovalRules,
    CredentialView,
    DeleteTenantBody,
    EnvironmentBody,
    KeyBody,
    NewToken,
    OrganisationBody,
    OrganisationView,
    PersonBody,
    PersonView,
    PromotionBody,
    PromotionView,
    ProposalView,
    ProviderBody,
    ProviderListed,
    QuotaBody,
    RatesBody,
    RootTokenBody,
    TenantBody,
    TenantView,
    TokenBody,
    VoteBody,
    Whoami,
)
from adyton.protocol.policies import (
    ActivationView,
    DryRunView,
    PolicyBody,
    PolicyView,
    TestBody,
    TestReport,
    VersionBody,
    VersionView,
)
from adyton.protocol.providers import ProviderSettings, ProviderView, PublicationView, PublishBody, RevocationBody
from adyton.protocol.release import Binding
from adyton.protocol.revoked import Entry, LiftBody, RevokeBody
from adyton.protocol.seen import Platforms, Receivers

_NUMBER = {"type": "integer", "minimum": 0, "maximum": 2**53 - 1}
_PAGE: Mapping[str, Mapping[str, Any]] = {
    "after": {"type": "string"},
    "limit": {"type": "integer", "minimum": 1, "maximum": 10000},
}
_TIME = {"type": "string", "format": "date-time"}
_POLICY = ("kind", "id")
_URI = ("repository", "type", "tag")


@dataclass(frozen=True, slots=True)
class Given:
    """One route. ``answer`` ``None`` is 204; ``content`` is of what is no JSON."""

    summary: str
    parameters: tuple[str, ...] = ()
    body: Any = None
    answer: Any = None
    query: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    content: str = "application/json"
    gives: str = "as asked"


_VERSION = (*_URI, "version")
_KEYS = {
    "GET keys": Given("All keys, without their values, or a page of them", answer=list[KeyView], query=_PAGE),
    "GET keys/*/*/*": Given("One key, without its value", _URI, answer=KeyView),
    "PUT keys/*/*/*": Given("Make a key inside, or bring one in", _URI, NewKey, KeyView),
    "DELETE keys/*/*/*": Given("Erase all versions of a key, and forget it", _URI),
    "GET keys/*/*/*/public": Given(
        "The public half of a version, and its certificates", _URI, answer=PublicView, query={"version": _NUMBER}
    ),
    "GET keys/*/*/*/value": Given(
        "A configuration value that is no secret", _URI, answer=ConfigurationView, query={"version": _NUMBER}
    ),
    "POST keys/*/*/*/rotate": Given("One more version", _URI, RotateBody, KeyView),
    "POST keys/*/*/*/destroy": Given("Erase all versions", _URI, answer=KeyView),
    "POST keys/*/*/*/versions/*/disable": Given("Let nobody use a version", _VERSION, answer=KeyView),
    "POST keys/*/*/*/versions/*/enable": Given("Let it be used again", _VERSION, answer=KeyView),
    "POST keys/*/*/*/versions/*/destroy": Given("Erase a version", _VERSION, answer=KeyView),
    **{
        f"POST keys/*/*/*/use/{name}": Given(
            f"{name} with a key whose settings let its owner", _URI, TransitBody, TransitAnswer
        )
        for name in OPERATIONS
    },
    "GET authority": Given("The tenant's certification authority", answer=AuthorityView),
    "GET authorities": Given("All its roots, the oldest first", answer=list[AuthorityView]),
    "GET authorities/*/crl": Given("A root's list of revoked certificates", ("number",), answer=CrlView),
    "GET authority/certificates": Given(
        "What was issued, by serial number",
        answer=list[CertificateView],
        query={"after": {"type": "string"}, "limit": _NUMBER},
    ),
    "POST authority/rotate": Given(
        "Issue under a new root, or prepare one", body=RotateAuthorityBody, answer=AuthorityView
    ),
    "POST authority/revocations": Given(
        "Revoke certificates", body=RevokeCertificatesBody, answer=list[CertificateView]
    ),
}

ROUTES: Mapping[str, Given] = {
    "GET about": Given("What this broker is", answer=About),
    "GET resources": Given(
        "All resources, without their values, or a page of them", answer=list[ResourceView], query=_PAGE
    ),
    "GET resources/*/*/*": Given("One resource, without its value", _URI, answer=ResourceView),
    "PUT resources/*/*/*": Given("Register or replace a resource", _URI, ResourceBody, ResourceView),
    "PUT resources/*/*/*/binding": Given("Who may have it, without its value", _URI, Binding, ResourceView),
    "DELETE resources/*/*/*": Given("Forget a resource", _URI),
    **_KEYS,
    "GET backends": Given("The back ends that the tenant may use, each asked", answer=list[BackendView]),
    "GET policies": Given(
        "The policies that are in force, without their texts", answer=list[PolicyView], query={"all": _NUMBER}
    ),
    "GET policies/*/*": Given(
        "A policy with its text, or one version of it", _POLICY, answer=PolicyView, query={"version": _NUMBER}
    ),
    "PUT policies/*/*": Given("Set a version of a policy", _POLICY, PolicyBody, PolicyView),
    "DELETE policies/*/*": Given("Take a policy out of force", _POLICY),
    "GET policies/*/*/versions": Given("Its versions, the newest first", _POLICY, answer=list[VersionView]),
    "GET policies/*/*/activations": Given("What decided when", _POLICY, answer=list[ActivationView]),
    "GET policies/*/*/dry-run": Given("The version on trial", _POLICY, answer=list[DryRunView]),
    "POST policies/*/*/activate": Given("Let a version decide", _POLICY, VersionBody, PolicyView),
    "POST policies/*/*/rollback": Given("Let the one decide that did before", _POLICY, answer=PolicyView),
    "POST policies/*/*/dry-run": Given("Try a version beside the deciding one", _POLICY, VersionBody, DryRunView),
    "DELETE policies/*/*/dry-run": Given("End the trial", _POLICY),
    "POST policy-tests": Given("What a policy would change", body=TestBody, answer=TestReport),
    "GET recordings": Given(
        "Recorded decisions", query={"after": _NUMBER, "limit": _NUMBER}, content="application/x-ndjson"
    ),
    "DELETE recordings": Given("Forget recorded decisions"),
    "GET references": Given("All reference values with their provenance", answer=list[ReferenceView]),
    "GET references/*": Given("One reference value", ("name",), answer=ReferenceView),
    "PUT references/*": Given("Set a reference value by hand", ("name",), ReferenceBody, ReferenceView),
    "DELETE references/*": Given("Withdraw a reference value", ("name",)),
    "POST publications": Given("Publish what a provider signed", body=PublishBody, answer=PublicationView),
    "POST revocations": Given("Revoke reference values", body=RevocationBody, answer=list[ReferenceView]),
    "GET providers": Given("All providers of reference values", answer=list[ProviderView]),
    "GET providers/*": Given("One provider", ("name",), answer=ProviderView),
    "PUT providers/*": Given("Set a provider", ("name",), ProviderSettings, ProviderView),
    "DELETE providers/*": Given("Forget a provider", ("name",), answer=dict[str, Any]),
    "GET revoked": Given("What is revoked for this tenant", answer=list[Entry]),
    "POST revoked": Given("Revoke what runs", body=RevokeBody, answer=list[Entry]),
    "POST revoked/lift": Given("Take a revocation back", body=LiftBody),
    "GET broker-revoked": Given("What is revoked for every tenant", answer=list[Entry]),
    "POST broker-revoked": Given("Revoke what runs, for every tenant", body=RevokeBody, answer=list[Entry]),
    "POST broker-revoked/lift": Given("Take such a revocation back", body=LiftBody),
    "GET audit": Given(
        "Decisions, the newest or those after a row",
        answer=list[Decision],
        query={"since": _TIME, "limit": _NUMBER, "after": _NUMBER},
    ),
    "GET audit/head": Given("Length and root of the log", answer=LogHead),
    "GET audit/rows": Given(
        "Rows, byte for byte", query={"after": _NUMBER, "limit": _NUMBER}, content="application/x-ndjson"
    ),
    "GET audit/key": Given("The key that signs this log's checkpoints", answer=LogKeyView),
    "GET audit/checkpoint": Given("A signed checkpoint of now", content="text/plain; charset=utf-8"),
    "GET audit/checkpoints": Given("Those signed so far", answer=list[KeptCheckpoint], query={"after": _NUMBER}),
    "GET audit/verify": Given("What the broker finds when it recomputes its log", answer=LogReport),
    "GET audit/frontier": Given("The right edge of the log's tree", answer=LogEdge, query={"size": _NUMBER}),
    "GET audit/inclusion/*": Given(
        "A proof that a row is in it", ("row",), answer=InclusionProof, query={"size": _NUMBER}
    ),
    "GET audit/consistency": Given(
        "A proof that it continues an older log", answer=ConsistencyProof, query={"old": _NUMBER, "size": _NUMBER}
    ),
    "GET audit/decisions/*": Given("A decision, explained", ("id",), answer=Explanation),
    "GET platforms": Given("Machines that attested", answer=Platforms),
    "GET receivers": Given("Who asked for resources", answer=Receivers, query={"resource": {"type": "string"}}),
    "GET whoami": Given("Whom the broker takes you for", answer=Whoami),
    "POST own-tokens": Given("Make a personal token for yourself", body=TokenBody, answer=NewToken),
    "DELETE own-tokens/*": Given("Revoke a token of yours", ("id",)),
    "GET people": Given("People of the tenant's organisation", answer=list[PersonView]),
    "GET people/*": Given("One of them", ("name",), answer=PersonView),
    "PUT people/*": Given("Register somebody, or change what they may do", ("name",), PersonBody, PersonView),
    "DELETE people/*": Given("Forget somebody with all credentials", ("name",)),
    "POST people/*/keys": Given("Register an Ed25519 key", ("name",), KeyBody, CredentialView),
    "DELETE people/*/keys/*": Given("Take a key away", ("name", "id")),
    "POST people/*/tokens": Given("Make a personal token for somebody", ("name",), TokenBody, NewToken),
    "DELETE people/*/tokens/*": Given("Revoke somebody's token", ("name", "id")),
    "GET identity-providers": Given("All identity providers", answer=list[ProviderListed]),
    "PUT identity-providers/*": Given("Set an identity provider", ("name",), ProviderBody, ProviderListed),
    "DELETE identity-providers/*": Given(
        "Forget an identity provider", ("name",), query={"organisation": {"type": "string"}}
    ),
    "PUT admin-token": Given("Switch the admin token on or off", body=RootTokenBody),
    "GET tenants": Given("The tenants that you have to do with", answer=list[TenantView]),
    "GET tenant": Given("This tenant", answer=TenantView),
    "PUT tenant": Given("Make this tenant", body=TenantBody, answer=TenantView),
    "DELETE tenant": Given("Delete this tenant with all that is its", body=DeleteTenantBody, answer=dict[str, Any]),
    "PUT tenant/environment": Given("Set its environment", body=EnvironmentBody, answer=TenantView),
    "PUT tenant/organisation": Given("Give it to an organisation", body=OrganisationBody, answer=TenantView),
    "PUT tenant/quotas": Given("Set its quotas", body=QuotaBody, answer=TenantView),
    "PUT tenant/rates": Given("Set how often its requests are answered", body=RatesBody, answer=TenantView),
    "PUT tenant/approvals": Given("Say what needs several people", body=ApprovalRules, answer=TenantView),
    "POST promotions/plan": Given("What a promotion would do", body=PromotionBody, answer=PromotionView),
    "POST promotions": Given("Promote from another tenant", body=PromotionBody, answer=PromotionView),
    "GET organisations": Given("All organisations", answer=list[OrganisationView]),
    "PUT organisations/*": Given("Make an organisation", ("name",), answer=OrganisationView),
    "DELETE organisations/*": Given("Delete an organisation without tenants", ("name",)),
    "GET approvals": Given("What waits for approval", answer=list[ProposalView], query={"all": {"type": "string"}}),
    "GET approvals/*": Given("One proposal", ("id",), answer=ProposalView),
    "POST approvals/*/votes": Given("Approve or reject", ("id",), VoteBody, ProposalView),
    "GET openapi.json": Given("This document", answer=dict[str, Any]),
}
