"""Who may call what: the one table, consulted in one place (``http.py``) before any handler.

A request that no line names is refused, so a route exists only once it stands here. Columns: area, method, path (``*``
is one part, ``**`` any number, also none), the least that the caller must be, and the name of the change for the
audit log and for approvals (``-`` for a request that changes nothing).

============  ==========================================================================================
who           may call it
============  ==========================================================================================
``none``      anybody who reaches the broker: workloads, known by their evidence
``any``       whoever has any role over the tenant
``auditor``   auditors and owners of the tenant
``owner``     owners of the tenant
``whole``     owners of all tenants of the tenant's organisation, also of those to come
``keeper``    owners of the whole broker, about this tenant
``runner``    operators, and owners of the whole broker, about this tenant
``watcher``   operators, and owners and auditors of the whole broker
``operator``  operators, and owners of the whole broker
``broker``    owners of the whole broker
============  ==========================================================================================

The last three concern the broker and no tenant, whatever the URL says; they are written into the broker's own log.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from adyton.broker.people.people import Principal, Role
from adyton.errors import NotPermitted

_LINES = """
kbs POST   auth                            none      -
kbs POST   attest                          none      -
kbs GET    resource/*/*/*                  none      -
kbs GET    key/public/*/*/*                none      -
kbs POST   key/*/*/*/*                     none      -
kbs POST   resource/*/*/*                  owner     resource.set
kbs DELETE resource/*/*/*                  owner     resource.delete
kbs GET    external/*/**                   owner     -
kbs POST   external/*/**                   owner     plugin.use
kbs PUT    external/*/**                   owner     plugin.use
kbs DELETE external/*/**                   owner     plugin.use
kbs POST   attestation-policy              owner     policy.set
kbs POST   resource-policy                 owner     policy.set
kbs GET    resource-policy                 auditor   -
kbs POST   reference-value                 owner     reference.set
kbs GET    reference-value/*/**            auditor   -

api GET    about                           any       -
api GET    openapi.json                    any       -
api GET    resources                       owner     -
api GET    resources/*/*/*                 owner     -
api PUT    resources/*/*/*                 owner     resource.set
api PUT    resources/*/*/*/binding         owner     resource.bind
api DELETE resources/*/*/*                 owner     resource.delete

api GET    keys                            owner     -
api GET    keys/*/*/*                      owner     -
api PUT    keys/*/*/*                      owner     key.set
api DELETE keys/*/*/*                      owner     key.delete
api GET    keys/*/*/*/public               any       -
api GET    keys/*/*/*/value                owner     key.export
api POST   keys/*/*/*/rotate               owner     key.rotate
api POST   keys/*/*/*/destroy              owner     key.destroy
api POST   keys/*/*/*/versions/*/disable   owner     key.disable
api POST   keys/*/*/*/versions/*/enable    owner     key.enable
api POST   keys/*/*/*/versions/*/destroy   owner     key.destroy
api POST   keys/*/*/*/use/encrypt          owner     key.encrypt
api POST   keys/*/*/*/use/decrypt          owner     key.decrypt
api POST   keys/*/*/*/use/rewrap           owner     key.rewrap
api POST   keys/*/*/*/use/sign             owner     key.sign
api POST   keys/*/*/*/use/verify           owner     key.verify
api POST   keys/*/*/*/use/mac              owner     key.mac
api POST   keys/*/*/*/use/wrap             owner     key.wrap
api POST   keys/*/*/*/use/unwrap           owner     key.unwrap
api POST   keys/*/*/*/use/datakey          owner     key.datakey
api GET    authority                       any       -
api GET    authorities                     any       -
api GET    authorities/*/crl               any       -
api GET    authority/certificates          auditor   -
api POST   authority/rotate                owner     ca.rotate
api POST   authority/revocations           owner     ca.revoke
api GET    backends                        owner     -

api GET    policies                        auditor   -
api GET    policies/*/*                    auditor   -
api PUT    policies/*/*                    owner     policy.set
api DELETE policies/*/*                    owner     policy.delete
api GET    policies/*/*/versions           auditor   -
api GET    policies/*/*/activations        auditor   -
api GET    policies/*/*/dry-run            auditor   -
api POST   policies/*/*/activate           owner     policy.activate
api POST   policies/*/*/rollback           owner     policy.rollback
api POST   policies/*/*/dry-run            owner     policy.dry-run
api DELETE policies/*/*/dry-run            owner     policy.dry-run-end
api POST   policy-tests                    auditor   policy.test
api GET    recordings                      auditor   -
api DELETE recordings                      owner     recordings.delete

