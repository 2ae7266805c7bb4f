"""Chains for the tests of the development TEE; RSA keys are made once."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from adyton.devtee.forge import Forge


@pytest.fixture(scope="session")
def forge() -> Forge:
    return Forge.new(datetime(2026, 11, 21, 6, 0, tzinfo=UTC))
