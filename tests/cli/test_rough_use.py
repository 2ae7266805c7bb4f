"""The command line where things are rough: full disks, readers that leave, bytes that are no text, files that are none."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.broker import rig

ESCAPE = "\x1b]0;owned\x07"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("home")
    running = rig.started(directory / "broker", None)
    yield directory
    assert running.stop() == 0


def adyton(
    home: Path, *arguments: str | bytes, stdin: bytes = b"", shell: str = "", **environment: str
) -> subprocess.CompletedProcess[bytes]:
    """``shell``: what stands after the command in a shell's line."""
    known = {**os.environ, "ADYTON_HOME": str(home), "ADYTON_BROKER": "", **environment}
    command = [sys.executable, "-m", "adyton", *arguments]
    if shell:
        line = f"set -o pipefail; {shlex.join(map(str, command))} {shell}"
        return subprocess.run(["bash", "-c", line], input=stdin, capture_output=True, timeout=60, env=known)
    return subprocess.run(command, input=stdin, capture_output=True, timeout=60, env=known)


@pytest.fixture(scope="module")
def ciphertext(home: Path) -> bytes:
    made = adyton(home, "key", "generate", "kbs:///k/k/1", "--owner-may", "encrypt", "--owner-may", "decrypt")
    assert made.returncode == 0, made.stderr
    return adyton(home, "key", "encrypt", "kbs:///k/k/1", stdin=b"plain").stdout


@pytest.mark.parametrize("json_too", [(), ("--json",)])
@pytest.mark.parametrize("command", [("key", "list"), ("key", "show", "kbs:///k/k/9"), ("person", "whoami")])
def test_a_full_disk_is_one_error(
    home: Path, ciphertext: bytes, command: tuple[str, ...], json_too: tuple[str, ...]
) -> None:
    done = adyton(home, *command, *json_too, shell="> /dev/full")
    absent_or_silent = "kbs:///k/k/9" in command or (command[-1] == "whoami" and not json_too)
    assert done.returncode == (0 if command[-1] == "whoami" and not json_too else 1)
    assert b"Traceback" not in done.stderr and b"None" not in done.stderr and b"internal" not in done.stderr
    assert absent_or_silent or b"[output_unwritable]" in done.stderr


def test_a_plaintext_that_does_not_come_out_is_an_error(home: Path, ciphertext: bytes) -> None:
    done = adyton(home, "key", "decrypt", "kbs:///k/k/1", stdin=ciphertext, shell="> /dev/full")
    assert done.returncode == 1 and b"[output_unwritable]" in done.stderr


def test_a_reader_that_leaves_is_no_refusal(home: Path) -> None:
    done = adyton(home, "audit", "list", "--json", shell="| true")
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize(
    "arguments",
    [
        ("reference", "show", b"\xff"),
        ("audit", "show", b"\xff"),
        ("person", "set", b"\xff", "--role", "auditor"),
        ("key", "encrypt", "kbs:///k/k/1", "--aad", b"\xff"),
        ("broker", "revoke", "chip", b"\xff\xff\xff\xff", "--reason", "x"),
    ],
)
def test_bytes_that_are_no_text(home: Path, arguments: tuple[str | bytes, ...]) -> None:
    done = adyton(home, *arguments, "--json", PYTHONIOENCODING="utf-8")
    assert done.returncode == 3 and b"internal" not in done.stderr
    assert json.loads(done.stdout)["error"]["code"] == "argument_not_utf8"


def test_an_error_about_bytes_is_json_all_the_same(home: Path) -> None:
    for encoding in ("utf-8", "ascii"):
        done = adyton(home, "key", "show", b"kbs:///a/b/\xff", "--json", PYTHONIOENCODING=encoding)
        assert json.loads(done.stdout.decode(encoding))["error"]["code"] == "resource_path_invalid"


@pytest.mark.parametrize(
    "arguments",
    [
        ("key", "--bogus", "--json"),
        ("key", "bogus", "--json"),
        ("diff", "--json"),
        ("reference", "provider", "bogus", "--json"),
        ("reference", "provider", "set", "--bogus", "--json"),
        ("tenant", "quota", "default", "resources=\N{SUPERSCRIPT TWO}", "--json"),
        ("reference", "set", "x", "[" * 50_000, "--json-value", "--json"),
        ("reference", "set", "x", '{"a": 1, "a": 2}', "--json-value", "--json"),
        ("bogus", "--json"),
        ("image", "inspect", "--json"),
        ("image", "bogus", "--json"),
        ("collateral", "bundle", "--json"),
        ("collateral", "list", "--at", "x", "--json"),
        ("devtee", "show", "--bogus", "--json"),
        ("measure", "snp", "--json"),
        ("measure", "workload", "/none", "--json"),
        ("workload", "show", "/none", "--json"),
        ("ps", "--bogus", "--json"),
        ("demo", "x", "--json"),
    ],
)
def test_wrong_usage_is_one_object(home: Path, arguments: tuple[str, ...]) -> None:
    done = adyton(home, *arguments)
    assert done.returncode == 3
    assert json.loads(done.stdout)["error"]["code"] == "usage"  # one object: two would not parse


def test_what_strangers_write_moves_no_cursor(home: Path, tmp_path: Path) -> None:
    done = adyton(home, "resource", "set", "kbs:///a/b/c", "--file", str(tmp_path / ESCAPE))
    assert done.returncode == 3 and b"\x1b]" not in done.stderr and b"\x07" not in done.stderr


def test_a_device_is_written_to_and_stays(home: Path, ciphertext: bytes, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE)
    assert adyton(home, "key", "decrypt", "kbs:///k/k/1", "-o", str(pipe), stdin=ciphertext).returncode == 0
    assert reader.communicate(timeout=10)[0] == b"plain"
    assert pipe.is_fifo()
    done = adyton(home, "key", "decrypt", "kbs:///k/k/1", "-o", "/dev/stdout", stdin=ciphertext)
    assert done.stdout == b"plain"


