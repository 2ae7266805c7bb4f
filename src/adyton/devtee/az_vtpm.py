"""Evidence of an Azure guest under a root of our own: an HCL report around a hardware report, and a vTPM's quote.

Everything can be set wrong: the claims, the report type, the key that quotes, the values of the PCRs, the selection.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from adyton.tee.az_vtpm.abi import SNP_TYPE, TDX_TYPE, HclReport
from adyton.tee.eventlog.banks import SHA256, Bank
from adyton.tee.tpm.abi import Attest, Selection
from adyton.wire import b64

PCRS = 24
CONFIGURATION: Mapping[str, object] = {
    "console-enabled": False,
    "secure-boot": True,
    "tpm-enabled": True,
    "vmUniqueId": "AD770000-0000-4000-8000-000000000001",
}
Hardware = Callable[[bytes], bytes]  # report data (64 bytes) -> the hardware report that the HCL report holds


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureGuest:
    """One guest. ``hardware`` issues its report; ``td_quote`` (TDX) quotes it; ``vcek`` (SNP) is the chip's certificate."""

    hardware: Hardware
    ak: rsa.RSAPrivateKey
    vcek: x509.Certificate | None = None
    td_quote: Callable[[bytes], bytes] | None = None
    configuration: Mapping[str, object] = field(default_factory=lambda: CONFIGURATION)
    pcrs: tuple[bytes, ...] = tuple(bytes([number]) * 32 for number in range(PCRS))
    user_data: bytes = bytes(64)

    def runtime_claims(self) -> bytes:
        """The paravisor's JSON."""
        numbers = self.ak.public_key().public_numbers()
        key = {
            "kid": "HCLAkPub",
            "key_ops": ["sign"],
            "kty": "RSA",
            "e": b64.encode_url(numbers.e.to_bytes(3, "big")),
            "n": b64.encode_url(numbers.n.to_bytes((numbers.n.bit_length() + 7) // 8, "big")),
        }
        whole = {"keys": [key], "vm-configuration": dict(self.configuration), "user-data": self.user_data.hex().upper()}
        return json.dumps(whole, separators=(",", ":")).encode()

    def hcl_report(
        self, *, claims: bytes | None = None, bound: bytes | None = None, report_type: int | None = None
    ) -> bytes:
        """The HCL report, 2600 bytes. ``bound``: what the hardware's report data holds instead of the claims' hash."""
        claims = claims if claims is not None else self.runtime_claims()
        data = bound if bound is not None else hashlib.sha256(claims).digest() + bytes(32)
        kind = report_type if report_type is not None else TDX_TYPE if self.td_quote is not None else SNP_TYPE
        hardware = self.hardware(data).ljust(1184, b"\0")
        report = HclReport(2, 2, bytes(16), hardware, kind, claims, b"").encode()
        return report.ljust(2600, b"\0")

    def quote(
        self,
        extra_data: bytes,
        *,
        selected: Sequence[int] = tuple(range(PCRS)),
        bank: Bank = SHA256,
        key: rsa.RSAPrivateKey | None = None,
        digest: bytes | None = None,
    ) -> tuple[bytes, bytes]:
        """TPMS_ATTEST over the selected PCRs, and its bare RSASSA signature."""
        bitmap = sum(1 << number for number in selected).to_bytes(3, "little")
        over = hashlib.sha256(b"".join(self.pcrs[number] for number in selected)).digest()
        attest = Attest(
            raw=b"",
            qualified_signer=b"\0\x0b" + bytes(32),
            extra_data=extra_data,
            clock=1000,
            reset_count=1,
            restart_count=0,
            safe=True,
            firmware_version=0x2020031200120003,
            selections=(Selection(bank, bitmap, tuple(sorted(selected))),),
            pcr_digest=digest if digest is not None else over,
        )
        message = attest.encode()
        return message, (key or self.ak).sign(message, padding.PKCS1v15(), hashes.SHA256())

    def evidence(
        self,
        extra_data: bytes,
        *,
        version: int = 2,
        hcl_report: bytes | None = None,
        quote: tuple[bytes, bytes] | None = None,
    ) -> bytes:
        """CoCo's JSON; ``version`` 0 is the shape without one."""
        hcl = hcl_report if hcl_report is not None else self.hcl_report()
        message, signature = quote if quote is not None else self.quote(extra_data)
        whole: dict[str, object]
        if version == 0:
            lists = {"signature": [*signature], "message": [*message], "pcrs": [[*value] for value in self.pcrs]}
            if self.td_quote is not None:
                whole = {"tpm_quote": lists, "hcl_report": [*hcl], "td_quote": [*self._td_quote(hcl)]}
            else:
                whole = {"quote": lists, "report": [*hcl], "vcek": self._vcek().public_bytes(Encoding.PEM).decode()}
            return json.dumps(whole).encode()
        texts = {"signature": signature.hex(), "message": message.hex(), "pcrs": [value.hex() for value in self.pcrs]}
        whole = {"version": version, "tpm_quote": texts, "hcl_report": b64.encode_url(hcl)}
        if self.td_quote is not None:
            whole["td_quote"] = b64.encode_url(self._td_quote(hcl))
        else:
            whole["vcek"] = b64.encode_url(self._vcek().public_bytes(Encoding.DER))
        return json.dumps(whole).encode()

    def _vcek(self) -> x509.Certificate:
        if self.vcek is None:
            raise ValueError("an SNP guest has a VCEK")
        return self.vcek

    def _td_quote(self, hcl: bytes) -> bytes:
        if self.td_quote is None:
            raise ValueError("a TDX guest has a quote")
        return self.td_quote(hcl)
