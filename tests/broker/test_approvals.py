"""Several must agree: no way around it, nobody counts twice, the exact request once, and every step in the record."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from tests.broker import rig
from tests.broker.people_rig import Somebody, pem

from adyton.client.admin import Admin
from adyton.client.people import People
from adyton.errors import AdytonError, NotPermitted
from adyton.protocol.people import ApprovalRules, PersonBody, PromotionBody, ProposalView, TenantBody
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath

ANY = Binding(any_workload_i_accept=True)
PATH = ResourcePath("default", "key", "1")
ACTIONS = ("resource.delete", "resource.bind", "policy", "promotion", "key.destroy", "key.export")


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[rig.RunningBroker]:
    running = rig.started(tmp_path_factory.mktemp("approvals") / "data", None)
    with running.admin() as admin:
        People(admin).make_organisation("acme")
    for name in ("acme", "acme-dev"):
        with running.admin(name) as admin:
            People(admin).make_tenant(TenantBody("acme"))
    yield running
    assert running.stop() == 0


class Three:
    """Three owners of acme, with rules that need two of them for everything there is."""

    def __init__(self, busy: rig.RunningBroker) -> None:
        self.busy = busy
        self.a, self.b, self.c = (Somebody(busy, "acme", name) for name in ("ann", "ben", "cleo"))
        with self.a.admin("acme") as admin:
            People(admin).set_approvals(ApprovalRules(ACTIONS, 2, 1))


@pytest.fixture(scope="module")
def three(busy: rig.RunningBroker) -> Three:
    return Three(busy)


@pytest.fixture
def resource(busy: rig.RunningBroker, three: Three) -> ResourcePath:
    """A secret in acme, set through the same rules."""
    with three.a.admin("acme") as admin:
        if PATH.uri not in {one.uri for one in admin.list_resources()}:
            agree(three, pending(admin.set_resource, PATH, b"secret", ANY))
    return PATH


def pending(call: Any, *arguments: Any) -> str:
    """The id of the proposal that a call became."""
    with pytest.raises(NotPermitted) as caught:
        call(*arguments)
    assert caught.value.code == "approval_pending", caught.value
    return str(caught.value.hint).split()[1].rstrip(":")


def code(call: Any, *arguments: Any) -> str:
    with pytest.raises(AdytonError) as caught:
        call(*arguments)
    return caught.value.code


def vote(somebody: Somebody, number: str, choice: str = "approve", tenant: str = "acme") -> ProposalView:
    with somebody.admin(tenant) as admin:
        people = People(admin)
        return people.vote(number, people.show_proposal(number).digest, choice)


def agree(three: Three, number: str) -> ProposalView:
    done = vote(three.b, number)
    assert done.state == "done", done
    return done


def vote_code(somebody: Somebody, number: str, digest: str, tenant: str = "acme") -> str:
    with somebody.admin(tenant) as admin:
        return code(People(admin).vote, number, digest, "approve")


def uris(somebody: Somebody) -> set[str]:
    with somebody.admin("acme") as admin:
        return {one.uri for one in admin.list_resources()}


def test_one_alone_does_nothing(three: Three, resource: ResourcePath) -> None:
    with three.a.admin("acme") as admin:
        number = pending(admin.delete_resource, resource)
        assert resource.uri in uris(three.a)
        digest = People(admin).show_proposal(number).digest
        assert code(People(admin).vote, number, digest, "approve") == "voted_already"
        made = People(admin).own_token(1)
        with Admin(three.busy.address("acme"), made.token) as other:  # the same person by another token
            assert code(People(other).vote, number, digest, "approve") == "voted_already"
        second = pending(admin.delete_resource, resource)  # and by another proposal
        assert second != number and resource.uri in uris(three.a)
    vote(three.b, number, "reject")
    vote(three.b, second, "reject")
    assert resource.uri in uris(three.a)


def test_two_do(three: Three, resource: ResourcePath) -> None:
    with three.a.admin("acme") as admin:
        number = pending(admin.delete_resource, resource)
        done = agree(three, number)
        assert (done.agreed, done.needed, done.outcome) == (2, 2, "204")
        assert resource.uri not in uris(three.a)
        assert vote_code(three.c, number, done.digest) == "proposal_decided"
        told = [one["row"] for one in admin.audit(limit=3)]
        assert [row["action"] for row in told] == ["approval.approve", "resource.delete", "approval.done"]
        assert "acme/ann" in told[1]["resource"] and {row["actor"] for row in told} == {"acme/ben"}


def test_a_vote_is_for_one_request(three: Three, resource: ResourcePath) -> None:
    with three.a.admin("acme") as admin:
        number = pending(admin.delete_resource, resource)
        other = pending(admin.delete_resource, ResourcePath("a", "b", "c"))
        with three.b.admin("acme") as voting:
            people = People(voting)
            for digest in (people.show_proposal(other).digest, "", "0" * 64):
                assert code(people.vote, number, digest, "approve") == "proposal_digest"
            digest = people.show_proposal(number).digest
            assert code(people.vote, number, digest, "maybe") == "vote_invalid"
            assert code(people.vote, "0" * 12, digest, "approve") == "proposal_absent"
    for one in (number, other):
        vote(three.c, one, "reject")
    assert resource.uri in uris(three.a)


def test_the_admin_token_is_one_and_no_more(three: Three, resource: ResourcePath) -> None:
    busy = three.busy
    with busy.admin("acme") as admin, busy.admin("acme") as again:
        number = pending(admin.delete_resource, resource)
        digest = People(again).show_proposal(number).digest
        assert code(People(again).vote, number, digest, "approve") == "voted_already"
        boss = Somebody(
            busy, "default", "boss"
        )  # the broker's own people are one with it, for an organisation's tenant
        assert vote_code(boss, number, digest) == "voted_already"
        assert resource.uri in uris(three.a)
    assert vote(three.a, number).state == "done"


def test_rules_guard_themselves(three: Three) -> None:
    busy = three.busy
    for who in (three.a.admin("acme"), busy.admin("acme")):
        with who as admin:
            people = People(admin)
            numbers = [
                pending(people.set_approvals, ApprovalRules()),
                pending(people.set_approvals, ApprovalRules(("policy",), 2, 1)),
                pending(people.set_person, "mallory", PersonBody("owner")),
                pending(people.set_person, "ben", PersonBody("auditor")),
                pending(people.delete_person, "cleo"),
                pending(people.add_key, "ben", pem(ed25519.Ed25519PrivateKey.generate())),
                pending(people.delete_tenant),
            ]
            assert code(people.add_token, "ben") == "token_for_another"
        for number in numbers:
            vote(three.c, number, "reject")
    with busy.admin("acme") as admin:
        vote(three.c, pending(People(admin).set_organisation, ""), "reject")
        vote(three.c, pending(People(admin).set_environment, "test"), "reject")
    with three.a.admin("acme-dev") as admin:  # people are the organisation's, by whichever tenant's address
        number = pending(People(admin).set_person, "mallory", PersonBody("owner"))
        vote(three.c, number, "reject", "acme-dev")
    with three.a.admin("acme") as admin:
        assert People(admin).show_tenant().approvals == ApprovalRules(ACTIONS, 2, 1)
        assert {one.name for one in People(admin).list_people()} == {"ann", "ben", "cleo"}


def test_other_ways_to_the_same(three: Three, resource: ResourcePath) -> None:
    """Setting anew changes a binding too, CoCo's endpoints set policies, and a promotion copies them."""
    token = {"Authorization": f"Bearer {three.a.header()['Authorization'].removeprefix('Bearer ')}"}
    with three.a.admin("acme") as admin:
        number = pending(admin.set_resource, resource, b"mine", ANY)
        shown = People(admin).show_proposal(number)
        assert "mine" not in shown.shown and "bWluZQ" not in str(shown)  # a secret is not shown to who approves
        numbers = [
            number,
            pending(admin.bind_resource, resource, Binding()),
            pending(admin.set_policy, "resource", "resource-policy", "package policy\n\ndefault allow := true\n"),
        ]
    with three.a.admin("acme-dev") as admin:
        admin.set_policy("resource", "resource-policy", "package policy\n\ndefault allow := true\n")
    with three.a.admin("acme") as admin:
        plan = People(admin).plan_promotion(PromotionBody("acme-dev", policies=True))
        wanted = PromotionBody("acme-dev", True, False, (), plan.digest)
        numbers.append(pending(People(admin).promote, wanted))
    with rig.raw(three.busy, "/t/acme") as client:
        for method, path, body in (
            ("POST", "/kbs/v0/resource-policy", b'{"policy":"cGFja2FnZSBwb2xpY3kKZGVmYXVsdCBhbGxvdyA6PSB0cnVlCg"}'),
            ("POST", f"/kbs/v0/resource/{resource}", b"mine"),
            ("DELETE", f"/kbs/v0/resource/{resource}", None),
        ):
            status, _, _ = client.ask(method, path, body, token)
            assert status == 202, path
    with three.a.admin("acme") as admin:
        assert not admin.list_policies()
        for one in People(admin).list_proposals():
            vote(three.c, one.id, "reject")


