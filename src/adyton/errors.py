"""The one error tree. Branches say who must act; leaves exist where callers differ.

::

    AdytonError                 code, message, field, expected, got, spec, hint; never a secret
    ├─ EvidenceError            the attester's side is wrong
    │  ├─ MalformedEvidence       bytes are not that evidence
    │  ├─ UnsupportedEvidence     well-formed, but cannot be verified with what was given
    │  ├─ SignatureInvalid        a signature does not verify
    │  ├─ FreshnessFailed         stale, replayed, or not for this nonce
    │  └─ BindingMismatch         bound to another key, nonce, init data or chip
    ├─ EndorsementError         the endorser's data is wrong
    │  ├─ EndorsementMissing · EndorsementMalformed · EndorsementExpired · EndorsementRevoked · EndorsementUntrusted
    ├─ OwnerError               the owner of a secret or image must act
    │  ├─ PolicyInvalid           a policy that cannot be accepted
    │  ├─ DocumentInvalid         a workload document or reference value that cannot be accepted
    │  ├─ LogBroken               a log of decisions, or a proof about one, is not what was signed
    │  └─ ReleaseRefused          the relying party said no; carries the result
    ├─ RequestError             the peer sent something unusable
    │  ├─ MalformedRequest · SessionInvalid · NotPermitted · NotFound · TooLarge · TooMany · Conflict
    ├─ ImageError               an image is broken, unsupported, or cannot be decrypted
    │  ├─ MalformedImage · DigestMismatch · DecryptionFailed · UnsupportedImage
    ├─ OperatorError            the machine or its configuration must be changed
    │  ├─ ConfigError             a setting or file is wrong; carries its path
    │  └─ PlatformError           the machine lacks something: a package, a capability, space
    └─ Unavailable              network, service, device or store; may be tried again

HTTP status, exit status and the like are tables at the edge, keyed by ``code`` or class; nothing here knows of them.
A programmer's misuse is ``ValueError``, outside the tree.
"""

from __future__ import annotations

from typing import ClassVar


class AdytonError(Exception):
    """Root of every error that leaves a room.

    ``code`` is a stable snake_case name; ``expected`` and ``got`` are short printable values, never secrets;
    ``spec`` names the specification and section that asks for the check; ``hint`` says what to do next.
    """

    default_code: ClassVar[str] = "error"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        tee: str | None = None,
        field: str | None = None,
        expected: object = None,
        got: object = None,
        spec: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.tee = tee
        self.field = field
        self.expected = expected
        self.got = got
        self.spec = spec
        self.hint = hint

    def as_dict(self) -> dict[str, object]:
        """The error as the JSON object that command lines and logs print (no ``None`` is dropped)."""
        return {
            "code": self.code,
            "message": self.message,
            "field": self.field,
            "expected": _printable(self.expected),
            "got": _printable(self.got),
            "spec": self.spec,
            "hint": self.hint,
        }


def _printable(value: object) -> object:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    if isinstance(value, list | tuple | set | frozenset):
        return [_printable(item) for item in value]
    return str(value)


class EvidenceError(AdytonError):
    """The attester's side is wrong."""

    default_code = "evidence_invalid"


class MalformedEvidence(EvidenceError):
    """The bytes are not that evidence. The only error a parser of evidence raises."""

    default_code = "malformed_evidence"


class UnsupportedEvidence(EvidenceError):
    """Well-formed, but cannot be verified with what was given."""

    default_code = "unsupported_evidence"


class SignatureInvalid(EvidenceError):
    """A signature in the evidence does not verify."""

    default_code = "signature_invalid"


class FreshnessFailed(EvidenceError):
    """Stale, replayed, or made for another nonce."""

    default_code = "freshness_failed"


class BindingMismatch(EvidenceError):
    """Bound to another key, nonce, init data, certificate or chip than it must be."""

    default_code = "binding_mismatch"


class EndorsementError(AdytonError):
    """The endorser's data is wrong or missing."""

    default_code = "endorsement_invalid"


