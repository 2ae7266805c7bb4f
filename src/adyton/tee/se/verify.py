"""Whether firmware answered this request, for an image that is accepted, on a machine that is known.

There is no signature (evidence 12): a response is authenticated by a key that only the request's author and firmware know. So verification
needs what the author kept, a ``PendingRequest``; ``verify_response`` takes it. The door that all TEEs share cannot: secrets are
no endorsements, which are written to caches and bundles. It reads the evidence and says what is missing.

**The measurement key never comes from the evidence.** CoCo's JSON carries it, encrypted with a public key of the verifier's:
anybody could encrypt a key of his own choosing there, and calculate a measurement to go with it.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from datetime import datetime

from adyton.crypto.x509 import EndorsementSet
from adyton.errors import BindingMismatch, EvidenceError, SignatureInvalid, UnsupportedEvidence
from adyton.rats.binding import check_report_data
from adyton.rats.types import Check, JsonValue, ReportData, Revocation, TrustAnchors, VerifiedEvidence
from adyton.tee.remembered import Remembered
from adyton.tee.se import json_form, request
from adyton.tee.se.exchange import Exchange
from adyton.tee.se.header import SPEC, TEE, HeaderTags, SeHeader, malformed
from adyton.tee.se.host_key import HostKey
from adyton.tee.se.json_form import Response
from adyton.tee.steps import Step, done, walk

USER_DATA_SIZE = 256
_NO_REPORT_DATA = ReportData(b"\0")


@dataclass(frozen=True, slots=True)
class PendingRequest:
    """What the author of a request keeps until it is answered.

    ``host_keys``: those that it was made for, verified. ``images``: headers of the images that are accepted; empty means that
    the evidence's own word is taken and ``unchecked`` says so. ``encoded``: the request, ``sealed``: measurement key and
    nonce as they went out in a challenge; either is compared where the evidence has it.
    """

    measurement_key: bytes = field(repr=False)
    nonce: bytes = field(repr=False)
    host_keys: tuple[HostKey, ...]
    images: tuple[SeHeader, ...] = ()
    flags: int = request.FLAGS
    encoded: bytes | None = None
    sealed: tuple[bytes, bytes] | None = None

    def __post_init__(self) -> None:
        if len(self.measurement_key) != request.KEY_SIZE or len(self.nonce) != request.NONCE_SIZE:
            raise ValueError("a measurement key has 64 bytes, a nonce 16")
        if not self.host_keys:
            raise ValueError("a request for no machine")
        if not self.flags & request.ATTESTATION_KEY_HASH:
            raise ValueError("without the attestation host key's hash nobody can say which machine answered")


class _Run:
    """One verification: what was given, and what the steps have found so far."""

    __slots__ = ("additional", "host_key", "image", "pending", "report_data", "response", "tags")
    tags: HeaderTags
    host_key: HostKey

    def __init__(self, response: Response, pending: PendingRequest, report_data: ReportData | None) -> None:
        self.response = response
        self.pending = pending
        self.report_data = report_data
        self.image: SeHeader | None = None
        self.additional: dict[str, bytes] = {}

    def format(self) -> None:
        """Lengths and encoding: parsing's."""

    def request(self) -> None:
        """The response is to this request: what went out comes back unchanged."""
        response, pending = self.response, self.pending
        pairs: list[tuple[bytes, bytes]] = []
        if response.request is not None and pending.encoded is not None:
            pairs.append((response.request, pending.encoded))
        if response.sealed is not None and pending.sealed is not None:
            pairs += zip(response.sealed, pending.sealed, strict=True)
        if not all(hmac.compare_digest(got, sent) for got, sent in pairs):
            raise BindingMismatch(
                "the response is to another request", code="request_mismatch", tee=TEE, field="request", spec=SPEC
            )

    def measurement(self) -> None:
        """HMAC-SHA-512 over the tags of an accepted image and everything that firmware vouches for."""
        found: SeHeader | None = None
        if self.pending.images:
            found = next((image for image in self.pending.images if self._measures(image.tags)), None)
            if found is None:
                raise self._wrong_measurement("of an accepted image")
            self.image, self.tags = found, found.tags
            if self.response.tags is not None and self.response.tags != found.tags:
                raise BindingMismatch(
                    "the guest names another image than the one that was measured",
                    code="image_header_mismatch",
                    tee=TEE,
                    field="image_hdr_tags",
                    expected=found.tags.tag,
                    got=self.response.tags.tag,
                    spec=SPEC,
                )
        elif self.response.tags is None:
            raise UnsupportedEvidence(
                "an exchange file does not say which image was measured",
                code="image_header_missing",
                tee=TEE,
                field="image",
                spec=SPEC,
                hint="give the header of the image with the pending request",
            )
        else:
            if not self._measures(self.response.tags):
                raise self._wrong_measurement("with this key")
            self.tags = self.response.tags

    def bound(self) -> None:
        """The user data are the expected report data and zeros, in full length."""
        if self.report_data is not None:
            check_report_data(TEE, _padded(self.report_data.value), _padded(self.response.user_data))

    def machine(self) -> None:
        """The machine that opened the request is one that it was made for."""
        self.additional = request.read_additional(self.response.additional_data, self.pending.flags)
        wanted = self.additional["attestation_phkh"]
        known = next((own for own in self.pending.host_keys if hmac.compare_digest(own.key_hash, wanted)), None)
        if known is None:
            raise BindingMismatch(
                "the response names a host key that the request was not made for",
                code="attestation_host_key",
                tee=TEE,
                field="attestation_phkh",
                expected=[own.key_hash for own in self.pending.host_keys],
                got=wanted,
                spec=SPEC,
            )
        self.host_key = known

    def image_key(self) -> None:
        """The image was opened with a host key that its header has a slot for."""
        opened = self.additional.get("image_phkh")
        if self.image is not None and opened is not None and opened not in self.image.key_hashes:
            raise BindingMismatch(
                "the image was opened with a host key that its header has no slot for",
                code="image_host_key",
                tee=TEE,
                field="image_phkh",
                expected=sorted(self.image.key_hashes),
                got=opened,
                spec=SPEC,
            )

    def _measures(self, tags: HeaderTags) -> bool:
        response, pending = self.response, self.pending
        expected = request.measurement(
            pending.measurement_key,
            tags,
            cuid=response.cuid,
            user_data=response.user_data,
            nonce=pending.nonce,
            additional_data=response.additional_data,
        )
        return hmac.compare_digest(expected, response.measurement)

    def _wrong_measurement(self, what: str) -> EvidenceError:
        return SignatureInvalid(
            f"the measurement is not one {what}",
            code="measurement_mac",
            tee=TEE,
            field="measurement",
            spec=SPEC,
            hint="the evidence was changed, answers another request, or is of another image",
        )

    def verified(self) -> VerifiedEvidence:
        """Hand over what was verified. Call it after every step."""
        response, host_key = self.response, self.host_key
        unchecked: tuple[str, ...] = ()
        if not host_key.revocation_checked:
            unchecked += ("revocation",)
        if self.report_data is None:
            unchecked += ("report_data",)
        if self.image is None:
            unchecked += ("image_hdr_tags",)
        if "firmware_state" in self.additional:
            unchecked += ("firmware_state",)  # only IBM's service can tell whether it is a good one
        return VerifiedEvidence(
            tee=TEE,
            tee_class="cpu",
            claims=_claims(response, self.tags, self.additional) | {"platform_id": host_key.key_hash.hex()},
            coco_claims={
                "version": request.VERSION,
                "cuid": response.cuid.hex(),
                "tag": self.tags.tag.hex(),
                "image_phkh": self.additional.get("image_phkh", b"").hex(),
                "attestation_phkh": self.additional["attestation_phkh"].hex(),
                "report_data": response.user_data[:64].hex(),
            },
            tcb={},
            report_data=ReportData(response.user_data) if response.user_data else _NO_REPORT_DATA,
            init_data=b"",
            root=host_key.root,
            root_fingerprint=host_key.root_fingerprint,
            checks=done(STEPS, self),
            expires=host_key.expires,
            expires_first=host_key.expires_first,
            unchecked=unchecked,
        )


