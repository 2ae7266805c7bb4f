"""What an owner asks about policies, below ``/api/v0/policies``: versions, activation, rollback, dry runs, trials."""

from __future__ import annotations

from typing import cast
from urllib.parse import parse_qsl, unquote

from adyton.broker.door import refusals
from adyton.broker.door.answer import Answer
from adyton.broker.door.api_bodies import answer as _json
from adyton.broker.door.api_bodies import read as _read
from adyton.broker.door.api_bodies import stamp as _stamp
from adyton.broker.door.asked import Asked
from adyton.broker.policy.policies import PolicyBook
from adyton.errors import MalformedRequest, NotFound
from adyton.protocol.policies import (
    KINDS,
    ActivationView,
    DryRunView,
    PolicyBody,
    PolicyView,
    VersionBody,
    VersionView,
)
from adyton.stores.policy_trials import DryRun
from adyton.stores.policy_types import PolicyKind, PolicyVersion, StoredPolicy
from adyton.stores.sqlite import Store

MAX_POLICY_ID = 128
MAX_NOTE = 1000
_KINDS = cast("tuple[PolicyKind, ...]", KINDS)


class PolicyApi:
    """The requests of one worker, after the gate."""

    def __init__(self, store: Store, book: PolicyBook) -> None:
        self._store = store
        self._book = book

    def handle(self, asked: Asked, parts: tuple[str, ...]) -> Answer:
        """The answer to ``/api/v0/policies…``; errors of the tree leave as they are."""
        match (asked.method, *parts[1:]):
            case ("GET",):
                every = dict(parse_qsl(asked.query)).get("all") == "1"
                return _json([view for kind in _KINDS for view in self._list(asked.tenant, kind, every=every)])
            case (_, kind, name):
                return self._one(asked, *_named(kind, name))
            case (method, kind, name, what):
                return self._of_one(asked, method, *_named(kind, name), what)
        return refusals.NO_PATH

    def _list(self, tenant: str, kind: PolicyKind, *, every: bool) -> list[PolicyView]:
        newest = {name: (number, active) for name, number, active in self._store.policies.ids(tenant, kind)}
        trials = {run.id: run.version for run in self._store.dry_runs.list(tenant) if run.kind == kind}
        found = [
            _view(policy, newest=newest.get(policy.id, (policy.version, 0))[0], dry_run=trials.get(policy.id, 0))
            for policy in self._store.policies.list(tenant, kind)
        ]
        if not every:
            return found
        for name, (number, active) in newest.items():
            if active:
                continue
            last = self._store.policies.version(tenant, kind, name, number)
            state = "deleted" if self._store.policies.activations(tenant, kind, name) else "candidate"
            at = _stamp(last.created)
            found.append(PolicyView(kind, name, last.digest, number, at, "", state, number, trials.get(name, 0)))
        return sorted(found, key=lambda view: view.id)

    def _one(self, asked: Asked, kind: PolicyKind, name: str) -> Answer:
        policies, tenant = self._store.policies, asked.tenant
        match asked.method:
            case "GET":
                wanted = dict(parse_qsl(asked.query)).get("version")
                if wanted is not None:
                    return self._show_version(tenant, kind, name, wanted)
                found = policies.get(tenant, kind, name)
                if found is None:
                    raise NotFound(f"no {kind} policy {name!r} is set", code="policy_absent", field="policy_id")
                return _json(_view(found, text=True))
            case "PUT":
                return self.set(asked, kind, name, _read(asked.body, PolicyBody))
            case "DELETE":
                policies.delete(tenant, kind, name, asked.now, actor=asked.who)
                return Answer(204, changes=(("policy.delete", f"{kind}/{name}"),))
        return refusals.NO_METHOD

    def set(self, asked: Asked, kind: PolicyKind, name: str, body: PolicyBody) -> Answer:
        """Keep it as a version if it is acceptable (contracts, 5), and let it decide if that is asked."""
        if len(body.note) > MAX_NOTE:
            raise MalformedRequest("the note is too long", code="body_malformed", field="note", expected=MAX_NOTE)
        told: list[StoredPolicy] = []

        def kept(stored: StoredPolicy) -> None:
            asked.deed.settle(("policy.set", _changed(stored)))
            told.append(stored)

        stored = self._book.set(
            asked.tenant,
            kind,
            name,
            body.text,
            asked.now,
            actor=asked.who,
            note=body.note,
            activate=body.activate,
            kept=kept,
        )
        done = [] if told else [("policy.set", _changed(stored))]
        if body.activate:
            done.append(("policy.activate", _changed(stored)))
        view = _view(stored, state="active" if body.activate else "candidate", newest=stored.version)
        return _json(view, *done)

    def _show_version(self, tenant: str, kind: PolicyKind, name: str, wanted: str) -> Answer:
        if not wanted.isascii() or not wanted.isdigit() or len(wanted) > 15:
            raise MalformedRequest("a version is a number", code="body_malformed", field="version", got=wanted[:20])
        found = self._store.policies.version(tenant, kind, name, int(wanted))
        active = self._store.policies.get(tenant, kind, name)
        state = "active" if active is not None and active.version == found.version else ""
        return _json(PolicyView(kind, name, found.digest, found.version, _stamp(found.created), found.text, state))

    def _of_one(self, asked: Asked, method: str, kind: PolicyKind, name: str, what: str) -> Answer:
        policies, tenant = self._store.policies, asked.tenant
        match (method, what):
            case ("GET", "versions"):
                versions = policies.versions(tenant, kind, name)
                if not versions:
                    raise NotFound(f"no {kind} policy {name!r} was ever set", code="policy_absent", field="policy_id")
                states = {run.version: "dry-run" for run in self._runs(tenant, kind, name)}
                active = policies.get(tenant, kind, name)
                if active is not None:
                    states[active.version] = "active"
                return _json([_version(one, states.get(one.version, "")) for one in versions])
            case ("GET", "activations"):
                found = policies.activations(tenant, kind, name)
                return _json([ActivationView(a.number, a.version, _stamp(a.time), a.actor, a.action) for a in found])
            case ("GET", "dry-run"):
                return _json([_dry_run(run) for run in self._runs(tenant, kind, name)])
            case ("POST", "activate"):
                version = _read(asked.body, VersionBody).version
                stored = self._book.activate(tenant, kind, name, version, asked.now, actor=asked.who)
                return _json(_view(stored), ("policy.activate", _changed(stored)))
            case ("POST", "rollback"):
                stored = self._book.rollback(tenant, kind, name, asked.now, actor=asked.who)
                return _json(_view(stored), ("policy.rollback", _changed(stored)))
            case ("POST", "dry-run"):
                version = _read(asked.body, VersionBody).version
                if kind == "requirements":
                    raise MalformedRequest("requirements have no dry run", code="policy_name_invalid", field="kind")
                self._book.rehearse(tenant, kind, name, version)
                run = self._store.dry_runs.begin(tenant, kind, name, version, asked.now, asked.who)
                return _json(_dry_run(run), ("policy.dry-run", f"{kind}/{name}@{version}"))
            case ("DELETE", "dry-run"):
                self._store.dry_runs.end(tenant, kind, name)
                return Answer(204, changes=(("policy.dry-run-end", f"{kind}/{name}"),))
        return refusals.NO_METHOD if what in {"versions", "activations", "activate", "rollback"} else refusals.NO_PATH

    def _runs(self, tenant: str, kind: PolicyKind, name: str) -> list[DryRun]:
        return [run for run in self._store.dry_runs.list(tenant) if (run.kind, run.id) == (kind, name)]


