"""TCB info, QE identities and CRLs as Intel's provisioning service publishes them, under a root of our own making.

What is signed is the text of the inner JSON object, byte for byte (evidence 3.2). ``tcb_info`` and ``qe_identity`` give
that object as a dictionary; whoever forges changes it before ``sign``. ``Collateral`` is what belongs to one quote; each of
its parts can be replaced. Written apart from the verifier: a mistake in one shows when the other reads it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from adyton.devtee.dcap_certificates import Platform

QE_SIGNER = bytes.fromhex("8c4f5775d796503e96137f77c68a829a0056ac8ded70140b081b094490c57bff")
TD_QE_SIGNER = bytes.fromhex("dc9e2a7c6f948f17474e34a7fc43ed030f7c1563f1babddf6340c82e0e54a8c5")
QE_IDS = {"sgx": "QE", "tdx": "TD_QE"}
STATUSES = (
    "UpToDate",
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
    "Revoked",
)
_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
TDX_COMPONENTS = (5, 1, 2, *([0] * 13))


@dataclass(frozen=True, slots=True)
class Level:
    """One TCB level: the least SVNs, and what holds for a platform that has them. ``tdx`` only in TDX TCB info."""

    sgx: Sequence[int]
    pcesvn: int
    status: str = "UpToDate"
    tdx: Sequence[int] | None = None
    date: str = "2026-02-11T00:00:00Z"
    advisories: Sequence[str] = ()

    def body(self) -> dict[str, Any]:
        """As TCB info lists it."""
        tcb: dict[str, Any] = {"sgxtcbcomponents": [{"svn": svn} for svn in self.sgx], "pcesvn": self.pcesvn}
        if self.tdx is not None:
            tcb["tdxtcbcomponents"] = [{"svn": svn} for svn in self.tdx]
        return _level(tcb, self.status, self.date, self.advisories)


@dataclass(frozen=True, slots=True)
class ModuleLevel:
    """One level of an enclave or a TDX module: the least ISVSVN, and what holds from it on."""

    isvsvn: int
    status: str = "UpToDate"
    date: str = "2026-02-11T00:00:00Z"
    advisories: Sequence[str] = ()

    def body(self) -> dict[str, Any]:
        """As an identity lists it."""
        return _level({"isvsvn": self.isvsvn}, self.status, self.date, self.advisories)


def tcb_info(
    tee: str,
    platform: Platform,
    levels: Iterable[Level],
    *,
    issued: datetime,
    until: datetime,
    number: int = 20,
    modules: Iterable[tuple[int, Iterable[ModuleLevel]]] = (),
) -> dict[str, Any]:
    """TCB info v3 for ``platform``. ``modules``: TDX module identities by major version, each with its levels."""
    body: dict[str, Any] = {
        "id": tee.upper(),
        "version": 3,
        "issueDate": _time(issued),
        "nextUpdate": _time(until),
        "fmspc": platform.fmspc.hex().upper(),
        "pceId": platform.pceid.hex().upper(),
        "tcbType": 0,
        "tcbEvaluationDataNumber": number,
    }
    if tee == "tdx":
        module = {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8}
        body["tdxModule"] = module
        body["tdxModuleIdentities"] = [
            {"id": f"TDX_{major:02X}", **module, "tcbLevels": [level.body() for level in its]} for major, its in modules
        ]
    body["tcbLevels"] = [level.body() for level in levels]
    return body


def qe_identity(
    tee: str, levels: Iterable[ModuleLevel], *, issued: datetime, until: datetime, number: int = 20
) -> dict[str, Any]:
    """The identity, version 2, of the quoting enclave that signs this TEE's quotes."""
    return {
        "id": QE_IDS[tee],
        "version": 2,
        "issueDate": _time(issued),
        "nextUpdate": _time(until),
        "tcbEvaluationDataNumber": number,
        "miscselect": "00000000",
        "miscselectMask": "FFFFFFFF",
        "attributes": "11000000000000000000000000000000",
        "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
        "mrsigner": (TD_QE_SIGNER if tee == "tdx" else QE_SIGNER).hex().upper(),
        "isvprodid": 2 if tee == "tdx" else 1,
        "tcbLevels": [level.body() for level in levels],
    }


