"""What an endorser answered: kept byte for byte, and read far enough to know what it is and how long it is good.

Nothing is trusted by being here: who signed, and whether that leads to a pinned root, is verification's business. But what
is not what was asked for, cannot be read, or was not signed by the issuer that came with it, is refused before it is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256

from cryptography.x509 import ocsp

from adyton.collateral import signers
from adyton.collateral.wanted import (
    ENCLAVES,
    AmdChain,
    AmdCrl,
    AmdVcek,
    AzureThim,
    IntelEvaluationNumbers,
    IntelIdentity,
    IntelPck,
    IntelPckCrl,
    IntelRootCrl,
    IntelTcbInfo,
    NvidiaOcsp,
    NvidiaRim,
    Wanted,
)
from adyton.crypto.ocsp import Answer
from adyton.crypto.x509 import MAX_SIZE, Certificate, Crl, EndorsementSet
from adyton.errors import EndorsementError, EndorsementMalformed
from adyton.tee.snp.abi import SigningKey
from adyton.tee.snp.endorsements import is_leaf, read_leaf
from adyton.wire import strict_json

MAX_CHAIN = 64 * 1024
Order = tuple[int, datetime]


@dataclass(frozen=True, slots=True)
class Facts:
    """``issued`` and ``expires`` are the endorser's own words; ``None``: it does not say.

    ``order`` places an item among those of its name: CRL number or evaluation data number, then time of issue; ``None``
    for what has no succession. ``signer``: SHA-256 of the SPKI that signed it, where that key is known.
    """

    issued: datetime | None
    expires: datetime | None
    order: Order | None
    signer: bytes | None
    subject: str

    def valid(self, at: datetime) -> bool:
        """Whether ``at`` lies within what the endorser said."""
        return (self.issued is None or self.issued <= at) and (self.expires is None or at <= self.expires)


@dataclass(frozen=True, slots=True)
class Item:
    """One endorsement: ``body`` as verification takes it, ``chain`` its issuers in PEM (may be empty), and where it came from."""

    wanted: Wanted
    body: bytes
    chain: bytes
    url: str
    fetched: datetime
    facts: Facts

    @classmethod
    def read(
        cls,
        wanted: Wanted,
        body: bytes,
        chain: bytes = b"",
        *,
        url: str,
        fetched: datetime,
        known: Iterable[Certificate] = (),
    ) -> Item:
        """Read what came for ``wanted``; ``EndorsementMalformed`` if it is not that. ``known``: who may have signed it."""
        return cls(wanted, body, chain, url, fetched, read(wanted, body, chain, known))

    def endorsements(self) -> EndorsementSet:
        """What verification takes: the item and its issuers."""
        return EndorsementSet.parse([self.body, self.chain] if self.chain else [self.body])


def read(wanted: Wanted, body: bytes, chain: bytes = b"", known: Iterable[Certificate] = ()) -> Facts:
    """What the bytes say of themselves, or ``EndorsementMalformed`` if they are not what ``wanted`` names."""
    if len(body) > MAX_SIZE or len(chain) > MAX_CHAIN:
        raise _not(wanted, "it is larger than any endorsement")
    try:
        issuers = EndorsementSet.parse([chain]).certificates if chain else ()
        facts: Facts = _READERS[type(wanted)](wanted, body, issuers, tuple(known))
        taken = EndorsementSet.parse([body, chain] if chain else [body])
        if any(document != body for document in taken.documents):
            # A bare key among endorsements is a pin, which is the verifier's owner's to set and no server's.
            raise _not(wanted, "a public key stands in it that nobody asked for")
        return facts
    except EndorsementError as error:
        if error.field == wanted.name:
            raise
        raise _not(wanted, error.message) from error
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise _not(wanted, str(error) or type(error).__name__) from error


_Certificates = tuple[Certificate, ...]
_CRL_ISSUERS: dict[type, str] = {IntelRootCrl: "SGX Root CA", IntelPckCrl: "SGX PCK "}


def _crl(
    wanted: AmdCrl | IntelRootCrl | IntelPckCrl, body: bytes, issuers: _Certificates, known: _Certificates
) -> Facts:
    crl = Crl(body)
    name = f"ARK-{wanted.product.value}" if isinstance(wanted, AmdCrl) else _CRL_ISSUERS[type(wanted)]
    if name.encode() not in crl.issuer:
        raise _not(wanted, "it is the CRL of another issuer")
    signer = signers.of_crl(crl, (*issuers, *known))
    if isinstance(wanted, IntelPckCrl):
        if not any(certificate.spki_fingerprint == signer for certificate in issuers):
            raise _not(wanted, "the CRL is not signed by the issuer that came with it")
        name = next(c.common_name for c in issuers if c.spki_fingerprint == signer)
        if wanted.ca not in name.lower():
            raise _not(wanted, f"it is the CRL of {name[:60]!r}")
    return Facts(crl.this_update, crl.next_update, (crl.number or 0, crl.this_update), signer, f"{len(crl)} entries")


def _vcek(wanted: AmdVcek, body: bytes, _issuers: _Certificates, known: _Certificates) -> Facts:
    certificate = Certificate(body)
    leaf = read_leaf(certificate)
    levels = leaf.tcb if wanted.fmc is not None else leaf.tcb[1:]
    if (leaf.kind, leaf.product, leaf.hardware_id, levels) != (
        SigningKey.VCEK, wanted.product, wanted.chip_id, wanted.levels,
    ):  # fmt: skip
        raise _not(wanted, "it is the certificate of another chip or another TCB")
    signer = signers.of_certificate(certificate, known)
    return Facts(certificate.not_before, certificate.not_after, None, signer, leaf.product_name)


def _amd_chain(wanted: AmdChain, body: bytes, _issuers: _Certificates, _known: _Certificates) -> Facts:
    certificates = EndorsementSet.parse([body]).certificates
    middle = f"SEV-{'VLEK-' if wanted.key == 'vlek' else ''}{wanted.product.value}"
    if [certificate.common_name for certificate in certificates] != [middle, f"ARK-{wanted.product.value}"]:
        raise _not(wanted, "it is not the intermediate and the root of that product")
    return _several(certificates, signers.of_certificate(certificates[0], certificates[1:]))


def _pck(wanted: IntelPck, body: bytes, issuers: _Certificates, _known: _Certificates) -> Facts:
    certificates = EndorsementSet.parse([body]).certificates
    if len(certificates) != 1:
        raise _not(wanted, "it is not one certificate")
    signer = signers.of_certificate(certificates[0], issuers)
    if signer is None:
        raise _not(wanted, "the certificate is not signed by the issuer that came with it")
    return _several(certificates, signer)


def _thim(wanted: AzureThim, body: bytes, _issuers: _Certificates, _known: _Certificates) -> Facts:
    certificates = EndorsementSet.parse([body]).certificates
    if len(certificates) < 3 or not is_leaf(certificates[0]):
        raise _not(wanted, "it is not a VCEK with its chain")
    signer = signers.of_certificate(certificates[0], certificates[1:])
    return _several(certificates, signer, read_leaf(certificates[0]).product_name)


def _several(certificates: _Certificates, signer: bytes | None, subject: str = "") -> Facts:
    begin = max(certificate.not_before for certificate in certificates)
    end = min(certificate.not_after for certificate in certificates)
    return Facts(begin, end, None, signer, subject or ", ".join(c.common_name for c in certificates))


def _tcb_info(wanted: IntelTcbInfo, body: bytes, issuers: _Certificates, _known: _Certificates) -> Facts:
    inner = _signed(wanted, body, "tcbInfo", issuers)
    number = _evaluation_number(wanted.edition, inner)
    if str(inner["fmspc"]).lower() != wanted.fmspc.hex():
        raise _not(wanted, "it is of another FMSPC")
    if str(inner.get("id", "SGX")).lower() != wanted.tee:
        raise _not(wanted, "it is of another TEE")
    levels = inner["tcbLevels"]
    if not isinstance(levels, list) or not levels:
        raise _not(wanted, "it has no TCB levels")
    return _dated(inner, number, issuers, f"evaluation {number}, {len(levels)} levels")


def _identity(wanted: IntelIdentity, body: bytes, issuers: _Certificates, _known: _Certificates) -> Facts:
    inner = _signed(wanted, body, "enclaveIdentity", issuers)
    number = _evaluation_number(wanted.edition, inner)
    if inner["id"] != ENCLAVES[wanted.enclave]:
        raise _not(wanted, "it is of another enclave")
    return _dated(inner, number, issuers, f"evaluation {number}")


def _evaluation_numbers(
    wanted: IntelEvaluationNumbers, body: bytes, issuers: _Certificates, _known: _Certificates
) -> Facts:
    inner = _signed(wanted, body, "tcbEvaluationDataNumbers", issuers)
    if str(inner["id"]).lower() != wanted.tee or not isinstance(inner["tcbEvalNumbers"], list):
        raise _not(wanted, "it is of another TEE")
    return _dated(inner, 0, issuers, f"{len(inner['tcbEvalNumbers'])} numbers")


def _signed(wanted: Wanted, body: bytes, member: str, issuers: _Certificates) -> dict[str, object]:
    outer = strict_json.parse(body, max_size=MAX_SIZE)
    if not isinstance(outer, dict) or set(outer) != {member, "signature"} or not isinstance(outer[member], dict):
        raise _not(wanted, f"it is not {member} with its signature")
    if not issuers:
        raise _not(wanted, "its issuer chain did not come with it")
    if not signers.signed_document(body, member, outer["signature"], issuers[0]):
        raise _not(wanted, "it is not signed by the issuer that came with it")
    inner: dict[str, object] = outer[member]
    return inner


def _evaluation_number(edition: str, inner: Mapping[str, object]) -> int:
    number = inner["tcbEvaluationDataNumber"]
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 1 << 31:
        raise ValueError("its evaluation data number is no number")
    if edition.isdigit() and int(edition) != number:
        raise ValueError(f"it has evaluation data number {number}")
    return number


def _dated(inner: Mapping[str, object], number: int, issuers: _Certificates, subject: str) -> Facts:
    issued, expires = _time(inner["issueDate"]), _time(inner["nextUpdate"])
    return Facts(issued, expires, (number, issued), issuers[0].spki_fingerprint, subject)


def _time(value: object) -> datetime:
    if not isinstance(value, str) or not value.endswith("Z"):
        raise ValueError("a date is not RFC 3339 in UTC")
    return datetime.fromisoformat(value).astimezone(UTC)


def _rim(_wanted: NvidiaRim, body: bytes, _issuers: _Certificates, _known: _Certificates) -> Facts:
    if body.lstrip()[:1] != b"<" or b"<!DOCTYPE" in body[:4096] or b"SoftwareIdentity" not in body[:4096]:
        raise ValueError("it is not a SWID manifest")
    return Facts(None, None, None, None, f"sha256 {sha256(body).hexdigest()[:16]}")


def _ocsp(wanted: NvidiaOcsp, body: bytes, _issuers: _Certificates, _known: _Certificates) -> Facts:
    answer = ocsp.load_der_ocsp_response(body)
    if answer.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        raise _not(wanted, f"the responder answers {answer.response_status.name}")
    asked = (wanted.serial, wanted.issuer_name, wanted.issuer_key)
    if (answer.serial_number, answer.issuer_name_hash, answer.issuer_key_hash) != asked:
        raise _not(wanted, "it is about another certificate")
    if answer.next_update_utc is None:
        raise _not(wanted, "an answer without nextUpdate could never become stale")
    issued = answer.this_update_utc
    signer = signers.of_answer(Answer(body))
    return Facts(issued, answer.next_update_utc, (0, issued), signer, answer.certificate_status.name.lower())


_READERS: dict[type, Callable[..., Facts]] = {
    AmdVcek: _vcek,
    AmdChain: _amd_chain,
    AmdCrl: _crl,
    AzureThim: _thim,
    IntelRootCrl: _crl,
    IntelPckCrl: _crl,
    IntelTcbInfo: _tcb_info,
    IntelIdentity: _identity,
    IntelEvaluationNumbers: _evaluation_numbers,
    IntelPck: _pck,
    NvidiaRim: _rim,
    NvidiaOcsp: _ocsp,
}


def _not(wanted: Wanted, why: str) -> EndorsementMalformed:
    return EndorsementMalformed(
        f"what came is not {wanted.name[:120]}: {why}"[:400],
        code="endorsement_unusable",
        field=wanted.name,
        spec="evidence 3.2, 4.2, 11",
        hint="ask another source; nothing of it was kept",
    )
