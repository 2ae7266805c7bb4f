"""Tenants, organisations, people and approvals, through an administration client."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from adyton.client.admin import Admin
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


class People:
    """Those of a broker's tenant. What needs others' approval raises ``NotPermitted`` ``approval_pending`` with its id."""

    def __init__(self, admin: Admin) -> None:
        self._admin = admin

    def whoami(self) -> Whoami:
        """Whom the broker takes the caller for."""
        return self._admin.ask("GET", "/whoami", Whoami)

    def list_people(self) -> list[PersonView]:
        """People of the tenant's organisation."""
        return self._admin.ask("GET", "/people", list[PersonView])

    def show_person(self, name: str) -> PersonView:
        """One of them; ``NotFound``."""
        return self._admin.ask("GET", f"/people/{_part(name)}", PersonView)

    def set_person(self, name: str, body: PersonBody) -> PersonView:
        """Register somebody, or change what they may do."""
        return self._admin.ask("PUT", f"/people/{_part(name)}", PersonView, body)

    def delete_person(self, name: str) -> None:
        """Forget somebody with all credentials; ``NotFound``."""
        self._admin.send("DELETE", f"/people/{_part(name)}")

    def add_key(self, name: str, pem: str) -> CredentialView:
        """Register an Ed25519 public key."""
        return self._admin.ask("POST", f"/people/{_part(name)}/keys", CredentialView, KeyBody(pem))

    def remove_key(self, name: str, number: str) -> None:
        """Take a key away; ``NotFound``."""
        self._admin.send("DELETE", f"/people/{_part(name)}/keys/{_part(number)}")

    def add_token(self, name: str, days: int = 90) -> NewToken:
        """Make a personal token for somebody else. It is in this answer and nowhere else."""
        return self._admin.ask("POST", f"/people/{_part(name)}/tokens", NewToken, TokenBody(days))

    def remove_token(self, name: str, number: str) -> None:
        """Revoke somebody's token; ``NotFound``."""
        self._admin.send("DELETE", f"/people/{_part(name)}/tokens/{_part(number)}")

    def own_token(self, days: int = 90) -> NewToken:
        """Make a personal token for the caller."""
        return self._admin.ask("POST", "/own-tokens", NewToken, TokenBody(days))

    def remove_own_token(self, number: str) -> None:
        """Revoke a token of the caller's; ``NotFound``."""
        self._admin.send("DELETE", f"/own-tokens/{_part(number)}")

    def list_providers(self) -> list[ProviderListed]:
        """All identity providers."""
        return self._admin.ask("GET", "/identity-providers", list[ProviderListed])

    def set_provider(self, name: str, body: ProviderBody) -> ProviderListed:
        """Set an identity provider."""
        return self._admin.ask("PUT", f"/identity-providers/{_part(name)}", ProviderListed, body)

    def delete_provider(self, name: str, organisation: str = "") -> None:
        """Forget one; ``NotFound``."""
        self._admin.send("DELETE", f"/identity-providers/{_part(name)}?organisation={_part(organisation)}")

    def switch_admin_token(self, *, enabled: bool = False) -> None:
        """Accept the admin token from now on, or refuse it."""
        self._admin.send("PUT", "/admin-token", RootTokenBody(enabled))

    def list_tenants(self) -> list[TenantView]:
        """Those that the caller has to do with."""
        return self._admin.ask("GET", "/tenants", list[TenantView])

    def show_tenant(self) -> TenantView:
        """This one."""
        return self._admin.ask("GET", "/tenant", TenantView)

    def make_tenant(self, body: TenantBody) -> TenantView:
        """Make this one; ``Conflict``."""
        return self._admin.ask("PUT", "/tenant", TenantView, body)

    def delete_tenant(self) -> dict[str, Any]:
        """Delete this one with all that is its."""
        name = self._admin.address.tenant
        return self._admin.ask("DELETE", "/tenant", dict[str, Any], DeleteTenantBody(name))

    def set_environment(self, environment: str) -> TenantView:
        """Set its environment."""
        return self._admin.ask("PUT", "/tenant/environment", TenantView, EnvironmentBody(environment))

    def set_organisation(self, organisation: str) -> TenantView:
        """Give it to an organisation."""
        return self._admin.ask("PUT", "/tenant/organisation", TenantView, OrganisationBody(organisation))

    def set_rates(self, rates: tuple[str, ...]) -> TenantView:
        """Set all rates of its own."""
        return self._admin.ask("PUT", "/tenant/rates", TenantView, RatesBody(rates))

    def set_quotas(self, quotas: dict[str, int]) -> TenantView:
        """Set all its quotas."""
        return self._admin.ask("PUT", "/tenant/quotas", TenantView, QuotaBody(quotas))

    def set_approvals(self, rules: ApprovalRules) -> TenantView:
        """Say what needs several people."""
        return self._admin.ask("PUT", "/tenant/approvals", TenantView, rules)

    def plan_promotion(self, body: PromotionBody) -> PromotionView:
        """What a promotion into this tenant would do."""
        return self._admin.ask("POST", "/promotions/plan", PromotionView, body)

    def promote(self, body: PromotionBody) -> PromotionView:
        """Promote into this tenant; ``Conflict`` if it is not what was shown."""
        return self._admin.ask("POST", "/promotions", PromotionView, body)

    def list_organisations(self) -> list[OrganisationView]:
        """All organisations."""
        return self._admin.ask("GET", "/organisations", list[OrganisationView])

    def make_organisation(self, name: str) -> OrganisationView:
        """Make one; ``Conflict``."""
        return self._admin.ask("PUT", f"/organisations/{_part(name)}", OrganisationView)

    def delete_organisation(self, name: str) -> None:
        """Delete one that has no tenants."""
        self._admin.send("DELETE", f"/organisations/{_part(name)}")

    def list_proposals(self, *, decided: bool = False) -> list[ProposalView]:
        """What waits for approval, or all that there was."""
        return self._admin.ask("GET", "/approvals?all" if decided else "/approvals", list[ProposalView])

    def show_proposal(self, number: str) -> ProposalView:
        """One of them; ``NotFound``."""
        return self._admin.ask("GET", f"/approvals/{_part(number)}", ProposalView)

    def vote(self, number: str, digest: str, choice: str) -> ProposalView:
        """``approve`` or ``reject`` the request with this digest."""
        return self._admin.ask("POST", f"/approvals/{_part(number)}/votes", ProposalView, VoteBody(digest, choice))


def _part(text: str) -> str:
    return quote(text, safe="")
