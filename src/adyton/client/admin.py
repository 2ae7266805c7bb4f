"""The owner's side: resources, policies, reference values and the audit log of one tenant, by bearer token."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import closing
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from adyton.client.address import BrokerAddress
from adyton.client.policy_requests import PolicyRequests
from adyton.client.transport import Reply, Transport
from adyton.errors import (
    AdytonError,
    Conflict,
    MalformedRequest,
    NotFound,
    NotPermitted,
    PolicyInvalid,
    TooLarge,
    TooMany,
    Unavailable,
)
from adyton.protocol.admin import (
    BASE,
    About,
    Explanation,
    KeptCheckpoint,
    LogEdge,
    LogHead,
    LogKeyView,
    LogReport,
    ReferenceBody,
    ReferenceView,
    ResourceBody,
    ResourceView,
)
from adyton.protocol.audit_proof import ConsistencyProof, InclusionProof
from adyton.protocol.backends import BackendView
from adyton.protocol.people import ProposalView
from adyton.protocol.providers import (
    ProviderSettings,
    ProviderView,
    PublicationView,
    PublishBody,
    RevocationBody,
)
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath
from adyton.protocol.seen import Platforms, Receivers
from adyton.rats.types import JsonValue
from adyton.wire import strict_json

LOG_SECONDS = 3600.0
_CODE = re.compile(r" \[([a-z0-9_]{1,60})\]\Z")
_T = TypeVar("_T")
PAGE = 1000


class Listed(Protocol):
    """What a listing consists of."""

    @property
    def uri(self) -> str:
        """By which it is ordered."""
        ...


_P = TypeVar("_P", bound=Listed)


class Admin(PolicyRequests):
    """A broker's tenant, administered. Every change is durable, and in force everywhere, when its method returns."""

    def __init__(self, address: BrokerAddress, token: str | Callable[[], str]) -> None:
        """``token``: of whatever kind the broker takes; or what makes one for each request, for those that soon end."""
        self._transport = Transport(address)
        self._token = token if callable(token) else None
        self._headers = _bearer(token() if callable(token) else token)

    def about(self) -> About:
        """What the broker is; also the cheapest way to see that address and token are right."""
        return self._ask("GET", "/about", About)

    def set_resource(
        self, path: ResourcePath, data: bytes, binding: Binding, backend: str = "", *, foreign: bool = False
    ) -> ResourceView:
        """Register or replace a secret and who may have it; ``backend`` holds its value, ``foreign`` if it has it."""
        return self._ask("PUT", f"/resources/{path}", ResourceView, ResourceBody(data, binding, backend, foreign))

    def backends(self) -> list[BackendView]:
        """The back ends that the tenant may use, each asked whether it works."""
        return self._ask("GET", "/backends", list[BackendView])

    def bind_resource(self, path: ResourcePath, binding: Binding) -> ResourceView:
        """Change who may have a secret, without knowing it; ``NotFound`` if there is none."""
        return self._ask("PUT", f"/resources/{path}/binding", ResourceView, binding)

    def list_resources(self) -> list[ResourceView]:
        """All of the tenant's, by URI."""
        return self.pages("/resources", list[ResourceView])

    def show_resource(self, path: ResourcePath) -> ResourceView:
        """One of them; ``NotFound``."""
        return self._ask("GET", f"/resources/{path}", ResourceView)

    def delete_resource(self, path: ResourcePath) -> None:
        """Forget it; ``NotFound``."""
        self._send("DELETE", f"/resources/{path}")

    def set_reference(self, name: str, value: JsonValue, expires: str | None = None) -> ReferenceView:
        """Publish a reference value, until ``expires`` (RFC 3339) if given."""
        return self._ask("PUT", f"/references/{_part(name)}", ReferenceView, ReferenceBody(value, expires))

    def list_references(self) -> list[ReferenceView]:
        """All of them, expired ones marked."""
        return self._ask("GET", "/references", list[ReferenceView])

    def show_reference(self, name: str) -> ReferenceView:
        """One of them; ``NotFound``."""
        return self._ask("GET", f"/references/{_part(name)}", ReferenceView)

    def delete_reference(self, name: str) -> None:
        """Withdraw it and forget its history; ``NotFound``."""
        self._send("DELETE", f"/references/{_part(name)}")

    def publish(self, provider: str, document: bytes, state: str = "stable") -> PublicationView:
        """Publish all that a provider's document states, or nothing; ``DocumentInvalid``, ``Conflict``."""
        return self._ask("POST", "/publications", PublicationView, PublishBody(provider, document, state))

    def revoke(self, body: RevocationBody) -> list[ReferenceView]:
        """Revoke reference values; they count no more when this returns. ``NotFound`` if there is none."""
        return self._ask("POST", "/revocations", list[ReferenceView], body)

    def set_provider(self, name: str, settings: ProviderSettings) -> ProviderView:
        """Set or replace a provider; what it could not have published so is revoked."""
        return self._ask("PUT", f"/providers/{_part(name)}", ProviderView, settings)

    def list_providers(self) -> list[ProviderView]:
        """All of them."""
        return self._ask("GET", "/providers", list[ProviderView])

    def show_provider(self, name: str) -> ProviderView:
        """One of them; ``NotFound``."""
        return self._ask("GET", f"/providers/{_part(name)}", ProviderView)

    def delete_provider(self, name: str) -> list[str]:
        """Forget it; the names of its values, which are revoked. ``NotFound``."""
        return [str(one) for one in self._ask("DELETE", f"/providers/{_part(name)}", dict[str, Any])["revoked"]]

    def audit(self, since: str | None = None, limit: int = 100, after: int | None = None) -> list[dict[str, Any]]:
        """Decisions in order, each as the broker wrote it: the newest ``limit``, or those after a sequence number."""
        asked = {"since": since, "limit": str(limit), "after": None if after is None else str(after)}
        query = urlencode({name: value for name, value in asked.items() if value is not None})
        return self._ask("GET", f"/audit?{query}", list[dict[str, Any]])

    def audit_head(self) -> LogHead:
        """Length and root of the audit log."""
        return self._ask("GET", "/audit/head", LogHead)

    def audit_rows(self, after: int, limit: int = 500) -> list[bytes]:
        """The rows that follow row ``after``, byte for byte as they are hashed."""
        return self._send("GET", f"/audit/rows?after={after}&limit={limit}").body.split(b"\n")[:-1]

    def audit_key(self) -> LogKeyView:
        """The key that signs this log's checkpoints."""
        return self._ask("GET", "/audit/key", LogKeyView)

    def audit_checkpoint(self) -> str:
        """A signed checkpoint of the log as it is now."""
        return self._send("GET", "/audit/checkpoint").body.decode("utf-8", "replace")

    def audit_checkpoints(self, after: int = -1) -> list[KeptCheckpoint]:
        """Those that the broker has signed so far, of more than ``after`` rows; a page of them."""
        return self._ask(
            "GET", f"/audit/checkpoints?after={after}" if after >= 0 else "/audit/checkpoints", list[KeptCheckpoint]
        )

    def audit_verify(self) -> LogReport:
        """What the broker finds when it recomputes its log; of millions of rows that takes minutes."""
        with closing(Transport(self._transport.address, timeout=LOG_SECONDS)) as patient:
            return self._ask("GET", "/audit/verify", LogReport, over=patient)

    def audit_frontier(self, size: int) -> LogEdge:
        """The right edge of the log's tree at ``size`` rows."""
        return self._ask("GET", f"/audit/frontier?size={size}", LogEdge)

    def audit_inclusion(self, row: str, size: int | None = None) -> InclusionProof:
        """A proof that a decision (number or id) is in the log of ``size`` rows, or of now."""
        asked = "" if size is None else f"?size={size}"
        return self._ask("GET", f"/audit/inclusion/{_part(row)}{asked}", InclusionProof)

    def audit_consistency(self, old: int, size: int | None = None) -> ConsistencyProof:
        """A proof that the log of ``size`` rows, or of now, continues the one of ``old``."""
        asked = "" if size is None else f"&size={size}"
        return self._ask("GET", f"/audit/consistency?old={old}{asked}", ConsistencyProof)

    def explain(self, decision: str) -> Explanation:
        """A decision, by number or id, with everything that bore on it; ``NotFound``."""
        return self._ask("GET", f"/audit/decisions/{_part(decision)}", Explanation)

    def platforms(self) -> Platforms:
        """The machines that attested, as the record tells."""
        return self._ask("GET", "/platforms", Platforms)

    def receivers(self, resource: str = "") -> Receivers:
        """Who asked for resources, or for one (a URI), as the record tells."""
        asked = f"?{urlencode({'resource': resource})}" if resource else ""
        return self._ask("GET", f"/receivers{asked}", Receivers)

    def ask(self, method: str, path: str, kind: type[_T], body: msgspec.Struct | None = None) -> _T:
        """One request of our API below ``BASE``, its answer read as ``kind``: for the nouns that have a module of their own."""
        return self._ask(method, path, kind, body)

    def pages(self, path: str, kind: type[list[_P]]) -> list[_P]:
        """A whole listing, page by page; each thing has a ``uri``, and comes after the one before."""
        found: list[_P] = []
        while True:
            after = f"&after={found[-1].uri.removeprefix('kbs:///')}" if found else ""
            page = self._ask("GET", f"{path}?limit={PAGE}{after}", kind)
            if found and page and page[-1].uri == found[-1].uri:  # it knows no pages: that was all
                return found
            found += page
            if len(page) != PAGE:
                return found

    def send(self, method: str, path: str, body: msgspec.Struct | None = None) -> Reply:
        """The same, its answer as it came."""
        return self._send(method, path, body)

    def outside(self, method: str, path: str) -> Reply:
        """A request that is none of the administration's, such as ``/readyz``, with the caller's token."""
        return self._transport.request(method, path, None, self._headers)

    @property
    def address(self) -> BrokerAddress:
        """Where the broker is."""
        return self._transport.address

    def _ask(
        self,
        method: str,
        path: str,
        kind: type[_T],
        body: msgspec.Struct | None = None,
        *,
        over: Transport | None = None,
    ) -> _T:
        reply = self._send(method, path, body, over=over)
        try:
            return msgspec.json.decode(reply.body, type=kind)
        except strict_json.UNREADABLE as error:
            raise Unavailable(
                "the broker's answer cannot be read",
                code="broker_answer",
                hint="is it an Adyton broker of this version?",
            ) from error

    def _send(
        self, method: str, path: str, body: msgspec.Struct | None = None, *, over: Transport | None = None
    ) -> Reply:
        encoded = None if body is None else msgspec.json.encode(body)
        if self._token is not None:
            self._headers = _bearer(self._token())
        reply = (over or self._transport).request(method, BASE + path, encoded, self._headers)
        if not 200 <= reply.status < 300:
            raise _error(reply)
        if reply.status == 202:
            raise _pending(reply)
        return reply

    def close(self) -> None:
        """Let the connection go."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_ERRORS: dict[int, type[AdytonError]] = {
    400: MalformedRequest,
    403: NotPermitted,
    404: NotFound,
    409: Conflict,
    413: TooLarge,
    429: TooMany,
}


def _error(reply: Reply) -> AdytonError:
    if not reply.variant:
        return Unavailable(
            f"who answers is not an Adyton broker: {reply.detail}",
            code="broker_answer",
            got=reply.status,
            hint="is the address right, and its path? adyton broker serve prints it",
        )
    if reply.status == 401:
        code = _CODE.search(reply.detail)
        return NotPermitted(
            _CODE.sub("", reply.detail),
            code=code[1] if code else "admin_token_refused",
            hint="--admin-token-file (or --admin-key) must be one that this broker and this tenant know, and still valid",
        )
    kind = PolicyInvalid if reply.variant == "ParsePolicyError" else _ERRORS.get(reply.status, Unavailable)
    facts = reply.facts
    if facts is None:
        return kind(reply.detail)
    error = kind(facts.message, code=facts.code, hint=facts.hint)
    error.field, error.expected, error.got, error.spec = facts.field, facts.expected, facts.got, facts.spec
    return error


def _pending(reply: Reply) -> AdytonError:
    try:
        proposal = msgspec.json.decode(reply.body, type=ProposalView)
    except strict_json.UNREADABLE:
        return Unavailable("the broker's answer cannot be read", code="broker_answer")
    return NotPermitted(
        f"{proposal.needed} must agree to this; nothing was done yet",
        code="approval_pending",
        field=proposal.action,
        expected=proposal.needed,
        got=proposal.agreed,
        hint=f"proposal {proposal.id}: adyton approval show {proposal.id}",
    )


def _bearer(token: str) -> dict[str, str]:
    token = token.strip()
    if not token or not token.isascii() or not token.isprintable():
        raise NotPermitted("there is no admin token", code="admin_token_missing", hint="give --admin-token-file")
    return {"Authorization": f"Bearer {token}"}


def _part(text: str) -> str:
    return quote(text, safe="")
