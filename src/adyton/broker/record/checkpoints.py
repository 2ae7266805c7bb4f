"""The broker's own log key: it signs checkpoints of each tenant's audit log, and names decisions to strangers.

An Ed25519 key, kept in the store, sealed beside the broker's other keys; a restored or replicated store goes on with
it. Every tenant's log has an origin of its own, ``adyton/audit/<log>/<tenant>``, under which its checkpoints are signed:
one of them never passes for another's. Before a checkpoint is signed, the log is proved to continue the one before.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from functools import lru_cache

import msgspec

from adyton.crypto import merkle
from adyton.crypto.aead import random_bytes
from adyton.crypto.opaque import KEY_SIZE, Opaque
from adyton.errors import AdytonError, LogBroken, Unavailable
from adyton.protocol import checkpoint
from adyton.protocol.checkpoint import Checkpoint, LogKey, LogSigner
from adyton.stores.audit_reading import StoredCheckpoint
from adyton.stores.sqlite import Store

NAME = "audit keys"
DUE_ROWS = 1000
DUE_AFTER = timedelta(minutes=10)
_LOG = logging.getLogger(__name__)


class _Stored(msgspec.Struct, frozen=True):
    log: str
    signing: bytes
    naming: bytes


def _first() -> bytes:
    return msgspec.json.encode(_Stored(random_bytes(8).hex(), LogSigner.generate(), random_bytes(KEY_SIZE)))


class Checkpoints:
    """Signs for the logs of one store."""

    def __init__(self, store: Store) -> None:
        raw = store.secrets.get_or_create(NAME, _first)
        try:
            self._keys = msgspec.json.decode(raw, type=_Stored)
            self._names = Opaque(self._keys.naming)
        except ValueError as error:
            raise Unavailable("the broker's stored audit keys cannot be read", code="keys_unreadable") from error
        self._log = store.audit
        self._signer = lru_cache(maxsize=1024)(self._make_signer)

    def _make_signer(self, tenant: str) -> LogSigner:
        return LogSigner(f"adyton/audit/{self._keys.log}/{tenant}", self._keys.signing)

    def key(self, tenant: str) -> LogKey:
        """The public key of a tenant's log; its name is the log's origin."""
        return self._signer(tenant).public

    def sign(self, tenant: str, now: datetime) -> str:
        """A signed checkpoint of the log as it is now, kept in the store.

        ``LogBroken`` if the log does not continue what was last signed: then nothing is signed for it any more.
        """
        latest = self._log.latest_checkpoint(tenant)
        size = self._log.size(tenant)  # read after it: another process may append and sign in between
        root = self._log.root(tenant, size)
        if latest is not None:
            self._continues(tenant, self.read(tenant, latest), size, root)
            if latest.size == size:
                return latest.note
        note = self._signer(tenant).sign(size, root)
        self._log.keep_checkpoint(tenant, size, note, now)
        return note

    def read(self, tenant: str, kept: StoredCheckpoint) -> Checkpoint:
        """A kept checkpoint, if this broker signed it for this tenant; ``LogBroken``."""
        return checkpoint.verify(kept.note, [self.key(tenant)], origin=self.key(tenant).name)

    def all(self, tenant: str) -> list[Checkpoint]:
        """Every checkpoint that was ever signed for this log; ``LogBroken`` if one of them is not ours."""
        found: list[Checkpoint] = []
        while page := self._log.checkpoints(tenant, after=found[-1].size if found else -1):
            found += [self.read(tenant, kept) for kept in page]
        return found

    def sign_due(self, now: datetime) -> None:
        """Sign for each log that has grown by ``DUE_ROWS``, or at all for ``DUE_AFTER``; a broken one is said loudly."""
        for tenant in self._log.tenants_with_rows():
            try:
                latest = self._log.latest_checkpoint(tenant)
                grown = self._log.size(tenant) - (latest.size if latest else 0)
                if grown < 0 or grown >= DUE_ROWS or (grown and (latest is None or now - latest.time >= DUE_AFTER)):
                    self.sign(tenant, now)
            except AdytonError as error:
                _LOG.error("the audit log of %s cannot be signed: %s [%s]", tenant, error.message, error.code)

    def decision(self, tenant: str, sequence: int) -> str:
        """What a stranger may know of a decision: a name that only this broker can read."""
        return self._names.name(sequence, tenant)

    def sequence(self, tenant: str, decision: str) -> int | None:
        """The decision's number in its tenant's log, or ``None`` if it names none of it."""
        return self._names.number(decision, tenant)

    def _continues(self, tenant: str, old: Checkpoint, size: int, root: bytes) -> None:
        if old.size > size:
            raise LogBroken(
                f"the audit log was cut: it had {old.size} rows",
                code="rows_cut",
                field=f"row {size + 1}",
                expected=f"{old.size} rows",
                got=f"{size} rows",
            )
        merkle.verify_consistency(old.size, old.root, size, root, self._log.consistency(tenant, old.size, size))
