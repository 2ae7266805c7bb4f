"""How a challenge is bound into evidence, written once.

CoCo's KBS protocol 0.4.0: the attester hashes a canonical object (RFC 8785) holding the nonce and its public key, and
puts the digest into the TEE's report data. The primary object always has ``additional-evidence``, even when it is the
empty string; a device's object never has it. The digest is SHA-384 unless negotiated. Where a field is longer than the
digest it is filled with zeros on the right, and a verifier compares the whole field. Report data of TPMs and GPUs is the
digest's first 32 bytes, as the protocol has it; init data is never cut.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from functools import lru_cache

import msgspec

from adyton.errors import BindingMismatch, DocumentInvalid, MalformedRequest
from adyton.rats.types import ReportData
from adyton.wire import jcs

HASHES = ("sha256", "sha384", "sha512")
_MAKERS = {"sha256": hashlib.sha256, "sha384": hashlib.sha384, "sha512": hashlib.sha512}
DEFAULT_HASH = "sha384"
_ENCODE = msgspec.json.Encoder().encode


def primary_object(nonce: str, tee_public_key: Mapping[str, str], additional_evidence: str = "") -> bytes:
    """Canonical bytes that the primary evidence binds; ``nonce`` is the text of the challenge as it was sent."""
    key = {name: tee_public_key[name] for name in sorted(tee_public_key)}
    bound = {"additional-evidence": additional_evidence, "nonce": nonce, "tee-pubkey": key}
    if set(map(type, key.values())) <= {str}:
        # The same bytes at a fraction of the price where there is nothing to escape: ASCII names sort alike in every encoding.
        text = _ENCODE(bound)
        if text.isascii() and b"\\" not in text:
            return text
    return jcs.canonical(bound)


def device_object(nonce: str, tee_public_key: Mapping[str, str]) -> bytes:
    """Canonical bytes that each additional device's evidence binds."""
    return jcs.canonical({"nonce": nonce, "tee-pubkey": dict(tee_public_key)})


def digest(canonical: bytes, algorithm: str = DEFAULT_HASH) -> bytes:
    """The digest of a canonical object; an algorithm outside ``HASHES`` is ``ValueError``."""
    made = _MAKERS.get(algorithm)
    if made is None:
        raise ValueError("unknown binding hash")
    return made(canonical).digest()


def report_data(canonical: bytes, algorithm: str = DEFAULT_HASH) -> ReportData:
    """The 64-byte report data of ``canonical``: its digest, then zeros."""
    return ReportData(digest(canonical, algorithm).ljust(64, b"\0"))


# Where the digest goes, where that is not 64 bytes with zeros after it (``kbs-protocol`` 1.5): TEE -> bytes of the field;
# ``None``: as long as the digest, and nothing after it.
_FIELDS: dict[str, int | None] = {
    "az-snp-vtpm": None,
    "az-tdx-vtpm": None,
    "nitro": None,
    "nvidia": 32,
    "sample": None,
    "sampledevice": None,
    "tpm": 32,
}


def default_hash(tee: str) -> str:
    """The digest of a TEE's binding unless another was negotiated: SHA-384, and SHA-512 for ``se``."""
    return "sha512" if tee == "se" else DEFAULT_HASH


def expected(tee: str, canonical: bytes, algorithm: str | None = None) -> ReportData:
    """What the field of ``tee``'s evidence must hold over a canonical object (``kbs-protocol`` 1.5).

    A field shorter than the digest holds its beginning, never less than 32 bytes; a longer one has zeros after it.
    """
    value = digest(canonical, algorithm or default_hash(tee))
    size = _FIELDS.get(tee, 64)
    return ReportData(value if size is None else value[:size].ljust(size, b"\0"))


def expected_raw(tee: str, value: bytes) -> ReportData:
    """What the field of ``tee``'s evidence must hold for runtime data that is compared as it is (``kbs-protocol`` 2.1).

    Zeros on the right where the field is longer; ``MalformedRequest`` for a value that is empty, zero or too long: never cut.
    """
    size = _FIELDS.get(tee, 64)
    if not any(value) or (size is not None and len(value) > size):
        raise MalformedRequest(
            "this is not what the evidence could hold",
            code="runtime_data_size",
            field="runtime_data",
            expected="at least one byte that is not zero" if not any(value) else f"at most {size} bytes",
            got=len(value),
            spec="kbs-protocol 2.1",
        )
    return ReportData(value if size is None else value.ljust(size, b"\0"))


