"""``adyton[fast]``: AWS-LC gives the verdict that OpenSSL gives, on every vector that P-256 or P-384 has a part in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adyton.cli import vectors as runner
from adyton.crypto import ecdsa

TEES = ("snp", "nitro", "nvidia", "azure-vtpm", "cca", "sgx", "tdx")


@pytest.fixture(autouse=True)
def openssl_afterwards() -> Iterator[None]:
    pytest.importorskip("awscrt")
    yield
    ecdsa.use("openssl")


@pytest.mark.vectors
@pytest.mark.parametrize("tee", TEES)
def test_verdicts_are_the_same(tee: str, vectors: Path, manifest: dict[str, Any]) -> None:
    cases = [case for case in manifest["cases"] if case["tee"] == tee]
    verdicts = []
    for back_end in ("openssl", "aws-lc"):
        ecdsa.use(back_end)
        verdicts.append([runner.run(manifest, vectors, case).as_dict() for case in cases])
    assert verdicts[0] == verdicts[1]
    assert all(verdict["ok"] for verdict in verdicts[1])
