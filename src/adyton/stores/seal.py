"""Values at rest: AES-256-GCM under data keys of this store, which are wrapped by a root key that lies elsewhere.

A sealed value opens only as what it was sealed as: tenant, kind, name, version and store are authenticated with it, so
a row that was moved to another name, tenant or store does not open. Format::

    1 (1 byte) ‖ data key id (4, big-endian) ‖ nonce (12, random) ‖ ciphertext ‖ tag (16)

Nonces are random: one data key seals at most 2^32 values (NIST SP 800-38D section 8.3); ``rotate`` makes a new one.
What this cannot see is an attacker who may write the file and puts back an older state of a row, or of all of it.
"""

from __future__ import annotations

import hmac
import os
import struct
from datetime import datetime

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from adyton.errors import ConfigError, Unavailable
from adyton.stores.custody.slots import root_id
from adyton.stores.sql import Database, Transaction

_HEADER = struct.Struct(">BI12s")
_FORMAT = 1
MAX_KEYS = 1000


class Sealer:
    """Seals and opens this store's values. Data keys are unwrapped once and kept in memory."""

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
        """``value`` sealed as exactly this thing."""
        nonce = os.urandom(12)
        header = _HEADER.pack(_FORMAT, self._current, nonce)
        return header + self._keys[self._current].encrypt(nonce, value, self._context(tenant, kind, name, version))

    def open(self, sealed: bytes, tenant: str, kind: str, name: str, version: int) -> bytes:
        """What was sealed as this thing; ``Unavailable`` ``sealed_value_broken`` for anything else."""
        try:
            form, number, nonce = _HEADER.unpack_from(sealed)
            key = self._keys.get(number) or self._load(number)
            if form == _FORMAT and key is not None:
                return key.decrypt(nonce, sealed[_HEADER.size :], self._context(tenant, kind, name, version))
        except (InvalidTag, struct.error, ValueError):
            pass
        raise Unavailable(
            f"a stored {kind} does not open as what its row says it is",
            code="sealed_value_broken",
            field=f"{kind} {name}",
            hint="the store was damaged or changed behind the broker's back: restore the last backup, or set it again",
        )

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


def wrap(root: AESGCM, store: bytes, number: int, key: bytes) -> bytes:
    """A data key under the root key: nonce (12) ‖ ciphertext ‖ tag (16)."""
    nonce = os.urandom(12)
    return nonce + root.encrypt(nonce, key, _bound(store, "", "data key", str(number), number))


def unwrap(root: AESGCM, store: bytes, number: int, wrapped: bytes) -> bytes:
    """The data key; ``InvalidTag`` or ``ValueError`` under another root key."""
    return root.decrypt(wrapped[:12], wrapped[12:], _bound(store, "", "data key", str(number), number))


def wrong_root(where: str) -> ConfigError:
    """The error of a root key that is not this store's."""
    return ConfigError(
        "the root key is not the one that this store was made with",
        code="root_key_wrong",
        field=where,
        hint="give the root key that belongs to this store; without it the values cannot be had back",
    )


def _bound(store: bytes, tenant: str, kind: str, name: str, version: int) -> bytes:
    parts = (b"adyton store 1", store, tenant.encode(), kind.encode(), name.encode(), b"%d" % version)
    return b"".join([len(part).to_bytes(4, "big") + part for part in parts])
