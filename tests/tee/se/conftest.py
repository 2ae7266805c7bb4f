"""One chain of IBM's kind under a root of its own, made once a session, and a machine whose key it certifies."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import pytest

from adyton.crypto.x509 import Certificate, EndorsementSet, spki_fingerprint
from adyton.devtee import se as forging
from adyton.rats.types import Check, ReportData, TrustAnchors, VerifiedEvidence
from adyton.tee.se import request
from adyton.tee.se.exchange import Exchange
from adyton.tee.se.host_key import HostKey, verify_host_key
from adyton.tee.se.json_form import Response
from adyton.tee.se.verify import PendingRequest, verify_response

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
SEALED = (b"sealed key", b"sealed nonce")


@dataclass
class World:
    """Everything that is right; tests change one thing."""

    forge: forging.SeForge
    secrets: request.RequestSecrets = field(default_factory=forging.fresh_secrets)

    @cached_property
    def certificates(self) -> tuple[bytes, ...]:
        return self.forge.certificates()

    @cached_property
    def crls(self) -> tuple[bytes, ...]:
        return self.forge.crls()

    @cached_property
    def machine(self) -> forging.Machine:
        machine = forging.Machine(forging.image_header())
        return forging.Machine(forging.image_header(machine.key_hash), machine.key)

    @cached_property
    def document(self) -> bytes:
        return self.forge.host_key_document(self.machine.key.public_key())

    @property
    def anchors(self) -> TrustAnchors:
        return TrustAnchors(vendor=False, custom=frozenset({spki_fingerprint(Certificate(self.certificates[2]))}))

    def host_key_of(self, document: bytes | None = None, *given: bytes, **more: Any) -> HostKey:
        call: dict[str, Any] = {"now": NOW, "anchors": self.anchors} | more
        pool = EndorsementSet.parse(given or (*self.certificates, *self.crls))
        return verify_host_key(Certificate(document or self.document), pool, **call)

    @cached_property
    def host_key(self) -> HostKey:
        return self.host_key_of()

    @cached_property
    def request(self) -> bytes:
        return request.build([self.host_key.public_key], self.secrets)

    def pending(self, **changes: Any) -> PendingRequest:
        values: dict[str, Any] = {
            "measurement_key": self.secrets.measurement_key,
            "nonce": self.secrets.nonce,
            "host_keys": (self.host_key,),
            "images": (self.machine.image,),
            "encoded": self.request,
            "sealed": SEALED,
        }
        return PendingRequest(**(values | changes))

    def response(self, user_data: bytes = b"\x42" * 64, *, to: bytes | None = None, **changes: Any) -> Response:
        answer = self.machine.attest(to or self.request, user_data, **changes)
        return Response(answer.measurement, answer.additional_data, answer.user_data, answer.cuid, answer.tags, SEALED)

    def exchange(self, response: Response, *, request: bytes | None = None) -> bytes:
        return Exchange(
            request or self.request,
            response.measurement,
            response.additional_data,
            response.user_data,
            response.cuid,
        ).encode()

    def verify(
        self,
        evidence: bytes,
        pending: PendingRequest | None = None,
        *,
        report_data: bytes | None = b"\x42" * 64,
        trail: list[Check] | None = None,
    ) -> VerifiedEvidence:
        expected = ReportData(report_data) if report_data is not None else None
        return verify_response(evidence, pending or self.pending(), report_data=expected, trail=trail)


@pytest.fixture(scope="session")
def world() -> World:
    return World(forging.SeForge.new(NOW))


@pytest.fixture(scope="session")
def stranger() -> World:
    """Another chain, another machine, another request."""
    return World(forging.SeForge.new(NOW))
