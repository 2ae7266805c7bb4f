"""Keys that a device holds (SoftHSM2), by the broker's own parts: what is refused, then what the device does."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
from tests.broker import rig

from adyton.broker.door.asked import Asked
from adyton.broker.key_service.key_api import KeyApi
from adyton.broker.key_service.key_engines import NoDevices
from adyton.broker.key_service.key_use import KeyUse
from adyton.broker.outside.elsewhere import ElsewhereValues
from adyton.broker.policy.policies import PolicyBook
from adyton.broker.policy.rego import RegoEngine
from adyton.client.keys import Keys
from adyton.crypto import key_kinds, transit
from adyton.crypto.key_kinds import Kind
from adyton.errors import AdytonError, NotFound, Unavailable
from adyton.protocol import key_record
from adyton.protocol.keys import KeyView, NewKey, PublicView, RotateBody, TransitAnswer, TransitBody, ValueBody
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath
from adyton.stores.backends.port import KeyHolder
from adyton.stores.sqlite import Store

pkcs11 = pytest.importorskip("pkcs11")
MODULE = "/usr/lib/softhsm/libsofthsm2.so"
PIN = "a1b2c3d4"
NOW = datetime(2026, 11, 21, tzinfo=UTC)
PATH = ResourcePath("keys", "held", "1")
TEXT = b"what stays in the device"
_T = TypeVar("_T")


class Token:
    """One device, for tenant ``default`` only. ``down``: it does not answer."""

    def __init__(self, holder: Any) -> None:
        self.holder = holder
        self.down = False

    def of(self, tenant: str, name: str) -> Token:
        if (tenant, name) != ("default", "hsm"):
            raise NotFound("there is no such back end", code="backend_absent")
        return self

    configured_for = of

    def with_keys(self, call: Callable[[KeyHolder], _T]) -> _T:
        if self.down:
            raise Unavailable("the device does not answer", code="backend_slow")
        return call(self.holder)


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Token]:
    from adyton.stores.backends.options import Pkcs11Options
    from adyton.stores.backends.pkcs11 import Pkcs11

    place = tmp_path_factory.mktemp("softhsm")
    (place / "tokens").mkdir()
    configuration = place / "softhsm2.conf"
    configuration.write_text(f"directories.tokendir = {place}/tokens\nobjectstore.backend = file\nlog.level = ERROR\n")
    pin = place / "pin"
    pin.write_text(PIN)
    pin.chmod(0o600)
    before = os.environ.get("SOFTHSM2_CONF")
    os.environ["SOFTHSM2_CONF"] = str(configuration)
    subprocess.run(
        ["softhsm2-util", "--init-token", "--free", "--label", "adyton", "--pin", PIN, "--so-pin", "87654321"],
        check=True, capture_output=True,
    )  # fmt: skip
    library = pkcs11.lib(MODULE)
    library.reinitialize()
    holder = Pkcs11(Pkcs11Options(module=MODULE, token="adyton", pin_file=str(pin)))
    yield Token(holder)
    holder.close()
    library.finalize()
    os.environ.pop("SOFTHSM2_CONF")
    if before is not None:
        os.environ["SOFTHSM2_CONF"] = before


class Desk:
    """The API's handler as the gate calls it."""

    def __init__(self, store: Store, devices: Any) -> None:
        self.store = store
        self.use = KeyUse(store.keys, devices)
        self.values = ElsewhereValues(store, devices)
        self.api = KeyApi(store, PolicyBook(store, RegoEngine()), self.use, devices, self.values)

    def ask(self, method: str, path: str, kind: type[_T], body: Any = None, tenant: str = "default") -> _T:
        asked = Asked(method, tenant, msgspec.json.encode(body) if body is not None else b"", NOW)
        answer = self.api.handle(asked, ("keys", *str(PATH).split("/"), *path.split("/")[1:]))
        if kind is type(None):
            return None
        return msgspec.json.decode(answer.body, type=kind)

    def make(self, kind: str, **more: Any) -> KeyView:
        owner = sorted(Kind(kind).operations - {"public"})
        return self.ask("PUT", "", KeyView, NewKey(kind, backend="hsm", owner_operations=owner, **more))

    def does(self, operation: str, **given: Any) -> TransitAnswer:
        return self.ask("POST", f"/use/{operation}", TransitAnswer, TransitBody(**given))


@pytest.fixture
def desk(tmp_path: Path, token: Token) -> Iterator[Desk]:
    store = Store.open(tmp_path / "data", root_key=bytes(32), now=NOW)
    yield Desk(store, token)
    token.down = False
    store.close()


def code_of(call: Callable[..., Any], *arguments: Any, **named: Any) -> str:
    with pytest.raises(AdytonError) as error:
        call(*arguments, **named)
    return error.value.code


def handles(desk: Desk) -> list[str]:
    found = desk.store.keys.get("default", PATH)
    return [one.handle for one in found.record.versions] if found is not None else []


