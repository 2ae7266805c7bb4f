"""The JSON form of Secure Execution evidence that Confidential Containers sends (``kbs-protocol`` 2.4, ``se``).

Seven members, each standard base64. Two of them, ``encr_measurement_key`` and ``encr_request_nonce``, are the verifier's own
secrets as it sent them out in its challenge: whatever comes back is compared with what was sent, never believed.
"""

from __future__ import annotations

import msgspec

from adyton.errors import MalformedEvidence
from adyton.rats.types import JsonValue
from adyton.tee.se.header import SPEC, TEE, HeaderTags, malformed
from adyton.wire import b64, strict_json

MAX_SIZE = 256 * 1024
NAMES = (
    *("measurement", "additional_data", "user_data", "cuid"),
    *("encr_measurement_key", "encr_request_nonce", "image_hdr_tags"),
)


class _Evidence(msgspec.Struct, forbid_unknown_fields=True):
    measurement: str
    additional_data: str
    user_data: str
    cuid: str
    encr_measurement_key: str
    encr_request_nonce: str
    image_hdr_tags: str


_DECODER = msgspec.json.Decoder(_Evidence)


class Response(msgspec.Struct, frozen=True):
    """What firmware answered, in either form of evidence.

    ``tags`` are the guest's word (JSON only), ``request`` is the request that was answered (exchange file only), ``sealed``
    the measurement key and nonce as the challenge had them (JSON only).
    """

    measurement: bytes
    additional_data: bytes
    user_data: bytes
    cuid: bytes
    tags: HeaderTags | None = None
    sealed: tuple[bytes, bytes] | None = None
    request: bytes | None = None


def parse(data: bytes) -> Response:
    """Read it, or ``MalformedEvidence``."""
    if len(data) > MAX_SIZE:
        raise MalformedEvidence(
            "evidence is too large", code="evidence_too_large", tee=TEE, expected=MAX_SIZE, got=len(data), spec=SPEC
        )
    try:
        fields = _DECODER.decode(data)
        if data.count(b'"') != 4 * len(NAMES):  # each has a name and a value; base64 has no quotation mark
            raise ValueError("an object has two members of the same name")
        decode = b64.decode
        measurement, additional, user_data, cuid, key, nonce, tags = (
            decode(fields.measurement),
            decode(fields.additional_data),
            decode(fields.user_data),
            decode(fields.cuid),
            decode(fields.encr_measurement_key),
            decode(fields.encr_request_nonce),
            decode(fields.image_hdr_tags),
        )
    except strict_json.UNREADABLE as error:
        raise MalformedEvidence(
            f"not Secure Execution evidence in JSON: {str(error)[:200]}", code="json_malformed", tee=TEE, spec=SPEC
        ) from error
    return check_sizes(Response(measurement, additional, user_data, cuid, HeaderTags.parse(tags), (key, nonce)))


def check_sizes(response: Response) -> Response:
    """The same, or ``MalformedEvidence``: measurement 64 bytes, uid 16, user data at most 256, additional data 0x8000."""
    for name, value, expected, good in (
        ("measurement", response.measurement, "64", len(response.measurement) == 64),
        ("cuid", response.cuid, "16", len(response.cuid) == 16),
        ("user_data", response.user_data, "at most 256", len(response.user_data) <= 256),
        ("additional_data", response.additional_data, "at most 32768", len(response.additional_data) <= 0x8000),
    ):
        if not good:
            raise malformed("evidence", "has a part of the wrong length", name, expected, len(value))
    return response


def to_json(response: Response) -> dict[str, JsonValue]:
    """The JSON form; ``ValueError`` if tags or sealed secrets are missing."""
    if response.tags is None or response.sealed is None:
        raise ValueError("the JSON form has image header tags and the challenge's secrets")
    values = (
        *(response.measurement, response.additional_data, response.user_data, response.cuid),
        *(*response.sealed, response.tags.encode()),
    )
    return {name: b64.encode(value) for name, value in zip(NAMES, values, strict=True)}
