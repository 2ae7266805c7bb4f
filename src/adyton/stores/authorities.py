"""The tenants' certification authorities: their roots, one after the other, what each has issued, and its list of revoked.

A root is ``prepared`` (it can be shown, and trusted, before it issues), ``active`` (it issues; one of a tenant), or
``retired`` (it issues nothing more and goes on publishing its list). A root's key is sealed; certificates that were issued
and lists are public anyway. A certificate's row is written with the key version that it is of.

A list is signed when it is asked for: if something was revoked since, or when it has had a part of its time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from adyton.errors import Conflict, NotFound, Unavailable
from adyton.stores import tenants
from adyton.stores.seal import Sealer
from adyton.stores.sql import Database, Transaction

STATEMENTS = (
    """CREATE TABLE authorities (
    tenant TEXT NOT NULL,
    number INTEGER NOT NULL,
    state TEXT NOT NULL,
    certificate BLOB NOT NULL,
    sealed BLOB NOT NULL,
    changes INTEGER NOT NULL,
    list_number INTEGER NOT NULL,
    list_changes INTEGER NOT NULL,
    list_time REAL NOT NULL,
    list BLOB NOT NULL,
    PRIMARY KEY (tenant, number)
) WITHOUT ROWID, STRICT""",
    # revoked is 0 of one that is not.
    """CREATE TABLE certificates (
    tenant TEXT NOT NULL,
    serial TEXT NOT NULL,
    authority INTEGER NOT NULL,
    path TEXT NOT NULL,
    version INTEGER NOT NULL,
    expires REAL NOT NULL,
    revoked REAL NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (tenant, serial)
) WITHOUT ROWID, STRICT""",
)
MAX_AUTHORITIES = 100
REFRESH = 86_400.0
"""Seconds after which a list is signed anew although nothing changed."""
SIGNINGS = 5
"""How often a list is signed for one request, where others publish theirs meanwhile."""
KEPT = 30 * 86_400.0
"""Seconds that a certificate stays on the list after it has expired (RFC 5280 3.3: at least one list longer)."""
_KIND = "authority"
_COLUMNS = "serial, authority, path, version, expires, revoked, reason"


@dataclass(frozen=True, slots=True)
class Root:
    """A root as everybody may know it: its certificate (DER)."""

    number: int
    state: str
    certificate: bytes


@dataclass(frozen=True, slots=True)
class StoredAuthority(Root):
    """A root with its key (PKCS#8 DER)."""

    key: bytes = field(repr=False)


class Issued(msgspec.Struct, frozen=True):
    """A certificate that a root has issued. ``serial`` in lower-case hex, times in Unix seconds; ``revoked`` 0: it is not."""

    serial: str
    authority: int
    path: str
    version: int
    expires: float
    revoked: float = 0.0
    reason: str = ""


Make = Callable[[int], tuple[bytes, bytes]]
"""Of a root's number: its key and certificate."""
Sign = Callable[[StoredAuthority, int, Sequence[Issued]], bytes]
"""Of a root, a list's number and what is on it: the list (DER)."""


class Authorities:
    """The tables. Nothing here reads across tenants. Every change is durable on return."""

    def __init__(self, database: Database, sealer: Sealer) -> None:
        self._database = database
        self._sealer = sealer

    def all(self, tenant: str) -> list[Root]:
        """All roots, the oldest first."""
        rows = self._database.read(
            "SELECT number, state, certificate FROM authorities WHERE tenant=? ORDER BY number", (tenant,)
        )
        return [Root(number, state, bytes(certificate)) for number, state, certificate in rows]

    def active(self, tenant: str) -> StoredAuthority | None:
        """The one that issues."""
        rows = self._database.read(
            "SELECT number, state, certificate, sealed FROM authorities WHERE tenant=? AND state='active'", (tenant,)
        )
        return self._opened(tenant, *rows[0]) if rows else None

    def active_or_made(self, tenant: str, make: Make) -> StoredAuthority:
        """The one that issues, made by ``make`` if there is none; of several that ask at once, all get the same."""
        found = self.active(tenant)
        if found is None:
            made = make(1)
            with self._database.write(apart=True) as transaction:
                tenants.must_exist(transaction, tenant)
                if transaction.execute("SELECT 1 FROM authorities WHERE tenant=?", (tenant,)).fetchone() is None:
                    self._insert(transaction, tenant, 1, "active", *made)
            found = self.active(tenant)
        if found is None:
            raise Unavailable("the tenant's authority cannot be read", code="authority_unreadable")
        return found

    def prepare(self, tenant: str, make: Make) -> Root:
        """The next root, which issues nothing yet; ``Conflict`` if there is one already."""
        before = self.all(tenant)
        if not before:
            raise absent()
        if before[-1].state == "prepared":
            raise Conflict("the next root is prepared already", code="authority_prepared", got=before[-1].number)
        if len(before) >= MAX_AUTHORITIES:
            raise Conflict("the tenant has too many authorities", code="authorities_full", expected=MAX_AUTHORITIES)
        number = before[-1].number + 1
        made = make(number)
        with self._database.write() as transaction:
            tenants.must_exist(transaction, tenant)
            row = transaction.execute("SELECT max(number) FROM authorities WHERE tenant=?", (tenant,)).fetchone()
            if row[0] != number - 1:
                raise _changed()
            self._insert(transaction, tenant, number, "prepared", *made)
        return Root(number, "prepared", made[1])

    def activate(self, tenant: str, number: int) -> None:
        """Let a prepared root issue from now on; the one that did is retired."""
        with self._database.write() as transaction:
            tenants.must_exist(transaction, tenant)
            transaction.execute("UPDATE authorities SET state='retired' WHERE tenant=? AND state='active'", (tenant,))
            done = transaction.execute(
                "UPDATE authorities SET state='active' WHERE tenant=? AND number=? AND state='prepared'",
                (tenant, number),
            )
            if done.rowcount != 1:
                raise _changed()

    def certificates(self, tenant: str, after: str, limit: int) -> list[Issued]:
        """What was issued, by serial number, those after ``after``."""
        rows = self._database.read(
            f"SELECT {_COLUMNS} FROM certificates WHERE tenant=? AND serial>? ORDER BY serial LIMIT ?",  # noqa: S608 -- a constant
            (tenant, after, limit),
        )
        return [Issued(*row) for row in rows]

    def of_key(self, tenant: str, path: str, version: int | None) -> list[Issued]:
        """What was issued for a key, or for one version of it, whether that is there or not."""
        one, given = (" AND version=?", (tenant, path, version)) if version is not None else ("", (tenant, path))
        rows = self._database.read(
            f"SELECT {_COLUMNS} FROM certificates WHERE tenant=? AND path=?{one} ORDER BY serial",  # noqa: S608 -- constants
            given,
        )
        return [Issued(*row) for row in rows]

    def revoke(self, tenant: str, serials: Sequence[str], reason: str, now: float) -> list[Issued]:
        """Revoke all of them or none; ``NotFound`` names one that was not issued. One that is revoked already stays as it is."""
        found: list[Issued] = []
        with self._database.write() as transaction:
            tenants.must_exist(transaction, tenant)
            for serial in serials:
                row = transaction.execute(
                    f"SELECT {_COLUMNS} FROM certificates WHERE tenant=? AND serial=?",  # noqa: S608 -- a constant
                    (tenant, serial),
                ).fetchone()
                if row is None:
                    raise NotFound(
                        "no such certificate was issued", code="certificate_absent", field="serial", got=serial[:80]
                    )
                one = Issued(*row)
                if not one.revoked:
                    one = msgspec.structs.replace(one, revoked=now, reason=reason)
                    transaction.execute(
                        "UPDATE certificates SET revoked=?, reason=? WHERE tenant=? AND serial=?",
                        (now, reason, tenant, serial),
                    )
                    transaction.execute(
                        "UPDATE authorities SET changes=changes+1 WHERE tenant=? AND number=?", (tenant, one.authority)
                    )
                found.append(one)
        return found

    def forget_expired(self, now: float, *, steady: bool) -> int:
        """Forget some of what expired so long ago that no list names it; how many. What they were for is in the record.

        ``steady``: by a clock that is known to be right, else none: what is forgotten is not revoked any more.
        """
        if not steady:
            return 0
        rows = self._database.read("SELECT tenant, serial FROM certificates WHERE expires<=? LIMIT 1000", (now - KEPT,))
        if rows:
            with self._database.write(apart=True) as transaction:
                transaction.executemany("DELETE FROM certificates WHERE tenant=? AND serial=?", rows)
        return len(rows)

    def current_list(self, tenant: str, number: int, now: float) -> bytes | None:
        """The root's list if it says all and is young; an empty one if it is to be signed; ``None`` if there is no such root."""
        rows = self._database.read(
            "SELECT changes, list_changes, list_time, list FROM authorities WHERE tenant=? AND number=?",
            (tenant, number),
        )
        if not rows:
            return None
        changes, list_changes, made, found = rows[0]
        return bytes(found) if _fresh(changes, list_changes, made, now) else b""

    def list_state(self, tenant: str, number: int, now: float) -> int | None:
        """The number of the root's list, if that says all and is young; 0 if it is to be signed; ``None``: no such root."""
        rows = self._database.read(
            "SELECT changes, list_changes, list_time, list_number FROM authorities WHERE tenant=? AND number=?",
            (tenant, number),
        )
        if not rows:
            return None
        changes, list_changes, made, last = rows[0]
        return int(last) if _fresh(changes, list_changes, made, now) else 0

    def signed_list(self, tenant: str, number: int, now: float, sign: Sign) -> bytes:
        """The root's list, signed anew if that is due; ``NotFound``, or ``Unavailable`` if others sign all the time.

        Its number grows each time: with the clock at least, so a store that was restored goes on above what was published.
        Nothing is locked while it is signed: it may be long, anybody may ask for it, and decisions wait for who writes.
        """
        for _ in range(SIGNINGS):
            rows = self._database.read(
                "SELECT changes, list_changes, list_time, list, list_number, state, certificate, sealed"
                " FROM authorities WHERE tenant=? AND number=?",
                (tenant, number),
            )
            if not rows:
                raise absent()
            changes, list_changes, made_at, found, last, *root = rows[0]
            if _fresh(changes, list_changes, made_at, now):
                return bytes(found)
            # Read after the count of changes: what is revoked since is on it, or the list is not the newest and is signed anew.
            revoked = self._database.read(
                f"SELECT {_COLUMNS} FROM certificates WHERE tenant=? AND authority=? AND revoked>0 AND expires>?"  # noqa: S608 -- a constant
                " ORDER BY serial",
                (tenant, number, now - KEPT),
            )
            following = max(last + 1, int(now))
            made = sign(self._opened(tenant, number, *root), following, [Issued(*one) for one in revoked])
            with self._database.write(apart=True) as transaction:
                tenants.must_exist(transaction, tenant)
                done = transaction.execute(
                    "UPDATE authorities SET list=?, list_number=?, list_changes=?, list_time=?"
                    " WHERE tenant=? AND number=? AND list_number=?",
                    (made, following, changes, now, tenant, number, last),
                )
                kept = done.rowcount == 1  # else somebody else was quicker: no two lists have one number
            if kept:
                return made
        raise Unavailable(
            "the list is being signed by others", code="authority_busy", field="crl", hint="try again in a moment"
        )

    def _insert(  # noqa: PLR0917 -- one value each
        self, transaction: Transaction, tenant: str, number: int, state: str, key: bytes, certificate: bytes
    ) -> None:
        sealed = self._sealer.seal_for(transaction, key, tenant, _KIND, str(number), 1)
        transaction.execute(
            "INSERT INTO authorities VALUES (?,?,?,?,?,1,0,0,0,?)", (tenant, number, state, certificate, sealed, b"")
        )

    def _opened(self, tenant: str, number: int, state: str, certificate: bytes, sealed: bytes) -> StoredAuthority:
        key = self._sealer.open(sealed, tenant, _KIND, str(number), 1)
        return StoredAuthority(number, state, bytes(certificate), key)


def note(transaction: Transaction, tenant: str, issued: Issued) -> None:
    """A certificate was issued, in the transaction that keeps what it is of."""
    transaction.execute(
        f"INSERT INTO certificates (tenant, {_COLUMNS}) VALUES (?,?,?,?,?,?,0,'')",  # noqa: S608 -- a constant
        (tenant, issued.serial, issued.authority, issued.path, issued.version, issued.expires),
    )


def absent() -> NotFound:
    """The error where there is no authority."""
    return NotFound(
        "this tenant has no such certification authority",
        code="authority_absent",
        hint="it is made with the first certificate: adyton key generate URI --kind p-256 --name NAME",
    )


def _changed() -> Conflict:
    return Conflict("the tenant's authorities changed meanwhile", code="authority_changed", hint="look, and try again")


def _fresh(changes: int, list_changes: int, list_time: float, now: float) -> bool:
    return list_changes == changes and list_time <= now < list_time + REFRESH
