"""The cache survives whatever is done to its directory, its processes and its files."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp
from cryptography.x509.oid import NameOID
from tests.collateral.conftest import NOW
from tests.collateral.endorser import pem

from adyton.collateral import nvidia
from adyton.collateral.cache import MAX_ABSENT, VERSIONS, Cache
from adyton.collateral.items import Item
from adyton.collateral.wanted import AmdChain, AmdCrl, NvidiaRim
from adyton.crypto.x509 import Certificate
from adyton.devtee.forge import Forge
from adyton.errors import ConfigError, EndorsementError, PlatformError
from adyton.tee.snp.product import Product

CRL = AmdCrl(Product.GENOA)
CHAIN = AmdChain(Product.GENOA)


def crl(forge: Forge, number: int = 1, **more: object) -> Item:
    body = forge.crl(number=number, **more)  # type: ignore[arg-type]  # a test's own
    return Item.read(CRL, body, url="test:", fetched=NOW, known=[Certificate(forge.certificates[2][1])])


def test_what_was_put_is_found(cache: Cache, forge: Forge) -> None:
    item = crl(forge)
    cache.put(item, max_age=60)
    stored = cache.find(CRL, NOW)
    assert stored is not None
    assert (stored.item, stored.max_age) == (item, 60)
    assert cache.find(CRL, NOW + timedelta(days=46)) is None
    assert cache.find(CRL, NOW - timedelta(days=46)) is None
    assert cache.find(CHAIN, NOW) is None
    with Cache(cache.directory) as again:
        assert again.all() == cache.all() == [stored]


def test_modes(cache: Cache, forge: Forge, tmp_path: Path) -> None:
    cache.put(crl(forge))
    assert cache.directory.stat().st_mode & 0o777 == 0o700
    for path in cache.directory.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0 or path.parent.stat().st_mode & 0o077 == 0
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(ConfigError) as caught:
        Cache(shared)
    assert caught.value.code == "cache_exposed"
    (tmp_path / "file").write_text("")
    with pytest.raises(PlatformError):
        Cache(tmp_path / "file")


def test_damage_is_absence(cache: Cache, forge: Forge) -> None:
    item = crl(forge)
    cache.put(item)
    (blob,) = (path for path in (cache.directory / "blobs").iterdir())
    blob.write_bytes(blob.read_bytes()[:-1])
    assert cache.find(CRL, NOW) is None
    assert cache.all() == []
    cache.put(item)
    assert cache.find(CRL, NOW) is not None
    blob.unlink()
    assert cache.find(CRL, NOW) is None
    cache.put(item)
    assert len(cache.all()) == 1
    cache.close()
    (cache.directory / "index.sqlite").write_bytes(b"nothing that SQLite knows" * 100)
    with pytest.raises(PlatformError) as caught:
        Cache(cache.directory)
    assert caught.value.code == "cache_unusable"


def test_a_name_that_nobody_knows_any_more_is_left_alone(cache: Cache, forge: Forge) -> None:
    cache.put(crl(forge))
    with sqlite3.connect(cache.directory / "index.sqlite") as database:
        database.execute("UPDATE item SET name = 'intel/sgx/old'")
    database.close()
    assert cache.all() == []


def test_older_ones_are_kept_for_a_while(cache: Cache, forge: Forge) -> None:
    for number in range(1, VERSIONS + 4):
        cache.put(crl(forge, number, start=NOW + timedelta(days=number)))
    kept = [stored.item.facts.order[0] for stored in cache.all() if stored.item.facts.order]
    assert kept == list(range(VERSIONS + 3, 3, -1))
    with pytest.raises(EndorsementError) as caught:
        cache.put(crl(forge, 3, start=NOW + timedelta(days=3)))
    assert caught.value.code == "endorsement_older"
    found = cache.find(CRL, NOW + timedelta(days=5))
    assert found is not None
    assert found.item.facts.order is not None
    assert found.item.facts.order[0] == 5
    assert cache.tidy(NOW) == 0
    assert cache.tidy(NOW + timedelta(days=36500)) == 4  # three that made room, and the one that was refused
    assert len(cache.all()) == VERSIONS


def certificate(name: str, key: Any, issuer: str, by: Any, serial: int) -> x509.Certificate:
    subject, above = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in (name, issuer))
    made = x509.CertificateBuilder().subject_name(subject).issuer_name(above).public_key(key.public_key())
    made = made.serial_number(serial).not_valid_before(NOW - timedelta(days=9)).not_valid_after(NOW + timedelta(days=9))
    return made.sign(by, hashes.SHA384())


def test_an_older_ocsp_answer_does_not_take_a_revocation_back(cache: Cache) -> None:
    root, device, responder, stranger = (ec.generate_private_key(ec.SECP384R1()) for _ in range(4))
    issuer = certificate("issuer", root, "issuer", root, 1)
    leaf = certificate("device", device, "issuer", root, 7)
    der = serialization.Encoding.DER
    wanted = nvidia.status_of(Certificate(leaf.public_bytes(der)), Certificate(issuer.public_bytes(der)))

    def answer(hours: int, *, revoked: bool, key: Any = responder) -> Item:
        at, signer = NOW - timedelta(hours=hours), certificate("responder", key, "issuer", root, 8)
        status = ocsp.OCSPCertStatus.REVOKED if revoked else ocsp.OCSPCertStatus.GOOD
        made = ocsp.OCSPResponseBuilder().add_response(
            leaf, issuer, hashes.SHA384(), status, at, at + timedelta(days=1), at if revoked else None, None
        )
        made = made.responder_id(ocsp.OCSPResponderEncoding.NAME, signer).certificates([signer])
        return Item.read(wanted, made.sign(key, hashes.SHA384()).public_bytes(der), url="test:", fetched=NOW)

    cache.put(answer(10, revoked=False, key=stranger))  # whose word makes nobody else's look old
    cache.put(answer(12, revoked=False))
    cache.put(answer(1, revoked=True))
    with pytest.raises(EndorsementError) as caught:
        cache.put(answer(12, revoked=False))
    assert caught.value.code == "endorsement_older"
    stored = cache.find(wanted, NOW)
    assert stored is not None and stored.item.facts.subject == "revoked"


def test_names_that_strangers_make_up_do_not_fill_the_disk(
    cache: Cache, forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adyton.collateral.cache.MAX_OF_A_KIND", 40)
    kept = crl(forge)
    cache.put(kept)
    for number in range(100):
        body = b"<SoftwareIdentity/>%d" % number
        name = NvidiaRim(f"made-up-{number}")
        cache.put(Item.read(name, body, url="test:", fetched=NOW + timedelta(days=number)))
        assert cache.find(name, NOW) is not None
    assert len([one for one in cache.all() if one.item != kept]) <= 40
    assert cache.find(CRL, NOW) is not None
    cache.tidy(NOW + timedelta(days=36500))
    assert len(list((cache.directory / "blobs").iterdir())) <= 41


def test_the_same_again_is_not_older(cache: Cache, forge: Forge) -> None:
    item = crl(forge)
    for _ in range(3):
        cache.put(item)
    assert len(cache.all()) == 1


def test_absence_has_a_limit(cache: Cache) -> None:
    with cache._transaction():
        cache._database.executemany(
            "INSERT INTO absent VALUES (?, 'x', ?)",
            [(f"nvidia/rim/{number}", NOW.timestamp() + 10 + number) for number in range(MAX_ABSENT)],
        )
    cache.note_absent(NvidiaRim("new"), "x", NOW, 600)
    assert cache.absent(NvidiaRim("new"), "x", NOW) is not None
    assert cache.absent(NvidiaRim("0"), "x", NOW) is None  # the one that would have ended first made room
    assert cache.absent(NvidiaRim("new"), "y", NOW) is None
    assert cache.absent(NvidiaRim("new"), "x", NOW + timedelta(minutes=11)) is None


_WRITER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from adyton.collateral.cache import Cache
from adyton.collateral.items import Facts, Item
from adyton.collateral.wanted import NvidiaRim

now = datetime(2026, 6, 1, tzinfo=UTC)
with Cache(Path(sys.argv[1])) as cache:
    for number in range(int(sys.argv[2]), int(sys.argv[3])):
        body = f"<SoftwareIdentity n='{number}'>{'x' * 50000}</SoftwareIdentity>".encode()
        cache.put(Item(NvidiaRim(f"R{number}"), body, b"chain of %d" % number, "test:", now, Facts(None, None, None, None, "s")))
        print(number, flush=True)
"""


