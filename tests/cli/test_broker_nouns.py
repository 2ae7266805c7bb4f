"""``adyton broker|resource|policy|reference|audit`` as an owner types them."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.broker import rig

from adyton.devtee.root import DevelopmentRoot
from adyton.protocol import rcar

SECRET = "a-very-secret-value-4711"
URI = "kbs:///default/key/1"
DIGEST = "sha256:" + "ab" * 32


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> DevelopmentRoot:
    return rig.make_root(tmp_path_factory.mktemp("root"))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, root: DevelopmentRoot) -> Iterator[Path]:
    """A broker with its data where the command line looks by itself."""
    directory = tmp_path_factory.mktemp("home")
    running = rig.started(directory / "broker", root)
    yield directory
    assert running.stop() == 0


def adyton(
    home: Path, *arguments: str, stdin: str | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "adyton", *arguments], input=stdin, capture_output=True, text=True, timeout=60,
        env={**os.environ, "ADYTON_HOME": str(home), "ADYTON_BROKER": "", **environment},
    )  # fmt: skip


def ok(home: Path, *arguments: str, stdin: str | None = None) -> str:
    result = adyton(home, *arguments, stdin=stdin)
    assert result.returncode == 0, result.stderr
    assert SECRET not in result.stdout + result.stderr
    return result.stdout


def test_a_secret(home: Path) -> None:
    ok(home, "resource", "set", URI, "--file", "-", "--workload", DIGEST, stdin=SECRET)
    assert DIGEST in ok(home, "resource", "list")
    shown = json.loads(ok(home, "resource", "show", URI, "--json"))
    assert shown["size"] == len(SECRET)
    ok(home, "resource", "bind", URI, "--any-workload-i-accept")
    assert "any workload" in ok(home, "resource", "show", URI)
    ok(home, "resource", "bind", URI, "--nobody")
    assert "nobody" in ok(home, "resource", "show", URI)
    ok(home, "resource", "delete", URI)
    gone = adyton(home, "resource", "show", URI)
    assert gone.returncode == 1
    assert "no resource" in gone.stderr


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("resource", "set", "kbs:///../key/1", "--file", "/etc/hostname"), 1),
        (("resource", "set", URI, "--file", "/nonexistent"), 3),
        (("resource", "set", URI, "--file", "/etc/hostname", "--workload", "x"), 1),
        (("resource", "set", URI), 3),
        (("resource", "bind", URI), 3),
        (("resource", "bind", URI, "--nobody", "--image", DIGEST), 3),
        (("reference", "set", "name"), 3),
        (("reference", "set", "name", "{", "--json-value"), 3),
        (("reference", "set", "name", "x", "--expires", "soon"), 1),
        (("policy", "set", "attestation", "/etc/hostname"), 1),
        (("audit", "list", "--since", "yesterday"), 1),
        (("audit", "list", "--tenant", "A/B"), 1),
        (("audit", "list", "--broker", "http://broker.example"), 1),
    ],
)
def test_wrong_usage(home: Path, arguments: tuple[str, ...], status: int) -> None:
    result = adyton(home, *arguments)
    assert result.returncode == status, result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("resource", "show"), "usage"),
        (("resource", "shw", URI), "usage"),
        (("reference", "set", "snp_bootloader", "ten"), "usage"),
        (("resource", "delete", URI), "resource_absent"),
        (("policy", "delete", "resource"), "policy_absent"),
        (("reference", "delete", "absent"), "reference_absent"),
        (("policy", "set", "attestation", "/etc/hostname"), "policy_package"),
        (("audit", "list", "--since", "yesterday"), "time_malformed"),
        (("resource", "set", URI, "--file", "/dev/zero"), "resource_too_large"),
        (("audit", "list", "--broker", "http://a..b"), "broker_address"),
        (("audit", "list", "--broker-pin", "x"), "broker_address"),
        (
            ("audit", "list", "--broker", "http://127.0.0.1:1", "--admin-token-file", "/etc/hostname"),
            "broker_unreachable",
        ),
        (("audit", "list", "--admin-token-file", "/etc/hostname"), "admin_token_refused"),
        (("audit", "list", "--admin-token-file", "/nonexistent"), "admin_token_unreadable"),
    ],
)
def test_errors_are_json_too(home: Path, arguments: tuple[str, ...], code: str) -> None:
    result = adyton(home, *arguments, "--json")
    assert result.returncode in {1, 3}
    (line,) = result.stdout.splitlines()
    assert json.loads(line)["error"]["code"] == code
    assert "Traceback" not in result.stderr


def test_deletions_in_json(home: Path) -> None:
    ok(home, "resource", "set", URI, "--file", "-", stdin=SECRET)
    assert json.loads(ok(home, "resource", "delete", URI, "--json")) == {"deleted": URI}
    ok(home, "reference", "set", "r", "x")
    assert json.loads(ok(home, "reference", "delete", "r", "--json")) == {"deleted": "r"}


def test_the_token_of_this_machines_broker_is_for_no_other(home: Path) -> None:
    """``--broker`` elsewhere without a token file must not hand that broker the token of the one here."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        url = f"http://127.0.0.1:{other.getsockname()[1]}"
        refused = adyton(home, "resource", "list", "--broker", url)
        assert refused.returncode == 1
        assert "admin_token_missing" in refused.stderr
        other.settimeout(0.2)
        with pytest.raises(TimeoutError):
            other.accept()


