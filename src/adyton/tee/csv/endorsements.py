"""From the key that signed a report to Hygon's root: PEK <- CEK <- HSK <- HRK (evidence 10).

HSK and CEK belong to the chip and are published by its serial number; they come with the evidence or as endorsements
(832 + 2084 bytes). The root is a key pinned here, by the SHA-256 of its SubjectPublicKeyInfo like every trust anchor; its
832-byte certificate is not needed. A root of one's own must be given as a certificate, since only its fingerprint is
configured. Hygon publishes neither validity nor revocation: there is nothing to check, and the result says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from adyton.crypto.chain import Role
from adyton.crypto.sm2 import Sm2Key
from adyton.crypto.x509 import EndorsementSet, is_hygon
from adyton.errors import (
    EndorsementError,
    EndorsementMalformed,
    EndorsementMissing,
    EndorsementUntrusted,
    SignatureInvalid,
)
from adyton.rats.types import RootKind, TrustAnchors
from adyton.tee.csv.abi import SM2_SIGNATURE, SPEC, TEE
from adyton.tee.csv.certificate import HygonCertificate, Usage, read, split

KEY_SERVICE = "https://cert.hygon.cn"
MAX_CANDIDATES = 256  # certificates of one usage that are tried, those that the evidence carries first
MAX_SIGNATURES = 300  # of one search, 1.3 ms each

PEK, CEK, HSK, HRK = (Role(TEE, name, SPEC) for name in ("pek", "cek", "hsk", "hrk"))
# Evidence 2: the root in the file whose SHA-256 is 296efa97580464aca0ab5eefe42199ee05862182508d1629f29cf4dc175b10cd.
ROOT_KEY = Sm2Key(
    0xBE62E14D62A4F14CF3D702DB09563A75C80935E785CD1F502AF5F21D92C2F62D,
    0x3BAB123A57BB7015584F8B97164E95384A640C10B9BE884738744D68B41EB946,
)
ROOT_FINGERPRINT = bytes.fromhex("cd0f130d93433c4854b7f2d883c23e281de453f4fde0621c3a07866c52c45b80")
ROOT_ID = bytes.fromhex("3ae86a9701355cce333a589de21583d7")
ROOT_USER = b"HYGON-SSD-HRK"


class Path(NamedTuple):
    """A sound path: every signature on it verifies. ``root`` is ``None`` where the pinned key itself is the root."""

    pek: HygonCertificate
    cek: HygonCertificate
    hsk: HygonCertificate
    root: HygonCertificate | None
    root_fingerprint: bytes

    @property
    def platform(self) -> bytes:
        """SHA-256 of the CEK's public key, 32 bytes: the chip, whatever serial number somebody writes beside it."""
        return self.cek.fingerprint


def trusted(anchors: TrustAnchors) -> frozenset[bytes]:
    """The fingerprints that a root may have."""
    return anchors.among(frozenset({ROOT_FINGERPRINT}))


def root_kind(fingerprint: bytes, anchors: TrustAnchors) -> RootKind:
    """Hygon's own root, or one that its owner answers for."""
    return anchors.kind(fingerprint, frozenset({ROOT_FINGERPRINT}))


def certificates(documents: Iterable[bytes]) -> list[HygonCertificate]:
    """Hygon's certificates among vendors' documents, each once, in an order that does not depend on the given one."""
    encoded = {part for document in documents if is_hygon(document) for part in split(document)}
    return [read(part) for part in sorted(encoded)]


def check_pek(pek: HygonCertificate) -> None:
    """The key that signs reports: its usage and algorithm."""
    _check(pek, PEK, Usage.PEK)


def find(pek: HygonCertificate, given: list[HygonCertificate], anchors: TrustAnchors, *, serial: str | None) -> Path:
    """The best path from ``pek``: one that ends in a trusted root if there is one, else any sound one.

    Raises what is wrong with the most likely path: ``EndorsementMissing``, ``EndorsementMalformed`` or
    ``EndorsementUntrusted``. Whether the root is trusted is for the caller to check.
    """
    search = _Search(given, serial)
    pins = trusted(anchors)
    other = None
    for found in search.paths(pek, vendor=anchors.vendor):
        if found.root_fingerprint in pins:
            return found
        other = other or found
    if other is None:
        raise search.failures[0]
    return other