def check_report_data(tee: str, expected: ReportData, got: ReportData) -> None:
    """Compare whole fields in constant time; an all-zero expectation is the caller's mistake, not a match."""
    if not any(expected.value):
        raise ValueError("expected report data is empty")
    if not hmac.compare_digest(expected.value, got.value):
        raise BindingMismatch(
            "the evidence was not made for this nonce and key",
            code="report_data_mismatch",
            tee=tee,
            field="report_data",
            expected=expected.value,
            got=got.value,
            spec="kbs-protocol 1.5",
            hint="evidence is good for one handshake; a replayed or relayed one is refused",
        )


def init_data_field(init_data: bytes, *, length: int, algorithm: str = "sha256") -> bytes:
    """What a field of ``length`` bytes holds: the digest of the document, zeros on the right; never cut (``ValueError``)."""
    value = hashlib.new(algorithm, init_data).digest()
    if len(value) > length:
        raise ValueError(f"a {algorithm} digest does not fit a field of {length} bytes")
    return value.ljust(length, b"\0")


# Where the digest of the init data is (``kbs-protocol`` 1.10): TEE -> bytes of the field that it stands in, zeros after it.
_INIT_DATA_FIELDS = {
    "cca": 64,  # realm personalisation value
    "hyperenclave": 64,  # CONFIGID
    "sgx": 64,  # CONFIGID
    "snp": 32,  # HOST_DATA
    "tdx": 48,  # MRCONFIGID
}
_INIT_DATA_PCRS = frozenset({"az-snp-vtpm", "az-tdx-vtpm", "tpm"})  # PCR 8 was extended with it, once
_DIGEST_SIZE = 32
_SHORT = 16 * 1024
SPEC_INIT_DATA = "kbs-protocol 1.10"


def expected_init_data(tee: str, init_data: bytes, algorithm: str = "sha256") -> bytes:
    """What the field of ``tee``'s evidence must hold, whole, for this document (``kbs-protocol`` 1.10).

    Digest and zeros; for a vTPM the value of PCR 8, SHA-256(32 zero bytes || digest). ``DocumentInvalid``
    ``init_data_unbound`` for a TEE that has no such field: nothing there says that the document is the guest's own;
    ``init_data_algorithm`` for a digest that is longer than the field: it is never cut.
    """
    return (_short_init_data if len(init_data) <= _SHORT else _expected_init_data)(tee, init_data, algorithm)


def _expected_init_data(tee: str, init_data: bytes, algorithm: str) -> bytes:
    return expected_init_digest(tee, hashlib.new(algorithm, init_data).digest(), algorithm)


_short_init_data = lru_cache(maxsize=128)(_expected_init_data)  # a fleet sends few documents, each twice looked at


def expected_init_digest(tee: str, digest: bytes, algorithm: str = "") -> bytes:
    """As ``expected_init_data``, from the document's digest."""
    pcr = tee in _INIT_DATA_PCRS
    length = _DIGEST_SIZE if pcr else _INIT_DATA_FIELDS.get(tee)
    if length is None:
        raise DocumentInvalid(
            "evidence of this TEE has no field that binds init data",
            code="init_data_unbound",
            field="init-data",
            expected="none",
            got=tee,
            spec=SPEC_INIT_DATA,
            hint="attest without init data",
        )
    if not _DIGEST_SIZE <= len(digest) <= length:
        raise DocumentInvalid(
            "the init data's digest does not fit the TEE's field",
            code="init_data_algorithm",
            field="init-data",
            expected=f"a digest of {_DIGEST_SIZE} to {length} bytes",
            got=algorithm or len(digest),
            spec=SPEC_INIT_DATA,
        )
    value = digest.ljust(length, b"\0")
    return hashlib.sha256(bytes(_DIGEST_SIZE) + value).digest() if pcr else value


def document_digest(tee: str, field: bytes) -> bytes:
    """Which document the field of verified evidence names, where it says so itself: without the zeros after 32 bytes.

    Empty for a PCR, which does not say what it was extended with, and for a TEE without such a field.
    """
    if tee not in _INIT_DATA_FIELDS:
        return b""
    return field[:_DIGEST_SIZE] if not any(field[_DIGEST_SIZE:]) else field