def test_what_no_device_is_asked_for(desk: Desk, tmp_path: Path) -> None:
    new = NewKey("aes-256", backend="hsm", operations=["release"])
    assert code_of(desk.ask, "PUT", "", KeyView, new) == "key_operations_invalid"
    for kind in ("aes-128", "hmac-256"):
        assert code_of(desk.make, kind) == "key_kind_not_by_backend"
    for kind in ("random", "opaque", "configuration", "x25519"):
        assert code_of(desk.make, kind) == "key_useless"
    assert code_of(desk.ask, "PUT", "", KeyView, NewKey("aes-256", backend="nobody")) == "backend_absent"
    assert code_of(desk.ask, "PUT", "", KeyView, NewKey("aes-256", backend="hsm"), "other") == "backend_absent"
    assert handles(desk) == []


def test_a_symmetric_key_in_a_device(desk: Desk, token: Token) -> None:
    view = desk.make("aes-256")
    assert (view.never_export, view.backend) == (True, "hsm")
    assert "release" not in view.operations
    found = desk.store.keys.get("default", PATH)
    assert found is not None
    assert code_of(key_record.usable, found.record, key_record.RELEASE) == "key_never_export"
    assert desk.store.keys.material("default", PATH, found.record.newest).secret == b""
    text = desk.does("encrypt", plaintext=TEXT, aad=b"a").ciphertext
    assert text is not None
    for given in ({"aad": b"b"}, {}):
        assert code_of(desk.does, "decrypt", ciphertext=text, **given) == "ciphertext_refused"
    assert code_of(desk.does, "unwrap", ciphertext=text, aad=b"a") == "ciphertext_refused"
    assert code_of(desk.does, "unwrap", ciphertext=text.replace("enc", "wrap"), aad=b"a") == "ciphertext_refused"
    assert code_of(desk.does, "decrypt", ciphertext="{}") == "transit_not_by_backend"
    assert code_of(desk.does, "encrypt", plaintext=bytes(4097)) == "transit_too_large"
    assert desk.does("decrypt", ciphertext=text, aad=b"a").plaintext == TEXT
    fresh = desk.does("datakey")
    assert desk.does("unwrap", ciphertext=fresh.ciphertext).plaintext == fresh.plaintext
    desk.ask("POST", "/rotate", KeyView, RotateBody())
    newer = desk.does("rewrap", ciphertext=text, aad=b"a")
    assert newer.version == 2
    assert desk.does("decrypt", ciphertext=newer.ciphertext, aad=b"a").plaintext == TEXT
    assert len(set(handles(desk))) == 2
    relabelled = text.replace(":1:", ":2:")
    assert code_of(desk.does, "decrypt", ciphertext=relabelled, aad=b"a") == "ciphertext_refused"


def test_destroyed_in_the_record_first_then_in_the_device(desk: Desk, token: Token) -> None:
    desk.make("aes-256")
    desk.ask("POST", "/rotate", KeyView, RotateBody())
    first, second = handles(desk)
    token.down = True
    assert code_of(desk.ask, "POST", "/versions/1/destroy", KeyView) == "backend_slow"
    found = desk.store.keys.get("default", PATH)
    assert found is not None
    assert found.record.versions[0].state.value == "destroyed"
    token.down = False
    assert token.holder.encrypt(first, b"x")  # the device still has it, and nobody is given it
    assert code_of(desk.does, "decrypt", ciphertext="adyton:enc:1:AAAA") == "key_version_destroyed"
    desk.ask("POST", "/versions/1/destroy", KeyView)
    assert code_of(token.holder.encrypt, first, b"x") == "held_key_absent"
    assert code_of(desk.store.resources.delete, "default", PATH) == "key_in_backend"
    assert token.holder.encrypt(second, b"x")
    desk.ask("DELETE", "", type(None))
    assert code_of(token.holder.encrypt, second, b"x") == "held_key_absent"


def test_what_a_device_that_was_down_still_has_is_shown_and_goes_by_itself(desk: Desk, token: Token) -> None:
    desk.make("aes-256")
    desk.ask("POST", "/rotate", KeyView, RotateBody())
    first, second = handles(desk)
    token.down = True
    for _ in range(2):
        assert code_of(desk.ask, "POST", "/versions/1/destroy", KeyView) == "backend_slow"
        assert desk.ask("GET", "", KeyView).erasing == ["hsm"]
    assert desk.store.removals.counts("default") == {"hsm": 1}
    desk.values.sweeper.sweep()
    assert desk.ask("GET", "", KeyView).erasing == ["hsm"]
    token.down = False
    desk.values.sweeper.sweep()
    assert desk.ask("GET", "", KeyView).erasing == []
    assert code_of(token.holder.encrypt, first, b"x") == "held_key_absent"
    assert token.holder.encrypt(second, b"x")


