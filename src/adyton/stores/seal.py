"""Values at rest: AES-256-GCM under data keys of this store, which are wrapped by a root key that lies elsewhere.

A sealed value opens only as what it was sealed as: tenant, kind, name, version and store are authenticated with it, so
a row that was moved to another name, tenant or store does not open. Format::

    form (1 byte) ‖ data key id (4, big-endian) ‖ nonce (12, random) ‖ ciphertext ‖ tag (16)

Form 1 is under a data key of the store, which is for what is the broker's own. Form 2 is under a data key of the tenant's
own: when the tenant is deleted its wrapped keys are, and from then on the root key and the store together open nothing
that was its. Of tenants, form 1 is only what was set before they had keys; it moves when it is set again.

Nonces are random: one data key seals at most 2^32 values (NIST SP 800-38D section 8.3); ``rotate`` makes a new one.
What this cannot see is an attacker who may write the file and puts back an older state of a row, or of all of it.
"""

from __future__ import annotations

import hmac
import os
import struct
import threading
from datetime import datetime
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from adyton.errors import ConfigError, Unavailable
from adyton.stores.custody.slots import root_id
from adyton.stores.sql import Database, Transaction

_HEADER = struct.Struct(">BI12s")
_SHARED, _OWN = 1, 2
MAX_KEYS = 1000
MAX_REMEMBERED = 4096  # tenants' keys in memory
STATEMENTS = (
    # Data keys of single tenants, wrapped under the root key. The newest seals; all of them open.
    """CREATE TABLE tenant_keys (
    tenant TEXT NOT NULL,
    id INTEGER NOT NULL,
    wrapped BLOB NOT NULL,
    PRIMARY KEY (tenant, id)
) WITHOUT ROWID, STRICT""",
)


