"""What was revoked, from the owner's or the operator's side, and the signed list for those who verify tokens themselves."""

from __future__ import annotations

from adyton.client.admin import Admin
from adyton.client.transport import Transport
from adyton.errors import Unavailable
from adyton.protocol.revoked import PATH, Entry, LiftBody, RevokeBody


class Revoking:
    """Revocations of a tenant, or with ``everywhere`` of the whole broker. In force everywhere when a method returns."""

    def __init__(self, admin: Admin, *, everywhere: bool = False) -> None:
        self._admin = admin
        self._path = "/broker-revoked" if everywhere else "/revoked"

    def revoke(self, kind: str, values: list[str], reason: str) -> list[Entry]:
        """Revoke all of ``values`` or none; ``MalformedRequest``."""
        return self._admin.ask("POST", self._path, list[Entry], RevokeBody(kind, values, reason))

    def list(self) -> list[Entry]:
        """What is revoked; a tenant's list includes the broker's."""
        return self._admin.ask("GET", self._path, list[Entry])

    def lift(self, kind: str, value: str, reason: str) -> None:
        """Take one back; ``NotFound``."""
        self._admin.send("POST", f"{self._path}/lift", LiftBody(kind, value, reason))


def published(transport: Transport) -> str:
    """The signed list, a token to be verified with the broker's JWK set; ``Unavailable``."""
    reply = transport.request("GET", PATH)
    if reply.status != 200:
        raise Unavailable("the broker publishes no revocations", code="broker_answer", got=reply.status)
    return reply.body.decode("ascii", "replace")
