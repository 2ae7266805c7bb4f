"""What form the reference values have that the default policies ask for: what else could never match.

A measured value is looked up in a **list** of accepted ones; a property must **equal** one value. JSON tells numbers
from texts, and policies compare exactly, so ``["10"]`` is not ``[10]``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from adyton.rats.types import JsonValue

_HEX = re.compile(r"(?:[0-9a-f]{2})+\Z")
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}\Z")
_LARGEST = (1 << 53) - 1


@dataclass(frozen=True, slots=True)
class Shape:
    """``many``: a list of accepted values. ``size``: bytes of hex and base64, 0 for any; the largest number, 0 for 255."""

    many: bool
    of: Literal["digest", "base64", "number", "truth", "text"]
    size: int = 0

    @property
    def text(self) -> str:
        """For a person."""
        words = {
            "digest": f"{2 * self.size or 'some'} lower-case hex digits",
            "base64": f"standard base64 of {self.size} bytes" if self.size else "standard base64",
            "number": f"a whole number from 0 to {self.size or 255}",
            "truth": "true or false",
            "text": "text",
        }
        return f"a list, each {words[self.of]}" if self.many else words[self.of]

    def fits(self, value: JsonValue) -> bool:
        """Whether a value of this form could ever match."""
        if self.many:
            return isinstance(value, list) and bool(value) and all(self._one(item) for item in value)
        return self._one(value)

    def _one(self, value: JsonValue) -> bool:
        if self.of == "truth":
            return isinstance(value, bool)
        if self.of == "number":
            return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= (self.size or 255)
        if not isinstance(value, str) or not value:
            return False
        if self.of == "digest":
            return _HEX.match(value) is not None and self.size in {0, len(value) // 2}
        if self.of == "base64":
            return (
                _BASE64.match(value) is not None
                and len(value) % 4 == 0
                and self.size in {0, len(value) // 4 * 3 - value.count("=")}
            )
        return True

    def read(self, texts: Sequence[str]) -> JsonValue:
        """The value that a person means who types ``texts``; ``ValueError`` if it would not fit."""
        items = [self._read(text.strip()) for text in texts]
        value: JsonValue = items if self.many else items[0]
        if (len(items) > 1 and not self.many) or not self.fits(value):
            raise ValueError(self.text)
        return value

    def _read(self, text: str) -> JsonValue:
        if self.of == "digest":
            return text.lower().removeprefix("0x")
        if self.of == "truth":
            return {"true": True, "false": False}.get(text.lower(), text)
        if self.of == "number":
            return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else text
        return text


_NUMBERS = Shape(many=True, of="number")
_NUMBER = Shape(many=False, of="number")
_TRUTH = Shape(many=False, of="truth")
_TEXTS = Shape(many=True, of="text")
_SHA256 = Shape(many=True, of="digest", size=32)
_SHA384 = Shape(many=True, of="digest", size=48)
SHAPES = {
    "snp_launch_measurement": _SHA384,
    "snp_bootloader": _NUMBERS,
    "snp_microcode": _NUMBERS,
    "snp_snp_svn": _NUMBERS,
    "snp_tee_svn": _NUMBERS,
    "snp_smt_enabled": _TRUTH,
    "snp_tsme_enabled": _TRUTH,
    "snp_guest_abi_major": _NUMBER,
    "snp_guest_abi_minor": _NUMBER,
    "snp_single_socket": _TRUTH,
    "snp_smt_allowed": _TRUTH,
    "rtmr_1": _SHA384,
    "rtmr_2": _SHA384,
    "tdvfkernel": Shape(many=False, of="digest", size=48),
    "tdvfkernelparams": Shape(many=False, of="digest", size=48),
    "mr_td": _SHA384,
    "xfam": Shape(many=True, of="digest", size=8),
    "measurement": Shape(many=True, of="base64", size=48),
    "snp_pcr11": _SHA256,
    "tdx_pcr11": _SHA256,
    "tpm_pcr11": _SHA256,
    "trusted_aks": Shape(many=True, of="base64"),
    # Claims of an Azure SNP guest are all text.
    **dict.fromkeys(("tcb_bootloader", "tcb_microcode", "tcb_snp", "tcb_tee"), _TEXTS),
    **dict.fromkeys(("smt_enabled", "tsme_enabled", "abi_major", "abi_minor", "single_socket", "smt_allowed"), _TEXTS),
    "sgx_mr_enclave": _SHA256,
    "sgx_tcb_status": _TEXTS,
    "sgx_isv_prod_id": Shape(many=True, of="digest", size=2),
    "sgx_isv_svn": Shape(many=True, of="digest", size=2),
    "csv_measure": _SHA256,
    "csv_firmware_api": _TEXTS,
    "cca_realm_initial_measurement": Shape(many=True, of="base64"),
    "cca_implementation_id": Shape(many=True, of="base64", size=32),
    "cca_platform_sw_components": Shape(many=True, of="base64"),
    "cca_platform_config": Shape(many=True, of="base64"),
    **{f"nitro_pcr{number}": _SHA384 for number in (0, 1, 2, 3, 4, 8)},
    "hyperenclave_mr_enclave": _SHA256,
    "hyperenclave_monitor_measurement": Shape(many=True, of="digest"),
    "hyperenclave_isv_prod_id": Shape(many=True, of="number", size=65535),
    "hyperenclave_isv_svn": Shape(many=True, of="number", size=65535),
    "launch_digest": _TEXTS,
    "svn": _TEXTS,
    "major_version": Shape(many=False, of="number", size=_LARGEST),
    "minimum_minor_version": Shape(many=False, of="number", size=_LARGEST),
    "allowed_vbios_versions": _TEXTS,
    "allowed_driver_versions": _TEXTS,
    "allowed_switch_bios_versions": _TEXTS,
    "device_svn": _TEXTS,
}
"""By name. A policy of one's own may give these names another form: so this is advice, and never stops a value."""
