"""Files that never end, or are none, where a command that needs no broker is told to read one: an error, and soon."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ENDLESS = "/dev/zero"
SRC, DST = "oci:none:v1", "oci:other:v1"


def adyton(home: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "adyton", *arguments]
    known = {**os.environ, "ADYTON_HOME": str(home)}
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, env=known, cwd=home)


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("evidence", "vectors"), 3),
        (("image", "decrypt", SRC, DST, "--decryption-key"), 3),
        (("image", "inspect", "docker://127.0.0.1:1/x", "--authfile"), 3),
        (("image", "inspect", "docker://127.0.0.1:1/x", "--registry-ca"), 3),
        (("workload", "show"), 3),
        (("measure", "workload"), 3),
        (("measure", "snp", "--vcpu-type", "EPYC-Genoa", "--ovmf"), 3),
        (("measure", "snp", "--vcpu-type", "EPYC-Genoa", "--ovmf", "/dev/null", "--kernel"), 3),
        (("measure", "nitro"), 1),
        (("measure", "tdx"), 1),
        (("collateral", "fetch", "amd/crl/Genoa", "--from", "kds=https://127.0.0.1:1", "--ca"), 3),
        (("run", SRC, "--workload"), 125),
        (("run", "--env-file", ENDLESS, SRC, "--workload"), 125),
    ],
)
def test_a_device_that_never_ends(tmp_path: Path, arguments: tuple[str, ...], status: int) -> None:
    if arguments[0] == "run":  # options stand before the image
        arguments = (*(word for word in arguments if word != SRC), ENDLESS, SRC)
    else:
        arguments = (*arguments, ENDLESS)
    done = adyton(tmp_path, *arguments)
    assert done.returncode == status, done.stderr
    assert (b"internal" not in done.stderr and b"/dev/zero" in done.stderr) or status == 1


@pytest.mark.parametrize("file", [ENDLESS, "none", "."])
def test_a_recipient_that_is_no_file(tmp_path: Path, file: str) -> None:
    done = adyton(tmp_path, "image", "encrypt", SRC, DST, "--recipient", f"jwe:{file}")
    assert done.returncode == 3 and b"[file_unreadable]" in done.stderr


def test_a_key_that_is_of_no_use_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.pem").write_text("no key")
    for arguments in (
        ("image", "encrypt", SRC, DST, "--recipient", "jwe:bad.pem"),
        ("image", "decrypt", SRC, DST, "--decryption-key", "bad.pem"),
    ):
        done = adyton(tmp_path, *arguments)
        assert done.returncode == 1 and b"field: bad.pem" in done.stderr, done.stderr


def test_vectors_whose_file_never_ends(tmp_path: Path) -> None:
    case = '{"id": "x", "tee": "snp", "kind": "verify", "files": {"evidence": "/dev/zero"}, "expected": {}}'
    (tmp_path / "m.json").write_text(f'{{"schema": "evidence-vectors/1", "cases": [{case}]}}')
    done = adyton(tmp_path, "evidence", "vectors", "m.json", "--json")
    assert done.returncode == 1 and b"internal" not in done.stderr


def test_a_case_that_expects_no_outcome_is_not_ok(tmp_path: Path) -> None:
    (tmp_path / "report").write_bytes(b"nothing")
    case = '{"id": "x", "tee": "snp", "kind": "report-with-vcek", "files": {"report": "report"}, "expected": {}}'
    (tmp_path / "m.json").write_text(f'{{"schema": "evidence-vectors/1", "cases": [{case}]}}')
    done = adyton(tmp_path, "evidence", "vectors", "m.json", "--json")
    assert done.returncode == 1 and b'"differs": ["expected.outcome"]' in done.stdout
