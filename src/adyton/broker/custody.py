"""How the broker's first process comes by the root key; its workers get it from there, over the pipe that starts them."""

from __future__ import annotations

import logging

from adyton.broker.settings import Settings
from adyton.stores import rootkey
from adyton.stores.custody import keyring
from adyton.stores.custody.keyring import Opened, Openers
from adyton.stores.sql import Database

PLAIN = "plain"
_LOG = logging.getLogger(__name__)


class RootKeyFinder:
    """What a store is opened with. Afterwards ``root_key`` and ``by`` (``plain`` or a slot's name) say what was found.

    Without slots and without a file a new store gets a new root key in a plain file, and ``serve`` and ``doctor`` warn.
    """

    def __init__(self, settings: Settings, openers: Openers | None = None) -> None:
        self._settings = settings
        self._openers = openers or Openers()
        self._found: Opened | None = None

    def __call__(self, database: Database) -> bytes:
        """The root key of the store in ``database``; errors as ``keyring.unlock``."""
        plain = self._settings.root_key
        found = keyring.unlock(database, plain, self._openers)
        if found is None:
            found = Opened(rootkey.load_or_create(plain)[0], PLAIN)
        elif found.by != PLAIN and plain.exists():
            _LOG.warning("the root key's file %s is not this store's any more: remove it", plain)
        self._found = found
        return found.root_key

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
