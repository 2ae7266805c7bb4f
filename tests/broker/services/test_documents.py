"""Signed documents registered as Confidential Containers' tools register reference values: by type, with their proof."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.broker.services.service_rig import Client, Service, sample
from tests.provenance import signing, test_swid
from tests.provenance.signing import HASH, OWNER, P256, STRANGER
from tests.waiting import until

from adyton.broker.admin import Admin
from adyton.broker.people.gate import Gate
from adyton.broker.people.identity import Identities
from adyton.broker.policy.policies import PolicyBook
from adyton.broker.policy.rego import RegoEngine
from adyton.broker.record.checkpoints import Checkpoints
from adyton.broker.services import providers
from adyton.broker.services.changes import Caller, Changes
from adyton.broker.services.program import ServiceProgram
from adyton.broker.services.settings import ServiceSettings
from adyton.devtee import nvidia_endorsements as made
from adyton.errors import ConfigError, NotPermitted
from adyton.protocol.people import ApprovalRules
from adyton.provenance.plain import MEDIA_TYPE
from adyton.stores.sqlite import Store

SWID_KEY = test_swid.chain()[0].key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def toml(**entries: dict[str, Any]) -> str:
    """A document as ``adyton apply`` takes it; JSON's texts, lists and numbers are TOML's."""
    lines = ["[tenants.default]"]
    for name, entry in entries.items():
        lines.append(f"[tenants.default.providers.{name}]")
        lines += [f"{member} = {json.dumps(value)}" for member, value in entry.items()]
    return "\n".join(lines) + "\n"


def entry(kind: str, *keys: str, **more: Any) -> dict[str, Any]:
    return {"keys": list(keys), "kinds": [kind], "names": [f"{kind}/*"], "valid_days": 3650} | more


ENTRIES = {
    "plain": entry("json", signing.pem(OWNER)),
    "slsa": entry("slsa", signing.pem(OWNER), names=["guest"], **signing.SLSA),
    "layouts": entry("in-toto", signing.pem(OWNER), names=["guest.erofs"]),
    "corims": entry("corim", signing.pem(P256), names=["ACME/*"]),
    "swids": entry("swid", SWID_KEY, names=["Some_Maker.*"]),
}


def slsa(tmp_path: Path) -> bytes:
    finished = (datetime.now(UTC) - timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")  # noqa: TID251 -- the service's own clock decides
    return signing.envelope(signing.provenance(finished=finished), signing.IN_TOTO, OWNER)


def layout(tmp_path: Path) -> bytes:
    folder = tmp_path / "chain"
    folder.mkdir()
    return signing.Chain(folder).document()


DOCUMENTS: dict[str, tuple[Callable[[Path], bytes], str, Any]] = {
    "json": (lambda _: signing.envelope(signing.plain({"json/a": [HASH]}), MEDIA_TYPE, OWNER), "json/a", [HASH]),
    "slsa": (slsa, "guest", [HASH]),
    "in-toto": (layout, "guest.erofs", [HASH]),
    "corim": (lambda _: signing.cose(signing.corim(), P256), "ACME/RoadRunner/digests", [HASH]),
    "swid": (
        lambda _: made.sign_xml(test_swid.text(), test_swid.chain()),
        "Some_Maker.GPU_a.measurement_0",
        ["11" * 48],
    ),
}


def message(kind: str, document: bytes, *, as_text: bool = False, **more: Any) -> dict[str, str]:
    payload = document.decode() if as_text else base64.b64encode(document).decode()
    return {"message": json.dumps({"version": "0.1.0", "type": kind, "payload": payload, **more})}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(tmp_path_factory.mktemp("documents")) as running:
        yield running


@contextmanager
def serving(place: Path) -> Iterator[Service]:
    (place / "providers.toml").write_text(toml(**ENTRIES))
    arguments = ("--grpc", "127.0.0.1:0", "--providers", str(place / "providers.toml"))
    running = Service(place / "data", arguments, ("reference", "serve")).start()
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, Client]]:
    """A service that is only ever given what it must not take, and its client."""
    with serving(tmp_path_factory.mktemp("strict")) as running:
        found = Client(tmp_path_factory.mktemp("protos"), running.said["gRPC"])
        yield running, found
        found.close()


@pytest.fixture(scope="module")
def client(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    found = Client(tmp_path_factory.mktemp("protos"), service.said["gRPC"])
    yield found
    found.close()


def query(client: Client, name: str) -> Any:
    found = client.call("QueryReferenceValue", {"reference_value_id": name})["message"]
    return json.loads(found["reference_value_results"]) if found else None


def other_than(kind: str, document: bytes, place: Path) -> bytes:
    """The document, something that was signed in it changed."""
    match kind:
        case "corim":
            return document[:-1] + bytes([document[-1] ^ 1])
        case "in-toto":
            (link,) = (place / "chain").glob("build.*.link")
            return signing.bundle(place / "chain", **{link.name: link.read_bytes().replace(b"aaaa", b"aaab", 1)})
    return document.replace(b"a", b"b", 1)


@pytest.mark.parametrize("kind", sorted(DOCUMENTS))
def test_documents_of_strangers_changed_or_named_otherwise(
    strict: tuple[Service, Client], kind: str, tmp_path: Path
) -> None:
    service, client = strict
    make, name, _ = DOCUMENTS[kind]
    document = make(tmp_path)
    assert client.call("RegisterReferenceValue", message(kind, document))["status"] == "UNAUTHENTICATED"
    changed = other_than(kind, document, tmp_path)
    others = [other for other in (*DOCUMENTS, "rim") if other != kind and (other, kind) != ("rim", "swid")]
    for wrong in (message(kind, changed), *(message(other, document) for other in others)):
        answer = client.call("RegisterReferenceValue", wrong, service.token)
        assert answer.get("status") == "INVALID_ARGUMENT", answer
        assert answer["code"] and f"[{answer['code']}]" in answer["details"]
    assert query(client, name) is None


@pytest.mark.parametrize("kind", sorted(DOCUMENTS))
def test_what_is_signed_is_registered(service: Service, client: Client, kind: str, tmp_path: Path) -> None:
    make, name, value = DOCUMENTS[kind]
    document = make(tmp_path)
    assert client.call("RegisterReferenceValue", message(kind, document), service.token) == {"message": {}}
    assert query(client, name) == value
    if kind in {"in-toto", "swid", "json"}:  # as older messages had them: the document's own text
        again = message("rim" if kind == "swid" else kind, document, as_text=True)
        assert client.call("RegisterReferenceValue", again, service.token) == {"message": {}}


def test_unsigned_documents_are_refused_unless_that_is_said(service: Service, client: Client, tmp_path: Path) -> None:
    answer = client.call("RegisterReferenceValue", message("corim", signing.corim()), service.token)
    assert (answer["status"], answer["code"]) == ("INVALID_ARGUMENT", "provenance_unsigned")
    stranger = signing.envelope(signing.plain({"json/b": [HASH]}), MEDIA_TYPE, STRANGER)
    answer = client.call("RegisterReferenceValue", message("json", stranger), service.token)
    assert answer["code"] == "provenance_unsigned"
    entries = tmp_path / "providers.toml"
    entries.write_text(toml(loose=entry("corim", names=["*"], accept=["unsigned-documents-i-accept"])))
    loose = Service(
        tmp_path / "data", ("--grpc", "127.0.0.1:0", "--providers", str(entries)), ("reference", "serve")
    ).start()
    other = Client(tmp_path / "protos", loose.said["gRPC"])
    try:
        assert other.call("RegisterReferenceValue", message("corim", signing.corim()), loose.token) == {"message": {}}
        assert query(other, "ACME/RoadRunner/digests") == [HASH]
    finally:
        other.close()
        assert loose.stop() == 0


@pytest.mark.parametrize(
    ("given", "code", "field"),
    [
        ({"type": "spdm"}, "reference_message", "type"),
        ({"type": None}, "reference_message", "type"),
        ({"version": "0.2.0"}, "reference_message", "version"),
        ({"payload": 7}, "reference_message", "payload"),
        ({"payload": ""}, "reference_message", "payload"),
        ({"payload": "%%%"}, "reference_message", "payload"),
        ({"payload": "e30="}, "document_unrecognised", "document"),
        ({"provider": ["plain"]}, "reference_message", "provider"),
        ({"state": "revoked"}, "reference_message", "state"),
        ({"type": "sample", "provider": "plain"}, "reference_message", "type"),
        ({"type": "sample", "payload": "W10="}, "reference_message", "payload"),
        ({"type": "corim", "provider": "plain"}, "document_unrecognised", "document"),
    ],
)
def test_what_a_message_may_not_be(
    service: Service, client: Client, given: dict[str, Any], code: str, field: str
) -> None:
    said = {"version": "0.1.0", "type": "json", "payload": "e30=", **given}
    answer = client.call("RegisterReferenceValue", {"message": json.dumps(said)}, service.token)
    assert (answer["status"], answer["code"]) == ("INVALID_ARGUMENT", code), answer
    assert f"field {field}" in answer["details"] and answer["details"].endswith(f"[{code}]")


def test_nobody_is_a_provider_by_default_and_several_must_be_told_apart(tmp_path: Path) -> None:
    entries = tmp_path / "providers.toml"
    entries.write_text(toml())
    arguments = ("--grpc", "127.0.0.1:0", "--providers", str(entries))
    running = Service(tmp_path / "data", arguments, ("reference", "serve")).start()
    client = Client(tmp_path / "protos", running.said["gRPC"])

    def register(**more: Any) -> dict[str, Any]:
        document = signing.envelope(signing.plain({"json/a": [HASH]}), MEDIA_TYPE, OWNER)
        return client.call("RegisterReferenceValue", message("json", document, **more), running.token)

    try:
        answer = register()
        assert (answer["status"], answer["code"]) == ("FAILED_PRECONDITION", "provider_absent")
        assert "--providers" in answer["details"]
        entries.write_text(toml(plain=ENTRIES["plain"], other=entry("json", signing.pem(STRANGER), names=["x/*"])))
        running.signal(signal.SIGHUP)
        until(lambda: register()["code"] == "provider_ambiguous")
        assert register(provider="other")["code"] == "provenance_unsigned"
        assert register(provider="nobody")["code"] == "provider_absent"
        assert register(provider="plain", state="candidate") == {"message": {}}
        assert query(client, "json/a") is None  # a candidate counts for nothing
        assert register(provider="plain") == {"message": {}}
        assert query(client, "json/a") == [HASH]
        by_hand = client.call("RegisterReferenceValue", {"message": sample(**{"json/c": 1})}, running.token)
        assert by_hand == {"message": {}}
        # What cannot be read changes nothing; whose key goes, loses what it signed.
        entries.write_text("[tenants.default.providers.plain]\nkeys = 7\n")
        running.signal(signal.SIGHUP)
        until(lambda: "providers are not read again" in running.log())
        assert query(client, "json/a") == [HASH]
        entries.write_text(toml(other=entry("json", signing.pem(STRANGER), names=["x/*"])))
        running.signal(signal.SIGHUP)
        until(lambda: query(client, "json/a") is None)
        assert query(client, "json/c") == 1
    finally:
        client.close()
        assert running.stop() == 0


@pytest.mark.parametrize(
    "text",
    [
        "not TOML",
        "[tenants.other.providers.a]\nkeys = []\n",
        "[tenants.default.references.a]\nvalue = 1\n",
        toml(a={"kinds": ["json"], "names": ["*"]}),
        toml(a={"keys": ["no key"], "kinds": ["json"], "names": ["*"]}),
        toml(A=ENTRIES["plain"]),
    ],
)
def test_a_file_of_providers_that_cannot_be_taken(tmp_path: Path, text: str) -> None:
    (tmp_path / "providers.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        providers.read(tmp_path / "providers.toml", "default")
    assert (caught.value.code, caught.value.field) == ("providers_invalid", str(tmp_path / "providers.toml"))


def test_it_stops_the_start(tmp_path: Path) -> None:
    arguments = ("--grpc", "127.0.0.1:0", "--providers", str(tmp_path / "providers.toml"))
    (tmp_path / "providers.toml").write_text("not TOML")
    with pytest.raises(RuntimeError, match="providers_invalid"):
        Service(tmp_path / "data", arguments, ("reference", "serve")).start()


def test_of_two_files_the_newer_one_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read again while the first is still followed: what the newer one does not name is not set after it."""
    entries = tmp_path / "providers.toml"
    entries.write_text(toml(**ENTRIES))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "admin.token").write_text("t" * 40)
    (tmp_path / "data" / "admin.token").chmod(0o600)
    store = Store.open(tmp_path / "data", root_key=bytes(32), now=datetime.now(UTC))  # noqa: TID251 -- at the edge
    settings = ServiceSettings(data=str(tmp_path / "data"), grpc="127.0.0.1:0", providers=str(entries))
    follow, begun = providers.follow, threading.Event()

    def late(*given: Any) -> None:
        if not begun.is_set():
            begun.set()
            time.sleep(0.3)
        follow(*given)

    monkeypatch.setattr(providers, "follow", late)

    async def both() -> None:
        program = ServiceProgram(settings, store)
        first = asyncio.ensure_future(program._follow_providers())
        await asyncio.to_thread(begun.wait, 60)
        program._providers = {}
        await asyncio.gather(first, program._follow_providers())
        program._engine.close()

    try:
        asyncio.run(both())
        assert store.providers.list("default") == []
    finally:
        store.close()


