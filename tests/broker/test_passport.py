"""The passport: a token of one broker at another that was told to believe it, and every token that it must not believe."""

from __future__ import annotations

import base64
import http.server
import json
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.broker import rig
from tests.broker.conftest import KEY

from adyton.broker import issuers
from adyton.client.revocation import Revoking
from adyton.crypto import jwe
from adyton.crypto.jwt import Signer, jwks, verify_any, verifying_keys
from adyton.devtee.root import DevelopmentRoot
from adyton.errors import ConfigError, SessionInvalid
from adyton.protocol.release import Binding

RESOURCE = "/kbs/v0/resource/default/key/1"
COCO = Signer.generate()


@dataclass
class World:
    issuer: rig.RunningBroker
    relying: rig.RunningBroker
    root: DevelopmentRoot
    token: str
    key: Any

    @property
    def claims(self) -> dict[str, Any]:
        part = self.token.split(".")[1]
        found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        return found

    def ask(self, token: str, tenant: str = "") -> tuple[int, bytes]:
        with rig.raw(self.relying, tenant) as client:
            status, read, _ = client.ask("GET", RESOURCE, None, {"Authorization": f"Bearer {token}"})
        return status, read


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, root: DevelopmentRoot) -> Iterator[World]:
    place: Path = tmp_path_factory.mktemp("passport")
    issuer = rig.started(place / "issuer", root)
    issuer.publish()
    issuer.publish("spain")
    (place / "adyton.toml").write_text(
        f'issuer = "Adyton"\nissuer_tenant = "default"\nurl = "{issuer.description["url"]}"\n'
    )
    (place / "coco.jwks").write_bytes(jwks((COCO,)).replace(COCO.kid.encode(), b""))
    (place / "coco.toml").write_text('issuer = "CoCo-Attestation-Service"\njwks = "coco.jwks"\naudience = "me"\n')
    relying = rig.started(
        place / "relying", root, "--trusted-token-issuer", str(place / "adyton.toml"),
        "--trusted-token-issuer", str(place / "coco.toml"),
    )  # fmt: skip
    relying.publish()
    binding = Binding(workloads=[str(rig.document().digest)])
    for tenant in ("default", "spain"):
        with relying.admin(tenant) as admin:
            admin.set_resource(KEY, rig.SECRET, binding)
    with rig.raw(issuer) as client:
        token, key = client.handshake(rig.attester(root), rig.document())
    yield World(issuer, relying, root, token, key)
    assert relying.stop() == 0 and issuer.stop() == 0


def test_a_token_opens_what_it_should(world: World) -> None:
    status, read = world.ask(world.token)
    assert status == 200, read
    assert jwe.decrypt(world.key, read) == rig.SECRET
    with world.relying.admin() as admin:
        admin.set_reference("snp_smt_enabled", [True])  # a change here does not age a decision made elsewhere
    assert world.ask(world.token)[0] == 200


def test_what_is_revoked_here_gets_nothing_by_a_token_from_elsewhere(world: World) -> None:
    chip = world.claims["submods"]["cpu0"]["ear.veraison.annotated-evidence"]["snp"]["chip_id"]
    with world.relying.admin() as admin:
        revocations = Revoking(admin)
        revocations.revoke("chip", [chip], "stolen")
        assert world.ask(world.token)[0] == 401
        revocations.lift("chip", chip, "found")
    assert world.ask(world.token)[0] == 200


def test_another_tenant_believes_nobody(world: World) -> None:
    status, read = world.ask(world.token, "/t/spain")
    assert status == 401, read


def test_another_tenant_of_the_issuer_is_not_believed(world: World) -> None:
    with rig.raw(world.issuer, "/t/spain") as client:
        status, read, _ = client.ask("POST", "/kbs/v0/auth", b'{"version":"0.4.0","tee":"snp","extra-params":""}')
        key = ec.generate_private_key(ec.SECP256R1())
        body = rig.attest_body(json.loads(read)["nonce"], rig.attester(world.root), rig.document(), key)
        status, read, _ = client.ask("POST", "/kbs/v0/attest", body)
    assert status == 200
    status, read = world.ask(json.loads(read)["token"])
    assert status == 401 and b"token_issuer_tenant" in read


def forged(claims: dict[str, Any], header: dict[str, Any] | None = None, signer: Signer = COCO) -> str:
    if header is None:
        return signer.sign(json.dumps(claims).encode())
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in (header, claims)]
    return ".".join([*parts, "A" * 86 if header["alg"] != "none" else ""])


def of_coco(world: World, **change: Any) -> dict[str, Any]:
    claims = {**world.claims, "iss": "CoCo-Attestation-Service", "aud": ["me", "you"]}
    del claims["adyton"]
    return {name: value for name, value in {**claims, **change}.items() if value is not None}


def test_a_token_without_kid(world: World) -> None:
    status, read = world.ask(forged(of_coco(world)))
    assert status == 200, read
    assert world.ask(forged(of_coco(world, aud="me")))[0] == 200


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"exp": 1}, b"token_expired"),
        ({"exp": None}, b"token_expired"),
        ({"exp": 10**40}, b"token_too_long"),
        ({"exp": int(time.time()) + 2 * 86_400}, b"token_too_long"),
        ({"nbf": 9_999_999_999}, b"token_expired"),
        ({"iss": "Adyton"}, b"token_invalid"),
        ({"iss": "nobody"}, b"token_issuer_unknown"),
        ({"iss": None}, b"token_issuer_unknown"),
        ({"aud": None}, b"token_audience"),
        ({"aud": "you"}, b"token_audience"),
        ({"aud": {"me": 1}}, b"token_audience"),
        ({"adyton": {"tenant": "default"}}, b"token_issuer_tenant"),
        ({"eat_profile": "other"}, b"token_malformed"),
        ({"submods": {}}, b"token_malformed"),
    ],
)
def test_tokens_that_are_not_believed(world: World, change: dict[str, Any], code: bytes) -> None:
    status, read = world.ask(forged(of_coco(world, **change)))
    assert status == 401 and code in read, read


