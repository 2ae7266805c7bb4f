"""A DCAP quote: header, body, signature data, tail. Versions 3, 4 and 5. Bytes and types: no cryptography, no trust.

Intel SGX ECDSA Quote Library Reference, appendix A (version 3); Intel TDX DCAP Quoting Library API, appendix A.3 and A.4
(versions 4 and 5); evidence 3.1. Every length is checked against what is left before anything is read, and the parts fill
the signature data exactly. What comes after it is the ``tail``: kept, unsigned, never looked at. So
``Quote.parse(x).encode() == x`` for every quote that parses.

Reserved: bytes 4 to 7 of a version 3 header are zero (they became the TEE type); bytes 8 to 11 of versions 4 and 5 are
signed but unknown.
"""

from __future__ import annotations

import struct

import msgspec

from adyton.errors import MalformedEvidence
from adyton.tee.dcap.bodies import SGX_SIZE, TD10_SIZE, TD15_EXTENDED_SIZE, TD15_SIZE, SgxBody, TdBody

VERSIONS = (3, 4, 5)
ECDSA_P256 = 2
TEE_SGX = 0
TEE_TDX = 0x81
INTEL_QE_VENDOR = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
HEADER_SIZE = 48
QE_REPORT_DATA = 6  # certification data that wraps the QE report and the rest, from version 4 on
PCK_CHAIN = 5
MAX_SIZE = 256 * 1024
SPEC = "Intel TDX DCAP Quoting Library API A.3; evidence 3.1"

_HEADER = struct.Struct("<HHIHH16s20s")
_BODY_HEAD = struct.Struct("<HI")
_LENGTH = struct.Struct("<I")
_KEYS = struct.Struct("<64s64s")  # signature, attestation key
_TYPED = struct.Struct("<HI")  # type and size of certification data
_AUTH_LENGTH = struct.Struct("<H")
_BODY_SIZES = {1: SGX_SIZE, 2: TD10_SIZE, 3: TD15_SIZE, 4: TD15_EXTENDED_SIZE}
_BODY_TYPES = {size: number for number, size in _BODY_SIZES.items()}


class QuoteHeader(msgspec.Struct, frozen=True):
    """The 48 bytes at the start. ``qe_svn`` and ``pce_svn`` mean something in version 3 only; later they are reserved."""

    version: int = 4
    attestation_key_type: int = ECDSA_P256
    tee_type: int = TEE_TDX
    qe_svn: int = 0
    pce_svn: int = 0
    qe_vendor_id: bytes = INTEL_QE_VENDOR
    user_data: bytes = bytes(20)

    def encode(self) -> bytes:
        """The 48 bytes; ``ValueError`` if a field does not fit its place."""
        if len(self.qe_vendor_id) != 16 or len(self.user_data) != 20:
            raise ValueError("a field of the header has the wrong length")
        try:
            return _HEADER.pack(*msgspec.structs.astuple(self))
        except struct.error as error:
            raise ValueError("a field of the header is out of range") from error


