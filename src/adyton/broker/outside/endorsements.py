"""The endorsements that the operator laid out, loaded once and again when a file changes or on SIGHUP.

A set that cannot be read never replaces one that could: the old one stays, and the log says so.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from adyton.collateral import directory
from adyton.crypto.x509 import EndorsementSet
from adyton.errors import AdytonError

_LOG = logging.getLogger(__name__)


class Endorsements:
    """``current`` is what verification uses. The first load raises; later ones keep what there is."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._paths = tuple(Path(path) for path in paths)
        self._seen = self._look()
        self.current: EndorsementSet = directory.load(self._paths)

    def replace(self, paths: Iterable[str]) -> None:
        """Look at other places from now on; ``refresh`` reads them."""
        self._paths = tuple(Path(path) for path in paths)

    def refresh(self, *, force: bool = False) -> bool:
        """Load again if a file came, went or changed; tells whether ``current`` is new."""
        seen = self._look()
        if seen == self._seen and not force:
            return False
        try:
            self.current = directory.load(self._paths)
        except AdytonError as error:
            _LOG.warning("endorsements not reloaded, the old ones stay: %s [%s]", error.message, error.code)
            return False
        self._seen = seen
        _LOG.info("endorsements reloaded")
        return True

    def _look(self) -> tuple[tuple[str, int, int], ...]:
        found = []
        for path in self._paths:
            try:
                files = sorted(path.rglob("*")) if path.is_dir() else [path]
                for file in files:
                    status = file.stat()
                    found.append((str(file), status.st_mtime_ns, status.st_size))
            except OSError:
                found.append((str(path), 0, -1))
        return tuple(found)