def test_signatures_that_are_none(world: World) -> None:
    other = Signer.generate()
    claims = of_coco(world)
    for token in (
        forged(claims, {"alg": "none"}),
        forged(claims, {"alg": "HS256", "kid": COCO.kid}),
        forged(claims, {"alg": "ES256"}),
        forged(claims, signer=other),  # its own key in the header
        forged({**world.claims, "exp": int(time.time()) + 60}, signer=other),
        world.token[:-4] + "AAAA",
    ):
        assert world.ask(token)[0] == 401


def test_a_token_with_an_audience_is_somebody_elses_by_default(world: World) -> None:
    """The issuer's file names no audience, so a token that has one was made for others."""
    said = issuers.IssuerFile("Adyton", issuer_tenant="default")
    keys = verifying_keys(jwks((COCO,)))
    one = issuers.TrustedIssuer(said, keys, 0.0, Path(), 0.0)
    claims = {**world.claims, "exp": 1000}
    believed = issuers.Issuers((one,))
    assert believed.verify("default", forged(claims), 1.0).expires == 1000
    with pytest.raises(SessionInvalid) as refused:
        believed.verify("default", forged({**claims, "aud": "x"}), 1.0)
    assert refused.value.code == "token_audience"


def test_keys_that_cannot_be_asked_for_again_are_believed_for_a_day(world: World) -> None:
    said = issuers.IssuerFile("Adyton", url="http://127.0.0.1:9", issuer_tenant="default")
    one = issuers.TrustedIssuer(said, verifying_keys(jwks((COCO,))), 0.0, Path(), 0.0)
    believed, claims = issuers.Issuers((one,)), {**world.claims, "exp": 90_000}
    believed.refresh(issuers.REFRESH_SECONDS)  # nobody answers there
    assert believed.verify("default", forged(claims), 86_400.0).expires == 90_000
    with pytest.raises(SessionInvalid) as refused:
        believed.verify("default", forged(claims), 86_401.0)
    assert refused.value.code == "token_issuer_stale"


@pytest.mark.parametrize(
    "text",
    [
        "",
        'issuer = "x"',
        'issuer = "x"\njwks = "a"\nurl = "b"',
        'issuer = "x"\njwks = "nosuch"',
        'issuer = "x"\njwks = "x"\nleeway = 5',
        'issuer = ""\njwks = "x"',
        'issuer = "x"\nurl = "http://elsewhere.example"',
    ],
)
def test_issuer_files_that_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.toml").write_text(text)
    with pytest.raises(ConfigError):
        issuers.load([str(tmp_path / "x.toml")], 0.0)


def test_an_issuer_that_does_not_answer_yet(tmp_path: Path, world: World) -> None:
    (tmp_path / "x.toml").write_text('issuer = "Adyton"\nurl = "http://127.0.0.1:9"')
    believed = issuers.load([str(tmp_path / "x.toml")], 0.0)
    with pytest.raises(SessionInvalid):
        believed.verify("default", world.token, time.time())


@pytest.mark.parametrize("status", [201, 403, 404, 500])
def test_keys_under_another_status_are_none(tmp_path: Path, status: int) -> None:
    """An error page of a proxy is not the issuer's word, whatever it holds."""

    class Door(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = jwks((COCO,))
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            return

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Door) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            (tmp_path / "x.toml").write_text(f'issuer = "x"\nurl = "http://127.0.0.1:{server.server_port}"')
            with pytest.raises(ConfigError) as refused:
                issuers.load([str(tmp_path / "x.toml")], 0.0)
        finally:
            server.shutdown()
    assert (refused.value.code, refused.value.as_dict()["got"]) == ("token_issuer_file", status)


@pytest.mark.parametrize("body", [b"", b"[]", b'{"keys":[]}', b'{"keys":[{"kty":"RSA"}]}', b'{"keys":' + b"[" * 200])
def test_key_sets_without_a_key(body: bytes) -> None:
    with pytest.raises(SessionInvalid) as refused:
        verifying_keys(body)
    assert refused.value.code == "jwks_malformed"


def test_keys_are_read_again(tmp_path: Path) -> None:
    first, second = Signer.generate(), Signer.generate()
    (tmp_path / "keys").write_bytes(jwks((first,)))
    (tmp_path / "x.toml").write_text('issuer = "x"\njwks = "keys"')
    believed = issuers.load([str(tmp_path / "x.toml")], 0.0)
    (tmp_path / "keys").write_bytes(jwks((second,)))
    believed.refresh(1.0)
    assert first.kid in believed.trusted[0].keys.by_kid
    believed.refresh(issuers.REFRESH_SECONDS)
    assert second.kid in believed.trusted[0].keys.by_kid
    (tmp_path / "keys").write_bytes(b"broken")
    believed.refresh(2 * issuers.REFRESH_SECONDS)
    assert second.kid in believed.trusted[0].keys.by_kid


def test_the_published_set_verifies(world: World) -> None:
    url = world.issuer.description["url"] + "/.well-known/jwks.json"
    with urllib.request.urlopen(url) as answer:
        keys = verifying_keys(answer.read())
    assert verify_any(world.token, keys, now=time.time())["iss"] == "Adyton"
    assert msgspec.json.encode(world.claims)
