"""Changes that several people must agree to, where a tenant's owners have said so.

The request becomes a proposal, word for word: what is carried out is what was proposed, found by its digest, and no
vote counts for anything else. The proposer is one of those who agree. A vote counts while its giver is still an owner
of the tenant; each person counts once, by whatever token they come; all of the broker's own people together, and the
admin token with them, count as one where the tenant belongs to an organisation. Rules guard themselves: who is an
owner, and what is set about the tenant, needs the same agreement as soon as anything does.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

import msgspec

from adyton.broker.door import api_bodies, refusals
from adyton.broker.door.answer import Answer
from adyton.broker.door.asked import Asked, Settling
from adyton.broker.people import permissions
from adyton.broker.people.gate import Gate
from adyton.broker.people.people import Principal, Role
from adyton.broker.people.permissions import TABLE, Line
from adyton.crypto.aead import random_bytes
from adyton.errors import AdytonError, Conflict, MalformedRequest, NotPermitted, Unavailable
from adyton.protocol.people import ApprovalRules, ProposalView, Vote, VoteBody
from adyton.protocol.policies import PolicyBody
from adyton.stores.proposals import Ballot, Proposal, StoredProposal, absent, decided, moment
from adyton.stores.sqlite import Store
from adyton.stores.tenant_settings import BROKER, StoredTenant

CANDIDATE = "policy.candidate"
"""Setting a policy that does not decide yet."""
GUARDED = ("tenant", "person")
"""What any rule implies: else one person could make others, or take the rule away."""
_DECIDES = ("policy.set", "policy.activate", "policy.rollback", "policy.delete", "promotion")
_VALUES = ("reference.set", "reference.publish", "provider.set", "promotion")
_IMPLIED: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(_DECIDES[:-1], _DECIDES),
    "policy.set": (*_DECIDES, CANDIDATE),
    **dict.fromkeys(_VALUES[:-1], _VALUES),
    "resource.set": ("promotion",),
    "resource.bind": ("resource.set", "promotion"),
    "resource.delete": ("key.delete",),
    "key.delete": ("resource.delete",),
    "key.destroy": ("key.delete", "resource.delete"),
}
"""Rules by what comes to the same: else who may not do it one way does it the other."""
_UNSHOWN = frozenset({"resource.set", "key.set", "key.rotate"})
MAX_NEEDED = 20
Changes: TypeAlias = tuple[tuple[str, str], ...]
MAX_HOURS = 30 * 24
# Votes themselves, what concerns only who asks or changes nothing, and uses of a key, whose answers are for who asks.
_FREE = frozenset({"approval.vote", "token.own", "policy.test", *(line.action for line in TABLE if "use" in line.path)})


class Approvals:
    """The rules and proposals of one worker. ``carry_out`` is how an approved request reaches its handler."""

    def __init__(self, store: Store, gate: Gate) -> None:
        self._store = store
        self._gate = gate
        self.carry_out: Callable[[str, tuple[str, ...], Asked], Answer]

    def ask(self, line: Line, asked: Asked, parts: tuple[str, ...], tenant: StoredTenant | None) -> Answer | None:
        """``None`` if the request may go on by itself; else 202 with the proposal that it has become."""
        rules = self._rules(line, _action(line, asked.body), tenant)
        if rules is None:
            return None
        who = asked.principal
        if line.action == "person.token":
            raise NotPermitted(
                "somebody else's token would be in your answer, so it could vote for them",
                code="token_for_another",
                hint="give them a key or an identity provider's subject, or let them make their own token",
            )
        now = asked.now.timestamp()
        where = BROKER if line.of_the_broker or tenant is None else asked.tenant
        digest = _digest(asked.tenant, line.area, asked.method, parts, asked.query, asked.body)
        if asked.method == "GET":  # what is read goes to who asked for it, so they ask once more: once
            granted = self._store.proposals.approved(where, digest, who.name, now)
            if granted is not None and self._store.proposals.move(where, granted, "approved", "done", "read"):
                asked.deed.settle(("approval.done", f"{granted} {line.action} read"))
                return None
        proposal = Proposal(
            action=line.action,
            area=line.area,
            method=asked.method,
            parts=parts,
            query=asked.query,
            body=asked.body,
            digest=digest,
            by=who.name,
            organisation=who.organisation,
            person=who.person,
            root=who.is_root,
            created=now,
            expires=now + rules.hours * 3600,
            tenant=asked.tenant,
            role=who.role.value,
            tenants=None if who.tenants is None else tuple(sorted(who.tenants)),
        )
        number = random_bytes(6).hex()
        ballot = _ballot(who, "approve", now)
        self._store.proposals.make(where, number, proposal, self._voter(who, tenant), ballot)
        stored = StoredProposal(number, "pending", proposal, (ballot,))
        view = self._view(where, stored, now)
        change = ("approval.propose", f"{number} {line.action} {'/'.join(parts)[:160]} sha256:{proposal.digest}")
        return Answer(202, msgspec.json.encode(view), changes=(change,))

    def handle(self, asked: Asked, parts: tuple[str, ...]) -> Answer:
        """What is asked under ``approvals``; ``parts`` begin with the noun."""
        match (asked.method, *parts[1:]):
            case ("GET",):
                pending = asked.query != "all"
                found = self._store.proposals.list(asked.tenant, pending=pending)
                return api_bodies.answer([self._view(asked.tenant, one, asked.now.timestamp()) for one in found])
            case ("GET", number):
                return api_bodies.answer(
                    self._view(asked.tenant, self._get(asked.tenant, number), asked.now.timestamp())
                )
            case ("POST", number, "votes"):
                return self._vote(asked, number, api_bodies.read(asked.body, VoteBody))
        return refusals.NO_METHOD

    def check_rules(self, rules: ApprovalRules, tenant: str, organisation: str) -> ApprovalRules:
        """``rules`` themselves if they name known changes and can be met by the owners that there are."""
        named = {line.action for line in TABLE if line.action and line.action not in _FREE}
        known = named | {name.partition(".")[0] for name in named}
        unknown = sorted(set(rules.actions) - known)
        if unknown:
            raise _invalid("actions", sorted(known), unknown)
        if not 2 <= rules.needed <= MAX_NEEDED:
            raise _invalid("needed", f"2 to {MAX_NEEDED}", rules.needed)
        if not 1 <= rules.hours <= MAX_HOURS:
            raise _invalid("hours", f"1 to {MAX_HOURS}", rules.hours)
        if rules.actions:
            self.check_owners(tenant, organisation, rules, self._store.people.members(organisation))
        return rules

    def check_owners(
        self, tenant: str, organisation: str, rules: ApprovalRules, members: Iterable[tuple[str, object]]
    ) -> None:
        """``Conflict`` if ``members`` are too few owners of the tenant for its rules ever to be met."""
        owners = 0
        for name, _ in members:
            who = self._gate.again(organisation, name, root=False)
            owners += who is not None and who.role is Role.OWNER and who.covers(tenant, organisation)
        owners += 1 if organisation or self._gate.root_enabled() else 0  # the broker's own people, as one
        if owners < rules.needed:
            raise Conflict(
                f"{rules.needed} must agree, and there are {owners} who could",
                code="approvers_too_few",
                field="needed",
                expected=f"at least {rules.needed} owners of {tenant}",
                got=owners,
                hint="register people first: adyton person set",
            )

    def _rules(self, line: Line, action: str, tenant: StoredTenant | None) -> ApprovalRules | None:
        """The rules that this change falls under, the strictest if there are several; ``None`` if it needs nobody."""
        if not line.action or line.action in _FREE:
            return None
        organisation = tenant.settings.organisation if tenant is not None else ""
        own = self._of(BROKER) if line.of_the_broker or tenant is None else tenant.settings.approvals
        found = [own] if falls_under(action, own) else []
        if line.action.startswith("person."):
            found = self._of_people(organisation)
        if not found:
            return None
        return ApprovalRules(needed=max(one.needed for one in found), hours=min(one.hours for one in found))

    def guarded(self, organisation: str) -> bool:
        """Whether anything of an organisation's needs several of its people."""
        return bool(self._of_people(organisation))

    def _of_people(self, organisation: str) -> list[ApprovalRules]:
        """People are the organisation's, so the rules of all its tenants hold; of the broker's own, its rules too."""
        tenants = [one for one in self._store.registry.tenants() if one.settings.organisation == organisation]
        found = [one.settings.approvals for one in tenants if one.settings.approvals.actions]
        if not organisation and (broker := self._of(BROKER)).actions:
            found.append(broker)
        return found

    def _of(self, name: str) -> ApprovalRules:
        found = self._store.registry.find(name)
        return found.settings.approvals if found is not None else ApprovalRules()

    def _needed(self, proposal: Proposal, tenant: StoredTenant | None) -> int:
        """How many must agree by the rules as they are now, never fewer than two."""
        line = permissions.line(proposal.area, proposal.method, proposal.parts)
        rules = self._rules(line, proposal.action, tenant) if line is not None else None
        return rules.needed if rules is not None else 2

    def _vote(self, asked: Asked, number: str, body: VoteBody) -> Answer:
        who, tenant, now = asked.principal, asked.tenant, asked.now.timestamp()
        found = self._get(tenant, number)
        if not hmac.compare_digest(found.value.digest, body.digest):
            raise Conflict(
                "the vote is for another request", code="proposal_digest", field="digest", got=body.digest[:80]
            )
        if body.choice not in {"approve", "reject"}:
            raise MalformedRequest("approve or reject", code="vote_invalid", field="choice", got=body.choice[:40])
        if not who.registered:
            raise NotPermitted(
                "whom only an identity provider knows does not count: they could come by another name too",
                code="voter_unregistered",
                hint="register them, with the provider's subject: adyton person set --subject",
            )
        if found.state == "pending" and found.value.expires <= now:
            if self._store.proposals.move(tenant, number, "pending", "expired"):
                asked.deed.settle(("approval.expired", f"{number} sha256:{found.value.digest}"))
            raise decided("expired")
        stored = self._store.registry.find(tenant)
        needed = self._needed(found.value, stored)  # before anything is written: there may be many tenants
        after = self._store.proposals.vote(tenant, number, self._voter(who, stored), _ballot(who, body.choice, now))
        changes = [(f"approval.{body.choice}", f"{number} sha256:{found.value.digest}")]
        if body.choice == "reject":
            self._store.proposals.move(tenant, number, "pending", "rejected")
        elif self._agreed(tenant, after, stored) >= needed:
            if found.value.method == "GET":
                if self._store.proposals.move(tenant, number, "pending", "approved"):
                    changes.append(("approval.approved", f"{number} {found.value.action}"))
            elif self._store.proposals.begin(tenant, number, now):  # and nobody else does
                asked.deed.settle(*changes)
                self._execute(asked, number, found.value)
                changes = []
        if changes:
            asked.deed.settle(*changes)
        return Answer(200, msgspec.json.encode(self._view(tenant, self._get(tenant, number), now)))

    def _execute(self, asked: Asked, number: str, proposal: Proposal) -> None:
        """Carry it out and record what was changed, together with where the proposal stands then."""
        noted = _Noted(
            asked.deed,
            f" [proposal {number} of {proposal.by}]",
            lambda steps: self._store.proposals.note(asked.tenant, number, steps),
        )
        proposer = self._proposer(proposal)
        try:
            if proposer is None:
                raise NotPermitted("the proposer is nobody here any more", code="role_not_permitted")
            tenant = proposal.tenant or asked.tenant
            again = Asked(
                proposal.method, tenant, proposal.body, asked.now, proposal.query, proposer, asked.peer, deed=noted
            )
            answer = self.carry_out(proposal.area, proposal.parts, again)
            if answer.status < 300:
                self._store.proposals.end(asked.tenant, number, f"{answer.status}")
                told = f"{number} {proposal.action} {answer.status}"
                asked.deed.settle(*noted.of(answer.changes), ("approval.done", told))
                return
            outcome = f"{answer.status}"
        except AdytonError as error:
            if not self._failed(asked, number, proposal, f"{error.code}: {error.message}"[:300]):
                raise  # it is done and recorded; what was to follow it could not be done
            return
        except Exception as error:
            self._failed(asked, number, proposal, "the broker failed")
            raise Unavailable("the approved request failed", code="approval_failed") from error
        self._failed(asked, number, proposal, outcome)

    def _failed(self, asked: Asked, number: str, proposal: Proposal, outcome: str) -> bool:
        """Record that it came to nothing; false if it did not: then there is nothing to record."""
        asked.deed.undo()
        if not self._store.proposals.move(asked.tenant, number, "executing", "failed", outcome):
            asked.deed.undo()
            return False
        asked.deed.settle(("approval.failed", f"{number} {proposal.action} {outcome}"))
        return True

    def _proposer(self, proposal: Proposal) -> Principal | None:
        """As they are now. Of whom only an identity provider knows, as it said then: all who agree are others."""
        if proposal.person or proposal.root:
            return self._gate.again(proposal.organisation, proposal.person, root=proposal.root)
        tenants = None if proposal.tenants is None else frozenset(proposal.tenants)
        role = Role(proposal.role) if proposal.role else Role.AUDITOR
        return Principal(proposal.by, role, proposal.organisation, tenants, "identity provider")

    def _agreed(self, tenant: str, proposal: StoredProposal, stored: StoredTenant | None) -> int:
        """How many different owners agree, as they are now."""
        organisation = stored.settings.organisation if stored is not None else ""
        voters = set()
        for ballot in proposal.votes:
            if ballot.choice != "approve":
                continue
            who = self._gate.again(ballot.organisation, ballot.person, root=ballot.root)
            if who is not None and who.role is Role.OWNER and who.registered and who.covers(tenant, organisation):
                voters.add(self._voter(who, stored))
        return len(voters)

    def _voter(self, who: Principal, tenant: StoredTenant | None) -> str:
        """Whom a vote counts for."""
        if tenant is not None and tenant.settings.organisation and not who.organisation:
            return "the broker"
        return "admin token" if who.is_root else f"{who.organisation}/{who.person}" if who.person else f"~{who.name}"

    def _get(self, tenant: str, number: str) -> StoredProposal:
        found = self._store.proposals.get(tenant, number)
        if found is None:
            raise absent(number)
        return found

    def _view(self, tenant: str, found: StoredProposal, now: float) -> ProposalView:
        value, stored = found.value, self._store.registry.find(tenant)
        state = "expired" if found.state in {"pending", "approved"} and value.expires <= now else found.state
        return ProposalView(
            id=found.id,
            action=value.action,
            method=value.method,
            path=_asked_for(value, tenant),
            digest=value.digest,
            by=value.by,
            created=api_bodies.stamp(moment(value.created)),
            expires=api_bodies.stamp(moment(value.expires)),
            state=state,
            needed=self._needed(value, stored),
            agreed=self._agreed(tenant, found, stored),
            votes=[Vote(one.who, one.choice, api_bodies.stamp(moment(one.time))) for one in found.votes],
            shown="" if value.action in _UNSHOWN else value.body.decode("utf-8", "replace"),
            outcome=value.outcome,
        )


