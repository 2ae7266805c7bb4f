"""The challenge of CoCo's KBS protocol for Secure Execution: a request in JSON, with its secrets sealed to their author.

The whole JSON is the challenge's ``nonce`` (``kbs-protocol`` 1.3). A verifier that keeps no state hands its secrets to the guest
and gets them back with the evidence. They are sealed with a key of the verifier's own (AES-256-GCM, ``crypto.aead``), so that
only what it sealed itself opens; a public key would let everyone write a measurement key of his choosing. ``context`` ties a
seal to what the caller wants: a tenant, a session.
"""

from __future__ import annotations

import msgspec

from adyton.crypto.aead import KeyRing
from adyton.errors import BindingMismatch, SessionInvalid
from adyton.tee.se import request
from adyton.tee.se.header import SPEC, TEE, HeaderTags
from adyton.tee.se.json_form import Response
from adyton.wire import b64

_KEY, _NONCE = b"se measurement key", b"se request nonce"
MEASUREMENT_SIZE = 64


def seal(secrets: request.RequestSecrets, ring: KeyRing, context: bytes) -> tuple[bytes, bytes]:
    """Measurement key and nonce for the way out and back."""
    return (
        ring.seal(secrets.measurement_key, _KEY + b"\0" + context),
        ring.seal(secrets.nonce, _NONCE + b"\0" + context),
    )


def unseal(response: Response, ring: KeyRing, context: bytes) -> tuple[bytes, bytes]:
    """Measurement key and nonce out of evidence, or ``BindingMismatch`` if this verifier did not seal them for ``context``."""
    if response.sealed is None:
        raise ValueError("this form of evidence carries no sealed secrets")
    try:
        key = ring.open(response.sealed[0], _KEY + b"\0" + context)
        nonce = ring.open(response.sealed[1], _NONCE + b"\0" + context)
    except SessionInvalid as error:
        raise BindingMismatch(
            "the evidence does not answer a request of this verifier",
            code="measurement_key_foreign",
            tee=TEE,
            field="encr_measurement_key, encr_request_nonce",
            spec=SPEC,
            hint="a measurement key that the verifier did not seal itself proves nothing",
        ) from error
    return key, nonce


def encode(encoded_request: bytes, tags: HeaderTags, sealed: tuple[bytes, bytes]) -> bytes:
    """The challenge, JSON; ``MalformedEvidence`` if the request is none."""
    flags = request.AttestationRequest.parse(encoded_request).flags
    return msgspec.json.encode(
        {
            "request_blob": b64.encode(encoded_request),
            "measurement_size": MEASUREMENT_SIZE,
            "additional_size": request.additional_size(flags),
            "encr_measurement_key": b64.encode(sealed[0]),
            "encr_request_nonce": b64.encode(sealed[1]),
            "image_hdr_tags": b64.encode(tags.encode()),
        }
    )
