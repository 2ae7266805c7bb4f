"""Values that lie in a back end: written before the row that points to them, read for one release, never kept.

What is written there is sealed by the store's data key for tenant, back end, path and version, so a back end can lose a
value but neither read it nor pass another one off as it. A value that somebody else wrote there in plain has no such
protection; that it has none was said when it was set.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Protocol

import msgspec

from adyton.broker.outside.sweeping import Sweeper
from adyton.errors import AdytonError, MalformedRequest, NotFound, TooLarge, Unavailable
from adyton.protocol.backends import BackendView
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath
from adyton.stores.backends.configured import Backends
from adyton.stores.backends.port import MAX_VALUE
from adyton.stores.deed import UNKNOWN
from adyton.stores.intents import Intent
from adyton.stores.removals import Removal, Waiting
from adyton.stores.resource_rows import Elsewhere, ResourceInfo
from adyton.stores.resources import elsewhere_name
from adyton.stores.sqlite import Store
from adyton.stores.tenant_settings import BROKER

NOT_BEGUN = frozenset({"backend_resting", "backend_busy", "hsm_busy", "backend_value_too_large"})
"""Codes of calls that reached no back end."""
MAX_PLAIN = MAX_VALUE - 64
_KIND = "value elsewhere"
_WAITING_OWNERS = 2
"""Owners' calls that may wait for back ends at once: they share a few threads with everybody else's administration."""
_LOG = logging.getLogger(__name__)


class Checkable(Protocol):
    """What else ``check`` looks at."""

    def check(self, tenant: str) -> list[BackendView]:
        """How each is that the tenant may use."""
        ...


class ElsewhereValues:
    """Reads and writes them for one worker. All but ``fetch`` block and are called from a thread.

    ``clock`` gives Unix seconds: an intent is as old as it is, however long the request has waited before.
    """

    def __init__(self, store: Store, backends: Backends, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock
        self.backends = backends
        self.sweeper = Sweeper(store, backends)
        self.plugins: Checkable | None = None
        self._places = threading.BoundedSemaphore(_WAITING_OWNERS)

    def set(  # noqa: PLR0917 -- whose, which, what, for whom, where, when
        self, tenant: str, path: ResourcePath, value: bytes, binding: Binding | None, name: str, now: datetime
    ) -> ResourceInfo:
        """Put ``value`` into the back end ``name``, read it back, then let the store point to it."""
        if len(value) > MAX_PLAIN:
            raise TooLarge(f"a back end takes at most {MAX_PLAIN} bytes", code="resource_too_large", got=len(value))
        backend = self.backends.of(tenant, name)
        with self._place():
            version, sealed, intent = self._store.resources.seal_elsewhere(
                tenant, path, value, _KIND, name, self._begun()
            )
            pointer = ""
            try:
                pointer = backend.run(lambda holder: holder.put(tenant, path, sealed))
                where = Elsewhere(name, pointer, version, len(value))
                if backend.run(lambda holder: holder.get(tenant, path, pointer)) != sealed:
                    raise _not_what_was_put(name)
                info, old = self._store.resources.exchange(tenant, path, where, binding, now, intent)
            except AdytonError as error:
                self.unused(intent, Removal("value", str(path), pointer) if pointer else None, error)
                raise
        self.kept(intent, Removal("value", str(path), pointer))
        self.forget(old)
        return info

    def set_foreign(
        self, tenant: str, path: ResourcePath, binding: Binding | None, name: str, now: datetime
    ) -> ResourceInfo:
        """Point to what somebody else wrote at this path; it must be there."""
        backend = self.backends.of(tenant, name)
        with self._place():
            found = backend.run(lambda holder: holder.get(tenant, path))
            if found is None:
                raise NotFound(
                    "the back end has no value at this path", code="backend_value_absent", field=name, got=path.uri
                )
            info, old = self._store.resources.exchange(tenant, path, Elsewhere(name, "", 0, len(found)), binding, now)
        self.forget(old)
        return info

    def forget(self, old: Waiting | None) -> None:
        """Remove what no row points to any more, once that is durable. What cannot be removed then waits, and is logged."""

        def remove() -> None:
            if old is not None and self._places.acquire(blocking=False):  # else the sweeper has it soon
                try:
                    self._remove(old)
                finally:
                    self._places.release()

        self._store.afterwards(remove)

    async def fetch(self, tenant: str, path: ResourcePath, where: Elsewhere) -> bytes | None:
        """The value, for one release; ``None`` if the back end has lost it, or it was replaced meanwhile."""
        backend = self.backends.configured_for(tenant, where.backend)
        found = await backend.run_async(lambda holder: holder.get(tenant, path, where.pointer))
        if found is None or where.foreign:
            return found
        try:
            return self._store.sealer.open(
                found, tenant, _KIND, elsewhere_name(where.backend, path), where.sealed_version
            )
        except Unavailable as error:
            raise _not_what_was_put(where.backend) from error

    def check(self, tenant: str) -> list[BackendView]:
        """How each back end is that the tenant may use, and how many removals wait there: to the broker's own, of all tenants."""
        with self._place():
            found = self.backends.check(tenant) + (self.plugins.check(tenant) if self.plugins is not None else [])
        waiting: Counter[str] = Counter()
        for one in self._store.removals.tenants() if tenant == BROKER else [tenant]:
            waiting.update(self._store.removals.counts(one))
        known = {view.name for view in found}
        unfinished = self._store.intents.counts("" if tenant == BROKER else tenant)
        shown = [
            msgspec.structs.replace(view, waiting=waiting[view.name], unfinished=unfinished.pop(view.name, 0))
            for view in found
        ]
        return shown + [
            BackendView(
                name,
                "",
                ok=False,
                code="backend_not_configured",
                error="values wait here to be removed, and this broker was not given the back end",
                hint="start the broker with the --backends FILE that names it",
                waiting=waiting[name],
                unfinished=unfinished.get(name, 0),
            )
            for name in sorted((waiting.keys() | unfinished.keys()) - known)
        ]

    def begin(self, tenant: str, backend: str, removal: Removal) -> Intent:
        """Write down what is about to be made in a back end, durable on return."""
        return self._store.intents.begin(tenant, backend, removal, self._begun())

    def kept(self, intent: Intent, known: Removal) -> None:
        """It has its row, in a transaction that is not over: should that come to nothing, it is removed by ``known``."""

        def unused() -> None:
            with suppress(AdytonError):  # as below
                self._give_up(intent, known)

        self._store.afterwards(lambda: None, unused)

    def removed(self, tenant: str, backend: str, known: Removal) -> None:
        """It was removed there by somebody who asked for it: nothing of it waits any more."""
        for one in self._store.removals.keys(tenant, backend):
            if one.removal == known:
                self._store.removals.done(one)

    def unused(self, intent: Intent, known: Removal | None, error: AdytonError) -> None:
        """What was put there gets no row, because of ``error``; where that cannot be removed now, the sweeper does it.

        Where it is not known whether anything was put, the intent stays: the call may still be under way.
        """
        with suppress(AdytonError):  # the store fails: then the intent stays, too
            if known is not None and error.code != UNKNOWN:  # else it may have its row
                self._give_up(intent, known)
            elif error.code in NOT_BEGUN:
                self._store.intents.drop(intent)

    def _give_up(self, intent: Intent, known: Removal) -> None:
        """What has no row goes, also if somebody gave it up before: they may have looked before it was there."""
        waiting = self._store.intents.give_up(intent, known)
        self._remove(waiting or self._store.removals.queue(intent.tenant, intent.backend, known))

    def _begun(self) -> datetime:
        return datetime.fromtimestamp(self._store.time(self._clock()), UTC)

    def _remove(self, old: Waiting | None) -> None:
        if old is None:
            return
        try:
            self.sweeper.remove(old)
        except AdytonError as error:
            _LOG.warning(
                "a value that nothing points to waits to be removed from the back end %s, sealed: %s [%s]",
                old.backend,
                error.message,
                error.code,
            )

    @contextmanager
    def _place(self) -> Iterator[None]:
        if not self._places.acquire(blocking=False):
            raise Unavailable(
                "others wait for a back end already", code="backend_busy", field="backend", hint="try again in a moment"
            )
        try:
            yield
        finally:
            self._places.release()


def check_body(value: bytes, *, backend: str, foreign: bool) -> None:
    """``MalformedRequest`` if what was asked for contradicts itself."""
    if foreign and (value or not backend):
        raise MalformedRequest(
            "a foreign plain value is already in a back end: name that, and send no value",
            code="body_malformed",
            field="foreign_plain_value",
        )


def _not_what_was_put(name: str) -> Unavailable:
    return Unavailable(
        "what the back end gives back is not what was put there for this resource",
        code="backend_value_swapped",
        field=name,
        hint="it was changed or moved behind the broker's back: look into the back end, then set the resource again",
    )