def test_tls_where_none_is_spoken(home: Path) -> None:
    url = json.loads((home / "broker" / "broker.json").read_text())["url"].replace("http:", "https:")
    token = str(home / "broker" / "admin.token")
    refused = adyton(home, "resource", "list", "--broker", url, "--admin-token-file", token)
    assert "broker_not_tls" in refused.stderr and "http://" in refused.stderr


def test_who_answers_is_no_broker(home: Path) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        url, token = f"http://127.0.0.1:{server.server_port}", str(home / "broker" / "admin.token")
        refused = adyton(home, "resource", "list", "--broker", url, "--admin-token-file", token)
        thread.join(10)
    assert "broker_answer" in refused.stderr and "hint" in refused.stderr


def test_what_strangers_sent_does_not_move_the_cursor(home: Path, root: DevelopmentRoot) -> None:
    url = json.loads((home / "broker" / "broker.json").read_text())["url"]
    with contextlib.closing(rig.Raw(int(url.rpartition(":")[2]))) as client:
        key = ec.generate_private_key(ec.SECP256R1())
        _, body, _ = client.ask("POST", "/kbs/v0/auth", rcar.request_body("snp"))
        evil = json.dumps({"\u001b]0;evil\u0007": 1})
        attest = rig.attest_body(json.loads(body)["nonce"], rig.attester(root), rig.document(), key, evil)
        assert client.ask("POST", "/kbs/v0/attest", attest)[0] == 401
    listed = ok(home, "audit", "list", "--limit", "1")
    assert "evil" in listed and "\x1b" not in listed and "\x07" not in listed


def test_reference_values_take_the_form_that_is_compared(home: Path, tmp_path: Path) -> None:
    ok(home, "reference", "set", "snp_bootloader", "10", "11")
    assert json.loads(ok(home, "reference", "show", "snp_bootloader")) == [10, 11]
    ok(home, "reference", "set", "snp_smt_allowed", "true")
    assert json.loads(ok(home, "reference", "show", "snp_smt_allowed")) is True
    file = tmp_path / "values.json"
    file.write_text('{"snp_bootloader": 10}')
    assert "never matches" in adyton(home, "reference", "set", "--file", str(file)).stderr
    for name in ("snp_bootloader", "snp_smt_allowed"):
        ok(home, "reference", "delete", name)