api GET    references                      auditor   -
api GET    references/*                    auditor   -
api PUT    references/*                    owner     reference.set
api DELETE references/*                    owner     reference.delete
api POST   publications                    owner     reference.publish
api POST   revocations                     owner     reference.revoke
api GET    providers                       auditor   -
api GET    providers/*                     auditor   -
api PUT    providers/*                     owner     provider.set
api DELETE providers/*                     owner     provider.delete

api GET    revoked                         auditor   -
api POST   revoked                         owner     revoke
api POST   revoked/lift                    owner     lift
api GET    broker-revoked                  watcher   -
api POST   broker-revoked                  operator  revoke
api POST   broker-revoked/lift             operator  lift

api GET    audit                           auditor   -
api GET    audit/head                      auditor   -
api GET    audit/rows                      auditor   -
api GET    audit/key                       auditor   -
api GET    audit/checkpoint                auditor   -
api GET    audit/checkpoints               auditor   -
api GET    audit/verify                    auditor   -
api GET    audit/frontier                  auditor   -
api GET    audit/inclusion/*               auditor   -
api GET    audit/consistency               auditor   -
api GET    audit/decisions/*               auditor   -
api GET    platforms                       auditor   -
api GET    receivers                       auditor   -

api GET    whoami                          any       -
api POST   own-tokens                      any       token.own
api DELETE own-tokens/*                    any       token.own
api GET    people                          auditor   -
api GET    people/*                        auditor   -
api PUT    people/*                        whole     person.set
api DELETE people/*                        whole     person.delete
api POST   people/*/keys                   whole     person.key
api DELETE people/*/keys/*                 whole     person.key.delete
api POST   people/*/tokens                 whole     person.token
api DELETE people/*/tokens/*               whole     person.token.delete
api GET    identity-providers              watcher   -
api PUT    identity-providers/*            broker    identity.set
api DELETE identity-providers/*            broker    identity.delete
api PUT    admin-token                     broker    admin-token

api GET    tenants                         any       -
api GET    tenant                          auditor   -
api PUT    tenant                          keeper    tenant.create
api DELETE tenant                          whole     tenant.delete
api PUT    tenant/environment              keeper    tenant.environment
api PUT    tenant/organisation             keeper    tenant.organisation
api PUT    tenant/quotas                   runner    tenant.quotas
api PUT    tenant/rates                    runner    tenant.rates
api PUT    tenant/approvals                whole     tenant.approvals
api POST   promotions/plan                 owner     -
api POST   promotions                      owner     promotion
api GET    organisations                   watcher   -
api PUT    organisations/*                 broker    organisation.create
api DELETE organisations/*                 broker    organisation.delete

api GET    approvals                       auditor   -
api GET    approvals/*                     auditor   -
api POST   approvals/*/votes               owner     approval.vote
"""

OPEN = "none"
OF_THE_BROKER = frozenset({"watcher", "operator", "broker"})
_BY_THE_BROKER = OF_THE_BROKER | {"keeper", "runner"}
_OWNER, _OPERATOR, _AUDITOR = frozenset({Role.OWNER}), frozenset({Role.OPERATOR}), frozenset({Role.AUDITOR})
_ROLES = {
    "none": frozenset(Role),
    "any": frozenset(Role),
    "auditor": _AUDITOR | _OWNER,
    "owner": _OWNER,
    "whole": _OWNER,
    "keeper": _OWNER,
    "runner": _OPERATOR | _OWNER,
    "watcher": frozenset(Role),
    "operator": _OPERATOR | _OWNER,
    "broker": _OWNER,
}


@dataclass(frozen=True, slots=True)
class Line:
    """One row of the table. ``action`` is empty for a request that changes nothing."""

    area: str
    method: str
    path: tuple[str, ...]
    who: str
    action: str

    @property
    def of_the_broker(self) -> bool:
        """Whether it concerns the broker as a whole, so no tenant."""
        return self.who in OF_THE_BROKER

    def matches(self, parts: tuple[str, ...]) -> bool:
        """Whether ``parts`` is such a path."""
        names, open_end = self.path, False
        if names and names[-1] == "**":
            names, open_end = names[:-1], True
        if len(parts) < len(names) or (len(parts) > len(names) and not open_end):
            return False
        return all(name in {"*", part} for name, part in zip(names, parts, strict=False))


def _read(text: str) -> tuple[Line, ...]:
    lines = []
    for row in text.splitlines():
        if not row.strip():
            continue
        area, method, path, who, action = row.split()
        if who not in _ROLES or area not in {"api", "kbs"}:
            raise ValueError(f"not a line of the table: {row}")
        lines.append(Line(area, method, tuple(path.split("/")), who, "" if action == "-" else action))
    return tuple(lines)


TABLE = _read(_LINES)


@lru_cache(maxsize=1024)
def line(area: str, method: str, parts: tuple[str, ...]) -> Line | None:
    """The line for a request, or ``None``: then nobody may."""
    return next((one for one in TABLE if one.area == area and one.method == method and one.matches(parts)), None)


def known(area: str, parts: tuple[str, ...]) -> bool:
    """Whether the path is served with some method."""
    return any(one.area == area and one.matches(parts) for one in TABLE)


def check(asked: Line, who: Principal, tenant: str, organisation: str) -> None:
    """``NotPermitted`` unless ``who`` may ask for this line of ``tenant``, which is ``organisation``'s.

    ``tenant_not_permitted`` says the same of tenants that exist and of those that do not.
    """
    if asked.who in _BY_THE_BROKER and (asked.of_the_broker or who.covers(tenant, organisation)):
        fits = who.role in _ROLES[asked.who] and who.of_the_broker
    elif not who.covers(tenant, organisation):
        raise NotPermitted("there is no such tenant, or it is not yours", code="tenant_not_permitted", field="tenant")
    else:
        fits = who.role in _ROLES[asked.who] and (asked.who != "whole" or who.of_the_organisation)
    if not fits:
        raise NotPermitted(
            f"this is not for the role {who.role.value}",
            code="role_not_permitted",
            field="role",
            expected=_expected(asked.who),
            got=who.role.value,
        )


def _expected(who: str) -> str:
    roles = ", ".join(sorted(role.value for role in _ROLES[who]))
    whole = " of the whole broker" if who in _BY_THE_BROKER else " of the whole organisation" if who == "whole" else ""
    return roles + whole
