"""What back ends are still to remove (``stores.removals``), tried again until they have: by one worker of each broker.

So is what somebody was about to put there and did not come to write down (``stores.intents``).

A round is bounded: so many of each tenant and back end, and a back end that does not answer is left alone until the next.
One that refuses a single removal does not hold up the others: they are taken in turn.
"""

from __future__ import annotations

import hashlib
import logging
import time

from adyton.errors import AdytonError, Unavailable
from adyton.protocol.resource import ResourcePath
from adyton.stores.backends.configured import Backends
from adyton.stores.backends.guard import ANSWERED
from adyton.stores.intents import GRACE
from adyton.stores.removals import Waiting
from adyton.stores.sqlite import Store

MOST = 20
"""Removals that one round tries for each tenant and back end."""
_LOG = logging.getLogger(__name__)


class Sweeper:
    """Removes; blocks. ``sweep`` is called from one thread, ``remove`` from any."""

    def __init__(self, store: Store, backends: Backends) -> None:
        self._store = store
        self._backends = backends
        self._after: dict[tuple[str, str], int] = {}
        self.grace = GRACE

    def remove(self, one: Waiting) -> None:
        """Remove it there and forget it; errors as the back end gives them, and then it waits."""
        backend = self._backends.configured_for(one.tenant, one.backend)
        given, tenant = one.removal, one.tenant
        if given.kind == "key":
            backend.with_keys(lambda held: held.destroy(given.pointer))
        elif given.kind == "made":
            for handle in backend.with_keys(lambda held: held.labelled(given.pointer)):
                backend.with_keys(lambda held, handle=handle: held.destroy(handle))  # type: ignore[misc]
        elif given.kind == "put":
            self._remove_put(one, ResourcePath.parse(given.path))
        else:
            path = ResourcePath.parse(given.path)
            if not self._pointed_to(one, path):
                backend.run(lambda holder: holder.delete(tenant, path, given.pointer))
        self._store.removals.done(one)

    def _remove_put(self, one: Waiting, path: ResourcePath) -> None:
        """A value of which only the digest is known: each that lies at its path is looked at."""
        backend, tenant = self._backends.configured_for(one.tenant, one.backend), one.tenant
        for pointer in backend.run(lambda holder: holder.pointers(tenant, path)):
            found = backend.run(lambda holder, pointer=pointer: holder.get(tenant, path, pointer))  # type: ignore[misc]
            if found is not None and hashlib.sha256(found).hexdigest() == one.removal.pointer:
                backend.run(lambda holder, pointer=pointer: holder.delete(tenant, path, pointer))  # type: ignore[misc]

    def sweep(self) -> int:
        """One round; how many went."""
        now = self._store.time(time.time())
        for intent in self._store.intents.abandoned(now, self.grace):
            self._store.intents.give_up(intent)
        self._erase()
        gone, silent = 0, set[str]()
        for tenant in self._store.removals.tenants():
            for backend in self._store.removals.counts(tenant):
                if backend not in silent:
                    gone += self._some(tenant, backend, silent)
        if gone:
            _LOG.info("removed from back ends, late: %d", gone)
        return gone

    def _erase(self) -> None:
        """What the store itself could not overwrite yet; a try takes seconds at most."""
        try:
            self._store.erasures.finish()
        except Unavailable as error:
            _LOG.warning("keys were destroyed, their bytes are not overwritten yet: %s [%s]", error.message, error.code)

    def _some(self, tenant: str, backend: str, silent: set[str]) -> int:
        gone, refused = 0, ""
        found = self._store.removals.of(tenant, backend, self._after.pop((tenant, backend), 0), MOST)
        for one in found:
            try:
                self.remove(one)
                gone += 1
            except AdytonError as error:
                if isinstance(error, Unavailable) and error.code not in ANSWERED:
                    silent.add(backend)
                    return gone
                refused = f"{error.message} [{error.code}]"
        if refused:
            _LOG.warning("the back end %s does not remove everything that it is to: %s", backend, refused)
        if len(found) == MOST:  # else from the first again
            self._after[tenant, backend] = found[-1].number
        return gone

    def _pointed_to(self, one: Waiting, path: ResourcePath) -> bool:
        """Whether a resource points there (again): a back end that was reset begins to count anew."""
        stored = self._store.resources.get(one.tenant, path)
        where = stored.info.elsewhere if stored is not None else None
        return where is not None and (where.backend, where.pointer) == (one.backend, one.removal.pointer)
