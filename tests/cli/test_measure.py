"""``adyton measure``: the same digests as the vectors, and usage that cannot be meant is refused."""

from __future__ import annotations

import hashlib
import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from adyton.devtee.nitro import Image as NitroImage
from adyton.protocol import workload
from adyton.tee.nitro import measure as nitro
from adyton.tee.sgx.measure import EXECUTE, READ, REGULAR, Enclave
from adyton.tee.sgx.sigstruct import Sigstruct
from adyton.tee.tdx import measure as tdx
from adyton.wire import guid_table


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
        (("sgx",), 3),
        (("sgx", "/nowhere"), 3),
        (("sgx", "/etc/hostname"), 1),
        (("sgx", "--sigstruct", "/etc/hostname"), 1),
        (("tdx",), 3),
        (("tdx", "/etc/hostname"), 1),
        (("tdx", "/etc/hostname", "--order", "random"), 3),
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


def test_an_enclave_and_its_signature(tmp_path: Path) -> None:
    stream = bytearray()
    enclave = Enclave(size=0x4000, ssa_frame_size=1, write=stream.extend)
    enclave.add_page(0, READ | EXECUTE | REGULAR, b"code")
    sgxs, sigstruct = tmp_path / "a.sgxs", tmp_path / "a.sig"
    sgxs.write_bytes(stream)
    blank: dict[str, Any] = {"modulus": 0, "signature": 0, "q1": 0, "q2": 0, "date": 0, "isv_svn": 9}
    key = rsa.generate_private_key(3, 3072)
    sigstruct.write_bytes(Sigstruct(**blank, enclave_hash=enclave.mrenclave).sign(key).encode())
    assert measure("sgx", str(sgxs)).stdout.strip() == enclave.mrenclave.hex()
    both = json.loads(measure("sgx", str(sgxs), "--sigstruct", str(sigstruct), "--json").stdout)
    assert (both["measurement"], both["isvsvn"], both["pages"]) == (enclave.mrenclave.hex(), 9, 1)
    assert both["mrsigner"] in measure("sgx", "--sigstruct", str(sigstruct)).stderr
    sigstruct.write_bytes(Sigstruct(**blank, enclave_hash=bytes(32)).sign(key).encode())
    refused = measure("sgx", str(sgxs), "--sigstruct", str(sigstruct), "--json")
    assert (refused.returncode, json.loads(refused.stdout)["error"]["code"]) == (1, "sigstruct_enclave")


def test_a_trust_domains_firmware(tmp_path: Path) -> None:
    row = struct.pack("<4sIII", b"TDVF", 48, 1, 1) + struct.pack("<IIQQII", 0, 4096, 0xFFFFF000, 4096, 0, 1)
    table = guid_table.write({tdx.METADATA: struct.pack("<I", 4096)})
    path = tmp_path / "OVMF.fd"
    path.write_bytes(row.ljust(4096 - 32 - len(table), b"\0") + table + bytes(32))
    values = {order.value: tdx.mrtd(path.read_bytes(), order).hex() for order in tdx.Order}
    assert json.loads(measure("tdx", str(path), "--json").stdout)["measurements"] == values
    assert measure("tdx", str(path), "--order", "section").stdout.strip() == values["section"]
    assert measure("tdx", str(path)).stdout.split() == ["page:", values["page"], "section:", values["section"]]


def test_an_enclave_image(tmp_path: Path) -> None:
    path = tmp_path / "a.eif"
    path.write_bytes(NitroImage().encode())
    pcrs = nitro.image_pcrs(path.read_bytes())
    shown = json.loads(measure("nitro", str(path), "--instance", "i-0", "--json").stdout)
    assert shown["measurement"] == pcrs[0].hex()
    assert shown["pcrs"] == {
        str(number): value.hex() for number, value in {**pcrs, 4: nitro.instance_pcr("i-0")}.items()
    }
    assert measure("nitro", "--role", "arn:x").stdout.split() == ["PCR3:", nitro.role_pcr("arn:x").hex()]
    for wrong in (("--role", ""), ("--role", "role"), ("--instance", "")):  # such as an unset variable
        assert measure("nitro", *wrong).returncode == 3
    path.write_bytes(NitroImage(crc=1).encode())
    refused = measure("nitro", str(path), "--json")
    assert (refused.returncode, json.loads(refused.stdout)["error"]["code"]) == (1, "eif_crc")
    assert measure("nitro").returncode == 3
