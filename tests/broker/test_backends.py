"""Resources whose values lie in a back end: released like others, and what a bad or slow back end can do. Nothing."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.broker import rig
from tests.stores.backends.vault_server import VaultServer
from tests.waiting import LONG, until

from adyton.crypto import jwe
from adyton.devtee.root import DevelopmentRoot
from adyton.errors import AdytonError, MalformedRequest, NotFound
from adyton.protocol.people import DeleteTenantBody
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath

BINDING = Binding(workloads=[str(rig.document().digest)])
PATH = ResourcePath("default", "key", "held")
OTHER = ResourcePath("default", "key", "other")
HERE = ResourcePath("default", "key", "here")
HANGING = ResourcePath("default", "key", "hanging")
STEWARD = {"X-Vault-Token": "steward"}


@pytest.fixture(scope="module")
def vault() -> Iterator[VaultServer]:
    with VaultServer() as server:
        yield server


@pytest.fixture(autouse=True)
def quiet(vault: VaultServer) -> Iterator[None]:
    yield
    vault.before = lambda *_: None
    vault.sealed = False


@pytest.fixture(scope="module")
def holding(
    tmp_path_factory: pytest.TempPathFactory, root: DevelopmentRoot, vault: VaultServer
) -> Iterator[rig.RunningBroker]:
    place = tmp_path_factory.mktemp("holding")
    (place / "token").write_text("steward\n")
    (place / "token").chmod(0o600)
    (place / "backends.toml").write_text(f"""
[backends.vault]
kind = "vault"
url = "{vault.url}"
token_file = "token"
seconds = 20.0

[backends.hasty]
kind = "vault"
url = "{vault.url}"
token_file = "token"
prefix = "hasty"
seconds = 1.0

[backends.theirs]
kind = "vault"
url = "{vault.url}"
token_file = "token"
tenants = ["acme"]
prefix = "theirs"

