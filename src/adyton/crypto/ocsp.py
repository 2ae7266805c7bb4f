"""OCSP answers (RFC 6960): read, and asked whether a certificate is still good. Any endorser's; each is a document.

An answer is believed only if it is signed by the issuer of the certificate in question, or by a responder that this
issuer itself certified for OCSP and whose certificate is valid now; and only between thisUpdate and nextUpdate. There is
no nonce in a stored answer: its freshness is its window. Whether a responder was itself revoked is not looked at (RFC 6960
4.2.2.2.1; the window of its answers bounds the harm).

*Revoked* is for good, so a stale answer says it too. *certificateHold* is refused like any other revocation: whoever
holds a certificate back has a reason.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from adyton.crypto.algorithms import SignatureAlgorithm
from adyton.crypto.chain import Role, is_signed
from adyton.crypto.x509 import BASIC_CONSTRAINTS, KEY_USAGE, Certificate
from adyton.errors import (
    EndorsementError,
    EndorsementExpired,
    EndorsementMalformed,
    EndorsementMissing,
    EndorsementRevoked,
    EndorsementUntrusted,
)
from adyton.wire import der

MAX_SIZE = 64 * 1024
MAX_RESPONSES = 64
MAX_CERTIFICATES = 8
MAX_ANSWERS = 64  # about one certificate; each costs up to nine signatures
SPEC = "RFC 6960"
GOOD = "good"
REVOKED = "revoked"
HOLD = "certificateHold"
UNKNOWN = "unknown"

_EXTENDED_KEY_USAGE = "2.5.29.37"
_KNOWN = frozenset({BASIC_CONSTRAINTS, KEY_USAGE, _EXTENDED_KEY_USAGE})
_HASHES = frozenset(
    {"sha1", "sha256", "sha384", "sha512"}
)  # of names and keys, to find a certificate by; no signatures
_FOREIGN = (
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    OverflowError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    x509.InvalidVersion,
)


@dataclass(frozen=True, slots=True)
class Status:
    """What an answer says of one certificate, which is named by its serial number and two digests of its issuer."""

    serial: int
    hash_name: str
    issuer_name_hash: bytes
    issuer_key_hash: bytes
    status: str  # GOOD, REVOKED, HOLD or UNKNOWN
    reason: str | None
    this_update: datetime
    next_update: datetime

    def is_about(self, certificate: Certificate, issuer: Certificate) -> bool:
        """Whether ``certificate``, which ``issuer`` issued, is meant."""
        if certificate.serial != self.serial:
            return False
        name = hashlib.new(self.hash_name, _sequence(issuer.subject)).digest()
        key = hashlib.new(self.hash_name, _key_bits(issuer)).digest()
        return name == self.issuer_name_hash and key == self.issuer_key_hash


class Answer:
    """One signed answer. ``signed`` are the bytes that ``signature`` is over, ``algorithm`` as in ``Certificate``."""

    def __init__(self, encoded: bytes) -> None:
        """From exactly one DER OCSPResponse that is an answer (not an error), or ``EndorsementMalformed``."""
        if len(encoded) > MAX_SIZE:
            raise _malformed(f"larger than {MAX_SIZE} bytes")
        try:
            der.only(encoded, der.SEQUENCE)
            parsed = ocsp.load_der_ocsp_response(encoded)
            if parsed.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
                raise _malformed("the responder answered with an error", got=parsed.response_status.name)
            self.algorithm = _algorithm(encoded)
            self.signed = parsed.tbs_response_bytes
            self.signature = parsed.signature
            self.produced_at: datetime = parsed.produced_at_utc
            self.critical = tuple(item.oid.dotted_string for item in parsed.extensions if item.critical)
            responses = list(parsed.responses)
            certificates = list(parsed.certificates)
            if len(responses) > MAX_RESPONSES or len(certificates) > MAX_CERTIFICATES:
                raise _malformed("too many answers or certificates in one")
            self.statuses = tuple(_status(single) for single in responses)
            encoded_certificates = [item.public_bytes(Encoding.DER) for item in certificates]
        except _FOREIGN as error:
            raise _malformed("it cannot be read") from error
        self.certificates = tuple(Certificate(item) for item in encoded_certificates)
        self.der = encoded
        self.digest = hashlib.sha256(encoded).digest()

    def about(self, certificate: Certificate, issuer: Certificate) -> Status | None:
        """What it says of ``certificate``; ``None`` if nothing."""
        return next((status for status in self.statuses if status.is_about(certificate, issuer)), None)

    def is_signed_by(self, key_holder: Certificate, algorithms: Sequence[SignatureAlgorithm]) -> bool:
        """Whether this certificate's key signed it, with one of the format's algorithms, which it must name as well."""
        return any(
            self.algorithm in algorithm.identifiers
            and algorithm.verifies(key_holder.public_key, self.signature, self.signed)
            for algorithm in algorithms
        )


@dataclass(frozen=True, slots=True)
class Fresh:
    """A good answer that holds now: what it says, and every span of time that this rests on."""

    status: Status
    lifetimes: tuple[tuple[datetime, datetime], ...]


def check_good(
    certificate: Certificate,
    issuer: Certificate,
    answers: Sequence[Answer],
    now: datetime,
    *,
    whose: Role,
    algorithms: Sequence[SignatureAlgorithm],
) -> Fresh:
    """``issuer`` says by a fresh answer that ``certificate`` is good; else an ``EndorsementError``.

    ``whose`` is the certificate's role. No answer at all is ``revocation_unknown``: nothing is known then.
    """
    named = [(answer, said) for answer in answers if (said := answer.about(certificate, issuer)) is not None]
    if not named:
        raise EndorsementMissing(
            f"nobody can say whether the {whose.name} certificate is revoked: no OCSP answer about it was given",
            code="revocation_unknown",
            tee=whose.tee,
            field=whose.name,
            expected=f"an OCSP answer about serial number {certificate.serial:#x} of {issuer.common_name}",
            spec=whose.spec,
            hint="give the responder's answer among the endorsements, or say that revocation is not to be checked",
        )
    if len(named) > MAX_ANSWERS:  # refused, not cut: any of them may say that it is revoked
        raise _error(
            EndorsementMalformed, "too_many", "too many answers about it", whose, expected=MAX_ANSWERS, got=len(named)
        )
    fresh: list[Fresh] = []
    failures: list[EndorsementError] = []
    for answer, said in sorted(named, key=lambda pair: pair[0].digest):
        try:
            responder = _responder(answer, issuer, algorithms, whose)
            if said.status == REVOKED:
                raise _revoked(said, whose)
            fresh.append(_fresh(said, responder, now, whose))
        except EndorsementRevoked:
            raise
        except EndorsementError as error:
            failures.append(error)
    if not fresh:
        raise failures[0]
    for found in fresh:
        if found.status.status == HOLD:
            raise _revoked(found.status, whose)
    good = [found for found in fresh if found.status.status == GOOD]
    if not good:
        raise EndorsementMissing(
            f"the responder does not know the {whose.name} certificate",
            code="revocation_unknown",
            tee=whose.tee,
            field=whose.name,
            expected=GOOD,
            got=UNKNOWN,
            spec=whose.spec,
        )
    return max(good, key=lambda found: found.status.next_update)


def _responder(
    answer: Answer, issuer: Certificate, algorithms: Sequence[SignatureAlgorithm], whose: Role
) -> Certificate | None:
    """Who signed: ``None`` for the issuer itself, else the certificate of its delegate (RFC 6960 4.2.2.2)."""
    if answer.critical:
        raise _error(EndorsementMalformed, "profile", "a critical extension that is unknown here", whose)
    if answer.is_signed_by(issuer, algorithms):
        return None
    for certificate in answer.certificates:
        if not answer.is_signed_by(certificate, algorithms):
            continue
        if not any(
            certificate.algorithm in algorithm.identifiers and is_signed(certificate, issuer, algorithm)
            for algorithm in algorithms
        ):
            raise _error(
                EndorsementUntrusted,
                "responder",
                "its responder was not certified by the issuer of the certificate in question",
                whose,
                expected=issuer.common_name,
                got=certificate.common_name[:80],
            )
        _, usages = certificate.extensions.get(_EXTENDED_KEY_USAGE, (False, None))
        usage = certificate.key_usage
        if (
            not isinstance(usages, x509.ExtendedKeyUsage)
            or ExtendedKeyUsageOID.OCSP_SIGNING not in usages
            or (usage is not None and not usage.digital_signature)
            or any(critical and oid not in _KNOWN for oid, (critical, _) in certificate.extensions.items())
        ):
            raise _error(EndorsementUntrusted, "responder", "its responder's certificate is not one for OCSP", whose)
        return certificate
    raise _error(
        EndorsementUntrusted, "sig", "its signature does not verify under the issuer's or a delegate's key", whose
    )


def _fresh(said: Status, responder: Certificate | None, now: datetime, whose: Role) -> Fresh:
    if not said.this_update <= now <= said.next_update:
        raise _error(
            EndorsementExpired,
            "validity",
            "it is not fresh",
            whose,
            expected=f"{_time(said.this_update)} to {_time(said.next_update)}",
            got=_time(now),
        )
    lifetimes = [(said.this_update, said.next_update)]
    if responder is not None:
        if not responder.not_before <= now <= responder.not_after:
            raise _error(
                EndorsementExpired,
                "responder_validity",
                "its responder's certificate is not valid now",
                whose,
                expected=f"{_time(responder.not_before)} to {_time(responder.not_after)}",
                got=_time(now),
            )
        lifetimes.append((responder.not_before, responder.not_after))
    return Fresh(said, tuple(lifetimes))


def _revoked(said: Status, whose: Role) -> EndorsementError:
    held = said.status == HOLD
    return whose.error(
        EndorsementRevoked,
        "held" if held else "revoked",
        "put on hold by its issuer" if held else "revoked by its issuer",
        expected=GOOD,
        got=f"{said.reason or REVOKED}, serial number {said.serial:#x}, said at {_time(said.this_update)}",
        hint="a certificate on hold is refused until its issuer releases it" if held else None,
    )


def _error(
    kind: type[EndorsementError],
    code: str,
    message: str,
    whose: Role,
    *,
    expected: object = None,
    got: object = None,
) -> EndorsementError:
    return kind(
        f"the OCSP answer about the {whose.name} certificate: {message}",
        code=f"ocsp_{code}",
        tee=whose.tee,
        field=whose.name,
        expected=expected,
        got=got,
        spec=SPEC,
        hint="fetch a current answer from the responder that the certificate names",
    )


def _status(single: ocsp.OCSPSingleResponse) -> Status:
    name = single.hash_algorithm.name
    next_update = single.next_update_utc
    if name not in _HASHES:
        raise ValueError("a digest that is not used here")
    if next_update is None:
        raise ValueError("an answer without nextUpdate could never become stale")
    reason = single.revocation_reason.value if single.revocation_reason is not None else None
    status = {
        ocsp.OCSPCertStatus.GOOD: GOOD,
        ocsp.OCSPCertStatus.REVOKED: HOLD if reason == HOLD else REVOKED,
        ocsp.OCSPCertStatus.UNKNOWN: UNKNOWN,
    }[single.certificate_status]
    return Status(
        serial=single.serial_number,
        hash_name=name,
        issuer_name_hash=single.issuer_name_hash,
        issuer_key_hash=single.issuer_key_hash,
        status=status,
        reason=reason,
        this_update=single.this_update_utc,
        next_update=next_update,
    )


def _algorithm(encoded: bytes) -> bytes:
    """The content of the AlgorithmIdentifier in OCSPResponse { status, [0] { type, OCTET STRING { { data, it, … }."""
    _, wrapped = der.children(der.only(encoded, der.SEQUENCE))
    _, octets = der.children(der.only(wrapped.content, der.SEQUENCE))
    parts = der.children(der.only(octets.content, der.SEQUENCE))
    if not 3 <= len(parts) <= 4 or parts[1].tag != der.SEQUENCE:
        raise ValueError("not a basic OCSP response")
    return parts[1].content


def _key_bits(certificate: Certificate) -> bytes:
    """The bits of the subject's public key: what an issuer's key hash is over."""
    encoded = certificate.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return der.children(der.only(encoded, der.SEQUENCE))[1].content[1:]


def _sequence(content: bytes) -> bytes:
    """A DER SEQUENCE with this content."""
    size = len(content)
    if size < 0x80:
        return bytes((der.SEQUENCE, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((der.SEQUENCE, 0x80 | len(length))) + length + content


def _time(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def _malformed(reason: str, got: object = None) -> EndorsementMalformed:
    return EndorsementMalformed(
        f"not an OCSP answer: {reason}", code="ocsp_malformed", field="ocsp", got=got, spec=SPEC
    )
