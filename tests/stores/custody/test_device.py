"""A slot in an HSM (SoftHSM2) by the key of a device: its key opens it, another one and another context do not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from adyton.errors import ConfigError
from adyton.stores.custody.holders import key_holder

MODULE = Path("/usr/lib/softhsm/libsofthsm2.so")
# In a process of its own: the module reads its configuration once a process.
STORY = """
import json, sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from adyton.errors import AdytonError
from adyton.stores import rootkey
from adyton.stores.backends.port import KeyKind
from adyton.stores.custody import keyring, slots
from adyton.stores.custody.device import DeviceCustodian
from adyton.stores.custody.holders import key_holder
from adyton.stores.custody.keyring import Openers
from adyton.stores.database import SqliteDatabase
from adyton.stores.sqlite import FILE, Store

place = Path(sys.argv[1])
now = datetime(2026, 11, 21, 6, 0, tzinfo=UTC)
said = {}

def code(action):
    try:
        action()
    except AdytonError as error:
        return error.code
    return "done"

holder = key_holder(place / "hsm.toml")
for kind in (KeyKind.AES_256, KeyKind.RSA_2048):
    key, other = holder.generate(kind, "root"), holder.generate(kind, "other")
    custodian = DeviceCustodian(holder, key, "hsm")
    kept = custodian.seal(bytes(range(32)), b"slot")
    said[kind.value] = [
        custodian.open(kept, b"slot") == bytes(range(32)),
        kept.details["bound"],
        code(lambda: custodian.open(kept, b"other")) if kept.details["bound"] else "bound by the row",
        code(lambda: custodian.open(replace(kept, details={**kept.details, "handle": other}), b"slot")),
        code(lambda: custodian.open(replace(kept, sealed=kept.sealed[:-1] + bytes([kept.sealed[-1] ^ 1])), b"slot")),
        bytes(range(32)) in kept.sealed,
    ]
    plain = place / f"{kind.value}.key"
    root_key, _ = rootkey.load_or_create(plain)
    directory = place / kind.value
    Store.open(directory, root_key=root_key, now=now).close()
    database = SqliteDatabase(directory / FILE)
    opened = keyring.unlock(database, plain, Openers())
    keyring.add(database, opened, lambda root, store: slots.make("hsm", custodian, root, store, now))
    done = keyring.rotate(database, opened, plain, now, keep_plain=False)
    found = keyring.unlock(database, plain, Openers(holders=lambda name: holder))
    said[kind.value] += [found.by, found.root_key == done.root_key != root_key]
    said[kind.value].append(code(lambda: keyring.unlock(database, plain, Openers())))
    database.close()
holder.close()
print(json.dumps(said))
"""


@pytest.mark.skipif(not MODULE.exists(), reason="needs SoftHSM2")
def test_the_slot_of_a_token(tmp_path: Path) -> None:
    (tmp_path / "tokens").mkdir()
    configuration = tmp_path / "softhsm2.conf"
    configuration.write_text(f"directories.tokendir = {tmp_path}/tokens\nobjectstore.backend = file\n")
    (tmp_path / "pin").write_text("a1b2c3d4\n")
    (tmp_path / "pin").chmod(0o600)
    (tmp_path / "hsm.toml").write_text(
        f'kind = "pkcs11"\nmodule = "{MODULE}"\ntoken = "adyton"\npin_file = "{tmp_path}/pin"\noaep_hash = "sha-1"\n'
    )
    environment = {"SOFTHSM2_CONF": str(configuration), "PATH": "/usr/bin:/bin"}
    subprocess.run(
        ["softhsm2-util", "--init-token", "--free", "--label", "adyton", "--pin", "a1b2c3d4", "--so-pin", "87654321"],
        check=True, capture_output=True, env=environment,
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", STORY, str(tmp_path)], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout)
    after = [False, "hsm", True, "root_key_locked"]
    assert said["aes-256"] == [True, True, "ciphertext_refused", "ciphertext_refused", "ciphertext_refused", *after]
    assert said["rsa-2048"] == [
        True, False, "bound by the row", "ciphertext_refused", "ciphertext_refused", *after
    ]  # fmt: skip


@pytest.mark.parametrize(
    "content", ["", "kind = 1", 'kind = "abacus"', 'kind = "pkcs11"', 'kind = "pkcs11"\nunknown = 1', "\xff", "[kind"]
)
def test_options_that_are_none(tmp_path: Path, content: str) -> None:
    file = tmp_path / "hsm.toml"
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(ConfigError) as caught:
        key_holder(file)
    assert caught.value.code == "device_options"


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        key_holder(tmp_path / "absent.toml")
