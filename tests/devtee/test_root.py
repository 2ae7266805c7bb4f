"""The development root on disk: made once, kept to its owner, broken ones refused."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from adyton.devtee.root import DevelopmentRoot
from adyton.errors import ConfigError, PlatformError

NOW = datetime(2026, 11, 21, 6, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("devtee") / "devtee"
    DevelopmentRoot.create(directory, NOW)
    return directory


@pytest.fixture
def directory(original: Path, tmp_path: Path) -> Path:
    shutil.copytree(original, tmp_path / "devtee")
    return tmp_path / "devtee"


def test_a_root_is_never_overwritten(directory: Path) -> None:
    before = {path: path.read_bytes() for path in (directory / "root").iterdir()}
    first = DevelopmentRoot.load(directory, NOW)
    again = DevelopmentRoot.create(directory, NOW + timedelta(days=400))
    assert again.fingerprint == first.fingerprint
    assert again.chip_id == first.chip_id
    assert len(again.chip_id) == 64
    assert {path: path.read_bytes() for path in (directory / "root").iterdir()} == before


def test_keys_are_their_owners_alone(directory: Path) -> None:
    for path in (directory / "root").glob("*.key"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((directory / "root").stat().st_mode) == 0o700
    laid_out = b"".join(path.read_bytes() for path in (directory / "endorsements").iterdir())
    assert b"PRIVATE" not in laid_out


def test_a_key_that_others_can_read_is_refused(directory: Path) -> None:
    (directory / "root" / "vcek.key").chmod(0o640)
    with pytest.raises(ConfigError) as caught:
        DevelopmentRoot.load(directory, NOW)
    assert caught.value.code == "devtee_key_exposed"


@pytest.mark.parametrize("name", ["ark.key", "ask.key", "vcek.key", "ark.pem", "ask.pem", "vcek.pem"])
@pytest.mark.parametrize("damage", ["absent", "empty", "cut", "garbage"])
def test_a_broken_root_is_refused_by_name(directory: Path, name: str, damage: str) -> None:
    path = directory / "root" / name
    content = path.read_bytes()
    if damage == "absent":
        path.unlink()
    else:
        path.write_bytes({"empty": b"", "cut": content[: len(content) // 2], "garbage": os.urandom(300)}[damage])
    with pytest.raises(ConfigError) as caught:
        DevelopmentRoot.load(directory, NOW)
    assert caught.value.code == "devtee_root_broken"
    assert name in str(caught.value.field)
    assert "PRIVATE" not in str(caught.value.as_dict())


@pytest.mark.parametrize(("name", "other"), [("ark", "ask"), ("ask", "ark"), ("vcek", "ark"), ("ark", "vcek")])
def test_a_key_beside_another_certificate_is_refused(directory: Path, name: str, other: str) -> None:
    root = directory / "root"
    shutil.copy(root / f"{other}.key", root / f"{name}.key")
    with pytest.raises(ConfigError) as caught:
        DevelopmentRoot.load(directory, NOW)
    assert caught.value.code == "devtee_root_broken"


def test_no_root_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        DevelopmentRoot.load(tmp_path, NOW)
    assert caught.value.code == "devtee_root_missing"
    assert "adyton devtee init" in str(caught.value.hint)


def test_a_directory_that_cannot_be_made_is_the_operators_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(PlatformError):
        DevelopmentRoot.create(tmp_path / "file" / "devtee", NOW)


def test_endorsements_are_laid_out_again(directory: Path) -> None:
    endorsements = directory / "endorsements"
    kept = (endorsements / "ask.pem").read_bytes()
    (endorsements / "ask.pem").write_bytes(b"changed")
    (endorsements / "crl.der").unlink()
    DevelopmentRoot.load(directory, NOW)
    assert (endorsements / "ask.pem").read_bytes() == kept
    assert (endorsements / "crl.der").is_file()


def test_a_renewed_crl_is_later_and_numbered_higher(directory: Path) -> None:
    root = DevelopmentRoot.load(directory, NOW)
    path = root.endorsements / "crl.der"
    old = x509.load_der_x509_crl(path.read_bytes())
    root.renew_crl(NOW + timedelta(days=10))
    new = x509.load_der_x509_crl(path.read_bytes())
    assert new.next_update_utc is not None
    assert old.next_update_utc is not None
    assert new.next_update_utc - old.next_update_utc == timedelta(days=10)
    numbers = [crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number for crl in (old, new)]
    assert numbers[1] == numbers[0] + 1
    assert not list(root.endorsements.glob(".*"))


def test_two_makers_at_once_end_with_one_root(tmp_path: Path) -> None:
    roots: list[DevelopmentRoot] = []
    threads = [
        threading.Thread(target=lambda: roots.append(DevelopmentRoot.create(tmp_path / "devtee", NOW))) for _ in "ab"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({root.fingerprint for root in roots}) == 1
    assert sorted(path.name for path in (tmp_path / "devtee").iterdir()) == ["endorsements", "root"]


def test_the_chain_is_amds_profile_under_another_organisation(directory: Path) -> None:
    root = DevelopmentRoot.load(directory, NOW)
    ark, ask, vcek = root.ark.certificate, root.ask.certificate, root.signer.certificate
    for certificate, issuer in ((ark, ark), (ask, ark), (vcek, ask)):
        key = issuer.public_key()
        assert isinstance(key, rsa.RSAPublicKey)
        assert key.key_size == 4096
        pss = padding.PSS(padding.MGF1(SHA384()), 48)
        key.verify(certificate.signature, certificate.tbs_certificate_bytes, pss, SHA384())
        assert certificate.issuer == issuer.subject
        assert "Adyton development TEE, not AMD" in certificate.subject.rfc4514_string().replace("\\", "")
    assert "CN=SEV-Genoa" in ask.subject.rfc4514_string()
    assert "CN=ARK-Genoa" in ark.subject.rfc4514_string()
    values = {
        extension.oid.dotted_string.removeprefix("1.3.6.1.4.1.3704.1."): extension.value.public_bytes()
        for extension in vcek.extensions
    }
    assert values["1"] == b"\x02\x01\x00"
    assert values["2"] == b"\x16\x05Genoa"
    assert values["4"] == root.chip_id
    assert values["3.1"] == b"\x02\x01\x0a"
    assert values["3.8"] == b"\x02\x01\x54"


def test_openssl_reads_what_is_laid_out(directory: Path) -> None:
    root = DevelopmentRoot.load(directory, NOW)
    there = root.endorsements
    command = ["openssl", "verify", "-no_check_time", "-CAfile", "ark.pem", "-untrusted", "ask.pem", "vcek.pem"]
    assert subprocess.run(command, cwd=there, capture_output=True, text=True, check=True).stdout == "vcek.pem: OK\n"
    spki = root.ark.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    digest = subprocess.run(["openssl", "sha256", "-r"], input=spki, capture_output=True, check=True).stdout
    assert digest.decode().split()[0] == root.fingerprint
