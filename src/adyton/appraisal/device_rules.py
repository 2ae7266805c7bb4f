"""The rules of the default policies for devices: NVIDIA's GPUs and switches, and CoCo's sample device (kbs-protocol 2.6).

They behave as CoCo's do over the claims of NVIDIA's own service, which Adyton's verifier delivers for what it verified
itself. One is not asked for of a switch: that its certificate names the report's firmware, since the report names none. A claim about something that was not looked at is not there, so nothing is affirmed without OCSP answers and
reference manifests.
"""

from __future__ import annotations

_RIM_FACTS = ("fetched", "measurements-available", "schema-validated", "signature-verified", "version-match")


def _chain(name: str) -> str:
    """The chain of a report or manifest is valid, and its authorities answered for it."""
    place = f'input.nvidia["x-nvidia-{name}-cert-chain"]'
    return f"""\
	{place}["x-nvidia-cert-ocsp-status"] == "good"
	{place}["x-nvidia-cert-status"] == "valid"
"""


def _true(*names: str) -> str:
    return "".join([f'\tinput.nvidia["x-nvidia-{name}"] == true\n' for name in names])


def _hardware(kind: str) -> str:
    report = f"{kind}-attestation-report"
    facts = [f"{report}-parsed", f"{report}-signature-verified", f"{kind}-arch-check"]
    if kind == "gpu":  # a switch's report does not name its firmware
        facts.append(f"{report}-cert-chain-fwid-match")
    return f"hardware := 2 if {{\n{_chain(report)}{_true(*facts)}}}\n"


def _configuration(*versions: tuple[str, str]) -> str:
    safe = '\tinput.nvidia.secboot == true\n\tinput.nvidia.dbgstat == "disabled"\n'
    listed = "".join([f'\tinput.nvidia["x-nvidia-{name}"] in query_reference_value("{rv}")\n' for name, rv in versions])
    return f"configuration := 2 if {{\n{safe}{listed}}} else := 3 if {{\n{safe}}}\n"


def _executables(chain: str, *manifests: str) -> str:
    facts = [f"{manifest}-{fact}" for manifest in manifests for fact in _RIM_FACTS]
    return f'executables := 3 if {{\n{_chain(chain)}{_true(*facts)}\tinput.nvidia.measres == "success"\n}}\n'


_GPU = (
    _hardware("gpu"),
    _configuration(("gpu-vbios-version", "allowed_vbios_versions"), ("gpu-driver-version", "allowed_driver_versions")),
    _executables("gpu-vbios-rim", "gpu-driver-rim", "gpu-vbios-rim"),
)
_SWITCH = (
    _hardware("switch"),
    _configuration(("switch-bios-version", "allowed_switch_bios_versions")),
    _executables("switch-bios-rim", "switch-bios-rim"),
)
_SAMPLE = """\
hardware := 2 if {
	input.sampledevice.svn in query_reference_value("device_svn")
}
"""
GPU_RULES = "\n".join([*_GPU, _SAMPLE])
SWITCH_RULES = "\n".join(_SWITCH)
