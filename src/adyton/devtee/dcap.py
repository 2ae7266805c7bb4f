"""Quotes of SGX and TDX, and all that verifying them takes, under a root of our own: right ones, and wrong on purpose.

A ``DcapForge`` holds one platform's chain in memory: root, PCK CA, PCK leaf, TCB Signing, and the quoting enclave's
attestation key. ``quote`` gives a ``Quote`` whose every field can be replaced afterwards, ``collateral`` gives
collateral whose every part can; both take another signer for each signature. Issued quotes have genuine forms: SGX
bodies in version 3, 4 and 5, TD 1.0 bodies in 4 and 5, TD 1.5 bodies in 5.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from adyton.devtee.dcap_certificates import (
    Holder,
    Platform,
    make_crl,
    make_pck,
    make_pck_ca,
    make_root,
    make_tcb_signing,
    new_key,
)
from adyton.devtee.dcap_collateral import (
    QE_SIGNER,
    TD_QE_SIGNER,
    TDX_COMPONENTS,
    Collateral,
    Level,
    ModuleLevel,
    qe_identity,
    raw_signature,
    sign,
    tcb_info,
)
from adyton.tee.dcap.bodies import SgxBody, TdBody
from adyton.tee.dcap.quote import PCK_CHAIN, TEE_SGX, TEE_TDX, Quote, QuoteHeader

QE_SVN = 8
MODULE = (1, 5)  # the TDX module's major version and SVN
AUTH_DATA = bytes(range(32))
_LIFE = timedelta(days=30)
_ISSUED_BEFORE = timedelta(hours=1)
_SGX_ATTRIBUTES = bytes.fromhex("0500000000000000e700000000000000")  # INIT, MODE64
_QE_ATTRIBUTES = bytes.fromhex("1500000000000000e700000000000000")  # INIT, MODE64, PROVISIONKEY


@dataclass(frozen=True, slots=True)
class DcapForge:
    """One platform with its endorsers. ``dataclasses.replace`` puts another holder in any place."""

    now: datetime
    root: Holder
    pck_ca: Holder
    pck: Holder
    tcb_signing: Holder
    attestation_key: ec.EllipticCurvePrivateKey

    @classmethod
    def new(cls, now: datetime, platform: Platform | None = None) -> DcapForge:
        """Fresh keys for everything, in a few milliseconds."""
        platform = platform or Platform()
        root = make_root(now)
        ca = make_pck_ca(root, now, kind=platform.kind)
        return cls(now, root, ca, make_pck(ca, platform, now), make_tcb_signing(root, now), new_key())

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 of the root's SubjectPublicKeyInfo, 32 bytes: what trust anchors hold."""
        spki = self.root.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return hashlib.sha256(spki).digest()

    @property
    def platform(self) -> Platform:
        """The platform that the PCK leaf is for."""
        return self.pck.platform

    def with_platform(self, platform: Platform, **leaf: Any) -> DcapForge:
        """The same endorsers with another leaf; ``leaf`` goes to ``make_pck``. Another kind brings its own CA."""
        ca = self.pck_ca
        if platform.kind != self.platform.kind:
            ca = make_pck_ca(self.root, self.now, kind=platform.kind)
        return replace(self, pck_ca=ca, pck=make_pck(ca, platform, leaf.pop("now", self.now), **leaf))

    def chain(self) -> bytes:
        """Leaf, CA and root in PEM, closed by a NUL: certification data of type 5."""
        return _pem(self.pck, self.pck_ca, self.root) + b"\0"

    def quote(
        self,
        body: SgxBody | TdBody | None = None,
        *,
        version: int | None = None,
        header: Mapping[str, Any] | None = None,
        qe_report: Mapping[str, Any] | None = None,
        qe_auth_data: bytes = AUTH_DATA,
        certification: tuple[int, bytes] | None = None,
        tail: bytes = b"",
        quote_signer: ec.EllipticCurvePrivateKey | None = None,
        qe_signer: ec.EllipticCurvePrivateKey | None = None,
    ) -> Quote:
        """A signed quote over ``body`` [a plain enclave]; ``header`` and ``qe_report`` override fields of those two.

        ``certification``: type and data, by default 5 and the chain. ``quote_signer`` and ``qe_signer`` are keys to sign
        with instead of the attestation key (whose name stays in the quote) and the PCK's.
        """
        body = body if body is not None else sgx_body()
        tdx = isinstance(body, TdBody)
        version = version or (3 if not tdx else 4 if body.tee_tcb_svn_2 is None else 5)  # type: ignore[union-attr]  # a TD's
        key = _point(self.attestation_key)
        head = {"version": version, "tee_type": TEE_TDX if tdx else TEE_SGX}
        if version == 3:
            head |= {"qe_svn": QE_SVN, "pce_svn": self.platform.pcesvn}
        bound = hashlib.sha256(key + qe_auth_data).digest() + bytes(32)
        enclave: dict[str, Any] = {
            "cpusvn": bytes(self.platform.components),
            "attributes": _QE_ATTRIBUTES,
            "mrenclave": hashlib.sha256(b"Adyton development quoting enclave").digest(),
            "mrsigner": TD_QE_SIGNER if tdx else QE_SIGNER,
            "isvprodid": 2 if tdx else 1,
            "isvsvn": QE_SVN,
            "report_data": bound,
        }
        report = SgxBody(**{**enclave, **(qe_report or {})})
        kind, data = certification if certification is not None else (PCK_CHAIN, self.chain())
        unsigned = Quote(
            QuoteHeader(**{**head, **(header or {})}),
            body,
            bytes(64),
            key,
            report,
            raw_signature(qe_signer or self.pck.key, report.encode()),
            qe_auth_data,
            kind,
            data,
            tail,
        )
        return resign(unsigned, quote_signer or self.attestation_key)

    def levels(self, tee: str, statuses: Iterable[str] = ("UpToDate",)) -> list[Level]:
        """Levels whose first one this platform just has, each further one a PCESVN below, with these statuses."""
        components, tdx = self.platform.components, TDX_COMPONENTS if tee == "tdx" else None
        return [
            Level(components, max(self.platform.pcesvn - below, 0), status, tdx)
            for below, status in enumerate(statuses)
        ]

    def collateral(
        self,
        tee: str,
        *,
        levels: Iterable[Level] | None = None,
        modules: Iterable[tuple[int, Iterable[ModuleLevel]]] | None = None,
        qe_levels: Iterable[ModuleLevel] | None = None,
        info: Mapping[str, Any] | None = None,
        identity: Mapping[str, Any] | None = None,
        issued: datetime | None = None,
        life: timedelta = _LIFE,
        info_signer: Holder | None = None,
        identity_signer: Holder | None = None,
        revoked: Iterable[x509.Certificate] = (),
    ) -> Collateral:
        """Collateral for this platform's quotes of ``tee``, good from an hour before ``now`` for 30 days.

        ``info`` and ``identity`` override members of TCB info and QE identity before they are signed (``None`` takes one
        away); ``revoked`` certificates are listed by both CRLs.
        """
        begun = (issued or self.now) - _ISSUED_BEFORE
        times: dict[str, Any] = {"issued": begun, "until": begun + life}
        if modules is None:
            modules = [(MODULE[0], [ModuleLevel(MODULE[1])])]
        body = tcb_info(tee, self.platform, levels or self.levels(tee), modules=modules, **times)
        about_qe = qe_identity(tee, qe_levels or [ModuleLevel(QE_SVN)], **times)
        signers = (info_signer or self.tcb_signing, identity_signer or self.tcb_signing)
        listed = list(revoked)
        return Collateral(
            root=self.root.certificate,
            pck_ca=self.pck_ca.certificate,
            tcb_signing=signers[0].certificate,
            root_crl=self.crl(self.root, revoked=listed),
            pck_crl=self.crl(self.pck_ca, revoked=listed),
            tcb_info=sign(_changed(body, info), signers[0].key),
            qe_identity=sign(_changed(about_qe, identity), signers[1].key),
            qe_signing=signers[1].certificate,
        )

    def crl(self, issuer: Holder, **options: Any) -> bytes:
        """A list of ``issuer``'s in DER; ``options`` go to ``make_crl``."""
        return make_crl(issuer, options.pop("now", self.now), **options).public_bytes(Encoding.DER)


