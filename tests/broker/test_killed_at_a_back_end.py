"""A broker that is killed between a back end's write and its own row: afterwards the row is there, or the other thing is gone."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.broker import rig
from tests.stores.backends.vault_server import VaultServer
from tests.waiting import until

from adyton.client.keys import Keys
from adyton.devtee.root import DevelopmentRoot
from adyton.errors import AdytonError, NotFound
from adyton.protocol.keys import NewKey
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath

PATH = ResourcePath("default", "key", "held")


@pytest.fixture
def vault() -> Iterator[VaultServer]:
    with VaultServer() as server:
        yield server


@pytest.fixture
def holding(tmp_path: Path, root: DevelopmentRoot, vault: VaultServer) -> Iterator[rig.RunningBroker]:
    (tmp_path / "token").write_text("steward\n")
    (tmp_path / "token").chmod(0o600)
    (tmp_path / "backends.toml").write_text(
        f'[backends.vault]\nkind = "vault"\nurl = "{vault.url}"\ntoken_file = "token"\n'
    )
    running = rig.started(tmp_path / "data", root, "--backends", str(tmp_path / "backends.toml"))
    yield running
    running.stop()


def kill_when(vault: VaultServer, broker: rig.RunningBroker, method: str, part: str) -> None:
    """As soon as Vault has done such a request, and before it says so."""

    def look(asked: str, path: str) -> None:
        if asked == method and part in path and broker.process is not None:
            vault.after = lambda *_: None
            os.kill(broker.process.pid, signal.SIGKILL)
            broker.process.wait()

    vault.after = look


def left(broker: rig.RunningBroker) -> int:
    with broker.admin() as admin:
        return sum(view.waiting + view.unfinished for view in admin.backends())


def standing(vault: VaultServer) -> list[int]:
    found = vault.secrets.get(f"adyton/default/{PATH}")
    return [] if found is None else [number for number, one in found.versions.items() if not one["destroyed"]]


@pytest.mark.slow
def test_a_value(holding: rig.RunningBroker, vault: VaultServer) -> None:
    kill_when(vault, holding, "POST", "/data/")
    with pytest.raises(AdytonError), holding.admin() as admin:
        admin.set_resource(PATH, b"first", Binding(any_workload_i_accept=True), "vault")
    assert standing(vault) == [1]
    holding.kill()
    until(lambda: not standing(vault) and not left(holding), 30)
    with holding.admin() as admin:
        with pytest.raises(NotFound):
            admin.show_resource(PATH)
        admin.set_resource(PATH, b"second", Binding(any_workload_i_accept=True), "vault")
        assert standing(vault) == [2]
    kill_when(vault, holding, "GET", "/data/")  # it was written and read back, and there is no row yet
    with pytest.raises(AdytonError), holding.admin() as admin:
        admin.set_resource(PATH, b"third", Binding(any_workload_i_accept=True), "vault")
    holding.kill()
    until(lambda: standing(vault) == [2] and not left(holding), 30)
    with holding.admin() as admin:
        assert admin.show_resource(PATH).size == len(b"second")


@pytest.mark.slow
def test_a_key(holding: rig.RunningBroker, vault: VaultServer) -> None:
    kill_when(vault, holding, "POST", "transit/keys/")
    new = NewKey("aes-256", backend="vault", owner_operations=["encrypt"])
    with pytest.raises(AdytonError), holding.admin() as admin:
        Keys(admin).create(PATH, new)
    assert len(vault.keys) == 1
    holding.kill()
    until(lambda: not vault.keys and not left(holding), 30)
    with holding.admin() as admin:
        keys = Keys(admin)
        keys.create(PATH, new)
        assert len(vault.keys) == 1
    kill_when(vault, holding, "POST", "transit/keys/")
    with pytest.raises(AdytonError), holding.admin() as admin:
        Keys(admin).rotate(PATH)
    assert len(vault.keys) == 2
    holding.kill()
    until(lambda: len(vault.keys) == 1 and not left(holding), 30)
    with holding.admin() as admin:
        assert len(Keys(admin).show(PATH).versions) == 1
        admin.backends()
