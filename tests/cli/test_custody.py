"""The root key's commands as an operator runs them: what is exposed or short is refused, and nothing secret is ever shown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from tests.broker import rig

from adyton.broker.custodians import doctor
from adyton.devtee.root import DevelopmentRoot
from adyton.stores.sqlite import FILE, Store

NOW = datetime.fromtimestamp(int(time.time()), UTC)
WORDS = "sixteen goats explain the harbour quietly"


def run(*arguments: object, **options: Any) -> tuple[int, list[dict[str, Any]], str]:
    done = subprocess.run(
        [sys.executable, "-m", "adyton", "broker", *map(str, arguments), "--json"],
        capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False, **options,
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return done.returncode, lines, done.stderr


def refused(code: str, *arguments: object, **options: Any) -> None:
    status, lines, text = run(*arguments, **options)
    assert status == 1, (lines, text)
    assert lines[-1]["error"]["code"] == code, lines
    assert WORDS not in text + json.dumps(lines)


@pytest.fixture
def words(tmp_path: Path) -> Path:
    path = tmp_path / "words"
    path.write_text(WORDS + "\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def data(tmp_path: Path, words: Path) -> Path:
    assert run("root-key", "init", "--data", tmp_path / "data", "--custody", "passphrase",
               "--new-passphrase-file", words)[0] == 0  # fmt: skip
    return tmp_path / "data"


def owner(directory: Path, name: str, key: Any = None) -> tuple[Path, Path]:
    key = key or ec.generate_private_key(ec.SECP256R1())
    private, public = directory / f"{name}.key", directory / f"{name}.pem"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    private.chmod(0o600)
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


def test_a_passphrase_that_others_can_read_is_refused(tmp_path: Path, words: Path) -> None:
    words.chmod(0o640)
    begin = ("root-key", "init", "--data", tmp_path / "data", "--custody", "passphrase", "--new-passphrase-file")
    refused("secret_file_exposed", *begin, words)
    words.chmod(0o600)
    (tmp_path / "link").symlink_to(words)
    refused("secret_file_unreadable", *begin, tmp_path / "link")
    refused("secret_file_unreadable", *begin, tmp_path / "absent")
    words.write_text("too short\n")
    refused("passphrase_short", *begin, words)
    words.write_text("\n")
    refused("passphrase_unreadable", *begin, words)
    refused("passphrase_unreadable", *begin[:-1])
    assert not any((tmp_path / "data").glob("root*"))


def test_a_store_is_begun_once(data: Path, words: Path) -> None:
    begin = ("root-key", "init", "--data", data, "--custody", "passphrase", "--new-passphrase-file", words)
    refused("root_key_exists", *begin)
    refused("setting_invalid", "root-key", "init", "--data", data / "x", "--custody", "file")
    refused("store_absent", "root-key", "show", "--data", data / "x")
    refused("slot_absent", "root-key", "remove", "nobody", "--data", data, "--passphrase-file", words)
    refused("last_slot", "root-key", "remove", "passphrase", "--data", data, "--passphrase-file", words)
    refused("root_key_locked", "root-key", "rotate", "--data", data)


def test_a_broker_that_runs_keeps_its_root_key(data: Path, words: Path) -> None:
    broker = rig.RunningBroker(data, ("--listen", "127.0.0.1:0", "--passphrase-file", str(words), "--workers", "2"))
    broker.start()
    try:
        refused("broker_running", "root-key", "rotate", "--data", data, "--passphrase-file", words)
        refused("broker_running", "root-key", "change", "--data", data, "--passphrase-file", words, "--custody", "file")
        status, (shown,), _ = run(
            "root-key", "add", "--data", data, "--passphrase-file", words, "--custody", "passphrase",
            "--slot", "second", "--new-passphrase-file", words,
        )  # fmt: skip
        assert status == 0
        assert [slot["name"] for slot in shown["slots"]] == ["passphrase", "second"]
        assert WORDS not in broker.log()
        children = _family(broker.process.pid if broker.process else 0)
        assert len(children) >= 3
        for pid in children:
            said = Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
            assert WORDS.encode() not in said
            limits = Path(f"/proc/{pid}/limits").read_text()
            assert "Max core file size        0                    0" in limits
    finally:
        broker.stop()
    assert not (data / "root.key").exists()


def _family(pid: int) -> list[int]:
    found = [pid]
    for one in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(child) for child in one.read_text().split()]
    return found


def test_a_passphrase_over_a_descriptor(data: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, WORDS.encode())
    os.close(writing)
    status, lines, text = run(
        "root-key", "rotate", "--data", data, "--passphrase-fd", reading, pass_fds=(reading,)
    )  # fmt: skip
    os.close(reading)
    assert status == 0, (lines, text)
    refused("passphrase_unreadable", "root-key", "rotate", "--data", data, "--passphrase-fd", 77)


def test_shares_that_cannot_all_be_written_are_no_way_back(data: Path, words: Path, tmp_path: Path) -> None:
    pems = [owner(tmp_path, name)[1] for name in ("ada", "b" * 240)]  # too long for the second share's first name
    shares = tmp_path / "shares"
    split = ("root-key", "split", "--data", data, "--passphrase-file", words, "-o", shares, "--threshold", 2)
    refused("secret_file_unwritable", *split, "--owner", pems[0], "--owner", pems[1])
    assert not list(shares.iterdir())
    status, (shown,), _ = run("root-key", "show", "--data", data)
    assert status == 0 and "shares" not in [slot["kind"] for slot in shown["slots"]]


def test_owners_shares(data: Path, words: Path, tmp_path: Path) -> None:
    owners = [
        owner(tmp_path, "ada"),
        owner(tmp_path, "ben", ec.generate_private_key(ec.SECP521R1())),
        owner(tmp_path, "eve", rsa.generate_private_key(65537, 2048)),
    ]
    pems = [part for _, pem in owners for part in ("--owner", pem)]
    split = ("root-key", "split", "--data", data, "--passphrase-file", words, "-o", tmp_path / "shares")
    refused("threshold_invalid", *split, *pems, "--threshold", 4)
    refused("threshold_invalid", *split, *pems, "--threshold", 1)
    refused("owners_twice", *split, *pems[:2], *pems[:2], "--threshold", 2)
    refused("owner_key_unusable", *split, "--owner", owners[0][0], *pems, "--threshold", 2)
    weak = owner(tmp_path, "old", ec.generate_private_key(ec.SECP384R1()))
    refused("owner_key_unusable", *split, "--owner", weak[1], *pems, "--threshold", 2)
    status, files, _ = run(*split, *pems, "--threshold", 2)
    assert status == 0
    assert {Path(one["file"]).stat().st_mode & 0o777 for one in files} == {0o600}
    opened = []
    refused("share_not_yours", "root-key", "decrypt-share", files[0]["file"], "--key", owners[1][0], "-o",
            tmp_path / "no")  # fmt: skip
    for one, (key, _) in zip(files, owners, strict=True):
        to = tmp_path / f"open-{one['index']}"
        assert run("root-key", "decrypt-share", one["file"], "--key", key, "-o", to)[0] == 0
        assert to.stat().st_mode & 0o777 == 0o600
        opened.append(to)
    key = owners[0][0]
    key.chmod(0o644)
    refused("secret_file_exposed", "root-key", "decrypt-share", files[0]["file"], "--key", key, "-o", tmp_path / "no")
    recover = ("root-key", "recover", "--data", data, "--custody", "file")
    refused("shares_too_few", *recover, "--share", opened[1])
    refused("share_twice", *recover, "--share", opened[1], "--share", opened[1])
    refused("share_malformed", *recover, "--share", files[0]["file"], "--share", opened[1])
    forged = json.loads(opened[0].read_bytes())
    forged["value"] = "A" * 43 + "="
    (tmp_path / "forged").write_text(json.dumps(forged))
    (tmp_path / "forged").chmod(0o600)
    refused("share_forged", *recover, "--share", tmp_path / "forged", "--share", opened[1])
    forged["store"] = "00" * 16
    (tmp_path / "forged").write_text(json.dumps(forged))
    refused("share_foreign", *recover, "--share", opened[1], "--share", tmp_path / "forged")
    assert not (data / "root.key").exists()
    rotated = run("root-key", "rotate", "--data", data, "--passphrase-file", words)
    assert rotated[0] == 0
    status, (shown,), _ = run(*recover, "--share", opened[2], "--share", opened[0])
    assert (status, shown["file"]) == (0, str(data / "root.key"))
    store = Store.open(data, root_key=(data / "root.key").read_bytes(), now=NOW)
    rows = [json.loads(body)["row"] for body in store.audit.bodies("default", 0, 100)]
    store.close()
    assert [row["action"] for row in rows] == [
        f"root-key.{name}" for name in ("init", "split", "rotate", "recover", "add")
    ]
    assert "opened by: shares (3, 1)" in rows[3]["reasons"]


def levels(directory: Path, **options: Any) -> dict[str, str]:
    found = doctor.examine(directory, directory / "root.key", NOW, **options)
    assert all(one.cure for one in found if one.level != "ok")
    return {one.id: one.level for one in found}


def test_the_doctor_says_what_is_bad(tmp_path: Path, root: DevelopmentRoot) -> None:
    directory = tmp_path / "data"
    Store.open(directory, root_key=bytes(32), now=NOW).close()
    assert levels(directory)["root_key"] == "bad"
    (directory / "root.key").write_bytes(bytes(range(32)))
    (directory / "root.key").chmod(0o644)
    found = levels(directory, endorsements=(tmp_path / "absent",))
    assert (found["root_key"], found["files"], found["endorsements"]) == ("bad", "bad", "bad")
    (directory / "root.key").chmod(0o600)
    assert levels(directory)["root_key"] == "bad"  # another store's
    (directory / "root.key").write_bytes(bytes(32))
    found = levels(directory, endorsements=(root.endorsements,))
    assert (found["root_key"], found["recovery"], found["files"], found["endorsements"]) == ("weak", "weak", "ok", "ok")
    late = doctor.examine(directory, directory / "root.key", NOW + timedelta(days=60), (root.endorsements,))
    assert next(one.level for one in late if one.id == "endorsements") == "bad"
    (directory / "broker.json").write_text(json.dumps({"url": "http://192.0.2.1:80", "environment": "test"}))
    found = levels(directory)
    assert (found["tls"], found["environment"]) == ("bad", "weak")
    (directory / "admin.token").symlink_to("/dev/null")
    assert levels(directory)["files"] == "bad"
    (directory / FILE).write_bytes(b"noise" * 1000)
    assert levels(directory)["store"] == "bad"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> DevelopmentRoot:
    return rig.make_root(tmp_path_factory.mktemp("root"))


def test_the_doctors_answer(data: Path) -> None:
    status, lines, _ = run("doctor", "--data", data)
    assert status in {0, 1}
    assert {line["id"] for line in lines} >= {"root_key", "recovery", "files", "swap", "core_dumps", "clock", "disk"}
    assert all(line["level"] in {"ok", "weak", "bad"} for line in lines)
    assert next(line for line in lines if line["id"] == "root_key")["level"] == "ok"