def test_reference_values(home: Path, tmp_path: Path) -> None:
    ok(home, "reference", "set", "snp_launch_measurement", "ab" * 48, "cd" * 48)
    assert json.loads(ok(home, "reference", "show", "snp_launch_measurement")) == ["ab" * 48, "cd" * 48]
    ok(home, "reference", "set", "snp_smt_enabled", "true", "--json-value", "--expires", "2099-01-01T00:00:00Z")
    assert json.loads(ok(home, "reference", "show", "snp_smt_enabled")) is True
    file = tmp_path / "values.json"
    file.write_text('{"one": [1], "two": "x"}')
    ok(home, "reference", "set", "--file", str(file))
    names = [json.loads(line)["name"] for line in ok(home, "reference", "list", "--json").splitlines()]
    assert names == ["one", "snp_launch_measurement", "snp_smt_enabled", "two"]
    for name in names:
        ok(home, "reference", "delete", name)
    assert not ok(home, "reference", "list", "--json")


def test_policies(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "policy.rego"
    file.write_text("package policy\n\ndefault allow := false\n")
    ok(home, "policy", "set", "resource", str(file))
    assert "resource-policy" in ok(home, "policy", "list")
    assert ok(home, "policy", "show", "resource") == file.read_text()
    ok(home, "policy", "delete", "resource")
    file.write_text('package policy\nallow := http.send({"url": "http://x"})\n')
    refused = adyton(home, "policy", "set", "resource", str(file))
    assert refused.returncode == 1
    assert "http.send" in refused.stderr


def test_requirements_of_snp_evidence(home: Path) -> None:
    shown = json.loads(ok(home, "policy", "snp", "--vmpl", "0", "--vmpl", "1", "--json"))
    assert (shown["kind"], shown["id"]) == ("requirements", "snp")
    assert json.loads(ok(home, "policy", "show", "requirements")) == {"vmpls": [0, 1], "report_versions": [3, 4, 5]}
    rows = [json.loads(line) for line in ok(home, "audit", "list", "--json", "--limit", "2").splitlines()]
    assert [row["action"] for row in rows] == ["policy.set", "policy.activate"]
    assert all(row["resource"].startswith(f"requirements/snp@{shown['version']} sha256:") for row in rows)
    for wrong in (("--vmpl", "4"), ("--report-version", "1"), ()):
        assert adyton(home, "policy", "snp", *wrong).returncode == 3
    ok(home, "policy", "delete", "requirements")
    assert adyton(home, "policy", "show", "requirements").returncode == 1


def test_the_record(home: Path) -> None:
    ok(home, "resource", "set", "kbs:///audit/key/1", "--file", "-", stdin=SECRET)
    row = json.loads(ok(home, "audit", "list", "--json", "--limit", "1"))
    assert (row["action"], row["decision"], row["resource"]) == ("resource.set", "allowed", "kbs:///audit/key/1")
    assert "resource.set" in ok(home, "audit", "list")
    assert len(ok(home, "audit", "verify").strip()) == 64


def test_no_broker_and_no_token(home: Path, tmp_path: Path) -> None:
    nothing = adyton(tmp_path, "audit", "list")
    assert nothing.returncode == 1
    assert "broker_unknown" in nothing.stderr
    url = json.loads((home / "broker" / "broker.json").read_text())["url"]
    assert "admin_token_missing" in adyton(tmp_path, "audit", "list", "--broker", url).stderr
    wrong = tmp_path / "token"
    wrong.write_text("x" * 43)
    refused = adyton(tmp_path, "audit", "list", ADYTON_BROKER=url, ADYTON_ADMIN_TOKEN_FILE=str(wrong))
    assert refused.returncode == 1
    assert "admin_token_refused" in refused.stderr
    right = str(home / "broker" / "admin.token")
    assert adyton(tmp_path, "audit", "list", ADYTON_BROKER=url, ADYTON_ADMIN_TOKEN_FILE=right).returncode == 0
