"""``adyton measure``: the same digests as the vectors, and usage that cannot be meant is refused."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from adyton.protocol import workload


def measure(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "adyton", "measure", *arguments], capture_output=True, text=True)


@pytest.mark.vectors
@pytest.mark.parametrize("number", range(4))
def test_launch_digests_of_the_vectors(vectors: Path, manifest: dict[str, Any], number: int) -> None:
    cases = [
        case
        for case in manifest["cases"]
        if case["kind"] == "sev-launch-digest" and case["claims"]["mode"] == "SEV_SNP"
    ]
    wanted = [case for case in cases if case["expected"]["outcome"] == "valid" and not case["claims"].get("svsm")]
    case = wanted[:: max(1, len(wanted) // 4)][number]
    claims = case["claims"]
    arguments = ["--ovmf", str(vectors / case["files"]["ovmf"]), "--guest-features", claims["guest_features"]]
    arguments += ["--vcpus", str(claims["vcpus"]), "--vmm-type", claims["vmm"]]
    if claims["vcpu_type"]:
        arguments += ["--vcpu-type", claims["vcpu_type"]]
    for name in ("kernel", "initrd"):
        if name in case["files"]:
            arguments += [f"--{name}", str(vectors / case["files"][name])]
    if claims["cmdline"]:
        arguments += ["--append", claims["cmdline"]]
    printed = measure("snp", *arguments)
    assert printed.stdout.strip() == case["expected"]["launch_digest"], case["id"]
    assert json.loads(measure("snp", *arguments, "--json").stdout)["measurement"] == case["expected"]["launch_digest"]


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("snp",), 3),
        (("snp", "--ovmf", "/nowhere"), 3),
        (("snp", "--ovmf", "/etc/hostname"), 3),  # no CPU type
        (("snp", "--ovmf", "/etc/hostname", "--vcpu-type", "EPYC-v4", "--append", "quiet"), 3),
        (("snp", "--ovmf", "/etc/hostname", "--vcpu-type", "EPYC-v4", "--guest-features", "many"), 3),
        (("snp", "--ovmf", "/etc/hostname", "--vcpu-type", "EPYC-v4"), 1),
        (("snp", "--ovmf", "/etc/hostname", "--vmm-type", "bhyve"), 3),
        (("guest", "/nowhere"), 3),
        (("guest", "/etc/hostname"), 1),
        (("workload", "/nowhere"), 3),
        (("workload", "/etc/hostname"), 1),
    ],
)
def test_what_cannot_be_measured(arguments: tuple[str, ...], status: int) -> None:
    refused = measure(*arguments)
    assert refused.returncode == status, refused.stderr
    assert refused.stdout == ""
    assert "Traceback" not in refused.stderr


def test_host_data_is_the_digest_of_the_documents_bytes(tmp_path: Path) -> None:
    document = workload.write(workload.Workload(image="sha256:" + "ab" * 32, command=["/bin/true"]))
    path = tmp_path / "W.toml"
    path.write_bytes(document.raw)
    assert measure("workload", str(path)).stdout.strip() == hashlib.sha256(document.raw).hexdigest()
    assert json.loads(measure("workload", str(path), "--json").stdout)["host_data"] == document.digest.hex
    path.write_bytes(document.raw + b"\n")
    assert measure("workload", str(path)).stdout.strip() == hashlib.sha256(document.raw + b"\n").hexdigest()