def _padded(data: bytes) -> ReportData:
    return ReportData(data.ljust(USER_DATA_SIZE, b"\0"))


def _tell_bound(run: _Run) -> tuple[JsonValue, JsonValue]:
    return run.report_data.value.hex() if run.report_data is not None else None, run.response.user_data.hex()


def _tell_machine(run: _Run) -> tuple[JsonValue, JsonValue]:
    return [own.key_hash.hex() for own in run.pending.host_keys], run.host_key.key_hash.hex()


def _check(name: str, spec: str = SPEC) -> Check:
    return Check(name, ok=True, spec=spec, group="response")


STEPS: tuple[Step[_Run], ...] = (
    Step(_check("format"), _Run.format),
    Step(_check("request"), _Run.request),
    Step(_check("measurement"), _Run.measurement),
    Step(_check("report_data", "kbs-protocol 1.5"), _Run.bound, lambda run: run.report_data is not None, _tell_bound),
    Step(_check("attestation_host_key"), _Run.machine, tell=_tell_machine),
    Step(_check("image_host_key"), _Run.image_key, lambda run: run.image is not None),
)


def verify_response(
    evidence: bytes,
    pending: PendingRequest,
    *,
    report_data: ReportData | None = None,
    trail: list[Check] | None = None,
) -> VerifiedEvidence:
    """Verify evidence, CoCo's JSON or an exchange file, against the request that it answers, or raise what is wrong.

    ``report_data``: what the user data begin with; zeros must follow. The host keys were verified, with their validity and
    revocation, when the request was made: ``expires`` says for how long that holds.
    """
    if report_data is not None and len(report_data.value) > USER_DATA_SIZE:
        raise ValueError("user data have at most 256 bytes")
    run = _Run(read(evidence), pending, report_data)
    walk(STEPS, run, trail)
    return run.verified()