def test_an_approved_promotion(three: Three) -> None:
    with three.a.admin("acme-dev") as admin:
        admin.set_policy("resource", "resource-policy", "package policy\n\ndefault allow := true\n")
    with three.a.admin("acme") as admin:
        body = PromotionBody("acme-dev", policies=True)
        wanted = PromotionBody("acme-dev", True, False, (), People(admin).plan_promotion(body).digest)
        number = pending(People(admin).promote, wanted)
        with three.a.admin("acme-dev") as source:  # what was agreed to is not there any more
            source.set_policy("resource", "resource-policy", "package policy\n\ndefault allow := false\n")
        done = vote(three.b, number)
        assert done.state == "failed" and done.outcome.startswith("promotion_changed")
        assert not admin.list_policies()


def test_auditors_and_strangers_do_not_vote(three: Three, resource: ResourcePath) -> None:
    with three.a.admin("acme") as admin:
        agree(three, pending(People(admin).set_person, "rita", PersonBody("auditor")))
        key = ed25519.Ed25519PrivateKey.generate()
        agree(three, pending(People(admin).add_key, "rita", pem(key)))
        number = pending(admin.delete_resource, resource)
    rita = Somebody.__new__(Somebody)
    rita.broker, rita.name, rita.key = three.busy, "rita", key
    with rita.admin("acme") as reading:
        digest = People(reading).show_proposal(number).digest  # reads it, and does not decide
        assert code(People(reading).vote, number, digest, "approve") == "role_not_permitted"
    stranger = Somebody.__new__(Somebody)
    stranger.broker, stranger.name, stranger.key = three.busy, "x", ed25519.Ed25519PrivateKey.generate()
    assert vote_code(stranger, number, digest) == "admin_token_refused"
    assert vote_code(three.b, number, digest, "acme-dev") == "proposal_absent"
    vote(three.c, number, "reject")
    with three.a.admin("acme") as admin:
        agree(three, pending(People(admin).delete_person, "rita"))


