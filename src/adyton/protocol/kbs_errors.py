"""The error body of CoCo's key broker: ``{"type": "<prefix><Variant>", "detail": "<text>"}`` (kbs-protocol 1.8).

CoCo's client parses both members as required strings on 401 and 404 and fails hard without them, so every error that a
broker answers has this body. ``detail`` is what a stranger may know: one short sentence.
"""

from __future__ import annotations

from enum import Enum

import msgspec

from adyton.wire import strict_json

PREFIX = "https://github.com/confidential-containers/kbs/errors/"
MAX_DETAIL = 500


class Variant(Enum):
    """CoCo's names, those that Adyton uses."""

    ADMIN_AUTH_ACCESS = "AdminAuthAccess"
    ATTESTATION_ERROR = "AttestationError"
    HTTP_FAILED = "HTTPFailed"
    INVALID_REQUEST_PATH = "InvalidRequestPath"
    JWE_ERROR = "JweError"
    PARSE_POLICY_ERROR = "ParsePolicyError"
    PLUGIN_INTERNAL_ERROR = "PluginInternalError"
    PLUGIN_NOT_FOUND = "PluginNotFound"
    POLICY_DENY = "PolicyDeny"
    POLICY_ENGINE_ERROR = "PolicyEngineError"
    RVPS_ERROR = "RvpsError"
    SERDE_ERROR = "SerdeError"
    STORAGE_BACKEND = "StorageBackendInitialization"
    TOKEN_NOT_FOUND = "TokenNotFound"  # noqa: S105 -- a variant's name
    TOKEN_VERIFIER_ERROR = "TokenVerifierError"  # noqa: S105


class ErrorFacts(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an owner is told beside CoCo's two members: the error as our command line prints it."""

    code: str
    message: str
    field: str | None = None
    expected: object = None
    got: object = None
    spec: str | None = None
    hint: str | None = None


class ErrorBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """``type`` is a URI ending in a variant, ``detail`` a sentence; ``error`` comes from our administrative API only."""

    type: str
    detail: str
    error: ErrorFacts | None = None

    @property
    def variant(self) -> str:
        """The last part of ``type``, whoever defined it."""
        return self.type.rpartition("/")[2][:80]


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(ErrorBody)


def encode(variant: Variant, detail: str, error: ErrorFacts | None = None) -> bytes:
    """The body of an error answer; ``detail`` is cut at ``MAX_DETAIL`` characters."""
    return _ENCODER.encode(ErrorBody(PREFIX + variant.value, detail[:MAX_DETAIL], error))


def decode(body: bytes) -> ErrorBody | None:
    """The error in an answer, its detail made printable and cut; ``None`` if the body is not of this form."""
    try:
        error = _DECODER.decode(body)
    except strict_json.UNREADABLE:
        return None
    return ErrorBody(error.type, _printable(error.detail), _facts(error.error))


def _facts(facts: ErrorFacts | None) -> ErrorFacts | None:
    if facts is None:
        return None
    return ErrorFacts(
        code=_printable(facts.code)[:80],
        message=_printable(facts.message),
        **{
            name: _printable(value if isinstance(value, str) else repr(value))
            for name in ("field", "expected", "got", "spec", "hint")
            if (value := getattr(facts, name)) is not None
        },
    )


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text[:MAX_DETAIL])
