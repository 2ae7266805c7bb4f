"""Policies by tenant, kind and id: what is in force, every version that was set, and what was activated when.

Setting a policy makes a version, which never changes; activating one makes it decide. Texts are sealed, what is in force
as that and a version as a version, so that a text changed or moved on the disk does not open. Deletion takes a policy out
of force and leaves its versions.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime

import msgspec

from adyton.errors import Conflict, NotFound, Unavailable
from adyton.stores import quotas, tenants
from adyton.stores.policy_types import (
    Activation,
    PolicyKind,
    PolicyVersion,
    StoredPolicy,
    digest,
    no_version,
    nothing_before,
)
from adyton.stores.seal import Sealer
from adyton.stores.sql import Database, Row, Transaction

MAX_NAMES = 20_000
MAX_VERSIONS = 100
MAX_ACTIVATIONS = 1000
_STACK = "SELECT number, version, below FROM policy_activations WHERE tenant=? AND kind=? AND name=?"


class _Sealed(msgspec.Struct, array_like=True, frozen=True):
    text: str
    actor: str
    note: str


_ENCODE = msgspec.msgpack.encode
_DECODER = msgspec.msgpack.Decoder(_Sealed)


class Policies:
    """The tables of policies. They store what they are given: whether a text is acceptable is the broker's business."""

    def __init__(self, database: Database, sealer: Sealer) -> None:
        self._database = database
        self._sealer = sealer

    def set(
        self,
        tenant: str,
        kind: PolicyKind,
        policy_id: str,
        text: str,
        now: datetime,
        *,
        actor: str = "",
        note: str = "",
        activate: bool = True,
    ) -> StoredPolicy:
        """Keep a new version and put it into force, durable on return; not ``activate``: a candidate, which decides nothing.

        ``Conflict`` if the tenant has too many policies, or this one too many versions that must be kept.
        """
        tenants.check(tenant)
        with self._database.write() as transaction:
            return self.put(transaction, tenant, kind, policy_id, text, now, actor=actor, note=note, activate=activate)

    def put(  # noqa: PLR0917 -- as set, and where
        self,
        transaction: Transaction,
        tenant: str,
        kind: PolicyKind,
        policy_id: str,
        text: str,
        now: datetime,
        *,
        actor: str = "",
        note: str = "",
        activate: bool = True,
    ) -> StoredPolicy:
        """As ``set``, inside a transaction."""
        tenants.touch(transaction, tenant)
        newest, top = self._head(transaction, tenant, kind, policy_id)
        self._make_room(transaction, tenant, kind, policy_id, known=bool(newest))
        version = newest + 1
        body = _ENCODE(_Sealed(text, actor, note))
        sealed = self._sealer.seal_for(transaction, body, tenant, f"policy version {kind}", policy_id, version)
        transaction.execute(
            "INSERT INTO policy_versions VALUES (?,?,?,?,?,0,1,?)",
            (tenant, kind, policy_id, version, now.timestamp(), sealed),
        )
        transaction.execute(
            "INSERT INTO policy_heads VALUES (?,?,?,?,?) ON CONFLICT (tenant, kind, name)"
            " DO UPDATE SET newest = excluded.newest",
            (tenant, kind, policy_id, version, top),
        )
        if activate:
            self._activate(transaction, tenant, kind, policy_id, version, text, now, actor, "activate", top)
        else:
            quotas.check(transaction, self._sealer, tenant, "policies")
        return StoredPolicy(kind, policy_id, text, digest(text), version, now)

    def activate(
        self, tenant: str, kind: PolicyKind, policy_id: str, version: int, now: datetime, *, actor: str = ""
    ) -> StoredPolicy:
        """Put a version into force, durable on return: no decision follows another one from then on. ``NotFound``.

        One that is in force already stays so, and nothing is written down.
        """
        with self._database.write() as transaction:
            tenants.touch(transaction, tenants.check(tenant))
            found = self._version(transaction, tenant, kind, policy_id, version)
            row = transaction.execute(
                "SELECT version FROM policies WHERE tenant=? AND kind=? AND name=?", (tenant, kind, policy_id)
            ).fetchone()
            if row is None or row[0] != version:
                _, top = self._head(transaction, tenant, kind, policy_id)
                self._activate(transaction, tenant, kind, policy_id, version, found.text, now, actor, "activate", top)
        return StoredPolicy(kind, policy_id, found.text, found.digest, version, now)

    def before(self, tenant: str, kind: PolicyKind, policy_id: str) -> int:
        """The version that a rollback would put into force; ``NotFound`` if none was in force before."""
        rows = self._database.read(
            "SELECT top FROM policy_heads WHERE tenant=? AND kind=? AND name=?",
            (tenant, kind, policy_id),
        )
        stack = self._database.read(_STACK, (tenant, kind, policy_id))
        return _under(stack, rows[0][0] if rows else 0, kind, policy_id)[0]

    def rollback(
        self,
        tenant: str,
        kind: PolicyKind,
        policy_id: str,
        now: datetime,
        *,
        actor: str = "",
        expected: int | None = None,
    ) -> StoredPolicy:
        """Put the version into force that was before the present one; a second rollback goes one further back.

        A deletion is undone likewise. ``expected``: refuse with ``NotFound`` if it would be another version.
        """
        with self._database.write() as transaction:
            tenants.touch(transaction, tenants.check(tenant))
            _, top = self._head(transaction, tenant, kind, policy_id)
            rows = transaction.execute(_STACK, (tenant, kind, policy_id)).fetchall()
            version, below = _under(rows, top, kind, policy_id)
            if expected not in {None, version}:
                raise nothing_before(kind, policy_id)
            found = self._version(transaction, tenant, kind, policy_id, version)
            self._activate(transaction, tenant, kind, policy_id, version, found.text, now, actor, "rollback", below)
        return StoredPolicy(kind, policy_id, found.text, found.digest, version, now)

    def delete(
        self, tenant: str, kind: PolicyKind, policy_id: str, now: datetime | None = None, *, actor: str = ""
    ) -> None:
        """Take it out of force, durable on return; ``NotFound`` if it is not in force. Its versions stay."""
        with self._database.write() as transaction:
            done = transaction.execute(
                "DELETE FROM policies WHERE tenant=? AND kind=? AND name=?", (tenant, kind, policy_id)
            )
            if not done.rowcount:
                raise NotFound(f"there is no {kind} policy {policy_id!r}", code="policy_absent", field="policy_id")
            tenants.touch(transaction, tenant, policies=True)
            _, top = self._head(transaction, tenant, kind, policy_id)
            at = now.timestamp() if now is not None else 0.0
            self._push(transaction, tenant, kind, policy_id, (top + 1, 0, top, at, actor, "delete"))

    def get(self, tenant: str, kind: PolicyKind, policy_id: str) -> StoredPolicy | None:
        """The policy in force, or ``None``: then a built-in one may apply."""
        rows = self._database.read(
            "SELECT name, version, updated, sealed FROM policies WHERE tenant=? AND kind=? AND name=?",
            (tenant, kind, policy_id),
        )
        return self._open(tenant, kind, rows[0]) if rows else None

    def list(self, tenant: str, kind: PolicyKind) -> Sequence[StoredPolicy]:
        """All of a tenant's policies of one kind that are in force, by id."""
        return [
            self._open(tenant, kind, row)
            for row in self._database.read(
                "SELECT name, version, updated, sealed FROM policies WHERE tenant=? AND kind=? ORDER BY name",
                (tenant, kind),
            )
        ]

    def ids(self, tenant: str, kind: PolicyKind) -> Sequence[tuple[str, int, int]]:
        """Every id that was ever set: with its newest version and the one in force, 0 for none."""
        return [
            (name, newest, active or 0)
            for name, newest, active in self._database.read(
                "SELECT h.name, h.newest, p.version FROM policy_heads h LEFT JOIN policies p"
                " ON p.tenant = h.tenant AND p.kind = h.kind AND p.name = h.name"
                " WHERE h.tenant=? AND h.kind=? ORDER BY h.name",
                (tenant, kind),
            )
        ]

    def version(self, tenant: str, kind: PolicyKind, policy_id: str, version: int) -> PolicyVersion:
        """One version's text and what is known about it; ``NotFound``."""
        rows = self._database.read(
            "SELECT name, version, created, pinned, form, sealed FROM policy_versions"
            " WHERE tenant=? AND kind=? AND name=? AND version=?",
            (tenant, kind, policy_id, version),
        )
        if not rows:
            raise no_version(kind, policy_id, version)
        return self._open_version(tenant, kind, rows[0])

    def versions(self, tenant: str, kind: PolicyKind, policy_id: str) -> Sequence[PolicyVersion]:
        """All versions that are kept, the newest first."""
        rows = self._database.read(
            "SELECT name, version, created, pinned, form, sealed FROM policy_versions"
            " WHERE tenant=? AND kind=? AND name=? ORDER BY version DESC",
            (tenant, kind, policy_id),
        )
        return [self._open_version(tenant, kind, row) for row in rows]

    def activations(self, tenant: str, kind: PolicyKind, policy_id: str) -> Sequence[Activation]:
        """What was put into force and taken out of it, the newest first."""
        rows = self._database.read(
            "SELECT number, version, time, actor, action FROM policy_activations"
            " WHERE tenant=? AND kind=? AND name=? ORDER BY number DESC",
            (tenant, kind, policy_id),
        )
        return [Activation(row[0], row[1], datetime.fromtimestamp(row[2], UTC), row[3], row[4]) for row in rows]

    def pin(self, tenant: str, kind: PolicyKind, policy_id: str, version: int) -> None:
        """Keep this version for as long as the store lives, because something names it; ``NotFound``.

        Durable on return, whatever becomes of what names it: that may take long, and be made elsewhere first.
        """
        with self._database.write(apart=True) as transaction:
            done = transaction.execute(
                "UPDATE policy_versions SET pinned=1 WHERE tenant=? AND kind=? AND name=? AND version=?",
                (tenant, kind, policy_id, version),
            )
            if not done.rowcount:
                raise no_version(kind, policy_id, version)

    def _activate(  # noqa: PLR0917 -- one value each
        self,
        transaction: Transaction,
        tenant: str,
        kind: PolicyKind,
        policy_id: str,
        version: int,
        text: str,
        now: datetime,
        actor: str,
        action: str,
        below: int,
    ) -> None:
        tenants.touch(transaction, tenant, policies=True)
        sealed = self._sealer.seal_for(transaction, text.encode(), tenant, f"policy {kind}", policy_id, version)
        transaction.execute(
            "INSERT INTO policies VALUES (?,?,?,?,?,?) ON CONFLICT (tenant, kind, name) DO UPDATE SET"
            " version = excluded.version, updated = excluded.updated, sealed = excluded.sealed",
            (tenant, kind, policy_id, version, now.timestamp(), sealed),
        )
        quotas.check(transaction, self._sealer, tenant, "policies")
        _, top = self._head(transaction, tenant, kind, policy_id)
        self._push(transaction, tenant, kind, policy_id, (top + 1, version, below, now.timestamp(), actor, action))

    @staticmethod
    def _push(
        transaction: Transaction,
        tenant: str,
        kind: PolicyKind,
        policy_id: str,
        row: tuple[int, int, int, float, str, str],
    ) -> None:
        name = (tenant, kind, policy_id)
        transaction.execute("INSERT INTO policy_activations VALUES (?,?,?,?,?,?,?,?,?)", (*name, *row))
        transaction.execute("UPDATE policy_heads SET top=? WHERE tenant=? AND kind=? AND name=?", (row[0], *name))
        transaction.execute(
            "DELETE FROM policy_activations WHERE tenant=? AND kind=? AND name=? AND number<=?",
            (*name, row[0] - MAX_ACTIVATIONS),
        )

    @staticmethod
    def _head(transaction: Transaction, tenant: str, kind: PolicyKind, policy_id: str) -> tuple[int, int]:
        row = transaction.execute(
            "SELECT newest, top FROM policy_heads WHERE tenant=? AND kind=? AND name=?",
            (tenant, kind, policy_id),
        ).fetchone()
        return (int(row[0]), int(row[1])) if row else (0, 0)

    def _make_room(
        self, transaction: Transaction, tenant: str, kind: PolicyKind, policy_id: str, *, known: bool
    ) -> None:
        """Forget the oldest version that nothing needs once there are too many."""
        name = (tenant, kind, policy_id)
        if not known:
            (count,) = transaction.execute("SELECT count(*) FROM policy_heads WHERE tenant=?", (tenant,)).fetchone()
            if count >= MAX_NAMES:
                raise Conflict(
                    "this tenant has as many policies as one may have",
                    code="policies_full",
                    expected=MAX_NAMES,
                    hint="set new versions of existing ones; deleted ones count, because their history is kept",
                )
            return
        rows = transaction.execute(
            "SELECT version, pinned FROM policy_versions WHERE tenant=? AND kind=? AND name=? ORDER BY version",
            name,
        ).fetchall()
        if len(rows) < MAX_VERSIONS:
            return
        needed = {number for (number,) in transaction.execute(
            "SELECT version FROM policies WHERE tenant=? AND kind=? AND name=?"
            " UNION SELECT version FROM policy_dry_runs WHERE tenant=? AND kind=? AND name=?",
            (*name, *name),
        ).fetchall()}  # fmt: skip
        _, top = self._head(transaction, *name)
        stack = transaction.execute(_STACK, name).fetchall()
        with suppress(NotFound):
            needed.add(_under(stack, top, kind, policy_id)[0])
        for version, pinned in rows:
            if not pinned and version not in needed:
                transaction.execute(
                    "DELETE FROM policy_versions WHERE tenant=? AND kind=? AND name=? AND version=?",
                    (*name, version),
                )
                return
        raise Conflict(
            "this policy has as many versions as one may have, and resources name all of them",
            code="policy_versions_full",
            field="policy_id",
            expected=MAX_VERSIONS,
            hint="set it under another id, and bind resources to that",
        )

    def _version(
        self, transaction: Transaction, tenant: str, kind: PolicyKind, policy_id: str, version: int
    ) -> PolicyVersion:
        row = transaction.execute(
            "SELECT name, version, created, pinned, form, sealed FROM policy_versions"
            " WHERE tenant=? AND kind=? AND name=? AND version=?",
            (tenant, kind, policy_id, version),
        ).fetchone()
        if row is None:
            raise no_version(kind, policy_id, version)
        return self._open_version(tenant, kind, row)

    def _open(self, tenant: str, kind: PolicyKind, row: Row) -> StoredPolicy:
        policy_id, version, updated, sealed = row
        text = self._sealer.open(sealed, tenant, f"policy {kind}", policy_id, version).decode()
        return StoredPolicy(kind, policy_id, text, digest(text), version, datetime.fromtimestamp(updated, UTC))

    def _open_version(self, tenant: str, kind: PolicyKind, row: Row) -> PolicyVersion:
        policy_id, version, created, pinned, form, sealed = row
        if form == 0:  # from a store that knew no versions
            text = self._sealer.open(sealed, tenant, f"policy {kind}", policy_id, version).decode()
            known = _Sealed(text, "", "")
        else:
            opened = self._sealer.open(sealed, tenant, f"policy version {kind}", policy_id, version)
            try:
                known = _DECODER.decode(opened)
            except msgspec.DecodeError as error:
                raise Unavailable(
                    "a stored policy version was written by another version of Adyton",
                    code="stored_value_foreign",
                    hint="run the version that wrote it",
                ) from error
        at = datetime.fromtimestamp(created, UTC)
        return PolicyVersion(
            kind, policy_id, known.text, digest(known.text), version, at, known.actor, known.note, bool(pinned)
        )


def _under(rows: list[Row], top: int, kind: str, policy_id: str) -> tuple[int, int]:
    """Version and ``below`` of the last activation under ``top`` that was no deletion; ``NotFound``."""
    stack = {number: (version, below) for number, version, below in rows}
    number = stack.get(top, (0, 0))[1]
    while number in stack:
        version, below = stack[number]
        if version:
            return version, below
        number = below
    raise nothing_before(kind, policy_id)
