"""People by OpenID: a real provider over HTTPS, its keys turning, and everything that must not pass for a token of it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from joserfc import jwk as other_jwk
from joserfc import jws as other_jws
from tests.broker.people_rig import Provider, pem

from adyton.broker.people.gate import Gate, new_token
from adyton.broker.people.identity import (
    AGAIN_SECONDS,
    FRESH_SECONDS,
    STALE_SECONDS,
    Identities,
    check_provider,
    fetch_https,
)
from adyton.broker.people.people import Principal, Role
from adyton.cli import administering
from adyton.crypto import jws
from adyton.errors import AdytonError, MalformedRequest, NotPermitted, Unavailable
from adyton.protocol.people import Mapped, ProviderBody
from adyton.stores.people import Credential, Person
from adyton.stores.sqlite import Store

NOW = datetime.fromtimestamp(1_900_000_000, UTC)
ROOT_TOKEN = "r" * 43
KEY = other_jwk.generate_key("RSA", 2048, {"kid": "one"})
NEXT = other_jwk.generate_key("EC", "P-256", {"kid": "two"})


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    provider = Provider(tmp_path_factory.mktemp("provider"))
    yield provider
    provider.stop()


@pytest.fixture
def provider(running: Provider) -> Provider:
    running.keys, running.status, running.described, running.caching = [KEY.as_dict(private=False)], 200, {}, ""
    running.asked.clear()
    return running


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "store", root_key=bytes(32), now=NOW)
    opened.registry.make_organisation("acme", NOW)
    opened.registry.make_organisation("bolt", NOW)
    yield opened
    opened.close()


def body(provider: Provider, **change: Any) -> ProviderBody:
    roles = {"adyton-owner": Mapped("owner"), "adyton-audit": Mapped("auditor", ("acme-dev",))}
    made = ProviderBody(provider.issuer, "adyton-broker", "acme", roles=roles, ca=provider.ca)
    return msgspec.structs.replace(made, **change)


def gate(store: Store, provider: Provider, **change: Any) -> Gate:
    store.people.set_provider("idp", body(provider, **change))
    return Gate(ROOT_TOKEN, store, Identities())


def token(provider: Provider, key: Any = KEY, algorithm: str = "RS256", *, kid: Any = "", **change: Any) -> bytes:
    seconds = int(NOW.timestamp())
    claims = {
        "iss": provider.issuer, "aud": "adyton-broker", "sub": "alice", "role": "adyton-owner",
        "iat": seconds, "exp": seconds + 300, **change,
    }  # fmt: skip
    header = {"alg": algorithm, "kid": key.kid if kid == "" else kid}
    signed = other_jws.serialize_compact(
        {name: value for name, value in header.items() if value is not None},
        json.dumps({name: value for name, value in claims.items() if value is not None}),
        key,
        algorithms=[algorithm],
    )
    return f"Bearer {signed}".encode()


def refused(gate: Gate, header: bytes | None, organisation: str = "acme", now: datetime = NOW) -> str:
    with pytest.raises(AdytonError) as caught:
        gate.check(header, organisation, now)
    assert isinstance(caught.value, NotPermitted | Unavailable)
    return caught.value.code


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"iss": "https://other.example"}, "token_issuer"),
        ({"iss": None}, "token_issuer"),
        ({"aud": "somebody-else"}, "token_audience"),
        ({"aud": None}, "token_audience"),
        ({"aud": ["x", "y"]}, "token_audience"),
        ({"aud": "adyton-broker "}, "token_audience"),
        ({"exp": int(NOW.timestamp()) - 61}, "token_expired"),
        ({"exp": None}, "token_endless"),
        ({"nbf": int(NOW.timestamp()) + 61}, "token_early"),
        ({"iat": int(NOW.timestamp()) + 61}, "token_early"),
        ({"sub": None}, "token_subject"),
        ({"sub": ""}, "token_subject"),
        ({"sub": "x" * 256}, "token_subject"),
        ({"sub": "a\nb"}, "token_subject"),
        ({"sub": 7}, "token_subject"),
        ({"role": "adyton"}, "token_role"),
        ({"role": None}, "token_role"),
        ({"role": {"adyton-owner": True}}, "token_role"),
    ],
)
def test_claims_that_do_not_do(store: Store, provider: Provider, change: dict[str, Any], code: str) -> None:
    assert refused(gate(store, provider), token(provider, **change)) == code


def test_another_key_under_the_same_name(store: Store, provider: Provider) -> None:
    mallory = other_jwk.generate_key("RSA", 2048, {"kid": "one"})
    assert refused(gate(store, provider), token(provider, mallory)) == "token_signature"


def test_algorithms_are_those_of_the_entry(store: Store, provider: Provider) -> None:
    only = gate(store, provider, algorithms=("ES256",))
    assert refused(only, token(provider)) == "token_algorithm"
    assert not provider.asked  # refused before anybody is asked


def test_the_public_key_as_a_secret(store: Store, provider: Provider) -> None:
    import base64
    import hmac

    head, payload, _ = token(provider).removeprefix(b"Bearer ").split(b".")
    for name in (b'{"alg":"HS256","kid":"one"}', b'{"alg":"none"}', b'{"alg":"none","kid":"one"}'):
        head = base64.urlsafe_b64encode(name).rstrip(b"=")
        mac = hmac.digest(KEY.as_pem(private=False), head + b"." + payload, "sha256")
        for signature in (base64.urlsafe_b64encode(mac).rstrip(b"="), b""):
            assert (
                refused(gate(store, provider), b"Bearer " + b".".join([head, payload, signature])) == "token_algorithm"
            )


def test_who_is_known(store: Store, provider: Provider) -> None:
    found = gate(store, provider).check(token(provider), "acme", NOW)
    assert found == Principal("acme/oidc:idp:alice", Role.OWNER, "acme", None, "identity provider idp")
    assert not found.registered  # counts for nothing until somebody says who that is
    found = gate(store, provider).check(
        token(provider, role=["x", "adyton-audit"], aud=["a", "adyton-broker"]), "acme", NOW
    )
    assert (found.role, found.tenants) == (Role.AUDITOR, frozenset({"acme-dev"}))
    assert not found.covers("acme", "acme")


def test_roles_deep_inside(store: Store, provider: Provider) -> None:
    deep = gate(store, provider, role_claim="realm_access.roles")
    assert deep.check(token(provider, realm_access={"roles": ["adyton-owner"]}), "acme", NOW).role is Role.OWNER
    assert refused(deep, token(provider, realm_access=["roles"])) == "token_role"
    flat = gate(store, provider, role_claim="https://a.example/role")
    assert flat.check(token(provider, **{"https://a.example/role": "adyton-owner"}), "acme", NOW).role is Role.OWNER


def test_an_organisations_provider_is_nothing_to_another(store: Store, provider: Provider) -> None:
    known = gate(store, provider)
    assert refused(known, token(provider), "bolt") == "token_issuer"
    assert refused(known, token(provider), "") == "token_issuer"
    assert not provider.asked


def test_somebody_registered(store: Store, provider: Provider) -> None:
    store.people.set("acme", "alice", Person("auditor", ("acme-dev",)), ("idp:alice",), NOW)
    found = gate(store, provider).check(token(provider, role=None), "acme", NOW)
    assert (found.name, found.role, found.registered) == ("acme/alice", Role.AUDITOR, True)
    store.people.delete("acme", "alice")
    assert refused(gate(store, provider), token(provider, role=None)) == "token_role"


def test_keys_turn(store: Store, provider: Provider) -> None:
    known = gate(store, provider)
    known.check(token(provider), "acme", NOW)
    assert len(provider.asked) == 2
    known.check(token(provider), "acme", NOW)
    assert len(provider.asked) == 2  # remembered
    provider.keys = [NEXT.as_dict(private=False)]
    later = int(NOW.timestamp()) + AGAIN_SECONDS
    times: dict[str, Any] = {"iat": int(later), "exp": int(later) + 60}
    now = datetime.fromtimestamp(later, UTC)
    assert (
        refused(known, token(provider, NEXT, "ES256", **times), now=NOW) == "token_key_unknown"
    )  # too soon to ask again
    assert len(provider.asked) == 2
    known.check(token(provider, NEXT, "ES256", **times), "acme", now)
    assert len(provider.asked) == 4
    assert refused(known, token(provider, **times), now=now) == "token_key_unknown"  # the old one is gone


def test_a_stranger_cannot_make_the_broker_ask_and_ask(store: Store, provider: Provider) -> None:
    known = gate(store, provider)
    for number in range(20):
        stranger = other_jwk.generate_key("EC", "P-256", {"kid": f"made up {number}"})
        assert refused(known, token(provider, stranger, "ES256")) == "token_key_unknown"
    assert len(provider.asked) == 2


def test_a_provider_that_is_away(store: Store, provider: Provider) -> None:
    known = gate(store, provider)
    known.check(token(provider), "acme", NOW)
    provider.status = 500
    for seconds, code in ((FRESH_SECONDS + 1, None), (STALE_SECONDS + 1, "identity_provider_unreachable")):
        later = NOW.timestamp() + seconds
        now = datetime.fromtimestamp(later, UTC)
        header = token(provider, iat=int(later), exp=int(later) + 60)
        if code is None:
            assert known.check(header, "acme", now).role is Role.OWNER
        else:
            assert refused(known, header, now=now) == code
    assert refused(gate(store, provider), token(provider)) == "identity_provider_unreachable"


def test_keys_are_kept_no_longer_than_the_provider_says(store: Store, provider: Provider) -> None:
    provider.caching = "public, max-age=120"
    known = gate(store, provider)
    known.check(token(provider), "acme", NOW)
    later = NOW.timestamp() + 121
    known.check(token(provider, iat=int(later), exp=int(later) + 60), "acme", datetime.fromtimestamp(later, UTC))
    assert len(provider.asked) == 4


@pytest.mark.parametrize(
    "described",
    [
        {"issuer": "https://mallory.example"},
        {"jwks_uri": None},
        {"jwks_uri": "http://127.0.0.1/keys"},
        {"jwks_uri": "file:///etc/passwd"},
    ],
)
def test_what_is_described_must_be_the_issuer_itself(
    store: Store, provider: Provider, described: dict[str, Any]
) -> None:
    provider.described = described
    assert refused(gate(store, provider), token(provider)) == "identity_provider_unreachable"


def test_a_certificate_of_another_root(store: Store, provider: Provider, tmp_path: Path) -> None:
    other = Provider(tmp_path)
    try:
        assert refused(gate(store, provider, ca=other.ca), token(provider)) == "identity_provider_unreachable"
        assert refused(gate(store, provider, ca=""), token(provider)) == "identity_provider_unreachable"
    finally:
        other.stop()


@pytest.mark.parametrize(
    "change",
    [
        {"issuer": "http://a.example"}, {"issuer": "https://a.example/#x"}, {"issuer": "https://u:p@a.example"},
        {"issuer": "https://a.example/?q"}, {"issuer": "https:///x"}, {"issuer": "https://[::1"}, {"audience": ""},
        {"algorithms": ()}, {"algorithms": ("none",)}, {"algorithms": ("HS256",)}, {"ca": "no PEM"}, {"ca": "k\u00e9y"}, {"role_claim": ""},
        {"roles": {"x": Mapped("root")}}, {"roles": {"x": Mapped("operator")}},
    ],
)  # fmt: skip
def test_entries_that_are_not_taken(provider: Provider, change: dict[str, Any]) -> None:
    with pytest.raises(MalformedRequest):
        check_provider("idp", body(provider, **change))
    with pytest.raises(MalformedRequest):
        check_provider("a:b", body(provider))


def test_only_https_is_fetched(provider: Provider) -> None:
    with pytest.raises(MalformedRequest):
        fetch_https(provider.base.replace("https", "http"), "")
    provider.status = 302
    with pytest.raises(Unavailable):
        fetch_https(f"{provider.base}/keys", provider.ca)
    for host in ("a..b", "a" * 64 + ".b"):
        with pytest.raises(Unavailable):
            fetch_https(f"https://{host}/keys", "")


def test_who_answers_slowly_is_cut(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then never lets a single wait run out, so the whole has its own end."""
    monkeypatch.setattr("adyton.broker.people.identity.FETCH_SECONDS", 0.5)
    provider.dripping = True
    began = time.monotonic()
    try:
        with pytest.raises(Unavailable) as caught:
            fetch_https(f"{provider.base}/keys", provider.ca)
    finally:
        provider.dripping = False
    assert caught.value.code == "identity_provider_unreachable"
    assert time.monotonic() - began < 15