def _named(kind: str, name: str) -> tuple[PolicyKind, str]:
    name = unquote(name)
    if kind not in KINDS or not 0 < len(name) <= MAX_POLICY_ID or not (name.isprintable() and name.isascii()):
        raise MalformedRequest(
            "a policy has a kind and an id", code="policy_name_invalid", expected=list(KINDS), got=kind[:40]
        )
    return cast("PolicyKind", kind), name


def _changed(policy: StoredPolicy) -> str:
    return f"{policy.kind}/{policy.id}@{policy.version} sha256:{policy.digest}"


def _view(
    policy: StoredPolicy, *, text: bool = False, state: str = "active", newest: int = 0, dry_run: int = 0
) -> PolicyView:
    shown = policy.text if text else ""
    at = _stamp(policy.updated)
    return PolicyView(policy.kind, policy.id, policy.digest, policy.version, at, shown, state, newest, dry_run)


def _version(one: PolicyVersion, state: str) -> VersionView:
    return VersionView(one.version, one.digest, _stamp(one.created), one.actor, one.note, state, one.pinned)


def _dry_run(run: DryRun) -> DryRunView:
    at = _stamp(run.since)
    return DryRunView(run.kind, run.id, run.version, at, run.actor, run.same, run.differ, run.failed, run.skipped)
