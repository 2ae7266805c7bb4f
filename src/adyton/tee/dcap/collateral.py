"""Choosing TCB info and QE identity for a platform, and verifying them (evidence 3.3, steps 4 to 6).

Several of each may be given. The one that counts fits best (TEE, FMSPC, PCEID), is fresh, and has the highest evaluation
number; where it stood decides nothing. A document whose signature does not verify is nobody's word and does not count; nor
does one whose signer is not the platform's own root's, while there is one whose signer is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from operator import itemgetter
from typing import NamedTuple

from adyton.crypto.chain import by_preference
from adyton.crypto.ecdsa import is_p256, verify_p256
from adyton.crypto.x509 import Certificate
from adyton.errors import (
    AdytonError,
    EndorsementError,
    EndorsementExpired,
    EndorsementMissing,
    EndorsementUntrusted,
    SignatureInvalid,
)
from adyton.tee.dcap import qe_identity, signed_json, tcb_info
from adyton.tee.dcap.documents import Collateral
from adyton.tee.dcap.endorsements import SERVICE, SIGNER_NAME, Issuer, Life, Span, check_signer, is_issued_by_root
from adyton.tee.dcap.pck import Pck
from adyton.tee.dcap.qe_identity import QeIdentity
from adyton.tee.dcap.signed_json import Head, Signed
from adyton.tee.dcap.tcb_info import TcbInfo
from adyton.tee.remembered import Window

MAX_CANDIDATES = 8
_Fit = Callable[[Head], tuple[bool, bool, bool]]

_TCB_IDS = {"sgx": tcb_info.SGX, "tdx": tcb_info.TDX}
_QE_IDS = {"sgx": qe_identity.QE, "tdx": qe_identity.TD_QE}


class VerifiedCollateral(NamedTuple):
    """TCB info and QE identity that Intel signed and that are fresh. ``span``: of all used.

    ``window``: around all seen; ``None`` where nobody will remember it.
    """

    info: TcbInfo
    identity: QeIdentity
    span: Span
    window: Window | None


class CollateralWalk:
    """The checks over one platform's collateral, in their order."""

    def __init__(
        self,
        tee: str,
        given: Collateral,
        *,
        pck: Pck,
        issuer: Issuer,
        now: datetime,
    ) -> None:
        self._tee = tee
        self._given = given
        self._pck = pck
        self._issuer = issuer
        self._now = now
        self._possible: list[Certificate] | None = None
        self._signers: dict[bytes, list[Life]] = {}
        self._direct: dict[bytes, bool] = {}
        self._lives: list[Life] = []
        self._seen: list[tuple[datetime, datetime]] = []

    # TCB info

    def tcb_info_signature(self) -> None:
        """There is TCB info, and a certificate called TCB Signing has the key that signed it."""
        pck = self._pck
        fmspc, pceid, wanted = pck.fmspc.hex(), pck.pceid.hex(), _TCB_IDS[self._tee]

        def fit(head: Head) -> tuple[bool, bool, bool]:
            return (
                (head.id or tcb_info.SGX) == wanted,
                head.fmspc.lower() == fmspc,
                head.pceId.lower() == pceid,
            )

        url = f"{SERVICE}/{self._tee}/certification/v4/tcb?fmspc={fmspc.upper()}"
        self._info_text, self._info_signer = self._choose(tcb_info.NAME, fit, url)

    def tcb_info_signer(self) -> None:
        """That certificate leads to a trusted root, is valid, and is not revoked."""
        self._check_signer(self._info_signer)

    def tcb_info_validity(self) -> None:
        """The document can be read, and ``issueDate`` ≤ now ≤ ``nextUpdate``."""
        self._info = tcb_info.parse(self._info_text)
        self._check_dates("tcb_info", self._info.issue_date, self._info.next_update, "TCB info", "3.3.4")

    def tcb_info_tee(self) -> None:
        """It is for this type of TEE; version 2 is for SGX alone."""
        self._match("tcb_info_tee", "id", _TCB_IDS[self._tee], self._info.id, "3.3.4")

    def fmspc(self) -> None:
        """It is for the platform family that the PCK certificate names."""
        self._match("fmspc_mismatch", "fmspc", self._pck.fmspc, self._info.fmspc, "3.3.5")

    def pceid(self) -> None:
        """It is for the provisioning enclave that the PCK certificate names."""
        self._match("pceid_mismatch", "pceid", self._pck.pceid, self._info.pceid, "3.3.5")

    # QE identity

    def qe_identity_signature(self) -> None:
        """There is a QE identity, and a certificate called TCB Signing has the key that signed it."""
        wanted = _QE_IDS[self._tee]

        def fit(head: Head) -> tuple[bool, bool, bool]:
            return (head.id == wanted, True, True)

        url = f"{SERVICE}/{self._tee}/certification/v4/qe/identity"
        self._identity_text, self._identity_signer = self._choose(qe_identity.NAME, fit, url)

    def qe_identity_signer(self) -> None:
        """That certificate leads to a trusted root, is valid, and is not revoked."""
        self._check_signer(self._identity_signer)

    def qe_identity_validity(self) -> None:
        """The document can be read, and ``issueDate`` ≤ now ≤ ``nextUpdate``."""
        self._identity = qe_identity.parse(self._identity_text)
        self._check_dates("qe_identity", self._identity.issue_date, self._identity.next_update, "QE identity", "3.3.6")

    def qe_identity_tee(self) -> None:
        """It is of the enclave that quotes for this type of TEE."""
        self._match("qe_identity_tee", "id", _QE_IDS[self._tee], self._identity.id, "3.3.6")

    def done(self, *, to_remember: bool) -> VerifiedCollateral:
        """What was verified. Call it after every step."""
        for lives in self._signers.values():
            self._lives.append(lives[0])
        return VerifiedCollateral(
            self._info, self._identity, Span.of(self._lives), self._window() if to_remember else None
        )  # fmt: skip

    def _window(self) -> Window:
        seen = [(begin, end) for lives in self._signers.values() for begin, end, _ in lives]
        return Window.around(self._now, [*self._seen, *seen])

    def _choose(self, name: str, fit: _Fit, url: str) -> tuple[Signed, Certificate]:
        """The document that counts, and the certificate whose key signed it."""
        code = signed_json.CODES[name]
        candidates = []
        for document in self._given.signed:
            if document.name == name:
                begin, end = document.begin, document.end
                self._seen.append((begin, end))
                rank = (begin <= self._now <= end, document.head.tcbEvaluationDataNumber, begin)
                candidates.append((fit(document.head), rank, document.signature, document))
        if not candidates:
            raise EndorsementMissing(
                f"no {name} is among the endorsements",
                code=f"{code}_missing",
                tee=self._tee,
                field=code,
                spec="evidence 3.2",
                hint=f"{url} has it",
            )
        candidates.sort(key=itemgetter(0, 1, 2), reverse=True)
        best = candidates[0][0]
        fitting = [document for fits, _, _, document in candidates if fits == best][:MAX_CANDIDATES]
        signers = self._possible_signers()
        others: list[tuple[Signed, Certificate]] = []
        for document in fitting:
            for signer in signers:
                if _is_signed(document, signer):
                    if self._is_direct(signer):
                        return document, signer
                    others.append((document, signer))
        if others:
            return others[0]  # whose signer may be another root's, which is told then
        raise self._unsigned(fitting[0], code, signers)

    def _possible_signers(self) -> list[Certificate]:
        """The TCB signing certificates at hand, the valid ones first."""
        if self._possible is not None:
            return self._possible
        found = [item for item in self._given.pool.certificates if SIGNER_NAME in item.common_name]
        if len(found) > 1:
            found.sort(key=lambda item: by_preference(item, self._now))
        self._seen += [(item.not_before, item.not_after) for item in found]
        self._possible = found[:MAX_CANDIDATES]
        return self._possible

    def _unsigned(self, document: Signed, code: str, signers: Sequence[Certificate]) -> AdytonError:
        """What to say when nobody who may have signed the document did."""
        others = [item for item in self._given.pool.certificates if SIGNER_NAME not in item.common_name]
        for other in others[: 2 * MAX_CANDIDATES]:
            if _is_signed(document, other):
                return EndorsementUntrusted(
                    f"{document.name} is signed with the key of a certificate that may not sign it",
                    code=f"{code}_signer_name",
                    tee=self._tee,
                    field=code,
                    expected=SIGNER_NAME,
                    got=other.common_name[:80],
                    spec="evidence 3.3.4",
                    hint="whoever holds a platform's key could otherwise say that the platform is up to date",
                )
        if not signers:
            return EndorsementMissing(
                "no certificate of Intel's TCB signing key is among the endorsements",
                code="tcb_signing_missing",
                tee=self._tee,
                field=code,
                expected=SIGNER_NAME,
                spec="evidence 3.3.4",
                hint="the service sends it with the document, in the header TCB-Info-Issuer-Chain",
            )
        return EndorsementUntrusted(
            f"the signature of {document.name} does not verify",
            code=f"{code}_sig",
            tee=self._tee,
            field=code,
            spec="evidence 3.3.4" if code == "tcb_info" else "evidence 3.3.6",
            hint="it is over the document's bytes exactly as Intel sent them",
        )

    def _check_signer(self, signer: Certificate) -> None:
        if signer.der not in self._signers:  # one certificate signs both documents as a rule
            self._signers[signer.der] = check_signer(
                self._tee, signer, self._issuer, self._given.pool, direct=self._is_direct(signer), now=self._now
            )

    def _is_direct(self, signer: Certificate) -> bool:
        found = self._direct.get(signer.der)
        if found is None:
            found = self._direct[signer.der] = is_issued_by_root(signer, self._issuer)
        return found

    def _check_dates(self, code: str, begin: datetime, end: datetime, name: str, step: str) -> None:
        self._lives.append((begin, end, name))
        if not begin <= self._now <= end:
            raise EndorsementExpired(
                f"{name}: " + ("expired" if self._now > end else "not issued yet"),
                code=f"{code}_validity",
                tee=self._tee,
                field=code,
                expected=f"{written(begin)} to {written(end)}",
                got=written(self._now),
                spec=f"evidence {step}",
                hint="verify as of the evidence's own time, or fetch what is current now",
            )

    def _match(self, code: str, field: str, expected: str | bytes, got: str | bytes, step: str) -> None:
        if expected != got:
            raise EndorsementError(
                f"the collateral is for another platform or TEE: {field}",
                code=code,
                tee=self._tee,
                field=field,
                expected=expected,
                got=got,
                spec=f"evidence {step}",
                hint="give the collateral of this platform",
            )


def _is_signed(document: Signed, certificate: Certificate) -> bool:
    key = certificate.public_key
    if not is_p256(key):
        return False
    try:
        verify_p256(key, document.signature, document.content)
    except SignatureInvalid:
        return False
    return True


def written(moment: datetime) -> str:
    """A moment as Intel writes it."""
    return moment.isoformat().replace("+00:00", "Z")
