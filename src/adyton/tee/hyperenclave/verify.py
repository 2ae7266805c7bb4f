"""Is this HyperEnclave quote authentic? The whole chain in one call: TPM → monitor → enclave.

A certificate leads the attestation key to a trusted root; that key's quote is over the PCRs that hold the monitor's
measurement, and names the monitor's key; the monitor's key signs the enclave's report. Whether that monitor is a good one
is for its ``monitor_measurement`` to say, against a reference value: the quote alone proves that *some* software was
measured into those PCRs and owned that key.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import datetime
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric import ec

from adyton.crypto.ecdsa import verify_p256
from adyton.crypto.path import Path
from adyton.crypto.sm2 import Sm2Key, sm3
from adyton.crypto.x509 import Certificate, EndorsementSet
from adyton.errors import BindingMismatch, EndorsementMalformed, EvidenceError, MalformedEvidence, SignatureInvalid
from adyton.rats.binding import check_report_data
from adyton.rats.types import Check, JsonValue, ReportData, Revocation, TrustAnchors, VerifiedEvidence
from adyton.tee.eventlog.banks import SHA256
from adyton.tee.hyperenclave.abi import SM2, SPEC, TEE, HyperEnclaveQuote, malformed
from adyton.tee.remembered import Chain, Remembered, Window
from adyton.tee.steps import Step, done, walk
from adyton.tee.tpm import ak as keys
from adyton.tee.tpm.abi import ECDSA, Attest, Signature
from adyton.tee.tpm.quote import check_signature

CONFIGID_SIZE = 64
USER_ID = b"1234567812345678"  # GB/T 35276: the signer's id where none is agreed


class _Known(NamedTuple):
    """What is remembered of an attestation key's chain."""

    key: ec.EllipticCurvePublicKey
    root: bytes
    expires: datetime
    expires_first: str


