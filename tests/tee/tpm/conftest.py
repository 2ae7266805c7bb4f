"""Software TPMs and a CA of their own, made once: keys take time."""

from __future__ import annotations

import copy

import pytest
from tests.tee.tpm.building import NOW

from adyton.devtee.tpm import SoftTpm
from adyton.devtee.tpm_ca import EkAuthority


@pytest.fixture(scope="session")
def made() -> dict[str, SoftTpm]:
    kinds = {"rsa": "rsa", "other": "rsa", "secp256r1": "secp256r1", "secp384r1": "secp384r1"}
    return {name: SoftTpm.new(kind) for name, kind in kinds.items()}


@pytest.fixture(scope="session")
def authority() -> EkAuthority:
    return EkAuthority.new(NOW)


@pytest.fixture
def tpm(made: dict[str, SoftTpm], request: pytest.FixtureRequest) -> SoftTpm:
    """One that has booted: RSA, or as the test's parameter says."""
    fresh = copy.copy(made[getattr(request, "param", "rsa")])
    fresh.reset(("sha1", "sha256", "sha384"))
    fresh.boot()
    return fresh