def _writer(directory: Path, begin: int, end: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(directory), str(begin), str(end)], stdout=subprocess.PIPE, text=True
    )


def test_killed_at_any_moment_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    directory = tmp_path / "cache"
    acknowledged: set[int] = set()
    for round_ in range(6):
        process = _writer(directory, round_ * 1000, round_ * 1000 + 1000)
        assert process.stdout is not None
        for _ in range(3 + round_ * 2):
            acknowledged.add(int(process.stdout.readline()))
        time.sleep(0.0007 * round_)
        os.kill(process.pid, signal.SIGKILL)
        rest, _ = process.communicate(timeout=60)
        acknowledged |= {int(line) for line in rest.split()}
    with Cache(directory) as cache:
        found = {stored.item.wanted.name: stored.item for stored in cache.all()}
        assert {f"nvidia/rim/R{number}" for number in acknowledged} <= found.keys()
        for number in acknowledged:
            assert found[f"nvidia/rim/R{number}"].body.startswith(f"<SoftwareIdentity n='{number}'>".encode())
            assert found[f"nvidia/rim/R{number}"].chain == b"chain of %d" % number
        cache.tidy(NOW + timedelta(days=36500))
        assert {stored.item.wanted.name for stored in cache.all()} == found.keys()
        assert not [path for path in (directory / "blobs").iterdir() if path.name.startswith(".")]


