"""``adyton devtee``: what it prints, where it puts things, and that it never hides what it is."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    made = run(home, "devtee", "init", "--json")
    assert made.returncode == 0, made.stderr
    return home


@pytest.fixture
def home(original: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ady") as directory:
        shutil.copytree(original / "devtee", Path(directory) / "devtee")
        yield Path(directory)


def run(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "adyton", *arguments],
        env={**os.environ, "ADYTON_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_init_prints_the_fingerprint_and_again_the_same(home: Path) -> None:
    first, second = run(home, "devtee", "init"), run(home, "devtee", "init")
    assert first.stdout == second.stdout
    assert len(bytes.fromhex(first.stdout.strip())) == 32
    assert "NO HARDWARE PROTECTION" in first.stderr
    assert f"--trust-dev-root {first.stdout.strip()}" in first.stderr
    shown = json.loads(run(home, "devtee", "init", "--json").stdout)
    assert shown["fingerprint"] == first.stdout.strip()
    assert shown["hardware"] is False
    names = {path.name for path in Path(shown["endorsements"]).iterdir()}
    assert names == {"ark.pem", "ask.pem", "vcek.pem", "crl.der"}


def test_without_a_root_show_says_what_to_do(tmp_path: Path) -> None:
    shown = run(tmp_path, "devtee", "show")
    assert shown.returncode == 1
    assert "adyton devtee init" in shown.stderr


def test_show_without_a_service(home: Path) -> None:
    shown = run(home, "devtee", "show")
    assert shown.returncode == 0
    assert "NO HARDWARE PROTECTION" in shown.stderr
    assert "not running" in shown.stdout
    assert json.loads(run(home, "devtee", "show", "--json").stdout)["service"] is None


def test_a_broken_root_is_named_and_no_key_is_printed(home: Path) -> None:
    key = home / "devtee" / "root" / "vcek.key"
    key.write_text(key.read_text().replace("A", "B"))
    for arguments in (("init",), ("show",)):
        shown = run(home, "devtee", *arguments)
        assert shown.returncode == 1
        assert "vcek.key" in shown.stderr
        assert "Traceback" not in shown.stderr
        assert "PRIVATE" not in shown.stderr
    key.chmod(0o644)
    assert "devtee_key_exposed" in run(home, "devtee", "init").stderr


def test_stop_without_a_service(home: Path) -> None:
    stopped = run(home, "devtee", "stop")
    assert stopped.returncode == 1
    assert "not running" in stopped.stderr


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("serve", "--guest", "/nowhere/guest.erofs"), 1),
        (("serve", "--private-size", "1"), 3),
        (("serve", "--idle-exit", "-1"), 3),
        (("build-guest", "-o", "/proc/nowhere/guest"), 1),
    ],
)
def test_what_cannot_be_is_said(home: Path, arguments: tuple[str, ...], status: int) -> None:
    refused = run(home, "devtee", *arguments)
    assert refused.returncode == status, refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_home_that_is_too_deep_for_a_socket_is_said(home: Path) -> None:
    deep = home / ("d" * 100)
    shutil.copytree(home / "devtee", deep / "devtee")
    (home / "g").write_bytes(bytes(1024) + bytes.fromhex("e2e1f5e0") + bytes(4096))
    refused = run(deep, "devtee", "serve", "--guest", str(home / "g"))
    assert refused.returncode == 1
    assert "socket_failed" in refused.stderr or "root_required" in refused.stderr
    assert "ADYTON_HOME" in refused.stderr or "root" in refused.stderr


@pytest.mark.root
def test_from_an_empty_home_to_a_service_and_back(home: Path) -> None:
    built = run(home, "devtee", "build-guest", "--json")
    assert built.returncode == 0, built.stderr
    guest = json.loads(built.stdout)
    assert Path(guest["guest"]) == home / "guest" / "adyton-guest.erofs"
    assert run(home, "devtee", "build-guest").stdout.strip() == guest["measurement"]
    assert json.loads(run(home, "devtee", "build-guest", "--json").stdout)["rebuilt"] is False
    measured = run(home, "measure", "guest", "--json")
    assert json.loads(measured.stdout)["measurement"] == guest["measurement"]
    process = subprocess.Popen(
        [sys.executable, "-m", "adyton", "devtee", "serve"],
        env={**os.environ, "ADYTON_HOME": str(home)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    said = ""
    while "listening on" not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    assert "NO HARDWARE PROTECTION" in said
    assert guest["measurement"] in said
    shown = json.loads(run(home, "devtee", "show", "--json").stdout)
    assert shown["service"]["measurement"] == guest["measurement"]
    assert shown["service"]["pid"] == process.pid
    assert f"process {process.pid}" in run(home, "devtee", "show").stdout
    assert run(home, "devtee", "stop").returncode == 0
    assert process.wait(timeout=60) == 0
    process.stderr.close()
    assert not (home / "run" / "devtee.sock").exists()


@pytest.mark.root
def test_serve_makes_what_it_lacks() -> None:
    with tempfile.TemporaryDirectory(prefix="ady") as home:
        process = subprocess.Popen(
            [sys.executable, "-m", "adyton", "devtee", "serve", "--idle-exit", "0"],
            env={**os.environ, "ADYTON_HOME": home},
            stderr=subprocess.PIPE,
            text=True,
        )
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
        assert "listening on" in said
        assert sorted(path.name for path in Path(home).iterdir()) == ["devtee", "guest", "run", "store", "volumes"]


@pytest.mark.root
def test_interrupting_a_start_leaves_a_root_whole_or_absent() -> None:
    for pause in (0.4, 0.8, 1.4):
        with tempfile.TemporaryDirectory(prefix="ady") as home:
            process = subprocess.Popen(
                [sys.executable, "-m", "adyton", "devtee", "init"],
                env={**os.environ, "ADYTON_HOME": home},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            try:
                process.wait(timeout=pause)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
            root = Path(home) / "devtee" / "root"
            assert not root.exists() or len(list(root.iterdir())) == 6


def test_init_makes_the_root_for_sgx_and_tdx_too(home: Path) -> None:
    """Also where an older one made a directory without it."""
    shutil.rmtree(home / "devtee" / "dcap")
    assert json.loads(run(home, "devtee", "show", "--json").stdout)["dcap"] is None
    assert "no root yet (adyton devtee init)" in run(home, "devtee", "show").stdout
    made = run(home, "devtee", "init")
    shown = json.loads(run(home, "devtee", "init", "--json").stdout)
    assert shown["dcap"]["fingerprint"] in made.stderr
    assert shown["dcap"]["fingerprint"] not in {shown["fingerprint"], made.stdout.strip()}
    assert len(list(Path(shown["dcap"]["endorsements"]).iterdir())) == 9
    assert json.loads(run(home, "devtee", "show", "--json").stdout)["dcap"] == shown["dcap"]
    assert shown["dcap"]["fingerprint"] in run(home, "devtee", "show").stdout
