"""Request, challenge, attestation, response: bodies of CoCo's KBS protocol, 0.1.0 to 0.4.0 (kbs-protocol 1.3 to 1.5, 1.15).

Parsing only. A body that cannot be read is ``MalformedRequest``; whether its evidence is authentic is not asked here.
Objects with two members of the same name are refused everywhere outside ``primary_evidence``, whose bytes are kept as
they came: the TEE's room reads them. Members that the protocol does not know are ignored, as CoCo's server does.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import msgspec

from adyton.crypto import jwk
from adyton.crypto.jwk import TeeKey
from adyton.errors import MalformedRequest
from adyton.protocol.known_chains import KnownChains
from adyton.rats import binding
from adyton.rats.types import JsonValue, Nonce, ReportData
from adyton.wire import b64, strict_json

VERSION = "0.4.0"
OLDEST = "0.1.0"
VERSIONS = (OLDEST, "0.1.1", "0.2.0", "0.3.0", VERSION)
"""Spoken here. What the older ones say otherwise (kbs-protocol 1.15) is in ``parse_older`` and ``Attestation.bound``."""
BEFORE_JWE = frozenset({OLDEST, "0.1.1"})
"""Whose guests open no real JWE: they know RSA1_5, in a form of their own (``crypto.jwe``)."""
_BEFORE_COMPOSITE = BEFORE_JWE | {"0.2.0"}
MAX_BODY = 2 * 1000 * 1000
MAX_NONCE = 32 * 1024  # characters: for Secure Execution it is a whole request
TEES = frozenset(
    [
        "az-snp-vtpm",
        "az-tdx-vtpm",
        "nvidia",
        "nvidiadpu",
        "sgx",
        "snp",
        "tdx",
        "cca",
        "csv",
        "se",
        "hygondcu",
        "tpm",
        "sample",
        "sampledevice",
    ]
)
OLDER_NAMES = {"azsnpvtpm": "az-snp-vtpm", "aztdxvtpm": "az-tdx-vtpm"}
"""What clients before September 2025 call them."""
_HASHES = ("sha384", "sha512", "sha256")  # in order of preference; SHA-384 is what clients assume
_CUT_FROM = 512
_SHORT = 1024
_CHAINS = KnownChains()


class Request(msgspec.Struct, frozen=True):
    """``POST /auth``. ``extra_params`` is any JSON; older clients send an empty string."""

    version: str
    tee: str
    extra_params: msgspec.Raw = msgspec.field(name="extra-params")


class Challenge(msgspec.Struct, frozen=True):
    """Its answer. ``nonce`` is standard base64 of 32 bytes; the *text* is what evidence binds."""

    nonce: str
    extra_params: object = msgspec.field(name="extra-params", default="")


class InitDataText(msgspec.Struct, frozen=True):
    """Init data as the attester sends it; ``body`` is the exact text whose digest the TEE holds."""

    format: str
    body: str


class RuntimeData(msgspec.Struct, frozen=True):
    """What the evidence binds. Every member of ``tee_pubkey`` that the protocol knows is a string."""

    nonce: str
    tee_pubkey: dict[str, object] = msgspec.field(name="tee-pubkey")


class TeeEvidence(msgspec.Struct, frozen=True):
    """Snake case inside, unlike the rest. ``additional_evidence`` is a string: empty, or JSON text."""

    primary_evidence: msgspec.Raw
    additional_evidence: str


class AttestationBody(msgspec.Struct, frozen=True, kw_only=True):
    """``POST /attest`` as it is on the wire; members in the order in which CoCo's guest writes them."""

    init_data: InitDataText | None = msgspec.field(name="init-data", default=None)
    runtime_data: RuntimeData = msgspec.field(name="runtime-data")
    tee_evidence: TeeEvidence = msgspec.field(name="tee-evidence")