def test_two_processes_at_once(tmp_path: Path) -> None:
    directory = tmp_path / "cache"
    processes = [_writer(directory, begin, begin + 40) for begin in (0, 20, 1000)]
    for process in processes:
        process.communicate(timeout=60)
        assert process.returncode == 0
    with Cache(directory) as cache:
        assert len(cache.all()) == 60 + 40


def test_a_claim_is_one_processes(cache: Cache) -> None:
    with cache.claimed(CRL) as mine, Cache(cache.directory) as other:
        assert mine
        with other.claimed(CRL) as theirs, other.claimed(CHAIN) as free:
            assert (theirs, free) == (False, True)
    with cache.claimed(CRL) as mine:
        assert mine


def test_who_may_have_signed(cache: Cache, forge: Forge) -> None:
    assert cache.certificates("amd") == ()
    (_, middle), (_, root) = forge.certificates[1:]
    cache.put(Item.read(CHAIN, pem(middle, root), url="test:", fetched=NOW))
    assert {certificate.der for certificate in cache.certificates("amd")} == {middle, root}
    assert cache.certificates("intel") == ()


def test_many_threads(cache: Cache, forge: Forge) -> None:
    made = [crl(forge, number, start=NOW + timedelta(seconds=number)) for number in range(1, 5)]
    problems: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for _ in range(5):
                try:
                    cache.put(made[number])
                except EndorsementError as error:
                    assert error.code == "endorsement_older"
                cache.find(CRL, NOW + timedelta(minutes=1))
                with cache.host("h") as state:
                    state.asked.append(1.0)
        except BaseException as error:  # noqa: BLE001 -- shown by the test
            problems.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert problems == []
    with cache.host("h") as state:
        assert len(state.asked) == 20


_FULL = """
import resource, sys
from pathlib import Path
from adyton.collateral.cache import Cache
from adyton.errors import PlatformError
from datetime import UTC, datetime
from adyton.collateral.items import Facts, Item
from adyton.collateral.wanted import NvidiaRim

now = datetime(2026, 6, 1, tzinfo=UTC)
with Cache(Path(sys.argv[1])) as cache:
    resource.setrlimit(resource.RLIMIT_FSIZE, (60000, 60000))
    try:
        cache.put(Item(NvidiaRim("big"), b"<" + b"x" * 100000, b"", "test:", now, Facts(None, None, None, None, "s")))
    except PlatformError as error:
        print(error.code)
"""


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FULL, str(tmp_path / "cache")], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.stdout == "cache_unusable\n", done.stderr
    with Cache(tmp_path / "cache") as cache:
        assert cache.all() == []
        assert list((tmp_path / "cache" / "blobs").iterdir()) == []
