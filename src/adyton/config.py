"""Settings that several rooms share, as frozen types. Files and environment are read in ``cli/``."""

from __future__ import annotations

from enum import Enum


class Environment(Enum):
    """Where a relying party runs. Development roots may be trusted in the first three only (contracts, 3)."""

    DEVELOPMENT = "development"
    CI = "ci"
    TEST = "test"
    PRE_PRODUCTION = "pre-production"
    PRODUCTION = "production"

    @property
    def may_trust_development_roots(self) -> bool:
        """Whether a root without hardware behind it may be configured here."""
        return self in {Environment.DEVELOPMENT, Environment.CI, Environment.TEST}