def check_root(path: Path, anchors: TrustAnchors) -> None:
    """The root's key is pinned, or ``EndorsementUntrusted``."""
    pins = trusted(anchors)
    if path.root_fingerprint not in pins:
        raise HRK.error(
            EndorsementUntrusted,
            "untrusted",
            "its key is not a trusted one, whatever it calls itself",
            expected=sorted(pin.hex() for pin in pins),
            got=path.root_fingerprint,
            hint="a root of one's own is trusted only where its fingerprint is configured",
        )


class _Search:
    """One search, with a budget of signatures: hostile certificates must not keep us computing."""

    def __init__(self, given: list[HygonCertificate], serial: str | None) -> None:
        self.failures: list[EndorsementError] = []
        self._given = given
        self._serial = serial
        self._budget = MAX_SIGNATURES

    def paths(self, pek: HygonCertificate, *, vendor: bool) -> Iterator[Path]:
        for cek in self._issuers(pek, PEK, Usage.CEK, CEK, b""):
            for hsk in self._issuers(cek, CEK, Usage.HSK, HSK, cek.issuer_id):
                if vendor and hsk.issuer_id == ROOT_ID and self._signed_by_pinned(hsk):
                    yield Path(pek, cek, hsk, None, ROOT_FINGERPRINT)
                    continue
                for root in self._issuers(hsk, HSK, Usage.HRK, HRK, hsk.issuer_id):
                    if self._signed(root, root):
                        yield Path(pek, cek, hsk, root, root.fingerprint)
                    else:
                        self.failures.append(
                            HRK.error(EndorsementUntrusted, "sig", "a root that its own key did not sign")
                        )

    def _issuers(
        self, certificate: HygonCertificate, role: Role, usage: Usage, issuer_role: Role, key_id: bytes
    ) -> Iterator[HygonCertificate]:
        """Those that signed it, among the given ones of this usage and, where the certificate names one, key id."""
        found = [own for own in self._given if own.usage == usage and (not key_id or own.key_id == key_id)]
        if not found:
            self.failures.append(self._missing(issuer_role))
            return
        signed = False
        for issuer in found[:MAX_CANDIDATES]:
            try:
                _check(issuer, issuer_role, usage)
            except EndorsementMalformed as error:
                self.failures.append(error)
                continue
            if self._signed(certificate, issuer):
                signed = True
                yield issuer
        if not signed:
            self.failures.append(
                role.error(
                    EndorsementUntrusted,
                    "sig",
                    f"its signature does not verify under the {issuer_role.name.upper()} that was given",
                    hint="HSK and CEK are those of one chip: they must be of the chip that made the report",
                )
            )

    def _signed(self, certificate: HygonCertificate, issuer: HygonCertificate) -> bool:
        self._budget -= 1
        return self._budget >= 0 and certificate.signed_by(issuer)

    def _signed_by_pinned(self, hsk: HygonCertificate) -> bool:
        self._budget -= 1
        if self._budget < 0:
            return False
        (slot,) = hsk.slots
        try:
            ROOT_KEY.verify(slot.r, slot.s, hsk.signed, user_id=ROOT_USER)
        except SignatureInvalid:
            self.failures.append(
                HSK.error(EndorsementUntrusted, "sig", "its signature does not verify under Hygon's root key")
            )
            return False
        return True

    def _missing(self, role: Role) -> EndorsementMissing:
        hint = "give the root's certificate (832 bytes) with the endorsements"
        if role is not HRK:
            number = self._serial or "<the chip's serial number>"
            hint = f"{KEY_SERVICE}/hsk_cek?snumber={number} has the chip's HSK and CEK"
        error: EndorsementMissing = role.error(  # type: ignore[assignment]  # of the kind that is asked for
            EndorsementMissing, "missing", "not in the evidence nor among the given endorsements", hint=hint
        )
        return error


def _check(certificate: HygonCertificate, role: Role, usage: Usage) -> None:
    if certificate.usage != usage or certificate.algorithm != SM2_SIGNATURE:
        raise role.error(
            EndorsementMalformed,
            "usage",
            "its key is for something else",
            expected=f"usage {usage:#x}, algorithm {SM2_SIGNATURE} (SM2 signature)",
            got=f"usage {certificate.usage:#x}, algorithm {certificate.algorithm}",
        )


def of(endorsements: EndorsementSet, carried: bytes) -> list[HygonCertificate]:
    """Hygon's certificates among the endorsements and those that the evidence carries (HSK and CEK, or nothing)."""
    own = certificates([carried])
    return own + [other for other in certificates(endorsements.documents) if other not in own]
