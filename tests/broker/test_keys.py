"""Keys at a running broker: what is refused to whom, then what workloads and owners can do with them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from tests.broker import rig
from tests.broker.rig import RunningBroker

from adyton.client.admin import Admin
from adyton.client.handshake import Session
from adyton.client.keys import Keys
from adyton.crypto import key_kinds, transit
from adyton.crypto.key_kinds import Kind
from adyton.devtee.root import DevelopmentRoot
from adyton.errors import AdytonError, Conflict, NotFound, ReleaseRefused
from adyton.protocol.key_record import CertificateRequest
from adyton.protocol.keys import OPERATIONS, NewKey, Operation, RotateBody, TransitBody, ValueBody
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath
from adyton.protocol.rules import Rule

TEXT = b"what only the enclave reads"
OTHERS = Binding(workloads=["sha256:" + "77" * 32])


def mine(**limit: Any) -> Binding:
    return Binding(workloads=[str(rig.document().digest)], **limit)


@pytest.fixture(scope="module")
def admin(broker: RunningBroker) -> Iterator[Admin]:
    with broker.admin() as opened:
        yield opened


@pytest.fixture(scope="module")
def keys(admin: Admin) -> Keys:
    return Keys(admin)


@pytest.fixture
def session(broker: RunningBroker, root: DevelopmentRoot) -> Iterator[Session]:
    with broker.session(rig.attester(root)) as opened:
        yield opened


_MADE = iter(range(10_000))


def made(keys: Keys, kind: str = "aes-256", binding: Binding | None = None, **more: Any) -> ResourcePath:
    path = ResourcePath("keys", kind, str(next(_MADE)))
    keys.create(path, NewKey(kind, mine() if binding is None else binding, **more))
    return path


def code_of(call: Any, *arguments: Any, **named: Any) -> str:
    with pytest.raises(AdytonError) as error:
        call(*arguments, **named)
    return error.value.code


def told(admin: Admin, path: ResourcePath) -> dict[str, Any]:
    """The newest row about ``path``."""
    rows = [row for row in admin.audit(limit=50) if row["row"].get("resource", "").startswith(path.uri)]
    found: dict[str, Any] = rows[-1]["row"]
    return found


def reasons(admin: Admin, path: ResourcePath) -> list[str]:
    return [reason.partition(":")[0] for reason in told(admin, path)["reasons"]]


INPUT: dict[Operation, TransitBody] = {
    "encrypt": TransitBody(plaintext=TEXT),
    "wrap": TransitBody(plaintext=bytes(32)),
    "datakey": TransitBody(),
    "sign": TransitBody(message=TEXT),
    "mac": TransitBody(message=TEXT),
    "verify": TransitBody(message=TEXT, signature=bytes(64)),
    "decrypt": TransitBody(ciphertext="adyton:enc:1:AAAA"),
    "unwrap": TransitBody(ciphertext="adyton:wrap:1:AAAA"),
    "rewrap": TransitBody(ciphertext="adyton:enc:1:AAAA"),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_whom_no_binding_names_can_do_nothing(keys: Keys, admin: Admin, session: Session, operation: Operation) -> None:
    kind = "hmac-256" if operation == "mac" else "rsa-2048"
    for binding, why in ((Binding(), "not_bound"), (OTHERS, "workload_not_bound")):
        path = made(keys, kind, binding)
        assert code_of(session.use, operation, path, INPUT[operation]) == "release_refused"
        row = told(admin, path)
        assert (row["action"], row["decision"]) == (f"key.{operation}", "refused")
        assert why in reasons(admin, path)
    absent = ResourcePath("keys", "no", "where")
    assert code_of(session.use, operation, absent, INPUT[operation]) == "resource_absent"


def test_a_stranger_gets_no_operation(broker: RunningBroker, keys: Keys) -> None:
    path = made(keys, binding=Binding(any_workload_i_accept=True))
    with rig.raw(broker) as client:
        for target in (f"/kbs/v0/key/encrypt/{path}", f"/kbs/v0/key/encrypt/{path}?x=1"):
            status, body, _ = client.ask("POST", target, b'{"plaintext":"AAAA"}')
            assert (status, json.loads(body)["type"].rpartition("/")[2]) == (401, "TokenNotFound")
        assert client.ask("GET", f"/kbs/v0/key/public/{path}")[0] == 401
        assert client.ask("GET", f"/kbs/v0/key/encrypt/{path}")[0] == 405
        assert client.ask("POST", f"/kbs/v0/key/public/{path}")[0] == 405
        assert client.ask("POST", "/kbs/v0/key/encrypt/only/two")[0] == 404
        assert client.ask("PUT", f"/kbs/v0/key/encrypt/{path}")[0] == 404


def test_another_tenant_has_no_such_key(broker: RunningBroker, root: DevelopmentRoot, keys: Keys) -> None:
    broker.publish("keys-other")
    path = made(keys, binding=Binding(any_workload_i_accept=True), owner_operations=["encrypt"])
    with broker.admin("keys-other") as admin:
        other = Keys(admin)
        assert other.list() == []
        for call in (other.show, other.delete, other.destroy, other.rotate, other.public):
            assert code_of(call, path) in {"key_absent", "resource_absent"}
        assert code_of(other.use, "encrypt", path, INPUT["encrypt"]) == "key_absent"
    with broker.session(rig.attester(root), tenant="keys-other") as session:
        assert code_of(session.use, "encrypt", path, INPUT["encrypt"]) == "resource_absent"
        assert code_of(session.resource, path) == "resource_absent"
    assert keys.show(path).versions[0].state == "enabled"


def test_a_binding_limits_operations(keys: Keys, admin: Admin, session: Session) -> None:
    path = made(keys, binding=mine(operations=["encrypt"]))
    session.use("encrypt", path, INPUT["encrypt"])
    assert code_of(session.use, "datakey", path, TransitBody()) == "release_refused"
    assert reasons(admin, path) == ["operation_not_bound"]
    assert code_of(session.resource, path) == "release_refused"
    assert reasons(admin, path) == ["operation_not_bound"]
    nothing = made(keys, binding=mine(operations=[]))
    for operation in ("encrypt", "datakey"):
        assert code_of(session.use, operation, nothing, INPUT[operation]) == "release_refused"
    assert code_of(session.resource, nothing) == "release_refused"
    plain = ResourcePath("keys", "plain", "limited")
    admin.set_resource(plain, b"x", mine(operations=["encrypt"]))
    assert code_of(session.resource, plain) == "release_refused"
    admin.bind_resource(plain, mine(operations=["release"]))
    assert session.resource(plain) == b"x"
    assert code_of(session.use, "encrypt", plain, INPUT["encrypt"]) == "release_refused"
    assert set(reasons(admin, plain)) == {"operation_not_bound", "not_a_key"}


def test_the_keys_settings_limit_operations_whoever_is_bound(keys: Keys, admin: Admin, session: Session) -> None:
    path = made(keys, operations=["encrypt"], owner_operations=["decrypt"])
    done = session.use("encrypt", path, TransitBody(plaintext=TEXT))
    assert code_of(session.use, "decrypt", path, TransitBody(ciphertext=done.ciphertext)) == "release_refused"
    assert reasons(admin, path) == ["key_operation_refused"]
    assert code_of(session.resource, path) == "release_refused"
    assert code_of(keys.use, "encrypt", path, INPUT["encrypt"]) == "key_operation_refused"
    assert keys.use("decrypt", path, TransitBody(ciphertext=done.ciphertext)).plaintext == TEXT
    assert told(admin, path)["action"] == "key.decrypt"


def test_never_export_never_leaves(broker: RunningBroker, keys: Keys, admin: Admin, session: Session) -> None:
    value = bytes(range(32))
    path = made(
        keys,
        value=ValueBody("raw", value),
        never_export=True,
        owner_operations=["encrypt", "decrypt", "rewrap", "wrap", "unwrap", "datakey"],
    )
    assert code_of(session.resource, path) == "release_refused"
    assert "key_never_export" in reasons(admin, path)
    for version in (1, 2):
        assert code_of(session.resource, path, version) == "release_refused"
    admin.bind_resource(path, Binding(any_workload_i_accept=True))
    assert code_of(session.resource, path) == "release_refused"
    assert code_of(keys.create, path, NewKey("aes-256", mine())) == "resource_exists"
    assert code_of(admin.set_resource, path, b"x", mine()) == "resource_is_key"
    assert code_of(keys.configuration, path) == "key_value_secret"
    assert code_of(keys.public, path) == "key_public_absent"
    rotated = keys.rotate(path)
    assert rotated.never_export
    assert "release" not in rotated.operations
    assert code_of(session.resource, path) == "release_refused"
    wrapped = session.use("wrap", path, TransitBody(plaintext=b"another key"))
    seen = [
        session.use("unwrap", path, TransitBody(ciphertext=wrapped.ciphertext)),
        session.use("datakey", path, TransitBody()),
    ]
    told_of = [
        *map(repr, seen),
        repr(keys.show(path)),
        repr(keys.list()),
        repr(admin.list_resources()),
        repr(admin.audit()),
    ]
    with rig.raw(broker) as client:
        token = (broker.data / "admin.token").read_text().strip()
        headers = {"Authorization": f"Bearer {token}"}
        targets = [f"/api/v0/keys/{path}{more}" for more in ("", "/value", "/public", "/material", "/versions/1")]
        told_of += [repr(client.ask("GET", target, None, headers)[1]) for target in targets]
        told_of.append(repr(client.ask("GET", f"/api/v0/resources/{path}", None, headers)[1]))
    for text in told_of:
        assert repr(value)[2:-1] not in text
        assert "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8" not in text


def test_states(keys: Keys, admin: Admin, session: Session) -> None:
    path = made(keys, owner_operations=["encrypt"])
    first = session.use("encrypt", path, INPUT["encrypt"])
    old = session.resource(path)
    keys.rotate(path)
    assert session.resource(path) != old
    assert session.resource(path, 1) == old
    opened = TransitBody(ciphertext=first.ciphertext)
    assert session.use("decrypt", path, opened).plaintext == TEXT
    assert session.use("encrypt", path, INPUT["encrypt"]).version == 2
    assert code_of(session.resource, path, 3) == "release_refused"
    assert reasons(admin, path) == ["key_version_absent"]
    again = session.use("rewrap", path, opened)
    assert again.version == 2
    assert session.use("decrypt", path, TransitBody(ciphertext=again.ciphertext)).plaintext == TEXT
    keys.disable(path, 1)
    for call in (lambda: session.use("decrypt", path, opened), lambda: session.resource(path, 1)):
        assert code_of(call) == "release_refused"
        assert reasons(admin, path) == ["key_version_disabled"]
    keys.enable(path, 1)
    assert session.resource(path, 1) == old
    keys.destroy(path, 1)
    for call in (lambda: session.use("decrypt", path, opened), lambda: session.resource(path, 1)):
        assert code_of(call) == "release_refused"
        assert reasons(admin, path) == ["key_version_destroyed"]
    assert code_of(keys.enable, path, 1) == "key_version_destroyed"
    keys.disable(path, 2)  # no older version takes the place of the newest
    assert code_of(session.resource, path) == "release_refused"
    assert code_of(session.use, "encrypt", path, INPUT["encrypt"]) == "release_refused"
    assert code_of(keys.use, "encrypt", path, INPUT["encrypt"]) == "key_version_disabled"
    keys.destroy(path)
    assert [one.state for one in keys.show(path).versions] == ["destroyed", "destroyed"]
    assert code_of(session.resource, path) == "release_refused"
    keys.delete(path)
    assert code_of(session.resource, path) == "resource_absent"
    assert code_of(keys.show, path) == "key_absent"
    actions = [
        row["row"]["action"] for row in admin.audit(limit=200) if row["row"].get("resource", "").startswith(path.uri)
    ]
    assert [one for one in actions if one.startswith("key.") and one.rpartition(".")[2] not in OPERATIONS] == [
        "key.set", "key.rotate", "key.disable", "key.enable", "key.destroy", "key.disable", "key.destroy", "key.delete"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("operation", "body"),
    [
        ("encrypt", b""),
        ("encrypt", b"[]"),
        ("encrypt", b'{"plaintext":7}'),
        ("encrypt", b'{"plaintext":"AAAA","other":1}'),
        ("encrypt", b'{"plaintext":"AAAA","message":"AAAA"}'),
        ("encrypt", b'{"ciphertext":"x"}'),
        ("encrypt", b'{"plaintext":"AAAA","algorithm":"none"}'),
        ("decrypt", b'{"ciphertext":"adyton:enc:1:AAAA"}'),
        ("decrypt", b'{"ciphertext":"nonsense"}'),
        ("decrypt", b'{"ciphertext":"adyton:enc:1:AAAA","version":2}'),
        ("unwrap", b'{"ciphertext":"{}"}'),
        ("frobnicate", b"{}"),
        ("sign", b'{"digest":"AAAA","message":"AAAA"}'),
        ("datakey", b'{"plaintext":"AAAA"}'),
        ("sign", b"{}"),
        ("verify", b'{"signature":"AAAA"}'),
    ],
)
def test_input_that_cannot_be_used(keys: Keys, session: Session, operation: str, body: bytes) -> None:
    path = made(keys)
    session.token()
    reply = session._ask("POST", f"/kbs/v0/key/{operation}/{path}", body)
    assert reply.status == 400, reply.detail


def test_what_does_not_fit_the_key(keys: Keys, session: Session) -> None:
    path = made(keys)
    text = session.use("encrypt", path, TransitBody(plaintext=TEXT, aad=b"a")).ciphertext
    for given in (TransitBody(ciphertext=text), TransitBody(ciphertext=text, aad=b"b")):
        assert code_of(session.use, "decrypt", path, given) == "transit_refused"
    other = made(keys)
    assert code_of(session.use, "decrypt", other, TransitBody(ciphertext=text, aad=b"a")) == "transit_refused"
    assert code_of(session.use, "sign", path, TransitBody(message=TEXT)) == "release_refused"
    big = TransitBody(plaintext=bytes(transit.MAX_PLAINTEXT + 1))
    reply = session._attested("POST", f"/kbs/v0/key/encrypt/{path}", msgspec.json.encode(big))
    assert reply.status == 413


@pytest.mark.parametrize("kind", ["rsa-2048", "p-256", "p-384", "p-521", "ed25519"])
def test_pairs(keys: Keys, admin: Admin, session: Session, kind: str) -> None:
    path = made(keys, kind, never_export=True)
    done = session.use("sign", path, TransitBody(message=TEXT))
    shown = keys.public(path)
    assert session.public(path) == shown
    assert told(admin, path)["action"] == "key.public"
    public = load_pem_public_key(shown.pem.encode()).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert transit.verify(Kind(kind), public, TEXT, done.signature or b"") == (done.algorithm, True)
    assert session.use("verify", path, TransitBody(message=TEXT, signature=done.signature)).valid is True
    keys.rotate(path)
    assert session.use("verify", path, TransitBody(message=TEXT, signature=done.signature)).valid is False
    old = TransitBody(message=TEXT, signature=done.signature, version=1)
    assert session.use("verify", path, old).valid is True
    assert session.public(path, 1) == shown
    limited = made(keys, kind, mine(operations=["sign"]))
    assert code_of(session.public, limited) == "release_refused"


def test_data_keys_and_macs(keys: Keys, session: Session) -> None:
    path = made(keys, never_export=True)
    fresh = session.use("datakey", path, TransitBody(aad=b"disk 1"))
    assert len(fresh.plaintext or b"") == 32
    given = TransitBody(ciphertext=fresh.ciphertext, aad=b"disk 1")
    assert session.use("unwrap", path, given).plaintext == fresh.plaintext
    assert session.use("datakey", path, TransitBody(bare=True)).plaintext is None
    hmac = made(keys, "hmac-512")
    code = session.use("mac", hmac, TransitBody(message=TEXT))
    assert session.use("verify", hmac, TransitBody(message=TEXT, signature=code.signature)).valid is True
    assert session.use("verify", hmac, TransitBody(message=b"x", signature=code.signature)).valid is False


def test_certificates(broker: RunningBroker, keys: Keys, session: Session) -> None:
    with broker.admin("keys-without-authority") as other:
        assert code_of(Keys(other).authority) == "authority_absent"
    asked = CertificateRequest("web", ["web.example", "192.0.2.1"], 30)
    path = made(keys, "p-256", certificate=asked)
    root = keys.authority()
    value = session.resource(path)
    leaf, issuer = x509.load_pem_x509_certificates(value)
    leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(root.certificate.encode()))
    assert issuer == x509.load_pem_x509_certificate(root.certificate.encode())
    private = load_pem_private_key(value, None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    assert private.public_key() == leaf.public_key()
    assert keys.public(path).chain.count("BEGIN CERTIFICATE") == 2
    renewed = keys.rotate(path)
    assert renewed.versions[1].fingerprint != renewed.versions[0].fingerprint
    assert renewed.versions[1].expires is not None
    assert keys.public(path).chain != keys.public(path, 1).chain
    assert code_of(made, keys, "aes-256", certificate=asked) == "certificate_request"
    assert code_of(made, keys, "p-256", certificate=CertificateRequest("web", [])) == "certificate_request"
    with pytest.raises(AdytonError):
        made(keys, "p-256", certificate=CertificateRequest("web", ["web.example"], 9999))


def test_what_is_brought_in(keys: Keys, session: Session) -> None:
    secret = key_kinds.generate(Kind.ED25519)
    path = made(keys, "ed25519", value=ValueBody("pem", key_kinds.released(Kind.ED25519, secret)))
    assert session.resource(path) == key_kinds.released(Kind.ED25519, secret)
    assert keys.show(path).versions[0].imported
    keys.rotate(path, RotateBody(ValueBody("der", key_kinds.generate(Kind.ED25519))))
    assert code_of(keys.rotate, path, RotateBody(ValueBody("der", key_kinds.generate(Kind.P256)))) == "key_malformed"
    for body in (
        NewKey("aes-256", value=ValueBody("raw", bytes(31))),
        NewKey("aes-256", value=ValueBody("json", b"{}")),
        NewKey("rot13"),
        NewKey("random"),
        NewKey("opaque"),
        NewKey("aes-256", Binding(policy="package policy\nnot rego")),
        NewKey("aes-256", Binding(rules=[Rule()])),
    ):
        with pytest.raises(AdytonError):
            keys.create(ResourcePath("keys", "never", "made"), body)
    assert code_of(keys.show, ResourcePath("keys", "never", "made")) == "key_absent"
    path = made(keys, "random", size=100)
    assert len(session.resource(path)) == 100
    assert len(session.resource(path)) == len(session.resource(path, 1))


def test_configuration(keys: Keys, admin: Admin, session: Session) -> None:
    toml = b'threads = 4\nratio = 0.5\nname = "x"\nday = 2026-01-02\n[inner]\nlist = [1, true]\n'
    path = made(keys, "configuration", value=ValueBody("toml", toml), secret=False)
    value = {"threads": 4, "ratio": 0.5, "name": "x", "day": "2026-01-02", "inner": {"list": [1, True]}}
    assert session.configuration(path) == value
    assert keys.configuration(path).value == value
    keys.rotate(path, RotateBody(ValueBody("json", b'{"threads":8}')))
    assert session.configuration(path) == {"threads": 8}
    assert session.configuration(path, 1) == value
    assert keys.configuration(path, 1).value == value
    for bad in (b"", b"{", b'{"a":1,"a":2}', b"nan", b"1e999", b"\xff"):
        assert code_of(keys.rotate, path, RotateBody(ValueBody("json", bad))) == "configuration_malformed"
    for bad in (b"a=nan", b"a=1\na=2", b"\xff", b"=", b"[" * 99, b"a." * 100_000 + b"a=1"):
        assert code_of(keys.rotate, path, RotateBody(ValueBody("toml", bad))) == "configuration_malformed"
    hidden = made(keys, "configuration", value=ValueBody("json", b'"password"'))
    assert code_of(keys.configuration, hidden) == "key_value_secret"
    assert session.configuration(hidden) == "password"
    bound = made(keys, "configuration", OTHERS, value=ValueBody("json", b"1"), secret=False)
    assert code_of(session.configuration, bound) == "release_refused"


def test_release_rules(
    keys: Keys, admin: Admin, session: Session, broker: RunningBroker, root: DevelopmentRoot
) -> None:
    here = Rule(tees=["snp"], measurements=[rig.MEASUREMENT.hex()], debug=False)
    elsewhere = Rule(measurements=["00" * 48])
    path = made(keys, binding=Binding(rules=[elsewhere]))
    assert code_of(session.resource, path) == "release_refused"
    assert reasons(admin, path)[0] == "rule_not_matched"
    admin.bind_resource(path, Binding(rules=[elsewhere, here]))
    assert len(session.resource(path)) == 32
    assert told(admin, path)["reasons"] == ["by_rule"]
    admin.bind_resource(path, Binding(rules=[Rule(init_data=[rig.document().digest.value.hex()])]))
    assert len(session.resource(path)) == 32  # reference values list what says so
    admin.bind_resource(path, Binding(rules=[Rule(tees=["snp"], init_data=["11" * 32])]))
    assert code_of(session.resource, path) == "release_refused"
    admin.bind_resource(path, Binding(rules=[]))
    assert code_of(session.resource, path) == "release_refused"


def test_the_tenants_policy_sees_the_operation(broker: RunningBroker, root: DevelopmentRoot) -> None:
    tenant = "keys-policy"
    broker.publish(tenant)
    with broker.admin(tenant) as admin:
        keys = Keys(admin)
        path = made(keys)
        only = (
            "package policy\nimport rego.v1\ndefault allow := false\n"
            'allow if { data.plugin == "key"; data["resource-path"][0] == "encrypt" }\n'
        )
        admin.set_policy("resource", "resource-policy", only)
        with broker.session(rig.attester(root), tenant=tenant) as session:
            session.use("encrypt", path, INPUT["encrypt"])
            with pytest.raises(ReleaseRefused):
                session.use("datakey", path, TransitBody())
            with pytest.raises(ReleaseRefused):
                session.resource(path)


def test_a_session_from_before_a_change_of_policy_uses_no_key(
    broker: RunningBroker, root: DevelopmentRoot, keys: Keys, admin: Admin
) -> None:
    path = made(keys)
    with broker.session(rig.attester(root)) as session:
        session.use("encrypt", path, INPUT["encrypt"])
        admin.set_reference("keys_touch", [1])
        reply = session._ask("POST", f"/kbs/v0/key/encrypt/{path}", b'{"plaintext":"AAAA"}')
        assert reply.status == 401
        session.use("encrypt", path, INPUT["encrypt"])  # attests anew by itself


def test_the_owner_sees_what_is_a_key(keys: Keys, admin: Admin) -> None:
    path = made(keys, "p-384")
    assert admin.show_resource(path).key == "p-384"
    admin.delete_resource(path)
    with pytest.raises(NotFound):
        keys.show(path)
    with pytest.raises(Conflict):
        made_twice = made(keys)
        keys.create(made_twice, NewKey("aes-256"))


def test_keys_survive_a_kill(tmp_path: Any, root: DevelopmentRoot) -> None:
    running = rig.started(tmp_path / "data", root)
    running.publish()
    with running.admin() as admin:
        keys = Keys(admin)
        path = made(keys)
        keys.rotate(path)
        keys.destroy(path, 1)
    with running.session(rig.attester(root)) as session:
        value = session.resource(path)
        text = session.use("encrypt", path, INPUT["encrypt"]).ciphertext
    running.kill()
    with running.session(rig.attester(root)) as session:
        assert session.resource(path) == value
        assert session.use("decrypt", path, TransitBody(ciphertext=text)).plaintext == TEXT
        assert code_of(session.resource, path, 1) == "release_refused"
    assert running.stop() == 0


def test_an_aes_key_tells_how_often_it_encrypted(keys: Keys, session: Session) -> None:
    path = made(keys, owner_operations=["encrypt"])
    assert keys.show(path).versions[0].uses == 0
    for operation in ("encrypt", "wrap", "datakey"):
        session.use(operation, path, INPUT[operation])
    keys.use("encrypt", path, INPUT["encrypt"])
    used = keys.show(path).versions[0].uses
    assert used is not None and 4 <= used <= 4 * 1024
    assert keys.list()[0].versions[0].uses is not None or keys.list()[0].kind != "aes-256"
    assert keys.show(made(keys, "p-256")).versions[0].uses is None


def test_a_listing_comes_in_pages(broker: RunningBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    with broker.admin("keys-paged") as admin:
        keys = Keys(admin)
        for number in range(5):
            keys.create(ResourcePath("p", "k", str(number)), NewKey("aes-256"))
            admin.set_resource(ResourcePath("p", "v", str(number)), b"x", Binding())
        whole, everything = keys.list(), admin.list_resources()
        assert (len(whole), len(everything)) == (5, 10)
        for size in (1, 2, 5, 10):
            monkeypatch.setattr("adyton.client.admin.PAGE", size)
            assert keys.list() == whole and admin.list_resources() == everything
        for query in ("limit=0", "limit=10001", "limit=x", "limit=-1", "after=x", "after=../../x"):
            assert code_of(admin.ask, "GET", f"/keys?{query}", list) in {"page_malformed", "resource_path_invalid"}
        assert len(admin.ask("GET", "/keys?after=kbs:///p/k/2", list)) == 2
