"""A development root for the attesters' tests: one for the session, since its RSA keys take a second."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from adyton.devtee.certificates import Signer
from adyton.devtee.root import DevelopmentRoot

NOW = datetime(2026, 11, 21, tzinfo=UTC)


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> DevelopmentRoot:
    """ARK, ASK, VCEK."""
    return DevelopmentRoot.create(tmp_path_factory.mktemp("root"), NOW)


@pytest.fixture(scope="session")
def signer(root: DevelopmentRoot) -> Signer:
    """What signs reports."""
    return root.signer


@pytest.fixture(scope="session")
def certificates(root: DevelopmentRoot) -> list[tuple[str, bytes]]:
    """The chain as a host hands it out, in DER."""
    from cryptography.hazmat.primitives.serialization import Encoding

    chain = (("VCEK", root.signer.certificate), ("ASK", root.ask.certificate), ("ARK", root.ark.certificate))
    return [(name, certificate.public_bytes(Encoding.DER)) for name, certificate in chain]