class Quote(msgspec.Struct, frozen=True):
    """One quote. Lengths in bytes: signatures (r, then s) and the attestation key (x, then y) 64 each, big-endian.

    ``certification_type`` and ``certification_data`` are the inner ones, which say who certified the quoting enclave.
    """

    header: QuoteHeader
    body: SgxBody | TdBody
    signature: bytes
    attestation_key: bytes
    qe_report: SgxBody
    qe_report_signature: bytes
    qe_auth_data: bytes
    certification_type: int
    certification_data: bytes
    tail: bytes = b""

    @classmethod
    def parse(cls, data: bytes) -> Quote:
        """From a quote and whatever follows it; ``MalformedEvidence`` if it is not one of a known version and shape."""
        header = _header(data)
        tee = "tdx" if header.tee_type == TEE_TDX else "sgx"
        offset, size = _body_place(data, header, tee)
        end = offset + size
        if len(data) < end + 4:
            raise _malformed(tee, "quote_length", "the quote is cut off", f"at least {end + 4}", len(data))
        body = SgxBody.at(data, offset) if size == SGX_SIZE else TdBody.at(data, offset, size)
        (length,) = _LENGTH.unpack_from(data, end)
        offset = end + 4
        end = offset + length
        if end > len(data):
            raise _malformed(
                tee, "signature_length", "the signature data is longer than what is left", len(data) - offset, length
            )
        outer = 6 if header.version > 3 else 0
        if length < 128 + outer + 384 + 64 + 2 + 6:
            raise _malformed(tee, "signature_length", "the signature data is too short", 584 + outer, length)
        signature, key = _KEYS.unpack_from(data, offset)
        offset += 128
        if outer:
            kind, size = _TYPED.unpack_from(data, offset)
            offset += 6
            if kind != QE_REPORT_DATA or size != end - offset:
                raise _malformed(
                    tee,
                    "qe_report_certification",
                    "the QE report's certification data does not wrap the rest",
                    [QE_REPORT_DATA, end - offset],
                    [kind, size],
                )
        qe_report = SgxBody.at(data, offset)
        offset += 384
        qe_signature = data[offset : offset + 64]
        offset += 66
        (size,) = _AUTH_LENGTH.unpack_from(data, offset - 2)
        if size > end - offset - 6:
            raise _malformed(
                tee, "qe_auth_data", "the QE's authentication data is longer than what is left", end - offset - 6, size
            )
        auth = data[offset : offset + size]
        offset += size
        kind, size = _TYPED.unpack_from(data, offset)
        offset += 6
        if size != end - offset:
            raise _malformed(
                tee, "certification_data", "the certification data does not fill what is left", end - offset, size
            )
        return cls(
            header, body, signature, key, qe_report, qe_signature, auth, kind, data[offset:end], data[end:]
        )  # fmt: skip

    def encode(self) -> bytes:
        """The quote and its tail; ``ValueError`` if a field does not fit its place."""
        signatures = (self.signature, self.attestation_key, self.qe_report_signature)
        if any(len(part) != 64 for part in signatures) or len(self.qe_auth_data) > 0xFFFF:
            raise ValueError("a field of the signature data has the wrong length")
        inner = self.qe_report.encode() + self.qe_report_signature
        inner += _AUTH_LENGTH.pack(len(self.qe_auth_data)) + self.qe_auth_data
        inner += _TYPED.pack(self.certification_type, len(self.certification_data)) + self.certification_data
        if self.header.version > 3:
            inner = _TYPED.pack(QE_REPORT_DATA, len(inner)) + inner
        inner = self.signature + self.attestation_key + inner
        return self.signed_bytes + _LENGTH.pack(len(inner)) + inner + self.tail

    @property
    def signed_bytes(self) -> bytes:
        """What the attestation key signs: header, in version 5 type and size of the body, body."""
        body = self.body.encode()
        head = _BODY_HEAD.pack(_BODY_TYPES[len(body)], len(body)) if self.header.version > 4 else b""
        return self.header.encode() + head + body

    @property
    def body_size(self) -> int:
        """Bytes of the body."""
        if isinstance(self.body, SgxBody):
            return SGX_SIZE
        return _TD_SIZES[self.body.name]

    @property
    def body_type(self) -> int:
        """1 SGX, 2 TD 1.0, 3 TD 1.5, 4 TD 1.5 extended: as version 5 names it."""
        return _BODY_TYPES[self.body_size]

    @property
    def signed_size(self) -> int:
        """Bytes at the start that the attestation key signs."""
        return HEADER_SIZE + self.body_size + (6 if self.header.version > 4 else 0)

    @property
    def qe_report_offset(self) -> int:
        """Where the 384 bytes of the QE's report begin."""
        return self.signed_size + 4 + 128 + (6 if self.header.version > 3 else 0)

    @property
    def size(self) -> int:
        """Bytes of the quote without its tail."""
        return self.qe_report_offset + 384 + 64 + 2 + len(self.qe_auth_data) + 6 + len(self.certification_data)


_TD_SIZES = {"td10": TD10_SIZE, "td15": TD15_SIZE, "td15ext": TD15_EXTENDED_SIZE}


def _header(data: bytes) -> QuoteHeader:
    if not HEADER_SIZE <= len(data) <= MAX_SIZE:
        raise _malformed("sgx", "quote_length", "not as long as a quote", f"{HEADER_SIZE} to {MAX_SIZE}", len(data))
    header = QuoteHeader(*_HEADER.unpack_from(data))
    tee = "tdx" if header.tee_type == TEE_TDX else "sgx"
    if header.version not in VERSIONS:
        raise _malformed(tee, "version", "unknown version of a quote", list(VERSIONS), header.version)
    if header.attestation_key_type != ECDSA_P256:
        raise _malformed(
            tee,
            "attestation_key_type",
            "unknown kind of attestation key",
            f"{ECDSA_P256} (ECDSA P-256)",
            header.attestation_key_type,
        )
    if header.tee_type != TEE_SGX and (header.tee_type != TEE_TDX or header.version == 3):
        raise _malformed(
            tee,
            "tee_type",
            "unknown type of TEE",
            [TEE_SGX] if header.version == 3 else [TEE_SGX, TEE_TDX],
            header.tee_type,
        )
    return header


def _body_place(data: bytes, header: QuoteHeader, tee: str) -> tuple[int, int]:
    """Offset and size of the body."""
    if header.version < 5:
        return HEADER_SIZE, TD10_SIZE if header.tee_type == TEE_TDX else SGX_SIZE
    if len(data) < HEADER_SIZE + 6:
        raise _malformed(tee, "quote_length", "the quote is cut off", f"at least {HEADER_SIZE + 6}", len(data))
    kind, size = _BODY_HEAD.unpack_from(data, HEADER_SIZE)
    if _BODY_SIZES.get(kind) != size or (kind == 1) is not (header.tee_type == TEE_SGX):
        kinds = [
            [number, size] for number, size in _BODY_SIZES.items() if (number == 1) is (header.tee_type == TEE_SGX)
        ]
        raise _malformed(tee, "body_type", "unknown type or size of the body for this TEE", kinds, [kind, size])
    return HEADER_SIZE + 6, size


def _malformed(tee: str, code: str, message: str, expected: object, got: object) -> MalformedEvidence:
    return MalformedEvidence(message, code=code, tee=tee, field=code, expected=expected, got=got, spec=SPEC)
