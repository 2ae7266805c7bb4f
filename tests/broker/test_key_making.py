"""A device that says it made a key, and shows the public half of another kind."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from adyton.broker.key_service.key_making import KeyMaking
from adyton.crypto import key_kinds
from adyton.crypto.key_kinds import Kind
from adyton.errors import AdytonError
from adyton.protocol import key_record
from adyton.protocol.key_record import KeyVersion, State
from adyton.protocol.resource import ResourcePath
from adyton.stores.backends.port import KeyKind
from adyton.stores.intents import Intent
from adyton.stores.removals import Removal


class Liar:
    """Also what gives calls their holder."""

    kinds = frozenset(KeyKind)

    def __init__(self, shows: Kind) -> None:
        self.shown = key_kinds.public_der(shows, key_kinds.generate(shows))
        self.destroyed: list[str] = []

    def of(self, *_: str) -> Liar:
        return self

    def with_keys(self, call: Any) -> Any:
        return call(self)

    def generate(self, *_: object) -> str:
        return "handle"

    def public(self, _: str) -> bytes:
        return self.shown

    def destroy(self, handle: str) -> None:
        self.destroyed.append(handle)


class Leftovers:
    """Removes at once what gets no row."""

    def __init__(self, device: Liar) -> None:
        self.begun: list[Intent] = []
        self.device = device

    def begin(self, tenant: str, backend: str, removal: Removal) -> Intent:
        self.begun.append(Intent(tenant, 1, backend, removal))
        return self.begun[-1]

    def kept(self, intent: Intent, known: Removal) -> None:
        raise AssertionError("nothing is kept here")

    def removed(self, tenant: str, backend: str, known: Removal) -> None:
        raise AssertionError("nothing is destroyed here")

    def unused(self, intent: Intent, known: Removal | None, _: AdytonError) -> None:
        assert intent in self.begun and intent.removal.kind == "made"
        assert known is None  # of what was made and destroyed again on the way nobody knows the handle


@pytest.mark.parametrize("shows", [Kind.P384, Kind.ED25519, Kind.X25519, Kind.RSA_2048, Kind.P256])
def test_the_public_half_is_of_the_kind_that_was_asked_for(shows: Kind) -> None:
    device: Any = Liar(shows)
    record = key_record.make("p-256", KeyVersion(1, State.ENABLED, 0, 0), never_export=True, backend="hsm")

    class Asked:
        tenant, now = "default", datetime(2026, 1, 2, tzinfo=UTC)

    asked: Any = Asked
    making = KeyMaking(asked, device, Leftovers(device))
    path = ResourcePath("keys", "a", "1")
    if shows is Kind.P256:
        assert making.version(asked, path, record, 1, None, None).material.public == device.shown
        return
    with pytest.raises(AdytonError) as caught:
        making.version(asked, path, record, 1, None, None)
    assert caught.value.code == "public_key_foreign"
    assert device.destroyed == ["handle"]
