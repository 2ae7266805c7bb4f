"""A HyperEnclave quote: an SGX-style quote, then what makes its signer believable (``inclavare-kubetee`` 7.1).

========  ====  =========================================================================================
offset    size  what
========  ====  =========================================================================================
0         2     version, 1 (little-endian, as all numbers of the SGX-style part)
2         2     sign type: 4 = SM2 with SM3; 2 = ECDSA P-256 with SHA-256, which software monitors use
4         44    the rest of SGX's header, kept as it is
48        384   the enclave's report, as SGX lays it out
432       4     length of the signature, 64
436       64    signature r, s (big-endian) of the monitor's key over bytes 0 to 431
500       64    the monitor's public key x, y (big-endian)
564       147   TPMS_ATTEST of the TPM's quote, zeros after it
711       64    signature r, s (big-endian) of the attestation key over TPMS_ATTEST, ECDSA P-256 with SHA-256
775       1280  the attestation key's certificate, DER, zeros after it
========  ====  =========================================================================================
"""

from __future__ import annotations

import struct

import msgspec

from adyton.errors import MalformedEvidence
from adyton.tee.dcap.bodies import SgxBody
from adyton.tee.tpm.abi import Attest
from adyton.wire import der

TEE = "hyperenclave"
SPEC = "inclavare-kubetee 7.1"
SM2, ECDSA_P256 = 4, 2
SIZE = 2055
SIGNED_SIZE = 432
_LAYOUT = struct.Struct("<HH44s384sI64s64s147s64s1280s")
_ATTEST_SIZE, _CERTIFICATE_SIZE = 147, 1280


class HyperEnclaveQuote(msgspec.Struct, frozen=True):
    """One quote. Signatures and the key are 64 bytes each, as they stand."""

    sign_type: int
    header: bytes
    body: SgxBody
    signature: bytes
    monitor_key: bytes
    attest: bytes
    tpm_signature: bytes
    ak_certificate: bytes

    @classmethod
    def parse(cls, data: bytes) -> HyperEnclaveQuote:
        """From exactly 2055 bytes, or ``MalformedEvidence``."""
        if len(data) != SIZE:
            raise malformed("a HyperEnclave quote has 2055 bytes", expected=SIZE, got=len(data))
        version, sign_type, header, body, length, signature, key, attest, tpm_signature, certificate = _LAYOUT.unpack(
            data
        )
        if version != 1 or sign_type not in {SM2, ECDSA_P256} or length != len(signature):
            got = [version, sign_type, length]
            raise malformed(
                "not a HyperEnclave quote of version 1", field="header", expected=[1, "2 or 4", 64], got=got
            )
        try:
            _, _, end = der.bounds(certificate)
        except ValueError as error:
            raise malformed("no certificate of the attestation key", field="ak_certificate") from error
        if any(certificate[end:]):
            raise malformed("bytes after the certificate", field="ak_certificate")
        return cls(
            sign_type,
            header,
            SgxBody.parse(body),
            signature,
            key,
            _attest(attest),
            tpm_signature,
            certificate[:end],
        )

    def encode(self) -> bytes:
        """The bytes that ``parse`` takes; ``ValueError`` if a part does not fit its place."""
        if len(self.attest) > _ATTEST_SIZE or len(self.ak_certificate) > _CERTIFICATE_SIZE:
            raise ValueError("a part is longer than its place")
        return self.signed() + _LAYOUT.pack(
            1, self.sign_type, self.header, self.body.encode(), len(self.signature), self.signature, self.monitor_key,
            self.attest, self.tpm_signature, self.ak_certificate,
        )[SIGNED_SIZE:]  # fmt: skip

    def signed(self) -> bytes:
        """What the monitor's key signs, 432 bytes."""
        return struct.pack("<HH44s", 1, self.sign_type, self.header) + self.body.encode()


def _attest(padded: bytes) -> bytes:
    """The TPMS_ATTEST in its place: it says itself how long it is; what follows must be zeros."""
    bare = padded
    while True:
        try:
            return Attest.parse(bare).raw
        except MalformedEvidence as error:
            if error.code != "attest_tail" or not isinstance(error.expected, int) or any(bare[error.expected :]):
                raise malformed("no TPM quote in its place", field="attest", got=error.code) from error
            bare = bare[: error.expected]


def malformed(
    message: str, *, field: str | None = None, expected: object = None, got: object = None
) -> MalformedEvidence:
    """An error about the format."""
    return MalformedEvidence(message, tee=TEE, field=field, expected=expected, got=got, spec=SPEC)
