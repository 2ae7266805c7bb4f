"""Cases of measurement: what build inputs must give. Their claims are the inputs."""

from __future__ import annotations

import base64
from typing import Any

from adyton.cli.vectors.case import Case, Got


def _sev_launch_digest(case: Case, got: Got) -> None:
    from adyton.tee.snp.measure import launch_digest, sev_launch_digest
    from adyton.tee.snp.vmsa import Vmm, vcpu_signature

    inputs = case.claims
    signed = inputs["vcpu_type"] is not None
    got.claims |= inputs
    got.claims["vcpu_signature"] = hex(vcpu_signature(inputs["vcpu_type"])) if signed else None
    boot: dict[str, Any] = {
        "firmware": case.files["ovmf"],
        "kernel": case.files.get("kernel"),
        "initrd": case.files.get("initrd"),
        "cmdline": inputs["cmdline"] or "",
        "vcpus": inputs["vcpus"],
        "vcpu_type": inputs["vcpu_type"],
    }
    if inputs["mode"] == "SEV_SNP":
        digest = launch_digest(**boot, guest_features=int(inputs["guest_features"], 16), vmm=Vmm(inputs["vmm"]))
    else:
        digest = sev_launch_digest(**boot, encrypted_state={"SEV": False, "SEV_ES": True}[inputs["mode"]])
    got.members["launch_digest"] = digest.hex()


def _snp_key_digest(case: Case, got: Got) -> None:
    from adyton.tee.snp.id_block import key_digest, key_structure, load_key

    got.members["key_digest"] = key_digest(key_structure(load_key(case.files["key"]))).hex()


def _snp_id_block(case: Case, got: Got) -> None:
    from adyton.errors import BindingMismatch
    from adyton.tee.snp.abi import GuestPolicy
    from adyton.tee.snp.id_block import AuthBlock, IdBlock, key_structure, load_key

    got.claims |= case.claims
    digest, policy = bytes.fromhex(case.claims["launch_digest"]), int(case.claims["policy"], 16)
    block = IdBlock(digest, policy=GuestPolicy(policy))
    got.members["id_block_base64"] = base64.b64encode(block.encode()).decode("ascii")
    auth = AuthBlock.parse(case.files["auth_block"])
    auth.verify(block)
    if (
        auth.id_key != key_structure(load_key(case.files["id_key"]))
        or auth.block_signature != case.files["id_signature"]
    ):
        raise BindingMismatch("the authentication block holds another key or signature", code="id_key_mismatch")


def _sgx_sigstruct(case: Case, got: Got) -> None:
    from adyton.tee.sgx.sigstruct import SCHEME, Sigstruct

    sigstruct = Sigstruct.parse(case.files["sigstruct"])
    got.members["mrsigner"] = sigstruct.mrsigner.hex()
    got.members["enclavehash"] = sigstruct.enclave_hash.hex()
    got.claims["attributes"] = sigstruct.attributes.hex()
    got.claims["isvprodid"] = sigstruct.isv_prod_id
    got.claims["isvsvn"] = sigstruct.isv_svn
    consistent = (sigstruct.q1, sigstruct.q2) == sigstruct.quotients
    got.claims["q1_q2"] = "consistent" if consistent else "inconsistent"
    sigstruct.verify()
    got.members["signature"] = SCHEME


RUNNERS = {
    "sev-launch-digest": _sev_launch_digest,
    "snp-key-digest": _snp_key_digest,
    "snp-id-block": _snp_id_block,
    "sgx-sigstruct": _sgx_sigstruct,
}
