"""Walking a chain of certificates: one check a function, for any TEE. Each raises an ``EndorsementError`` or is silent.

``cryptography.x509.verification`` refuses AMD's RSA-PSS chains, and what it has besides looks at names and signature
only. The caller owes all of: signature, validity, CA constraints, key usage, critical extensions, revocation
and the pinned root (evidence 1, rules 9 to 12); ``tee/*/endorsements.py`` composes them.

A role (``leaf``, ``intermediate``, ``root``) names the certificate in the error's code: ``leaf_sig``, ``root_validity``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric import rsa

from adyton.crypto.algorithms import RSA_PSS_SHA384, SignatureAlgorithm
from adyton.crypto.x509 import Certificate, Crl
from adyton.errors import (
    EndorsementError,
    EndorsementExpired,
    EndorsementMalformed,
    EndorsementMissing,
    EndorsementRevoked,
    EndorsementUntrusted,
)

RSA_BITS = 4096
MAX_CRLS = 64  # of one issuer's name; each costs a signature


@dataclass(frozen=True, slots=True)
class Role:
    """Which certificate of which TEE's chain, for errors; ``spec`` is the section that asks for the checks."""

    tee: str
    name: str
    spec: str

    def error(
        self,
        kind: type[EndorsementError],
        code: str,
        message: str,
        *,
        expected: object = None,
        got: object = None,
        hint: str | None = None,
    ) -> EndorsementError:
        """An error about this certificate."""
        return kind(
            f"{self.name}: {message}",
            code=f"{self.name}_{code}",
            tee=self.tee,
            field=self.name,
            expected=expected,
            got=got,
            spec=self.spec,
            hint=hint,
        )


def by_preference(certificate: Certificate, now: datetime) -> tuple[bool, bytes]:
    """Sort key among certificates that fit equally well: the valid ones first, then by content, never by place.

    So a verdict depends on what was given and not on its order.
    """
    return (not certificate.not_before <= now <= certificate.not_after, certificate.digest)


def check_validity(certificate: Certificate, now: datetime, role: Role) -> None:
    """Begun, and not ended: notBefore ≤ now ≤ notAfter."""
    if not certificate.not_before <= now <= certificate.not_after:
        late = now > certificate.not_after
        raise role.error(
            EndorsementExpired,
            "validity",
            "expired" if late else "not valid yet",
            expected=f"{_time(certificate.not_before)} to {_time(certificate.not_after)}",
            got=_time(now),
            hint="verify as of the evidence's own time, or fetch the endorsements that are current now",
        )


def check_pss_sha384(item: Certificate | Crl, role: Role) -> None:
    """RSASSA-PSS with SHA-384, MGF1 with SHA-384, salt of 48 bytes: the algorithm is the format's, not the file's."""
    check_algorithm(item, role, (RSA_PSS_SHA384,))


def check_algorithm(item: Certificate | Crl, role: Role, allowed: Sequence[SignatureAlgorithm]) -> SignatureAlgorithm:
    """The one of ``allowed`` that signed ``item``, by what it names: the format's choice, never the file's alone."""
    for algorithm in allowed:
        if item.algorithm in algorithm.identifiers:
            return algorithm
    raise role.error(
        EndorsementMalformed,
        "sig_algorithm",
        "not signed with the algorithm of this format",
        expected=" or ".join(algorithm.name for algorithm in allowed),
        got=item.algorithm[:80],
    )


def check_rsa_4096(certificate: Certificate, role: Role) -> None:
    """An RSA key of 4096 bits with exponent 65537. Also keeps strangers from making us compute with monstrous keys."""
    key = certificate.public_key
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size != RSA_BITS or key.public_numbers().e != 65537:
        raise role.error(
            EndorsementMalformed,
            "key",
            "not a key of this format",
            expected="RSA 4096, e 65537",
            got=f"RSA {key.key_size}" if isinstance(key, rsa.RSAPublicKey) else type(key).__name__,
        )


def is_signed_pss_sha384(certificate: Certificate, issuer: Certificate) -> bool:
    """Whether names fit and the signature verifies with the format's algorithm, which the file must name as well.

    Everything else about ``issuer`` is still to be checked. ``check_pss_sha384`` says what the file names.
    """
    return is_signed(certificate, issuer, RSA_PSS_SHA384)


def is_signed(certificate: Certificate, issuer: Certificate, algorithm: SignatureAlgorithm) -> bool:
    """Whether names fit and the signature verifies under ``issuer``'s key with this algorithm, and no other."""
    return certificate.issuer == issuer.subject and algorithm.verifies(
        issuer.public_key, certificate.signature, certificate.signed
    )


def check_signed_pss_sha384(certificate: Certificate, issuer: Certificate, role: Role) -> None:
    """As ``is_signed_pss_sha384``, or ``EndorsementUntrusted``."""
    if not is_signed_pss_sha384(certificate, issuer):
        raise role.error(EndorsementUntrusted, "sig", "its signature does not verify under its issuer's key")


def check_authority(certificate: Certificate, role: Role, *, below: int) -> None:
    """A CA that may sign certificates, with at most its pathLen of CAs ``below`` it."""
    constraints = certificate.basic_constraints
    usage = certificate.key_usage
    if constraints is None or not constraints.ca or usage is None or not usage.key_cert_sign:
        raise role.error(EndorsementMalformed, "profile", "not a certification authority")
    if constraints.path_length is not None and constraints.path_length < below:
        raise role.error(
            EndorsementMalformed,
            "profile",
            "the chain below it is too long",
            expected=f"at most {constraints.path_length} authorities",
            got=below,
        )