# Keys and tokens of people themselves


def signed(key: ed25519.Ed25519PrivateKey, **change: Any) -> bytes:
    seconds = int(NOW.timestamp())
    claims = {"iat": seconds, "exp": seconds + 7200, **change}
    return f"Bearer {jws.sign(key, {name: value for name, value in claims.items() if value is not None})}".encode()


def registered(store: Store, organisation: str, name: str, role: str = "owner") -> ed25519.Ed25519PrivateKey:
    key = ed25519.Ed25519PrivateKey.generate()
    store.people.set(organisation, name, Person(role), (), NOW)
    trusted = jws.trusted(key.public_key())
    store.people.add(organisation, "key", trusted.kid, Credential(name, key.public_key().public_bytes_raw()))
    return key


def test_keys(store: Store, provider: Provider) -> None:
    known = gate(store, provider)
    key = registered(store, "acme", "alice")
    assert pem(key).startswith("-----BEGIN")
    assert known.check(signed(key), "acme", NOW).name == "acme/alice"
    assert refused(known, signed(key), "bolt") == "admin_token_refused"
    assert refused(known, signed(key), "") == "admin_token_refused"
    assert refused(known, signed(ed25519.Ed25519PrivateKey.generate())) == "admin_token_refused"
    assert refused(known, signed(key, exp=None)) == "token_endless"
    assert refused(known, signed(key, exp=int(NOW.timestamp()) + 25 * 3600)) == "token_too_long"
    assert refused(known, signed(key, aud="another-service")) == "token_audience"
    assert refused(known, signed(key, iss=provider.issuer)) == "token_key_unknown"  # then it must be the provider's
    assert known.check(signed(key, aud=["x", "adyton"]), "acme", NOW).by.startswith("key ")