def verify(
    evidence: bytes,
    *,
    endorsements: EndorsementSet,  # noqa: ARG001 -- every room has the same door
    now: datetime,  # noqa: ARG001
    anchors: TrustAnchors,  # noqa: ARG001
    revocation: Revocation = Revocation.REQUIRED,  # noqa: ARG001
    report_data: ReportData | None = None,  # noqa: ARG001
    init_data: bytes | None = None,  # noqa: ARG001
    remembered: Remembered | None = None,  # noqa: ARG001
    trail: list[Check] | None = None,
) -> VerifiedEvidence:
    """As ``adyton.tee.verify``: reads the evidence, and then always ``UnsupportedEvidence``. See ``verify_response``."""
    read(evidence)
    if trail is not None:
        trail += (STEPS[0].check, Check("measurement", ok=False, spec=SPEC, group="response"))
    raise UnsupportedEvidence(
        "Secure Execution evidence can be verified only by who made the request: its measurement key is a secret",
        code="measurement_key_missing",
        tee=TEE,
        field="measurement_key",
        spec=SPEC,
        hint="whoever made the request verifies with adyton.tee.se.verify.verify_response and the PendingRequest it kept",
    )


def show(evidence: bytes) -> dict[str, JsonValue]:
    """What the evidence says. Parsed only. Additional data are read as the flags that Adyton asks with."""
    response = read(evidence)
    additional: dict[str, bytes] = {}
    if len(response.additional_data) == request.additional_size(request.FLAGS):
        additional = request.read_additional(response.additional_data, request.FLAGS)
    return _claims(response, response.tags, additional)


def read(evidence: bytes) -> Response:
    """The response in either form, or ``MalformedEvidence``."""
    if evidence[:1] in {b"{", b" ", b"\n", b"\t", b"\r"}:
        return json_form.parse(evidence)
    file = Exchange.parse(evidence)
    if not file.is_response:
        raise malformed("an exchange file", "holds a request, and no answer to it", "measurement", None, None)
    return json_form.check_sizes(
        Response(file.measurement, file.additional_data, file.user_data, file.cuid, request=file.request)
    )


def _claims(response: Response, tags: HeaderTags | None, additional: dict[str, bytes]) -> dict[str, JsonValue]:
    claims: dict[str, JsonValue] = {
        "version": request.VERSION,
        "cuid": response.cuid.hex(),
        "user_data": response.user_data.hex(),
        "tag": tags.tag.hex() if tags is not None else None,
        "pld": tags.pld.hex() if tags is not None else None,
        "ald": tags.ald.hex() if tags is not None else None,
        "tld": tags.tld.hex() if tags is not None else None,
        # The names that every TEE has. Pages are what an image is; the tag also covers whom it was made for.
        "measurement": tags.pld.hex() if tags is not None else None,
        "debug": None,
        "tcb_status": None,
        "platform_id": None,
        "report_data": response.user_data.hex(),
        "init_data": None,
    }
    for name, value in additional.items():
        claims[name] = value.hex()
    return claims