[backends.broken]
kind = "vault"
url = "{vault.url}"
token_file = "none"
""")
    running = rig.started(place / "data", root, "--backends", str(place / "backends.toml"))
    running.publish()
    running.publish("acme")
    yield running
    running.stop()


def _get(broker: rig.RunningBroker, root: DevelopmentRoot, path: ResourcePath, tenant: str = "default") -> bytes:
    with broker.session(rig.attester(root, rig.document()), rig.document(), tenant) as session:
        return session.resource(path)


def _refused(broker: rig.RunningBroker, root: DevelopmentRoot, path: ResourcePath) -> tuple[int, str]:
    """Status and code of a release, by hand; the code is in the audit log."""
    with rig.raw(broker) as client:
        client.handshake(rig.attester(root, rig.document()), rig.document())
        status, body, _ = client.ask("GET", f"/kbs/v0/resource/{path}")
    assert b"value" not in body or status != 200
    with broker.admin() as admin:
        row = admin.audit(limit=1)[0]["row"]
    return status, row["reasons"][0].partition(":")[0]


def _stored(vault: VaultServer, path: ResourcePath = PATH, tenant: str = "default") -> dict[int, Any]:
    return vault.secrets[f"adyton/{tenant}/{path}"].versions


def test_a_value_goes_to_the_back_end_sealed_and_comes_back(
    holding: rig.RunningBroker, root: DevelopmentRoot, vault: VaultServer
) -> None:
    with holding.admin() as admin:
        view = admin.set_resource(PATH, rig.SECRET, BINDING, "vault")
        assert view.backend == "vault" and view.size == len(rig.SECRET) and not view.foreign_plain_value
        assert admin.show_resource(PATH).backend == "vault"
    held = json.dumps(vault.secrets[f"adyton/default/{PATH}"].versions[1]["data"])
    assert base64.b64encode(rig.SECRET).decode()[:12] not in held and "temple" not in held
    assert rig.SECRET not in (holding.data / "broker.sqlite").read_bytes()
    assert _get(holding, root, PATH) == rig.SECRET
    with holding.admin() as admin:
        admin.bind_resource(PATH, Binding())
    assert _refused(holding, root, PATH)[0] == 403
    with holding.admin() as admin:
        admin.bind_resource(PATH, BINDING)
        admin.set_resource(PATH, b"second", BINDING, "vault")
    assert _get(holding, root, PATH) == b"second"
    assert _stored(vault)[1]["destroyed"]  # what nothing points to any more is gone
    holding.kill()
    assert _get(holding, root, PATH) == b"second"
    with holding.admin() as admin:
        admin.set_resource(PATH, b"third", BINDING)  # back into the store
    assert _get(holding, root, PATH) == b"third" and all(one["destroyed"] for one in _stored(vault).values())
    with holding.admin() as admin:
        admin.set_resource(PATH, b"fourth", BINDING, "vault")
        admin.delete_resource(PATH)
        with pytest.raises(NotFound):
            admin.show_resource(PATH)
    assert all(one["destroyed"] for one in _stored(vault).values())


def test_a_dishonest_back_end_cannot_pass_one_value_off_as_another(
    holding: rig.RunningBroker, root: DevelopmentRoot, vault: VaultServer
) -> None:
    with holding.admin() as admin, holding.admin("acme") as acme:
        admin.set_resource(PATH, b"ours", BINDING, "vault")
        admin.set_resource(OTHER, b"other", BINDING, "vault")
        acme.set_resource(PATH, b"theirs", BINDING, "vault")
    held = max(_stored(vault))
    good = _stored(vault)[held]["data"]
    wrong: list[Any] = [
        _stored(vault, OTHER)[max(_stored(vault, OTHER))]["data"],  # another path's
        _stored(vault, PATH, "acme")[max(_stored(vault, PATH, "acme"))]["data"],  # another tenant's
        {"adyton": base64.b64encode(b"plain").decode()},
        {"value": "plain"},
        {"adyton": good["adyton"][:-8] + "AAAAAAA="},
    ]
    with holding.admin() as admin:
        admin.set_resource(PATH, b"newer", BINDING, "vault")
    newest = max(_stored(vault))
    wrong.append(good)  # an older version of the very same resource
    for data in wrong:
        _stored(vault)[newest]["data"] = data
        assert _refused(holding, root, PATH) == (503, "backend_value_swapped"), data
    vault.secrets.pop(f"adyton/default/{PATH}")
    assert _refused(holding, root, PATH) == (503, "backend_value_lost")


def test_a_back_end_that_lies_when_it_is_written_to_is_found_out(
    holding: rig.RunningBroker, vault: VaultServer
) -> None:
    with holding.admin() as admin:
        admin.set_resource(PATH, b"good", BINDING, "vault")
        before = admin.show_resource(PATH)

        def lose(method: str, path: str) -> bytes | None:
            if method == "GET" and "/data/" in path:
                return b'HTTP/1.1 404 X\r\nContent-Length: 13\r\nConnection: close\r\n\r\n{"errors":[]}'
            return None

        vault.before = lose
        with pytest.raises(AdytonError) as caught:
            admin.set_resource(PATH, b"lost", BINDING, "vault")
        assert "backend_value_swapped" in str(caught.value) or caught.value.code == "backend_value_swapped"
        assert admin.show_resource(PATH) == before


def test_a_back_end_that_is_down_refuses_and_is_named(
    holding: rig.RunningBroker, root: DevelopmentRoot, vault: VaultServer
) -> None:
    with holding.admin() as admin:
        admin.set_resource(PATH, b"value", BINDING, "vault")
    vault.sealed = True
    assert _refused(holding, root, PATH) == (503, "vault_sealed")
    with holding.admin() as admin:
        views = {view.name: view for view in admin.backends()}
        assert not views["vault"].ok and views["vault"].code == "vault_sealed"
        assert views["broken"].code == "backend_file_unreadable" and "theirs" not in views
    vault.sealed = False
    assert _get(holding, root, PATH) == b"value"
    with holding.admin("acme") as admin:
        assert {view.name: view.ok for view in admin.backends()} == {
            "vault": True, "hasty": True, "theirs": True, "broken": False,
        }  # fmt: skip


def test_a_back_end_of_another_tenant_is_not_there(holding: rig.RunningBroker) -> None:
    with holding.admin() as admin:
        for name in ("theirs", "nobody", "../vault"):
            with pytest.raises(NotFound) as caught:
                admin.set_resource(OTHER, b"value", BINDING, name)
            assert caught.value.code == "backend_absent"
        with pytest.raises(MalformedRequest):
            admin.set_resource(OTHER, b"value", BINDING, "vault", foreign=True)
        with pytest.raises(MalformedRequest):
            admin.set_resource(OTHER, b"", BINDING, foreign=True)
        with pytest.raises(AdytonError):
            admin.set_resource(OTHER, bytes(64 * 1024), BINDING, "vault")


def test_a_foreign_plain_value_is_what_the_back_end_says(
    holding: rig.RunningBroker, root: DevelopmentRoot, vault: VaultServer
) -> None:
    path = ResourcePath("default", "password", "db")
    with holding.admin() as admin:
        with pytest.raises(NotFound) as caught:
            admin.set_resource(path, b"", BINDING, "vault", foreign=True)
        assert caught.value.code == "backend_value_absent"
        where = f"/v1/secret/data/adyton/default/{path}"
        vault.answer("POST", where, STEWARD, b'{"data": {"value": "hunter2"}}')
        view = admin.set_resource(path, b"", BINDING, "vault", foreign=True)
        assert view.foreign_plain_value and view.size == 7
        assert _get(holding, root, path) == b"hunter2"
        vault.answer("POST", where, STEWARD, b'{"data": {"value": "hunter3"}}')
        assert _get(holding, root, path) == b"hunter3"  # never remembered
        admin.delete_resource(path)
    assert f"adyton/default/{path}" in vault.secrets  # it is theirs


def test_a_hanging_back_end_holds_up_nobody_else(
    holding: rig.RunningBroker, root: DevelopmentRoot, vault: VaultServer
) -> None:
    with holding.admin() as admin:
        admin.set_resource(HANGING, b"value", BINDING, "hasty")
        admin.set_resource(HERE, b"here", BINDING)
    hold = threading.Event()
    hanging: list[int] = []

    def hang(*_: str) -> None:
        hanging.append(1)
        hold.wait(2 * LONG)

    vault.before = hang
    answers: list[tuple[int, str]] = []
    clients = [threading.Thread(target=lambda: answers.append(_refused(holding, root, HANGING))) for _ in range(12)]
    for waiting in clients:
        waiting.start()
    until(lambda: hanging)
    took: list[float] = []
    with rig.raw(holding) as client:
        _, key = client.handshake(rig.attester(root, rig.document()), rig.document())
        for _ in range(20):
            began = time.monotonic()
            status, body, _ = client.ask("GET", f"/kbs/v0/resource/{HERE}")
            took.append(time.monotonic() - began)
            assert status == 200 and jwe.decrypt(key, body) == b"here"
    with holding.admin() as admin:  # administration goes on, too
        began = time.monotonic()
        admin.list_resources()
        assert time.monotonic() - began < 5
    assert sorted(took)[10] < 0.5, "most of them, on a machine that does much else"
    for waiting in clients:
        waiting.join(2 * LONG)
    assert len(answers) == 12 and {status for status, _ in answers} == {503}
    hold.set()
    vault.before = lambda *_: None
    with holding.admin() as admin:  # the breaker lets one call through after its pause
        until(lambda: all(view.ok for view in admin.backends() if view.name == "hasty"))
    assert _get(holding, root, HANGING) == b"value"


def test_what_is_acknowledged_while_a_value_is_on_its_way_counts(
    holding: rig.RunningBroker, root: DevelopmentRoot, vault: VaultServer
) -> None:
    with holding.admin() as admin:
        admin.set_resource(PATH, b"value", BINDING, "vault")
    asked, go = threading.Event(), threading.Event()

    def slowly(method: str, path: str) -> None:
        if method == "GET" and "/data/" in path:
            asked.set()
            go.wait(LONG)

    vault.before = slowly
    answers: list[tuple[int, str]] = []
    client = threading.Thread(target=lambda: answers.append(_refused(holding, root, PATH)))
    client.start()
    assert asked.wait(LONG)
    with holding.admin() as admin:
        admin.bind_resource(PATH, Binding())
    go.set()
    client.join(LONG)
    assert answers[0][0] == 403


def test_a_binding_that_ends_while_a_value_is_on_its_way_has_ended(
    holding: rig.RunningBroker, root: DevelopmentRoot, vault: VaultServer
) -> None:
    """The decision was made before the end; the back end takes its time until after it."""
    asked: list[float] = []

    def slowly(method: str, path: str) -> None:
        if method == "GET" and "/data/" in path:
            asked.append(time.time())
            time.sleep(max(0.0, end - time.time()) + 0.1)

    with rig.raw(holding) as client, holding.admin() as admin:
        client.handshake(rig.attester(root, rig.document()), rig.document())
        admin.set_resource(OTHER, rig.SECRET, BINDING, "vault")
        end = time.time() + 3
        until_then = datetime.fromtimestamp(end, UTC).isoformat(timespec="microseconds")
        admin.bind_resource(OTHER, msgspec.structs.replace(BINDING, until=until_then))
        vault.before = slowly
        assert client.ask("GET", f"/kbs/v0/resource/{OTHER}")[0] == 403
        assert admin.audit(limit=1)[0]["row"]["reasons"][0].startswith("binding_ended")
    assert len(asked) == 1 and asked[0] < end


def test_a_file_that_is_wrong_stops_the_start(tmp_path: Path) -> None:
    path = tmp_path / "backends.toml"
    path.write_text("[backends.x]\nkind = 'floppy'\n")
    for mode, code in ((0o600, "backends_file_invalid"), (0o666, "backend_config_exposed")):
        path.chmod(mode)
        with pytest.raises(RuntimeError) as caught:
            rig.started(tmp_path / "data", None, "--workers", "2", "--backends", str(path))
        assert code in str(caught.value)


def _waits(broker: rig.RunningBroker, tenant: str = "default") -> dict[str, int]:
    with broker.admin(tenant) as admin:
        return {view.name: view.waiting for view in admin.backends() if view.waiting}


def _held(vault: VaultServer, path: ResourcePath, tenant: str = "default") -> list[int]:
    found = vault.secrets.get(f"adyton/{tenant}/{path}")
    return [number for number, one in found.versions.items() if not one["destroyed"]] if found is not None else []


def test_what_a_back_end_could_not_remove_goes_once_it_answers_again(
    holding: rig.RunningBroker, root: DevelopmentRoot, vault: VaultServer
) -> None:
    replaced, deleted = ResourcePath("late", "key", "replaced"), ResourcePath("late", "key", "deleted")
    foreign = ResourcePath("late", "key", "foreign")
    with holding.admin() as admin, holding.admin("acme") as acme:
        assert not _waits(holding) and not _waits(holding, "acme")
        for path in (replaced, deleted):
            admin.set_resource(path, b"old", BINDING, "vault")
        acme.set_resource(deleted, b"theirs", BINDING, "vault")
        vault.answer("POST", f"/v1/secret/data/adyton/default/{foreign}", STEWARD, b'{"data": {"value": "x"}}')
        admin.set_resource(foreign, b"", BINDING, "vault", foreign=True)
        vault.sealed = True
        admin.set_resource(replaced, b"here", BINDING)
        admin.delete_resource(deleted)
        admin.delete_resource(foreign)
        acme.delete_resource(deleted)
    assert _get(holding, root, replaced) == b"here"
    assert _waits(holding) == {"vault": 2} and _waits(holding, "acme") == {"vault": 1}  # each its own, nobody else's
    assert _held(vault, replaced) and _held(vault, deleted) and _held(vault, deleted, "acme")
    holding.kill()  # what is to be removed is not forgotten with the process
    assert _waits(holding) == {"vault": 2}
    vault.sealed = False
    until(lambda: not _waits(holding) and not _waits(holding, "acme"), 1.5 * LONG)
    assert not _held(vault, replaced) and not _held(vault, deleted) and not _held(vault, deleted, "acme")
    assert _held(vault, foreign)  # it is theirs
    assert _get(holding, root, replaced) == b"here"


def test_the_values_of_a_tenant_that_is_deleted_go_too(holding: rig.RunningBroker, vault: VaultServer) -> None:
    with holding.admin("leaving") as admin:
        for name in ("one", "two"):
            admin.set_resource(ResourcePath("a", "b", name), b"value", BINDING, "vault")
        assert _held(vault, ResourcePath("a", "b", "one"), "leaving")
        admin.send("DELETE", "/tenant", DeleteTenantBody("leaving"))
    with holding.admin(
        "broker"
    ) as admin:  # who keeps the broker sees what waits of a tenant that nobody can ask any more
        assert {view.name: view.waiting for view in admin.backends()}["vault"] <= 2
    until(lambda: not _waits(holding, "broker"), 1.5 * LONG)
    assert not _held(vault, ResourcePath("a", "b", "one"), "leaving")
    assert not _held(vault, ResourcePath("a", "b", "two"), "leaving")