class OlderBody(msgspec.Struct, frozen=True, kw_only=True):
    """``POST /attest`` before 0.4.0: the key at the top, no nonce, no init data. Before 0.3.0: evidence alone, any JSON."""

    tee_pubkey: dict[str, object] = msgspec.field(name="tee-pubkey")
    tee_evidence: msgspec.Raw = msgspec.field(name="tee-evidence")


class TokenBody(msgspec.Struct, frozen=True):
    """The answer to ``/attest``."""

    token: str


class Attestation(msgspec.Struct, frozen=True):
    """A readable ``/attest`` body. ``primary`` is the evidence's JSON, byte for byte; ``init_data`` its exact text."""

    nonce: str
    key: TeeKey
    primary: bytes
    additional: str
    init_data: bytes | None
    init_data_format: str
    version: str = VERSION

    @property
    def bound(self) -> bytes:
        """What the primary evidence binds: nonce, key and, from 0.3.0 on, additional evidence, canonical (1.5).

        The key's form of 2023 came with another binding: nonce, modulus and exponent as texts, one after the other.
        """
        if self.version in _BEFORE_COMPOSITE:
            members = self.key.members
            if "k-mod" in members:
                return (self.nonce + members["k-mod"] + members["k-exp"]).encode()
            return binding.device_object(self.nonce, self.key.members)
        return binding.primary_object(self.nonce, self.key.members, self.additional)

    def report_data(self, algorithm: str) -> ReportData:
        """What a field of 64 bytes must hold."""
        return binding.report_data(self.bound, algorithm)

    @property
    def runtime_data_claims(self) -> dict[str, JsonValue]:
        """The bound object as policies and tokens show it (kbs-protocol 2.5)."""
        if self.version in _BEFORE_COMPOSITE:
            return {"nonce": self.nonce, "tee-pubkey": dict(self.key.members)}
        return {
            "additional-evidence": self.additional,
            "nonce": self.nonce,
            "tee-pubkey": dict(self.key.members),
        }


_REQUEST = msgspec.json.Decoder(Request)
_CHALLENGE = msgspec.json.Decoder(Challenge)
_ATTESTATION = msgspec.json.Decoder(AttestationBody)
_OLDER = msgspec.json.Decoder(OlderBody)
_EVIDENCE = msgspec.json.Decoder(TeeEvidence)
_TOKEN = msgspec.json.Decoder(TokenBody)
_STRING = msgspec.json.Decoder(str)
_ENCODER = msgspec.json.Encoder()


def parse_request(body: bytes) -> Request:
    """Read ``/auth``. Version and TEE are read, not judged."""
    return _short_request(body) if len(body) <= _SHORT else _parse_request(body)


def _parse_request(body: bytes) -> Request:
    _unambiguous(body)
    try:
        return _REQUEST.decode(body)
    except strict_json.UNREADABLE as error:
        raise _malformed(error) from error


# Nothing in such a body is an attester's own: a fleet sends few different ones. What one says is a function of it.
_short_request = lru_cache(maxsize=256)(_parse_request)


def choose_hash(extra_params: bytes, tee: str = "") -> str:
    """The binding hash for a client that offers ``supported-hash-algorithms``; without an offer SHA-384 (1.3).

    Secure Execution has SHA-512 where the client offers it.

    ``MalformedRequest`` (``hash_unsupported``) when it offers only others.
    """
    first = binding.default_hash(tee)
    return _short_offer(extra_params, first) if len(extra_params) <= _SHORT else _choose_hash(extra_params, first)


def _choose_hash(extra_params: bytes, first: str) -> str:
    offered = strict_json.parse(extra_params, max_size=MAX_BODY)
    names = offered.get("supported-hash-algorithms") if isinstance(offered, dict) else None
    if not isinstance(names, list) or not names:
        return binding.DEFAULT_HASH
    known = {name.lower() for name in names if isinstance(name, str)}
    for name in (first, *_HASHES):
        if name in known:
            return name
    raise MalformedRequest(
        "no hash algorithm in common",
        code="hash_unsupported",
        expected=list(_HASHES),
        got=sorted(name[:20] for name in known)[:8],
        spec="kbs-protocol 1.3",
    )


