"""HyperEnclave quotes under a TPM endorser of our own: every link of the chain can be had wrong.

Root → attestation key (both P-256) → the monitor's key (P-256 or SM2) → the enclave's report.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from adyton.crypto.sm2 import sm3
from adyton.devtee.sm2 import SigningKey
from adyton.tee.dcap.bodies import SgxBody
from adyton.tee.eventlog.banks import SHA256
from adyton.tee.hyperenclave.abi import ECDSA_P256, SM2, HyperEnclaveQuote
from adyton.tee.hyperenclave.verify import USER_ID
from adyton.tee.tpm.abi import Attest, Selection

_DAY = timedelta(days=1)
MonitorKey = ec.EllipticCurvePrivateKey | SigningKey


def _key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@dataclass(frozen=True, slots=True, kw_only=True)
class HyperEnclaveForge:
    """One machine: its TPM's endorser, its attestation key, its monitor."""

    now: datetime
    root_key: ec.EllipticCurvePrivateKey = field(default_factory=_key)
    ak: ec.EllipticCurvePrivateKey = field(default_factory=_key)
    monitor: MonitorKey = field(default_factory=_key)
    monitor_measurement: bytes = hashlib.sha256(b"monitor").digest()
    pcrs: tuple[int, ...] = (12, 13)
    lifetime: timedelta = 30 * _DAY

    def root(self) -> bytes:
        """The endorser's certificate, DER."""
        return self._certificate("Adyton development TPM endorser", self.root_key, ca=True)

    def ak_certificate(self) -> bytes:
        """The attestation key's certificate, DER."""
        return self._certificate("Adyton development attestation key", self.ak, ca=False)

    def crl(self, *, revoked: bool = False) -> bytes:
        """The endorser's list, DER; ``revoked``: with the attestation key's certificate on it."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(_name("Adyton development TPM endorser"))
            .last_update(self.now - _DAY)
            .next_update(self.now + _DAY)
            .add_extension(x509.CRLNumber(1), critical=False)
        )
        if revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(2).revocation_date(self.now - _DAY).build()
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(self.root_key, hashes.SHA256()).public_bytes(Encoding.DER)

    def quote(
        self,
        body: SgxBody | None = None,
        *,
        report_signer: MonitorKey | None = None,
        tpm_signer: ec.EllipticCurvePrivateKey | None = None,
        quoted_key: bytes | None = None,
        selections: tuple[Selection, ...] | None = None,
    ) -> bytes:
        """A quote. ``quoted_key``: the monitor key that the TPM's quote names, when it is not the one in the quote."""
        body = body or SgxBody()
        sm2 = isinstance(self.monitor, SigningKey)
        named = quoted_key if quoted_key is not None else _public(self.monitor)
        bitmap = sum(1 << number for number in self.pcrs).to_bytes(3, "little")
        attest = Attest(
            raw=b"",
            qualified_signer=b"\0\x0b" + hashlib.sha256(_public(self.ak)).digest(),
            extra_data=sm3(named) if sm2 else hashlib.sha256(named).digest(),
            clock=5000,
            reset_count=3,
            restart_count=0,
            safe=True,
            firmware_version=1,
            selections=selections if selections is not None else (Selection(SHA256, bitmap, self.pcrs),),
            pcr_digest=self.monitor_measurement,
        ).encode()
        unsigned = HyperEnclaveQuote(
            SM2 if sm2 else ECDSA_P256,
            bytes(44),
            body,
            bytes(64),
            _public(self.monitor),
            attest,
            _sign(tpm_signer or self.ak, attest),
            self.ak_certificate(),
        )
        signature = _sign(report_signer or self.monitor, unsigned.signed())
        return HyperEnclaveQuote(
            unsigned.sign_type,
            unsigned.header,
            body,
            signature,
            unsigned.monitor_key,
            attest,
            unsigned.tpm_signature,
            unsigned.ak_certificate,
        ).encode()

    def with_monitor(self, monitor: MonitorKey) -> HyperEnclaveForge:
        """The same machine under another monitor."""
        return replace(self, monitor=monitor)

    def _certificate(self, name: str, key: ec.EllipticCurvePrivateKey, *, ca: bool) -> bytes:
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(_name("Adyton development TPM endorser"))
            .public_key(key.public_key())
            .serial_number(1 if ca else 2)
            .not_valid_before(self.now - _DAY)
            .not_valid_after(self.now + self.lifetime)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=not ca, key_cert_sign=ca, crl_sign=ca, content_commitment=False,
                    key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
                    decipher_only=False,
                ),
                critical=True,
            )
        )  # fmt: skip
        return builder.sign(self.root_key, hashes.SHA256()).public_bytes(Encoding.DER)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _public(key: MonitorKey) -> bytes:
    if isinstance(key, SigningKey):
        return b"".join(number.to_bytes(32, "big") for number in key.point)
    numbers = key.public_key().public_numbers()
    return numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")


def _sign(key: MonitorKey, data: bytes) -> bytes:
    if isinstance(key, SigningKey):
        r, s = key.sign(data, user_id=USER_ID)
    else:
        r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")