def test_where_several_must_agree_a_service_changes_nothing(tmp_path: Path) -> None:
    """A broker's store, whose owners have said so: no way around it, by token or by certificate."""
    now = datetime.now(UTC)  # noqa: TID251 -- at the edge
    store = Store.open(tmp_path, root_key=bytes(32), now=now)
    rules = ApprovalRules(actions=("reference",), needed=2)
    store.registry.change("default", lambda _, was: msgspec.structs.replace(was, approvals=rules))
    book = PolicyBook(store, RegoEngine())
    gate = Gate("t" * 40, store, Identities())
    changes = Changes(
        Admin(store, book, "production", [], Checkpoints(store)), gate.check, tenant="default", peers=True
    )
    message = sample(a=1)
    for caller in (Caller("x", b"Bearer " + b"t" * 40), Caller("x", certified=True)):
        with pytest.raises(NotPermitted) as caught:
            changes.register(message, caller, now)
        assert caught.value.code == "approval_needed"
        changes.set_policy("mine_cpu", base64.urlsafe_b64encode(b"package policy\n").decode().rstrip("="), caller, now)
    with pytest.raises(NotPermitted) as caught:
        changes.register(message, Caller("x"), now)
    assert caught.value.code != "approval_needed"
    assert store.references.list("default") == []
    book._engine.close()
    store.close()
