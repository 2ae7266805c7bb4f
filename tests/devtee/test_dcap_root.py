"""The development root for SGX and TDX on disk: made once, kept to its owner, broken ones refused."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dcap_qvl
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from adyton.collateral import directory as endorsements
from adyton.devtee.dcap import td_body
from adyton.devtee.dcap_root import DcapRoot
from adyton.errors import ConfigError, PlatformError

NOW = datetime(2026, 11, 21, 6, 0, tzinfo=UTC)
FILES = ["root", "pck-ca", "pck", "tcb-signing"]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("devtee") / "devtee"
    DcapRoot.create(directory, NOW)
    return directory


@pytest.fixture
def directory(original: Path, tmp_path: Path) -> Path:
    shutil.copytree(original, tmp_path / "devtee")
    return tmp_path / "devtee"


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_directory_without_one_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        DcapRoot.load(tmp_path, NOW)
    assert caught.value.code == "devtee_dcap_root_missing"
    assert "adyton devtee init" in str(caught.value.hint)


def test_a_directory_that_cannot_be_made_is_the_operators_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(PlatformError):
        DcapRoot.create(tmp_path / "file" / "devtee", NOW)


@pytest.mark.parametrize("name", [*(f"{name}{end}" for name in FILES for end in (".key", ".pem")), "platform.json"])
@pytest.mark.parametrize("damage", ["absent", "empty", "cut", "garbage"])
def test_a_broken_root_is_refused_by_name(directory: Path, name: str, damage: str) -> None:
    path = directory / "dcap" / "root" / name
    was = path.read_bytes()
    if damage == "absent":
        path.unlink()
    else:
        path.write_bytes({"empty": b"", "cut": was[: len(was) // 2], "garbage": os.urandom(300)}[damage])
    with pytest.raises(ConfigError) as caught:
        DcapRoot.load(directory, NOW)
    assert caught.value.code == "devtee_root_broken"
    assert name in str(caught.value.field)
    assert "PRIVATE" not in str(caught.value.as_dict())


def test_keys_are_their_owners_alone(directory: Path) -> None:
    root = directory / "dcap" / "root"
    for path in root.glob("*.key"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(root.stat().st_mode) == 0o700
    assert b"PRIVATE" not in b"".join(content(directory / "dcap" / "endorsements").values())
    (root / "pck.key").chmod(0o644)
    with pytest.raises(ConfigError) as caught:
        DcapRoot.load(directory, NOW)
    assert caught.value.code == "devtee_key_exposed"


def test_a_key_or_platform_of_another_root_is_refused(directory: Path) -> None:
    root = directory / "dcap" / "root"
    facts = json.loads((root / "platform.json").read_bytes())
    (root / "platform.json").write_text(json.dumps({**facts, "ppid": "00" * 16}))
    with pytest.raises(ConfigError) as caught:
        DcapRoot.load(directory, NOW)
    assert "pck.pem" in str(caught.value.field)
    (root / "platform.json").write_text(json.dumps(facts))
    shutil.copy(root / "pck.key", root / "root.key")
    with pytest.raises(ConfigError) as caught:
        DcapRoot.load(directory, NOW)
    assert caught.value.code == "devtee_root_broken"


def test_it_is_never_overwritten(directory: Path) -> None:
    before = content(directory / "dcap" / "root")
    first = DcapRoot.load(directory, NOW)
    again = DcapRoot.create(directory, NOW + timedelta(days=400))
    assert again.fingerprint == first.fingerprint
    assert content(directory / "dcap" / "root") == before


def test_endorsements_are_laid_out_again_when_they_age_or_go(directory: Path) -> None:
    place = directory / "dcap" / "endorsements"
    first = content(place)
    DcapRoot.load(directory, NOW + timedelta(days=10))
    assert content(place) == first
    for name in first:
        for damage in (None, b"", b"{}"):
            (place / name).unlink() if damage is None else (place / name).write_bytes(damage)
            DcapRoot.load(directory, NOW)
            assert (place / name).read_bytes() not in {b"", b"{}"}
    DcapRoot.load(directory, NOW + timedelta(days=20))
    renewed = content(place)
    assert all((renewed[name] == first[name]) is name.endswith(".pem") for name in first)
    assert not list(place.glob(".*"))


def test_two_makers_at_once_end_with_one_root(tmp_path: Path) -> None:
    roots: list[DcapRoot] = []
    threads = [threading.Thread(target=lambda: roots.append(DcapRoot.create(tmp_path / "d", NOW))) for _ in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({root.fingerprint for root in roots}) == 1
    assert sorted(path.name for path in (tmp_path / "d" / "dcap").iterdir()) == ["endorsements", "root"]


def test_what_is_laid_out_verifies_its_quotes_elsewhere(directory: Path) -> None:
    root = DcapRoot.load(directory, NOW)
    found = endorsements.load([root.endorsements])
    assert (len(found.certificates), len(found.crls), len(found.documents)) == (3, 2, 4)
    der = root.forge.root.certificate.public_bytes(Encoding.DER)
    bundle = dcap_qvl.QuoteCollateralV3.from_json(json.dumps(root.forge.collateral("tdx").bundle()))
    quote = root.forge.quote(td_body()).encode()
    assert dcap_qvl.verify_with_root_ca(quote, bundle, der, int(NOW.timestamp())).status == "UpToDate"
    command = ["openssl", "verify", "-no_check_time", "-CAfile", "root.pem", "-untrusted", "pck-ca.pem"]
    leaf = str(directory / "dcap" / "root" / "pck.pem")
    ran = subprocess.run([*command, leaf], cwd=root.endorsements, capture_output=True, text=True, check=True)
    assert ran.stdout == f"{leaf}: OK\n"
