"""A slot in a TPM (swtpm): the same start opens it, another one does not, and there is a way back."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests import ports
from tests.waiting import LONG, until

from adyton.errors import AdytonError, ConfigError, Unavailable
from adyton.stores import rootkey
from adyton.stores.custody import keyring, slots, tpm
from adyton.stores.custody.keyring import Openers
from adyton.stores.custody.passphrase import Cost, PassphraseCustodian
from adyton.stores.custody.tpm import TpmCustodian
from adyton.stores.database import SqliteDatabase
from adyton.stores.sqlite import FILE, Store

pytestmark = pytest.mark.skipif(
    not (shutil.which("swtpm") and shutil.which("tpm2_unseal")), reason="needs swtpm and tpm2-tools"
)
SECRET = bytes(range(32))
NOW = datetime(2026, 11, 21, 6, 0, tzinfo=UTC)
PCR = (16,)


class Machine:
    """A software TPM as a process; it can be started again, with its PCRs as after power on."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.process: subprocess.Popen[bytes] | None = None
        self.port = ports.reserve_two()
        self.control = self.port + 1  # where tpm2-tools look for it

    @property
    def tcti(self) -> str:
        return f"swtpm:host=127.0.0.1,port={self.port}"

    def start(self) -> None:
        self.process = subprocess.Popen(
            [
                *("swtpm", "socket", "--tpm2", "--tpmstate", f"dir={self.state}"),
                *("--flags", "startup-clear,not-need-init"),
                *("--server", f"type=tcp,port={self.port},bindaddr=127.0.0.1"),
                *("--ctrl", f"type=tcp,port={self.control},bindaddr=127.0.0.1"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        environment = {"PATH": os.environ["PATH"], "TPM2TOOLS_TCTI": self.tcti, "TSS2_LOG": "all+NONE"}
        asked = ["tpm2_getrandom", "1"]
        try:
            until(
                lambda: subprocess.run(asked, env=environment, capture_output=True).returncode == 0,
                what="swtpm does not start",
            )
        except AssertionError:
            self.stop()
            raise

    def stop(self) -> None:
        assert self.process is not None
        self.process.terminate()
        self.process.wait(LONG)

    def extend(self, value: str = "11" * 32) -> None:
        environment = {"PATH": os.environ["PATH"], "TPM2TOOLS_TCTI": self.tcti}
        subprocess.run(["tpm2_pcrextend", f"16:sha256={value}"], env=environment, check=True)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    (tmp_path / "tpm").mkdir()
    made = Machine(tmp_path / "tpm")
    made.start()
    yield made
    made.stop()


def test_another_start_is_refused_and_names_the_register(machine: Machine) -> None:
    custodian = TpmCustodian(machine.tcti, PCR)
    kept = custodian.seal(SECRET, b"slot")
    machine.extend()
    with pytest.raises(ConfigError) as caught:
        custodian.open(kept, b"slot")
    assert (caught.value.code, caught.value.field) == ("tpm_pcr_changed", "PCR 16")


def test_the_tpm_refuses_where_the_row_was_made_to_agree(machine: Machine) -> None:
    """Whoever writes the store can change what the row says of the registers, not what the TPM compares."""
    custodian = TpmCustodian(machine.tcti, PCR)
    kept = custodian.seal(SECRET, b"slot")
    machine.extend()
    lying = replace(kept, details={**kept.details, "pcrs": custodian.seal(SECRET, b"slot").details["pcrs"]})
    with pytest.raises(ConfigError) as caught:
        custodian.open(lying, b"slot")
    assert caught.value.code == "tpm_pcr_changed"


def test_another_slot_and_a_flipped_bit_are_refused(machine: Machine) -> None:
    custodian = TpmCustodian(machine.tcti, PCR)
    kept = custodian.seal(SECRET, b"slot")
    with pytest.raises(ConfigError) as caught:
        custodian.open(kept, b"other slot")
    assert caught.value.code == "slot_changed"
    broken = bytearray(kept.sealed)
    broken[-1] ^= 1
    with pytest.raises(ConfigError):
        custodian.open(replace(kept, sealed=bytes(broken)), b"slot")
    assert custodian.open(kept, b"slot") == SECRET


def test_another_tpm_is_refused(machine: Machine, tmp_path: Path) -> None:
    kept = TpmCustodian(machine.tcti, PCR).seal(SECRET, b"slot")
    (tmp_path / "other").mkdir()
    other = Machine(tmp_path / "other")
    other.start()
    try:
        with pytest.raises(ConfigError) as caught:
            TpmCustodian(other.tcti, PCR).open(kept, b"slot")
        assert caught.value.code == "tpm_other"
    finally:
        other.stop()


def test_no_tpm_there() -> None:
    with pytest.raises(Unavailable) as caught:
        TpmCustodian("swtpm:host=127.0.0.1,port=1", PCR).seal(SECRET, b"slot")
    assert caught.value.code == "tpm_failed"


@pytest.mark.parametrize("tcti", ["", "device:/dev/x y", "cmd:nc", "-x", "device:" + "a" * 300, "swtpm:\n"])
def test_addresses_that_are_none(tcti: str) -> None:
    with pytest.raises(ConfigError):
        TpmCustodian(tcti)


@pytest.mark.parametrize("pcrs", [(), (24,), (-1,), (7, 7)])
def test_registers_that_are_none(pcrs: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError):
        TpmCustodian(tpm.DEFAULT_TCTI, pcrs)


def test_the_same_start_opens_it_again(machine: Machine) -> None:
    custodian = TpmCustodian(machine.tcti, PCR)
    kept = custodian.seal(SECRET, b"slot")
    machine.extend()
    machine.stop()
    machine.start()
    assert custodian.open(kept, b"slot") == SECRET
    assert SECRET not in kept.sealed


def test_after_a_change_of_firmware_another_slot_is_the_way_back(machine: Machine, tmp_path: Path) -> None:
    plain = tmp_path / "root.key"
    key, _ = rootkey.load_or_create(plain)
    Store.open(tmp_path, root_key=key, now=NOW).close()
    database = SqliteDatabase(tmp_path / FILE)
    try:
        opened = keyring.unlock(database, plain, Openers())
        assert opened is not None
        custodian = TpmCustodian(machine.tcti, PCR)
        words = PassphraseCustodian(b"correct horse battery", Cost(19 * 1024, 2, 1))
        keyring.add(database, opened, lambda root, store: slots.make("tpm", custodian, root, store, NOW))
        keyring.add(database, opened, lambda root, store: slots.make("words", words, root, store, NOW))
        plain.unlink()
        here = Openers(passphrase=lambda: b"correct horse battery", tcti=machine.tcti)
        found = keyring.unlock(database, plain, here)
        assert found is not None
        assert found.by == "tpm"
        machine.extend()
        found = keyring.unlock(database, plain, here)
        assert found is not None
        assert (found.by, found.root_key) == ("words", key)
        with pytest.raises(AdytonError) as caught:
            keyring.unlock(database, plain, Openers(tcti=machine.tcti))
        assert "tpm_pcr_changed" in str(caught.value.got)
        keyring.add(database, found, lambda root, store: slots.make("tpm", custodian, root, store, NOW), replace=True)
        again = keyring.unlock(database, plain, Openers(tcti=machine.tcti))
        assert again is not None
        assert again.by == "tpm"
    finally:
        database.close()
