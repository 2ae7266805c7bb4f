"""Intents, uses of keys, authorities and pages of listings, on every database that a store can be in."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.stores.conftest import Engine

from adyton.broker.key_service.authority import Authority
from adyton.crypto import crl
from adyton.crypto.key_kinds import Kind, generate, public_der
from adyton.errors import Conflict, NotFound, Unavailable
from adyton.protocol import key_record
from adyton.protocol.key_record import CertificateRequest, KeyVersion, State
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath
from adyton.stores.key_uses import FIRST, KeyUses
from adyton.stores.keys import Material
from adyton.stores.removals import Removal
from adyton.stores.resource_rows import Elsewhere
from adyton.stores.sqlite import Store

NOW = datetime(2026, 11, 21, tzinfo=UTC)
PATH = ResourcePath("keys", "a", "1")


@pytest.fixture
def store(tmp_path: Path, engine: Engine) -> Iterator[Store]:
    made = Store.open(tmp_path / "s", root_key=bytes(32), now=NOW, database=engine)
    yield made
    made.close()


def test_intents(store: Store) -> None:
    version, _, intent = store.resources.seal_elsewhere("acme", PATH, b"v", "value elsewhere", "vault", NOW)
    assert store.intents.counts("acme") == {"vault": 1} == store.intents.counts("")
    assert store.intents.abandoned(NOW.timestamp() + 1) == []
    assert store.intents.abandoned(NOW.timestamp() + 1, 0.0) == [intent]
    store.resources.exchange("acme", PATH, Elsewhere("vault", "1", version, 1), Binding(), NOW, intent)
    with pytest.raises(Unavailable):
        store.resources.exchange("acme", PATH, Elsewhere("vault", "2", version, 1), Binding(), NOW, intent)
    second = store.intents.begin("acme", "vault", Removal("made", str(PATH), "label"), NOW)
    waiting = store.intents.give_up(second)
    assert waiting is not None and waiting.removal == second.removal and store.intents.give_up(second) is None
    assert store.intents.counts("acme") == {}


def test_uses_pages_and_certificates(store: Store) -> None:
    public = public_der(Kind.P256, generate(Kind.P256))
    ours = Authority(store.authorities, "https://broker.example")
    asked = CertificateRequest("x", ["x.example"], 30)
    for number in range(4):
        path = ResourcePath("keys", "a", str(number))
        _, issued = ours.issue("acme", str(path), 1, Kind.P256, public, asked, NOW)
        record = key_record.make("aes-256", KeyVersion(1, State.ENABLED, 1, 1))
        store.keys.create("acme", path, record, Material(bytes(32)), Binding(), NOW, None, issued)
        store.resources.set("acme", ResourcePath("z", "z", str(number)), b"x", Binding(), NOW)
    uses, version = KeyUses(store._database, FIRST + 1), store.keys.list("acme", limit=1)[0].record.newest
    for _ in range(FIRST + 1):
        uses.spend("acme", ResourcePath("keys", "a", "0"), version)
    with pytest.raises(Conflict):
        uses.spend("acme", ResourcePath("keys", "a", "0"), version)
    assert sum(store.keys.uses.of("acme").values()) == FIRST + 1
    keys = [str(one.info.path) for one in store.keys.list("acme")]
    assert [str(one.info.path) for one in store.keys.list("acme", after=keys[0], limit=2)] == keys[1:3]
    assert len(store.resources.list("acme", after=keys[-1])) == 4
    listed = store.authorities.certificates("acme", "", 100)
    number, _, _, revoked = crl.facts(ours.crl("acme", 1, NOW))
    assert (len(listed), revoked) == (4, 0)
    store.authorities.revoke("acme", [listed[0].serial], "superseded", NOW.timestamp())
    assert crl.facts(ours.crl("acme", 1, NOW))[::3] == (number + 1, 1)
    assert ours.rotate("acme", 100, NOW, prepare=True).state == "prepared"
    assert ours.rotate("acme", 100, NOW, prepare=False).number == 2 == ours.show("acme").number
    assert crl.facts(ours.crl("acme", 1, NOW))[0] == number + 1
    store.keys.destroy("acme", ResourcePath("keys", "a", "0"), None, NOW)
    assert len(store.keys.uses.of("acme")) == 3
    with pytest.raises(NotFound):
        ours.crl("other", 1, NOW)
    assert store.authorities.forget_expired(NOW.timestamp() + 1e9, steady=True) == 4
    assert store.authorities.certificates("acme", "", 100) == []
