"""How the broker's first process comes by the root key; its workers get it from there, over the pipe that starts them."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime

from adyton.broker.custodians import peers
from adyton.broker.settings import Settings
from adyton.errors import ConfigError
from adyton.rats.types import VerifiedEvidence
from adyton.stores import rootkey
from adyton.stores.custody import keyring
from adyton.stores.custody.keyring import Opened, Openers
from adyton.stores.sql import Database
from adyton.stores.sqlite import Store

PLAIN = "plain"
_ELSEWHERE = frozenset({"root_key_missing", "root_key_locked"})
_LOG = logging.getLogger(__name__)


class RootKeyFinder:
    """What a store is opened with. Afterwards ``root_key`` and ``by`` (``plain`` or a slot's name) say what was found.

    Without slots and file the peer of the settings is asked. Without slots, file and peer a new store gets a new root key in a plain file, and ``serve`` and ``doctor`` warn.
    """

    def __init__(self, settings: Settings, openers: Openers | None = None) -> None:
        self._settings = settings
        self._openers = openers or Openers()
        self._found: Opened | None = None
        self._giver: VerifiedEvidence | None = None

    def __call__(self, database: Database) -> bytes:
        """The root key of the store in ``database``; errors as ``keyring.unlock``."""
        plain = self._settings.root_key
        found = self._here(database) or self._from_peer()
        if found is None:
            found = Opened(rootkey.load_or_create(plain)[0], PLAIN)
        elif found.by != PLAIN and plain.exists():
            _LOG.warning("the root key's file %s is not this store's any more: remove it", plain)
        self._found = found
        return found.root_key

    def _here(self, database: Database) -> Opened | None:
        """By a custodian of this store; where there is a peer to ask, what no custodian opens is asked of it."""
        try:
            return keyring.unlock(database, self._settings.root_key, self._openers)
        except ConfigError as error:
            if not self._settings.peer or error.code not in _ELSEWHERE:
                raise
            return None

    def _from_peer(self) -> Opened | None:
        if not self._settings.peer:
            return None
        root_key, self._giver = peers.ask(self._settings)
        return Opened(root_key, f"peer {self._settings.peer}")

    def note(self, store: Store) -> None:
        """Record from whom the root key came, if it came from a peer."""
        if self._giver is not None:
            now = datetime.fromtimestamp(time.time(), UTC)
            peers.note(store.audit, "root-key.receive", now, self._giver, peer=self._settings.peer)

    @property
    def root_key(self) -> bytes:
        """32 bytes."""
        return self._opened().root_key

    @property
    def by(self) -> str:
        """Who gave it."""
        return self._opened().by

    def _opened(self) -> Opened:
        if self._found is None:
            raise RuntimeError("the store has not been opened")
        return self._found