class Signed(NamedTuple):
    """A signed JSON object: the member it is published under, its exact text, r and s (64 bytes, big-endian)."""

    name: str
    text: bytes
    signature: bytes

    def document(self) -> bytes:
        """As the service's answer has it."""
        return b'{"%s":%s,"signature":"%s"}' % (self.name.encode(), self.text, self.signature.hex().encode())


def sign(body: dict[str, Any] | bytes, key: ec.EllipticCurvePrivateKey) -> Signed:
    """Sign a TCB info or an identity, or any text that is given as bytes."""
    text = body if isinstance(body, bytes) else json.dumps(body, separators=(",", ":")).encode()
    name = "tcbInfo" if b'"tcbLevels"' in text and b'"fmspc"' in text else "enclaveIdentity"
    return Signed(name, text, raw_signature(key, text))


def raw_signature(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    """ECDSA P-256 with SHA-256 as Intel writes it: r, then s, 32 bytes each, big-endian."""
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def broken_signatures(signature: bytes) -> dict[str, bytes]:
    """The same 64 bytes with each way of being wrong, by name."""
    r, s = signature[:32], signature[32:]

    def beyond(value: bytes) -> bytes:
        return ((int.from_bytes(value, "big") + _P256_ORDER) % (1 << 256)).to_bytes(32, "big")

    return {
        "bit of r": bytes((r[0] ^ 1,)) + r[1:] + s,
        "bit of s": r + s[:-1] + bytes((s[-1] ^ 1,)),
        "zero": bytes(64),
        "r zero": bytes(32) + s,
        "s zero": r + bytes(32),
        "r is the order": _P256_ORDER.to_bytes(32, "big") + s,
        "r plus order": beyond(r) + s,
        "swapped": s + r,
        "little-endian": r[::-1] + s[::-1],
        "all ones": b"\xff" * 64,
    }


def mirrored(signature: bytes) -> bytes:
    """With n - s for s: as good as the original by ECDSA's own rules, so evidence has no identity in its bytes."""
    return signature[:32] + (_P256_ORDER - int.from_bytes(signature[32:], "big")).to_bytes(32, "big")


@dataclass(frozen=True, slots=True)
class Collateral:
    """What a verifier needs besides the quote. ``None``: left out. CRLs are DER; ``root`` is the chains' last."""

    root: x509.Certificate
    pck_ca: x509.Certificate
    tcb_signing: x509.Certificate
    root_crl: bytes | None
    pck_crl: bytes | None
    tcb_info: Signed | None
    qe_identity: Signed | None
    qe_signing: x509.Certificate | None = None

    def blobs(self) -> tuple[bytes, ...]:
        """Each item by itself: the signed answers, certificates and CRLs in DER."""
        documents = [signed.document() for signed in (self.tcb_info, self.qe_identity) if signed is not None]
        signers = (self.root, self.pck_ca, self.tcb_signing, self.qe_signing or self.tcb_signing)
        crls = [crl for crl in (self.root_crl, self.pck_crl) if crl is not None]
        return (*documents, *(certificate.public_bytes(Encoding.DER) for certificate in signers), *crls)

    def bundle(self) -> dict[str, str]:
        """All in one JSON object, under the names that Intel's quote library and others give its parts.

        ``ValueError`` if a part is left out: this form has no place for that.
        """
        if self.root_crl is None or self.pck_crl is None or self.tcb_info is None or self.qe_identity is None:
            raise ValueError("a bundle has all parts")
        return {
            "pck_crl_issuer_chain": _pem(self.pck_ca, self.root),
            "root_ca_crl": self.root_crl.hex(),
            "pck_crl": self.pck_crl.hex(),
            "tcb_info_issuer_chain": _pem(self.tcb_signing, self.root),
            "tcb_info": self.tcb_info.text.decode(),
            "tcb_info_signature": self.tcb_info.signature.hex(),
            "qe_identity_issuer_chain": _pem(self.qe_signing or self.tcb_signing, self.root),
            "qe_identity": self.qe_identity.text.decode(),
            "qe_identity_signature": self.qe_identity.signature.hex(),
        }


def _level(tcb: dict[str, Any], status: str, date: str, advisories: Sequence[str]) -> dict[str, Any]:
    body: dict[str, Any] = {"tcb": tcb, "tcbDate": date, "tcbStatus": status}
    return {**body, "advisoryIDs": [*advisories]} if advisories else body


def _pem(*chain: x509.Certificate) -> str:
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in chain).decode()


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
