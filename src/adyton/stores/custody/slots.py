"""Slots: several custodians hold one root key, each in a way of its own, as LUKS holds a disk's.

A slot has a key pair (P-256). The public half stands in its row, and the root key encrypted to it; the private half is
with the custodian. So a new root key reaches every slot without its custodian, and an old root key tells nothing about
what a custodian keeps: after a rotation it opens nothing.

Who may write the file could put a slot of his own there, and wait for the next rotation to be given the new root key.
Therefore each row is authenticated under the root key (HMAC-SHA-256 over its members and the store's id), and nothing
is rotated while one of them is not.

::

    root id     HMAC-SHA-256(root key, "adyton:root id"), 16 bytes: names a root key and tells nothing about it
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from adyton.crypto import jwe, jwk
from adyton.crypto.aead import derive
from adyton.errors import ConfigError, Conflict, MalformedRequest, NotFound, Unavailable
from adyton.rats.types import JsonValue
from adyton.stores.custody.port import Custodian, Kept
from adyton.stores.sql import Database, Row, Transaction

MAX_SLOTS = 32
STATEMENTS = (
    """CREATE TABLE root_key_slots (
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    created REAL NOT NULL,
    public BLOB NOT NULL,
    sealed BLOB NOT NULL,
    details TEXT NOT NULL,
    root BLOB NOT NULL,
    mac BLOB NOT NULL,
    PRIMARY KEY (tenant, name)
)""",
)
"""Rows of no tenant (``""``): they are the whole broker's."""
_COLUMNS = "name, kind, created, public, sealed, details, root, mac"
_INSERT = f"INSERT INTO root_key_slots (tenant, {_COLUMNS}) VALUES ('',?,?,?,?,?,?,?,?)"  # noqa: S608 -- our constant


@dataclass(frozen=True, slots=True)
class Slot:
    """One row."""

    name: str
    kind: str
    created: datetime
    public: bytes
    kept: Kept
    root: bytes
    mac: bytes

    def row(self) -> tuple[object, ...]:
        """As it is stored."""
        details = msgspec.json.encode(self.kept.details, order="sorted").decode()
        at = self.created.timestamp()
        return (self.name, self.kind, at, self.public, self.kept.sealed, details, self.root, self.mac)


def root_id(root_key: bytes) -> bytes:
    """16 bytes that name a root key."""
    return derive(root_key, "root id")[:16]


def make(name: str, custodian: Custodian, root_key: bytes, store: bytes, now: datetime) -> Slot:
    """A slot that ``custodian`` opens."""
    private = ec.generate_private_key(ec.SECP256R1())
    secret = private.private_numbers().private_value.to_bytes(32)
    kept = custodian.seal(secret, context(store, name))
    public = private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    made = Slot(name, custodian.kind, now, public, kept, b"", b"")
    return given(made, root_key, store)


def given(slot: Slot, root_key: bytes, store: bytes) -> Slot:
    """The slot with this root key in it, authenticated."""
    try:
        public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), slot.public)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _changed(slot.name) from error
    holding = replace(slot, root=jwe.encrypt(jwk.from_public(public), root_key))
    return replace(holding, mac=_mac(holding, root_key, store))


def open_(slot: Slot, custodian: Custodian, store: bytes) -> bytes:
    """The root key in this slot, authenticated with it; what the custodian raises, or ``ConfigError`` ``slot_changed``."""
    secret = custodian.open(slot.kept, context(store, slot.name))
    try:
        private = ec.derive_private_key(int.from_bytes(secret), ec.SECP256R1())
        root_key = jwe.decrypt(private, slot.root)
    except (ValueError, UnsupportedAlgorithm, MalformedRequest) as error:
        raise _changed(slot.name) from error
    check(slot, root_key, store)
    return root_key


def check(slot: Slot, root_key: bytes, store: bytes) -> None:
    """``ConfigError`` ``slot_changed`` unless whoever made this row had the root key."""
    if len(root_key) != 32 or not hmac.compare_digest(_mac(slot, root_key, store), slot.mac):
        raise _changed(slot.name)


def context(store: bytes, name: str) -> bytes:
    """What a custodian's secret is bound to."""
    return b"adyton root key slot 1\0" + store + name.encode()


def read(database: Database) -> list[Slot]:
    """All slots, by name."""
    return [_slot(row) for row in database.read(f"SELECT {_COLUMNS} FROM root_key_slots WHERE tenant='' ORDER BY name")]  # noqa: S608


def one(database: Database, name: str) -> Slot:
    """The slot of that name; ``NotFound``."""
    found = [slot for slot in read(database) if slot.name == name]
    if not found:
        raise NotFound(
            f"there is no slot {name!r}", code="slot_absent", field="slot", got=name, hint="adyton broker root-key show"
        )
    return found[0]


def add(transaction: Transaction, slot: Slot) -> None:
    """Keep a new slot; ``Conflict`` if the name is taken."""
    held = [row[0] for row in transaction.execute("SELECT name FROM root_key_slots WHERE tenant=''").fetchall()]
    if slot.name in held:
        raise Conflict(
            f"there is a slot {slot.name!r} already",
            code="slot_exists",
            field="slot",
            got=slot.name,
            hint="give another --slot, or remove it first",
        )
    if len(held) >= MAX_SLOTS:
        raise Conflict("there are too many slots", code="too_many_slots", expected=f"at most {MAX_SLOTS}")
    transaction.execute(_INSERT, slot.row())


def replace_all(transaction: Transaction, slots: Sequence[Slot]) -> None:
    """These slots and no others."""
    transaction.execute("DELETE FROM root_key_slots WHERE tenant=''")
    transaction.executemany(_INSERT, [slot.row() for slot in slots])


def remove(transaction: Transaction, name: str) -> None:
    """Forget a slot."""
    transaction.execute("DELETE FROM root_key_slots WHERE tenant='' AND name=?", (name,))


def _slot(row: Row) -> Slot:
    name, kind, created, public, sealed, details, root, mac = row
    try:
        said: dict[str, JsonValue] = msgspec.json.decode(details, type=dict[str, object])
        made = datetime.fromtimestamp(created, UTC)
        parts = [bytes(memoryview(part)) for part in (public, sealed, root, mac)]
        if not (isinstance(name, str) and isinstance(kind, str)):
            raise TypeError("a name and a kind are texts")
    except (ValueError, TypeError, OverflowError, OSError) as error:  # SQLite takes anything in any column
        raise Unavailable("a slot's row is damaged", code="slot_changed", field=f"slot {name!r:.60}") from error
    return Slot(name, kind, made, parts[0], Kept(parts[1], said), parts[2], parts[3])


def _mac(slot: Slot, root_key: bytes, store: bytes) -> bytes:
    parts = [
        b"adyton root key slot 1",
        store,
        slot.name.encode(),
        slot.kind.encode(),
        repr(slot.created.timestamp()).encode(),
        slot.public,
        slot.kept.sealed,
        msgspec.json.encode(slot.kept.details, order="sorted"),
    ]
    said = b"".join(len(part).to_bytes(4) + part for part in parts)
    return hmac.new(derive(root_key, "root key slots"), said, hashlib.sha256).digest()


def _changed(name: str) -> ConfigError:
    return ConfigError(
        f"the slot {name!r} was changed behind the broker's back, or is another store's",
        code="slot_changed",
        field=f"slot {name}",
        hint="remove it (adyton broker root-key remove), or restore the last backup",
    )