class _Noted:
    """A deed whose rows say which proposal they carry out; that they were written, the proposal says too (``keep``)."""

    def __init__(self, deed: Settling, note: str, keep: Callable[[Sequence[str]], None]) -> None:
        self._deed = deed
        self._note = note
        self._keep = keep

    def of(self, changes: Changes) -> Changes:
        """``changes`` with the note."""
        return tuple((action, name + self._note) for action, name in changes)

    def settle(self, *changes: tuple[str, str]) -> None:
        """As the deed's."""
        if changes:
            self._keep([f"{action} {name}"[:120] for action, name in changes])
        self._deed.settle(*self.of(changes))

    def undo(self) -> None:
        """As the deed's."""
        self._deed.undo()


def falls_under(action: str, rules: ApprovalRules) -> bool:
    """Whether by these rules several must agree to it."""
    if not rules.actions:
        return False
    names = [*rules.actions, *GUARDED]
    for rule in rules.actions:
        names += [also for name, implied in _IMPLIED.items() if f"{name}.".startswith(f"{rule}.") for also in implied]
    return any(action == name or action.startswith(f"{name}.") for name in names)


def _asked_for(value: Proposal, tenant: str) -> str:
    """What of the API was asked for: the other tenant if it is one that is to be made, and the query, which decides too."""
    whole = ("t", value.tenant, *value.parts) if value.tenant not in {"", tenant} else value.parts
    return "/".join(whole) + (f"?{value.query}" if value.query else "")


def _action(line: Line, body: bytes) -> str:
    """What the request comes to: setting a policy is one thing, letting it decide another."""
    if line.action != "policy.set" or line.area != "api":
        return line.action
    try:
        activates = api_bodies.read(body, PolicyBody).activate
    except AdytonError:  # its handler will say what is wrong with it
        activates = True
    return line.action if activates else CANDIDATE


def _ballot(who: Principal, choice: str, now: float) -> Ballot:
    return Ballot(who.name, choice, now, who.organisation, who.person, who.is_root)


def _digest(*said: object) -> str:
    """SHA-256 of everything that decides what a request does, each with its length before it."""
    digest = hashlib.sha256(b"adyton proposal 1")
    for one in said:
        part = one if isinstance(one, bytes) else msgspec.json.encode(one)
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def _invalid(name: str, expected: object, got: object) -> MalformedRequest:
    return MalformedRequest(
        "these approval rules cannot be used", code="approval_rules_invalid", field=name, expected=expected, got=got
    )
