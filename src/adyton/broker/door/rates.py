"""How often somebody may ask: per tenant and per address, each with what it asks for, in each worker by itself.

Off unless it is set, since whole fleets start at once. A tenant's own rates take the place of the broker's for it. What
all workers of all brokers together let through is the rate times their number. A bucket is one number: the time at which it is empty again if
nobody asks any more (GCRA). Memory is bounded: where too many addresses ask at a time, those that are new share one
bucket, so inventing addresses gains nothing. An IPv6 address counts by its first 64 bits, which is what one host has.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from math import ceil

from adyton.broker.door.paths import Route
from adyton.errors import ConfigError

PUBLISHED = "published"
"""The class of what anybody may fetch: certificates of roots, lists of revoked."""
CLASSES = ("auth", "attest", "resource", "admin", PUBLISHED)
FETCHES = f"{PUBLISHED}=50:500"
"""What an address may fetch of it in each worker, where nobody has set a rate."""
MAX_BUCKETS = 65_536
SWEEP_SECONDS = 1.0
_RATE = re.compile(r"(auth|attest|resource|admin|published)=(\d{1,7}(?:\.\d{1,3})?)(?::(\d{1,7}))?\Z")


@dataclass(frozen=True, slots=True)
class Rate:
    """One request takes ``gap`` seconds of a bucket that holds ``room`` seconds beyond the first."""

    gap: float
    room: float

    @classmethod
    def parse(cls, text: str) -> tuple[str, Rate]:
        """``CLASS=PER_SECOND[:BURST]``; ``ConfigError``. The burst is one second's worth if it is not given."""
        found = _RATE.match(text)
        per_second = float(found.group(2)) if found else 0.0
        burst = int(found.group(3) or max(1, ceil(per_second))) if found else 0
        if found is None or per_second <= 0 or burst < 1:
            raise ConfigError(
                "not a rate",
                code="setting_invalid",
                field="rate-limit",
                expected=f"CLASS=PER_SECOND[:BURST] with a class of {', '.join(CLASSES)}",
                got=text[:80],
            )
        return found.group(1), cls(1 / per_second, (burst - 1) / per_second)


@dataclass(slots=True)
class _Buckets:
    """The buckets of one class, by whom they are."""

    rate: Rate
    empty_at: dict[str, float] = field(default_factory=dict)
    swept: float = 0.0

    def take(self, who: str, now: float) -> float:
        """0 if one more may ask now, else in how many seconds."""
        empty_at = self.empty_at
        at = empty_at.get(who)
        if at is None:
            if len(empty_at) >= MAX_BUCKETS:
                self._sweep(now)
                if len(empty_at) >= MAX_BUCKETS:
                    who = ""
            at = empty_at.get(who, now)
        at = max(at, now)
        over = at - now - self.rate.room
        if over > 1e-9:
            return over
        empty_at[who] = at + self.rate.gap
        return 0.0

    def _sweep(self, now: float) -> None:
        if now < self.swept + SWEEP_SECONDS:  # else each request of an attack would go over all of them
            return
        self.swept = now
        for who in [who for who, at in self.empty_at.items() if at <= now]:
            del self.empty_at[who]


def parse_all(texts: Iterable[str]) -> dict[str, Rate]:
    """Rates by class; ``ConfigError`` for a class that is named twice too."""
    found: dict[str, Rate] = {}
    for text in texts:
        name, rate = Rate.parse(text)
        if name in found:
            raise ConfigError("two rates of one class", code="setting_invalid", field="rate-limit", got=name)
        found[name] = rate
    return found


Own = Callable[[str, float], Mapping[str, Rate]]
"""A tenant's own rates by class, as known at a time."""


class Rates:
    """The limits of one worker. ``tenants`` and ``peers`` are texts as ``Rate.parse`` takes them."""

    def __init__(self, tenants: Iterable[str], peers: Iterable[str], own: Own | None = None) -> None:
        self._own = own
        self._special: dict[tuple[str, str], _Buckets] = {}
        self._tenants = {name: _Buckets(rate) for name, rate in map(Rate.parse, tenants)}
        self.peers = {name: _Buckets(rate) for name, rate in map(Rate.parse, peers)}

    @classmethod
    def of(cls, tenants: Iterable[str], peers: Iterable[str], own: Own | None = None) -> Rates | None:
        """``None`` where nothing is limited, so that nothing is paid for it."""
        made = cls(tenants, peers, own)
        return made if made._tenants or made.peers or own is not None else None

    def wait(self, where: Route, peer: str, now: float) -> int:
        """0 if the request may go on, else whole seconds until it may. ``now`` only ever grows."""
        if not self.peers and not self._tenants and (self._own is None or not self._own(where.tenant, now)):
            return 0
        first = where.parts[0] if where.area == "kbs" and where.parts else ""
        name = first if first in {"auth", "attest"} else "resource" if first in {"resource", "key"} else "admin"
        if where.area == "top" and where.parts[:1] == (".well-known",):
            name = PUBLISHED
        buckets = self.peers.get(name)
        over = buckets.take(_host(peer), now) if buckets is not None else 0.0
        if not over and (buckets := self._of(where.tenant, name, now)) is not None:
            over = buckets.take(where.tenant, now)
        return ceil(over)

    def _of(self, tenant: str, name: str, now: float) -> _Buckets | None:
        rate = self._own(tenant, now).get(name) if self._own is not None else None
        if rate is None:
            return self._tenants.get(name)
        found = self._special.get((tenant, name))
        if found is None or found.rate != rate:
            if len(self._special) >= MAX_BUCKETS:
                self._special.clear()
            found = self._special[tenant, name] = _Buckets(rate, found.empty_at if found is not None else {})
        return found


class Fetches:
    """The limit of one worker for what anybody may fetch: each address has one, set by the operator or ``FETCHES``."""

    def __init__(self) -> None:
        self._rates = Rates((), (FETCHES,))

    def wait(self, rates: Rates | None, where: Route, peer: str, now: float) -> int:
        """As ``Rates.wait``. ``rates``: those that were set."""
        wait = rates.wait(where, peer, now) if rates is not None else 0
        if not wait and (rates is None or PUBLISHED not in rates.peers):
            wait = self._rates.wait(where, peer, now)
        return wait


def _host(peer: str) -> str:
    if ":" not in peer:
        return peer
    try:
        address = IPv6Address(peer.partition("%")[0])
        if address.ipv4_mapped is not None:  # of a listener for both: else all of IPv4 were one
            return str(address.ipv4_mapped)
        return str(int(address) >> 64)
    except ValueError:
        return peer