def sgx_body(**fields: Any) -> SgxBody:
    """An enclave's report with these fields; attributes are those of a production enclave."""
    return SgxBody(**{"attributes": _SGX_ATTRIBUTES, "cpusvn": bytes(16), **fields})


def td_body(*, td15: bool = False, **fields: Any) -> TdBody:
    """A trust domain's report with these fields, on a TDX module and platform as ``collateral`` describes them."""
    svn = bytes((MODULE[1], MODULE[0], TDX_COMPONENTS[2])) + bytes(13)
    defaults: dict[str, Any] = {
        "tee_tcb_svn": svn,
        "td_attributes": (1 << 28).to_bytes(8, "little"),  # SEPT_VE_DISABLE
        "xfam": bytes.fromhex("e742060000000000"),
    }
    if td15:
        defaults |= {"tee_tcb_svn_2": svn, "mrservicetd": bytes(48)}
    return TdBody(**{**defaults, **fields})


def resign(quote: Quote, key: ec.EllipticCurvePrivateKey) -> Quote:
    """The quote with a signature by ``key`` over what it says now."""
    return msgspec.structs.replace(quote, signature=raw_signature(key, quote.signed_bytes))


def _changed(body: dict[str, Any], changes: Mapping[str, Any] | None) -> dict[str, Any]:
    merged = {**body, **(changes or {})}
    return {name: value for name, value in merged.items() if value is not None}


def _point(key: ec.EllipticCurvePrivateKey) -> bytes:
    point = key.public_key().public_numbers()
    return point.x.to_bytes(32, "big") + point.y.to_bytes(32, "big")


def _pem(*holders: Holder) -> bytes:
    return b"".join(holder.certificate.public_bytes(Encoding.PEM) for holder in holders)
