from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from adyton.appraisal import policies as defaults
from adyton.broker.policy.policies import PolicyBook
from adyton.broker.policy.rego import Memory, RegoEngine
from adyton.errors import PolicyInvalid
from adyton.stores.sqlite import Store

NOW = datetime(2026, 11, 21, 6, 0, tzinfo=UTC)
HEAD = "package policy\nimport rego.v1\n"


@pytest.fixture(scope="module")
def engine() -> Iterator[RegoEngine]:
    engine = RegoEngine()
    yield engine
    engine.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.open(tmp_path, root_key=bytes(32), now=NOW)
    yield store
    store.close()


def test_a_policy_nobody_uses_does_not_stand_in_the_way(store: Store, engine: RegoEngine) -> None:
    book = PolicyBook(store, engine)
    store.policies.set("default", "attestation", "broken", "not a policy", NOW)
    view = book.view("default", NOW)
    assert book.attestation(view, "cpu").text == defaults.DEFAULT_CPU
    with pytest.raises(PolicyInvalid) as caught:
        book.attestation(view, "dcu")
    assert caught.value.code == "policy_absent" and "default_dcu" in str(caught.value.hint)


def test_a_view_holds_until_something_changes_or_expires(store: Store, engine: RegoEngine) -> None:
    book = PolicyBook(store, engine)
    first = book.view("default", NOW)
    assert book.view("default", NOW) is first
    store.references.set("default", "a", 1, NOW + timedelta(hours=1), NOW)
    second = book.view("default", NOW)
    assert second is not first and second.data_key != first.data_key
    assert book.view("default", NOW + timedelta(minutes=59)) is second
    third = book.view("default", NOW + timedelta(hours=1))
    assert third is not second and third.data_key == first.data_key  # the same values hold as at first
    store.policies.set("default", "attestation", "default_cpu", HEAD + "x := 1", NOW)
    assert book.attestation(book.view("default", NOW + timedelta(hours=1)), "cpu").text.endswith("x := 1")
    assert book.attestation(book.view("other", NOW), "cpu").text == defaults.DEFAULT_CPU


def test_the_default_policies_compile(store: Store, engine: RegoEngine) -> None:
    book = PolicyBook(store, engine)
    for name, text in defaults.DEFAULTS.items():
        book.set("default", "attestation", f"default_{name}", text, NOW)
    book.set("default", "resource", "resource-policy", defaults.RESOURCE_ALLOW_AFFIRMING, NOW)


def test_kinds_do_not_share_what_they_may_read(store: Store, engine: RegoEngine) -> None:
    book = PolicyBook(store, engine)
    text = HEAD + 'allow if data.plugin == "resource"\n'
    book.set("default", "resource", "resource-policy", text, NOW)
    with pytest.raises(PolicyInvalid):
        book.set("default", "attestation", "default_cpu", text, NOW)


def test_a_memory_forgets_the_oldest_and_never_remembers_none() -> None:
    memory = Memory[int](3)
    for number in range(5):
        memory.put(number, number)
        memory.put(None, number)
    assert [memory.get(number) for number in range(5)] == [None, None, 2, 3, 4]
    assert memory.get(None) is None


def test_several_loops_one_after_another_use_one_engine(engine: RegoEngine, store: Store) -> None:
    book = PolicyBook(store, engine)
    accepted = book.accept(HEAD + "allow := count([1]) == 1", frozenset())

    async def ask() -> object:
        return (await engine.evaluate_async(accepted, ("allow",), {}, {}))["allow"]

    assert [asyncio.run(ask()) for _ in range(3)] == [True, True, True]


def test_what_no_longer_compiles_is_named(store: Store, engine: RegoEngine) -> None:
    book = PolicyBook(store, engine)
    assert not book.broken()
    book.set("fine", "attestation", "default_cpu", HEAD + "trust_claims := {}", NOW)
    book.set("fine", "resource", "resource-policy", HEAD + "allow := true", NOW)
    assert not book.broken()
    store.policies.set("one", "attestation", "default_cpu", HEAD + "trust_claims := opa.runtime()", NOW)
    store.policies.set("two", "resource", "resource-policy", HEAD + "allow := input.[", NOW)
    store.policies.set("three", "requirements", "snp", "rubbish", NOW)
    store.policies.set("three", "attestation", "nobody-asks-it", "rubbish", NOW)
    assert [error.field for error in book.broken()] == [
        "attestation policy default_cpu of tenant one",
        "requirements policy snp of tenant three",
        "resource policy resource-policy of tenant two",
    ]