_short_offer = lru_cache(maxsize=256)(_choose_hash)


def challenge(nonce: Nonce | str, algorithm: str) -> bytes:
    """The answer to ``/auth``; a hash is named only when it is not the one that clients assume.

    ``nonce`` as text: a TEE's own kind of request, which stands in its place (Secure Execution, 1.3).
    """
    extra: JsonValue = "" if algorithm == binding.DEFAULT_HASH else {"selected-hash-algorithm": algorithm}
    return _ENCODER.encode(Challenge(nonce if isinstance(nonce, str) else b64.encode(nonce.value), extra))


def _read(body: bytes) -> tuple[AttestationBody, bytes, bool]:
    """The body, the text of its evidence, and whether it is spelt as we would: then no object has a member twice."""
    try:
        read = _ATTESTATION.decode(body)
        primary = bytes(read.tee_evidence.primary_evidence)
        plain = set(map(type, read.runtime_data.tee_pubkey.values())) <= {str}
        return read, primary, plain and _ENCODER.encode(read) == body
    except strict_json.UNREADABLE as error:
        raise _malformed(error) from error


def parse_attestation(body: bytes) -> Attestation:
    """Read ``/attest`` into checked parts."""
    short, start, end = _CHAINS.cut(body)
    read, primary, as_written = _read(short)
    whole = _CHAINS.put_back(body, start, end, primary) if end and as_written else None
    if whole is not None:
        primary = whole
    elif end:  # an odd spelling or evidence, in which the chain may have stood anywhere
        read, primary, as_written = _read(body)
    else:
        _CHAINS.learn(primary)
    if not as_written:
        _unambiguous(_without(body, primary))
    if len(read.runtime_data.nonce) > MAX_NONCE:
        raise _malformed(f"nonce longer than {MAX_NONCE} characters")
    return Attestation(
        nonce=read.runtime_data.nonce,
        key=jwk.parse(read.runtime_data.tee_pubkey),
        primary=primary,
        additional=read.tee_evidence.additional_evidence,
        init_data=None if read.init_data is None else read.init_data.body.encode("utf-8"),
        init_data_format="" if read.init_data is None else read.init_data.format,
    )


def key_algorithms(version: str, *, rsa1_5: bool = False) -> frozenset[str]:
    """What a TEE's key may be for in this version; RSA1_5 only where ``rsa1_5`` allows it and nothing else is known.

    0.1.1 knew EC keys, though CoCo's broker had no answer for them; ours is the form that came with 0.2.0.
    """
    if version not in BEFORE_JWE:
        return jwk.MODERN
    found = {jwk.OLD_RSA_ALGORITHM} if rsa1_5 else set()
    return frozenset(found if version == OLDEST else found | {jwk.EC_ALGORITHM})


def parse_key(members: object, version: str, *, rsa1_5: bool = False) -> TeeKey:
    """A TEE's key as this version has it; ``MalformedRequest``, with the code ``rsa1_5_off`` where a setting is why."""
    try:
        return jwk.parse(members, key_algorithms(version, rsa1_5=rsa1_5), oldest=version == OLDEST)
    except MalformedRequest as error:
        old = isinstance(members, dict) and members.get("alg") == jwk.OLD_RSA_ALGORITHM
        if old and version in BEFORE_JWE and not rsa1_5:
            raise MalformedRequest(
                "keys for RSA1_5 are not taken here",
                code="rsa1_5_off",
                field="tee-pubkey.alg",
                got=jwk.OLD_RSA_ALGORITHM,
                spec="kbs-protocol 1.15",
                hint="bring the guest up to date, or start the broker with --allow-rsa1-5",
            ) from error
        raise


