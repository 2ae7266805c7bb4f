"""Once a change is acknowledged, nothing that a worker remembers of what is alike decides by the old state (contracts, 4)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace
from tests.broker import test_appraiser as desk
from tests.broker.test_statement import asked, like, said

from adyton.broker.appraiser import Appraiser
from adyton.broker.holders import Holder
from adyton.broker.policy.policies import PolicyBook
from adyton.broker.policy.rego import RegoEngine
from adyton.broker.release import Permit, Releaser
from adyton.config import Environment
from adyton.errors import AdytonError
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath
from adyton.rats.result import AttestationResult
from adyton.rats.types import RootKind
from adyton.stores.sqlite import Store

PATH = ResourcePath("default", "key", "1")
BOUND = Binding(workloads=[str(desk.DOCUMENT.digest)])
ROOT = desk.EVIDENCE.root_fingerprint
HEAD = "package policy\nimport rego.v1\n"
AFFIRMS = 'trust_claims := {"executables": 3, "hardware": 2, "configuration": 3}'


@pytest.fixture(scope="module")
def engine() -> Iterator[RegoEngine]:
    engine = RegoEngine()
    yield engine
    engine.close()


class Desk:
    """One worker: it appraises and decides, with all that it remembers."""

    def __init__(self, store: Store, engine: RegoEngine, environment: Environment) -> None:
        self.store = store
        self.book = PolicyBook(store, engine)
        self.appraiser = Appraiser(self.book, engine)
        self.releaser = Releaser(self.book, engine, environment=environment, development_roots=frozenset({ROOT}))

    def attest(
        self, number: int, root: RootKind, now: datetime, tenant: str = "default"
    ) -> tuple[AttestationResult, Holder]:
        item, request = like(number, root=root), asked(number)
        result = asyncio.run(self.appraiser.appraise(tenant, (item,), request.runtime_data_claims, desk.INIT_DATA, now))
        made = said(result, item, request, number)
        ends = int(now.timestamp()) + 300
        return result, Holder(request.key, result.generation, "", ends, made.told, made.like, made.tell)

    def decide(self, holder: Holder, now: datetime, tenant: str = "default") -> Permit:
        generation, stored = self.store.resources.with_generation(tenant, PATH)
        return asyncio.run(self.releaser.decide(tenant, holder, PATH, stored, now, {}, generation=generation))


def _outcome(worker: Desk, number: int, root: RootKind, now: datetime) -> object:
    """What a worker makes of one that comes: the result, the decision, as far as they can be compared."""
    try:
        result, holder = worker.attest(number, root, now)
        permit: object = None
        try:
            found = worker.decide(holder, now)
            permit = (found.by, found.policies)
        except AdytonError as error:
            permit = (type(error), error.as_dict(), getattr(error, "reasons", ()))
        revoked = worker.appraiser.revoked("default", result, now).entries
        return msgspec.structs.replace(result, alike=None), permit, sorted(revoked)
    except AdytonError as error:
        return type(error), error.as_dict()


def _policy(kind: str, name: str, text: str) -> Callable[[Desk], object]:
    return lambda worker: worker.book.set("default", kind, name, text, desk.NOW)  # type: ignore[arg-type]


CHANGES: dict[str, Callable[[Desk], object]] = {
    "policy": _policy("attestation", "default_cpu", HEAD + AFFIRMS.replace("3", "33", 1)),
    "rollback": lambda worker: worker.book.rollback("default", "attestation", "default_cpu", desk.NOW),
    "policy deleted": lambda worker: worker.store.policies.delete("default", "attestation", "default_cpu"),
    "requirements": _policy("requirements", "snp", '{"vmpls": [1]}'),
    "release rules": _policy("requirements", "release", '{"devices": {"gpu": 1}}'),
    "another policy set demanded": _policy("requirements", "release", '{"attestation": "strict"}'),
    "resource policy": _policy("resource", "resource-policy", HEAD + "allow := false"),
    "reference value": lambda worker: worker.store.references.set(
        "default", "snp_launch_measurement", ["cd" * 48], None, desk.NOW
    ),
    "reference value deleted": lambda worker: worker.store.references.delete("default", "snp_launch_measurement"),
    "revoked": lambda worker: worker.store.revoked.add(
        "default", "workload", ["ab" * 48], "stolen", "somebody", desk.NOW
    ),
    "binding": lambda worker: worker.store.resources.bind(
        "default", PATH, Binding(workloads=["sha256:" + "0" * 64]), desk.NOW
    ),
    "binding to other operations": lambda worker: worker.store.resources.bind(
        "default", PATH, replace(BOUND, operations=["sign"]), desk.NOW
    ),
    "binding by another attestation": lambda worker: worker.store.resources.bind(
        "default", PATH, replace(BOUND, attestation="strict"), desk.NOW
    ),
    "value": lambda worker: worker.store.resources.set("default", PATH, b"another", None, desk.NOW),
    "resource deleted": lambda worker: worker.store.resources.delete("default", PATH),
    "resource made anew": lambda worker: (
        worker.store.resources.delete("default", PATH),
        worker.store.resources.set("default", PATH, b"another", Binding(), desk.NOW),
    ),
    "environment": lambda worker: worker.store.registry.change(
        "default", lambda _, settings: replace(settings, environment="production")
    ),
    "tenant deleted": lambda worker: worker.store.registry.delete("default"),
    "nothing": lambda _: None,
    "time": lambda _: None,
}


@pytest.mark.parametrize("root", [RootKind.VENDOR, RootKind.CUSTOM])
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_that_another_worker_made_is_decided_by(
    tmp_path: Path, engine: RegoEngine, change: str, root: RootKind
) -> None:
    environment = Environment.DEVELOPMENT
    store = Store.open(tmp_path, root_key=bytes(32), now=desk.NOW)
    other = Store.open(tmp_path, root_key=bytes(32), now=desk.NOW, instance=store.instance)
    warm, elsewhere = Desk(store, engine, environment), Desk(other, engine, environment)
    try:
        for name, value in {**desk.REFERENCES, **desk.STRICT}.items():
            expires = (
                desk.NOW + timedelta(seconds=30) if name == "snp_launch_measurement" and change == "time" else None
            )
            other.references.set("default", name, value, expires, desk.NOW)
        hardware = 32 if root is RootKind.CUSTOM else 2
        for text in (
            'trust_claims := {"executables": 33}',
            AFFIRMS.replace('"hardware": 2', f'"hardware": {hardware}'),
        ):
            elsewhere.book.set("default", "attestation", "default_cpu", HEAD + text, desk.NOW)
        elsewhere.book.set(
            "default", "attestation", "strict_cpu", HEAD + 'trust_claims := {"executables": 33}', desk.NOW
        )
        other.resources.set("default", PATH, b"secret", BOUND, desk.NOW)
        for number in (1, 2, 3):  # the second is like the first, the third is told by memories alone
            _, holder = warm.attest(number, root, desk.NOW)
            assert warm.decide(holder, desk.NOW).by == "workload"
        before, _ = _outcome(warm, 4, root, desk.NOW), CHANGES[change](elsewhere)
        now = desk.NOW + timedelta(seconds=31 if change == "time" else 0)
        fresh = _outcome(Desk(other, engine, environment), 4, root, now)
        assert _outcome(warm, 4, root, now) == fresh
        assert _outcome(warm, 4, root, now) == fresh
        assert (fresh == before) is (change in {"nothing", "value"})
        if change not in {"nothing", "value", "environment", "revoked"}:
            with pytest.raises(AdytonError):  # who attested before
                warm.decide(holder, now)
    finally:
        other.close()
        store.close()


def test_no_tenant_s_memory_is_another_s(tmp_path: Path, engine: RegoEngine) -> None:
    store = Store.open(tmp_path, root_key=bytes(32), now=desk.NOW)
    worker = Desk(store, engine, Environment.TEST)
    try:
        for name, value in {**desk.REFERENCES, **desk.STRICT}.items():
            store.references.set("one", name, value, None, desk.NOW)
        for tenant in ("one", "two"):
            store.resources.set(tenant, PATH, b"secret", BOUND, desk.NOW)
        for number in (1, 2):
            _, mine = worker.attest(number, RootKind.VENDOR, desk.NOW, "one")
            assert worker.decide(mine, desk.NOW, "one").by == "workload"
            theirs, holder = worker.attest(number, RootKind.VENDOR, desk.NOW, "two")
            assert theirs.alike is not mine.like
            for stranger in (holder, mine):  # the latter never gets that far: cookies and tokens are a tenant's
                with pytest.raises(AdytonError):
                    worker.decide(stranger, desk.NOW, "two")
    finally:
        store.close()
