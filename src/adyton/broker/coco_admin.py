"""CoCo's administrative endpoints, so that its own tools set resources, policies and reference values here.

They know nothing of bindings: a resource that arrives this way keeps the binding it had, or has none and is released to
nobody until ``adyton resource bind`` says to whom. Empty answers on success, as upstream.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from urllib.parse import unquote

import msgspec

from adyton.broker.admin import Admin
from adyton.broker.door import refusals
from adyton.broker.door.answer import Answer
from adyton.broker.door.asked import Asked
from adyton.broker.reference_api import known_provider
from adyton.errors import Conflict, MalformedRequest, NotFound, PolicyInvalid
from adyton.protocol import reference_messages
from adyton.protocol.policies import PolicyBody
from adyton.protocol.providers import PublishBody
from adyton.protocol.reference_messages import SAMPLE, Message
from adyton.protocol.resource import ResourcePath
from adyton.wire import b64, strict_json

RESOURCE_POLICY_ID = "resource-policy"
_MAX_BODY = 8 * 1024 * 1024
_DEFAULT_LIFE = timedelta(days=365)


class CocoAdmin:
    """The endpoints of kbs-protocol 1.2 that are marked "A". Called after the gate."""

    def __init__(self, admin: Admin) -> None:
        self._admin = admin

    def handle(self, asked: Asked, parts: tuple[str, ...]) -> Answer:
        """The answer; errors of the tree leave as they are."""
        store, tenant, now = self._admin.store, asked.tenant, asked.now
        match (asked.method, *parts):
            case ("POST", "attestation-policy"):
                message = _object(asked.body)
                name = message.get("policy_id")
                if not isinstance(name, str) or not 0 < len(name) <= 128 or not name.isprintable():
                    raise MalformedRequest("policy_id is missing", code="body_malformed", field="policy_id")
                return _empty(self._admin.policies.set(asked, "attestation", name, PolicyBody(_rego(message))))
            case ("POST", "resource-policy"):
                text = _rego(_object(asked.body))
                return _empty(self._admin.policies.set(asked, "resource", RESOURCE_POLICY_ID, PolicyBody(text)))
            case ("GET", "resource-policy"):
                ids = [policy.id for policy in store.policies.list(tenant, "resource")]
                return Answer(200, msgspec.json.encode(ids))
            case ("POST", "reference-value"):
                return self._register(tenant, reference_messages.read(_object(asked.body)), now)
            case ("GET", "reference-value", *rest):
                name = unquote("/".join(rest))
                found = store.references.get(tenant, name)
                if found is None or not found.counts(now):
                    raise NotFound("there is no such reference value", code="reference_absent")
                return Answer(200, msgspec.json.encode(found.value))
            case ("POST", "resource", *rest):
                return _empty(self._admin.set_resource(tenant, ResourcePath(*rest), asked.body, None, now))
            case ("DELETE", "resource", *rest):
                return _empty(self._admin.handle(asked, ("resources", *rest)))
        return refusals.NO_PLUGIN

    def _register(self, tenant: str, message: Message, now: datetime) -> Answer:
        """Values that are not signed, from whoever has the token; or a provider's document with its proof."""
        references = self._admin.references
        if message.kind == SAMPLE:
            stored = references.set_all(tenant, message.values(), now + _DEFAULT_LIFE, now)
            return Answer(200, changes=stored.changes)
        body = PublishBody(self._provider(tenant, message), message.document(), message.state)
        return Answer(200, changes=references.publish(tenant, body, now, message.kind).changes)

    def _provider(self, tenant: str, message: Message) -> str:
        """Whose document it is: the one that the message names, else the only one that publishes such."""
        if message.provider:
            return message.provider
        known = [known_provider(one) for one in self._admin.store.providers.list(tenant)]
        found = [one.name for one in known if message.kind in one.kinds]
        if len(found) == 1:
            return found[0]
        if not found:
            raise NotFound(
                "nobody is a provider of such documents here",
                code="provider_absent",
                field="type",
                got=message.kind,
                hint="name a provider with its keys: adyton reference provider set, or --providers FILE of a service",
            )
        raise Conflict(
            "several providers publish such documents",
            code="provider_ambiguous",
            field="provider",
            expected=found,
            hint='name one in the message: "provider": "NAME"',
        )


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = strict_json.parse(body, max_size=_MAX_BODY)
    except ValueError as error:
        raise MalformedRequest(f"the body cannot be read: {error}", code="body_malformed") from error
    if not isinstance(value, dict):
        raise MalformedRequest("the body is not an object", code="body_malformed")
    return value


def _rego(asked: dict[str, Any]) -> str:
    policy = asked.get("policy")
    try:
        if not isinstance(policy, str):
            raise ValueError("not a string")  # noqa: TRY004 -- one refusal for all of it
        return b64.decode_url(policy).decode("utf-8")
    except ValueError as error:
        raise PolicyInvalid("policy must be base64url of Rego text", code="policy_malformed", field="policy") from error


def _empty(answer: Answer) -> Answer:
    return Answer(200, changes=answer.changes) if answer.status in {200, 204} else answer
