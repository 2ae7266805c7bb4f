"""A key used for an attested workload: ``POST /kbs/v0/key/<operation>/<repository>/<type>/<tag>``, and its public half.

The decision is the release decision of ``GET resource``, made for this operation; one audit row is on the disk before the
answer leaves, and the answer is encrypted to the TEE's key, so that a stolen cookie or token buys nothing. What is sent
in comes over TLS only: whoever ends TLS in front of the broker can read it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, TypeVar

import msgspec

from adyton.broker.audit import Auditor
from adyton.broker.delivery import Asking, Delivery, asked_version
from adyton.broker.door.answer import Answer
from adyton.broker.holders import Holder
from adyton.broker.key_service import key_use
from adyton.broker.key_service.key_use import KeyUse
from adyton.broker.release import Permit, Releaser
from adyton.broker.running.replicas import Deadline
from adyton.crypto import jwe
from adyton.errors import AdytonError, Conflict, MalformedRequest, NotFound, ReleaseRefused, Unavailable
from adyton.protocol.keys import Operation, PublicView, TransitAnswer, TransitBody
from adyton.protocol.resource import ResourcePath
from adyton.stores.resources import StoredResource
from adyton.stores.sqlite import Store

THREADS = 8
PUBLIC: Literal["public"] = "public"
_T = TypeVar("_T")
_ENCODER = msgspec.json.Encoder()


class KeyDelivery:
    """Keys used for workloads, of one worker."""

    def __init__(self, store: Store, use: KeyUse, releaser: Releaser, auditor: Auditor, delivery: Delivery) -> None:
        self._store = store
        self._use = use
        self._releaser = releaser
        self._auditor = auditor
        self._delivery = delivery
        self._threads = ThreadPoolExecutor(THREADS, "keys")  # a slow device must not hold up the administration

    async def _aside(self, call: Callable[..., _T], *arguments: object) -> _T:
        """In a thread of ours: RSA takes milliseconds, a device more."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)

    async def use(  # noqa: PLR0917 -- one value each
        self, tenant: str, path: ResourcePath, holder: Holder, operation: Operation, given: TransitBody, asked: Asking
    ) -> Answer:
        """The encrypted answer, or the refusal as an error. What is wrong with the input is told only after a permit."""
        stored, permit, generation = await self._permitted(tenant, path, holder, operation, given, asked)
        assert stored.key is not None  # noqa: S101 -- a permit for what is no key does not exist
        done = await self._aside(self._use.perform, tenant, path, stored.key, operation, given)
        return await self._answer(tenant, stored, holder, operation, permit, done, asked, generation)

    async def public(self, tenant: str, path: ResourcePath, holder: Holder, asked: Asking) -> Answer:
        """The encrypted public half of the version that the query names, or of the newest."""
        stored, permit, generation = await self._permitted(tenant, path, holder, PUBLIC, None, asked)
        assert stored.key is not None  # noqa: S101 -- as above
        number = asked_version(asked.query)
        view = await self._aside(self._use.public, tenant, path, stored.key, number)
        return await self._answer(tenant, stored, holder, PUBLIC, permit, view, asked, generation)

    async def _permitted(  # noqa: PLR0917 -- one value each
        self,
        tenant: str,
        path: ResourcePath,
        holder: Holder,
        operation: Operation | Literal["public"],
        given: TransitBody | None,
        asked: Asking,
    ) -> tuple[StoredResource, Permit, int]:
        """What is there, the permit to do it, and the generation that this was decided by; before anything is done."""
        generation, stored = self._delivery.current(tenant, path, holder)
        against: list[str] = []
        if stored is not None and stored.key is not None and given is not None and operation != PUBLIC:
            try:
                key_use.serving(stored.key, operation, given)
            except (Conflict, NotFound) as error:
                against.append(f"{error.code}: {error.message}")
            except MalformedRequest:  # of a text that says no version: told after the decision
                pass
        permit = await self._releaser.decide(
            tenant,
            holder.claims,
            path,
            stored,
            asked.at,
            asked.query,
            generation=generation,
            operation=operation,
            against=against,
        )
        if stored is None or stored.key is None:  # a permit for nothing: the decision and this disagree
            raise NotFound("there is no such key", code="resource_absent")
        asked.deadline.check()
        return stored, permit, generation

    async def _answer(  # noqa: PLR0917 -- one value each
        self,
        tenant: str,
        stored: StoredResource,
        holder: Holder,
        operation: str,
        permit: Permit,
        done: TransitAnswer | PublicView,
        asked: Asking,
        generation: int,
    ) -> Answer:
        """The answer, if what was decided by still stands after the operation: it may have taken its time."""
        path = stored.path
        deadline = Deadline(self._store)
        present, now = self._delivery.current(tenant, path, holder)
        changed = present != generation or now is None or now.info != stored.info
        if changed or stored.binding.has_ended(asked.now()):
            raise Unavailable(
                "the key, or what decides about it, changed while it was used",
                code="changed_meanwhile",
                hint="ask again",
            )
        body = jwe.encrypt(holder.key, _ENCODER.encode(done))
        await self._auditor.released(
            tenant,
            path,
            holder.claims,
            permit.by,
            asked.at,
            request_id=holder.handle,
            peer=asked.peer,
            version=done.version,
            policies=permit.policies,
            action=f"key.{operation}",
        )
        deadline.check()  # the record says more than was done, never less
        return Answer(200, body, session=holder.handle)

    async def refused(  # noqa: PLR0917 -- one value each
        self, tenant: str, path: ResourcePath, holder: Holder, operation: str, error: AdytonError, asked: Asking
    ) -> int:
        """Write down that it was not done; the row's number."""
        return await self._delivery.refused(tenant, path, holder, error, asked, action=f"key.{operation}")


def refusal(error: AdytonError) -> AdytonError:
    """``error`` as a stranger may meet it: a state of the key that changed meanwhile is a refusal."""
    if isinstance(error, Conflict):
        return ReleaseRefused(error.message, code=error.code, reasons=(f"{error.code}: {error.message}",))
    return error