@pytest.mark.parametrize(
    ("named", "code"),
    [
        (None, "token_audience"),
        ("adyton", "token_audience"),
        ([], "token_audience"),
        (["adyton", "https://other.example:443"], "token_audience"),
        ("https://kms.example", "token_audience"),
        ({"https://kms.example:443": 1}, "token_audience"),
        (7, "token_audience"),
        ("https://kms.example:443", ""),
        (["adyton", "https://kms.example:443"], ""),
        (["adyton", "https://second.example:8443"], ""),
    ],
)
def test_a_broker_that_wants_its_own_name_in_a_token(store: Store, named: object, code: str) -> None:
    """What was shown to another broker that knows the key is not taken here."""
    wanted = frozenset({"https://kms.example:443", "https://second.example:8443"})
    strict = Gate(ROOT_TOKEN, store, Identities(), wanted)
    key = registered(store, "acme", "alice")
    if code:
        assert refused(strict, signed(key, aud=named)) == code
    else:
        assert strict.check(signed(key, aud=named), "acme", NOW).name == "acme/alice"


def test_what_our_client_signs_names_the_broker_and_its_replicas(store: Store, tmp_path: Path) -> None:
    key = registered(store, "acme", "alice")
    file = tmp_path / "key.pem"
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    urls = ["HTTPS://KMS.example/kms", "https://second.example:8443"]
    header = b"Bearer " + administering._signing(file, [administering.canonical(url) for url in urls])().encode()
    now = datetime.now(UTC)  # noqa: TID251 -- what is signed is of now
    for wanted in ("https://kms.example:443", "https://second.example:8443", "adyton"):
        assert (
            Gate(ROOT_TOKEN, store, Identities(), frozenset({wanted})).check(header, "acme", now).name == "acme/alice"
        )
    assert Gate(ROOT_TOKEN, store, Identities()).check(header, "acme", now).name == "acme/alice"
    assert (
        refused(Gate(ROOT_TOKEN, store, Identities(), frozenset({"https://x:443"})), header, now=now)
        == "token_audience"
    )


