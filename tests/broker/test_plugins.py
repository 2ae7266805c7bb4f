"""External gRPC plug-ins: one written with our own helper, called by a broker. Who may not, first."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.broker import rig
from tests.stores.backends.certificates import Authority

from adyton.crypto import jwe
from adyton.devtee.root import DevelopmentRoot
from adyton.errors import ConfigError, TooLarge, Unavailable
from adyton.protocol import rcar
from adyton.stores.backends.grpc_plugin import PluginClient, PluginReply, PluginRequest, serve
from adyton.stores.backends.guard import FAILURES
from adyton.stores.backends.options import PluginOptions

ALLOW = 'package policy\ndefault allow = false\nallow if {\n data.plugin == "echo"\n data["resource-path"][0] == "secret"\n}\n'


class Echo:
    """POST is for administrators; ``secret/…`` is encrypted; ``hang`` hangs, ``fail`` raises."""

    def __init__(self) -> None:
        self.asked: list[PluginRequest] = []
        self.consulted = 0
        self.go = threading.Event()

    def needs_admin(self, asked: PluginRequest) -> bool:
        self.consulted += 1
        if asked.path[:1] == ("undecided",):
            raise RuntimeError("a bug of the plug-in's author")
        return asked.method == "POST"

    def needs_encryption(self, asked: PluginRequest) -> bool:
        return asked.path[:1] == ("secret",)

    def handle(self, asked: PluginRequest) -> PluginReply:
        self.asked.append(asked)
        match asked.path:
            case (_, "hang"):
                self.go.wait(10)
            case (_, "fail"):
                raise RuntimeError("a bug")
            case (_, "absent"):
                return PluginReply(b"no", 404)
            case (_, "forbidden"):
                return PluginReply(b"internals of the plug-in", 403)
        said = {"method": asked.method, "path": asked.path, "query": dict(asked.query), "body": asked.body.decode()}
        return PluginReply(json.dumps(said).encode(), 0 if asked.method == "GET" else 201)


@pytest.fixture(scope="module")
def echo() -> Echo:
    return Echo()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, root: DevelopmentRoot, echo: Echo) -> Iterator[rig.RunningBroker]:
    place = tmp_path_factory.mktemp("plugins")
    authority, strangers = Authority(place, "ours"), Authority(place, "strangers")
    certificate, key = authority.issue("plugin")
    our_certificate, our_key = authority.issue("broker", client=True)
    server, port = serve(echo, "127.0.0.1:0", certificate, key, authority.ca)
    ours = f'certificate = "{our_certificate}"\nprivate_key = "{our_key}"\nseconds = 1.0\n'
    endpoint = f'endpoint = "https://localhost:{port}"\n'
    (place / "backends.toml").write_text(
        f'[plugins.echo]\n{endpoint}ca_file = "{authority.ca}"\n{ours}'
        f'[plugins.open]\n{endpoint}ca_file = "{authority.ca}"\nany_workload_i_accept = true\n{ours}'
        f'[plugins.stranger]\n{endpoint}ca_file = "{strangers.ca}"\n{ours}'
        f'[plugins.theirs]\n{endpoint}ca_file = "{authority.ca}"\ntenants = ["acme"]\n{ours}'
    )
    broker = rig.started(place / "data", root, "--backends", str(place / "backends.toml"))
    broker.publish()
    yield broker
    echo.go.set()
    broker.stop()
    server.stop(0).wait()


def _bearer(broker: rig.RunningBroker) -> dict[str, str]:
    return {"Authorization": f"Bearer {(broker.data / 'admin.token').read_text().strip()}"}


def test_strangers_reach_no_plug_in(running: rig.RunningBroker, echo: Echo) -> None:
    echo.asked.clear()
    consulted = echo.consulted
    with rig.raw(running) as client:
        for path in ("echo/secret/1", "external/echo/secret/1", "open/x"):
            for method in ("GET", "POST"):
                assert client.ask(method, f"/kbs/v0/{path}")[0] == 401
        assert client.ask("POST", "/kbs/v0/echo/x", b"", {"Authorization": "Bearer " + "x" * 40})[0] == 401
        assert client.ask("GET", "/kbs/v0/echo/x", None, {"Authorization": "Bearer a.b.c"})[0] == 401
        for header in ("Bearer " + "x" * 40, "Bearer adyton_1_x", "Bearer a.b.c", "Basic eDp5", "x", ""):
            assert client.ask("GET", "/kbs/v0/echo/x", None, {"Authorization": header})[0] == 401
        for cookie in ("kbs-session-id=x", "kbs-session-id=" + "A" * 300):
            assert client.ask("GET", "/kbs/v0/echo/x", None, {"Cookie": cookie})[0] == 401
        client.ask("POST", "/kbs/v0/auth", rcar.request_body("snp"))  # a challenge is no attestation
        assert client.ask("GET", "/kbs/v0/echo/x")[0] == 401
        assert client.ask("GET", "/kbs/v0/nobody/x", None, _bearer(running))[0] == 404
        assert client.ask("GET", "/kbs/v0/theirs/x", None, _bearer(running))[0] == 404  # another tenant's
        assert client.ask("GET", "/kbs/v0/echo/../x", None, _bearer(running))[0] == 404
    assert echo.asked == []
    assert echo.consulted == consulted  # not even whether somebody else might


def test_an_administrator(running: rig.RunningBroker, echo: Echo) -> None:
    with rig.raw(running) as client:
        status, body, _ = client.ask("POST", "/kbs/v0/echo/put/1?a=b", b"hello", _bearer(running))
        assert status == 200
        assert json.loads(body) == {"method": "POST", "path": ["put", "1"], "query": {"a": "b"}, "body": "hello"}
        status, body, _ = client.ask("POST", "/kbs/v0/external/echo/put/2", b"", _bearer(running))
        assert status == 200 and json.loads(body)["path"] == ["put", "2"]
        # The admin's token is no attestation
        assert client.ask("GET", "/kbs/v0/echo/secret/1", None, _bearer(running))[0] == 401
        assert client.ask("DELETE", "/kbs/v0/external/echo/x", None, _bearer(running))[0] == 401
    with running.admin() as admin:
        rows = [one["row"] for one in admin.audit(limit=2)]
    assert [row["action"] for row in rows] == ["plugin.use"] * 2
    assert "POST kbs+echo:///put/2" in json.dumps(rows)


def test_a_workload_needs_a_policy_that_allows_the_plug_in(
    running: rig.RunningBroker, root: DevelopmentRoot, echo: Echo
) -> None:
    with rig.raw(running) as client:
        _, key = client.handshake(rig.attester(root, rig.document()), rig.document())
        echo.asked.clear()
        assert client.ask("GET", "/kbs/v0/echo/secret/1")[0] == 403  # no policy says that it may
        assert echo.asked == []
        status, body, _ = client.ask("GET", "/kbs/v0/open/secret/1")  # configured for any that is accepted
        assert status == 200 and json.loads(jwe.decrypt(key, body))["path"] == ["secret", "1"]
        status, body, headers = client.ask("GET", "/kbs/v0/open/plain/1?x=y")
        assert status == 200 and json.loads(body)["query"] == {"x": "y"}
        assert headers["content-type"] == "application/octet-stream"
        assert client.ask("POST", "/kbs/v0/open/x", b"")[0] == 401  # a workload is no administrator
    with running.admin() as admin:
        admin.set_policy("resource", "resource-policy", ALLOW)
    try:
        with rig.raw(running) as client:
            _, key = client.handshake(rig.attester(root, rig.document()), rig.document())
            status, body, _ = client.ask("GET", "/kbs/v0/external/echo/secret/1")
            assert status == 200 and json.loads(jwe.decrypt(key, body))["path"] == ["secret", "1"]
            assert client.ask("GET", "/kbs/v0/echo/plain/1")[0] == 403
            assert client.ask("GET", "/kbs/v0/open/secret/1")[0] == 403  # the policy knows only the other
    finally:
        with running.admin() as admin:
            admin.delete_policy("resource", "resource-policy")
    with running.admin() as admin:
        rows = [one["row"] for one in admin.audit(limit=40)]
    told = {(row["action"], row["decision"], row["resource"]) for row in rows if row["action"] == "plugin"}
    assert ("plugin", "allowed", "kbs+echo:///secret/1") in told
    assert ("plugin", "refused", "kbs+echo:///plain/1") in told


def test_evidence_that_is_refused_gets_nothing(running: rig.RunningBroker, root: DevelopmentRoot) -> None:
    debugged = rig.attester(root, rig.document(), policy=0x30000 | 1 << 19)
    with rig.raw(running) as client:
        client.handshake(debugged, rig.document())
        assert client.ask("GET", "/kbs/v0/open/secret/1")[0] == 403


def test_what_a_plug_in_does_wrong(running: rig.RunningBroker, root: DevelopmentRoot, echo: Echo) -> None:
    with rig.raw(running) as client:
        client.handshake(rig.attester(root, rig.document()), rig.document())
        assert client.ask("GET", "/kbs/v0/open/x/absent")[0] == 404
        status, body, _ = client.ask("GET", "/kbs/v0/open/x/forbidden")
        assert status == 503 and b"internals" not in body
        assert client.ask("GET", "/kbs/v0/open/x/fail")[0] == 503
        assert client.ask("GET", "/kbs/v0/open/undecided")[0] == 503
        assert client.ask("GET", "/kbs/v0/stranger/x")[0] == 503  # its certificate is not of whom we believe
        for _ in range(FAILURES + 1):  # what one workload asks for shuts no other out
            assert client.ask("GET", "/kbs/v0/open/undecided")[0] == 503
        assert client.ask("GET", "/kbs/v0/open/x")[0] == 200
        assert client.ask("GET", "/kbs/v0/open/x/hang")[0] == 503
    echo.go.set()
    with running.admin() as admin:
        views = {view.name: view for view in admin.backends()}
    assert views["echo"].ok and views["open"].ok and not views["stranger"].ok and "theirs" not in views


def test_a_client_alone(tmp_path: Path) -> None:
    for options, code in (
        (PluginOptions(endpoint="http://plugin.example:50051"), "backend_plain_http"),
        (PluginOptions(endpoint="https://plugin.example:50051"), "backend_option_invalid"),
        (PluginOptions(endpoint="unix:///x"), "backend_option_invalid"),
        (PluginOptions(endpoint="https://x:1", ca_file=str(tmp_path / "none")), "backend_file_unreadable"),
    ):
        with pytest.raises(ConfigError) as caught:
            PluginClient(options)
        assert caught.value.code == code
    with pytest.raises(ConfigError):
        serve(Echo(), "0.0.0.0:0")
    server, port = serve(Echo(), "127.0.0.1:0")
    client = PluginClient(PluginOptions(endpoint=f"http://127.0.0.1:{port}", max_answer=64))
    try:
        assert client.check().startswith("kbs.plugin.v1.KbsPlugin")
        with pytest.raises(TooLarge):
            client.handle(PluginRequest("GET", ("a", "b"), {"long": "x" * 100}))
    finally:
        server.stop(0).wait()
    with pytest.raises(Unavailable) as gone:
        client.needs_admin(PluginRequest("GET", ()))
    assert gone.value.code == "backend_unreachable"
    client.close()
