"""What the default policies compare, as a table: for each TEE every claim, with what it must be.

The same claims and reference values as in ``cpu_rules`` and ``device_rules``, for whoever explains a result, and for the
question whether what runs is known at all (``identity``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from adyton.appraisal.cpu_rules import INTEL_VENDOR
from adyton.rats.types import JsonValue

Path: TypeAlias = tuple[str, ...]
Kind: TypeAlias = Literal["in", "each", "must", "better in", "better equal", "better has", "equal", "at least"]


@dataclass(frozen=True, slots=True)
class Rule:
    """One comparison. ``path``: where the claim is in annotated evidence.

    ``in``: in the list; ``each``: of a list of objects, each one's ``part`` is; ``must``: is ``must``; ``equal``: is the
    value; ``at least``: is a number not below it. ``better …``: told only where there is such a reference value, since
    the policy affirms without it as well; ``better has``: the claim is a list that has the value. ``identity``: it says
    what runs.
    """

    element: str
    path: Path
    kind: Kind
    reference: str = ""
    must: JsonValue = None
    part: str = ""
    identity: bool = False

    @property
    def claim(self) -> str:
        """The claim as a person reads it: without the name of its TEE."""
        return ".".join(self.path[1:])


def _listed(element: str, tee: str, pairs: Mapping[str, str], kind: Kind = "in") -> tuple[Rule, ...]:
    return tuple(Rule(element, (tee, *claim.split(".")), kind, name) for claim, name in pairs.items())


def _identity(tee: str, pairs: Mapping[str, str], element: str = "executables") -> tuple[Rule, ...]:
    return tuple(Rule(element, (tee, *claim.split(".")), "in", name, identity=True) for claim, name in pairs.items())


_DEBUG = Rule("configuration", ("adyton", "debug"), "must", must=False)


def _intel(tee: str, header: str, tee_type: str | None, *musts: str) -> tuple[Rule, ...]:
    place = (tee, *header.split("."))
    found = [Rule("hardware", (*place, "vendor_id"), "must", must=INTEL_VENDOR)]
    if tee_type is not None:
        found.append(Rule("hardware", (*place, "tee_type"), "must", must=tee_type))
    values = {"tcb_status": "UpToDate", "collateral_expiration_status": "0"}
    return (*found, *[Rule("hardware", (tee, name), "must", must=values[name]) for name in musts])


def _nvidia(kind: str, report_first: str, *manifests: str) -> tuple[Rule, ...]:
    def chain(name: str, element: str) -> list[Rule]:
        place = ("nvidia", f"x-nvidia-{name}-cert-chain")
        return [
            Rule(element, (*place, "x-nvidia-cert-ocsp-status"), "must", must="good"),
            Rule(element, (*place, "x-nvidia-cert-status"), "must", must="valid"),
        ]

    report = f"{kind}-attestation-report"
    facts = [f"{report}-parsed", f"{report}-signature-verified", f"{kind}-arch-check"]
    if kind == "gpu":
        facts.append(f"{report}-cert-chain-fwid-match")
    golden = ("fetched", "measurements-available", "schema-validated", "signature-verified", "version-match")
    return (
        *chain(report, "hardware"),
        *[Rule("hardware", ("nvidia", f"x-nvidia-{fact}"), "must", must=True) for fact in facts],
        Rule("configuration", ("nvidia", "secboot"), "must", must=True),
        Rule("configuration", ("nvidia", "dbgstat"), "must", must="disabled"),
        *chain(report_first, "executables"),
        *[
            Rule("executables", ("nvidia", f"x-nvidia-{manifest}-{fact}"), "must", must=True)
            for manifest in manifests
            for fact in golden
        ],
        Rule("executables", ("nvidia", "measres"), "must", must="success"),
    )


_SNP_BETTER = {
    "platform_smt_enabled": "smt_enabled",
    "platform_tsme_enabled": "tsme_enabled",
    "policy_abi_major": "abi_major",
    "policy_abi_minor": "abi_minor",
    "policy_single_socket": "single_socket",
    "policy_smt_allowed": "smt_allowed",
}
_SNP = (
    *_identity("snp", {"measurement": "snp_launch_measurement"}),
    *_listed(
        "hardware",
        "snp",
        {
            "reported_tcb_bootloader": "snp_bootloader",
            "reported_tcb_microcode": "snp_microcode",
            "reported_tcb_snp": "snp_snp_svn",
            "reported_tcb_tee": "snp_tee_svn",
        },
    ),
    Rule("configuration", ("snp", "policy_debug_allowed"), "must", must=False),
    Rule("configuration", ("snp", "policy_migrate_ma"), "must", must=False),
    *_listed(
        "configuration",
        "snp",
        {claim: f"snp_{name.replace('abi', 'guest_abi')}" for claim, name in _SNP_BETTER.items()},
        "better equal",
    ),
)
_TDX = (
    *_identity("tdx", {"quote.body.rtmr_1": "rtmr_1", "quote.body.rtmr_2": "rtmr_2"}),
    Rule("executables", ("adyton", "boot", "kernel"), "better has", "tdvfkernel"),
    Rule("executables", ("adyton", "boot", "parameters"), "better has", "tdvfkernelparams"),
    *_identity("tdx", {"quote.body.mr_td": "mr_td"}, "hardware"),
    *_intel("tdx", "quote.header", "81000000", "tcb_status", "collateral_expiration_status"),
    Rule("configuration", ("tdx", "td_attributes", "debug"), "must", must=False),
    *_listed("configuration", "tdx", {"quote.body.xfam": "xfam"}),
)
_AZ_SNP = (
    *_identity("az-snp-vtpm", {"measurement": "measurement", "tpm.pcr11": "snp_pcr11"}),
    *_listed(
        "hardware",
        "az-snp-vtpm",
        {f"reported_{name}": name for name in ("tcb_bootloader", "tcb_microcode", "tcb_snp", "tcb_tee")},
    ),
    _DEBUG,
    *_listed("configuration", "az-snp-vtpm", _SNP_BETTER),
)
_AZ_TDX = (
    *_identity("az-tdx-vtpm", {"tpm.pcr11": "tdx_pcr11"}),
    *_identity("az-tdx-vtpm", {"quote.body.mr_td": "mr_td"}, "hardware"),
    *_intel("az-tdx-vtpm", "quote.header", "81000000", "tcb_status"),
    _DEBUG,
    *_listed("configuration", "az-tdx-vtpm", {"quote.body.xfam": "xfam"}),
)
_SAMPLE = (
    *_listed("executables", "sample", {"launch_digest": "launch_digest"}),
    *_listed("hardware", "sample", {"svn": "svn"}),
    *_listed("hardware", "sample", {"platform_version.major": "major_version"}, "equal"),
    *_listed("hardware", "sample", {"platform_version.minor": "minimum_minor_version"}, "at least"),
    Rule("configuration", ("sample", "debug"), "must", must=False),
)
_SGX = (
    *_identity("sgx", {"body.mr_enclave": "sgx_mr_enclave"}),
    *_intel("sgx", "header", None, "collateral_expiration_status"),
    *_listed("hardware", "sgx", {"tcb_status": "sgx_tcb_status"}),
    _DEBUG,
    *_listed(
        "configuration", "sgx", {"body.isv_prod_id": "sgx_isv_prod_id", "body.isv_svn": "sgx_isv_svn"}, "better in"
    ),
)
_CSV = (
    *_identity("csv", {"measure": "csv_measure"}),
    Rule("hardware", ("adyton", "tcb", "firmware_api"), "in", "csv_firmware_api"),
    Rule("configuration", ("csv", "policy", "nodbg"), "must", must=1),
)
_CCA = (
    *_identity("cca", {"realm.cca-realm-initial-measurement": "cca_realm_initial_measurement"}),
    *_listed("hardware", "cca", {"platform.cca-platform-implementation-id": "cca_implementation_id"}),
    Rule(
        "hardware",
        ("cca", "platform", "cca-platform-sw-components"),
        "each",
        "cca_platform_sw_components",
        part="measurement-value",
    ),
    _DEBUG,
    *_listed("configuration", "cca", {"platform.cca-platform-config": "cca_platform_config"}, "better in"),
)
_NITRO = (
    *_identity("nitro", {f"pcrs.{number}": f"nitro_pcr{number}" for number in range(3)}),
    *_listed("hardware", "nitro", {"pcrs.3": "nitro_pcr3", "pcrs.4": "nitro_pcr4"}),
    _DEBUG,
    *_listed("configuration", "nitro", {"pcrs.8": "nitro_pcr8"}, "better in"),
)
_HYPERENCLAVE = (
    *_identity("hyperenclave", {"mrenclave": "hyperenclave_mr_enclave"}),
    *_listed("hardware", "hyperenclave", {"monitor_measurement": "hyperenclave_monitor_measurement"}),
    _DEBUG,
    *_listed(
        "configuration",
        "hyperenclave",
        {"isvprodid": "hyperenclave_isv_prod_id", "isvsvn": "hyperenclave_isv_svn"},
        "better in",
    ),
)
GPU = (
    *_nvidia("gpu", "gpu-vbios-rim", "gpu-driver-rim", "gpu-vbios-rim"),
    *_listed(
        "configuration",
        "nvidia",
        {
            "x-nvidia-gpu-vbios-version": "allowed_vbios_versions",
            "x-nvidia-gpu-driver-version": "allowed_driver_versions",
        },
        "better in",
    ),
)
SWITCH = (
    *_nvidia("switch", "switch-bios-rim", "switch-bios-rim"),
    *_listed("configuration", "nvidia", {"x-nvidia-switch-bios-version": "allowed_switch_bios_versions"}, "better in"),
)
TABLE: Mapping[str, tuple[Rule, ...]] = {
    "snp": _SNP,
    "tdx": _TDX,
    "az-snp-vtpm": _AZ_SNP,
    "az-tdx-vtpm": _AZ_TDX,
    "tpm": _identity("tpm", {"tpm.pcr11": "tpm_pcr11", "ak_public": "trusted_aks"}),
    "se": (),
    "sgx": _SGX,
    "csv": _CSV,
    "cca": _CCA,
    "nitro": _NITRO,
    "hyperenclave": _HYPERENCLAVE,
    "sample": _SAMPLE,
    "sampledevice": _listed("hardware", "sampledevice", {"svn": "device_svn"}),
    "nvidia": GPU,
    "nvidia switch": SWITCH,
}
"""By TEE; NVIDIA's switches have claims of their own."""
