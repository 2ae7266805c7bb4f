"""Organisations, tenants, people and approvals, as the owner's tools and the broker speak of them under ``/api/v0``.

Of credentials only what names them comes back: thumbprints and ids. A personal token is in one answer, once.
"""

from __future__ import annotations

import msgspec

ROLES = ("owner", "operator", "auditor")
QUOTAS = ("resources", "bytes", "policies", "references", "keys")


class ApprovalRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which changes need several people: ``actions`` (a name, or what comes before its dot), ``needed`` of them.

    The proposer is one. An undecided proposal ends after ``hours``. No actions: no approval is needed.
    """

    actions: tuple[str, ...] = ()
    needed: int = 2
    hours: int = 72


class TenantBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Make a tenant; the organisation must exist, or be empty."""

    organisation: str = ""
    environment: str = "production"


class TenantView(msgspec.Struct, frozen=True):
    """A tenant. ``implicit``: it came into being by use and was never made. ``used`` counts what quotas limit."""

    name: str
    organisation: str
    environment: str
    implicit: bool
    approvals: ApprovalRules
    quotas: dict[str, int]
    used: dict[str, int]
    rates: list[str] = []


class EnvironmentBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Another environment for a tenant."""

    environment: str


class OrganisationBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Another organisation for a tenant."""

    organisation: str


class QuotaBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All quotas of a tenant; one that is not named does not limit. Names: ``QUOTAS``."""

    quotas: dict[str, int]


class RatesBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of a tenant's own rates (``CLASS=PER_SECOND[:BURST]``, in each worker); for other classes the broker's hold."""

    rates: tuple[str, ...]


class DeleteTenantBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Delete a tenant with all that is its; ``name`` once more, so that nobody does it by a slip."""

    name: str


class OrganisationView(msgspec.Struct, frozen=True):
    """An organisation and the names of its tenants."""

    name: str
    created: str
    tenants: list[str]


class PersonBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Somebody and what they may do. ``tenants`` ``None``: all of the organisation. ``subjects``: ``PROVIDER:SUB``.

    ``subjects`` are what identity providers call them, so that a login by one of those is this person.
    """

    role: str
    tenants: tuple[str, ...] | None = None
    subjects: tuple[str, ...] = ()


class CredentialView(msgspec.Struct, frozen=True):
    """A key (``id`` is its RFC 7638 thumbprint) or a token. ``expires`` is ``None`` for a key."""

    id: str
    kind: str
    created: str
    expires: str | None = None


class PersonView(msgspec.Struct, frozen=True):
    """Somebody with what they may do, and what they show who they are with."""

    name: str
    organisation: str
    role: str
    tenants: tuple[str, ...] | None
    subjects: tuple[str, ...]
    credentials: list[CredentialView]


class KeyBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An Ed25519 public key, PEM (SubjectPublicKeyInfo)."""

    pem: str


class TokenBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Make a personal token that ends after ``days``."""

    days: int = 90


class NewToken(msgspec.Struct, frozen=True):
    """A personal token. It is not shown again."""

    id: str
    token: str
    expires: str


class Mapped(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one value of the role claim means."""

    role: str
    tenants: tuple[str, ...] | None = None


class ProviderBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An OpenID provider. ``audience`` must be in its tokens' ``aud``.

    ``organisation`` is whose people it knows; empty: the broker's. ``roles`` maps values of the claim ``role_claim`` (a
    text or a list of texts; dots go into objects); nobody has a role that it does not name. ``ca`` is PEM of the only
    roots that its certificates may lead to; empty: those of the system. ``algorithms``: the signatures that are accepted.
    """

    issuer: str
    audience: str
    organisation: str = ""
    role_claim: str = "role"
    roles: dict[str, Mapped] = {}
    algorithms: tuple[str, ...] = ("RS256", "PS256", "ES256", "EdDSA", "Ed25519")
    ca: str = ""


class ProviderListed(ProviderBody, frozen=True, forbid_unknown_fields=False):
    """As it was set, with its name."""

    name: str = ""


class Whoami(msgspec.Struct, frozen=True):
    """Whom the broker takes the caller for."""

    name: str
    role: str
    organisation: str
    tenants: tuple[str, ...] | None
    by: str
    registered: bool


class RootTokenBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whether the admin token is accepted."""

    enabled: bool


class Vote(msgspec.Struct, frozen=True):
    """What somebody said about a proposal."""

    who: str
    choice: str
    time: str


class ProposalView(msgspec.Struct, frozen=True):
    """A change that waits for approval. ``digest`` names the exact request (SHA-256, hex); votes are given for it.

    ``state``: pending, executing, done, failed, unknown, rejected or expired. ``shown`` is the request's body, but for what would
    show a secret. ``agreed`` counts as the votes do now.
    """

    id: str
    action: str
    method: str
    path: str
    digest: str
    by: str
    created: str
    expires: str
    state: str
    needed: int
    agreed: int
    votes: list[Vote]
    shown: str = ""
    outcome: str = ""


class VoteBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Approve (or reject) the request with this digest."""

    digest: str
    choice: str


class PromotionBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Copy from tenant ``source`` to the one that is asked. Resources only by name. ``expected``: the diff's digest.

    ``as_set_by_hand``: a provider's values lose it and its proof; else the target must know the provider by the same keys.
    """

    source: str
    policies: bool = False
    references: bool = False
    resources: tuple[str, ...] = ()
    expected: str = ""
    as_set_by_hand: bool = False


class Step(msgspec.Struct, frozen=True):
    """One thing that a promotion sets: ``change`` is new, changed or same; ``diff`` is a unified diff of texts."""

    kind: str
    name: str
    change: str
    diff: str = ""


class PromotionView(msgspec.Struct, frozen=True):
    """What a promotion would do, or did. ``digest`` names exactly these steps."""

    source: str
    target: str
    digest: str
    steps: list[Step]
    done: bool
