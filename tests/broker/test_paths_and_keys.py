"""What a request target names; how the broker's own keys last and turn."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton.broker import keys
from adyton.broker.door.paths import Route, route
from adyton.broker.running.opening import open_store
from adyton.broker.settings import Settings, check
from adyton.errors import ConfigError, MalformedRequest, SessionInvalid


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"/kbs/v0/auth", Route("default", "kbs", ("auth",), "")),
        (b"/t/acme/kbs/v0/auth?x=1", Route("acme", "kbs", ("auth",), "x=1")),
        (b"/kbs/v0/resource//a/b/c", Route("default", "kbs", ("resource", "a", "b", "c"), "")),
        (b"/api/v0/audit?limit=5", Route("default", "api", ("audit",), "limit=5")),
        (b"/t/acme/api/v0/resources", Route("acme", "api", ("resources",), "")),
        (b"/healthz", Route("default", "top", ("healthz",), "")),
        (b"/kbs/v1/auth", Route("default", "top", ("kbs", "v1", "auth"), "")),
    ],
)
def test_routes(target: bytes, expected: Route) -> None:
    assert route(target, b"", {}) == expected


@pytest.mark.parametrize(
    "target",
    [
        b"", b"kbs/v0/auth", b"/", b"//", b"/kbs/v0/", b"/kbs//v0/auth", b"/kbs/v0/auth/", b"/kbs/v0/resource/",
        b"/kbs/v0/resource//", b"/kbs/v0/resource///a/b/c", b"/kbs/v0/resource/a//b", b"/kbs/v0/./auth", b"/kbs/v0/../x",
        b"/t//kbs/v0/auth", b"/t/UPPER/kbs/v0/auth", b"/t/-a/kbs/v0/auth", b"/t/../kbs/v0/auth", b"/\xc3\xa9", b"*",
        b"http://x/kbs/v0/auth", b"/" + b"a" * 5000, b"/api/v0//resources/x",
    ],
)  # fmt: skip
def test_targets_that_name_nothing(target: bytes) -> None:
    with pytest.raises(MalformedRequest):
        route(target, b"", {})


@given(st.binary(max_size=60))
def test_any_target_is_a_route_or_refused(target: bytes) -> None:
    try:
        found = route(b"/" + target, b"", {})
    except MalformedRequest:
        return
    assert all(part and part not in {".", ".."} for part in found.parts)


def test_host_names_of_tenants() -> None:
    hosts = {"acme.example": "acme"}
    assert route(b"/kbs/v0/auth", b"ACME.example:8443", hosts).tenant == "acme"
    assert route(b"/kbs/v0/auth", b"other.example", hosts).tenant == "default"
    assert route(b"/t/b/kbs/v0/auth", b"acme.example", hosts).tenant == "b"


def test_keys_last_and_turn(tmp_path: Path) -> None:
    store = open_store(Settings(data=str(tmp_path)))
    secrets = store.secrets
    now = 1_800_000_000.0
    first = keys.load(secrets, now)
    assert keys.load(secrets, now, first) is first
    assert keys.load(secrets, now).cookies == first.cookies
    assert not keys.rotate(secrets, now + keys.COOKIE_SECONDS - 1)
    later = now + keys.COOKIE_SECONDS
    assert keys.rotate(secrets, later)
    assert not keys.rotate(secrets, later)
    waiting = keys.load(secrets, later)
    assert waiting.cookies.current == first.cookies.current  # known to all before anybody uses it
    turned = keys.load(secrets, later + keys.HEAD_START)
    assert turned.cookies.current != first.cookies.current
    assert turned.cookies.open(first.cookies.seal(b"x")) == b"x"
    assert waiting.cookies.open(turned.cookies.seal(b"x")) == b"x"
    assert turned.signer.kid == first.signer.kid
    for _ in range(20):
        later += keys.COOKIE_SECONDS + keys.HEAD_START
        keys.rotate(secrets, later)
    gone = keys.load(secrets, later)
    assert len(gone.cookies.keys) <= 5
    with pytest.raises(SessionInvalid):
        gone.cookies.open(first.cookies.seal(b"x"))
    keys.rotate(secrets, now + keys.TOKEN_SECONDS)
    both = keys.load(secrets, now + keys.TOKEN_SECONDS + keys.HEAD_START)
    assert both.signer.kid != first.signer.kid
    assert first.signer.kid in both.verifiers
    assert first.signer.kid.encode() in both.jwks
    store.close()


@pytest.mark.parametrize("environment", ["development", "ci", "test"])
def test_where_development_roots_may_be_trusted(environment: str) -> None:
    settings = Settings(data="/x", environment=environment, development_roots=["ab" * 32])
    assert check(settings) is settings


@pytest.mark.parametrize(
    "settings",
    [
        Settings(data="/x", environment="production", development_roots=["ab" * 32]),
        Settings(data="/x", environment="pre-production", development_roots=["ab" * 32]),
        Settings(data="/x", environment="staging"),
        Settings(data="/x", environment="test", development_roots=["AB" * 32]),
        Settings(data="/x", environment="test", development_roots=[""]),
        Settings(data="/x", certificate="/c"),
        Settings(data="/x", workers=0),
        Settings(data="/x", session_seconds=0),
        Settings(data="/x", tenant_hosts={"a": "B"}),
    ],
)
def test_settings_that_stop_the_start(settings: Settings) -> None:
    with pytest.raises(ConfigError):
        check(settings)