class Verification:
    """One verification: what was given, and what the checks have found so far."""

    __slots__ = (
        "_key", "_path", "anchors", "attest", "certificate", "endorsements", "init_data", "known", "now", "quote",
        "remembered", "report_data", "revocation",
    )  # fmt: skip
    certificate: Certificate
    _path: Path

    def __init__(
        self,
        evidence: bytes,
        *,
        endorsements: EndorsementSet,
        now: datetime,
        anchors: TrustAnchors,
        revocation: Revocation,
        report_data: ReportData | None,
        init_data: bytes | None,
        remembered: Remembered | None,
    ) -> None:
        self.quote = HyperEnclaveQuote.parse(evidence)
        self.attest = Attest.parse(self.quote.attest)
        self.endorsements = endorsements
        self.now = now
        self.anchors = anchors
        self.revocation = revocation
        self.report_data = report_data
        self.init_data = init_data
        self.remembered = remembered
        self.known: _Known | None = None
        certificate = hashlib.sha256(self.quote.ak_certificate).digest()
        required = revocation is Revocation.REQUIRED
        self._key = (TEE, certificate, endorsements.digest, anchors.vendor, anchors.custom, required)
        if remembered is not None:
            known = remembered.recall(self._key, now)
            if isinstance(known, _Known):
                self.known = known

    @property
    def trusted(self) -> frozenset[bytes]:
        """SHA-256 of the root keys that may endorse a TPM."""
        return self.anchors.among(keys.ROOTS)

    def chain(self) -> None:
        """Algorithms, names, signatures and constraints from the key's certificate up to a root."""
        if self.known is not None:
            return
        try:
            self.certificate = Certificate(self.quote.ak_certificate)
        except EndorsementMalformed as error:
            raise malformed("the attestation key's certificate cannot be read", field="ak_certificate") from error
        self._path = keys.build(self.certificate, self.endorsements, trusted=self.trusted, now=self.now)

    def validity(self) -> None:
        """Every certificate is valid now."""
        if self.known is None:
            self._path.validity(self.now)

    def root(self) -> None:
        """The root's key is trusted."""
        if self.known is None:
            self._path.anchor(self.trusted)

    def revoked(self) -> None:
        """None is revoked, by a fresh CRL of each issuer. The chain is then remembered."""
        if self.known is not None:
            return
        crls = []
        if self.revocation is Revocation.REQUIRED:
            crls = self._path.revocation(self.endorsements, self.now, keys.CRL)
        key = self.certificate.public_key
        if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
            raise EvidenceError(
                "the attestation key is not a P-256 key",
                code="ak_key",
                tee=TEE,
                field="ak_certificate",
                expected="P-256",
                got=type(key).__name__,
                spec=SPEC,
            )
        names = [role.name for role in self._path.profile.roles]
        ends = [(item.not_after, name) for item, name in zip(self._path.certificates, names, strict=True)]
        expires, first = min([*ends, *((crl.next_update, "crl") for crl in crls)])
        self.known = _Known(key, self._path.root.spki_fingerprint, expires, first)
        if self.remembered is not None:
            every = [(crl.this_update, crl.next_update) for crl in self.endorsements.crls]
            window = Window.around(self.now, [*self._path.lifetimes(), *every])
            self.remembered.keep(self._key, Chain(self.known, window))

    def tpm_quote(self) -> None:
        """The TPM's quote is the attestation key's."""
        if self.known is None:
            raise ValueError("the chain comes first")
        r, s = self.quote.tpm_signature[:32], self.quote.tpm_signature[32:]
        check_signature(Signature(ECDSA, SHA256, (r, s)), self.quote.attest, self.known.key, tee=TEE)
        if len(self.attest.selections) != 1 or not self.attest.selections[0].pcrs:
            raise EvidenceError(
                "the quote is not over the PCRs of one bank",
                code="pcr_selection",
                tee=TEE,
                field="attest",
                got=[selection.bank.name for selection in self.attest.selections],
                spec=SPEC,
            )

    def monitor(self) -> None:
        """The quote names the monitor's key: its qualifying data is that key's digest."""
        digest = self._hash(self.quote.monitor_key)
        if not hmac.compare_digest(digest, self.attest.extra_data):
            raise BindingMismatch(
                "the TPM's quote is for another monitor's key",
                code="monitor_key_mismatch",
                tee=TEE,
                field="monitor_key",
                expected=digest,
                got=self.attest.extra_data,
                spec=SPEC,
            )

    def report(self) -> None:
        """The enclave's report is signed by the monitor's key."""
        quote = self.quote
        key, signature = quote.monitor_key, quote.signature
        try:
            if quote.sign_type == SM2:
                x, y, r, s = (
                    int.from_bytes(part, "big") for part in (key[:32], key[32:], signature[:32], signature[32:])
                )
                Sm2Key(x, y).verify(r, s, quote.signed(), user_id=USER_ID)
            else:
                public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\4" + key)
                verify_p256(public, signature, quote.signed())
        except SignatureInvalid:
            raise SignatureInvalid(
                "the enclave's report is not signed by the monitor's key",
                code="report_sig",
                tee=TEE,
                field="signature",
                spec=SPEC,
            ) from None
        except ValueError as error:
            raise MalformedEvidence(
                "the monitor's key is not a point of its curve",
                code="monitor_key",
                tee=TEE,
                field="monitor_key",
                spec=SPEC,
            ) from error

    def bound(self) -> None:
        """The report was made for this nonce and key."""
        if self.report_data is not None:
            check_report_data(TEE, self.report_data, ReportData(self.quote.body.report_data))

    def started_for(self) -> None:
        """CONFIGID is what was expected, in full length."""
        if self.init_data is not None and not hmac.compare_digest(self.init_data, self.quote.body.configid):
            raise BindingMismatch(
                "the enclave was not started with this init data",
                code="init_data_mismatch",
                tee=TEE,
                field="configid",
                expected=self.init_data,
                got=self.quote.body.configid,
                spec="evidence 14",
            )

    def _hash(self, data: bytes) -> bytes:
        return sm3(data) if self.quote.sign_type == SM2 else hashlib.sha256(data).digest()


def _check(name: str, group: str, spec: str = SPEC) -> Check:
    return Check(name, ok=True, spec=spec, group=group)