def test_an_output_is_its_owners_and_whole(home: Path, ciphertext: bytes, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_text("before")
    out.chmod(0o644)
    wrong = ciphertext.replace(b"enc:1:", b"enc:1:A", 1)
    assert adyton(home, "key", "decrypt", "kbs:///k/k/1", "-o", str(out), stdin=wrong).returncode == 1
    assert out.read_text() == "before"
    assert adyton(home, "key", "decrypt", "kbs:///k/k/1", "-o", str(out), stdin=ciphertext).returncode == 0
    assert (out.read_bytes(), out.stat().st_mode & 0o777) == (b"plain", 0o600)
    recorded = tmp_path / "recorded"
    assert adyton(home, "policy", "recordings", "-o", str(recorded)).returncode == 0
    assert recorded.stat().st_mode & 0o777 == 0o600
    absent = adyton(home, "policy", "recordings", "-o", str(tmp_path / "none" / "x"))
    assert absent.returncode == 1 and b"[file_unwritable]" in absent.stderr
    assert sorted(one.name for one in tmp_path.iterdir()) == ["out", "recorded"]


def test_a_token_that_cannot_be_kept_is_not_made(home: Path, tmp_path: Path) -> None:
    assert adyton(home, "person", "set", "ada", "--role", "auditor").returncode == 0
    there = tmp_path / "there"
    there.write_text("mine")
    done = adyton(home, "person", "token", "ada", "--out", str(there))
    assert done.returncode == 1 and b"[file_unwritable]" in done.stderr and there.read_text() == "mine"
    assert not json.loads(adyton(home, "person", "show", "ada", "--json").stdout)["credentials"]
    fresh = tmp_path / "fresh"
    assert adyton(home, "person", "token", "nobody", "--out", str(fresh)).returncode == 1
    assert not fresh.exists()
    assert adyton(home, "person", "token", "ada", "--out", str(fresh)).returncode == 0
    assert fresh.stat().st_mode & 0o777 == 0o600
    assert adyton(home, "reference", "list", "--admin-token-file", str(fresh)).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("reference", "publish", "/dev/zero", "--provider", "x"), "document_too_large"),
        (("resource", "list", "--admin-token-file", "/dev/zero"), "admin_token_missing"),
        (("apply", "-f", "/dev/zero"), "declared_invalid"),
        (("token", "verify", "/dev/zero", "--jwks", "/dev/null"), "jwks_malformed"),
        (("broker", "revoke", "check", "/dev/zero"), "token_invalid"),
        (("resource", "bind", "kbs:///a/b/c", "--rules", "/dev/zero"), "file_unreadable"),
        (("person", "key", "ada", "/dev/zero"), "file_unreadable"),
        (("policy", "set", "resource", "/dev/zero"), "file_unreadable"),
    ],
)
def test_files_without_end(home: Path, arguments: tuple[str, ...], code: str) -> None:
    done = adyton(home, *arguments)
    assert done.returncode == (3 if code == "file_unreadable" else 1) and f"[{code}]".encode() in done.stderr


def test_a_logs_key_that_cannot_be_read_is_not_forgotten(home: Path) -> None:
    assert adyton(home, "audit", "checkpoint").returncode == 0
    (kept,) = (home / "log-keys").iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(b"\xff" + whole)
    done = adyton(home, "audit", "checkpoint")
    assert done.returncode == 1 and b"[log_key_unreadable]" in done.stderr
    kept.write_bytes(whole)
    assert adyton(home, "audit", "checkpoint").returncode == 0


def test_a_document_names_no_file_elsewhere(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "documents"
    folder.mkdir()
    (tmp_path / "id").write_text("my own key")
    (folder / "link").symlink_to(tmp_path / "id")
    for name in ("../id", str(tmp_path / "id"), "link"):
        (folder / "t.toml").write_text(f'[tenants.default.resources."a/b/c"]\nfile = "{name}"\n')
        done = adyton(home, "apply", "-f", str(folder / "t.toml"))
        assert done.returncode == 1 and b"[declared_file_outside]" in done.stderr
    (folder / "policy").write_bytes(b"package policy # \xff")
    (folder / "t.toml").write_text('[tenants.default.policies."resource/resource-policy"]\nfile = "policy"\n')
    done = adyton(home, "apply", "-f", str(folder / "t.toml"))
    assert done.returncode == 1 and b"[declared_invalid]" in done.stderr


def test_a_mistyped_tenant_is_neither_deleted_nor_promoted(home: Path) -> None:
    done = adyton(home, "tenant", "delete", "pord", "--yes")
    assert done.returncode == 1 and b"[tenant_absent]" in done.stderr
    assert adyton(home, "resource", "set", "kbs:///a/b/c", "-f", "-", "--tenant", "pord", stdin=b"x").returncode == 0
    assert adyton(home, "tenant", "delete", "pord", "--yes").returncode == 0
    done = adyton(home, "tenant", "promote", "tset", "prod", "--policies", "--yes")
    assert b"nothing to promote" in done.stderr and b"promoted, " not in done.stderr


def test_who_is_not_known_is_told_what_was_shown(home: Path, tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(key)], check=True, capture_output=True)
    done = adyton(home, "key", "list", "--admin-key", str(key))
    assert done.returncode == 1 and b"--admin-key" in done.stderr


def test_an_export_is_one_object(home: Path) -> None:
    assert json.loads(adyton(home, "export", "--json").stdout)["tenants"]["default"]
    assert json.loads(adyton(home, "export").stdout)["tenants"]["default"]
