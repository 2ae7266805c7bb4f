"""A slot in an HSM (SoftHSM2) by the key of a device: its key opens it, another one and another context do not."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer
from tests.stores.backends import kmip_server
from tests.stores.backends.certificates import Authority
from tests.stores.backends.vault_server import VaultServer

from adyton.errors import AdytonError, ConfigError
from adyton.stores import rootkey
from adyton.stores.backends.aws import Aws
from adyton.stores.backends.configured import Backends
from adyton.stores.backends.options import AwsOptions, VaultOptions
from adyton.stores.backends.port import KeyHolder, KeyKind
from adyton.stores.backends.vault import Vault
from adyton.stores.custody import keyring, slots
from adyton.stores.custody.device import DeviceCustodian
from adyton.stores.custody.keyring import Openers
from adyton.stores.custody.port import Kept
from adyton.stores.database import SqliteDatabase
from adyton.stores.sqlite import FILE, Store

NOW = datetime(2026, 11, 21, tzinfo=UTC)
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
from adyton.stores.backends.configured import Backends
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

holder = Backends.read(str(place / "backends.toml")).key_holder("hsm")
rsa = holder.generate(KeyKind.RSA_2048, "root")
said["rsa-2048"] = code(lambda: DeviceCustodian(holder, rsa, "hsm").seal(bytes(32), b"slot"))
for kind in (KeyKind.AES_256,):
    key, other = holder.generate(kind, "root"), holder.generate(kind, "other")
    custodian = DeviceCustodian(holder, key, "hsm")
    kept = custodian.seal(bytes(range(32)), b"slot")
    said[kind.value] = [
        custodian.open(kept, b"slot") == bytes(range(32)),
        code(lambda: custodian.open(kept, b"other")),
        code(lambda: custodian.open(replace(kept, sealed=holder.encrypt(rsa, bytes(32)), details={**kept.details, "handle": rsa}), b"slot")),
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
    (tmp_path / "backends.toml").write_text(
        f'[backends.hsm]\nkind = "pkcs11"\nmodule = "{MODULE}"\ntoken = "adyton"\npin_file = "{tmp_path}/pin"\noaep_hash = "sha-1"\n'
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
    assert said["aes-256"] == [
        True, "ciphertext_refused", "not_by_this_device", "ciphertext_refused", "ciphertext_refused", *after
    ]  # fmt: skip
    assert said["rsa-2048"] == "custody_unauthenticated"


def kept_and_opened(holder: KeyHolder) -> None:
    key, other = holder.generate(KeyKind.AES_256, "root"), holder.generate(KeyKind.AES_256, "other")
    custodian = DeviceCustodian(holder, key, "device")
    kept = custodian.seal(bytes(range(32)), b"slot")
    for wrong, context in (
        (kept, b"another slot"),
        (replace(kept, details={**kept.details, "handle": other}), b"slot"),
        (replace(kept, sealed=kept.sealed[:-1] + bytes([kept.sealed[-1] ^ 1])), b"slot"),
    ):
        with pytest.raises(AdytonError):
            custodian.open(wrong, context)
    for damaged in ({}, {"handle": 1}, {"handle": None}):
        with pytest.raises(ConfigError):
            custodian.open(Kept(kept.sealed, dict(damaged)), b"slot")
    assert custodian.open(kept, b"slot") == bytes(range(32))


def test_the_slot_of_vaults_transit_engine(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("steward\n")
    (tmp_path / "token").chmod(0o600)
    with VaultServer() as server:
        holder = Vault(VaultOptions(url=server.url, token_file=str(tmp_path / "token")))
        kept_and_opened(holder)
        holder.close()


def test_the_slot_of_aws_kms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    credentials = tmp_path / "credentials"
    credentials.write_text("[default]\naws_access_key_id = AKIAEXAMPLE\naws_secret_access_key = very-secret-key\n")
    credentials.chmod(0o600)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        holder = Aws(AwsOptions(region="eu-central-1", endpoint_url=endpoint, credentials_file=str(credentials)))
        kept_and_opened(holder)
        holder.close()
    finally:
        server.stop()


def code_of(call: Callable[[], object]) -> str:
    with pytest.raises(AdytonError) as caught:
        call()
    return caught.value.code


def test_the_slot_of_a_kmip_server(tmp_path: Path) -> None:
    """A store whose root key only the server opens: through its restart, and not without it or by a stranger."""
    authority = Authority(tmp_path, "ours")
    (tmp_path / "kmip").mkdir()
    with kmip_server.serving(tmp_path / "kmip", authority) as options:
        (tmp_path / "backends.toml").write_text(
            f'[backends.kms]\nkind = "kmip"\nhost = "127.0.0.1"\nport = {options.port}\nseconds = 2.0\n'
            f'certificate = "{options.certificate}"\nprivate_key = "{options.private_key}"\nca_file = "{options.ca_file}"\n'
        )
        backends = Backends.read(str(tmp_path / "backends.toml"))
        holder = backends.key_holder("kms")
        kept_and_opened(holder)
        rsa = holder.generate(KeyKind.RSA_2048, "root")
        assert code_of(lambda: DeviceCustodian(holder, rsa, "kms").seal(bytes(32), b"slot")) != ""
        custodian = DeviceCustodian(holder, holder.generate(KeyKind.AES_256, "root"), "kms")
        directory, plain = tmp_path / "data", tmp_path / "root.key"
        root_key, _ = rootkey.load_or_create(plain)
        Store.open(directory, root_key=root_key, now=NOW).close()
        database = SqliteDatabase(directory / FILE)
        opened = keyring.unlock(database, plain, Openers())
        assert opened is not None
        keyring.add(database, opened, lambda root, store: slots.make("kms", custodian, root, store, NOW))
        done = keyring.rotate(database, opened, plain, NOW, keep_plain=False)
        assert not plain.exists() and done.root_key != root_key
        openers = Openers(holders=backends.key_holder)
        found = keyring.unlock(database, plain, openers)
        assert found is not None and (found.by, found.root_key) == ("kms", done.root_key)
        backends.close()
    assert code_of(lambda: keyring.unlock(database, plain, openers)) in {"backend_unreachable", "backend_slow"}
    with kmip_server.serving(tmp_path / "kmip", authority, options.port):
        again = Backends.read(str(tmp_path / "backends.toml"))
        found = keyring.unlock(database, plain, Openers(holders=again.key_holder))
        assert found is not None and found.root_key == done.root_key
        Store.open(directory, root_key=found.root_key, now=NOW).close()
        again.close()
    assert code_of(lambda: keyring.unlock(database, plain, Openers())) == "root_key_locked"
    strangers, other = Authority(tmp_path, "strangers"), tmp_path / "other"
    other.mkdir()
    with kmip_server.serving(other, strangers, options.port):  # it listens where ours did
        third = Backends.read(str(tmp_path / "backends.toml"))
        refused = code_of(lambda: keyring.unlock(database, plain, Openers(holders=third.key_holder)))
        assert refused in {"root_key_locked", "backend_certificate_refused"}
        third.close()
    database.close()