def test_a_key_as_older_coco_tools_use_it(store: Store, provider: Provider) -> None:
    """No ``kid``, no ``sub``, no ``aud``: ``iat``, ``nbf`` and two hours of ``exp``, signed by one of those registered."""
    known = gate(store, provider)
    keys = [registered(store, "", f"admin-{number}") for number in range(3)]
    seconds = int(NOW.timestamp())
    claims = {"iat": seconds, "exp": seconds + 7200, "nbf": seconds}
    for number, key in enumerate(keys):
        signing = other_jwk.OKPKey.import_key(key)
        with pytest.warns(match="EdDSA is deprecated"):
            made = other_jws.serialize_compact(
                {"alg": "EdDSA", "typ": "JWT"}, json.dumps(claims), signing, algorithms=["EdDSA"]
            )
        for organisation in ("", "acme"):  # the broker's own people are so everywhere
            assert known.check(f"Bearer {made}".encode(), organisation, NOW).name == f"admin-{number}"


def test_personal_tokens(store: Store, provider: Provider) -> None:
    known = gate(store, provider)
    store.people.set("acme", "alice", Person("owner"), (), NOW)
    number, made, digest = new_token()
    store.people.add("acme", "token", number, Credential("alice", digest, 0.0, NOW.timestamp() + 60))
    header = b"Bearer " + made.encode()
    assert known.check(header, "acme", NOW).name == "acme/alice"
    assert refused(known, header, "bolt") == "admin_token_refused"
    assert refused(known, header[:-1]) == "admin_token_refused"
    assert refused(known, header.replace(number.encode(), b"A" * 12)) == "admin_token_refused"
    assert refused(known, f"Bearer adyton_{number}_".encode()) == "admin_token_refused"
    assert refused(known, header, now=datetime.fromtimestamp(NOW.timestamp() + 60, UTC)) == "token_expired"
    store.people.set("acme", "alice", Person("auditor"), (), NOW)
    assert known.check(header, "acme", NOW).role is Role.AUDITOR  # what holds now, not when it was made
    store.people.remove("acme", "alice", "token", number)
    assert refused(known, header) == "admin_token_refused"