def test_deleting_a_key_of_a_device_that_was_down_is_asked_for_again(desk: Desk, token: Token) -> None:
    desk.make("aes-256")
    [handle] = handles(desk)
    token.down = True
    for _ in range(2):
        assert code_of(desk.ask, "DELETE", "", type(None)) == "backend_slow"
    assert desk.ask("GET", "", KeyView).erasing == ["hsm"]
    token.down = False
    desk.ask("DELETE", "", type(None))
    assert code_of(token.holder.encrypt, handle, b"x") == "held_key_absent"
    assert desk.store.removals.counts("default") == {}
    assert code_of(desk.ask, "DELETE", "", type(None)) == "key_absent"


def test_what_the_store_does_not_take_the_device_forgets(
    desk: Desk, token: Token, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    generate = token.holder.generate

    def noted(kind: Any, label: str) -> str:
        made.append(generate(kind, label))
        return made[-1]

    monkeypatch.setattr(token.holder, "generate", noted)

    def full(*_: Any) -> None:
        raise Unavailable("the store's disk is full", code="store_disk")

    monkeypatch.setattr(desk.store.keys, "create", full)
    assert code_of(desk.make, "aes-256") == "store_disk"
    [handle] = made
    assert code_of(token.holder.encrypt, handle, b"x") == "held_key_absent"


@pytest.mark.parametrize("kind", ["rsa-2048", "p-256", "p-384"])
def test_pairs_in_a_device(desk: Desk, kind: str) -> None:
    desk.make(kind)
    shown = desk.ask("GET", "/public", PublicView)
    done = desk.does("sign", message=TEXT)
    found = desk.store.keys.get("default", PATH)
    assert found is not None
    public = desk.store.keys.material("default", PATH, found.record.newest).public
    assert key_kinds.public_pem(public) == shown.pem
    assert transit.verify(Kind(kind), public, TEXT, done.signature or b"") == (done.algorithm, True)
    assert desk.does("verify", message=TEXT, signature=done.signature).valid is True
    assert desk.does("verify", message=b"x", signature=done.signature).valid is False
    assert code_of(desk.does, "sign", message=TEXT, algorithm="RS256") == "key_algorithm_wrong"


def test_a_key_is_brought_into_a_device(desk: Desk) -> None:
    secret = key_kinds.generate(Kind.P256)
    desk.make("p-256", value=ValueBody("der", secret))
    done = desk.does("sign", message=TEXT)
    assert transit.verify(Kind.P256, key_kinds.public_der(Kind.P256, secret), TEXT, done.signature or b"")[1]


def test_a_broker_without_its_back_end_says_so(desk: Desk) -> None:
    desk.make("aes-256")
    without = Desk(desk.store, NoDevices())
    assert code_of(without.does, "encrypt", plaintext=TEXT) == "backend_not_configured"
    assert code_of(without.make, "aes-256") == "resource_exists"


def test_a_workload_uses_a_key_in_a_token_over_a_kill_of_the_broker(tmp_path: Path, token: Token) -> None:
    """The whole way: a broker with ``--backends``, an attested workload, the token; and the token's PIN gone wrong."""
    root = rig.make_root(tmp_path / "root")
    pin = tmp_path / "pin"
    pin.write_text(PIN)
    pin.chmod(0o600)
    file = tmp_path / "backends.toml"
    file.write_text(
        f'[backends.hsm]\nkind = "pkcs11"\nmodule = "{MODULE}"\ntoken = "adyton"\npin_file = "pin"\ntenants = ["default"]\n'
    )
    running = rig.started(tmp_path / "data", root, "--backends", str(file))
    running.publish()
    mine = Binding(workloads=[str(rig.document().digest)])
    with running.admin() as admin:
        keys = Keys(admin)
        keys.create(PATH, NewKey("aes-256", mine, backend="hsm"))
        signing = ResourcePath("keys", "held", "signing")
        keys.create(signing, NewKey("p-256", mine, backend="hsm"))
        assert keys.show(PATH).backend == "hsm"
    with running.admin("other") as admin:
        assert code_of(Keys(admin).create, PATH, NewKey("aes-256", mine, backend="hsm")) == "backend_absent"
    with running.session(rig.attester(root)) as session:
        text = session.use("encrypt", PATH, TransitBody(plaintext=TEXT, aad=b"a")).ciphertext
        assert code_of(session.resource, PATH) == "release_refused"
        assert code_of(session.use, "decrypt", PATH, TransitBody(ciphertext=text)) == "transit_refused"
    running.kill()
    with running.session(rig.attester(root)) as session:
        assert session.use("decrypt", PATH, TransitBody(ciphertext=text, aad=b"a")).plaintext == TEXT
        done = session.use("sign", signing, TransitBody(message=TEXT))
        assert session.use("verify", signing, TransitBody(message=TEXT, signature=done.signature)).valid is True
        with running.admin() as admin:
            row = admin.audit(limit=2)[-1]["row"]
            assert (row["action"], row["decision"], row["version"]) == ("key.verify", "allowed", 1)
            Keys(admin).destroy(PATH)
        assert code_of(session.use, "decrypt", PATH, TransitBody(ciphertext=text, aad=b"a")) == "release_refused"
    assert running.stop() == 0
