"""Revoking what runs: ``/api/v0/revoked`` for a tenant, ``/api/v0/broker-revoked`` for the whole broker, and the list for others.

Acknowledged means decided: when the answer leaves, no worker attests what was revoked, and every session that stood
before is over (the generation has grown). Whoever is not revoked attests again and goes on.
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from adyton.broker import keys
from adyton.broker.door import api_bodies, refusals
from adyton.broker.door.answer import Answer
from adyton.broker.door.asked import Asked
from adyton.broker.keys import BrokerKeys
from adyton.broker.policy.rego import Memory
from adyton.errors import MalformedRequest
from adyton.protocol import revoked
from adyton.protocol.revoked import Entry, LiftBody, RevocationList, RevokeBody, Revoked
from adyton.stores.revoked import EVERYWHERE, StoredRevocation
from adyton.stores.sqlite import Store

OWN = "revoked"
BROKER = "broker-revoked"
MAX_VALUES = 1000
JWT = b"application/jwt"
_ENCODE = msgspec.json.Encoder().encode
_MAX_LISTS = 256
_MAX_DIGESTS = 16


class RevokedApi:
    """Our API's part below ``revoked`` and ``broker-revoked``, for one worker."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def handle(self, asked: Asked, parts: tuple[str, ...]) -> Answer:
        """The answer; errors of the tree leave as they are."""
        tenant = EVERYWHERE if parts[0] == BROKER else asked.tenant
        match (asked.method, *parts[1:]):
            case ("GET",):
                found = self._store.revoked.list(tenant)
                return api_bodies.answer([_entry(one) for one in found])
            case ("POST",):
                return self._revoke(tenant, asked, api_bodies.read(asked.body, RevokeBody))
            case ("POST", "lift"):
                return self._lift(tenant, api_bodies.read(asked.body, LiftBody))
        return refusals.NO_METHOD if len(parts) == 1 else refusals.NO_PATH

    def _revoke(self, tenant: str, asked: Asked, body: RevokeBody) -> Answer:
        reason = _reason(body.reason)
        if not 0 < len(body.values) <= MAX_VALUES:
            raise MalformedRequest(
                "say what to revoke", code="revocation_malformed", field="values", expected=f"1 to {MAX_VALUES}"
            )
        values = [revoked.written(body.kind, value) for value in body.values]
        if body.kind == "key":
            if tenant != EVERYWHERE:
                raise MalformedRequest(
                    "signing keys are the whole broker's",
                    code="kind_invalid",
                    field="kind",
                    hint="adyton broker revoke key KID --everywhere",
                )
            for value in values:
                keys.revoke(self._store.secrets, value, asked.now.timestamp())
        added = self._store.revoked.add(tenant, body.kind, values, reason, asked.who, asked.now)
        return api_bodies.answer(
            [_entry(one) for one in added],
            *[(f"revoke.{one.kind}", _recorded(one.value, tenant, reason)) for one in added],
        )

    def _lift(self, tenant: str, body: LiftBody) -> Answer:
        reason, value = _reason(body.reason), revoked.written(body.kind, body.value)
        self._store.revoked.lift(tenant, body.kind, value)
        return Answer(204, changes=((f"lift.{body.kind}", _recorded(value, tenant, reason)),))


class PublishedLists:
    """The signed lists that anybody may fetch, made once per generation and signing key, and anew when half their time is over.

    Of a tenant that nothing was ever set for it is signed for each who asks, from digests that are computed once, and
    not kept: anybody can make up names.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._digests = Memory[msgspec.Raw](_MAX_DIGESTS)
        self._made: OrderedDict[str, tuple[int, str, float, bytes]] = OrderedDict()

    def answer(self, tenant: str, current: BrokerKeys, now: float) -> Answer:
        """The list of ``tenant``; of one that does not exist, the broker's own."""
        generation = self._store.generation(tenant)
        known = self._made.get(tenant)
        if not generation:
            return Answer(200, self._sign(tenant, generation, current, int(now)), content_type=JWT)
        if known is None or known[:2] != (generation, current.signer.kid) or now >= known[2]:
            token = self._sign(tenant, generation, current, int(now))
            known = (generation, current.signer.kid, now + revoked.LIST_SECONDS / 2, token)
            while len(self._made) >= _MAX_LISTS:
                self._made.popitem(last=False)
            self._made[tenant] = known
        return Answer(200, known[3], content_type=JWT)

    def _sign(self, tenant: str, generation: int, current: BrokerKeys, now: int) -> bytes:
        published = RevocationList("Adyton", revoked.PURPOSE, now, now + revoked.LIST_SECONDS, tenant, generation, {})
        payload = {**msgspec.structs.asdict(published), "revoked": self._named(self._store.revoked.current(tenant))}
        return current.signer.sign(_ENCODE(payload)).encode("ascii")

    def _named(self, current: Revoked) -> msgspec.Raw:
        """The digests by kind, sorted, as JSON."""
        known = self._digests.get(current.entries)
        if known is None:
            found: dict[str, list[str]] = {kind: [] for kind in revoked.KINDS}
            for kind, value in current.entries:
                found.setdefault(kind, []).append(revoked.name(kind, value))
            known = msgspec.Raw(_ENCODE({kind: sorted(digests) for kind, digests in found.items()}))
            self._digests.put(current.entries, known)
        return known


def _reason(text: str) -> str:
    reason = text.strip()
    if not 0 < len(reason) <= revoked.MAX_REASON:
        raise MalformedRequest(
            "say why: the record keeps it",
            code="reason_missing",
            field="reason",
            expected=f"1 to {revoked.MAX_REASON} characters",
            got=len(reason),
        )
    return reason


def _recorded(value: str, tenant: str, reason: str) -> str:
    where = " everywhere" if tenant == EVERYWHERE else ""
    return f"{value[:200]}{where}: {reason}"


def _entry(one: StoredRevocation) -> Entry:
    return Entry(one.kind, one.value, one.reason, api_bodies.stamp(one.time), one.who, one.tenant == EVERYWHERE)