def parse_older(body: bytes, version: str, nonce: str, *, rsa1_5: bool = False) -> Attestation:
    """Read ``/attest`` of a version before 0.4.0 (kbs-protocol 1.15). ``nonce``: the session's, since the body has none.

    Nothing is lost by that: the evidence binds it. ``rsa1_5``: as for ``parse_key``.
    """
    if version not in VERSIONS[:-1]:
        raise ValueError("not an older version")
    try:
        read = _OLDER.decode(body)
        evidence = bytes(read.tee_evidence)
        additional = ""
        if version not in _BEFORE_COMPOSITE:
            both = _EVIDENCE.decode(evidence)
            evidence, additional = bytes(both.primary_evidence), both.additional_evidence
    except strict_json.UNREADABLE as error:
        raise _malformed(error) from error
    _unambiguous(_without(body, evidence))
    key = parse_key(read.tee_pubkey, version, rsa1_5=rsa1_5)
    if version == OLDEST and evidence.startswith(b'"'):  # at first the evidence was its own JSON in a string
        evidence = _text_in(evidence)
    return Attestation(nonce, key, evidence, additional, None, "", version)


def _text_in(evidence: bytes) -> bytes:
    try:
        return _STRING.decode(evidence).encode("utf-8")
    except strict_json.UNREADABLE as error:
        raise _malformed(error) from error


def token_body(token: str) -> bytes:
    """The answer to ``/attest``."""
    return _ENCODER.encode(TokenBody(token))


def request_body(tee: str) -> bytes:
    """``/auth`` as a client sends it."""
    extra = {"supported-hash-algorithms": ["sha256", "sha384", "sha512"]}
    return _ENCODER.encode({"version": VERSION, "tee": tee, "extra-params": extra})


def parse_challenge(body: bytes) -> tuple[str, str]:
    """The nonce's text and the hash algorithm of a challenge."""
    try:
        answer = _CHALLENGE.decode(body)
    except strict_json.UNREADABLE as error:
        raise _malformed(error) from error
    extra = answer.extra_params
    chosen = extra.get("selected-hash-algorithm") if isinstance(extra, dict) else None
    algorithm = chosen.lower() if isinstance(chosen, str) else binding.DEFAULT_HASH
    if algorithm not in binding.HASHES or not 0 < len(answer.nonce) <= MAX_NONCE:
        raise _malformed("an unknown hash or no nonce")
    return answer.nonce, algorithm


def attestation_body(
    nonce: str, tee_key: Mapping[str, str], primary: JsonValue, init_data: bytes | None, additional: str = ""
) -> bytes:
    """``/attest`` as a client sends it."""
    return _ENCODER.encode(
        {
            "init-data": None if init_data is None else {"format": "toml", "body": init_data.decode("utf-8")},
            "runtime-data": {"nonce": nonce, "tee-pubkey": dict(tee_key)},
            "tee-evidence": {"primary_evidence": primary, "additional_evidence": additional},
        }
    )


def parse_token(body: bytes) -> str:
    """The token in the answer to ``/attest``."""
    try:
        return _TOKEN.decode(body).token
    except strict_json.UNREADABLE as error:
        raise _malformed(error) from error


def _without(body: bytes, primary: bytes) -> bytes:
    """``body`` with a zero where the evidence stands; the whole where that cannot be told at a glance."""
    if len(primary) < _CUT_FROM:
        return body
    start = body.find(primary[:_CUT_FROM])
    end = start + len(primary)
    return body[:start] + b"0" + body[end:] if body[start:end] == primary else body


def _unambiguous(body: bytes) -> None:
    """Size, depth and duplicate members of everything but the evidence, which may be long and is read elsewhere."""
    try:
        strict_json.parse(body, max_size=MAX_BODY)
    except ValueError as error:
        raise _malformed(error) from error


def _malformed(reason: object) -> MalformedRequest:
    return MalformedRequest(
        f"the body cannot be read: {str(reason)[:200]}", code="body_malformed", spec="kbs-protocol 1.3, 1.4"
    )