_TPM = "evidence 6"
STEPS: tuple[Step[Verification], ...] = (
    Step(_check("ak_chain", "attestation key", _TPM), Verification.chain),
    Step(_check("ak_validity", "attestation key", _TPM), Verification.validity),
    Step(_check("ak_root", "attestation key", _TPM), Verification.root),
    Step(
        _check("ak_revocation", "attestation key", _TPM),
        Verification.revoked,
        applies=lambda run: run.revocation is Revocation.REQUIRED,
    ),
    Step(
        _check("quote_sig", "TPM quote", _TPM),
        Verification.tpm_quote,
        tell=lambda run: (None, f"PCRs {list(run.attest.selections[0].pcrs)}, digest {run.attest.pcr_digest.hex()}"),
    ),
    Step(
        _check("monitor_key", "monitor"),
        Verification.monitor,
        tell=lambda run: (run.attest.extra_data.hex(), f"key {run.quote.monitor_key.hex()}"),
    ),
    Step(_check("report_sig", "enclave"), Verification.report),
    Step(
        _check("report_data", "binding", "kbs-protocol 1.5"),
        Verification.bound,
        applies=lambda run: run.report_data is not None,
        tell=lambda run: (run.report_data.value.hex() if run.report_data else None, run.quote.body.report_data.hex()),
    ),
    Step(
        _check("init_data", "binding", "evidence 14"),
        Verification.started_for,
        applies=lambda run: run.init_data is not None,
        tell=lambda run: (run.init_data.hex() if run.init_data else None, run.quote.body.configid.hex()),
    ),
)


def verify(
    evidence: bytes,
    *,
    endorsements: EndorsementSet,
    now: datetime,
    anchors: TrustAnchors,
    revocation: Revocation = Revocation.REQUIRED,
    report_data: ReportData | None = None,
    init_data: bytes | None = None,
    remembered: Remembered | None = None,
    trail: list[Check] | None = None,
) -> VerifiedEvidence:
    """As ``adyton.tee.verify``, for HyperEnclave. ``init_data``: all 64 bytes of CONFIGID."""
    if init_data is not None and len(init_data) != CONFIGID_SIZE:
        raise ValueError("CONFIGID has 64 bytes")
    run = Verification(
        evidence,
        endorsements=endorsements,
        now=now,
        anchors=anchors,
        revocation=revocation,
        report_data=report_data,
        init_data=init_data,
        remembered=remembered,
    )
    walk(STEPS, run, trail)
    known = run.known
    if known is None:
        raise ValueError("not verified")
    unchecked = [
        name
        for name, missing in (
            ("revocation", revocation is Revocation.UNCHECKED_AS_ASKED),
            ("report_data", report_data is None),
            ("init_data", init_data is None),
        )
        if missing
    ]
    claims = _claims(run.quote, run.attest)
    return VerifiedEvidence(
        tee=TEE,
        tee_class="cpu",
        claims=claims,
        coco_claims=claims,  # CoCo has no names for it
        tcb={"tpm_firmware": hex(run.attest.firmware_version)},
        report_data=ReportData(run.quote.body.report_data),
        init_data=run.quote.body.configid,
        root=anchors.kind(known.root, keys.ROOTS),
        root_fingerprint=known.root.hex(),
        checks=done(STEPS, run),
        expires=known.expires,
        expires_first=known.expires_first,
        unchecked=tuple(unchecked),
    )


def show(evidence: bytes) -> dict[str, JsonValue]:
    """What the quote says. Parsed only."""
    quote = HyperEnclaveQuote.parse(evidence)
    return _claims(quote, Attest.parse(quote.attest))


def _claims(quote: HyperEnclaveQuote, attest: Attest) -> dict[str, JsonValue]:
    body = quote.body
    selections: list[JsonValue] = [
        {"bank": selection.bank.name, "pcrs": [*selection.pcrs]} for selection in attest.selections
    ]
    return {
        "sign_type": "sm2" if quote.sign_type == SM2 else "ecdsa-p256",
        "measurement": body.mrenclave.hex(),
        "debug": body.debug,
        "tcb_status": None,
        "platform_id": attest.qualified_signer.hex(),
        "report_data": body.report_data.hex(),
        "init_data": body.configid.hex(),
        "mrenclave": body.mrenclave.hex(),
        "mrsigner": body.mrsigner.hex(),
        "isvprodid": body.isvprodid,
        "isvsvn": body.isvsvn,
        "attributes": body.attributes.hex(),
        "configid": body.configid.hex(),
        "monitor_key": quote.monitor_key.hex(),
        "monitor_measurement": attest.pcr_digest.hex(),
        "monitor_pcrs": selections,
        "tpm_firmware": hex(attest.firmware_version),
        "clock": attest.clock,
        "reset_count": attest.reset_count,
        "restart_count": attest.restart_count,
        "safe": attest.safe,
    }
