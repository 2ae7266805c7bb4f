"""Promotion: refused where the target would not have taken it, all of it or nothing, and never half of it after a crash."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from adyton import provenance
from adyton.broker.door.asked import Asked
from adyton.broker.people.people import ROOT
from adyton.broker.people.promotion import Promotion
from adyton.broker.policy.policies import PolicyBook
from adyton.broker.policy.rego import RegoEngine
from adyton.errors import AdytonError, NotFound, TooMany
from adyton.protocol.people import PromotionBody, PromotionView
from adyton.protocol.providers import ProviderSettings
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath
from adyton.stores.promotions import Promoted, PromotedValue
from adyton.stores.references import StoredReference
from adyton.stores.sqlite import Store
from adyton.stores.tenant_settings import TenantSettings

NOW = datetime(2030, 1, 1, tzinfo=UTC)
PATH = ResourcePath("default", "key", "1")
POLICY = "package policy\n\ndefault allow := false\n"
ANY = Binding(any_workload_i_accept=True)


def pem(seed: int) -> str:
    key = ed25519.Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32).public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def settings(*seeds: int, **change: Any) -> ProviderSettings:
    fields: dict[str, Any] = {
        "keys": [pem(seed) for seed in seeds],
        "names": ["app/*"],
        "kinds": ["json"],
        "valid_days": 90,
    }
    return ProviderSettings(**{**fields, **change})


def published(name: str = "app/a", issue: int = 5, **change: Any) -> StoredReference:
    signers = tuple(sorted(key.id for key in provenance.provider("vendor", settings(1)).keys))
    one = StoredReference(
        name, ["ab" * 32], 0, NOW, NOW + timedelta(days=30), NOW, "stable", "vendor", "json", bytes([issue]) * 32, signers,
        "app", issue, NOW,
    )  # fmt: skip
    return replace(one, **change)


def publish(store: Store, tenant: str, one: StoredReference) -> None:
    store.references.publish(tenant, "vendor", [one.name], lambda *_: [one], NOW, unchanged=lambda _: None)


def provider(store: Store, tenant: str, entry: ProviderSettings) -> None:
    store.providers.set(tenant, "vendor", msgspec.json.encode(entry), lambda _: True, NOW)


class Desk:
    def __init__(self, store: Store, engine: RegoEngine) -> None:
        self.store = store
        self.promotion = Promotion(store, PolicyBook(store, engine), "test")

    def ask(self, body: PromotionBody, *path: str) -> tuple[PromotionView, tuple[tuple[str, str], ...]]:
        asked = Asked("POST", "to", msgspec.json.encode(body), NOW, "", ROOT, "")
        answer = self.promotion.handle(asked, ("promotions", *path))
        return msgspec.json.decode(answer.body, type=PromotionView), answer.changes

    def plan(self, body: PromotionBody) -> PromotionView:
        return self.ask(body, "plan")[0]

    def promote(self, body: PromotionBody) -> tuple[tuple[str, str], ...]:
        return self.ask(msgspec.structs.replace(body, expected=self.plan(body).digest))[1]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path, root_key=bytes(32), now=NOW)
    yield opened
    opened.close()


@pytest.fixture
def desk(store: Store) -> Iterator[Desk]:
    engine = RegoEngine()
    yield Desk(store, engine)
    engine.close()


def state(store: Store) -> object:
    """Everything of the target that a promotion could have touched."""
    return (
        [
            (kind, store.policies.list("to", kind), store.policies.ids("to", kind))
            for kind in ("resource", "attestation")
        ],
        store.references.list("to"),
        store.references.published("to", "vendor", "app/a"),
        store.resources.list("to"),
        store.generation("to"),
    )


def code(call: Any, *arguments: Any) -> str:
    with pytest.raises(AdytonError) as caught:
        call(*arguments)
    return caught.value.code


REFERENCES = PromotionBody("from", references=True)
BY_HAND = PromotionBody("from", references=True, as_set_by_hand=True)


@pytest.mark.parametrize(
    "entry",
    [
        None,
        settings(2),  # another key
        settings(1, 2),  # one more
        settings(1, names=["other/*"]),
        settings(1, kinds=["slsa"]),
    ],
    ids=["no provider", "another key", "one more key", "not its name", "not its kind"],
)
def test_a_providers_value_needs_the_same_provider(store: Store, desk: Desk, entry: ProviderSettings | None) -> None:
    provider(store, "from", settings(1))
    publish(store, "from", published())
    if entry is not None:
        provider(store, "to", entry)
    before = state(store)
    assert code(desk.plan, REFERENCES) == "promotion_provider"
    assert code(desk.ask, msgspec.structs.replace(REFERENCES, expected="0" * 64)) == "promotion_provider"
    assert state(store) == before
    desk.promote(BY_HAND)
    (found,) = store.references.list("to")
    assert (found.value, found.expires) == (["ab" * 32], NOW + timedelta(days=30))
    assert (found.provider, found.proof, found.signers, found.issue) == ("", b"", (), 0)


def test_with_the_same_provider_the_proof_goes_along(store: Store, desk: Desk) -> None:
    for tenant in ("from", "to"):
        provider(store, tenant, settings(1))
    publish(store, "from", published())
    desk.promote(REFERENCES)
    (found,) = store.references.list("to")
    (source,) = store.references.list("from")
    assert replace(found, version=0, updated=NOW) == replace(source, version=0, updated=NOW)
    assert [one.issue for one in store.references.published("to", "vendor", "app/a")] == [5]
    assert [step.change for step in desk.plan(REFERENCES).steps] == ["same"]
    # From then on it is the provider's there too: with the key gone the value is.
    store.providers.delete("to", "vendor", NOW)
    assert store.references.list("to")[0].state == "revoked"


def test_an_older_document_does_not_come_in_this_way(store: Store, desk: Desk) -> None:
    for tenant in ("from", "to"):
        provider(store, tenant, settings(1))
    publish(store, "to", published(issue=6))
    publish(store, "from", published(issue=5))
    assert code(desk.plan, REFERENCES) == "reference_rollback"
    store.references.revoke("to", lambda _: True, "broken", NOW)
    assert code(desk.plan, REFERENCES) == "reference_rollback"


def test_a_revoked_document_does_not_come_back(store: Store, desk: Desk) -> None:
    for tenant in ("from", "to"):
        provider(store, tenant, settings(1))
        publish(store, tenant, published())
    store.references.revoke("to", lambda _: True, "broken", NOW)
    assert code(desk.plan, REFERENCES) == "reference_revoked"


def test_what_the_target_set_by_hand_is_not_replaced_by_a_providers(store: Store, desk: Desk) -> None:
    for tenant in ("from", "to"):
        provider(store, tenant, settings(1))
    publish(store, "from", published())
    store.references.set("to", "app/a", "own", None, NOW)
    assert code(desk.plan, REFERENCES) == "reference_of_another"


def test_candidates_revoked_and_expired_ones_stay(store: Store, desk: Desk) -> None:
    for tenant in ("from", "to"):
        provider(store, tenant, settings(1))
    publish(store, "from", published("app/c", state="candidate"))
    publish(store, "from", published("app/e", expires=NOW, not_before=NOW - timedelta(days=1)))
    publish(store, "from", published("app/r"))
    store.references.revoke("from", lambda one: one.name == "app/r", "broken", NOW)
    publish(store, "from", published("app/d", state="deprecated"))
    desk.promote(REFERENCES)
    assert [(one.name, one.state) for one in store.references.list("to")] == [("app/d", "deprecated")]


EVERYTHING = PromotionBody("from", policies=True, references=True, resources=(PATH.uri,))


def fill(store: Store) -> None:
    for name in ("resource-policy", "second"):
        store.policies.set("from", "resource", name, POLICY, NOW)
    for name in ("a", "b"):
        store.references.set("from", name, 1, None, NOW)
    store.resources.set("from", PATH, b"of from", ANY, NOW)
    store.resources.set("to", PATH, b"of to", ANY, NOW)
    store.references.set("to", "b", 2, None, NOW)


@pytest.mark.parametrize("quota", ["resources", "bytes", "policies", "references"])
def test_over_a_quota_nothing_is_taken(store: Store, desk: Desk, quota: str) -> None:
    fill(store)
    allowed = {"resources": 0, "bytes": 5, "policies": 1, "references": 1}[quota]
    store.registry.change("to", lambda *_: TenantSettings(quotas={quota: allowed}))
    before = state(store)
    with pytest.raises(TooMany):
        desk.promote(EVERYTHING)
    assert state(store) == before


def test_a_policy_that_cannot_be_asked_stops_all(store: Store, desk: Desk) -> None:
    fill(store)
    store.policies.set("from", "resource", "third", "package policy\nallow := http.send({})", NOW)
    before = state(store)
    assert code(desk.promote, EVERYTHING).startswith("policy_")
    assert state(store) == before


@pytest.mark.parametrize("tenant", ["from", "to"])
def test_a_change_after_it_was_looked_at(store: Store, tenant: str) -> None:
    """Between planning and doing: nothing of a mixture of two states."""
    fill(store)
    seen = store.promotions.look("from", "to")
    store.references.set(tenant, "later", 1, None, NOW)
    before = state(store)
    assert code(store.promotions.carry, seen, [PromotedValue(PATH, b"x")], NOW) == "promotion_changed"
    assert state(store) == before


def test_a_target_that_is_gone(store: Store) -> None:
    fill(store)
    store.registry.delete("to")
    seen = store.promotions.look("from", "to")
    with pytest.raises(NotFound):
        store.promotions.carry(seen, [PromotedValue(PATH, b"x")], NOW)
    assert store.resources.list("to") == []


@pytest.mark.parametrize("where", ["policies", "references", "resources"])
def test_a_failure_midway_changes_nothing(
    store: Store, desk: Desk, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    fill(store)
    before = state(store)
    table, calls = getattr(store, where), 0
    put = table.put

    def second(*given: Any, **named: Any) -> object:
        nonlocal calls
        calls += 1
        if calls == (2 if where != "resources" else 1):
            raise OSError("the disk is gone")
        return put(*given, **named)

    with monkeypatch.context() as broken:
        broken.setattr(table, "put", second)
        with pytest.raises(OSError, match="gone"):
            desk.promote(EVERYTHING)
    assert state(store) == before
    assert not store._database._writer.in_transaction  # type: ignore[attr-defined]


def killed(directory: Path, lines: int) -> bool:
    """Promote in a child that is killed at the n-th line of what writes; whether it got to the end before."""
    child = os.fork()
    if child == 0:
        left = lines

        def trace(frame: FrameType, event: str, _: object) -> Any:
            nonlocal left
            if not frame.f_code.co_filename.endswith(
                ("stores/promotions.py", "stores/references.py", "stores/policies.py")
            ):
                return None
            if event == "line":
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        store = Store.open(directory, root_key=bytes(32), now=NOW)
        seen = store.promotions.look("from", "to")
        what: list[Promoted] = [
            *store.policies.list("from", "resource"),
            *store.references.list("from"),
            PromotedValue(PATH, b"of from"),
        ]
        sys.settrace(trace)
        store.promotions.carry(seen, what, NOW)
        sys.settrace(None)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) == 0


def test_killed_anywhere_the_target_is_as_it_was_or_all_done(tmp_path: Path) -> None:
    store = Store.open(tmp_path, root_key=bytes(32), now=NOW)
    fill(store)
    before = state(store)
    store.close()
    for lines in range(0, 400, 3):
        done = killed(tmp_path, lines)
        store = Store.open(tmp_path, root_key=bytes(32), now=NOW)
        after = state(store)
        store.close()
        if after != before:
            break
        assert not done
    store = Store.open(tmp_path, root_key=bytes(32), now=NOW)
    assert [one.id for one in store.policies.list("to", "resource")] == ["resource-policy", "second"]
    assert [(one.name, one.value) for one in store.references.list("to")] == [("a", 1), ("b", 1)]
    found = store.resources.get("to", PATH)
    assert found is not None and found.value == b"of from" and found.binding == ANY
    store.close()
    assert lines > 40


def test_what_it_says_and_writes_down(store: Store, desk: Desk) -> None:
    fill(store)
    changes = desk.promote(EVERYTHING)
    assert [action for action, _ in changes] == [
        "promotion", "promotion.policy", "promotion.policy", "promotion.reference", "promotion.reference", "promotion.resource",
    ]  # fmt: skip
    (version,) = store.policies.versions("to", "resource", "second")
    assert (version.actor, version.note) == ("admin", "promoted")
    assert all(step.change == "same" for step in desk.plan(EVERYTHING).steps)
