"""Who administers: a principal with a role over some tenants. Which one asks, ``gate.py`` finds out.

Roles do not contain one another. An **owner** does everything with what is its tenants'; an **operator** runs the
broker and sees none of it; an **auditor** reads what was decided and by which rules. Workloads have no role: they are
known by evidence. What each may call is in ``permissions.py`` and nowhere else.

The admin token (a file that only the broker's user can read) is a principal too: the owner of everything, ``admin``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from adyton.stores.people import Person

ROOT_NAME = "admin"
ROOT_BY = "admin token"


class Role(Enum):
    """What somebody may do, where they may do anything."""

    OWNER = "owner"
    OPERATOR = "operator"
    AUDITOR = "auditor"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks. ``name`` goes into the audit log.

    ``organisation`` is empty for people of the broker itself. ``tenants`` are theirs, or ``None`` for all of the
    organisation (of the broker, if that is empty). ``by`` says how they showed who they are. ``person`` is who they are
    registered as; empty for the admin token, and for who is known only by what an identity provider says: such a one
    may ask for what needs approval, and never counts among those who approve. ``token``: the id of the personal token that
    they came by, which ends at ``until`` (Unix seconds).
    """

    name: str
    role: Role
    organisation: str = ""
    tenants: frozenset[str] | None = None
    by: str = ""
    person: str = ""
    token: str = ""
    until: float = 0.0

    @property
    def registered(self) -> bool:
        """Whether they count among those who approve."""
        return bool(self.person) or self.is_root

    @property
    def is_root(self) -> bool:
        """Whether this is the admin token."""
        return self.by == ROOT_BY

    @property
    def of_the_broker(self) -> bool:
        """Whether everything on this broker is theirs to own, run or read."""
        return not self.organisation and self.tenants is None

    @property
    def of_the_organisation(self) -> bool:
        """Whether every tenant of their organisation is theirs, also one that is yet to come."""
        return self.tenants is None

    def covers(self, tenant: str, organisation: str) -> bool:
        """Whether they have anything to do with ``tenant``, which is ``organisation``'s."""
        if self.organisation and self.organisation != organisation:
            return False
        return self.tenants is None or tenant in self.tenants


ROOT = Principal(ROOT_NAME, Role.OWNER, by=ROOT_BY)
"""The admin token's. It is one principal, however many hold it."""

NOBODY = Principal("", Role.AUDITOR, "", frozenset())
"""Who has not been asked yet: covers nothing."""


def full_name(organisation: str, name: str) -> str:
    """How the record calls somebody of an organisation."""
    return f"{organisation}/{name}" if organisation else name


def principal(organisation: str, name: str, person: Person, by: str) -> Principal:
    """Somebody who is registered, shown by ``by``."""
    return Principal(
        name=full_name(organisation, name),
        role=Role(person.role),
        organisation=organisation,
        tenants=None if person.tenants is None else frozenset(person.tenants),
        by=by,
        person=name,
    )
