from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from adyton.errors import DocumentInvalid, SignatureInvalid
from adyton.tee.snp import id_block
from adyton.tee.snp.abi import GuestPolicy
from adyton.tee.snp.measure import KernelHashes, launch_digest, sev_launch_digest
from adyton.tee.snp.vmsa import Vmm

pytestmark = pytest.mark.vectors


def _cases(manifest: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    found = [case for case in manifest["cases"] if case["tee"] == "measure" and case["kind"] == kind]
    assert found
    return found


@pytest.fixture(scope="session")
def read(vectors: Path) -> dict[str, bytes]:
    folder = vectors / "measure" / "snp"
    return {f"measure/snp/{path.name}": path.read_bytes() for path in folder.iterdir()}


def test_every_launch_digest(manifest: dict[str, Any], read: dict[str, bytes]) -> None:
    for case in _cases(manifest, "sev-launch-digest"):
        claims = case["claims"]
        files = {role: read[path] for role, path in case["files"].items()}
        boot: dict[str, Any] = {
            "firmware": files["ovmf"],
            "kernel": files.get("kernel"),
            "initrd": files.get("initrd"),
            "cmdline": claims["cmdline"] or "",
            "vcpus": claims["vcpus"],
            "vcpu_type": claims["vcpu_type"],
        }

        def measure(claims: dict[str, Any] = claims, boot: dict[str, Any] = boot) -> bytes:
            if claims["mode"] == "SEV_SNP":
                return launch_digest(**boot, guest_features=int(claims["guest_features"], 16), vmm=Vmm(claims["vmm"]))
            return sev_launch_digest(**boot, encrypted_state=claims["mode"] == "SEV_ES")

        if case["expected"]["outcome"] == "invalid":
            with pytest.raises(DocumentInvalid) as caught:
                measure()
            assert caught.value.code == case["expected"]["failure"], case["id"]
        else:
            assert measure().hex() == case["expected"]["launch_digest"], case["id"]


def test_hashes_computed_beforehand_give_the_same_digest(read: dict[str, bytes]) -> None:
    import hashlib

    kernel, initrd = read["measure/snp/kernel.bin"], read["measure/snp/initrd.bin"]
    common: dict[str, Any] = {
        "firmware": read["measure/snp/ovmf_AmdSev_suffix.bin"],
        "vcpus": 2,
        "vcpu_type": "EPYC-Genoa",
        "guest_features": 1,
    }
    hashes = KernelHashes.precomputed(
        kernel=hashlib.sha256(kernel).digest(), initrd=hashlib.sha256(initrd).digest(), cmdline="adyton"
    )
    assert launch_digest(**common, kernel_hashes=hashes) == launch_digest(
        **common, kernel=kernel, initrd=initrd, cmdline="adyton"
    )


def test_every_key_digest(manifest: dict[str, Any], read: dict[str, bytes]) -> None:
    for case in _cases(manifest, "snp-key-digest"):
        key = id_block.load_key(read[case["files"]["key"]])
        digest = id_block.key_digest(id_block.key_structure(key))
        assert digest.hex() == case["expected"]["key_digest"]


def test_id_block(manifest: dict[str, Any], read: dict[str, bytes]) -> None:
    (case,) = _cases(manifest, "snp-id-block")
    claims = case["claims"]
    block = id_block.IdBlock(bytes.fromhex(claims["launch_digest"]), policy=GuestPolicy(int(claims["policy"], 16)))
    assert base64.b64encode(block.encode()).decode() == case["expected"]["id_block_base64"]
    assert id_block.IdBlock.parse(block.encode()) == block
    raw = read[case["files"]["auth_block"]]
    auth = id_block.AuthBlock.parse(raw)
    auth.verify(block)
    assert auth.block_signature == read[case["files"]["id_signature"]]
    assert auth.id_key == id_block.key_structure(id_block.load_key(read[case["files"]["id_key"]]))

    with pytest.raises(SignatureInvalid):
        auth.verify(id_block.IdBlock(bytes(48)))
    for flipped in (0x00, 0x10, 0x41, 0x88, 0x100, 0x240, 0x244, 0x2A0, 0x650, 0x681, 0x884, 0xC90):
        broken = bytearray(raw)
        broken[flipped] ^= 1
        with pytest.raises((DocumentInvalid, SignatureInvalid)):
            id_block.AuthBlock.parse(bytes(broken)).verify(block)