def test_the_secret_of_a_token_is_not_kept(store: Store, tmp_path: Path) -> None:
    store.people.set("acme", "alice", Person("owner"), (), NOW)
    number, made, digest = new_token()
    store.people.add("acme", "token", number, Credential("alice", digest, 0.0, NOW.timestamp() + 60))
    secret = made.rpartition("_")[2].encode()
    for file in (tmp_path / "store").iterdir():
        assert secret not in file.read_bytes()
        assert digest not in file.read_bytes()  # sealed, so nobody who writes the file makes a token


@pytest.mark.parametrize(
    "header", [None, b"", b"Bearer", b"Bearer ", b"Basic " + b"r" * 43, b"Bearer \xff", b"Bearer " + b"x" * 20000]
)
def test_other_headers(store: Store, provider: Provider, header: bytes | None) -> None:
    assert refused(gate(store, provider), header) == "admin_token_refused"


def test_the_admin_token_can_be_switched_off(store: Store, provider: Provider) -> None:
    known = gate(store, provider)
    header = f"Bearer {ROOT_TOKEN}".encode()
    assert known.check(header, "acme", NOW).is_root
    known.switch_root(enabled=False)
    assert refused(known, header) == "admin_token_off"
    assert known.again("", "", root=True) is None
    known.switch_root(enabled=True)
    assert known.check(header, "", NOW).of_the_broker


def test_nobody_is_the_admin_token_by_name() -> None:
    mallory = Principal("admin", Role.OWNER, "", frozenset({"x"}), "token x", "admin")
    assert not mallory.is_root
    assert not replace(mallory, by="key x").is_root


def test_time_is_the_callers(store: Store, provider: Provider) -> None:
    key = registered(store, "acme", "alice")
    assert refused(gate(store, provider), signed(key), now=datetime.fromtimestamp(time.time(), UTC)) in {
        "token_early",
        "token_too_long",
    }