class Sealer:
    """Seals and opens this store's values. Data keys are unwrapped once and kept in memory, of tenants so many."""

    def __init__(self, database: Database, root_key: bytes, now: datetime) -> None:
        if len(root_key) != 32:
            raise ConfigError(
                "the root key must have 32 bytes",
                code="root_key_invalid",
                expected=32,
                got=len(root_key),
                hint="the file that holds it must contain exactly the key, nothing else",
            )
        self._database = database
        self._root = AESGCM(root_key)
        self._root_id = root_id(root_key)
        with database.write() as transaction:
            self._store = store_id(transaction)
            self._check_root(transaction)
            rows = transaction.execute("SELECT id, wrapped FROM data_keys ORDER BY id").fetchall()
            self._keys = {number: AESGCM(self._unwrap(number, wrapped)) for number, wrapped in rows}
            if not self._keys:
                number, key, wrapped = self._new_key(1)
                transaction.execute("INSERT INTO data_keys VALUES (?,?,?)", (number, wrapped, now.timestamp()))
                self._keys = {number: AESGCM(key)}
            transaction.execute(
                "INSERT INTO meta VALUES ('root', ?) ON CONFLICT (name) DO NOTHING", (self._root_id,)
            )  # only now is it known to be the right one
        self._current = max(self._keys)
        self._owned: dict[tuple[str, int], tuple[bytes, AESGCM]] = {}
        self._owning = threading.Lock()

    def rotate(self, now: datetime) -> int:
        """Seal what comes from now on under a new data key; returns its id. Old values stay readable."""
        with self._database.write() as transaction:
            self._check_root(transaction)
            (last,) = transaction.execute("SELECT max(id) FROM data_keys").fetchone()
            if last >= MAX_KEYS:
                raise Unavailable("the store has too many data keys", code="too_many_data_keys")
            number, key, wrapped = self._new_key(last + 1)
            transaction.execute("INSERT INTO data_keys VALUES (?,?,?)", (number, wrapped, now.timestamp()))
        self._keys[number] = AESGCM(key)
        self._current = number
        return number

    def seal(self, value: bytes, tenant: str, kind: str, name: str, version: int) -> bytes:
        """``value`` sealed as exactly this thing, which is the broker's own: an organisation's, or what outlasts a tenant."""
        nonce = os.urandom(12)
        header = _HEADER.pack(_SHARED, self._current, nonce)
        return header + self._keys[self._current].encrypt(nonce, value, self._context(tenant, kind, name, version))

    def seal_for(  # noqa: PLR0917 -- as seal, and where
        self, transaction: Transaction, value: bytes, tenant: str, kind: str, name: str, version: int
    ) -> bytes:
        """``value`` sealed under the newest data key of ``tenant``, which is made inside ``transaction`` if it has none.

        Whoever writes a row for the tenant has seen in that transaction that it exists (``tenants.touch``). An empty
        tenant is the broker.
        """
        if not tenant:
            return self.seal(value, tenant, kind, name, version)
        number, key = self._newest(transaction, tenant)
        nonce = os.urandom(12)
        header = _HEADER.pack(_OWN, number, nonce)
        return header + key.encrypt(nonce, value, self._context(tenant, kind, name, version))

    def open(self, sealed: bytes, tenant: str, kind: str, name: str, version: int) -> bytes:
        """What was sealed as this thing; ``Unavailable`` ``sealed_value_broken`` for anything else."""
        try:
            form, number, nonce = _HEADER.unpack_from(sealed)
            context, rest = self._context(tenant, kind, name, version), sealed[_HEADER.size :]
            if form == _OWN:
                return self._open_owned(tenant, number, nonce, rest, context)
            key = self._keys.get(number) or self._load(number)
            if form == _SHARED and key is not None:
                return key.decrypt(nonce, rest, context)
        except (InvalidTag, struct.error, ValueError):
            pass
        raise Unavailable(
            f"a stored {kind} does not open as what its row says it is",
            code="sealed_value_broken",
            field=f"{kind} {name}",
            hint="the store was damaged or changed behind the broker's back: restore the last backup, or set it again",
        )

    def forget(self, tenant: str) -> None:
        """Drop a tenant's keys from memory: it was deleted."""
        with self._owning:
            for known in [known for known in self._owned if known[0] == tenant]:
                del self._owned[known]

    def forget_deleted(self) -> None:
        """Drop from memory the keys of tenants that another process has deleted."""
        with self._owning:
            held = {tenant for tenant, _ in self._owned}
        if held:
            for (tenant,) in self._database.read("SELECT tenant FROM tenant_settings WHERE gone=1"):
                if tenant in held:
                    self.forget(tenant)

    def _newest(self, transaction: Transaction, tenant: str) -> tuple[int, AESGCM]:
        """The key that seals for a tenant now. What is remembered is compared: it may never have been committed."""
        row = transaction.execute(
            "SELECT id, wrapped FROM tenant_keys WHERE tenant=? ORDER BY id DESC LIMIT 1", (tenant,)
        ).fetchone()
        if row is None:
            self._check_root(transaction)
            row = (1, wrap(self._root, self._store, 1, AESGCM.generate_key(256), tenant))
            transaction.execute("INSERT INTO tenant_keys VALUES (?,?,?)", (tenant, *row))
        number, wrapped = int(row[0]), bytes(row[1])
        known = self._owned.get((tenant, number))
        if known is not None and hmac.compare_digest(known[0], wrapped):
            return number, known[1]
        try:
            return number, self._remember(tenant, number, wrapped)
        except (InvalidTag, ValueError) as error:
            self._check_root(transaction)
            raise Unavailable(
                "a tenant's data key does not open",
                code="sealed_value_broken",
                field=f"data key {number} of {tenant}",
                hint="the store was damaged or changed behind the broker's back: restore the last backup",
            ) from error

    def _open_owned(self, tenant: str, number: int, nonce: bytes, rest: bytes, context: bytes) -> bytes:
        known = self._owned.get((tenant, number))
        if known is not None:
            try:
                return known[1].decrypt(nonce, rest, context)
            except InvalidTag:  # or the key that is remembered was made in a transaction that came to nothing
                pass
        rows = self._database.read("SELECT wrapped FROM tenant_keys WHERE tenant=? AND id=?", (tenant, number))
        if not rows:
            raise InvalidTag
        return self._remember(tenant, number, bytes(rows[0][0])).decrypt(nonce, rest, context)

    def _remember(self, tenant: str, number: int, wrapped: bytes) -> AESGCM:
        key = AESGCM(unwrap(self._root, self._store, number, wrapped, tenant))
        with self._owning:
            while len(self._owned) >= MAX_REMEMBERED:
                del self._owned[next(iter(self._owned))]  # the one that was taken up first
            self._owned[tenant, number] = (wrapped, key)
        return key

    def _load(self, number: int) -> AESGCM | None:
        rows = self._database.read("SELECT wrapped FROM data_keys WHERE id=?", (number,))  # made by another worker
        if not rows:
            return None
        self._keys[number] = AESGCM(self._unwrap(number, rows[0][0]))
        return self._keys[number]

    def _check_root(self, transaction: Transaction) -> None:
        """Nothing is wrapped under a root key that has been replaced, however long this process has had it."""
        found = transaction.execute("SELECT value FROM meta WHERE name='root'").fetchone()
        if found is not None and not hmac.compare_digest(bytes(found[0]), self._root_id):
            raise wrong_root(self._database.where)

    def _new_key(self, number: int) -> tuple[int, bytes, bytes]:
        key = AESGCM.generate_key(256)
        return number, key, wrap(self._root, self._store, number, key)

    def _unwrap(self, number: int, wrapped: bytes) -> bytes:
        try:
            return unwrap(self._root, self._store, number, wrapped)
        except (InvalidTag, ValueError) as error:
            raise wrong_root(self._database.where) from error

    def _context(self, tenant: str, kind: str, name: str, version: int) -> bytes:
        return _bound(self._store, tenant, kind, name, version)


def store_id(transaction: Transaction) -> bytes:
    """The store's own 16 bytes, made with its first use: what is sealed or kept for it is bound to them."""
    found = transaction.execute("SELECT value FROM meta WHERE name='store'").fetchone()
    if found:
        return bytes(found[0])
    made = os.urandom(16)
    transaction.execute("INSERT INTO meta VALUES ('store', ?)", (made,))
    return made


def wrap(root: AESGCM, store: bytes, number: int, key: bytes, tenant: str = "") -> bytes:
    """A data key of the store, or of a tenant, under the root key: nonce (12) ‖ ciphertext ‖ tag (16)."""
    nonce = os.urandom(12)
    return nonce + root.encrypt(nonce, key, _bound(store, tenant, "data key", str(number), number))


def unwrap(root: AESGCM, store: bytes, number: int, wrapped: bytes, tenant: str = "") -> bytes:
    """The data key; ``InvalidTag`` or ``ValueError`` under another root key."""
    return root.decrypt(wrapped[:12], wrapped[12:], _bound(store, tenant, "data key", str(number), number))


def wrong_root(where: str) -> ConfigError:
    """The error of a root key that is not this store's."""
    return ConfigError(
        "the root key is not the one that this store was made with",
        code="root_key_wrong",
        field=where,
        hint="give the root key that belongs to this store; without it the values cannot be had back",
    )


@lru_cache(maxsize=1024)
def _bound(store: bytes, tenant: str, kind: str, name: str, version: int) -> bytes:
    parts = (b"adyton store 1", store, tenant.encode(), kind.encode(), name.encode(), b"%d" % version)
    return b"".join([len(part).to_bytes(4, "big") + part for part in parts])
