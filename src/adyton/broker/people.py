"""Who administers: a principal with a role over some tenants, and the gate that finds out which one asks.

Roles do not contain one another. An **owner** does everything with what is its tenants'; an **operator** runs the
broker and sees none of it; an **auditor** reads what was decided and by which rules. Workloads have no role: they are
known by evidence. What each may call is in ``permissions.py`` and nowhere else.

The admin token (a file that only the broker's user can read) is a principal too: the owner of everything, ``admin``.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from adyton.errors import NotPermitted

ROOT_NAME = "admin"


class Role(Enum):
    """What somebody may do, where they may do anything."""

    OWNER = "owner"
    OPERATOR = "operator"
    AUDITOR = "auditor"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks. ``name`` goes into the audit log.

    ``organisation`` is empty for people of the broker itself. ``tenants`` are theirs, or ``None`` for all of the
    organisation (of the broker, if that is empty). ``by`` says how they showed who they are. ``registered`` is false for
    who is known only by what an identity provider says: such a one may ask for what needs approval, and never counts
    among those who approve.
    """

    name: str
    role: Role
    organisation: str = ""
    tenants: frozenset[str] | None = None
    by: str = ""
    registered: bool = True

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


ROOT = Principal(ROOT_NAME, Role.OWNER, by="admin token")


class Gate:
    """Says who asks. Of the admin token only its digest is kept in memory."""

    def __init__(self, token: str) -> None:
        if len(token) < 32:
            raise ValueError("an admin token has at least 32 characters")
        self._digest = hashlib.sha256(token.encode()).digest()

    def check(self, authorization: bytes | None, tenant: str, now: datetime) -> Principal:
        """Who the header's bearer token makes known to ``tenant``; ``NotPermitted``. Secrets compare in constant time."""
        del tenant, now
        scheme, _, token = (authorization or b"").partition(b" ")
        digest = hashlib.sha256(token.strip()).digest()
        if scheme.lower() != b"bearer" or not hmac.compare_digest(digest, self._digest):
            raise refused()
        return ROOT


def refused() -> NotPermitted:
    """The one answer to everybody who is nobody here: it does not say what was wrong."""
    return NotPermitted("administration needs the admin token", code="admin_token_refused")
