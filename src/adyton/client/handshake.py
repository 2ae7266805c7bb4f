"""The attester's side of the handshake: challenge, evidence, token, resource (kbs-protocol 1.3 to 1.9).

A session has a key of its own, made when it is made, on P-256; what the broker releases is encrypted to it. Evidence is
collected once per challenge. A broker that no longer knows the session (401) is attested to anew, once per request.
"""

from __future__ import annotations

import re
import time
from types import TracebackType
from typing import Self, TypeVar

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from adyton.client.address import BrokerAddress
from adyton.client.transport import TIMEOUT, Reply, Transport
from adyton.crypto import jwe, jwk
from adyton.errors import (
    AdytonError,
    DecryptionFailed,
    MalformedRequest,
    NotFound,
    ReleaseRefused,
    TooMany,
    Unavailable,
)
from adyton.protocol import rcar
from adyton.protocol.keys import Operation, PublicView, TransitAnswer, TransitBody
from adyton.protocol.resource import ResourcePath
from adyton.rats import binding
from adyton.rats.ports import Attester
from adyton.wire import strict_json

_DECISION = re.compile(r"\(decision ([a-z2-7]{26})\)")
_COOKIE = "kbs-session-id"
_BUSY_TRIES = 3
_T = TypeVar("_T")


class Session:
    """One attester at one broker. ``init_data`` is the exact document whose digest the TEE holds, if it has one."""

    def __init__(
        self, address: BrokerAddress, attester: Attester, init_data: bytes | None = None, *, timeout: float = TIMEOUT
    ) -> None:
        self._transport = Transport(address, timeout=timeout)
        self._attester = attester
        self._init_data = init_data
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._members = jwk.from_public(self._key.public_key()).members
        self._cookie: str | None = None
        self._token: str | None = None

    @property
    def private_key(self) -> ec.EllipticCurvePrivateKey:
        """The session's key: what a token of this session is bound to (the passport's other half)."""
        return self._key

    def attest(self) -> str:
        """Run the handshake; returns the token. ``ReleaseRefused`` ``evidence_refused`` says why not, in short."""
        self._cookie = self._token = None
        reply = self._ask("POST", "/kbs/v0/auth", rcar.request_body(self._attester.tee))
        if reply.status != 200:
            raise self._error(reply, "the broker refused to begin a handshake")
        nonce, algorithm = rcar.parse_challenge(reply.body)
        canonical = binding.primary_object(nonce, self._members)
        evidence = self._attester.collect(binding.report_data(canonical, algorithm))
        body = rcar.attestation_body(nonce, self._members, evidence.primary, self._init_data)
        reply = self._ask("POST", "/kbs/v0/attest", body)
        if reply.status != 200:
            raise self._error(reply, "the broker refused the evidence")
        self._token = rcar.parse_token(reply.body)
        return self._token

    def token(self) -> str:
        """The attestation result as the broker signed it; attests if that has not been done."""
        return self._token or self.attest()

    def resource(self, path: ResourcePath, version: int | None = None) -> bytes:
        """The value behind ``path``; of a key the newest version, or the one that is asked for.

        ``ReleaseRefused`` if it is not for us, ``NotFound`` if we may know that it is absent, ``Unavailable`` if the
        broker does not answer or is too busy.
        """
        query = "" if version is None else f"?version={version}"
        reply = self._attested("GET", f"/kbs/v0/resource/{path}{query}")
        if reply.status != 200:
            raise self._error(reply, f"the broker did not release {path.uri}")
        return jwe.decrypt(self._key, reply.body)

    def configuration(self, path: ResourcePath, version: int | None = None) -> object:
        """A configuration value with the types that its owner wrote; errors as ``resource``."""
        return self._decoded(self.resource(path, version), object, path)

    def use(self, operation: Operation, path: ResourcePath, given: TransitBody) -> TransitAnswer:
        """Let the broker use a key that need not leave it (``protocol.keys``).

        ``ReleaseRefused`` if it is not for us, ``MalformedRequest`` if the key cannot do that with this input.
        """
        reply = self._attested("POST", f"/kbs/v0/key/{operation}/{path}", msgspec.json.encode(given))
        if reply.status == 400:
            raise MalformedRequest(f"the broker did not {operation}: {reply.detail}", code="transit_refused")
        if reply.status != 200:
            raise self._error(reply, f"the broker did not {operation} with {path.uri}")
        return self._decoded(jwe.decrypt(self._key, reply.body), TransitAnswer, path)

    def public(self, path: ResourcePath, version: int | None = None) -> PublicView:
        """The public half of a key, and its certificate chain; errors as ``resource``."""
        query = "" if version is None else f"?version={version}"
        reply = self._attested("GET", f"/kbs/v0/key/public/{path}{query}")
        if reply.status != 200:
            raise self._error(reply, f"the broker did not show the public half of {path.uri}")
        return self._decoded(jwe.decrypt(self._key, reply.body), PublicView, path)

    def _attested(self, method: str, path: str, body: bytes | None = None) -> Reply:
        """Ask with a session; a broker that no longer knows it is attested to anew, once."""
        fresh = self._cookie is None
        if fresh:
            self.attest()
        reply = self._ask(method, path, body)
        if reply.status == 401 and not fresh:
            self.attest()
            reply = self._ask(method, path, body)
        return reply

    @staticmethod
    def _decoded(text: bytes, kind: type[_T], path: ResourcePath) -> _T:
        try:
            return msgspec.json.decode(text, type=kind)
        except strict_json.UNREADABLE as error:
            raise Unavailable(f"the broker's answer about {path.uri} cannot be read", code="broker_answer") from error

    def _ask(self, method: str, path: str, body: bytes | None = None) -> Reply:
        replicas = len(self._transport.address.urls)
        tries = _BUSY_TRIES * replicas
        for attempt in range(tries):
            headers = {"Cookie": f"{_COOKIE}={self._cookie}"} if self._cookie else {}
            reply = self._transport.request(method, path, body, headers)
            if reply.status not in {429, 503} or attempt == tries - 1:
                break
            if reply.status == 503:  # another replica may have what this one lacks
                self._transport.elsewhere()
            if (attempt + 1) % replicas == 0:
                time.sleep(reply.retry_after)
        for cookie in reply.cookies:
            name, equals, value = cookie.partition(";")[0].partition("=")
            if equals and name.strip() == _COOKIE:
                self._cookie = value.strip()
        return reply

    def _error(self, reply: Reply, what: str) -> AdytonError:
        detail = reply.detail
        if reply.status in {400, 401, 403}:
            code = "release_refused" if reply.status == 403 else "evidence_refused"
            return ReleaseRefused(
                f"{what}: {detail}",
                code=code,
                reasons=(detail,),
                hint=f"the broker's owner sees every reason: adyton {_where(detail)}",
            )
        if reply.status == 404:
            return NotFound(f"{what}: {detail}", code="resource_absent")
        if reply.status == 429:
            return TooMany(f"{what}: {detail}", retry_after=reply.retry_after)
        return Unavailable(f"{what}: {detail}", code="broker_failed", got=reply.status)

    def close(self) -> None:
        """Let the connection go."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class BrokerKeys:
    """Image keys from a broker: a ``KeySource`` (``rats.ports``). A key is asked for once."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._keys: dict[str, bytes] = {}

    def key(self, uri: str) -> bytes:
        """The 32 bytes behind ``uri``; ``DecryptionFailed`` if the resource is not a key."""
        if uri not in self._keys:
            value = self._session.resource(ResourcePath.parse(uri))
            if len(value) != 32:
                raise DecryptionFailed(
                    f"the resource behind {uri} is not an image key",
                    code="not_a_key",
                    expected="32 bytes",
                    got=f"{len(value)} bytes",
                )
            self._keys[uri] = value
        return self._keys[uri]


def _where(detail: str) -> str:
    """The command that tells the owner more about this refusal."""
    found = _DECISION.search(detail)
    return f"broker explain {found[1]}" if found else "audit list"
