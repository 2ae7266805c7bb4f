"""Beside what decides: dry runs with their counts, activations that announce themselves, and recorded decisions.

Nothing here touches a tenant's generation: a dry run that begins, or a recording, ends nobody's session.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from adyton.errors import NotFound
from adyton.stores import tenants
from adyton.stores.policy_types import PolicyKind, no_version
from adyton.stores.seal import Sealer
from adyton.stores.sql import Database

_RECORDING = "recording"


@dataclass(frozen=True, slots=True)
class DryRun:
    """A version that is evaluated beside the deciding one, and what came of it so far."""

    kind: PolicyKind
    id: str
    version: int
    since: datetime
    actor: str
    same: int = 0
    differ: int = 0
    failed: int = 0
    skipped: int = 0


class DryRuns:
    """At most one version of each policy is on trial."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(  # noqa: PLR0917 -- one value each
        self, tenant: str, kind: PolicyKind, policy_id: str, version: int, now: datetime, actor: str = ""
    ) -> DryRun:
        """Try this version from now on, with counts from zero; ``NotFound`` if there is none."""
        with self._database.write() as transaction:
            tenants.touch(transaction, tenants.check(tenant))
            name = (tenant, kind, policy_id)
            if not transaction.execute(
                "SELECT 1 FROM policy_versions WHERE tenant=? AND kind=? AND name=? AND version=?",
                (*name, version),
            ).fetchone():
                raise no_version(kind, policy_id, version)
            transaction.execute("DELETE FROM policy_dry_runs WHERE tenant=? AND kind=? AND name=?", name)
            transaction.execute(
                "INSERT INTO policy_dry_runs VALUES (?,?,?,?,?,?,0,0,0,0)", (*name, version, now.timestamp(), actor)
            )
        return DryRun(kind, policy_id, version, now, actor)

    def end(self, tenant: str, kind: PolicyKind, policy_id: str) -> None:
        """Try it no longer; ``NotFound`` if none is on trial."""
        with self._database.write() as transaction:
            done = transaction.execute(
                "DELETE FROM policy_dry_runs WHERE tenant=? AND kind=? AND name=?",
                (tenant, kind, policy_id),
            )
            if not done.rowcount:
                raise NotFound(f"no version of {policy_id!r} is in a dry run", code="dry_run_absent", field="policy_id")

    def list(self, tenant: str) -> list[DryRun]:
        """All of a tenant's."""
        rows = self._database.read(
            "SELECT kind, name, version, since, actor, same, differ, failed, skipped FROM policy_dry_runs"
            " WHERE tenant=? ORDER BY kind, name",
            (tenant,),
        )
        return [DryRun(row[0], row[1], row[2], datetime.fromtimestamp(row[3], UTC), *row[4:]) for row in rows]

    def count(self, tenant: str, counted: Iterable[tuple[str, str, int, int, int, int, int]]) -> None:
        """Add to the counts: (kind, id, version, same, differ, failed, skipped) each. What has ended counts no more."""
        with self._database.write() as transaction:
            transaction.executemany(
                "UPDATE policy_dry_runs SET same = same + ?, differ = differ + ?, failed = failed + ?,"
                " skipped = skipped + ? WHERE tenant=? AND kind=? AND name=? AND version=?",
                [(*counts, tenant, kind, name, version) for kind, name, version, *counts in counted],
            )


class Staged:
    """Versions that are about to be activated, so that every worker compiles them before they count."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def announce(self, tenant: str, kind: PolicyKind, policy_id: str, version: int, now: datetime) -> None:
        """Say that this version comes."""
        with self._database.write(apart=True) as transaction:
            tenants.must_exist(transaction, tenant)
            transaction.execute(
                "INSERT INTO policy_staged VALUES (?,?,?,?,?) ON CONFLICT (tenant, kind, name)"
                " DO UPDATE SET version = excluded.version, time = excluded.time",
                (tenant, kind, policy_id, version, now.timestamp()),
            )

    def withdraw(self, tenant: str, kind: PolicyKind, policy_id: str) -> None:
        """It counts now, or never will."""
        with self._database.write(apart=True) as transaction:
            transaction.execute(
                "DELETE FROM policy_staged WHERE tenant=? AND kind=? AND name=?", (tenant, kind, policy_id)
            )

    def list(self) -> Sequence[tuple[str, PolicyKind, str, int]]:
        """What comes, of all tenants: tenant, kind, id, version."""
        return [tuple(row) for row in self._database.read("SELECT tenant, kind, name, version FROM policy_staged")]


class Recordings:
    """What was appraised and decided, for trying policies on it: sealed, bounded in number and age."""

    def __init__(self, database: Database, sealer: Sealer) -> None:
        self._database = database
        self._sealer = sealer

    def add(self, tenant: str, bodies: Sequence[bytes], now: datetime, *, keep: int, since: datetime) -> None:
        """Keep these, and forget all but the newest ``keep`` and whatever is older than ``since``."""
        with self._database.write() as transaction:
            tenants.must_exist(transaction, tenant)
            (last,) = transaction.execute("SELECT max(number) FROM recordings WHERE tenant=?", (tenant,)).fetchone()
            number = last or 0
            rows = []
            for body in bodies:
                number += 1
                sealed = self._sealer.seal_for(transaction, body, tenant, _RECORDING, str(number), number)
                rows.append((tenant, number, now.timestamp(), sealed))
            transaction.executemany("INSERT INTO recordings VALUES (?,?,?,?)", rows)
            transaction.execute(
                "DELETE FROM recordings WHERE tenant=? AND (number<=? OR time<?)",
                (tenant, number - keep, since.timestamp()),
            )

    def list(
        self, tenant: str, *, after: int = 0, limit: int = 1000, since: datetime | None = None
    ) -> list[tuple[int, bytes]]:
        """In order, from after number ``after``; what is older than ``since`` has ceased to exist."""
        start = since.timestamp() if since is not None else 0.0
        rows = self._database.read(
            "SELECT number, sealed FROM recordings WHERE tenant=? AND number>? AND time>=? ORDER BY number LIMIT ?",
            (tenant, after, start, limit),
        )
        return [(row[0], self._sealer.open(row[1], tenant, _RECORDING, str(row[0]), row[0])) for row in rows]

    def newest(self, tenant: str) -> int:
        """The last number; 0 for none."""
        rows = self._database.read("SELECT max(number) FROM recordings WHERE tenant=?", (tenant,))
        return int(rows[0][0] or 0)

    def forget(self, tenant: str) -> int:
        """Drop all of them; how many there were."""
        with self._database.write() as transaction:
            return transaction.execute("DELETE FROM recordings WHERE tenant=?", (tenant,)).rowcount