def test_votes_count_while_their_givers_do(three: Three, resource: ResourcePath) -> None:
    """Somebody who left does not agree any more; nor is a request carried out for a proposer who left."""
    with three.a.admin("acme") as admin:
        agree(three, pending(People(admin).set_person, "dora", PersonBody("owner")))
        key = ed25519.Ed25519PrivateKey.generate()
        agree(three, pending(People(admin).add_key, "dora", pem(key)))
    dora = Somebody.__new__(Somebody)
    dora.broker, dora.name, dora.key = three.busy, "dora", key
    with dora.admin("acme") as admin:
        number = pending(admin.delete_resource, resource)
    with three.a.admin("acme") as admin:
        agree(three, pending(People(admin).delete_person, "dora"))
    assert vote(three.b, number).state == "pending"  # one agrees: the proposer is nobody
    done = vote(three.c, number)
    assert done.state == "failed" and "role_not_permitted" in done.outcome
    assert resource.uri in uris(three.a)


def test_two_at_once_carry_it_out_once(three: Three, resource: ResourcePath) -> None:
    for _ in range(5):
        with three.a.admin("acme") as admin:
            number = pending(admin.set_resource, resource, b"new", ANY)
            before = next(one.version for one in admin.list_resources() if one.uri == resource.uri)
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            results = [pool.submit(vote, who, number) for who in (three.b, three.c)]
            concurrent.futures.wait(results)
        ended = [one.result().state for one in results if one.exception() is None]
        assert "done" in ended
        with three.a.admin("acme") as admin:
            rows = [one["row"]["action"] for one in admin.audit(limit=8)]
            newest = len(rows) - rows[::-1].index("approval.propose")
            assert rows[newest:].count("resource.set") == 1
            after = next(one.version for one in admin.list_resources() if one.uri == resource.uri)
            assert after > before


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (ApprovalRules(("nothing",), 2, 1), "approval_rules_invalid"),
        (ApprovalRules(("approval.vote",), 2, 1), "approval_rules_invalid"),
        (ApprovalRules(("policy",), 1, 1), "approval_rules_invalid"),
        (ApprovalRules(("policy",), 2, 0), "approval_rules_invalid"),
        (ApprovalRules(("policy",), 21, 1), "approval_rules_invalid"),
        (ApprovalRules(("policy",), 9, 1), "approvers_too_few"),
    ],
)
def test_rules_that_cannot_be(three: Three, rules: ApprovalRules, expected: str) -> None:
    with three.a.admin("acme-dev") as admin:  # it has no rules of its own yet
        assert code(People(admin).set_approvals, rules) == expected


