"""Changes that wait for approval: the exact request, and who said what about it.

A proposal goes pending -> executing -> done or failed, or pending -> rejected or expired; one to read something goes
pending -> approved -> done, when its proposer asks once more; each step is one transaction
that only one caller can take. So an approved request is carried out at most once, whoever asks in whatever worker.

Its end is committed with the last of what it changes, and what it changes before that with a note of it (``note``). So of
one whose process died the store says where it stands: ``failed`` if nothing was noted, since then nothing was changed,
else ``unknown``, with what was done. Whoever is late with one that was given up changes nothing more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, TypeAlias

import msgspec

from adyton.errors import Conflict, NotFound, TooMany
from adyton.stores import tenants
from adyton.stores.seal import Sealer
from adyton.stores.sql import Database, Row, Transaction

State: TypeAlias = Literal["pending", "approved", "executing", "done", "failed", "unknown", "rejected", "expired"]
MAX_PENDING = 200
_KIND = "proposal"
_VOTE = "vote"
GRACE = 1800.0
"""Seconds that somebody who lives may take to carry one out: several calls of back ends, each with its deadline."""
MAX_STEPS = 100


class Proposal(msgspec.Struct, frozen=True):
    """A request that somebody has made, as it will be carried out. Unix seconds.

    ``organisation`` and ``person`` are the proposer's, ``root`` when the admin token asked; ``role`` and ``tenants`` what
    they were then. ``tenant`` is the one asked about, where that does not exist yet and the broker's owners agree.
    ``begun`` and ``instance``: when, and by which broker, it began to be carried out; ``steps``: what of it was changed.
    """

    action: str
    area: str
    method: str
    parts: tuple[str, ...]
    query: str
    body: bytes
    digest: str
    by: str
    organisation: str
    person: str
    root: bool
    created: float
    expires: float
    outcome: str = ""
    tenant: str = ""
    role: str = ""
    tenants: tuple[str, ...] | None = None
    begun: float = 0.0
    instance: str = ""
    steps: tuple[str, ...] = ()


class Ballot(msgspec.Struct, frozen=True):
    """What somebody said. ``organisation`` and ``person`` are theirs, ``root`` when the admin token said it."""

    who: str
    choice: str
    time: float
    organisation: str
    person: str
    root: bool


@dataclass(frozen=True, slots=True)
class StoredProposal:
    """A proposal, where it stands, and the votes by voter."""

    id: str
    state: State
    value: Proposal
    votes: tuple[Ballot, ...]


class Proposals:
    """The tables of proposals and votes. ``instance``: which broker this is; ``shared``: whether others may be at work too."""

    def __init__(self, database: Database, sealer: Sealer, instance: str = "", *, shared: bool = False) -> None:
        self._database = database
        self._sealer = sealer
        self._instance = instance
        self._shared = shared

    def make(self, tenant: str, number: str, value: Proposal, voter: str, ballot: Ballot) -> None:
        """Write down a proposal with its proposer's vote; ``TooMany`` that wait."""
        with self._database.write() as transaction:
            waiting = transaction.execute(
                "SELECT id, state, version, sealed FROM proposals WHERE tenant=? AND state='pending'", (tenant,)
            ).fetchall()
            if len(waiting) >= MAX_PENDING and not self._expire(transaction, tenant, waiting, value.created):
                raise TooMany(f"at most {MAX_PENDING} proposals wait at a time", code="too_many_proposals")
            version = tenants.touch(transaction, tenant)
            transaction.execute(
                "INSERT INTO proposals VALUES (?,?,?,'pending',?,?)",
                (
                    tenant,
                    number,
                    value.created,
                    version,
                    self._seal(transaction, tenant, number, "pending", version, value),
                ),
            )
            sealed = self._sealer.seal_for(
                transaction, msgspec.json.encode(ballot), tenant, _VOTE, f"{number} {voter}", version
            )
            transaction.execute("INSERT INTO votes VALUES (?,?,?,?,?)", (tenant, number, voter, version, sealed))

    def _expire(self, transaction: Transaction, tenant: str, waiting: Sequence[Row], now: float) -> int:
        """End those of ``waiting`` whose time is over; how many."""
        ended = 0
        for number, *row in waiting:
            value = self._open(tenant, number, *row)
            if value.expires <= now:
                self._write(transaction, tenant, number, "expired", value)
                ended += 1
        return ended

    def _write(self, transaction: Transaction, tenant: str, number: str, state: State, value: Proposal) -> None:
        version = tenants.touch(transaction, tenant)
        transaction.execute(
            "UPDATE proposals SET state=?, version=?, sealed=? WHERE tenant=? AND id=?",
            (state, version, self._seal(transaction, tenant, number, state, version, value), tenant, number),
        )

    def vote(self, tenant: str, number: str, voter: str, ballot: Ballot) -> StoredProposal:
        """Add a vote to a pending proposal; ``Conflict`` if the voter has voted, or nothing is pending."""
        with self._database.write() as transaction:
            row = transaction.execute(
                "SELECT state FROM proposals WHERE tenant=? AND id=?", (tenant, number)
            ).fetchone()
            if row is None:
                raise absent(number)
            if row[0] != "pending":
                raise decided(row[0])
            version = tenants.touch(transaction, tenant)
            sealed = self._sealer.seal_for(
                transaction, msgspec.json.encode(ballot), tenant, _VOTE, f"{number} {voter}", version
            )
            done = transaction.execute(
                "INSERT INTO votes VALUES (?,?,?,?,?) ON CONFLICT DO NOTHING", (tenant, number, voter, version, sealed)
            )
            if not done.rowcount:
                raise Conflict("they have voted on this already", code="voted_already", field="proposal", got=number)
        found = self.get(tenant, number)
        if found is None:
            raise absent(number)
        return found

    def move(self, tenant: str, number: str, before: State, after: State, outcome: str = "") -> bool:
        """From one state to the next, durable on return; false if somebody else was quicker."""
        return self._step(tenant, number, before, after, lambda value: msgspec.structs.replace(value, outcome=outcome))

    def begin(self, tenant: str, number: str, now: float) -> bool:
        """A pending one is carried out from now on, by who is told true."""

        def begun(value: Proposal) -> Proposal:
            return msgspec.structs.replace(value, begun=now, instance=self._instance)

        return self._step(tenant, number, "pending", "executing", begun)

    def note(self, tenant: str, number: str, steps: Sequence[str]) -> None:
        """Some of it is changed, in the same transaction; ``Conflict`` if it was given up: then nothing is."""

        def noted(value: Proposal) -> Proposal:
            return msgspec.structs.replace(value, steps=(*value.steps, *steps)[:MAX_STEPS])

        if not self._step(tenant, number, "executing", "executing", noted):
            self._check_not_given_up(tenant, number)

    def end(self, tenant: str, number: str, outcome: str) -> None:
        """The last of it is changed, in the same transaction; ``Conflict`` if it was given up: then nothing is."""
        if not self.move(tenant, number, "executing", "done", outcome):
            self._check_not_given_up(tenant, number)

    def _check_not_given_up(self, tenant: str, number: str) -> None:
        if (found := self.get(tenant, number)) is not None:  # else it went with its tenant, which was to be deleted
            raise Conflict(
                "it took so long that the proposal was given up",
                code="proposal_given_up",
                field="proposal",
                got=found.state,
                hint="look at the record, and propose it again",
            )

    def abandoned(self, now: float, grace: float = GRACE) -> list[tuple[str, StoredProposal]]:
        """With their tenants, those that nobody carries out any more: of a broker that ended, or for longer than ``grace``."""
        rows = self._database.read(
            "SELECT tenant, id FROM proposals WHERE state='executing' ORDER BY created LIMIT 100"
        )
        found = [(tenant, self.get(tenant, number)) for tenant, number in rows]
        return [
            (tenant, one)
            for tenant, one in found
            if one is not None
            and one.state == "executing"
            and (one.value.begun + grace < now or (not self._shared and one.value.instance != self._instance))
        ]

    def give_up(self, tenant: str, found: StoredProposal, outcome: str) -> bool:
        """One of those is ``failed``, or ``unknown`` if any of it was changed; false if it went on meanwhile."""
        after: State = "unknown" if found.value.steps else "failed"

        def ended(value: Proposal) -> Proposal | None:
            return msgspec.structs.replace(value, outcome=outcome) if value.steps == found.value.steps else None

        return self._step(tenant, found.id, "executing", after, ended)

    def _step(
        self, tenant: str, number: str, before: State, after: State, edit: Callable[[Proposal], Proposal | None]
    ) -> bool:
        with self._database.write() as transaction:
            row = transaction.execute(
                "SELECT state, version, sealed FROM proposals WHERE tenant=? AND id=?", (tenant, number)
            ).fetchone()
            if row is None or row[0] != before:
                return False
            edited = edit(self._open(tenant, number, *row))
            if edited is None:
                return False
            self._write(transaction, tenant, number, after, edited)
        return True

    def get(self, tenant: str, number: str) -> StoredProposal | None:
        """One of them, or ``None``."""
        rows = self._database.read(
            "SELECT state, version, sealed FROM proposals WHERE tenant=? AND id=?", (tenant, number)
        )
        if not rows:
            return None
        votes = self._database.read(
            "SELECT voter, version, sealed FROM votes WHERE tenant=? AND proposal=?", (tenant, number)
        )
        ballots = (
            msgspec.json.decode(self._sealer.open(sealed, tenant, _VOTE, f"{number} {voter}", version), type=Ballot)
            for voter, version, sealed in votes
        )
        state, version, sealed = rows[0]
        value = self._open(tenant, number, state, version, sealed)
        return StoredProposal(number, state, value, tuple(sorted(ballots, key=lambda one: one.time)))

    def list(self, tenant: str, *, pending: bool, limit: int = 200) -> list[StoredProposal]:
        """A tenant's proposals, the newest first."""
        which = " AND state='pending'" if pending else ""
        rows = self._database.read(
            f"SELECT id FROM proposals WHERE tenant=?{which} ORDER BY created DESC, id LIMIT ?",  # noqa: S608 -- ours
            (tenant, limit),
        )
        found = (self.get(tenant, row[0]) for row in rows)
        return [one for one in found if one is not None]

    def approved(self, tenant: str, digest: str, by: str, now: float) -> str | None:
        """The id of an approved proposal of somebody's to read this, or ``None``."""
        rows = self._database.read("SELECT id FROM proposals WHERE tenant=? AND state='approved'", (tenant,))
        for (number,) in rows:
            found = self.get(tenant, number)
            if (
                found is not None
                and found.value.digest == digest
                and found.value.by == by
                and now < found.value.expires
            ):
                return str(number)
        return None

    def forget(self, before: datetime) -> None:
        """Drop what was decided or ended before a time: its record is in the audit log."""
        with self._database.write() as transaction:
            rows = transaction.execute(
                "SELECT tenant, id FROM proposals WHERE state<>'pending' AND created<?", (before.timestamp(),)
            ).fetchall()
            transaction.executemany("DELETE FROM votes WHERE tenant=? AND proposal=?", rows)
            transaction.executemany("DELETE FROM proposals WHERE tenant=? AND id=?", rows)

    def _seal(  # noqa: PLR0917 -- one value each
        self, transaction: Transaction, tenant: str, number: str, state: str, version: int, value: Proposal
    ) -> bytes:
        return self._sealer.seal_for(
            transaction, msgspec.json.encode(value), tenant, _KIND, f"{number} {state}", version
        )

    def _open(self, tenant: str, number: str, state: str, version: int, sealed: bytes) -> Proposal:
        opened = self._sealer.open(sealed, tenant, _KIND, f"{number} {state}", version)
        return msgspec.json.decode(opened, type=Proposal)


def moment(seconds: float) -> datetime:
    """Unix seconds as a time."""
    return datetime.fromtimestamp(seconds, UTC)


def absent(number: str) -> NotFound:
    """There is no such proposal."""
    return NotFound("there is no such proposal", code="proposal_absent", field="proposal", got=number[:80])


def decided(state: str) -> Conflict:
    """The proposal waits for nobody any more."""
    return Conflict(f"the proposal is {state}", code="proposal_decided", field="state", expected="pending", got=state)
