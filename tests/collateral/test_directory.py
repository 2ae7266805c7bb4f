from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from adyton.collateral.directory import load
from adyton.errors import ConfigError, EndorsementMalformed


@pytest.fixture(scope="module")
def pem() -> bytes:
    key = ec.derive_private_key(7, ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    start = datetime(2026, 6, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(5).not_valid_before(start).not_valid_after(start + timedelta(days=1))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def test_files_and_directories(tmp_path: Path, pem: bytes) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "a.PEM").write_bytes(pem)
    (tmp_path / "README.md").write_text("not an endorsement")
    (tmp_path / ".hidden.pem").write_text("nor is this")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x.pem").write_text("nor this")
    assert [found.common_name for found in load([tmp_path]).certificates] == ["test"]
    odd = tmp_path / "no-suffix"
    odd.write_bytes(pem)
    assert load([odd, tmp_path]) == load([tmp_path])
    assert load([]).certificates == ()
    (tmp_path / "empty").mkdir()
    assert load([tmp_path / "empty"]).certificates == ()


def test_a_broken_file_is_named(tmp_path: Path, pem: bytes) -> None:
    (tmp_path / "good.pem").write_bytes(pem)
    broken = tmp_path / "broken.crl"
    broken.write_bytes(b"nothing")
    with pytest.raises(EndorsementMalformed) as caught:
        load([tmp_path])
    assert caught.value.field == str(broken)
    assert str(broken) in caught.value.message
    with pytest.raises(EndorsementMalformed):
        load([broken])


def test_unreadable_paths(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.pem"
    os.mkfifo(pipe)
    dangling = tmp_path / "dangling.pem"
    dangling.symlink_to(tmp_path / "nowhere")
    for path in (tmp_path / "none", pipe, dangling, tmp_path, Path("/dev/zero")):
        with pytest.raises(ConfigError) as caught:
            load([path])
        assert caught.value.code == "endorsements_unreadable"


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "huge.der"
    with path.open("wb") as file:
        file.truncate(10 * 1024**3)
    with pytest.raises(EndorsementMalformed):
        load([path])


def test_somebodys_archive_is_left_alone(tmp_path: Path, pem: bytes) -> None:
    (tmp_path / "good.pem").write_bytes(pem)
    (tmp_path / "image.tar").write_bytes(b"layer" * 1000)
    assert len(load([tmp_path]).certificates) == 1
    with pytest.raises(EndorsementMalformed):
        load([tmp_path / "image.tar"])