def check_leaf(certificate: Certificate, role: Role) -> None:
    """No CA; where it says what its key is for, it is for signatures."""
    constraints = certificate.basic_constraints
    usage = certificate.key_usage
    if (constraints is not None and constraints.ca) or (usage is not None and not usage.digital_signature):
        raise role.error(EndorsementMalformed, "profile", "its key is not for signing evidence")


def check_critical(certificate: Certificate, role: Role, *, known: frozenset[str]) -> None:
    """No critical extension besides the ``known`` ones, which the caller checks."""
    for oid in certificate.critical_extensions:
        if oid not in known:
            raise role.error(
                EndorsementMalformed,
                "critical_extension",
                "a critical extension that is unknown here",
                got=oid,
            )


def check_revocation(
    certificates: Sequence[tuple[Certificate, Role]],
    authority: Certificate,
    crls: Sequence[Crl],
    now: datetime,
    *,
    role: Role,
    algorithms: Sequence[SignatureAlgorithm] = (RSA_PSS_SHA384,),
) -> Crl:
    """None of ``certificates`` is on a CRL that ``authority`` signed, one of which is fresh; returns that one.

    ``crls`` are those that bear the authority's name. Revocation is for good: an entry on a stale CRL counts too. Without
    a fresh CRL nothing is known, which is an error of its own. ``role`` is the CRL's.
    """
    signed = signed_crls(authority, crls, role=role, algorithms=algorithms)
    check_unlisted(certificates, signed)
    return fresh_crl(signed, crls, authority, now, role=role)


def signed_crls(
    authority: Certificate,
    crls: Sequence[Crl],
    *,
    role: Role,
    algorithms: Sequence[SignatureAlgorithm] = (RSA_PSS_SHA384,),
) -> list[Crl]:
    """Those of ``crls`` that ``authority`` signed and that cover all it issued; for who keeps them for later leaves.

    More than ``MAX_CRLS`` are refused, not cut: an entry on any of them counts.
    """
    if len(crls) > MAX_CRLS:
        raise EndorsementMalformed(
            "too many CRLs of one issuer's name",
            code="crl_too_many",
            tee=role.tee,
            field="crl",
            expected=f"at most {MAX_CRLS}",
            got=len(crls),
            spec=role.spec,
            hint="give each issuer's current CRL",
        )
    return [crl for crl in crls if _signed_crl(crl, authority, role, algorithms)]


def check_unlisted(certificates: Sequence[tuple[Certificate, Role]], signed: Sequence[Crl]) -> None:
    """None of ``certificates`` is on one of the ``signed`` CRLs of their issuer, fresh or stale."""
    for crl in signed:
        for certificate, whose in certificates:
            if crl.lists(certificate):
                raise whose.error(
                    EndorsementRevoked,
                    "revoked",
                    "revoked by its issuer",
                    got=f"serial number {certificate.serial:#x} on the CRL of {_time(crl.this_update)}",
                )


def fresh_crl(signed: Sequence[Crl], crls: Sequence[Crl], authority: Certificate, now: datetime, *, role: Role) -> Crl:
    """The newest of ``signed`` that is fresh, or an error that says what is wrong with ``crls``, which ``signed`` are of."""
    tee, spec = role.tee, role.spec
    fresh = [crl for crl in signed if crl.this_update <= now <= crl.next_update]
    if fresh:
        return fresh[0] if len(fresh) == 1 else max(fresh, key=lambda crl: (crl.next_update, crl.digest))
    if not crls:
        raise EndorsementMissing(
            "nobody can say whether the certificates are revoked: no CRL of their issuer was given",
            code="revocation_unknown",
            tee=tee,
            field="crl",
            expected=f"a CRL of {authority.common_name}, fresh at {_time(now)}",
            spec=spec,
            hint="give the issuer's CRL among the endorsements, or say that revocation is not to be checked",
        )
    if not signed:
        raise EndorsementUntrusted(
            "a CRL bears the issuer's name but not its signature",
            code="crl_sig",
            tee=tee,
            field="crl",
            spec=spec,
        )
    latest = max(signed, key=lambda crl: crl.next_update)
    raise EndorsementExpired(
        "no CRL of the issuer is fresh",
        code="crl_validity",
        tee=tee,
        field="crl",
        expected=f"{_time(latest.this_update)} to {_time(latest.next_update)}",
        got=_time(now),
        spec=spec,
        hint="fetch the issuer's current CRL",
    )


def _signed_crl(crl: Crl, authority: Certificate, role: Role, algorithms: Sequence[SignatureAlgorithm]) -> bool:
    """Whether ``authority`` may sign CRLs, and signed this one, which covers all that it issued."""
    usage = authority.key_usage
    if usage is None or not usage.crl_sign:
        return False
    try:
        algorithm = check_algorithm(crl, role, algorithms)
    except EndorsementMalformed:
        return False
    if not algorithm.verifies(authority.public_key, crl.signature, crl.signed):
        return False
    if crl.critical:  # a delta, or only a part: it could hide an entry
        raise role.error(EndorsementMalformed, "profile", "a critical extension that is unknown here", got=crl.critical)
    return True


def _time(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