def test_people_cannot_become_too_few(busy: rig.RunningBroker) -> None:
    with busy.admin("pair-it") as admin:
        People(admin).make_organisation("pair")
        People(admin).make_tenant(TenantBody("pair"))
    one, two = Somebody(busy, "pair-it", "one"), Somebody(busy, "pair-it", "two")
    with one.admin("pair-it") as admin:
        People(admin).set_approvals(ApprovalRules(("policy",), 3, 1))  # the two, and the broker's people as one
        number = pending(People(admin).delete_person, "two")
    vote(two, number, tenant="pair-it")
    with busy.admin("pair-it") as admin:
        people = People(admin)
        done = people.vote(number, people.show_proposal(number).digest, "approve")
        assert done.state == "failed" and done.outcome.startswith("approvers_too_few")


def test_a_proposal_ends(tmp_path: Path) -> None:
    """With the store's own clock moved on: an hour later nobody can agree any more."""
    import datetime as dt

    from adyton.broker.door.asked import Asked
    from adyton.broker.people.approvals import Approvals
    from adyton.broker.people.gate import Gate
    from adyton.broker.people.identity import Identities
    from adyton.broker.people.people import principal
    from adyton.broker.people.permissions import line
    from adyton.errors import Conflict
    from adyton.stores.people import Person
    from adyton.stores.sqlite import Store
    from adyton.stores.tenant_settings import TenantSettings

    now = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
    store = Store.open(tmp_path, root_key=bytes(32), now=now)
    store.registry.make_organisation("acme", now)
    tenant = store.registry.make("acme", TenantSettings("acme", "", ApprovalRules(("resource",), 2, 1)))
    for name in ("a", "b"):
        store.people.set("acme", name, Person("owner"), (), now)
    gate = Gate("x" * 43, store, Identities())
    approvals = Approvals(store, gate)
    approvals.carry_out = lambda *_: pytest.fail("it was carried out")
    parts = ("resources", "a", "b", "c")
    deleting = line("api", "DELETE", parts)
    assert deleting is not None
    first = principal("acme", "a", Person("owner"), "key")
    waits = approvals.ask(deleting, Asked("DELETE", "acme", b"", now, "", first), parts, tenant)
    assert waits is not None and waits.status == 202
    (proposal,) = store.proposals.list("acme", pending=True)
    later = now + dt.timedelta(hours=1)
    body = b'{"digest":"%b","choice":"approve"}' % proposal.value.digest.encode()
    second = principal("acme", "b", Person("owner"), "key")
    with pytest.raises(Conflict, match="expired"):
        approvals.handle(Asked("POST", "acme", body, later, "", second), ("approvals", proposal.id, "votes"))
    assert store.proposals.get("acme", proposal.id).state == "expired"  # type: ignore[union-attr]
    store.proposals.forget(later + dt.timedelta(days=1))
    assert store.proposals.get("acme", proposal.id) is None
    store.close()
