"""What an attestation service is asked for, over REST and gRPC alike (kbs-protocol 2.1, 2.2).

Structs as they stand on the REST wire, and what they mean once read: bytes instead of base64url, runtime data in canonical form.
Reading only; ``MalformedRequest`` for what cannot be read. Whether evidence is authentic is not asked here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar, cast

import msgspec

from adyton.errors import MalformedRequest
from adyton.protocol import initdata
from adyton.protocol.initdata import InitData
from adyton.rats import binding
from adyton.rats.types import JsonValue, ReportData
from adyton.wire import b64, jcs, strict_json

MAX_BODY = 8 * 1000 * 1000
MAX_PIECES = 16
DEFAULT_POLICY = "default"
ADDITIONAL = "additional-evidence"
SPEC = "kbs-protocol 2.2"
_T = TypeVar("_T")


class RuntimeData(msgspec.Struct, frozen=True):
    """Exactly one of both."""

    raw: str | None = None
    structured: dict[str, object] | None = None


class InitDataGiven(msgspec.Struct, frozen=True):
    """Exactly one of both."""

    init_data_digest: str | None = None
    init_data_toml: str | None = None


class Individual(msgspec.Struct, frozen=True):
    """One piece of evidence as it is sent."""

    tee: str
    evidence: str
    runtime_data: RuntimeData | None = None
    init_data: InitDataGiven | None = None
    runtime_data_hash_algorithm: str | None = None


class EvaluateBody(msgspec.Struct, frozen=True):
    """``POST /attestation``. ``policy_ids`` must be there; an empty list means ``default``."""

    verification_requests: list[Individual]
    policy_ids: list[str]


class PolicyBody(msgspec.Struct, frozen=True):
    """``POST /policy``: ``policy`` is base64url of Rego text."""

    policy_id: str
    policy: str


class PolicyId(msgspec.Struct, frozen=True):
    """One line of ``GET /policy``."""

    policy_id: str = msgspec.field(name="policy-id")


class ChallengeBody(msgspec.Struct, frozen=True):
    """``POST /challenge``."""

    tee: str
    tee_params: str


class Piece(msgspec.Struct, frozen=True):
    """One piece of evidence, read. ``runtime`` is what a policy sees of its runtime data, ``expected`` what it binds.

    ``shared`` is what all pieces of one environment answer: raw runtime data (marked as that), or the structured in canonical
    form without ``additional-evidence``; ``None`` without runtime data.
    """

    tee: str
    evidence: bytes
    expected: ReportData | None
    runtime: Mapping[str, JsonValue]
    shared: bytes | None
    init_data: InitData | None
    init_digest: bytes | None

    @property
    def init_field(self) -> bytes | None:
        """What the TEE's field for init data must hold, ``None`` if that is not compared."""
        if self.init_data is not None:
            return binding.expected_init_data(self.tee, self.init_data.raw, self.init_data.algorithm)
        return None if self.init_digest is None else binding.expected_init_digest(self.tee, self.init_digest)


class Evaluation(msgspec.Struct, frozen=True):
    """All evidence of one environment, the CPU's first, and the policy to appraise it by."""

    pieces: tuple[Piece, ...]
    policy_id: str

    @property
    def runtime_data(self) -> Mapping[str, JsonValue]:
        """The first piece's, which the others share but for ``additional-evidence``."""
        return self.pieces[0].runtime


def parse(body: bytes) -> Evaluation:
    """Read ``POST /attestation``."""
    asked = unambiguous(body, EvaluateBody)
    return read(asked.verification_requests, asked.policy_ids)


def unambiguous(body: bytes, kind: type[_T]) -> _T:
    """A JSON body of this kind, without two members of one name."""
    try:
        strict_json.parse(body, max_size=MAX_BODY)
        return msgspec.json.decode(body, type=kind)
    except strict_json.UNREADABLE as error:
        raise _malformed(str(error)[:200], "body") from error


def structured(text: str) -> dict[str, object]:
    """Runtime data that came as JSON text (gRPC)."""
    try:
        value = strict_json.parse(text, max_size=MAX_BODY)
    except ValueError as error:
        raise _malformed(str(error)[:200], "structured_runtime_data") from error
    if not isinstance(value, dict):
        raise _malformed("not an object", "structured_runtime_data")
    return value


def read(requests: Sequence[Individual], policy_ids: Sequence[str]) -> Evaluation:
    """What they say. Devices' runtime data must be the CPU's, but for ``additional-evidence``, which only that has."""
    if not 0 < len(requests) <= MAX_PIECES:
        raise _malformed(f"1 to {MAX_PIECES} pieces of evidence", "verification_requests")
    pieces = tuple(map(_piece, requests))
    for piece in pieces[1:]:
        if piece.shared != pieces[0].shared or ADDITIONAL in piece.runtime:
            raise MalformedRequest(
                "evidence of one environment answers one challenge",
                code="runtime_data_differs",
                field="verification_requests",
                spec=SPEC,
            )
        if piece.init_data is not None or piece.init_digest is not None:
            raise _malformed("init data stands beside the first piece only", "init_data")
    return Evaluation(pieces, (policy_ids[0] if policy_ids else "") or DEFAULT_POLICY)


def _piece(asked: Individual) -> Piece:
    algorithm = asked.runtime_data_hash_algorithm or binding.DEFAULT_HASH
    if algorithm not in binding.HASHES:
        raise _malformed(f"one of {', '.join(binding.HASHES)}", "runtime_data_hash_algorithm")
    evidence = _decoded(asked.evidence, "evidence")
    expected, runtime, shared = _runtime(asked.tee, asked.runtime_data, algorithm)
    given = asked.init_data
    document, digest = None, None
    if given is not None:
        if (given.init_data_digest is None) is (given.init_data_toml is None):
            raise _malformed("a digest or a document", "init_data")
        if given.init_data_digest is not None:
            digest = _decoded(given.init_data_digest, "init_data_digest")
        else:
            document = initdata.parse((given.init_data_toml or "").encode("utf-8"))
    return Piece(asked.tee[:40], evidence, expected, runtime, shared, document, digest)


def _runtime(
    tee: str, given: RuntimeData | None, algorithm: str
) -> tuple[ReportData | None, dict[str, JsonValue], bytes | None]:
    if given is None:
        return None, {}, None
    if (given.raw is None) is (given.structured is None):
        raise _malformed("raw or structured", "runtime_data")
    if given.raw is not None:
        raw = _decoded(given.raw, "runtime_data")
        return binding.expected_raw(tee, raw), {}, b"raw " + raw
    value = given.structured or {}
    try:
        canonical = jcs.canonical(value)
        shared = jcs.canonical({name: one for name, one in value.items() if name != ADDITIONAL})
    except ValueError as error:
        raise _malformed(str(error), "runtime_data") from error
    return binding.expected(tee, canonical, algorithm), cast("dict[str, JsonValue]", value), shared


def _decoded(text: str, field: str) -> bytes:
    try:
        return b64.decode_url(text)
    except ValueError as error:
        raise _malformed("base64url without padding", field) from error


def _malformed(why: str, field: str) -> MalformedRequest:
    return MalformedRequest(f"the request cannot be read: {why}", code="body_malformed", field=field, spec=SPEC)