class EndorsementMissing(EndorsementError):
    """A certificate or CRL that verification needs was not given."""

    default_code = "endorsement_missing"


class EndorsementMalformed(EndorsementError):
    """A certificate or CRL that cannot be read or breaks the vendor's profile."""

    default_code = "endorsement_malformed"


class EndorsementExpired(EndorsementError):
    """Outside its validity at the time of verification."""

    default_code = "endorsement_expired"


class EndorsementRevoked(EndorsementError):
    """On its issuer's CRL."""

    default_code = "endorsement_revoked"


class EndorsementUntrusted(EndorsementError):
    """Does not lead to a root that is trusted here."""

    default_code = "endorsement_untrusted"


class OwnerError(AdytonError):
    """The owner of the secret, image or policy must act."""

    default_code = "owner_error"


class PolicyInvalid(OwnerError):
    """A policy that cannot be accepted or evaluated."""

    default_code = "policy_invalid"


class DocumentInvalid(OwnerError):
    """A workload document, init data or reference value that cannot be accepted."""

    default_code = "document_invalid"


class LogBroken(OwnerError):
    """A log of decisions is not what it was, or a proof about it does not hold."""

    default_code = "log_broken"


class ReleaseRefused(OwnerError):
    """The relying party said no. ``reasons`` holds every mismatch, for the owner's eyes; ``policies`` what was asked about which ``claims``."""

    default_code = "release_refused"

    def __init__(
        self, message: str, *, reasons: tuple[str, ...] = (), code: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, code=code, hint=hint)
        self.reasons = reasons
        self.policies: tuple[object, ...] = ()
        self.claims: object = None

    def as_dict(self) -> dict[str, object]:
        """As the base, with ``reasons``."""
        return {**super().as_dict(), "reasons": list(self.reasons)}


class RequestError(AdytonError):
    """The peer sent something that cannot be served."""

    default_code = "bad_request"


class MalformedRequest(RequestError):
    """The request cannot be read."""

    default_code = "malformed_request"


class SessionInvalid(RequestError):
    """No session, a forged or expired one, or one of another broker."""

    default_code = "session_invalid"


class NotPermitted(RequestError):
    """The caller may not do this, or may not know whether the thing exists."""

    default_code = "not_permitted"


class NotFound(RequestError):
    """Permitted, and absent."""

    default_code = "not_found"


class TooLarge(RequestError):
    """Over a stated limit of size or depth."""

    default_code = "too_large"


class TooMany(RequestError):
    """Over a stated limit of rate or number; ``retry_after`` in seconds."""

    default_code = "too_many"

    def __init__(self, message: str, *, retry_after: int = 1, code: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, code=code, hint=hint)
        self.retry_after = retry_after


class Conflict(RequestError):
    """The thing exists already, or changed meanwhile."""

    default_code = "conflict"


class ImageError(AdytonError):
    """An image is broken, unsupported or cannot be decrypted."""

    default_code = "image_invalid"


class MalformedImage(ImageError):
    """Manifest, configuration or layer breaks its specification or a limit."""

    default_code = "malformed_image"


class DigestMismatch(ImageError):
    """Content is not what its digest says."""

    default_code = "digest_mismatch"


class DecryptionFailed(ImageError):
    """No key opens it, or its authentication code is wrong."""

    default_code = "decryption_failed"


class UnsupportedImage(ImageError):
    """A media type, platform or scheme that is not supported."""

    default_code = "unsupported_image"


class OperatorError(AdytonError):
    """The machine or its configuration must be changed by whoever runs it."""

    default_code = "operator_error"


class ConfigError(OperatorError):
    """A setting or file is wrong; ``field`` is its path."""

    default_code = "config_invalid"


class PlatformError(OperatorError):
    """The machine lacks something: a package, a capability, a device, space."""

    default_code = "platform_unfit"


class Unavailable(AdytonError):
    """Network, service, device or store did not answer. Trying again may help."""

    default_code = "unavailable"
